"""The world of one task: company rules, bank feed, open invoices, and the auditor's gold, all made from a seed.

`world_of(task)` needs only the task's id (`bookkeeping/easy/000`); a `task.seed` beside it makes a fresh month of the
same difficulty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from ttc_replay import Task
from ttc_replay.examples.bookkeeping.ledger import Booking
from ttc_replay.examples.bookkeeping.money import ZERO, rounded

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
_WORDS: tuple[str, ...] = DIFFICULTIES
TASKS_PER_DIFFICULTY = 24

_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_TASK_ID = re.compile(r"bookkeeping/(easy|medium|hard)/([0-9]{3,9})")


class Month(NamedTuple):
    """A calendar month; months compare by time."""

    year: int
    number: int

    def shifted(self, months: int) -> Month:
        """So many months later (earlier when negative)."""
        index = self.year * 12 + self.number - 1 + months
        return Month(index // 12, index % 12 + 1)

    @property
    def label(self) -> str:
        """As in tool arguments and dates: 2025-03."""
        return f"{self.year:04d}-{self.number:02d}"

    @property
    def slash(self) -> str:
        """As in payment texts: 03/2025."""
        return f"{self.number:02d}/{self.year:04d}"

    @property
    def name(self) -> str:
        """As people write it: March 2025."""
        return f"{_NAMES[self.number - 1]} {self.year}"


@dataclass(frozen=True, slots=True)
class FeedLine:
    """One line of the bank feed; money in is positive."""

    id: str
    date: str
    counterparty: str
    text: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Invoice:
    """One open invoice. `currency` other than EUR is booked at `booked_rate` (units of it for one EUR)."""

    number: str
    kind: Literal["sales", "purchase"]
    counterparty: str
    issued: str
    order: str
    amount: Decimal
    currency: str = "EUR"
    booked_rate: Decimal | None = None

    @property
    def sign(self) -> int:
        """+1 when its payment is money in."""
        return 1 if self.kind == "sales" else -1

    @property
    def booked_value(self) -> Decimal:
        """EUR in the ledger, positive."""
        return self.amount if self.booked_rate is None else rounded(self.amount / self.booked_rate)


@dataclass(frozen=True, slots=True)
class Rule:
    """The company's rule for one counterparty: `choices` are (account, VAT code); `text` is the rule as the agent reads
    it. With several choices the company's text says how to choose; only `threshold` can be decided without reading."""

    counterparty: str
    kind: Literal["cost", "threshold", "either", "card", "loan"]
    choices: tuple[tuple[str, str], ...]
    text: str


@dataclass(frozen=True, eq=False)
class World:
    """One month of one company. `gold` is the auditor's ledger by line: no policy, guide or prompt sees it."""

    difficulty: Difficulty
    seed: int
    company: str
    month: Month
    opening: Mapping[str, Decimal]
    lines: tuple[FeedLine, ...]
    invoices: Mapping[str, Invoice]
    rules: Mapping[str, Rule]
    gold: Mapping[str, Booking]

    @cached_property
    def line(self) -> Mapping[str, FeedLine]:
        """Feed lines by id."""
        return {line.id: line for line in self.lines}

    @cached_property
    def statement_balance(self) -> Decimal:
        """The bank's own closing balance."""
        return self.opening["1000"] + sum((line.amount for line in self.lines), ZERO)


@lru_cache(maxsize=512)
def world(difficulty: Difficulty, seed: int) -> World:
    """The world of a difficulty and a seed; always the same object, never changed."""
    from ttc_replay.examples.bookkeeping.scenarios import build  # it needs the records above

    return build(difficulty, seed)


def world_of(task: Task) -> World:
    """The task's world. Raises ValueError when the id is not one of ours."""
    difficulty, number = _parse(task.id)
    return world(difficulty, number if task.seed is None else task.seed)


def task(task_id: str) -> Task:
    """The task of an id such as `bookkeeping/medium/007`. Raises ValueError on any other."""
    difficulty, number = _parse(task_id)
    made = world(difficulty, number)
    return Task(
        id=f"bookkeeping/{difficulty}/{number:03d}",
        prompt=request_text(made),
        data={"difficulty": difficulty, "company": made.company, "month": made.month.label},
        seed=number,
    )


def tasks(difficulty: Difficulty | None = None) -> list[Task]:
    """The tasks of one difficulty, or all 72."""
    chosen = DIFFICULTIES if difficulty is None else (difficulty,)
    return [task(f"bookkeeping/{name}/{number:03d}") for name in chosen for number in range(TASKS_PER_DIFFICULTY)]


def request_text(made: World) -> str:
    """What the user asks for."""
    return f"Please book the bank feed of {made.month.name} and close the month ({made.month.label})."


def _parse(task_id: str) -> tuple[Difficulty, int]:
    found = _TASK_ID.fullmatch(task_id)
    if not found:
        raise ValueError(f"{task_id!r} is not a bookkeeping task; ids look like bookkeeping/easy/000")
    return DIFFICULTIES[_WORDS.index(found[1])], int(found[2])
