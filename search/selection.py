"""Selection formulas of MCTS, on the statistics of nodes or on those of actions with several outcomes.

Everything here reads a `Statistics`: the Tree itself, whose columns go by node id, or an Arms, whose dictionaries go by
an action's first outcome. Scores are on the tree's normalised scale (see `values.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf, log, sqrt

from .algorithm import prior_scale
from .ranking import MANY, ranking_of
from .tree import OPEN, Tree
from .values import Bounds


@dataclass(slots=True)
class Arms:
    """What selection sees of the actions at one node, each under the id of its first outcome; names as in Tree."""

    bounds: Bounds
    visits: dict[int, int]
    virtual: dict[int, int]
    value_sum: dict[int, float]
    value_max: dict[int, float]


Statistics = Tree | Arms
UNIT = Bounds()
UNIT.include(0.0)
UNIT.include(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula(ABC):
    """The constants of one search; a subclass is the formula.

    `max_weight`: w in Q = (1 - w) * mean + w * highest value. `prior_weight`: with alpha above 0, Q is
    P^alpha * Q^(1 - alpha) (RAP: see `mcts.py`). `urgency`: the Q of an arm without a visit.
    """

    exploration: float
    loss: float = 0.0
    urgency: float | None = None
    prior_weight: float = 0.0
    max_weight: float = 0.0

    def select(self, statistics: Statistics, tree: Tree, node: int, arms: list[int]) -> int:
        """The arm with the highest score, ties by seeded hash; -1 when there is none."""
        if len(arms) < 2:
            return arms[0] if arms else -1
        if self.prior_weight:
            statistics = with_priors(statistics, tree, node, arms, self.prior_weight, self.max_weight)
        return self._best(statistics, tree, node, arms)

    def child(self, tree: Tree, node: int, blocked: set[int]) -> int:
        """The open child that is not blocked with the highest score, as `select` finds it; -1 when there is none."""
        children = tree.open_ids[node]
        if len(children) >= MANY and not self.prior_weight:
            return ranking_of(tree, node, self).best(tree, node, blocked)
        if blocked:
            children = [child for child in children if child not in blocked]
        return self.select(tree, tree, node, children)

    @abstractmethod
    def _best(self, statistics: Statistics, tree: Tree, node: int, arms: list[int]) -> int:
        """The best of several arms."""

    # The formula in parts, for rankings: `_best` does the same in one loop, operation by operation.

    @abstractmethod
    def pace(self, tree: Tree, node: int) -> tuple[float, float]:
        """What the bonuses of all children grow with, and the weight of a child whose prior is unknown."""

    @abstractmethod
    def weight(self, tree: Tree, child: int, fill: float) -> float:
        """What of the bonus is the child's own."""

    @abstractmethod
    def score(self, pace: float, weight: float, count: int, quality: float) -> float:
        """The score of a child with `count` visits and open asks; it never falls when the pace grows."""

    @abstractmethod
    def newcomer(self, tree: Tree, node: int, pace: float, weight: float) -> float:
        """The score of a child without any."""

    def quality(self, tree: Tree, child: int) -> float:
        """Q of a visited child."""
        real, low, share = tree.visits[child], tree.bounds.low, self.max_weight
        quality = (1.0 - share) * (tree.value_sum[child] - real * low) / (real + self.loss * tree.virtual[child])
        return (quality + share * (tree.value_max[child] - low)) * tree.bounds.scale


class Uct(Formula):
    """Q + c * sqrt(ln N / n); an arm that was never visited comes first, unless there is an `urgency`."""

    __slots__ = ()

    def _best(self, statistics: Statistics, tree: Tree, node: int, arms: list[int]) -> int:
        visits, virtual, value_sum, order = statistics.visits, statistics.virtual, statistics.value_sum, tree.order
        low, scale, value_max = statistics.bounds.low, statistics.bounds.scale, statistics.value_max
        exploration, loss, weight = self.exploration, self.loss, self.max_weight
        unvisited = inf if self.urgency is None else self.urgency
        log_total = log(max(1, tree.visits[node] + tree.virtual[node]))
        best, best_score = -1, -inf
        for arm in arms:
            real = visits[arm]
            count = real + virtual[arm]
            if real:
                quality = (1.0 - weight) * (value_sum[arm] - real * low) / (real + loss * virtual[arm])
                quality += weight * (value_max[arm] - low)
                score = quality * scale + exploration * sqrt(log_total / count)
            else:
                score = exploration * sqrt(log_total / count) if count else unvisited
            if score > best_score or (score == best_score and order[arm] < order[best]):
                best, best_score = arm, score
        return best

    def pace(self, tree: Tree, node: int) -> tuple[float, float]:
        """The logarithm of the parent's visits; priors do not count."""
        return log(max(1, tree.visits[node] + tree.virtual[node])), 0.0

    def weight(self, tree: Tree, child: int, fill: float) -> float:
        """All children are alike."""
        return 0.0

    def score(self, pace: float, weight: float, count: int, quality: float) -> float:
        """Q + c * sqrt(ln N / n)."""
        return quality + self.exploration * sqrt(pace / count)

    def newcomer(self, tree: Tree, node: int, pace: float, weight: float) -> float:
        """Before all others, unless there is an `urgency`."""
        return inf if self.urgency is None else self.urgency


