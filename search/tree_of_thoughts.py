"""Tree of Thoughts (Yao et al. 2023, arXiv 2305.10601): breadth first (algorithm 1) and depth first (algorithm 2).

A thought is a step here, the generator G(s, k) an ask for `branching` children, the state evaluator V the told value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .algorithm import check_count, check_number
from .frontier import FrontierSearch, distinct, goes_on, known, may_be_asked, ranked
from .levels import Level, LevelSearch
from .tree import OPEN, PRUNED, Ask, Tree


@dataclass(frozen=True, kw_only=True)
class BreadthFirst(LevelSearch):
    """ToT-BFS: of all states proposed for a step the `breadth` best by value are kept and expanded for the next.

    Unlike `beam`, finished states compete for the `breadth` places of their level (and are not carried to the next: a
    run that has ended is in the tree anyway), and a level limit T ends the search: after `max_steps` levels the best
    state of the last one is asked for one child, the output, and nothing after it. None: the search goes on until a
    level keeps no unfinished state. Ranking: by value, then by the sum of log priors since the start, then by seeded
    hash; while no unfinished state of the level has a value, by priors alone.
    """

    branching: int = 5
    breadth: int = 5
    max_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("breadth", self.breadth)
        check_count("max_steps", self.max_steps, optional=True)

    def _choose(self, tree: Tree, level: Level, told: Sequence[int]) -> list[int]:
        proposed = [node for node in told if tree.terminal[node] or goes_on(tree, node)]
        kept = distinct(tree, ranked(tree, tree.start, proposed))[: self.breadth]
        if level.number == self.max_steps:
            level.final = True
            kept = kept[:1]
        return [node for node in kept if not tree.terminal[node]]


@dataclass(frozen=True, kw_only=True)
class DepthFirst(FrontierSearch):
    """ToT-DFS: ask a state for `branching` children, visit them best first, each with all below it, then backtrack.

    - `value_threshold`: v_th. A child whose value is not above it is not visited; an unfinished one that nothing was
      ever done at is closed as "pruned", with the reason. A child without a value is visited (unknown is no verdict).
      None: all are visited.
    - `max_steps`: T. A state that many steps from the start is asked for one child, the output, and left; None: runs go
      on to their ends.
    - Strictly one ask after the other, whatever number is wanted. The search ends when the start has been backtracked
      from; states are never asked for more than the first `branching` children, except after a failure.

    `tree.memory["tot-dfs"]` holds, for each start, the states still to visit, the next one last.
    """

    branching: int = 5
    value_threshold: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("value_threshold", self.value_threshold)
        check_count("max_steps", self.max_steps, optional=True)

    def _next(self, tree: Tree) -> Ask | None:
        stack = self._stacks(tree).setdefault(tree.start, [tree.start])
        while stack and not tree.asks:
            node = stack.pop()
            if may_be_asked(tree, node):
                return self._open(tree, node, 1 if self._is_last(tree, tree.start, node) else self.branching)
            self._push(tree, tree.start, node, known(tree, node))
        return None

    def _received(self, tree: Tree, start: int, ask: Ask, offered: list[int]) -> None:
        if not offered:
            self._stacks(tree)[start].append(ask.node)
        self._push(tree, start, ask.node, offered)

    def plan_ended(self, tree: Tree) -> str | None:
        """Once the start has been backtracked from."""
        stack = self._stacks(tree).get(tree.start)
        return "it has backtracked from its start" if stack == [] and not tree.asks else None

    def _push(self, tree: Tree, start: int, parent: int, children: list[int]) -> None:
        if not self._is_last(tree, start, parent):
            worthy = [child for child in children if self._passes(tree, child)]
            self._stacks(tree)[start].extend(reversed(ranked(tree, start, distinct(tree, worthy))))

    def _passes(self, tree: Tree, node: int) -> bool:
        """True for an unfinished child that is to be visited."""
        value, threshold = tree.value[node], self.value_threshold
        if tree.status[node] != OPEN:
            return False
        if value is None or threshold is None or value > threshold:
            return True
        if not (tree.spine[node] or tree.child_ids[node] or tree.pending[node]):
            tree.close(node, PRUNED, f"value {value:g} is not above {threshold:g}")
        return False

    def _is_last(self, tree: Tree, start: int, node: int) -> bool:
        return self.max_steps is not None and tree.depth[node] - tree.depth[start] >= self.max_steps

    def _stacks(self, tree: Tree) -> dict[int, list[int]]:
        stacks: dict[int, list[int]] = tree.memory.setdefault("tot-dfs", {})
        return stacks
