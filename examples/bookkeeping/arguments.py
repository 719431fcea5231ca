"""From a tool call's arguments to a booking, or a refusal that the agent reads."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ttc_replay.examples.bookkeeping.chart import ACCOUNTS, VAT_RATES
from ttc_replay.examples.bookkeeping.ledger import Booking, Books, Part, settled_by_invoice
from ttc_replay.examples.bookkeeping.money import ZERO, parse_money
from ttc_replay.examples.bookkeeping.tools import KNOWN, PART_KEYS, REQUIRED
from ttc_replay.examples.bookkeeping.world import FeedLine, World

MAX_PARTS = 12
MAX_BOOKINGS_PER_LINE = 5


class Refused(Exception):
    """A rule of the books or of a tool's arguments is broken; `str()` is what the agent is told."""


def checked(name: str, arguments: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The arguments, once the tool exists and all required and no unknown ones are there. Raises Refused."""
    if name not in REQUIRED:
        raise Refused(f"there is no tool {name}; tools: {', '.join(REQUIRED)}")
    if arguments is None:
        raise Refused("the arguments are not a JSON object")
    if missing := [key for key in REQUIRED[name] if key not in arguments]:
        raise Refused(f"missing argument: {', '.join(missing)}")
    if unknown := sorted(key for key in arguments if key not in KNOWN[name]):
        raise Refused(f"unknown argument: {', '.join(unknown)}")
    return arguments


def text_of(arguments: Mapping[str, Any], key: str) -> str:
    """A text argument. Raises Refused."""
    value = arguments[key]
    if not isinstance(value, str):
        raise Refused(f"{key} must be a text")
    return value


def line_of(world: World, arguments: Mapping[str, Any]) -> FeedLine:
    """The bank line that the arguments name. Raises Refused."""
    name = text_of(arguments, "line")
    if name not in world.line:
        raise Refused(f"there is no bank line {name[:40]!r}")
    return world.line[name]


def posting(world: World, arguments: Mapping[str, Any]) -> Booking:
    """`post`: the whole line to one account. Raises Refused."""
    return Booking(line_of(world, arguments).id, (_part(arguments),))


def splitting(world: World, arguments: Mapping[str, Any]) -> Booking:
    """`split`: the line to several accounts, which add up to it. Raises Refused."""
    line, given = line_of(world, arguments), arguments["parts"]
    if not isinstance(given, list) or not 2 <= len(given) <= MAX_PARTS:
        raise Refused(f"parts must be a list of 2 to {MAX_PARTS} parts")
    parts = tuple(_part(_part_keys(item)) for item in given)
    total = sum((part.amount for part in parts), ZERO)
    if total != line.amount:
        raise Refused(f"the parts add up to {total}, the line is {line.amount}")
    return Booking(line.id, parts)


def matching(world: World, books: Books, arguments: Mapping[str, Any]) -> Booking:
    """`match_invoice`: the line settles an invoice, any difference goes to an account. Raises Refused."""
    line, number = line_of(world, arguments), text_of(arguments, "invoice")
    invoice = world.invoices.get(number)
    if invoice is None:
        raise Refused(f"there is no invoice {number[:40]!r}")
    if line.amount * invoice.sign < 0:
        raise Refused(
            f"{number} is a {invoice.kind} invoice; line {line.id} is money {'in' if line.amount > 0 else 'out'}"
        )
    settled = _money(arguments, "settled") if "settled" in arguments else abs(line.amount)
    if settled <= 0:
        raise Refused("settled must be positive")
    before = abs(settled_by_invoice(books).get(number, ZERO))
    if before + settled > invoice.booked_value:
        raise Refused(f"settled {settled} is more than is open on {number}")
    difference = line.amount - settled * invoice.sign
    return Booking(line.id, _difference(arguments, difference), number, settled * invoice.sign)


def _difference(arguments: Mapping[str, Any], difference: Decimal) -> tuple[Part, ...]:
    if not difference:
        return ()
    if "difference_account" not in arguments:
        raise Refused(f"the difference of {difference} needs a difference_account")
    return (Part(_account(text_of(arguments, "difference_account")), difference),)


def _part_keys(item: Any) -> Mapping[str, Any]:
    if not isinstance(item, Mapping) or set(item) != PART_KEYS:
        raise Refused(f"each part needs exactly {', '.join(sorted(PART_KEYS))}")
    return item


def _part(arguments: Mapping[str, Any]) -> Part:
    account, code = _account(text_of(arguments, "account")), text_of(arguments, "vat_code")
    amount, vat = _money(arguments, "amount"), _money(arguments, "vat_amount")
    if code not in VAT_RATES:
        raise Refused(f"there is no VAT code {code[:40]!r}; codes: {', '.join(VAT_RATES)}")
    if not amount:
        raise Refused("amount must not be zero")
    if not VAT_RATES[code] and vat:
        raise Refused(f"VAT code {code} has no VAT: vat_amount must be 0.00")
    if vat and (vat * amount < 0 or abs(vat) >= abs(amount)):
        raise Refused("vat_amount must be inside amount and have its sign")
    return Part(account, amount, code, vat)


def _account(code: str) -> str:
    if code not in ACCOUNTS:
        raise Refused(f"there is no account {code[:40]!r}")
    if ACCOUNTS[code].kind == "control":
        raise Refused(f"account {code} {ACCOUNTS[code].name} is moved by the tools, not posted to")
    return code


def _money(arguments: Mapping[str, Any], key: str) -> Decimal:
    try:
        return parse_money(arguments[key])
    except ValueError as wrong:
        raise Refused(f"{key} {wrong}") from None
