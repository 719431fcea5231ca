"""Makes the months: one small function for each thing that happens on a bank account, with the auditor's booking.

The gold is written here from what really happened; the policy verifier finds its expectations on its own, from the feed
texts and the company rules. A test holds the two against each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal, TypeAlias

from ttc_replay.examples.bookkeeping import names
from ttc_replay.examples.bookkeeping.chart import (
    ACCRUED,
    BANK,
    CHARGES,
    EQUIPMENT,
    EQUITY,
    EXCHANGE,
    GOODS,
    INTEREST,
    LOAN,
    PAYABLES,
    PREPAID,
    RECEIVABLES,
    SALES,
    SUPPLIES,
    VAT_RATES,
)
from ttc_replay.examples.bookkeeping.ledger import Booking, Part
from ttc_replay.examples.bookkeeping.money import ZERO, rounded, vat_in
from ttc_replay.examples.bookkeeping.world import Difficulty, FeedLine, Invoice, Month, Rule, World


@dataclass
class Draft:
    """A month in the making."""

    rng: random.Random
    month: Month
    planned: list[tuple[int, FeedLine, Booking]] = field(default_factory=list)
    invoices: list[Invoice] = field(default_factory=list)
    rules: dict[str, Rule] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def pick(self, pool: tuple[str, ...]) -> str:
        """A name of the pool that this month has not used yet."""
        name = self.rng.choice([item for item in pool if item not in self.used])
        self.used.add(name)
        return name

    def money(self, low: int, high: int) -> Decimal:
        """An amount between two whole numbers of EUR, with cents."""
        return Decimal(self.rng.randrange(low * 100, high * 100)).scaleb(-2)

    def cost_rule(self, counterparty: str, account: str, code: str) -> None:
        """The plain rule: this counterparty, this account, this VAT code."""
        self.rules[counterparty] = Rule(counterparty, "cost", ((account, code),), f"account {account}, VAT {code}")

    def add(self, counterparty: str, text: str, booking: Booking, day: int | None = None) -> None:
        """A bank line and the auditor's booking of it; the line's number comes later."""
        day = self.rng.randrange(2, 28) if day is None else day
        date = f"{self.month.label}-{day:02d}"
        self.planned.append((day, FeedLine("", date, counterparty, text, booking.bank_amount), booking))

    def invoice(self, kind: Literal["sales", "purchase"], counterparty: str, amount: Decimal) -> Invoice:
        """A new open invoice, issued in the two months before."""
        first = 2000 if kind == "sales" else 5000
        number = f"{'S' if kind == 'sales' else 'P'}-{first + 17 * len(self.invoices) + self.rng.randrange(1, 17)}"
        issued = f"{self.month.shifted(-self.rng.randrange(1, 3)).label}-{self.rng.randrange(1, 28):02d}"
        order = str(7000 + 41 * len(self.invoices) + self.rng.randrange(1, 41))
        made = Invoice(number, kind, counterparty, issued, order, amount)
        self.invoices.append(made)
        return made


def taxed(account: str, amount: Decimal, code: str) -> Part:
    """A part with its VAT computed by the rule."""
    return Part(account, amount, code, vat_in(amount, VAT_RATES[code]))


def rent(draft: Draft) -> None:
    """This month's rent."""
    _cost(draft, names.LANDLORDS, ("6100", "E0"), f"Rent {draft.month.slash}", (900, 2600))


def rent_ahead(draft: Draft) -> None:
    """Next month's rent, paid at the end of this one: cut-off."""
    later = draft.month.shifted(1).slash
    _cost(draft, names.LANDLORDS, ("6100", "E0"), f"Rent {later}", (900, 2600), to=PREPAID)


def software(draft: Draft) -> None:
    """A subscription of this month."""
    _cost(draft, names.SOFTWARE, ("6200", "S20"), f"Subscription {draft.month.slash}", (20, 400))