class Puct(Formula):
    """Q + c * P * sqrt(N) / (1 + n); without an `urgency` an arm that was never visited is as good as the node."""

    __slots__ = ()

    def _best(self, statistics: Statistics, tree: Tree, node: int, arms: list[int]) -> int:
        visits, virtual, value_sum, order = statistics.visits, statistics.virtual, statistics.value_sum, tree.order
        low, scale, value_max = statistics.bounds.low, statistics.bounds.scale, statistics.value_max
        loss, share = self.loss, self.max_weight
        prior, (fill, total) = tree.prior, prior_scale(tree, node)
        factor = self.exploration * sqrt(max(1, tree.visits[node] + tree.virtual[node])) / total
        best, best_score = -1, -inf
        for arm in arms:
            weight = prior[arm]
            real = visits[arm]
            count = real + virtual[arm]
            score = factor * (fill if weight is None else weight) / (1 + count)
            if real:
                quality = (1.0 - share) * (value_sum[arm] - real * low) / (real + loss * virtual[arm])
                score += (quality + share * (value_max[arm] - low)) * scale
            elif not count:
                score += self._of_new(tree, node, arm)
            if score > best_score or (score == best_score and order[arm] < order[best]):
                best, best_score = arm, score
        return best

    def pace(self, tree: Tree, node: int) -> tuple[float, float]:
        """c * sqrt(N) over the sum of the priors, and what a missing one counts as."""
        fill, total = prior_scale(tree, node)
        return self.exploration * sqrt(max(1, tree.visits[node] + tree.virtual[node])) / total, fill

    def weight(self, tree: Tree, child: int, fill: float) -> float:
        """The child's prior."""
        prior = tree.prior[child]
        return fill if prior is None else prior

    def score(self, pace: float, weight: float, count: int, quality: float) -> float:
        """Q + c * P * sqrt(N) / (1 + n)."""
        return pace * weight / (1 + count) + quality

    def newcomer(self, tree: Tree, node: int, pace: float, weight: float) -> float:
        """As good as the node, or as the `urgency`."""
        return pace * weight + self._of_new(tree, node, -1)

    def _of_new(self, tree: Tree, node: int, arm: int) -> float:
        """The quality of an arm that was never visited."""
        if self.urgency is not None:
            return self.urgency
        quality = parent_quality(tree, node)
        return mixed(quality, share_of_prior(tree, node, arm), self.prior_weight) if self.prior_weight else quality


FORMULAS: dict[str, type[Formula]] = {"uct": Uct, "puct": Puct}


def with_priors(
    statistics: Statistics, tree: Tree, node: int, arms: list[int], prior_weight: float, max_weight: float
) -> Arms:
    """The arms with P^alpha * Q^(1 - alpha) in the place of both the mean and the highest value, on the unit scale."""
    low, scale, visits = statistics.bounds.low, statistics.bounds.scale, statistics.visits
    qualities: dict[int, float] = dict.fromkeys(arms, 0.0)
    for arm in arms:
        if visits[arm]:
            mean = statistics.value_sum[arm] / visits[arm]
            quality = ((1.0 - max_weight) * mean + max_weight * statistics.value_max[arm] - low) * scale
            qualities[arm] = mixed(quality, share_of_prior(tree, node, arm), prior_weight)
    known = {arm: visits[arm] for arm in arms}
    totals = {arm: known[arm] * qualities[arm] for arm in arms}
    return Arms(UNIT, known, {arm: statistics.virtual[arm] for arm in arms}, totals, qualities)


def mixed(quality: float, share: float, weight: float) -> float:
    """The weighted geometric mean of a normalised value and a normalised prior; rounding may have left [0, 1]."""
    return float(share**weight * max(0.0, quality) ** (1.0 - weight))


def share_of_prior(tree: Tree, node: int, arm: int) -> float:
    """The prior of an action, normalised over the actions at the node."""
    (fill, total), prior = prior_scale(tree, node), tree.prior[arm]
    return (fill if prior is None else prior) / total


def parent_quality(tree: Tree, node: int) -> float:
    """The normalised mean of a node; 0.0 without a visit."""
    mean = tree.mean(node)
    return 0.0 if mean is None else tree.bounds.normalise(mean)


def actions(tree: Tree, node: int) -> dict[int, list[int]]:
    """The children of a node by action: first outcome -> all outcomes."""
    if node not in tree.outcomes.extra:
        return {child: [child] for child in tree.child_ids[node]}
    grouped: dict[str, list[int]] = {}
    for child in tree.child_ids[node]:
        grouped.setdefault(tree.action[child], []).append(child)
    return {outcomes[0]: outcomes for outcomes in grouped.values()}


def aggregate(tree: Tree, node: int, grouped: dict[int, list[int]]) -> Arms:
    """The statistics of whole actions: visits summed, values (mean and highest) as the mean over outcomes weighted by
    how often the world drew each. Asks for another outcome that are open count as virtual visits of their action."""
    arms = Arms(tree.bounds, {}, {}, {}, {})
    for first, outcomes in grouped.items():
        action = tree.key[first]
        times = tree.outcomes.draws(node, action, first)
        seen = [outcome for outcome in outcomes if tree.visits[outcome]]
        drawn = sum(times[outcome] for outcome in seen) or 1
        visits = sum(tree.visits[outcome] for outcome in outcomes)
        mean = sum(times[one] * tree.value_sum[one] / tree.visits[one] for one in seen) / drawn
        waiting = tree.outcomes.pending.get((node, action), 0)
        arms.visits[first] = visits
        arms.virtual[first] = waiting + sum(tree.virtual[outcome] for outcome in outcomes)
        arms.value_sum[first] = mean * visits
        arms.value_max[first] = sum(times[one] * tree.value_max[one] for one in seen) / drawn
    return arms


def is_open(tree: Tree, nodes: list[int], blocked: set[int]) -> list[int]:
    """Those of the nodes that may be descended to."""
    return [node for node in nodes if tree.status[node] == OPEN and node not in blocked]
