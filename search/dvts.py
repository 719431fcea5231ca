"""Diverse Verifier Tree Search (Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models").

A beam that is split into independent sub-trees, so that it cannot collapse onto one good-looking prefix: with N beams
and M children each, N / M sub-trees are formed of the N first steps; each goes on greedily in the best of its own M.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .algorithm import check_count
from .frontier import FrontierSearch, distinct, goes_on, is_busy, known
from .greedy import Walk
from .tree import Ask, Tree


@dataclass(slots=True)
class Forest:
    """The sub-trees of one start, empty until its first children were dealt out; which walk each open ask is for."""

    offered: list[int]
    walks: list[Walk] = field(default_factory=list)
    asks: dict[int, Walk | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DVTS(FrontierSearch):
    """From `tree.start`: `trees` * `branching` first children are dealt out in turn to `trees` sub-trees; each is a
    greedy walk (see Greedy) that asks for `branching` children and goes on in the best of them.

    - Sub-trees begin with different children of the start, of different states. Where the policy has brought fewer than
      `trees` of them, the start is asked again; where it has no more, there are fewer sub-trees.
    - A sub-tree ends with its first finished run, or when all its own children of the start led nowhere; the search
      ends with the last sub-tree. `tree.best()` picks among their ends.
    - One ask is open in each sub-tree at most; of those that may be asked the earlier goes first. They share nothing,
      so the published order (one level of all after the other) brings the same once all have ended. A budget below
      about `trees * branching * steps` transitions cuts them: at width 1 the later ones, else all of them.

    `tree.memory["dvts"]` holds one Forest a start.
    """

    trees: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("trees", self.trees)

    def _next(self, tree: Tree) -> Ask | None:
        start = tree.start
        forest = self._forests(tree).setdefault(start, Forest(known(tree, start)))
        if not forest.walks:
            if forest.asks:
                return None
            first = distinct(tree, [node for node in forest.offered if tree.terminal[node] or goes_on(tree, node)])
            if len(first) < self.trees and goes_on(tree, start) and not tree.complete[start]:
                return self._ask(tree, forest, None, start, max(1, self.trees * self.branching - len(first)))
            hands = [first[index :: self.trees] for index in range(min(self.trees, len(first)))]
            forest.walks = [Walk(start, {start: hand}) for hand in hands]
        for walk in forest.walks:
            node = None if walk.asked else walk.node_to_ask(tree, start, widen_start=False)
            if node is not None and not is_busy(tree, node):
                walk.asked = True
                return self._ask(tree, forest, walk, node, self.branching)
        return None

    def plan_ended(self, tree: Tree) -> str | None:
        """Once all sub-trees have ended, or the start has brought none."""
        forest = self._forests(tree).get(tree.start)
        if forest is None or forest.asks or not (forest.walks or tree.complete[tree.start]):
            return None
        return "all its sub-trees have ended" if all(walk.ended for walk in forest.walks) else None

    def _ask(self, tree: Tree, forest: Forest, walk: Walk | None, node: int, count: int) -> Ask:
        ask = self._open(tree, node, count)
        forest.asks[ask.id] = walk
        return ask

    def _received(self, tree: Tree, start: int, ask: Ask, offered: list[int]) -> None:
        forest = self._forests(tree)[start]
        walk = forest.asks.pop(ask.id)
        if walk is not None:
            walk.take(ask.node, offered)
        else:
            forest.offered.extend(node for node in offered if node not in forest.offered)

    def _forests(self, tree: Tree) -> dict[int, Forest]:
        forests: dict[int, Forest] = tree.memory.setdefault("dvts", {})
        return forests
