"""Monte-Carlo tree search for action sets that are known, or open.

Selection, with N visits of the parent, n of the child, and Q the child's mean normalised to the tree's own range (see
`values.py`):

    uct    Q + c * sqrt(ln N / n)             UCT (Kocsis & Szepesvari 2006) on UCB1 (Auer et al. 2002, theorem 1:
                                              c = sqrt 2 for rewards in [0, 1])
    puct   Q + c * P * sqrt(N) / (1 + n)      AlphaZero (Silver et al. 2018, "Search"), P normalised over the siblings

Open asks and rollouts count in N and n. In Q they do not, as in WU-UCT (Liu et al. 2020, arXiv 1810.11755), unless
`virtual_loss` says so: a loss of 1 is the classic one (Chaslot et al. 2008), and costs much quality at width.

Expansion by progressive widening (Couetoux et al. 2011): a node may have ceil(C * N^alpha) children. Evaluation by the
value a child was told with, else by a rollout to an end. Backup adds to sums and counts; means are never stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log, pow, sqrt

from ..storage.errors import UsageError
from .algorithm import check_count, check_number, prior_scale
from .rollouts import RolloutSearch
from .tree import Tree

EXPLORATION = {"uct": 0.3, "puct": 0.5}
"""Chosen on needles among 4,096 leaves with a noisy value and without one, 64 and 256 transitions, widths 1 to 32."""


@dataclass(frozen=True, kw_only=True)
class MCTS(RolloutSearch):
    """UCT or PUCT with progressive widening.

    - `selection`: "uct" or "puct"; `exploration`: the constant c, None for 0.3 (uct) or 0.5 (puct).
    - `virtual_loss`: how many visits with the tree's lowest value an open ask or rollout counts as in Q. What has open
      ones only has Q = 0.
    - `widening_coefficient`, `widening_exponent`: C from 0 and alpha in [0, 1]. A large C lists every known action
      first.
    - `expand`: children wanted when a node is widened; several may exceed the widening limit by `expand` - 1. The
      rollout goes on in the likeliest; the others wait for a visit.
    - `first_play_urgency`: the score of a child without any visit, on the normalised scale. None: such children come
      first ("uct"), or count as good as their parent ("puct").
    - `evaluation`: "value" (a told value ends the rollout; without one it goes to an end) or "both" (the value counts,
      and the rollout goes to an end all the same).

    A node without an open child is asked even beyond its limit, so no search stalls while something is left. Nodes of
    the record are nodes like all others: the descent follows the spine and may widen at any of its states.
    """

    selection: str = "puct"
    exploration: float | None = None
    virtual_loss: float = 0.0
    widening_coefficient: float = 2.0
    widening_exponent: float = 0.5
    expand: int = 1
    first_play_urgency: float | None = None
    evaluation: str = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("exploration", self.exploration, low=0.0)
        check_number("virtual_loss", self.virtual_loss, low=0.0)
        check_number("widening_coefficient", self.widening_coefficient, low=0.0)
        check_number("widening_exponent", self.widening_exponent, low=0.0, high=1.0)
        check_number("first_play_urgency", self.first_play_urgency)
        check_count("expand", self.expand)
        if self.selection not in ("uct", "puct"):
            raise UsageError(f"selection must be uct or puct, not {self.selection!r}")
        if self.evaluation not in ("value", "both"):
            raise UsageError(f"evaluation must be value or both, not {self.evaluation!r}")

    def _count(self) -> int:
        return self.expand

    def _goes_on_after_value(self) -> bool:
        return self.evaluation == "both"

    def _descend(self, tree: Tree, top: int, leave_spine: bool = False) -> int | None:
        recorded = tree.spine_child(top) if leave_spine else None
        barred = set() if recorded is None else {recorded}
        node = self._walk(tree, top, set(barred), crowd=False)
        return node if node is not None else self._walk(tree, top, barred, crowd=True)

    def _walk(self, tree: Tree, top: int, blocked: set[int], crowd: bool) -> int | None:
        """Descend to the node to ask. `crowd`: a node without an open child may be asked by several at once."""
        node = top
        while not self._may_widen(tree, node):
            child = self._select(tree, node, blocked)
            if child >= 0:
                node = child
            elif not tree.complete[node] and (crowd or not tree.pending[node]):
                break
            elif node == top:
                return None
            else:  # all it has is being asked: look elsewhere
                blocked.add(node)
                node = top
        return node

    def _may_widen(self, tree: Tree, node: int) -> bool:
        if tree.complete[node]:
            return False
        visits = tree.visits[node] + tree.virtual[node]
        limit = ceil(self.widening_coefficient * pow(visits, self.widening_exponent))
        have = len(tree.child_ids[node]) + tree.pending[node]
        return have < max(1, limit)

    def _select(self, tree: Tree, node: int, blocked: set[int]) -> int:
        """The open child with the highest score, ties by seeded hash; -1 when there is none."""
        children = tree.open_ids[node]
        if blocked:
            children = [child for child in children if child not in blocked]
        if len(children) < 2:
            return children[0] if children else -1
        if self.selection == "uct":
            return self._select_uct(tree, node, children)
        return self._select_puct(tree, node, children)

    def _constant(self) -> float:
        return EXPLORATION[self.selection] if self.exploration is None else self.exploration

    def _select_uct(self, tree: Tree, node: int, children: list[int]) -> int:
        visits, virtual, value_sum, order = tree.visits, tree.virtual, tree.value_sum, tree.order
        low, scale = tree.bounds.low, tree.bounds.scale
        exploration, loss = self._constant(), self.virtual_loss
        unvisited = inf if self.first_play_urgency is None else self.first_play_urgency
        log_total = log(max(1, visits[node] + virtual[node]))
        best, best_score = -1, -inf
        for child in children:
            real = visits[child]
            count = real + virtual[child]
            if real:
                quality = (value_sum[child] - real * low) * scale / (real + loss * virtual[child])
                score = quality + exploration * sqrt(log_total / count)
            else:
                score = exploration * sqrt(log_total / count) if count else unvisited
            if score > best_score or (score == best_score and order[child] < order[best]):
                best, best_score = child, score
        return best

    def _select_puct(self, tree: Tree, node: int, children: list[int]) -> int:
        visits, virtual, value_sum, order = tree.visits, tree.virtual, tree.value_sum, tree.order
        low, scale, loss = tree.bounds.low, tree.bounds.scale, self.virtual_loss
        unvisited = self.first_play_urgency
        prior, (fill, total) = tree.prior, prior_scale(tree, node)
        factor = self._constant() * sqrt(max(1, visits[node] + virtual[node])) / total
        best, best_score = -1, -inf
        for child in children:
            weight = prior[child]
            real = visits[child]
            count = real + virtual[child]
            score = factor * (fill if weight is None else weight) / (1 + count)
            if real:
                score += (value_sum[child] - real * low) * scale / (real + loss * virtual[child])
            elif not count:
                unvisited = _parent_quality(tree, node) if unvisited is None else unvisited
                score += unvisited
            if score > best_score or (score == best_score and order[child] < order[best]):
                best, best_score = child, score
        return best


def _parent_quality(tree: Tree, node: int) -> float:
    mean = tree.mean(node)
    return 0.0 if mean is None else tree.bounds.normalise(mean)
