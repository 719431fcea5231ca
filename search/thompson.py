"""Thompson sampling for AB-MCTS: what was observed of an arm, its posterior, and seeded draws from that.

    gaussian   scores of one arm ~ N(mu, sigma^2), prior normal-inverse-chi-squared (Inoue et al. 2025, arXiv
               2503.04412, appendix A.3.1, eq. 11 to 16) with m = 0, kappa = 1, nu = 1, tau^2 = 0.1 (appendix B.2);
               what is drawn is mu, as in the authors' code
    beta       Beta(a + sum of r, b + sum of 1 - r) with a = b = 0.5 (appendix A.3.2, eq. 17 to 19, and B.2)

Equation 15 is taken as in Murphy (2023, "Probabilistic Machine Learning: Advanced Topics", section 3.4.3.3), with the
prior mean in its last term: the paper prints the posterior's symbol there.

Every number is a hash of the tree's seed, the node's path, the ask and the arm. A node with many children needs
hundreds of draws for one ask, so `Draws` keeps what they share, and most of them end after three numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import exp, inf, log, sqrt
from statistics import NormalDist

from .columns import GOLDEN, OFFSET, finalise
from .tree import Tree, mix

GAUSSIAN_MEAN, GAUSSIAN_KAPPA, GAUSSIAN_NU, GAUSSIAN_TAU_SQUARED = 0.0, 1.0, 1.0, 0.1
"""The prior of appendix B.2 of the paper."""
BETA_A = BETA_B = 0.5
SQUEEZE = 0.0331
"""A gamma variate is accepted without logarithms below 1 - SQUEEZE * x^4 (Marsaglia & Tsang 2000, section 4)."""
INNER, INNER_LEAST = (0.16, 0.84), 0.966
"""Between these uniforms a normal variate lies in (-1, 1), and then any uniform below the latter is accepted."""
_LEAST, _MOST = 2.0**-64, 1.0 - 2.0**-53
_inverse = NormalDist().inv_cdf


@dataclass(slots=True)
class Scores:
    """Count, mean and sum of squared deviations of what was observed (Welford 1962): exact enough at any offset."""

    count: int = 0
    mean: float = 0.0
    deviation: float = 0.0
    arm: Arm | None = None
    """What a draw needs of them, while it holds."""

    def add(self, value: float) -> None:
        """One more observation."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.deviation += step * (value - self.mean)
        self.arm = None


@dataclass(slots=True)
class Arm:
    """The gaussian posterior of some scores, ready for draws at one range of values."""

    mean: float
    kappa: float
    spread: float
    """nu * tau^2."""
    third: float
    """The d of Marsaglia & Tsang for chi^2(nu), and sqrt(9 d)."""
    root: float
    scale: tuple[float, float]

    def draw(self, first: float, second: float, last: float) -> float | None:
        """mu, from the three numbers that nearly every draw needs; None when it needs more."""
        x = _inverse(first)
        v = (1.0 + x / self.root) ** 3
        if v <= 0.0:
            return None
        accepted = second < 1.0 - SQUEEZE * x * x * x * x
        if not accepted and log(second) >= 0.5 * x * x + self.third * (1.0 - v + log(v)):
            return None
        return self.mean + sqrt(self.spread / (2.0 * (self.third * v) * self.kappa)) * _inverse(last)


class Draws:
    """The draws of one ask."""

    def __init__(self, tree: Tree, model: str):
        self.opened = tree.opened
        self.model = model
        self._tree = tree
        bounds = tree.bounds
        as_told = bounds.low >= 0.0 and bounds.high <= 1.0
        self._scale = (0.0, 1.0) if as_told else (bounds.low, bounds.scale)
        self._salts: dict[int, tuple[int, int, int]] = {}

    def one(self, scores: Scores | None, node: int, arm: int) -> float:
        """One sample of an arm's score; `arm` tells the arms of one node apart."""
        if self.model == "gaussian" and scores is not None and scores.count:
            drawn = self._arm(scores).draw(*self._numbers(self._tree.order[node], *self._turns(arm)))
            if drawn is not None:
                return drawn
        scores = scaled(self._tree, scores or Scores())
        numbers = uniforms(self._tree, node, mix(self.opened, arm))
        return draw_gaussian(scores, numbers) if self.model == "gaussian" else draw_beta(scores, numbers)

    def best(self, arrived: dict[int, Scores], children: Sequence[int], arm: int) -> int:
        """The child with the highest sample, ties by seeded hash."""
        order, quick = self._tree.order, self.model == "gaussian"
        turns, best, highest = self._turns(arm), -1, -inf
        for child in children:
            scores, drawn = arrived.get(child), None
            if quick and scores is not None and scores.count:
                known = self._arm(scores)
                first, second, last = self._numbers(order[child], *turns)
                if last <= 0.5 and known.mean < highest and INNER[0] < first < INNER[1] and second < INNER_LEAST:
                    continue  # it is at most its mean
                drawn = known.draw(first, second, last)
            if drawn is None:
                drawn = self.one(scores, child, arm)
            if drawn > highest or (drawn == highest and order[child] < order[best]):
                best, highest = child, drawn
        return best

    def _turns(self, arm: int) -> tuple[int, int, int]:
        if arm not in self._salts:
            salt = mix(self.opened, arm)
            self._salts[arm] = (mix(salt, 0), mix(salt, 1), mix(salt, 2))
        return self._salts[arm]

    @staticmethod
    def _numbers(order: int, first: int, second: int, last: int) -> tuple[float, float, float]:
        """The first three numbers of `uniforms`."""
        base = order * GOLDEN + OFFSET
        return (
            (finalise(base + first) >> 11) / 2.0**53 or _LEAST,
            (finalise(base + second) >> 11) / 2.0**53 or _LEAST,
            (finalise(base + last) >> 11) / 2.0**53 or _LEAST,
        )

    def _arm(self, scores: Scores) -> Arm:
        arm = scores.arm
        if arm is None or arm.scale != self._scale:
            mean, kappa, nu, tau_squared = gaussian_posterior(scaled(self._tree, scores))
            third = 0.5 * nu - 1.0 / 3.0
            arm = scores.arm = Arm(mean, kappa, nu * tau_squared, third, sqrt(9.0 * third), self._scale)
        return arm


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
    return (min(max(tree.draw(node, mix(salt, turn)), _LEAST), _MOST) for turn in count())


def normal(numbers: Iterator[float]) -> float:
    """A standard normal variate, by the inverse of its distribution function."""
    return _inverse(next(numbers))


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
