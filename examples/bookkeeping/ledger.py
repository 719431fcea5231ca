"""The ledger: immutable bookings, each linked to one bank line, kept in books that forks share.

Books are a plain dict from line to the bookings linked to it, and are never changed in place: `added` and `undone`
return new ones. A fork is therefore one reference, whatever the ledger holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from ttc_replay.examples.bookkeeping.chart import BANK, PAYABLES, RECEIVABLES, vat_account
from ttc_replay.examples.bookkeeping.money import ZERO


@dataclass(frozen=True, slots=True)
class Part:
    """One account's share of a bank line: `amount` is gross and signed as in the feed, `vat_amount` is inside it."""

    account: str
    amount: Decimal
    vat_code: str = "N"
    vat_amount: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Booking:
    """What one bank line was booked as: parts, and the invoice that it settles by `settled` (signed as in the feed)."""

    line: str
    parts: tuple[Part, ...] = ()
    invoice: str | None = None
    settled: Decimal = ZERO

    @property
    def bank_amount(self) -> Decimal:
        """What the bank account moves by."""
        return sum((part.amount for part in self.parts), self.settled)

    def canonical(self) -> Booking:
        """The same booking with its parts in a fixed order."""
        parts = sorted(self.parts, key=lambda part: (part.account, part.amount, part.vat_code, part.vat_amount))
        return Booking(self.line, tuple(parts), self.invoice, self.settled)

    def rows(self) -> Iterator[tuple[str, Decimal]]:
        """Double entry: (account, amount), debit positive. The rows of a booking add up to zero."""
        yield BANK, self.bank_amount
        if self.invoice is not None:
            yield (RECEIVABLES if self.settled > 0 else PAYABLES), -self.settled
        for part in self.parts:
            yield part.account, part.vat_amount - part.amount
            if part.vat_amount:
                yield vat_account(part.account), -part.vat_amount


Books: TypeAlias = Mapping[str, tuple[Booking, ...]]


def added(books: Books, booking: Booking) -> Books:
    """New books with one booking more."""
    return {**books, booking.line: (*books.get(booking.line, ()), booking)}


def undone(books: Books, line: str) -> Books:
    """New books without the latest booking of a line. Raises KeyError when it has none."""
    rest = books[line][:-1]
    others = {key: value for key, value in books.items() if key != line}
    return {**others, line: rest} if rest else others


def all_bookings(books: Books) -> list[Booking]:
    """Every booking, ordered by line, so that the order in which lines were booked leaves no trace."""
    return [booking for line in sorted(books) for booking in books[line]]


def settled_by_invoice(books: Books) -> dict[str, Decimal]:
    """How much of each invoice is settled, signed as in the feed; untouched invoices are absent."""
    totals: dict[str, Decimal] = {}
    for bookings in books.values():
        for booking in bookings:
            if booking.invoice is not None:
                totals[booking.invoice] = totals.get(booking.invoice, ZERO) + booking.settled
    return totals


def balances(opening: Mapping[str, Decimal], books: Books) -> dict[str, Decimal]:
    """Balance by account, debit positive; accounts that never moved are absent."""
    totals = dict(opening)
    for bookings in books.values():
        for booking in bookings:
            for account, amount in booking.rows():
                totals[account] = totals.get(account, ZERO) + amount
    return totals


def booking_to_json(booking: Booking) -> dict[str, Any]:
    """Plain JSON, money as text."""
    parts = [
        {"account": part.account, "amount": str(part.amount), "vat_code": part.vat_code, "vat": str(part.vat_amount)}
        for part in booking.parts
    ]
    return {"line": booking.line, "parts": parts, "invoice": booking.invoice, "settled": str(booking.settled)}


def booking_from_json(value: Mapping[str, Any]) -> Booking:
    """The inverse of `booking_to_json`."""
    parts = tuple(
        Part(part["account"], Decimal(part["amount"]), part["vat_code"], Decimal(part["vat"]))
        for part in value["parts"]
    )
    return Booking(value["line"], parts, value["invoice"], Decimal(value["settled"]))


def books_from_json(bookings: list[Mapping[str, Any]]) -> Books:
    """Books from the `bookings` of an environment's state."""
    books: Books = {}
    for value in bookings:
        books = added(books, booking_from_json(value))
    return books
