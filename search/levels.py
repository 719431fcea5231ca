"""Search level by level: what beam search and breadth-first Tree of Thoughts share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from .frontier import FrontierSearch, known, may_be_asked
from .tree import Ask, Tree


@dataclass(slots=True)
class Level:
    """The level a search stands at: nodes still to ask, how many asks are open, and the children told so far."""

    waiting: list[int]
    told: list[int] = field(default_factory=list)
    open_asks: int = 0
    number: int = 0
    """Levels chosen so far: the steps from the start to the nodes of this one."""
    final: bool = False
    """True: nothing comes after this level, and its asks want one child."""


@dataclass(frozen=True, kw_only=True)
class LevelSearch(FrontierSearch):
    """Asks every node of a level, waits for all of them, and lets `_choose` make the next level of what was told.

    The search ends when a level is empty, whatever budget is left. `tree.memory["levels"]` holds a Level a start.
    """

    @abstractmethod
    def _choose(self, tree: Tree, level: Level, told: Sequence[int]) -> list[int]:
        """The nodes of the next level, in the order they are asked in."""

    def _next(self, tree: Tree) -> Ask | None:
        level = self._levels(tree).setdefault(tree.start, Level([tree.start]))
        while True:
            while level.waiting:
                node = level.waiting.pop(0)
                if may_be_asked(tree, node):
                    level.open_asks += 1
                    return self._open(tree, node, 1 if level.final else self.branching)
                level.told.extend(known(tree, node))
            if level.open_asks or level.final or not level.told:
                return None
            told, level.told = level.told, []
            level.number += 1
            level.waiting = self._choose(tree, level, told)

    def plan_ended(self, tree: Tree) -> str | None:
        """Once a level has kept nothing to expand, or the last one is told."""
        level = self._levels(tree).get(tree.start)
        if level is None or level.waiting or level.open_asks or (level.told and not level.final):
            return None
        return f"its last level, number {level.number}, has ended"

    def _received(self, tree: Tree, start: int, ask: Ask, offered: list[int]) -> None:
        level = self._levels(tree)[start]
        level.open_asks -= 1
        level.told.extend(offered)
        if not offered:
            level.waiting.append(ask.node)

    def _levels(self, tree: Tree) -> dict[int, Level]:
        levels: dict[int, Level] = tree.memory.setdefault("levels", {})
        return levels
