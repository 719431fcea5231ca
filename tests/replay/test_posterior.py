"""Credible intervals and chances against what is known in closed form."""

from __future__ import annotations

import pytest

from ttc_replay.replay.posterior import Posterior, largest
from ttc_replay.search.beliefs import Scale

SCALE = Scale()


def posterior(wins: dict[int, tuple[int, int]], steps: int, end: float = 0.0, scale: Scale = SCALE) -> Posterior:
    beliefs = {state: scale.belief(float(won), made) for state, (won, made) in wins.items()}
    return Posterior({**beliefs, steps: scale.known(end)}, scale, 0.95, seed=1)


def test_intervals_are_those_of_jeffreys_prior() -> None:
    """Table 5 of Brown, Cai & DasGupta 2001: the interval of x = 2 of n = 10 is [0.044, 0.503]; 0 of 10: [0, 0.217]."""
    found = posterior({0: (2, 10), 1: (0, 10), 2: (10, 10)}, 3)
    two, none, all_of_them = (found.value(state) for state in range(3))
    assert (two.value, two.low, two.high) == pytest.approx((0.2, 0.044, 0.503), abs=0.012)
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 0.217), abs=0.012)
    assert (all_of_them.low, all_of_them.high) == pytest.approx((0.783, 1.0), abs=0.012)
    assert found.value(3).low == found.value(3).high == 0.0


def test_a_clear_loss_is_pivotal() -> None:
    found = posterior({0: (15, 16), 1: (16, 16), 2: (0, 16), 3: (0, 16)}, 4)
    best = largest(found)
    assert best is not None
    assert best.index == 1
    assert best.drop.value == 1.0
    assert 0.6 < best.drop.low < best.drop.high <= 1.0
    assert best.probability > 0.99
    assert found.window() == (1, 2)


def test_chances_add_up_and_equal_rivals_share_them() -> None:
    found = posterior({0: (16, 16), 1: (8, 16)}, 2)
    first, second = found.steps()
    assert first.probability + second.probability == pytest.approx(1.0)
    assert first.probability == pytest.approx(0.5, abs=0.15)


def test_nothing_lost_is_nobodys_fault() -> None:
    found = posterior({0: (0, 16), 1: (0, 16)}, 2, end=1.0)
    assert largest(found) is None
    assert found.window() is None
    assert sum(step.probability for step in found.steps()) < 0.6  # draws with no drop at all blame no step


def test_an_unopened_gap_shares_its_drop() -> None:
    found = posterior({0: (16, 16), 4: (0, 16)}, 5)
    steps = found.steps()
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    assert [step.before.value for step in steps] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [step.between for step in steps] == [(0, 4)] * 4 + [None]
    assert all(step.drop.value == 0.25 and step.drop.low <= 0.0 for step in steps[:4])
    assert steps[1].before.low == 0.0
    assert steps[1].before.high == 1.0
    assert largest(found) is None
    assert found.window() == (0, 4)


def test_values_come_back_on_their_own_scale() -> None:
    scale = Scale(-10.0, 30.0)
    beliefs = {0: scale.belief(30.0 * 16, 16), 1: scale.belief(-10.0 * 16, 16), 2: scale.known(-10.0)}
    first = Posterior(beliefs, scale, 0.95, seed=1).steps()[0]
    assert (first.before.value, first.drop.value) == (30.0, 40.0)
    assert first.drop.low > 20.0


def test_the_same_seed_gives_the_same_numbers() -> None:
    wins = {0: (7, 9), 1: (3, 9)}
    assert posterior(wins, 2).steps() == posterior(wins, 2).steps()
