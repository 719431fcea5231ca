"""AB-MCTS: a search that decides at every node whether to go wider or deeper.

Adaptive Branching MCTS with node aggregation (AB-MCTS-A; Inoue et al. 2025, arXiv 2503.04412, section 3.4, algorithm
1). At a node, GEN is a new child and CONT one of those there are. Thompson sampling decides: one draw from the
posterior of GEN and one from that of CONT; under CONT one draw for each child, and on from the best of them.

The posteriors are those of `thompson.py`: "gaussian" for any scores, "beta" for scores that fill [0, 1].

In the paper every node is a whole answer with a score. Here a state may have none: what is observed is a visit and the
value it backs up. A visit counts at a node for GEN when the child it came through was new (this is its first visit) or
was told by the very ask that ended the visit, else for CONT; and for the child in both cases. Where every state has a
value this is the paper's backup: the new node's score goes to the GEN of its parent, to the CONT of all above, and to
every node on the path. Where only ends have one, GEN begins a rollout (see rollouts.py) whose value is GEN's at each
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from ..storage.errors import UsageError
from .rollouts import RolloutSearch
from .thompson import Draws, Scores
from .tree import Child, Tree

_GEN, _CONT, _CHILD = 1, 2, 3


@dataclass(slots=True)
class Evidence:
    """What was observed so far, by node id."""

    arrived: dict[int, Scores] = field(default_factory=dict)
    """Visits through the node: its posterior as a child."""
    generated: dict[int, Scores] = field(default_factory=dict)
    continued: dict[int, Scores] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AdaptiveBranching(RolloutSearch):
    """AB-MCTS-A. `prior_model`: "gaussian", for any scores, or "beta", for scores that fill [0, 1].

    - Scores are taken as they are while all of the tree's lie in [0, 1], as in the paper; from the first one outside
      on, all are normalised to the tree's range (see values.py), so that the priors fit.
    - A complete node has no GEN; ended children are never chosen; a node without an open child is asked for one.
    - Several asks may be open at one node: every draw is a new one, which is the paper's way to run in parallel.
    - Visits of the record and of whatever was told before count as evidence.

    `tree.memory["ab-mcts"]` holds the Evidence. Draws are hashes of the tree's seed, the node's path and the number of
    asks so far. Raises UsageError for another `prior_model`.
    """

    prior_model: str = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior_model not in ("gaussian", "beta"):
            raise UsageError(f"prior_model must be gaussian or beta, not {self.prior_model!r}")

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """As every algorithm; a node that ended by the tell without a child backed up the tree's lowest value."""
        evidence_of(tree)
        ask = tree.asks.get(ask_id)
        ends = tree.ends[ask.node] if ask is not None else 0
        ids = super().tell(tree, ask_id, children, more=more, failed=failed)
        if ask is not None and tree.ends[ask.node] > ends:
            observe(tree, ask.node, tree.bounds.low)
        return ids

    def _place(self, tree: Tree, parent: int, child: Child, action: str | None = None) -> int:
        ended = tree.ended
        node = super()._place(tree, parent, child, action)
        if tree.ended > ended:
            known = tree.value[node]
            value = child.value if child.value is not None and isfinite(child.value) else known
            observe(tree, node, tree.bounds.low if value is None else value, told_by=parent)
        return node

    def _descend(self, tree: Tree, top: int, leave_spine: bool = False) -> int | None:
        recorded = tree.spine_child(top) if leave_spine else None
        blocked = set() if recorded is None else {recorded}
        node, draws = top, Draws(tree, self.prior_model)
        while (choice := self._wider_or_deeper(tree, node, blocked, draws)) != node:
            if choice is not None:
                node = choice
            elif node == top:
                return None
            else:  # all it has is being asked: look elsewhere
                blocked.add(node)
                node = top
        return node

    def _wider_or_deeper(self, tree: Tree, node: int, blocked: set[int], draws: Draws) -> int | None:
        """The node itself for GEN, else one of its open children; None when it has neither."""
        children = [child for child in tree.open_ids[node] if child not in blocked]
        if not children:
            return None if tree.complete[node] else node
        evidence = evidence_of(tree)
        if not tree.complete[node]:
            wider = draws.one(evidence.generated.get(node), node, _GEN)
            if wider >= draws.one(evidence.continued.get(node), node, _CONT):
                return node
        return draws.best(evidence.arrived, children, _CHILD)


def evidence_of(tree: Tree) -> Evidence:
    """The tree's evidence; made from its visits when there is none yet."""
    evidence: Evidence | None = tree.memory.get("ab-mcts")
    if evidence is None:
        evidence = tree.memory["ab-mcts"] = Evidence()
        for node in range(len(tree)):
            for _ in range(tree.ends[node]):
                value = tree.value[node]
                observe(tree, node, tree.bounds.low if value is None else value)
    return evidence


def observe(tree: Tree, node: int, value: float, told_by: int = -1) -> None:
    """One visit that ended at `node`, for every node of its path; `told_by`: the asked node that it was told under."""
    evidence = evidence_of(tree)
    while (parent := tree.parent[node]) >= 0:
        arrived = evidence.arrived.setdefault(node, Scores())
        is_new = not arrived.count or parent == told_by
        arm = evidence.generated if is_new else evidence.continued
        arm.setdefault(parent, Scores()).add(value)
        arrived.add(value)
        node = parent
