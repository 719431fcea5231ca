"""The bookkeeping world as an environment: forkable, deterministic, in memory.

The whole mutable state is one reference to immutable books and one flag, so a fork costs two assignments. Observations
are JSON texts; whatever is wrong with a call comes back as `{"error": ...}` with the books unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ttc_replay import Message, StepResult, Task, ToolCall
from ttc_replay.examples.bookkeeping.arguments import (
    MAX_BOOKINGS_PER_LINE,
    Refused,
    checked,
    line_of,
    matching,
    posting,
    splitting,
    text_of,
)
from ttc_replay.examples.bookkeeping.chart import BANK
from ttc_replay.examples.bookkeeping.ledger import (
    Booking,
    Books,
    added,
    all_bookings,
    balances,
    booking_to_json,
    settled_by_invoice,
    undone,
)
from ttc_replay.examples.bookkeeping.money import ZERO
from ttc_replay.examples.bookkeeping.prompt import prompt_messages
from ttc_replay.examples.bookkeeping.starter import EXAMPLES, STARTER_TOOLS, Desk, starter_prompt
from ttc_replay.examples.bookkeeping.starter_scenarios import is_starter, starter_world_of
from ttc_replay.examples.bookkeeping.tools import TOOLS
from ttc_replay.examples.bookkeeping.verifiers import identity_failures
from ttc_replay.examples.bookkeeping.world import DIFFICULTIES, Invoice, World, world_of

LEVELS = ("starter", *DIFFICULTIES)


class BookkeepingEnvironment:
    """One month's books. Ends with `close_month`, or on a message without calls (the month then stays open).

    `strict_close` makes `close_month` refuse while bank lines are open; the shipped logs were made without it.
    The task's id says which level it is of. `level`: tasks of other levels are refused. `examples`: how many worked
    examples the prompt of a starter task has, 0 to 8. Raises ValueError on options that cannot be.
    """

    inline = True

    def __init__(self, *, strict_close: bool = False, level: str | None = None, examples: int = EXAMPLES) -> None:
        if level is not None and level not in LEVELS:
            raise ValueError(f"level {level!r}; levels: {', '.join(LEVELS)}")
        if not 0 <= examples <= EXAMPLES:
            raise ValueError(f"examples {examples}: from 0 to {EXAMPLES}")
        self._strict_close, self._level, self._examples = strict_close, level, examples
        self._desk: Desk | None = None
        self._world: World | None = None
        self._books: Books = {}
        self._closed = False

    def reset(self, task: Task) -> Sequence[Message]:
        """Start the task; its prompt. Raises ValueError for an unknown task id and for one of another level."""
        if self._level is not None and not task.id.startswith(f"bookkeeping/{self._level}"):
            raise ValueError(f"{task.id!r} is no task of level {self._level}")
        self._desk = Desk(starter_world_of(task)) if is_starter(task.id) else None
        if self._desk is not None:
            return starter_prompt(self._desk.world, self._examples)
        self._world, self._books, self._closed = world_of(task), {}, False
        return prompt_messages(self._world)

    def step(self, action: Message) -> StepResult:
        """Execute the calls of a message in order. The step that ends the run carries the identity check's verdict."""
        if self._desk is not None:
            self._desk, result = self._desk.step(action)
            return result
        world = self._require_world()
        was_closed = self._closed
        observations = [self._execute(world, call) for call in action.tool_calls]
        done = self._closed or not action.tool_calls
        if not done or was_closed:
            return StepResult(observations, done)
        failures = identity_failures(world, self._books, self._closed)
        return StepResult(observations, True, 0.0 if failures else 1.0, {"identity_failures": failures})

    def fork(self) -> BookkeepingEnvironment:
        """An independent copy; books are never changed in place, so sharing them is safe."""
        copy = BookkeepingEnvironment.__new__(BookkeepingEnvironment)
        copy._strict_close, copy._level, copy._examples = self._strict_close, self._level, self._examples
        copy._desk = self._desk
        copy._world, copy._books, copy._closed = self._world, self._books, self._closed
        return copy

    def tools(self) -> list[dict[str, Any]]:
        """The eight tools; on the starter level the one."""
        return list(STARTER_TOOLS if self._desk is not None or self._level == "starter" else TOOLS)

    def state(self) -> dict[str, Any]:
        """The books as plain JSON, money as text: what the verifiers read."""
        if self._desk is not None:
            return self._desk.state()
        world = self._require_world()
        totals = balances(world.opening, self._books)
        return {
            "month": world.month.label,
            "closed": self._closed,
            "bookings": [booking_to_json(booking) for booking in all_bookings(self._books)],
            "settled": {key: str(value) for key, value in sorted(settled_by_invoice(self._books).items())},
            "balances": {key: str(totals[key]) for key in sorted(totals)},
        }

    def state_key(self) -> str:
        """Hash of the world and its books; the order in which lines were booked does not count."""
        if self._desk is not None:
            return self._desk.state_key()
        world = self._require_world()
        text = repr((world.difficulty, world.seed, self._strict_close, self._closed, all_bookings(self._books)))
        return hashlib.sha256(text.encode()).hexdigest()

    def _require_world(self) -> World:
        if self._world is None:
            raise RuntimeError("reset(task) comes before any other call")
        return self._world

    def _execute(self, world: World, call: ToolCall) -> Message:
        try:
            arguments = checked(call.name, call.arguments)
            if self._closed:
                raise Refused(f"{world.month.label} is closed")
            answer = _HANDLERS[call.name](self, world, arguments)
        except Refused as refused:
            answer = {"error": str(refused)}
        return Message("tool", json.dumps(answer), tool_call_id=call.id, name=call.name)

    def _list_feed(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        only_open = arguments.get("only_open", False)
        if not isinstance(only_open, bool):
            raise Refused("only_open must be true or false")
        lines = [
            {
                "line": line.id,
                "date": line.date,
                "counterparty": line.counterparty,
                "text": line.text,
                "amount": str(line.amount),
                "bookings": len(self._books.get(line.id, ())),
            }
            for line in world.lines
            if not (only_open and line.id in self._books)
        ]
        opening, closing = str(world.opening[BANK]), str(world.statement_balance)
        return {"month": world.month.label, "opening_balance": opening, "closing_balance": closing, "lines": lines}

    def _search_invoices(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        query = text_of(arguments, "query").strip().casefold()
        settled = settled_by_invoice(self._books)
        found = [
            _invoice_json(invoice, abs(settled.get(number, ZERO)))
            for number, invoice in world.invoices.items()
            if any(
                query in text.casefold() for text in (number, invoice.counterparty, invoice.order, str(invoice.amount))
            )
        ]
        return {"invoices": found}

    def _post(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self._book(world, posting(world, arguments))

    def _split(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self._book(world, splitting(world, arguments))

    def _match_invoice(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self._book(world, matching(world, self._books, arguments))

    def _book(self, world: World, booking: Booking) -> dict[str, Any]:
        if len(self._books.get(booking.line, ())) >= MAX_BOOKINGS_PER_LINE:
            raise Refused(f"line {booking.line} has {MAX_BOOKINGS_PER_LINE} bookings already")
        self._books = added(self._books, booking)
        answer: dict[str, Any] = {"line": booking.line, "bookings": len(self._books[booking.line])}
        if booking.invoice is not None:
            settled = abs(settled_by_invoice(self._books)[booking.invoice])
            answer["invoice"] = booking.invoice
            answer["status"] = _status(world.invoices[booking.invoice], settled)
        return {**answer, "open_lines": len(world.lines) - len(self._books)}

    def _undo(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        line = line_of(world, arguments).id
        if line not in self._books:
            raise Refused(f"line {line} has no booking")
        self._books = undone(self._books, line)
        return {"line": line, "bookings": len(self._books.get(line, ()))}

    def _trial_balance(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        totals = balances(world.opening, self._books)
        settled = settled_by_invoice(self._books)
        partly = [key for key in sorted(settled) if _status(world.invoices[key], abs(settled[key])) == "partly paid"]
        return {
            "balances": {key: str(totals[key]) for key in sorted(totals) if totals[key]},
            "bank_statement": str(world.statement_balance),
            "bank_difference": str(totals[BANK] - world.statement_balance),
            "open_lines": [line.id for line in world.lines if line.id not in self._books],
            "partly_paid": partly,
        }

    def _close_month(self, world: World, arguments: Mapping[str, Any]) -> dict[str, Any]:
        month = text_of(arguments, "month")
        if month != world.month.label:
            raise Refused(f"the open month is {world.month.label}")
        open_lines = len(world.lines) - len(self._books)
        if self._strict_close and open_lines:
            raise Refused(f"{open_lines} bank lines are open")
        self._closed = True
        return {"closed": month, "open_lines": open_lines}


def _status(invoice: Invoice, settled: Any) -> str:
    if not settled:
        return "open"
    return "paid" if settled == invoice.booked_value else "partly paid"


def _invoice_json(invoice: Invoice, settled: Any) -> dict[str, Any]:
    row = {
        "invoice": invoice.number,
        "kind": invoice.kind,
        "counterparty": invoice.counterparty,
        "issued": invoice.issued,
        "order": invoice.order,
        "amount": str(invoice.amount),
        "currency": invoice.currency,
        "status": _status(invoice, settled),
    }
    if invoice.booked_rate is not None:
        row["booked_rate"] = str(invoice.booked_rate)
    return row


_HANDLERS: dict[str, Callable[[BookkeepingEnvironment, World, Mapping[str, Any]], dict[str, Any]]] = {
    "list_feed": BookkeepingEnvironment._list_feed,
    "search_invoices": BookkeepingEnvironment._search_invoices,
    "post": BookkeepingEnvironment._post,
    "split": BookkeepingEnvironment._split,
    "match_invoice": BookkeepingEnvironment._match_invoice,
    "undo": BookkeepingEnvironment._undo,
    "trial_balance": BookkeepingEnvironment._trial_balance,
    "close_month": BookkeepingEnvironment._close_month,
}
