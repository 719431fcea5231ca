"""Best-of-n: whole runs side by side, and the best of them.

N rollouts are drawn from the policy and the one with the highest value is taken (Stiennon et al. 2020, arXiv
2009.01325; Cobbe et al. 2021, arXiv 2110.14168, with a verifier). The baseline that every other search must
beat.
"""

from __future__ import annotations

from dataclasses import dataclass

from .algorithm import check_count
from .rollouts import RolloutSearch
from .tree import Ask, Tree


@dataclass(frozen=True, kw_only=True)
class BestOfN(RolloutSearch):
    """`n` independent rollouts from `tree.start`; None: as many as the budget allows. `tree.best()` is the answer.

    Every step asks the policy for one action; where the node is complete (a finite action set was listed to its end)
    the action is drawn from the open children by their priors, with the tree's seed. Values of unfinished states are
    backed up, but do not end a rollout. `tree.memory["best-of-n"]` counts the rollouts begun.
    """

    n: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n", self.n, optional=True)

    def may_begin(self, tree: Tree) -> bool:
        """True when fewer than `n` rollouts were begun and one more may be open now."""
        return (self.n is None or tree.memory.get("best-of-n", 0) < self.n) and super().may_begin(tree)

    def plan_ended(self, tree: Tree) -> str | None:
        """Once `n` rollouts have ended."""
        over = self.n is not None and tree.memory.get("best-of-n", 0) >= self.n and not (tree.asks or tree.tips)
        return f"its {self.n} rollouts have ended" if over else None

    def _begin(self, tree: Tree) -> Ask | None:
        ask = super()._begin(tree)
        if ask is not None:
            tree.memory["best-of-n"] = tree.memory.get("best-of-n", 0) + 1
        return ask

    def _descend(self, tree: Tree, top: int, leave_spine: bool = False) -> int | None:
        barred = tree.spine_child(top) if leave_spine else None
        node: int | None = top
        while node is not None and tree.complete[node]:
            node = _drawn(tree, node, [child for child in tree.open_ids[node] if child != barred])
        return node

    def _goes_on_after_value(self) -> bool:
        return True


def _drawn(tree: Tree, parent: int, nodes: list[int]) -> int | None:
    """One of the nodes, with the chances of their priors (all alike when one is unknown)."""
    if not nodes:
        return None
    priors = [tree.prior[node] for node in nodes]
    weights = [prior for prior in priors if prior is not None]
    total = sum(weights)
    if len(weights) < len(nodes) or total <= 0.0:
        weights, total = [1.0] * len(nodes), float(len(nodes))
    left = tree.draw(parent, tree.opened) * total
    for node, weight in zip(nodes, weights, strict=True):
        left -= weight
        if left < 0.0:
            return node
    return nodes[-1]
