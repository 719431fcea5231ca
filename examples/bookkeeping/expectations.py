"""What the visible rules allow for each bank line, computed from the feed, the invoices and the company rules alone.

Nothing here reads the gold. Where the rules leave a choice that only a reader of the text can make (who ate the lunch,
which of two equal invoices), every choice is allowed: that is what a policy check can do, and why wrong books can pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from ttc_replay.examples.bookkeeping.chart import (
    ACCRUED,
    CHARGES,
    EQUIPMENT,
    EXCHANGE,
    INTEREST,
    LOAN,
    PREPAID,
    SALES,
    VAT_RATES,
)
from ttc_replay.examples.bookkeeping.ledger import Booking, Part
from ttc_replay.examples.bookkeeping.money import rounded, vat_in
from ttc_replay.examples.bookkeeping.world import FeedLine, Invoice, Month, Rule, World

_PERIOD = re.compile(r"\b([0-9]{2})/([0-9]{4})(?:-([0-9]{2})/([0-9]{4}))?\b")
_CARD = re.compile(r"gross ([0-9.]+[0-9]) fee ([0-9.]+[0-9])")
_LOAN = re.compile(r"principal ([0-9.]+[0-9]) interest ([0-9.]+[0-9])")
_THRESHOLD = Decimal(800)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The bookings that the rules allow for one line, and the rule that decides it (the name of a failed check)."""

    topic: str
    allowed: tuple[Booking, ...]


@lru_cache(maxsize=512)
def expectations(world: World) -> dict[str, Expectation]:
    """By line id. Raises ValueError when a line falls under no rule, which would be a fault of the generator."""
    return {line.id: _expectation(world, line) for line in world.lines}


def _expectation(world: World, line: FeedLine) -> Expectation:
    rule = world.rules.get(line.counterparty)
    if rule is None:
        return Expectation("invoice", tuple(_settlement(line, invoice) for invoice in _payable_by(world, line)))
    if rule.kind in ("card", "loan"):
        return _two_parts(rule, line)
    choices = tuple(choice for choice in rule.choices if _within_threshold(rule, choice, line))
    topic = "account"
    if (period := _PERIOD.search(line.text)) and period[0] != world.month.slash:
        topic = "cut_off"
    allowed = (_cost_parts(world.month, line, account, code) for account, code in choices)
    return Expectation(topic, tuple(Booking(line.id, parts).canonical() for parts in allowed))


def _payable_by(world: World, line: FeedLine) -> list[Invoice]:
    """The invoices that a line may pay: the one it names, else its counterparty's of that amount."""
    named = [invoice for number, invoice in world.invoices.items() if number in line.text.split()]
    equal = [
        invoice
        for invoice in world.invoices.values()
        if invoice.counterparty == line.counterparty and invoice.booked_value * invoice.sign == line.amount
    ]
    if not named and not equal:
        raise ValueError(f"line {line.id} falls under no rule and pays no invoice")
    return named or equal


def _settlement(line: FeedLine, invoice: Invoice) -> Booking:
    """The invoice in full; what is missing or over goes to its account."""
    settled = invoice.booked_value * invoice.sign
    account = CHARGES if invoice.booked_rate is None else EXCHANGE
    parts = (Part(account, line.amount - settled),) if line.amount != settled else ()
    return Booking(line.id, parts, invoice.number, settled)


def _two_parts(rule: Rule, line: FeedLine) -> Expectation:
    """Card payouts (gross and fee) and loan instalments (principal and interest), as the text states them."""
    found = (_CARD if rule.kind == "card" else _LOAN).search(line.text)
    if found is None:
        raise ValueError(f"line {line.id}: the text does not state its parts")
    first, second = Decimal(found[1]), Decimal(found[2])
    if rule.kind == "card":
        parts = (Part(SALES, first, "S20", vat_in(first, VAT_RATES["S20"])), Part(CHARGES, -second))
        return Expectation("fee", (Booking(line.id, parts).canonical(),))
    return Expectation("loan", (Booking(line.id, (Part(LOAN, -first), Part(INTEREST, -second))).canonical(),))


def _within_threshold(rule: Rule, choice: tuple[str, str], line: FeedLine) -> bool:
    if rule.kind != "threshold":
        return True
    account, code = choice
    net = abs(line.amount - vat_in(line.amount, VAT_RATES[code]))
    return (account == EQUIPMENT) == (net >= _THRESHOLD)


def _cost_parts(month: Month, line: FeedLine, account: str, code: str) -> tuple[Part, ...]:
    """The line on its cost account, or where the cut-off rule moves it."""
    period = _PERIOD.search(line.text)
    if period is None:
        return (_taxed(account, line.amount, code),)
    first = Month(int(period[2]), int(period[1]))
    last = Month(int(period[4]), int(period[3])) if period[3] else first
    if first > month:
        return (_taxed(PREPAID, line.amount, code),)
    if last < month:
        return (_taxed(ACCRUED, line.amount, code),)
    months = (last.year - first.year) * 12 + last.number - first.number + 1
    if months == 1:
        return (_taxed(account, line.amount, code),)
    share = rounded(line.amount / months)
    return _taxed(account, share, code), _taxed(PREPAID, line.amount - share, code)


def _taxed(account: str, amount: Decimal, code: str) -> Part:
    return Part(account, amount, code, vat_in(amount, VAT_RATES[code]))
