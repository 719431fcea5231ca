"""Game of 24 (as in Yao et al. 2023, arXiv 2305.10601, section 4.1): combine four numbers to 24, two at a time.

Each step replaces two numbers by their sum, difference, product or quotient. The guide knows whether 24 can still be
reached, and says so with noise, as a language model would ("sure", "likely", "impossible"). Instances are four numbers
from 1 to 13 that can be solved, by at most one in a hundred of all runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import count, permutations

from ..world import Path, hashed

Numbers = tuple[Fraction, ...]
TARGET = Fraction(24)
NOISE = 0.3
"""Half the width of the noise; the guide's means of hopeless and hopeful states are 0.3 and 0.65."""
RARE = 0.01


@lru_cache(maxsize=200_000)
def moves(numbers: Numbers) -> dict[str, Numbers]:
    """What can be done, and what it leads to; equal results of equal numbers are one move."""
    made: dict[str, Numbers] = {}
    for first, second in permutations(range(len(numbers)), 2):
        rest = [number for index, number in enumerate(numbers) if index not in (first, second)]
        left, right = numbers[first], numbers[second]
        results = {"-": left - right}
        if first < second:
            results |= {"+": left + right, "*": left * right}
        if right:
            results["/"] = left / right
        for sign, result in results.items():
            made[f"{left} {sign} {right}"] = tuple(sorted([*rest, result]))
    return made


@lru_cache(maxsize=200_000)
def ways(numbers: Numbers) -> tuple[int, int]:
    """How many runs from here end at 24, and how many there are."""
    if len(numbers) == 1:
        return int(numbers[0] == TARGET), 1
    below = [ways(after) for after in moves(numbers).values()]
    return sum(right for right, _ in below), sum(every for _, every in below)


@dataclass(frozen=True)
class Game24:
    """States are the sorted numbers that are left."""

    seed: int
    numbers: Numbers
    depth: int = 3

    def root(self) -> Numbers:
        return self.numbers

    def actions(self, state: Numbers) -> list[str]:
        return list(moves(state)) if len(state) > 1 else []

    def step(self, state: Numbers, action: str, draw: float) -> Numbers:
        return moves(state)[action]

    def ended(self, state: Numbers) -> bool:
        return len(state) == 1

    def value(self, state: Numbers, path: Path) -> float | None:
        if self.ended(state):
            return float(state[0] == TARGET)
        noise = 2 * NOISE * (hashed(self.seed, f"noise {self.state_key(state)}") - 0.5)
        return (0.65 if ways(state)[0] else 0.3) + noise

    def state_key(self, state: Numbers) -> str | None:
        return " ".join(map(str, state))

    def solved(self, state: Numbers, path: Path) -> bool:
        return state == (TARGET,)


def game24(seed: int) -> Game24:
    """The first four numbers of the seed's sequence that are hard enough."""
    for attempt in count():
        cards = sorted(Fraction(1 + int(13 * hashed(seed, f"card {attempt} {index}"))) for index in range(4))
        right, every = ways(tuple(cards))
        if 0 < right <= RARE * every:
            return Game24(seed, tuple(cards))
    raise AssertionError
