"""Paired statistics over tasks: a bootstrap interval, exact tests, and the correction for several pairs.

Standard library only. Each task is one observation: whoever calls has averaged over the runs of a task.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, comb, erfc, fsum, sqrt

RESAMPLES = 10_000
DRAWS = 4_000_000
"""Draws that one interval may cost: over 400 tasks there are fewer resamples, but never under 1,000."""
EXACT_UP_TO = 50
"""Differences up to which Wilcoxon's p is exact: it costs 10 ms, and means over a few runs of a task tie often, which
the normal approximation takes badly."""
Z = 1.959963984540054
"""The normal quantile of 97.5 %."""
DIGITS = 12
"""Differences are rounded to so many digits: 0.3 - 0.2 and 0.2 - 0.1 tie, and noise of floats is no win."""


def rounded(difference: float) -> float:
    """A difference without the noise of floats; never -0.0."""
    return round(difference, DIGITS) + 0.0


def bootstrap_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the mean difference; None with fewer than two tasks.

    Tasks are resampled with replacement, both runs of a task together (Efron & Tibshirani 1993, chapter 13.3).
    """
    size = len(differences)
    if size < 2:
        return None
    count = min(RESAMPLES, max(1000, DRAWS // size))
    draw = random.Random(seed)
    means = sorted(fsum(draw.choices(differences, k=size)) / size for _ in range(count))
    return means[int(0.025 * count)], means[ceil(0.975 * count) - 1]


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927); (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    share, extra = successes / trials, Z * Z / trials
    middle = (share + extra / 2) / (1 + extra)
    half = Z * sqrt(share * (1 - share) / trials + extra / (4 * trials)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: a fair coin for each discordant pair (McNemar 1947; Mosteller 1952).

    `only_a`: tasks that A alone solved. 1.0 when no pair is discordant.
    """
    count = only_a + only_b
    tail = sum(comb(count, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / (1 << count))


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of the signed-rank test (Wilcoxon 1945): zeros are dropped, ties share the mean of their ranks.

    Up to 50 differences it is exact over all sign patterns, given the ranks as they are, ties included (Lehmann 1975,
    chapter 3); above that the normal approximation, corrected for ties and for continuity. 1.0 when all are zero.
    """
    known = [value for difference in differences if (value := rounded(difference))]
    ranks = doubled_ranks([abs(value) for value in known])
    positive = sum(rank for rank, value in zip(ranks, known, strict=True) if value > 0)
    smaller = min(positive, sum(ranks) - positive)
    return _exact(ranks, smaller) if len(known) <= EXACT_UP_TO else _approximate(ranks, smaller)


def doubled_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the rank of each size from the smallest on; equal sizes share the mean rank, so twice it is whole."""
    counts = sorted(Counter(sizes).items())
    ends = accumulate(count for _, count in counts)
    twice = {size: 2 * end - count + 1 for (size, count), end in zip(counts, ends, strict=True)}
    return [twice[size] for size in sizes]


def _exact(ranks: Sequence[int], smaller: int) -> float:
    """P(either sum of ranks <= the smaller one), counted over the 2^n sign patterns by dynamic programming."""
    patterns = [1] + [0] * smaller
    for rank in ranks:
        for total in range(smaller, rank - 1, -1):
            patterns[total] += patterns[total - rank]
    return min(1.0, 2 * sum(patterns) / (1 << len(ranks)))


def _approximate(ranks: Sequence[int], smaller: int) -> float:
    """Under the null the sum has mean Σr / 2 and variance Σr² / 4, which is n(n+1)(2n+1)/24 less the terms of ties."""
    mean = sum(ranks) / 4
    deviation = sqrt(sum(rank * rank for rank in ranks) / 16)
    distance = max(0.0, abs(smaller / 2 - mean) - 0.5)
    return min(1.0, erfc(distance / deviation / sqrt(2)))


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for their number, step-down (Holm 1979): each at least as large as every smaller one's."""
    adjusted = [0.0] * len(values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda item: values[item])):
        least = max(least, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = least
    return adjusted