def software_behind(draft: Draft) -> None:
    """Usage of last month, paid in this one: cut-off."""
    earlier = draft.month.shifted(-1).slash
    _cost(draft, names.SOFTWARE, ("6200", "S20"), f"Usage {earlier}", (20, 400), to=ACCRUED)


def telephone(draft: Draft) -> None:
    """The telephone bill of this month."""
    _cost(draft, names.TELEPHONE, ("6300", "S20"), f"Bill {draft.month.slash}", (30, 160))


def travel(draft: Draft) -> None:
    """A ticket."""
    _cost(draft, names.TRAVEL, ("6400", "R10"), f"Ticket {draft.rng.randrange(10000, 99999)}", (15, 240))


def travel_twins(draft: Draft) -> None:
    """Two equal tickets on one day: two payments, no duplicate of the feed."""
    counterparty = draft.pick(names.TRAVEL)
    draft.cost_rule(counterparty, "6400", "R10")
    day, first = draft.rng.randrange(2, 28), draft.rng.randrange(10000, 99990)
    part = taxed("6400", -draft.money(15, 240), "R10")
    for ticket in (first, first + 1):
        draft.add(counterparty, f"Ticket {ticket}", Booking("", (part,)), day)


def bank_fee(draft: Draft) -> None:
    """The bank's own fee."""
    _cost(draft, names.BANKS, (CHARGES, "N"), f"Account fee {draft.month.slash}", (6, 40))


def refund(draft: Draft) -> None:
    """A supplier gives money back: the account of the purchase, money in."""
    counterparty = draft.pick(names.SOFTWARE)
    draft.cost_rule(counterparty, "6200", "S20")
    draft.add(counterparty, "Refund of cancelled licence", Booking("", (taxed("6200", draft.money(20, 200), "S20"),)))


def equipment(draft: Draft) -> None:
    """One item on one side of 800.00 net; half of the cheap ones cost more than 800.00 gross."""
    counterparty = draft.pick(names.EQUIPMENT)
    draft.rules[counterparty] = Rule(
        counterparty,
        "threshold",
        ((SUPPLIES, "S20"), (EQUIPMENT, "S20")),
        "single items: 6500, from 800.00 net 0400; S20",
    )
    dear = draft.rng.random() < 0.5
    amount = draft.money(961, 1900) if dear else draft.money(*draft.rng.choice([(90, 780), (810, 958)]))
    item = draft.rng.choice(["notebook", "label printer", "workbench", "scanner"])
    draft.add(counterparty, f"1 x {item}", Booking("", (taxed(EQUIPMENT if dear else SUPPLIES, -amount, "S20"),)))


def meal(draft: Draft) -> None:
    """Staff or customers: only who reads the text can tell."""
    counterparty = draft.pick(names.RESTAURANTS)
    text = "meals: own staff 6600 with R10; customers as guests 6610 with N"
    draft.rules[counterparty] = Rule(counterparty, "either", (("6600", "R10"), ("6610", "N")), text)
    guests = draft.rng.random() < 0.5
    company = (
        draft.rng.choice(names.CUSTOMERS) if guests else draft.rng.choice(["team", "workshop crew", "new colleagues"])
    )
    part = taxed("6610" if guests else "6600", -draft.money(25, 260), "N" if guests else "R10")
    draft.add(counterparty, f"Lunch {draft.rng.randrange(2, 8)} pers., {company}", Booking("", (part,)))


def marketplace(draft: Draft) -> None:
    """Goods for resale or for own use: only who reads the text can tell."""
    counterparty = draft.pick(names.MARKETPLACES)
    text = "goods for resale 6000, for own use 6500; S20"
    draft.rules[counterparty] = Rule(counterparty, "either", ((GOODS, "S20"), (SUPPLIES, "S20")), text)
    resale = draft.rng.random() < 0.5
    item = draft.rng.choice(
        ["40 desk lamps, our shop", "25 tool bags for stock"] if resale else ["toner, paper", "desk chair"]
    )
    part = taxed(GOODS if resale else SUPPLIES, -draft.money(60, 640), "S20")
    draft.add(counterparty, f"Order {draft.rng.randrange(90000, 99999)} {item}", Booking("", (part,)))


