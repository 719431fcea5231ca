"""Runs as the policy draws them, for estimates: what votes and Monte-Carlo values share.

A search for the best run need not play a known run again. A vote or a mean must: it would otherwise count what the
policy often does as rarely as what it never does again. So a rollout that comes to a state where everything is known,
or whose actions are all known (a complete node), goes on in what is known, finished runs included, and costs nothing
there. Each action is drawn by its prior, or, where one is unknown, by how often it was proposed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from .algorithm import FAILURE_LIMIT
from .best_of_n import BestOfN
from .tree import OPEN, PRUNED, Ask, Tree

FREE_LIMIT = 100
"""Known runs drawn in a row after which the next run is drawn among those not finished, so that no search stalls."""

SETTLED = "settled"
"""In `tree.memory`: the nodes whose actions a policy has drawn until nothing new came. That the record took an action
there is no draw of the policy's."""


@dataclass(frozen=True, kw_only=True)
class SampledRuns(BestOfN):
    """Subclasses say where runs begin and what an end means. `tree.memory` holds their counts of draws and samples."""

    def _origin(self, tree: Tree) -> int:
        """Where the next run begins."""
        return tree.start

    def _begun(self, tree: Tree) -> None:
        """One more run has begun."""
        tree.memory["best-of-n"] = tree.memory.get("best-of-n", 0) + 1

    @abstractmethod
    def _finish(self, tree: Tree, end: int, runs: int) -> None:
        """So many runs have come to this end; a node that is no end: to a state where nothing could be played."""

    def go_on(self, tree: Tree) -> Ask | None:
        """The next ask of the oldest open run that waits for one; those that end in what is known finish."""
        for _ in range(len(tree.tips)):
            tip = tree.tips.popleft()
            node = _sample(tree, tip)
            if node is None:
                tree.tips.append(tip)  # everything below is being asked already
            elif _may_ask(tree, node):
                tree.hold(node, above=tip)
                return tree.open_ask(node, 1)
            else:
                tree.release(tip)
                self._finish(tree, node, 1)
        return None

    def _begin(self, tree: Tree) -> Ask | None:
        free = 0
        while self.may_begin(tree):
            origin = self._origin(tree)
            leave = tree.leave_spine and origin == tree.start
            if free < FREE_LIMIT or tree.status[origin] != OPEN:
                node = _sample(tree, origin, leave)
            else:
                node = self._descend(tree, origin, leave)
            if node is None:
                return None
            self._begun(tree)
            if _may_ask(tree, node):
                tree.hold(node)
                return tree.open_ask(node, 1)
            free += 1
            self._finish(tree, node, 1)
        return None

    def _after(self, tree: Tree, ask: Ask, ids: Sequence[int], ended: bool) -> None:
        super()._after(tree, ask, ids, ended)
        if not ids and tree.complete[ask.node] and not (tree.leave_spine and ask.node == tree.start):
            tree.hold(ask.node)
            tree.tips.append(ask.node)  # there is no other action: the run goes on in a known one
        seen: dict[int, int] = tree.memory.setdefault("sampled-runs", {})
        for node in ids:
            if tree.terminal[node]:
                new = tree.samples[node] - seen.get(node, int(tree.spine[node]))
                seen[node] = tree.samples[node]
                self._finish(tree, node, new)
            elif tree.status[node] != OPEN and (end := _sample(tree, node)) is not None:
                self._finish(tree, end, 1)


def _sample(tree: Tree, top: int, leave_spine: bool = False) -> int | None:
    """Go down from `top` through complete nodes to one to ask, or to where a known run ends.

    None when everything there is being asked already, or only the record is left and may not be followed. Where asking
    has failed, the recorded step is no choice of the policy's: the run ends there, without a verdict.
    """
    node, barred = top, tree.spine_child(top) if leave_spine else None
    while tree.complete[node] and tree.status[node] != PRUNED:
        failed = tree.failures[node] >= FAILURE_LIMIT
        children = [child for child in tree.child_ids[node] if child != barred and not (failed and tree.spine[child])]
        if not children:
            return None if tree.pending[node] or (node == top and barred is not None) else node
        node = _drawn_again(tree, node, children)
    return node


def _may_ask(tree: Tree, node: int) -> bool:
    return tree.status[node] == OPEN and not tree.complete[node]


def _drawn_again(tree: Tree, parent: int, children: list[int]) -> int:
    turn = tree.memory["draws"] = tree.memory.get("draws", 0) + 1
    priors = [prior for child in children if (prior := tree.prior[child]) is not None]
    settled = parent in tree.memory.get(SETTLED, ())
    drawn = [tree.samples[child] - (settled and tree.spine[child]) for child in children]
    weights = priors if len(priors) == len(children) and sum(priors) > 0.0 else drawn
    left = tree.draw(parent, turn) * sum(weights)
    for child, weight in zip(children, weights, strict=True):
        left -= weight
        if left < 0.0:
            return child
    return children[-1]
