"""A slippery grid: 4 x 4 cells, three holes; a step goes astray to either side in one case of ten each.

A run is a plan, the actions it took, because the search cannot know beforehand where it will slip. An end is told the
mean success of its plan over 16 fresh executions. The optimum is the plan of at most eight actions with the highest
exact chance of reaching the goal, found by branch and bound; solved is 80 % of it, judged exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

from ..world import Path, hashed

SIDE, HOLES, STEPS, ASTRAY = 4, 3, 8, 0.1
EXECUTIONS = 16
ENOUGH = 0.8
TURNS = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}
SIDES = {"up": ("left", "right"), "down": ("right", "left"), "left": ("down", "up"), "right": ("up", "down")}
Cell = tuple[int, int]
State = tuple[Cell, int]
Chances = dict[Cell, float]


@dataclass(frozen=True)
class Grid:
    """States are the cell and the steps made."""

    seed: int
    start: Cell
    goal: Cell
    holes: frozenset[Cell]
    depth: int = STEPS
    optimum: float = field(default=0.0, compare=False)

    def root(self) -> State:
        return self.start, 0

    def actions(self, state: State) -> list[str]:
        return list(TURNS)

    def step(self, state: State, action: str, draw: float) -> State:
        return self.moved(state[0], action, draw), state[1] + 1

    def ended(self, state: State) -> bool:
        return state[0] == self.goal or state[0] in self.holes or state[1] == STEPS

    def value(self, state: State, path: Path) -> float | None:
        if not self.ended(state):
            return 0.5 * (1 - _distance(state[0], self.goal) / (2 * SIDE - 2))
        plan = "/".join(path)
        tries = (self.executed(path, f"{plan} {index}") for index in range(EXECUTIONS))
        return sum(tries) / EXECUTIONS

    def state_key(self, state: State) -> str | None:
        return f"{state[0]}"

    def solved(self, state: State, path: Path) -> bool:
        return self.chance(path) >= ENOUGH * self.optimum

    def moved(self, cell: Cell, action: str, draw: float) -> Cell:
        """Where a step ends; the edge holds it back."""
        if draw < 2 * ASTRAY:
            action = SIDES[action][draw < ASTRAY]
        x, y = cell[0] + TURNS[action][0], cell[1] + TURNS[action][1]
        return (x, y) if 0 <= x < SIDE and 0 <= y < SIDE else cell

    def executed(self, plan: Path, label: str) -> bool:
        """One fresh execution: does it reach the goal?"""
        cell = self.start
        for index, action in enumerate(plan):
            if cell == self.goal or cell in self.holes:
                break
            cell = self.moved(cell, action, hashed(self.seed, f"{label} {index}"))
        return cell == self.goal

    def spread(self, chances: Chances, action: str) -> Chances:
        """The chances after one more action; cells where runs end keep theirs."""
        after: Chances = {}
        for cell, chance in chances.items():
            over = cell == self.goal or cell in self.holes
            for draw, share in ((0.0, ASTRAY), (ASTRAY, ASTRAY), (2 * ASTRAY, 1 - 2 * ASTRAY)):
                target = cell if over else self.moved(cell, action, draw)
                after[target] = after.get(target, 0.0) + chance * share
        return after

    def chance(self, plan: Path) -> float:
        """The exact chance that the plan reaches the goal."""
        chances: Chances = {self.start: 1.0}
        for action in plan:
            chances = self.spread(chances, action)
        return chances.get(self.goal, 0.0)

    def best_chance(self) -> float:
        """The optimum over all plans. Bound: what a run could reach that sees where it is (dynamic programming)."""
        bounds = list(self._bounds())
        best, stack = 0.0, [({self.start: 1.0}, STEPS)]
        while stack:
            chances, left = stack.pop()
            best = max(best, chances.get(self.goal, 0.0))
            if left and sum(chance * bounds[left][cell] for cell, chance in chances.items()) > best:
                stack += [(self.spread(chances, action), left - 1) for action in TURNS]
        return best

    def _bounds(self) -> Iterator[Chances]:
        cells = [(x, y) for x in range(SIDE) for y in range(SIDE)]
        bound = {cell: float(cell == self.goal) for cell in cells}
        yield bound
        for _ in range(STEPS):
            known = bound
            bound = {
                cell: max(
                    sum(chance * known[target] for target, chance in self.spread({cell: 1.0}, action).items())
                    for action in TURNS
                )
                for cell in cells
            }
            yield bound


def _distance(left: Cell, right: Cell) -> int:
    return abs(left[0] - right[0]) + abs(left[1] - right[1])


@lru_cache(maxsize=1000)
def slippery_grid(seed: int) -> Grid:
    """The seed's first grid whose goal is five steps away or more and can be reached in half of all cases."""
    for attempt in count():
        order = sorted(range(SIDE * SIDE), key=lambda cell: hashed(seed, f"cell {attempt} {cell}"))
        start, goal, *holes = ((cell % SIDE, cell // SIDE) for cell in order[: 2 + HOLES])
        if _distance(start, goal) < 5:
            continue
        grid = Grid(seed, start, goal, frozenset(holes))
        optimum = grid.best_chance()
        if optimum >= 0.5:
            return Grid(seed, start, goal, frozenset(holes), optimum=optimum)
    raise AssertionError
