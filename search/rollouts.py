"""Rollouts as chains of asks: what MCTS and best-of-n share.

A rollout begins with an ask at a node the algorithm chose and goes on in one of the children it was told, one child an
ask, until it meets an end. Its states were paid for, so they stay in the tree. While it is open it counts as one
virtual visit on its whole path, between its asks too.

Open rollouts go on before new ones begin, oldest first. A new one begins only while fewer are open than 1 + half the
visits so far: the first is alone, then each finished generation lets half as many more begin, up to the width that is
asked for. Otherwise the asked width would decide how wide the root becomes before anything is known, and a budget would
end with all rollouts half way. The rule does not look at the budget, so a larger budget continues the same search.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from .algorithm import TreeSearch
from .tree import OPEN, Ask, Tree


@dataclass(frozen=True, kw_only=True)
class Rollouts(TreeSearch):
    """Subclasses choose the node to ask, how many children, and whether a value ends a rollout."""

    def may_begin(self, tree: Tree) -> bool:
        """True when one more rollout may be open now."""
        return len(tree.tips) + len(tree.asks) < 1 + tree.ended // 2

    def _next(self, tree: Tree) -> Ask | None:
        return self.go_on(tree) or (self._begin(tree) if self.may_begin(tree) else None)

    def go_on(self, tree: Tree) -> Ask | None:
        """The next ask of the oldest open rollout that waits for one; None when none can go on now."""
        for _ in range(len(tree.tips)):
            tip = tree.tips.popleft()
            if tree.status[tip] != OPEN:
                tree.release(tip)  # another rollout has ended everything below: this one stops without a visit
                continue
            spot = self._choose(tree, tip)
            if spot is not None:
                tree.hold(spot[0], above=tip)
                return tree.open_ask(spot[0], 1, spot[1])
            tree.tips.append(tip)  # everything below is being asked already
        return None

    def _begin(self, tree: Tree) -> Ask | None:
        if tree.status[tree.start] != OPEN:
            return None
        spot = self._choose(tree, tree.start, tree.leave_spine)
        if spot is None:
            return None
        node, action = spot
        tree.hold(node)
        return tree.open_ask(node, self._count() if action is None else 1, action)

    @abstractmethod
    def _choose(self, tree: Tree, top: int, leave_spine: bool = False) -> tuple[int, str | None] | None:
        """Where to ask at or below `top`, and the known action to play again there (None: for a new one); None when
        there is nothing that is not being asked already."""

    def _count(self) -> int:
        """How many children the first ask of a rollout wants."""
        return 1

    def _goes_on_after_value(self) -> bool:
        """True: a rollout goes on although the told child already brought a visit."""
        return False

    def _after(self, tree: Tree, ask: Ask, ids: Sequence[int], ended: bool) -> None:
        follow = None
        if not ended or self._goes_on_after_value():
            follow = _likeliest(tree, [node for node in ids if tree.status[node] == OPEN])
        if follow is None:
            tree.release(ask.node)
        else:
            tree.virtual[follow] += 1
            if ask.node in tree.watched:
                tree.watched[ask.node].add(follow)
            tree.tips.append(follow)


@dataclass(frozen=True, kw_only=True)
class RolloutSearch(Rollouts):
    """Rollouts that play every action once: subclasses choose the node to ask."""

    def _choose(self, tree: Tree, top: int, leave_spine: bool = False) -> tuple[int, str | None] | None:
        node = self._descend(tree, top, leave_spine)
        return None if node is None else (node, None)

    @abstractmethod
    def _descend(self, tree: Tree, top: int, leave_spine: bool = False) -> int | None:
        """The node at or below `top` to ask for a child; None when there is none that is not being asked already."""


def _likeliest(tree: Tree, nodes: Sequence[int]) -> int | None:
    """The node with the highest prior (unknown counts as 0), ties by seeded hash; None of none."""
    if len(nodes) < 2:
        return nodes[0] if nodes else None
    return max(nodes, key=lambda node: (tree.prior[node] or 0.0, -tree.order[node]))
