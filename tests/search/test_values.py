"""Normalisation to the range a tree has met."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.search import Bounds

NUMBERS = st.floats(-1e12, 1e12)


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_every_value_and_every_mean_lies_between_zero_and_one(values: list[float]) -> None:
    bounds = Bounds()
    for value in values:
        bounds.include(value)
    assert (bounds.low, bounds.high) == (min(values), max(values))
    for value in (*values, sum(values) / len(values)):
        assert -1e-6 <= bounds.normalise(value) <= 1 + 1e-6
    if bounds.scale:
        assert (bounds.normalise(bounds.low), round(bounds.normalise(bounds.high), 9)) == (0.0, 1.0)


def test_equal_values_and_none_at_all_are_zero() -> None:
    bounds = Bounds()
    assert (bounds.known, bounds.low, bounds.normalise(3.0)) == (False, 0.0, 0.0)
    bounds.include(7.0)
    bounds.include(7.0)
    assert (bounds.known, bounds.normalise(7.0)) == (True, 0.0)


def test_a_range_beyond_floats_does_not_break() -> None:
    bounds = Bounds()
    for value in (-1.7e308, 1.7e308, 0.0):
        bounds.include(value)
    assert bounds.normalise(1.0) == 0.0
    tiny = Bounds()
    for value in (0.0, 5e-324):
        tiny.include(value)
    assert tiny.normalise(5e-324) == 0.0
