"""Four separate rewards over the same books: identity, policy, progress and the held-back gold.

Each reads only `trajectory.final_state` (what `BookkeepingEnvironment.state` gave) and the task. A search may see the
first three; the gold, rebuilt from the task's id, is for `--accept`: books can be balanced, reconciled, within policy
and wrong.

On starter tasks they judge postings instead of books (`starter_verifiers.py`); there `progress` reads the gold.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ttc_replay import Score, Trajectory, reward
from ttc_replay.examples.bookkeeping import starter_verifiers as starter
from ttc_replay.examples.bookkeeping.chart import BANK, SUSPENSE
from ttc_replay.examples.bookkeeping.expectations import Expectation, expectations
from ttc_replay.examples.bookkeeping.ledger import Booking, Books, Part, balances, books_from_json
from ttc_replay.examples.bookkeeping.money import ZERO
from ttc_replay.examples.bookkeeping.starter_scenarios import is_starter
from ttc_replay.examples.bookkeeping.world import World, world_of


@reward
def identity(trajectory: Trajectory) -> Score | None:
    """1.0 when the books are closed, balanced, each line is linked once and the bank agrees with its statement.

    `detail["failed"]` names what does not hold. Abstains when the run has no final state.
    """
    if is_starter(trajectory.task.id):
        return starter.identity(trajectory)
    if (read := _read(trajectory)) is None:
        return None
    failed = identity_failures(*read)
    return Score(0.0 if failed else 1.0, detail={"failed": failed})


@reward
def policy(trajectory: Trajectory) -> Score | None:
    """Share of the company's visible rules that the books keep, in [0, 1]: account, cut-off, fee, invoice, VAT.

    A line without a booking keeps none. `detail["failed"]` names the broken rules by line. No gold is read.
    """
    if is_starter(trajectory.task.id):
        return starter.policy(trajectory)
    if (read := _read(trajectory)) is None:
        return None
    world, books, _ = read
    checks = {line: _policy_checks(expected, books.get(line, ())) for line, expected in expectations(world).items()}
    kept = sum(passed for line in checks.values() for passed in line.values())
    failed = {line: names for line, names in ((key, _failed(value)) for key, value in checks.items()) if names}
    return Score(kept / sum(map(len, checks.values())), detail={"failed": failed})


@reward(process=True)
def progress(trajectory: Trajectory) -> Score | None:
    """How far a prefix has come, in [0, 1]: 0.9 for clean lines less 0.45 for spoilt ones, 0.1 for a clean close.

    A line is clean when it is booked once, with the feed's amount and within policy; spoilt when booked otherwise.
    Closing what is not clean costs the 0.1 that it would have earned.
    """
    if is_starter(trajectory.task.id):
        return starter.progress(trajectory)
    if (read := _read(trajectory)) is None:
        return None
    world, books, closed = read
    clean = spoilt = 0
    for line, expected in expectations(world).items():
        bookings = books.get(line, ())
        good = len(bookings) == 1 and bookings[0].bank_amount == world.line[line].amount
        good = good and all(_policy_checks(expected, bookings).values())
        clean += good
        spoilt += bool(bookings) and not good
    lines = len(world.lines)
    twentieths = 18 * clean - 9 * spoilt  # of a line: whole numbers, so that a clean close is 1.0 and not a hair less
    if closed:
        twentieths += 2 * lines if clean == lines else -2 * lines
    return Score(max(0, twentieths) / (20 * lines), detail={"clean": clean, "spoilt": spoilt, "lines": lines})


@reward
def gold(trajectory: Trajectory) -> Score | None:
    """1.0 when the month is closed and every booking equals the auditor's; `detail["wrong"]` names the other lines."""
    if is_starter(trajectory.task.id):
        return starter.gold(trajectory)
    if (read := _read(trajectory)) is None:
        return None
    world, books, closed = read
    wrong = [
        line for line in world.gold if [b.canonical() for b in books.get(line, ())] != [world.gold[line].canonical()]
    ]
    return Score(1.0 if closed and not wrong else 0.0, detail={"wrong": wrong, "closed": closed})


def identity_failures(world: World, books: Books, closed: bool) -> list[str]:
    """Which identities do not hold: `closed`, `balanced` (suspense empty too), `lines_linked_once`, `bank`."""
    totals = balances(world.opening, books)
    linked_once = all(len(books.get(line.id, ())) == 1 for line in world.lines)
    holds = {
        "closed": closed,
        "balanced": sum(totals.values(), ZERO) == 0 and not totals.get(SUSPENSE, ZERO),
        "lines_linked_once": linked_once,
        "bank": totals[BANK] == world.statement_balance,
    }
    return _failed(holds)


def _read(trajectory: Trajectory) -> tuple[World, Books, bool] | None:
    state = trajectory.final_state
    if state is None:
        return None
    return world_of(trajectory.task), books_from_json(state["bookings"]), bool(state["closed"])


def _failed(checks: Mapping[str, bool]) -> list[str]:
    return [name for name, passed in checks.items() if not passed]


def _policy_checks(expected: Expectation, bookings: tuple[Booking, ...]) -> dict[str, bool]:
    """The checks of one line against the allowed booking that fits best; all fail when there is no booking."""
    best: dict[str, bool] = {}
    for allowed in expected.allowed:
        checks = _all_hold([_compare(expected.topic, allowed, booking.canonical()) for booking in bookings])
        if not checks:
            checks = dict.fromkeys(_compare(expected.topic, allowed, allowed), False)
        if not best or sum(checks.values()) > sum(best.values()):
            best = checks
    return best


def _compare(topic: str, allowed: Booking, booking: Booking) -> dict[str, bool]:
    """The topic's check (accounts, amounts, invoice), then, where VAT is concerned, the codes and the amounts."""
    decided = _decision(booking) == _decision(allowed)
    checks = {topic: decided}
    if allowed.parts and topic not in ("invoice", "loan"):
        checks["vat_code"] = _by_part(booking, "vat_code") == _by_part(allowed, "vat_code")
        checks["vat_amount"] = _by_part(booking, "vat_amount") == _by_part(allowed, "vat_amount")
    return checks


def _decision(booking: Booking) -> tuple[Any, ...]:
    accounts: tuple[tuple[str, Decimal], ...] = tuple((part.account, part.amount) for part in booking.parts)
    return booking.invoice, booking.settled, accounts


def _by_part(booking: Booking, name: str) -> list[Any]:
    parts: tuple[Part, ...] = booking.parts
    return [getattr(part, name) for part in parts]


def _all_hold(checks: list[dict[str, bool]]) -> dict[str, bool]:
    return {name: all(item[name] for item in checks) for name in checks[0]} if checks else {}
