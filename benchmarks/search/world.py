"""What a problem is, and the meter through which every contestant plays it.

The meter counts the same things for everybody: a transition is a state that was made for the first time. A state that a
contestant has made before is served from memory at no charge and counted as a repeat, which is the kindest reading of
searches that do not know what they have tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol
from zlib import crc32

from ttc_replay.search.tree import mix

Path = tuple[str, ...]
PATIENCE = 100
"""Calls in a row without a new state after which a contestant is stopped: it stalls."""


def hashed(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on nothing else."""
    return mix(seed, crc32(text.encode())) / 2.0**64


class Problem(Protocol):
    """One instance. States are hashable; `path` are the actions from the root."""

    @property
    def seed(self) -> int: ...

    @property
    def depth(self) -> int:
        """The most actions a run can have."""
        ...

    def root(self) -> Any: ...

    def actions(self, state: Any) -> list[str]: ...

    def step(self, state: Any, action: str, draw: float) -> Any:
        """The next state; `draw` in [0, 1) is the chance of worlds that have any."""
        ...

    def ended(self, state: Any) -> bool: ...

    def value(self, state: Any, path: Path) -> float | None:
        """What the guide says, in [0, 1]: of an end its outcome; of others an estimate, None where there is none."""
        ...

    def state_key(self, state: Any) -> str | None: ...

    def solved(self, state: Any, path: Path) -> bool:
        """True when a run that ends here is (as good as) the best there is."""
        ...


Maker = Callable[[int], Problem]
"""The instance of a seed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A state that was made, and how it was reached."""

    path: Path
    state: Any
    ended: bool
    value: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a contestant had when it had spent `limit` transitions, or had stopped before.

    `ended` and `stalled` are about those that stopped with something left to try: as they planned to, or not.
    """

    limit: int
    solved: bool
    transitions: int
    cpu_seconds: float
    stalled: bool
    ends_expanded: int
    repeats: int
    ended: bool = False


class Spent(StopIteration):
    """The largest budget is spent, or the contestant does nothing but repeat itself."""


class Meter:
    """One run of one contestant on one problem, with readings at each of the `limits`.

    `answers`: the contestant says itself what its answer is; else it is `best` at each limit. `calls`: how many it may
    make at all, per transition of the largest limit.
    """

    def __init__(self, problem: Problem, limits: Sequence[int], answers: bool = False, calls: float = inf):
        self.problem = problem
        self.answers = answers
        self.limits = sorted(limits)
        self.most_calls = calls * self.limits[-1]
        self.transitions = self.repeats = self.ends_expanded = self._calls = self._idle = 0
        self.best: Place | None = None
        """The finished run with the highest told value, of equal ones the shortest, then the first."""
        self.done = False
        """The contestant says that its plan has ended."""
        root = problem.root()
        self.root = Place((), root, False, None)
        self._places: dict[Path, Place] = {(): self.root}
        self._orders: dict[Path, list[str]] = {}
        self._readings: list[Reading] = []
        self._began = time.process_time()

    def actions(self, place: Place) -> list[str]:
        """What can be done there, in an order that depends on seed and path; nothing at an end."""
        if place.ended:
            return []
        if (order := self._orders.get(place.path)) is None:
            seed, here = self.problem.seed, "/".join(place.path)
            order = sorted(self.problem.actions(place.state), key=lambda key: hashed(seed, f"{here}/{key}?"))
            self._orders[place.path] = order
        return order

    def step(self, place: Place, action: str) -> Place:
        """The state after the action. Raises Spent."""
        path = (*place.path, action)
        if (known := self._places.get(path)) is not None:
            self.repeat()
            return known
        if self.transitions == self.limits[-1]:
            raise Spent
        self._calls += 1
        self._idle = 0
        self.transitions += 1
        made = self._make(place, path)
        self._places[path] = made
        if not self.answers and self.transitions in self.limits:
            self.read(self.best)
        return made

    def expand_end(self) -> None:
        """Count a contestant's wish for children of an end. Raises Spent when there are too many."""
        self.ends_expanded += 1
        self._call()

    def repeat(self) -> None:
        """Count a state that is made again. Raises Spent when there are too many."""
        self.repeats += 1
        self._call()

    def read(self, answer: Place | None) -> None:
        """Take a reading at the next limit."""
        solved = answer is not None and self.problem.solved(answer.state, answer.path)
        spent = time.process_time() - self._began
        limit = self.limits[len(self._readings)]
        early = self.transitions < limit and self._unfinished()
        stalled, ended = early and not self.done, early and self.done
        self._readings.append(
            Reading(limit, solved, self.transitions, spent, stalled, self.ends_expanded, self.repeats, ended)
        )

    def readings(self) -> list[Reading]:
        """One for each limit; those that were not reached are read now."""
        while len(self._readings) < len(self.limits):
            self.read(self.best)
        return self._readings

    def _call(self) -> None:
        self._calls += 1
        self._idle += 1
        if self._idle > PATIENCE or self._calls > self.most_calls:
            raise Spent

    def _make(self, place: Place, path: Path) -> Place:
        problem = self.problem
        state = problem.step(place.state, path[-1], hashed(problem.seed, "/".join(path)))
        made = Place(path, state, problem.ended(state), problem.value(state, path))
        if made.ended and made.value is not None and (self.best is None or _rank(made) > _rank(self.best)):
            self.best = made
        return made

    def _unfinished(self) -> bool:
        """True while some action of some state was never tried."""
        return any(
            (*place.path, key) not in self._places
            for place in list(self._places.values())
            if not place.ended
            for key in self.problem.actions(place.state)
        )


def _rank(place: Place) -> tuple[float, int]:
    return (0.0 if place.value is None else place.value, -len(place.path))


def leaves(problem: Problem) -> Iterator[Place]:
    """Every end of a problem without chance, by brute force."""
    stack = [Place((), problem.root(), False, None)]
    while stack:
        place = stack.pop()
        for action in problem.actions(place.state):
            path, state = (*place.path, action), problem.step(place.state, action, 0.0)
            made = Place(path, state, problem.ended(state), problem.value(state, path))
            if made.ended:
                yield made
            else:
                stack.append(made)
