"""Greedy search: expand, go on in the best child, never look back while there is a way on.

Hill climbing by the guide's value, which is one beam of width 1 that stops at its first end; with `branching` 1 it is
the policy's own run. The walk is also that of each sub-tree of DVTS (see `dvts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .frontier import FrontierSearch, goes_on, known, may_be_asked, ranked
from .tree import Ask, Tree


@dataclass(slots=True)
class Walk:
    """One walk down the tree: where it stands, what it was offered at each node, and which nodes led nowhere."""

    at: int
    offered: dict[int, list[int]]
    dead: set[int] = field(default_factory=set)
    asked: bool = False
    ended: bool = False

    def node_to_ask(self, tree: Tree, start: int, widen_start: bool) -> int | None:
        """Go on as far as known children lead; the node to ask then, None when the walk has ended.

        A node that will have no child to go on in is left for its parent, where the next best child is taken.
        `widen_start`: the start itself may be asked.
        """
        while not self.ended:
            candidates = [node for node in self.offered.get(self.at, []) if self._leads_on(tree, node)]
            if candidates:
                self.at = ranked(tree, start, candidates)[0]
                self.ended = tree.terminal[self.at]
                self.offered.setdefault(self.at, known(tree, self.at))
            elif may_be_asked(tree, self.at) and (widen_start or self.at != start):
                return self.at
            elif self.at == start:
                self.ended = True
            else:
                self.dead.add(self.at)
                self.at = tree.parent[self.at]
        return None

    def take(self, node: int, children: list[int]) -> None:
        """The children that an ask at the node brought."""
        self.asked = False
        self.offered.setdefault(node, []).extend(children)

    def _leads_on(self, tree: Tree, node: int) -> bool:
        return tree.terminal[node] or (goes_on(tree, node) and node not in self.dead)


@dataclass(frozen=True, kw_only=True)
class Greedy(FrontierSearch):
    """From `tree.start`: ask for `branching` children, go on in the best of them, and so on to the end of one run.

    - Best: by value, then by prior, then by seeded hash. While no unfinished child has a value, by prior alone: then a
      finished one is taken only when the policy thinks it likeliest.
    - When the best child is a finished run, the search is over and `ask` returns [].
    - No backtracking, with two exceptions: a node whose expansion failed or brought nothing to go on in is asked again;
      and when it has ended without a child to go on in (all failed, pruned or expanded elsewhere), the walk steps back
      to the parent and goes on in the next best child there, or asks for more.

    `tree.memory["greedy"]` holds one Walk a start.
    """

    def _next(self, tree: Tree) -> Ask | None:
        start = tree.start
        walk = self._walks(tree).setdefault(start, Walk(start, {start: known(tree, start)}))
        if walk.asked or (node := walk.node_to_ask(tree, start, widen_start=True)) is None:
            return None
        walk.asked = True
        return self._open(tree, node, self.branching)

    def plan_ended(self, tree: Tree) -> str | None:
        """Once its one run has come to an end."""
        walk = self._walks(tree).get(tree.start)
        return "its run has come to an end" if walk is not None and walk.ended else None

    def _received(self, tree: Tree, start: int, ask: Ask, offered: list[int]) -> None:
        self._walks(tree)[start].take(ask.node, offered)

    def _walks(self, tree: Tree) -> dict[int, Walk]:
        walks: dict[int, Walk] = tree.memory.setdefault("greedy", {})
        return walks
