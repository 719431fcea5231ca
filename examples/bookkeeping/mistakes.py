"""Mistakes that bookkeeping agents make: each turns the right booking of a bank line into a wrong one.

None means that the mistake cannot be made on that line.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from typing import TypeAlias

from ttc_replay.examples.bookkeeping.chart import (
    ACCRUED,
    EQUIPMENT,
    GOODS,
    PREPAID,
    SALES,
    SUPPLIES,
    SUSPENSE,
    VAT_RATES,
)
from ttc_replay.examples.bookkeeping.ledger import Booking, Part
from ttc_replay.examples.bookkeeping.money import CENT, ZERO, vat_in
from ttc_replay.examples.bookkeeping.world import FeedLine, World

Mistake: TypeAlias = Callable[[World, FeedLine, Booking], Booking | None]

_TAKEN_FOR = {
    EQUIPMENT: SUPPLIES,
    SUPPLIES: EQUIPMENT,
    "6100": "6700",
    "6200": "6300",
    "6300": "6200",
    "6400": "6600",
    "6700": "6800",
    "6800": "7000",
    SALES: "4100",
}
_CODE_FOR = {"S20": "R10", "R10": "S20", "E0": "S20", "N": "S20"}


def sign_flip(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """Money out is posted as money in, or the other way round."""
    if right.invoice is not None or len(right.parts) != 1:
        return None
    part = right.parts[0]
    return replace(right, parts=(replace(part, amount=-part.amount, vat_amount=-part.vat_amount + ZERO),))


def wrong_account(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """An account that sounds alike; the company's rule for the counterparty says otherwise."""
    rule = world.rules.get(line.counterparty)
    if rule is None or rule.kind == "either" or len(right.parts) != 1 or right.parts[0].account not in _TAKEN_FOR:
        return None
    return replace(right, parts=(replace(right.parts[0], account=_TAKEN_FOR[right.parts[0].account]),))


def wrong_vat_code(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """Another VAT code, with the amount computed for it."""
    if right.invoice is not None or len(right.parts) != 1:
        return None
    part = right.parts[0]
    return replace(right, parts=(taxed(part.account, part.amount, _CODE_FOR[part.vat_code]),))


def vat_rounding(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """The VAT is cut off after the cent instead of rounded half up."""
    parts = tuple(replace(part, vat_amount=_cut_vat(part)) for part in right.parts)
    return replace(right, parts=parts) if parts != right.parts else None


def misread(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """The other choice that the rules leave to a reader: staff for customers, stock for own use, the equal invoice."""
    if right.invoice is not None:
        paid = world.invoices[right.invoice]
        twins = (
            other.number
            for other in world.invoices.values()
            if (other.counterparty, other.amount) == (paid.counterparty, paid.amount) and other is not paid
        )
        twin = next(twins, None)
        return None if twin is None else replace(right, invoice=twin)
    rule = world.rules[line.counterparty]
    if rule.kind != "either":
        return None
    account, code = next(choice for choice in rule.choices if choice[0] != right.parts[0].account)
    return replace(right, parts=(taxed(account, line.amount, code),))


def cut_off_ignored(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """A cost of another month stays on the cost account of this one."""
    if not any(part.account in (PREPAID, ACCRUED) for part in right.parts):
        return None
    account, code = world.rules[line.counterparty].choices[0]
    return replace(right, parts=(taxed(account, line.amount, code),))


def fee_netted(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """A payout or an instalment is booked in one sum: the fee or the interest is lost in it."""
    rule = world.rules.get(line.counterparty)
    if rule is None or rule.kind not in ("card", "loan"):
        return None
    account, code = rule.choices[0]
    return replace(right, parts=(taxed(account, line.amount, code),))


def invoice_left_open(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """Settled for what came in where a charge was kept; else posted as a sale or a purchase of its own."""
    if right.invoice is None:
        return None
    if right.parts:
        return Booking(line.id, (), right.invoice, line.amount)
    return Booking(line.id, (taxed(SALES if line.amount > 0 else GOODS, line.amount, "S20"),))


def exchange_rounding(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """The booked value of a foreign invoice is cut off after the cent: a cent stays open."""
    invoice = world.invoices.get(right.invoice or "")
    if invoice is None or invoice.booked_rate is None:
        return None
    settled = (invoice.amount / invoice.booked_rate).quantize(CENT, ROUND_DOWN) * invoice.sign
    if settled == right.settled:
        return None
    return Booking(line.id, (replace(right.parts[0], amount=line.amount - settled),), right.invoice, settled)


def suspense(world: World, line: FeedLine, right: Booking) -> Booking | None:
    """Parked on 9000 for later."""
    return Booking(line.id, (Part(SUSPENSE, line.amount),))


MISTAKES: dict[str, Mistake] = {
    "sign_flip": sign_flip,
    "wrong_account": wrong_account,
    "wrong_vat_code": wrong_vat_code,
    "vat_rounding": vat_rounding,
    "misread": misread,
    "cut_off_ignored": cut_off_ignored,
    "fee_netted": fee_netted,
    "invoice_left_open": invoice_left_open,
    "exchange_rounding": exchange_rounding,
    "suspense": suspense,
}
"""By name, in the order in which an agent falls for them. Duplicates, skipped lines and early closes are behaviour."""

_BLIND = ("misread", "cut_off_ignored", "wrong_account", "exchange_rounding", "vat_rounding", "wrong_vat_code")
BLIND_EVERY = 4


def blind_spot(world: World) -> dict[str, Booking]:
    """What every agent gets wrong alike, in every fourth task: runs of one model share misunderstandings.

    No recorded run then holds the right action for that line, so a search that only recombines runs cannot mend it.
    """
    if world.seed % BLIND_EVERY != 2:
        return {}
    rng = random.Random(f"blind/{world.difficulty}/{world.seed}")
    for name in rng.sample(_BLIND, len(_BLIND)):
        for line in rng.sample(world.lines, len(world.lines)):
            wrong = MISTAKES[name](world, line, world.gold[line.id])
            if wrong is not None:
                return {line.id: wrong}
    return {}


def taxed(account: str, amount: Decimal, code: str) -> Part:
    """A part with the VAT of its code."""
    return Part(account, amount, code, vat_in(amount, VAT_RATES[code]))


def _cut_vat(part: Part) -> Decimal:
    rate = VAT_RATES[part.vat_code]
    return (part.amount * rate / (100 + rate)).quantize(CENT, ROUND_DOWN) + ZERO