def card_receipt(draft: Draft) -> None:
    """A card processor pays out sales less its fee."""
    counterparty = draft.pick(names.PROCESSORS)
    text = "card sales, paid out net of fee: gross 4000 with S20, fee 6800 with N"
    draft.rules[counterparty] = Rule(counterparty, "card", ((SALES, "S20"),), text)
    gross = draft.money(400, 3000)
    fee = rounded(gross * Decimal("0.019")) + Decimal("0.25")
    booking = Booking("", (taxed(SALES, gross, "S20"), Part(CHARGES, -fee)))
    draft.add(counterparty, f"Payout gross {gross} fee {fee}", booking)


def loan(draft: Draft) -> None:
    """An instalment of interest and principal."""
    counterparty = draft.pick(names.LENDERS)
    text = "loan instalments: principal 2500, interest 7000, both N"
    draft.rules[counterparty] = Rule(counterparty, "loan", ((LOAN, "N"), (INTEREST, "N")), text)
    interest, principal = draft.money(20, 180), draft.money(300, 900)
    booking = Booking("", (Part(LOAN, -principal), Part(INTEREST, -interest)))
    number = draft.rng.randrange(3, 40)
    draft.add(counterparty, f"Instalment {number}: principal {principal} interest {interest}", booking)


def premium(draft: Draft) -> None:
    """A year's insurance from this month on: one twelfth is this month's, the rest is prepaid."""
    counterparty = draft.pick(names.INSURERS)
    draft.cost_rule(counterparty, "6700", "E0")
    total = draft.money(300, 1800)
    share = rounded(total / 12)
    text = f"Premium {draft.month.slash}-{draft.month.shifted(11).slash}"
    draft.add(counterparty, text, Booking("", (Part("6700", -share, "E0"), Part(PREPAID, share - total, "E0"))))


def customer_pays(draft: Draft) -> None:
    """A customer pays one invoice by its number."""
    _settle(draft, draft.invoice("sales", draft.pick(names.CUSTOMERS), draft.money(200, 4000)))


def supplier_paid(draft: Draft) -> None:
    """We pay a supplier's invoice by its number."""
    _settle(draft, draft.invoice("purchase", draft.pick(names.SUPPLIERS), draft.money(90, 2200)))


def customer_pays_less_charges(draft: Draft) -> None:
    """The sender's bank kept a charge: the invoice is paid all the same."""
    _settle(
        draft,
        draft.invoice("sales", draft.pick(names.CUSTOMERS), draft.money(300, 3000)),
        Part(CHARGES, -draft.money(5, 25)),
    )


def customer_with_twins(draft: Draft) -> None:
    """Two open invoices of one amount; the payment names the order of one of them."""
    counterparty, amount = draft.pick(names.CUSTOMERS), draft.money(150, 1500)
    pair = [draft.invoice("sales", counterparty, amount) for _ in range(2)]
    paid = draft.rng.choice(pair)
    draft.add(counterparty, f"Your delivery, order {paid.order}", Booking("", (), paid.number, amount))


def foreign_invoice(draft: Draft) -> None:
    """A USD invoice paid at another rate than it was booked at."""
    kind: Literal["sales", "purchase"] = draft.rng.choice(["sales", "purchase"])
    made = draft.invoice(kind, draft.pick(names.FOREIGN), draft.money(400, 4000))
    booked = Decimal(draft.rng.randrange(10400, 11200)) / 10000
    made = replace(made, currency="USD", booked_rate=booked)
    draft.invoices[-1] = made
    moved = draft.rng.choice([-1, 1]) * Decimal(draft.rng.randrange(60, 300)) / 10000
    paid = rounded(made.amount / (booked + moved)) * made.sign
    settled = made.booked_value * made.sign
    booking = Booking("", (Part(EXCHANGE, paid - settled),), made.number, settled)
    draft.add(made.counterparty, f"{made.number} USD {made.amount}", booking)


