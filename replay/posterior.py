"""Credible intervals and chances for the values of recorded states, from draws of their posteriors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..search.beliefs import Belief, Scale

if TYPE_CHECKING:
    import numpy

    Draws = numpy.ndarray[Any, numpy.dtype[numpy.float64]]

DRAWS = 8000
"""Enough that a bound of an interval moves by less than 0.01 from seed to seed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value or difference with its credible interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """One recorded step: the value of the state before it, what it lost, and the chance that no step lost more.

    `between`: the state had no rollout of its own; its value lies between those of the valued states around it, and the
    drop is its share of theirs.
    """

    index: int
    before: Estimate
    drop: Estimate
    probability: float
    between: tuple[int, int] | None


class Posterior:
    """Draws from the beliefs about all valued states of one record. `beliefs` as `search.blame.beliefs` returns it."""

    def __init__(self, beliefs: Mapping[int, Belief], scale: Scale, confidence: float, seed: int):
        import numpy

        self._scale, self._confidence = scale, confidence
        self._beliefs = dict(sorted(beliefs.items()))
        generator = numpy.random.default_rng(seed)
        self._draws: dict[int, Draws] = {
            number: generator.beta(belief.alpha, belief.beta, DRAWS)
            if belief.alpha
            else numpy.full(DRAWS, belief.observed)
            for number, belief in self._beliefs.items()
        }
        known = list(self._beliefs)
        self.gaps: list[tuple[int, int]] = list(pairwise(known))

    def value(self, number: int) -> Estimate:
        """The value of a valued state. Where all its values are alike the interval ends there (Brown et al. 2001)."""
        belief = self._beliefs[number]
        low, high = self._quantiles(self._draws[number])
        low, high = (0.0 if belief.observed <= 0.0 else low), (1.0 if belief.observed >= 1.0 else high)
        value = belief.observed
        return Estimate(*map(self._scale.value, (value, min(low, value), max(high, value))))

    def drop(self, first: int, last: int) -> Estimate:
        """What the steps between two valued states lost together."""
        low, high = self._quantiles(self._draws[first] - self._draws[last])
        value = self._beliefs[first].observed - self._beliefs[last].observed
        return Estimate(*map(self._scale.difference, (value, min(low, value), max(high, value))))

    def steps(self) -> list[StepEstimate]:
        """Every recorded step from the first valued state on."""
        chances = self._chances()
        made: list[StepEstimate] = []
        for gap, chance in zip(self.gaps, chances, strict=True):
            first, last = gap
            if last - first == 1:
                made.append(StepEstimate(first, self.value(first), self.drop(first, last), chance, None))
            else:
                made += self._shared(first, last, chance)
        return made

    def window(self) -> tuple[int, int] | None:
        """The gap most likely to hold the largest drop, as its valued states; None when that drop is not credible."""
        chances = dict(zip(self.gaps, self._chances(), strict=True))
        best = max(chances, key=lambda gap: (chances[gap], -gap[0]), default=None)
        return best if best is not None and self.drop(*best).low > 0.0 else None

    def _shared(self, first: int, last: int, chance: float) -> list[StepEstimate]:
        """The steps of an unopened gap: values on the line between its ends, the drop and its chance in equal parts."""
        width, ends, whole = last - first, (self.value(first), self.value(last)), self.drop(first, last)
        drop = Estimate(whole.value / width, min(0.0, whole.low), max(0.0, whole.high))
        made = []
        for number in range(first, last):
            before = ends[0]
            if number > first:
                share = (number - first) / width
                value = ends[0].value + share * (ends[1].value - ends[0].value)
                before = Estimate(value, min(end.low for end in ends), max(end.high for end in ends))
            made.append(StepEstimate(number, before, drop, chance / width, (first, last)))
        return made

    def _chances(self) -> list[float]:
        """P(the gap's drop is the largest, and there is one), by gap; a gap of several steps counts as one."""
        import numpy

        if not self.gaps:
            return []
        drops = numpy.stack([self._draws[first] - self._draws[last] for first, last in self.gaps])
        best, any_drop = drops.argmax(axis=0), drops.max(axis=0) > 0.0
        counted = numpy.bincount(best[any_drop], minlength=len(self.gaps))
        return [float(count) / DRAWS for count in counted]

    def _quantiles(self, draws: Draws) -> tuple[float, float]:
        import numpy

        tail = (1.0 - self._confidence) / 2.0
        low, high = numpy.quantile(draws, [tail, 1.0 - tail])
        return float(low), float(high)


def largest(posterior: Posterior) -> StepEstimate | None:
    """The step most likely to have lost most, if its drop is credible and its own: the pivotal step."""
    window = posterior.window()
    if window is None or window[1] - window[0] > 1:
        return None
    return next(step for step in posterior.steps() if step.index == window[0])
