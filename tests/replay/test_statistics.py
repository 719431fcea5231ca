"""The tests and intervals against published examples and against brute force over every sign pattern."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay.replay.statistics import (
    EXACT_UP_TO,
    bootstrap_interval,
    doubled_ranks,
    holm,
    mcnemar,
    rounded,
    wilcoxon,
)

DARWIN = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
"""Crossed less self-fertilised maize, in eighths of an inch (Darwin 1876; Fisher 1935): W- = 24."""
DEPRESSION = [0.952, -0.147, 1.022, 0.43, 0.62, 0.59, 0.49, -0.08, 0.01]
"""Hamilton scores before less after (Hollander & Wolfe 1973, table 3.1): W+ = 40, one-sided p = .0195."""

differences = st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75]), max_size=9)


def brute_wilcoxon(values: Sequence[float]) -> float:
    """P of a sum of signed ranks at least as far from 0, over all sign patterns; mid-ranks by their definition."""
    known = [value for value in values if value]
    sizes = [abs(value) for value in known]
    ranks = [sum(o < s for o in sizes) + (sum(o == s for o in sizes) + 1) / 2 for s in sizes]
    seen = abs(sum(rank if value > 0 else -rank for rank, value in zip(ranks, known, strict=True)))
    patterns = list(product((-1, 1), repeat=len(ranks)))
    far = sum(abs(sum(s * r for s, r in zip(signs, ranks, strict=True))) >= seen for signs in patterns)
    return far / len(patterns)


# --- Wilcoxon -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "p"),
    [
        (DARWIN, 0.041259765625),
        (DEPRESSION, 2 * 10 / 512),
        ([], 1.0),
        ([0.0, 0.0], 1.0),
        ([1.0] * 5, 2 / 32),
        ([-1.0] * 6, 2 / 64),
        ([1.0, -1.0], 1.0),
    ],
)
def test_wilcoxon_against_published_examples(values: list[float], p: float) -> None:
    assert wilcoxon(values) == pytest.approx(p, rel=1e-12)


@given(differences)
def test_wilcoxon_is_the_permutation_test_over_all_signs(values: list[float]) -> None:
    assert wilcoxon(values) == pytest.approx(brute_wilcoxon(values), rel=1e-12)


@given(differences)
def test_wilcoxon_does_not_care_who_is_a(values: list[float]) -> None:
    assert wilcoxon([-value for value in values]) == wilcoxon(values)


def test_noise_of_floats_is_neither_a_win_nor_breaks_a_tie() -> None:
    assert rounded(0.1 + 0.2 - 0.3) == 0.0
    assert wilcoxon([0.3 - 0.2, 0.2 - 0.1, -0.1, 0.1 + 0.2 - 0.3]) == wilcoxon([0.1, 0.1, -0.1])


def exact_by_counting(ranks: Sequence[int], smaller: int) -> float:
    """As the exact branch, by a dictionary of sums: for sizes at which the program approximates."""
    counts = {0: 1}
    for rank in ranks:
        fresh = dict(counts)
        for total, count in counts.items():
            fresh[total + rank] = fresh.get(total + rank, 0) + count
        counts = fresh
    return min(1.0, 2 * sum(count for total, count in counts.items() if total <= smaller) / (1 << len(ranks)))


@pytest.mark.parametrize("losses", range(2, 26, 3))
def test_above_50_differences_the_approximation_is_close_to_the_exact_p(losses: int) -> None:
    count = EXACT_UP_TO + 5
    values = [-float(size) if size * 7 % count < losses else float(size) for size in range(1, count + 1)]
    negative = sum(int(2 * -value) for value in values if value < 0)
    exact = exact_by_counting([2 * size for size in range(1, count + 1)], min(negative, count * (count + 1) - negative))
    assert wilcoxon(values) == pytest.approx(exact, abs=0.001)


@pytest.mark.parametrize("losses", range(2, 26, 3))
def test_up_to_50_differences_ties_are_counted_exactly(losses: int) -> None:
    values = [-1.0 - size % 3 if size < losses else 1.0 + size % 3 for size in range(EXACT_UP_TO)]
    ranks = doubled_ranks([abs(value) for value in values])
    negative = sum(rank for rank, value in zip(ranks, values, strict=True) if value < 0)
    assert wilcoxon(values) == pytest.approx(exact_by_counting(ranks, negative), rel=1e-12)


def test_the_approximation_by_hand() -> None:
    """52 differences, ranks 1 to 52, W- = 52 + 51: z = (|103 - 689| - 0.5) / sqrt(52·53·105/24)."""
    values = [float(rank) for rank in range(1, 51)] + [-51.0, -52.0]
    z = (689 - 103 - 0.5) / (52 * 53 * 105 / 24) ** 0.5
    assert wilcoxon(values) == pytest.approx(2 * statistics.NormalDist().cdf(-z), rel=1e-9)


def test_the_approximation_corrects_for_ties_by_hand() -> None:
    """60 equal sizes, 20 of them losses: rank 30.5 each; the variance is 60·61·121/24 less (60³-60)/48."""
    z = (915 - 20 * 30.5 - 0.5) / (60 * 61 * 121 / 24 - (60**3 - 60) / 48) ** 0.5
    assert wilcoxon([1.0] * 40 + [-1.0] * 20) == pytest.approx(2 * statistics.NormalDist().cdf(-z), rel=1e-9)


def test_scipy_agrees_where_it_is_installed() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    values = [((index * 37) % 11 - 4) / 4 for index in range(90)]
    expected = scipy_stats.wilcoxon(values, correction=True, method="approx").pvalue
    assert wilcoxon(values) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(3, 11) == pytest.approx(scipy_stats.binomtest(3, 14).pvalue, rel=1e-12)


# --- McNemar --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (7, 15, 0.1338),  # tonsillectomy and Hodgkin's disease (Johnson & Johnson 1972, as sibling pairs)
        (0, 0, 1.0),
        (0, 5, 0.0625),
        (0, 6, 0.03125),
        (1, 8, 2 * 10 / 512),
        (4, 4, 1.0),
    ],
)
def test_mcnemar_against_known_values(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, abs=5e-5)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_is_the_sum_of_outcomes_at_most_as_likely(only_a: int, only_b: int) -> None:
    count = only_a + only_b
    likely = comb(count, only_a)
    brute = sum(comb(count, k) for k in range(count + 1) if comb(count, k) <= likely) / 2**count
    assert mcnemar(only_a, only_b) == pytest.approx(brute, rel=1e-12)


def test_mcnemar_of_many_pairs_does_not_overflow() -> None:
    assert mcnemar(600, 600) == 1.0
    assert 0 < mcnemar(520, 680) < 0.001


# --- Holm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the textbook four
        ([0.5, 0.6, 0.9], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm(values: list[float], adjusted: list[float]) -> None:
    assert holm(values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_the_plain_p_and_bonferroni(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(p <= q <= min(1.0, len(values) * p) + 1e-12 for p, q in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=lambda item: values[item])
    assert [adjusted[item] for item in order] == sorted(adjusted)


# --- the bootstrap --------------------------------------------------------------------------------------------------


def test_the_interval_needs_two_tasks() -> None:
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_the_interval_of_two_tasks_is_all_that_can_be_drawn() -> None:
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)


def test_the_interval_is_seeded() -> None:
    values = [(index * 0.618) % 1 for index in range(30)]
    assert bootstrap_interval(values, 1) == bootstrap_interval(values, 1)
    assert bootstrap_interval(values, 1) != bootstrap_interval(values, 2)


def test_the_interval_is_that_of_the_binomial_mean() -> None:
    """40 tasks, a quarter of them wins: resampled means are Binomial(40, 1/4) / 40, whose 2.5 % points are 5 and 16."""
    assert bootstrap_interval([1.0] * 10 + [0.0] * 30) == (5 / 40, 16 / 40)


def test_many_tasks_keep_enough_resamples_and_agree_with_the_normal_interval() -> None:
    values = [float(index % 4 == 0) for index in range(2000)]
    found = bootstrap_interval(values)
    assert found is not None
    error = statistics.stdev(values) / 2000**0.5
    assert found == pytest.approx((0.25 - 1.96 * error, 0.25 + 1.96 * error), abs=error / 4)


@settings(max_examples=20)
@given(differences.filter(lambda values: len(values) >= 2))
def test_the_interval_lies_within_the_differences(values: list[float]) -> None:
    found = bootstrap_interval(values)
    assert found is not None
    assert min(values) <= found[0] <= found[1] <= max(values)