Scenario: TypeAlias = Callable[[Draft], None]


def _chosen(difficulty: Difficulty, rng: random.Random) -> list[Scenario]:
    ambiguous: list[Scenario] = [meal, marketplace, customer_with_twins]
    if difficulty == "easy":
        extra: list[Scenario] = [supplier_paid, travel, telephone]
        last = [rng.choice(ambiguous)] if rng.random() < 0.75 else rng.sample(extra, 2)
        return [rent, software, card_receipt, customer_pays, *last]
    if difficulty == "medium":
        fixed = [rng.choice([rent_ahead, software_behind]), card_receipt, customer_pays, supplier_paid, equipment]
        return [
            *fixed,
            rng.choice(ambiguous),
            *rng.sample([travel_twins, telephone, customer_pays_less_charges, bank_fee], 2),
        ]
    fixed = [card_receipt, supplier_paid, equipment, customer_pays_less_charges, foreign_invoice]
    cut_off = [rent_ahead, software_behind]
    return [
        *fixed,
        *cut_off,
        *rng.sample(ambiguous, 2),
        *rng.sample([premium, loan, refund, travel_twins, bank_fee], 2),
    ]


def build(difficulty: Difficulty, seed: int) -> World:
    """The month of a difficulty and a seed. Deterministic: all randomness comes from the two."""
    rng = random.Random(f"bookkeeping/{difficulty}/{seed}")
    draft = Draft(rng, Month(rng.choice([2024, 2025]), rng.randrange(1, 13)))
    company = rng.choice(names.COMPANIES)
    for scenario in _chosen(difficulty, rng):
        scenario(draft)
    for _ in range(2):  # open invoices that nobody pays this month
        draft.invoice("sales", draft.pick(names.CUSTOMERS), draft.money(200, 4000))
    draft.invoice("purchase", draft.pick(names.SUPPLIERS), draft.money(90, 2200))
    return _finished(draft, difficulty, seed, company)


def _finished(draft: Draft, difficulty: Difficulty, seed: int, company: str) -> World:
    lines: list[FeedLine] = []
    gold: dict[str, Booking] = {}
    for number, (_, line, booking) in enumerate(sorted(draft.planned, key=lambda item: item[0]), 1):
        line_id = f"L{number:02d}"
        lines.append(replace(line, id=line_id))
        gold[line_id] = replace(booking, line=line_id)
    bank = draft.money(9000, 30000)
    owed = {sign: sum((i.booked_value for i in draft.invoices if i.sign == sign), ZERO) for sign in (1, -1)}
    opening = {BANK: bank, RECEIVABLES: owed[1], PAYABLES: -owed[-1], EQUITY: owed[-1] - owed[1] - bank}
    invoices = {invoice.number: invoice for invoice in sorted(draft.invoices, key=lambda item: item.number)}
    rules = {name: draft.rules[name] for name in sorted(draft.rules)}
    return World(difficulty, seed, company, draft.month, opening, tuple(lines), invoices, rules, gold)


def _cost(
    draft: Draft,
    pool: tuple[str, ...],
    rule: tuple[str, str],
    text: str,
    between: tuple[int, int],
    *,
    to: str | None = None,
) -> None:
    """A cost under a plain rule, booked to `to` instead of the rule's account where the cut-off says so."""
    counterparty = draft.pick(pool)
    account, code = rule
    draft.cost_rule(counterparty, account, code)
    draft.add(counterparty, text, Booking("", (taxed(to or account, -draft.money(*between), code),)))


def _settle(draft: Draft, invoice: Invoice, charge: Part | None = None) -> None:
    """A payment that names the invoice, less a charge that somebody kept."""
    parts = () if charge is None else (charge,)
    text = invoice.number if charge is None else f"{invoice.number} less charges {-charge.amount}"
    draft.add(invoice.counterparty, text, Booking("", parts, invoice.number, invoice.booked_value * invoice.sign))
