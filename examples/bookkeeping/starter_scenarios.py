"""The starter level's tasks: a few bank lines each, made from a seed; and the right posting of every line.

`bookkeeping/starter/SPLIT/000` has two lines, `bookkeeping/starter-3/SPLIT/000` three. As on the other levels the id
alone rebuilds the task, and a `Task.seed` beside it makes another one of the same kind.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from ttc_replay import Task
from ttc_replay.examples.bookkeeping.starter_words import ACCOUNTS, CODES, FOREIGN, HOME, SIDES, SPLITS, Account, Split

LINES = 2
MOST_LINES = 3
_TASK_ID = re.compile(r"bookkeeping/starter(?:-(?P<lines>3))?/(?P<split>[a-z]+)/(?P<number>[0-9]{3,9})")
_WORDS: tuple[str, ...] = SPLITS


class Posting(NamedTuple):
    """What a line is posted as: one word of each slot."""

    account: str
    side: str
    vat: str


@dataclass(frozen=True, slots=True)
class StarterLine:
    """One bank line. `account` is the auditor's: nobody who sees only `text` is told."""

    side: str
    amount: Decimal
    country: str
    counterparty: str
    wording: str
    account: str

    @property
    def text(self) -> str:
        """As the agent reads it."""
        return f"{self.side} {self.amount} | country {self.country} | {self.counterparty}: {self.wording}"

    @property
    def vat(self) -> str:
        """By the rule of the system message."""
        return CODES[0] if self.country == HOME else CODES[1]

    @property
    def right(self) -> Posting:
        """The auditor's posting."""
        return Posting(self.account, self.side, self.vat)


@dataclass(frozen=True, slots=True)
class StarterWorld:
    """The bank lines of one task. The accounts of a task are all different."""

    split: Split
    seed: int
    lines: tuple[StarterLine, ...]


@lru_cache(maxsize=4096)
def starter_world(split: Split, lines: int, seed: int) -> StarterWorld:
    """The world of a split, a number of lines and a seed. Deterministic."""
    if lines not in (LINES, MOST_LINES):
        raise ValueError(f"a starter task has {LINES} or {MOST_LINES} lines, not {lines}")
    rng = random.Random(f"bookkeeping/starter/{lines}/{split}/{seed}")
    chosen = rng.sample(sorted(ACCOUNTS), lines)
    return StarterWorld(split, seed, tuple(_line(rng, ACCOUNTS[name], split) for name in chosen))


def _line(rng: random.Random, account: Account, split: Split) -> StarterLine:
    """One line in five is a refund; half of the lines are from the home country."""
    counterparty = rng.choice(account.counterparties if split == "train" else account.unseen_counterparties)
    wording = rng.choice(account.unseen_wordings if split == "both" else account.wordings)
    side = SIDES[1] if rng.random() < 0.2 else SIDES[0]
    country = HOME if rng.random() < 0.5 else rng.choice(FOREIGN)
    amount = Decimal(rng.randrange(500, 50000)).scaleb(-2)
    return StarterLine(side, amount, country, counterparty, wording, account.name)


def is_starter(task_id: str) -> bool:
    """Whether the id is one of this level."""
    return task_id.startswith(("bookkeeping/starter/", "bookkeeping/starter-"))


def starter_world_of(task: Task) -> StarterWorld:
    """The task's world. Raises ValueError when the id is not one of ours."""
    split, lines, number = _parse(task.id)
    return starter_world(split, lines, number if task.seed is None else task.seed)


def starter_task(split: Split, number: int, lines: int = LINES) -> Task:
    """A task by its number. The auditor's postings are in `private`, and nowhere else."""
    made = starter_world(split, lines, number)
    return Task(
        id=f"bookkeeping/starter{'' if lines == LINES else f'-{lines}'}/{split}/{number:03d}",
        prompt=made.lines[0].text,
        data={"level": "starter", "split": split, "lines": lines},
        seed=number,
        private={"gold": [line.right._asdict() for line in made.lines]},
    )


def starter_tasks(split: Split, count: int, lines: int = LINES, first: int = 0) -> list[Task]:
    """So many tasks of a split, from number `first` on."""
    return [starter_task(split, number, lines) for number in range(first, first + count)]


def worked_examples() -> tuple[StarterLine, ...]:
    """One line for each account, of counterparties that no task has; wordings are of the training set."""
    rng = random.Random("bookkeeping/starter/examples")
    names = rng.sample(sorted(ACCOUNTS), len(ACCOUNTS))
    countries = rng.sample([HOME] * 4 + list(FOREIGN[:4]), len(names))
    return tuple(
        StarterLine(
            SIDES[place in (2, 5)],
            Decimal(rng.randrange(500, 50000)).scaleb(-2),
            country,
            ACCOUNTS[name].example,
            ACCOUNTS[name].wordings[0],
            name,
        )
        for place, (name, country) in enumerate(zip(names, countries, strict=True))
    )


def _parse(task_id: str) -> tuple[Split, int, int]:
    found = _TASK_ID.fullmatch(task_id)
    if not found or found["split"] not in _WORDS:
        told = "bookkeeping/starter/train/000; splits: " + ", ".join(SPLITS)
        raise ValueError(f"{task_id!r} is not a starter task; ids look like {told}")
    return SPLITS[_WORDS.index(found["split"])], int(found["lines"] or LINES), int(found["number"])
