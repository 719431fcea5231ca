"""Blocksworld with five blocks: put one block at a time onto another or the table until all stand as wanted.

The guide is the share of blocks in their final place (on the right support all the way down), a classic heuristic that
must get worse before it gets better when a tower has to be dismantled. A run may take two moves more than the shortest
plan, which breadth-first search knows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from ..world import Path, hashed

Towers = tuple[str, ...]
"""The stacks, each from its bottom up, sorted."""
State = tuple[Towers, int]
BLOCKS = "ABCDE"
SLACK = 2
SHORTEST = 6
"""The fewest moves that an instance needs."""


@lru_cache(maxsize=10_000)
def moves(towers: Towers) -> dict[str, Towers]:
    """What can be done, and what it leads to."""
    made: dict[str, Towers] = {}
    for source in towers:
        block, under = source[-1], source[:-1]
        others = [tower for tower in towers if tower != source]
        left = [under] if under else []
        for target in others:
            rest = [tower for tower in others if tower != target]
            made[f"{block} onto {target[-1]}"] = tuple(sorted([*left, *rest, target + block]))
        if under:
            made[f"{block} onto table"] = tuple(sorted([*left, *others, block]))
    return made


def fewest_moves(start: Towers, goal: Towers) -> int:
    """The length of the shortest plan, by breadth-first search over all arrangements."""
    known, queue = {start: 0}, deque([start])
    while goal not in known:
        towers = queue.popleft()
        for after in moves(towers).values():
            if after not in known:
                known[after] = known[towers] + 1
                queue.append(after)
    return known[goal]


@dataclass(frozen=True)
class Blocksworld:
    """States are the towers and the moves made."""

    seed: int
    start: Towers
    goal: Towers
    depth: int

    def root(self) -> State:
        return self.start, 0

    def actions(self, state: State) -> list[str]:
        return list(moves(state[0]))

    def step(self, state: State, action: str, draw: float) -> State:
        return moves(state[0])[action], state[1] + 1

    def ended(self, state: State) -> bool:
        return state[0] == self.goal or state[1] == self.depth

    def value(self, state: State, path: Path) -> float | None:
        if self.ended(state):
            return float(state[0] == self.goal)
        return self.in_place(state[0]) / len(BLOCKS)

    def state_key(self, state: State) -> str | None:
        return " ".join(state[0])

    def solved(self, state: State, path: Path) -> bool:
        return state[0] == self.goal

    def in_place(self, towers: Towers) -> int:
        """How many blocks stand where they shall, with all below them."""
        bottoms = {tower[0]: tower for tower in self.goal}
        return sum(_common(tower, bottoms.get(tower[0], "")) for tower in towers)


def _common(left: str, right: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _arranged(seed: int, label: str) -> Towers:
    """Blocks in a seeded order, each on the tower before it or, one in three, on the table."""
    towers: list[str] = []
    for block in sorted(BLOCKS, key=lambda block: hashed(seed, f"{label} {block}")):
        if towers and hashed(seed, f"{label} table {block}") > 1 / 3:
            towers[-1] += block
        else:
            towers.append(block)
    return tuple(sorted(towers))


def blocksworld(seed: int) -> Blocksworld:
    """The seed's first pair of arrangements that are far enough apart."""
    for attempt in count():
        start, goal = (_arranged(seed, f"{label} {attempt}") for label in ("start", "goal"))
        fewest = fewest_moves(start, goal)
        if fewest >= SHORTEST:
            return Blocksworld(seed, start, goal, fewest + SLACK)
    raise AssertionError
