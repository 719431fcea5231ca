"""Beliefs about the value of a state after some rollouts, and how sure one may be of differences between values.

Values are taken to [0, 1]. With s the sum and n the number of a state's values the belief is Beta(s + 1/2, n - s +
1/2): for 0/1 verdicts the posterior under Jeffreys' prior, whose intervals cover well for few rollouts (Brown, Cai &
DasGupta 2001, Statistical Science 16(2), section 3.1.1). Graded values count as the share of a success that they are;
no value in [0, 1] varies more than a 0/1 verdict of the same mean, so their intervals are wider than need be, never
narrower (the same step as in Agrawal & Goyal 2012, arXiv 1111.1797, algorithm 2, without its coin).

Decisions during a search use the normal approximation: it costs nothing, and it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import erf, sqrt

JEFFREYS = 0.5


@dataclass(frozen=True, slots=True)
class Belief:
    """`mean` and `variance` in [0, 1] after `count` values, whose own mean is `observed`; `alpha` 0.0: known."""

    observed: float
    count: int
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def mean(self) -> float:
        """The posterior mean; of a known value, itself."""
        return self.alpha / (self.alpha + self.beta) if self.alpha else self.observed

    @property
    def variance(self) -> float:
        """The posterior variance."""
        whole = self.alpha + self.beta
        return self.alpha * self.beta / (whole * whole * (whole + 1.0)) if self.alpha else 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of values that [0, 1] stands for."""

    low: float = 0.0
    high: float = 1.0

    def belief(self, total: float, count: int) -> Belief:
        """After `count` values that add up to `total`."""
        share = (total - count * self.low) / (self.high - self.low)
        share = min(max(share, 0.0), float(count))
        return Belief(share / count if count else 0.5, count, share + JEFFREYS, count - share + JEFFREYS)

    def known(self, value: float) -> Belief:
        """A value that needs no rollouts."""
        return Belief((value - self.low) / (self.high - self.low), 0)

    def value(self, share: float) -> float:
        """Back from [0, 1]."""
        return self.low + share * (self.high - self.low)

    def difference(self, share: float) -> float:
        """A difference, back from [0, 1]."""
        return share * (self.high - self.low)


def chance_below_zero(weights: Mapping[int, float], beliefs: Mapping[int, Belief]) -> float:
    """P(sum of weight * value < 0), values independent and normal with their beliefs' moments; of exactly 0: 1/2."""
    mean = sum(weight * beliefs[index].mean for index, weight in weights.items())
    variance = sum(weight * weight * beliefs[index].variance for index, weight in weights.items())
    if variance <= 0.0:
        return 0.5 if mean == 0.0 else float(mean < 0.0)
    return 0.5 * (1.0 - erf(mean / sqrt(2.0 * variance)))
