"""AB-MCTS: a search that decides at every node whether to go wider or deeper.

Adaptive Branching MCTS with node aggregation (AB-MCTS-A; Inoue et al. 2025, arXiv 2503.04412, section 3.4, algorithm
1). At a node, GEN is a new child and CONT one of those there are. Thompson sampling decides: one draw from the
posterior of GEN and one from that of CONT; under CONT one draw for each child, and on from the best of them.

    gaussian   scores of one arm ~ N(mu, sigma^2), prior normal-inverse-chi-squared (appendix A.3.1, eq. 11 to 16) with
               m = 0, kappa = 1, nu = 1, tau^2 = 0.1 (appendix B.2); what is drawn is mu, as in the authors' code
    beta       Beta(a + sum of r, b + sum of 1 - r) with a = b = 0.5 (appendix A.3.2, eq. 17 to 19, and B.2)

Equation 15 is taken as in Murphy (2023, "Probabilistic Machine Learning: Advanced Topics", section 3.4.3.3), with the
prior mean in its last term: the paper prints the posterior's symbol there.

In the paper every node is a whole answer with a score. Here a state may have none: what is observed is a visit and the
value it backs up. A visit counts at a node for GEN when the child it came through was new (this is its first visit) or
was told by the very ask that ended the visit, else for CONT; and for the child in both cases. Where every state has a
value this is the paper's backup: the new node's score goes to the GEN of its parent, to the CONT of all above, and to
every node on the path. Where only ends have one, GEN begins a rollout (see rollouts.py) whose value is GEN's at each
step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import exp, isfinite, log, sqrt
from statistics import NormalDist

from ..storage.errors import UsageError
from .rollouts import RolloutSearch
from .tree import Child, Tree, mix

GAUSSIAN_MEAN, GAUSSIAN_KAPPA, GAUSSIAN_NU, GAUSSIAN_TAU_SQUARED = 0.0, 1.0, 1.0, 0.1
"""The prior of appendix B.2 of the paper."""
BETA_A = BETA_B = 0.5
_GEN, _CONT, _CHILD = 1, 2, 3
_STANDARD = NormalDist()


@dataclass(slots=True)
class Scores:
    """Count, mean and sum of squared deviations of what was observed (Welford 1962): exact enough at any offset."""

    count: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    def add(self, value: float) -> None:
        """One more observation."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.deviation += step * (value - self.mean)


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
        node = top
        while (choice := self._wider_or_deeper(tree, node, blocked)) != node:
            if choice is not None:
                node = choice
            elif node == top:
                return None
            else:  # all it has is being asked: look elsewhere
                blocked.add(node)
                node = top
        return node

    def _wider_or_deeper(self, tree: Tree, node: int, blocked: set[int]) -> int | None:
        """The node itself for GEN, else one of its open children; None when it has neither."""
        children = [child for child in tree.open_ids[node] if child not in blocked]
        if not children:
            return None if tree.complete[node] else node
        evidence = evidence_of(tree)
        if not tree.complete[node]:
            wider = self.draw(tree, evidence.generated.get(node), node, _GEN)
            if wider >= self.draw(tree, evidence.continued.get(node), node, _CONT):
                return node
        return max(
            children,
            key=lambda child: (self.draw(tree, evidence.arrived.get(child), child, _CHILD), -tree.order[child]),
        )

    def draw(self, tree: Tree, scores: Scores | None, node: int, arm: int) -> float:
        """One Thompson sample of an arm's score."""
        numbers = uniforms(tree, node, mix(tree.opened, arm))
        scores = scaled(tree, scores or Scores())
        return draw_gaussian(scores, numbers) if self.prior_model == "gaussian" else draw_beta(scores, numbers)


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


def scaled(tree: Tree, scores: Scores) -> Scores:
    """The scores on the scale of the priors, about [0, 1]."""
    bounds = tree.bounds
    if bounds.low >= 0.0 and bounds.high <= 1.0:
        return scores
    return Scores(scores.count, bounds.normalise(scores.mean), scores.deviation * bounds.scale * bounds.scale)


def gaussian_posterior(scores: Scores) -> tuple[float, float, float, float]:
    """m, kappa, nu and tau^2 after the scores (equations 12 to 15)."""
    kappa = GAUSSIAN_KAPPA + scores.count
    nu = GAUSSIAN_NU + scores.count
    mean = (GAUSSIAN_KAPPA * GAUSSIAN_MEAN + scores.count * scores.mean) / kappa
    apart = scores.count * GAUSSIAN_KAPPA / kappa * (GAUSSIAN_MEAN - scores.mean) ** 2
    return mean, kappa, nu, (GAUSSIAN_NU * GAUSSIAN_TAU_SQUARED + scores.deviation + apart) / nu


def beta_posterior(scores: Scores) -> tuple[float, float]:
    """a and b after the scores (equations 18 and 19)."""
    total = scores.count * min(max(scores.mean, 0.0), 1.0)
    return BETA_A + total, BETA_B + scores.count - total


def draw_gaussian(scores: Scores, numbers: Iterator[float]) -> float:
    """mu from its posterior: sigma^2 = nu tau^2 / chi^2(nu), then mu ~ N(m, sigma^2 / kappa) (equation 11)."""
    mean, kappa, nu, tau_squared = gaussian_posterior(scores)
    chi_squared = 2.0 * gamma(0.5 * nu, numbers)
    return mean + sqrt(nu * tau_squared / (chi_squared * kappa)) * normal(numbers)


def draw_beta(scores: Scores, numbers: Iterator[float]) -> float:
    """A score from Beta(a, b), as x / (x + y) of two gamma variates."""
    a, b = beta_posterior(scores)
    left, right = gamma(a, numbers), gamma(b, numbers)
    return left / (left + right)


def uniforms(tree: Tree, node: int, salt: int) -> Iterator[float]:
    """Numbers in (0, 1) that depend on the seed, the node's path and `salt` only."""
    return (min(max(tree.draw(node, mix(salt, turn)), 2.0**-64), 1.0 - 2.0**-53) for turn in count())


def normal(numbers: Iterator[float]) -> float:
    """A standard normal variate, by the inverse of its distribution function."""
    return _STANDARD.inv_cdf(next(numbers))


def gamma(shape: float, numbers: Iterator[float]) -> float:
    """A gamma variate of scale 1 and `shape` > 0 (Marsaglia & Tsang 2000; below 1 by the boost of their section 6)."""
    if shape < 1.0:
        return max(gamma(shape + 1.0, numbers) * exp(log(next(numbers)) / shape), 1e-300)
    third = shape - 1.0 / 3.0
    while True:
        x = normal(numbers)
        v = (1.0 + x / sqrt(9.0 * third)) ** 3
        if v > 0.0 and log(next(numbers)) < 0.5 * x * x + third * (1.0 - v + log(v)):
            return third * v
