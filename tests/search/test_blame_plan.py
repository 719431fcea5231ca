"""What blame asks next, from what it believes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay.search.beliefs import Belief, Scale, chance_below_zero
from ttc_replay.search.blame_plan import Plan


def plan(wins: dict[int, tuple[int, int]], steps: int = 8, end: float = 0.0, room: int = 99, **options: object) -> Plan:
    """A plan over `steps` steps; `wins`: rollouts won and made, by state."""
    beliefs = {state: Scale().belief(float(won), made) for state, (won, made) in wins.items()}
    beliefs[steps] = Scale().known(end)
    return Plan(beliefs, [room] * steps, 0.95, **options)  # type: ignore[arg-type]


CASES = {
    "the start comes first": ({}, {}, (0, "start")),
    "the widest drop is halved": ({0: (4, 4)}, {}, (4, "bisect")),
    "on the side of the drop": ({0: (4, 4), 4: (0, 4)}, {}, (2, "bisect")),
    "on the other side": ({0: (4, 4), 4: (4, 4)}, {}, (6, "bisect")),
    "one step in doubt is asked again": ({0: (4, 4), 4: (4, 4), 5: (2, 4)}, {"probes": 0}, (5, "compare")),
    "what lost nothing asks the start again": ({0: (0, 4)}, {}, (0, "compare")),
    "and then every state": ({0: (0, 99)}, {"room": 0, "scan": False}, (None, "no-drop")),
    "a clear step is decided": ({0: (16, 16), 4: (16, 16), 5: (0, 16)}, {"probes": 0}, (None, "decided")),
    "after a probe": ({0: (16, 16), 4: (16, 16), 5: (0, 16)}, {"probes": 1}, (2, "decided")),
    "a scan values all": ({0: (16, 16), 4: (16, 16), 5: (0, 16)}, {"scan": True}, (2, "scan")),
    "a rise begins a scan": ({0: (0, 16), 4: (16, 16), 5: (0, 16)}, {}, (2, "scan")),
}


@pytest.mark.parametrize(("wins", "options", "expected"), CASES.values(), ids=CASES)
def test_the_next_state(wins: dict[int, tuple[int, int]], options: dict[str, object], expected: object) -> None:
    chosen = plan(wins, **options).choose()  # type: ignore[arg-type]
    assert (chosen.state, chosen.why) == expected


def test_doubt_between_two_steps_asks_the_least_certain_end() -> None:
    """Steps 0 and 1 lost about as much; the state between them was asked least."""
    chosen = plan({0: (20, 20), 1: (2, 4), 2: (0, 20)}, steps=3).choose()
    assert (chosen.state, chosen.why) == (1, "compare")


def test_without_room_doubt_stays() -> None:
    chosen = plan({0: (20, 20), 1: (10, 20), 2: (0, 20)}, steps=3, room=0).choose()
    assert (chosen.state, chosen.why) == (None, "undecided")


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_a_belief_is_the_jeffreys_posterior(won: int, lost: int) -> None:
    belief = Scale().belief(float(won), won + lost)
    alpha, beta = won + 0.5, lost + 0.5
    assert belief.mean == pytest.approx(alpha / (alpha + beta))
    assert belief.variance == pytest.approx(alpha * beta / ((alpha + beta) ** 2 * (alpha + beta + 1)))
    assert 0.0 < belief.mean < 1.0


def test_chances_are_those_of_the_normal_distribution() -> None:
    beliefs = {0: Belief(0.6, 9, 6.0, 4.0), 1: Belief(0.2, 9, 2.0, 8.0), 2: Belief(0.5, 0)}
    variance = sum(beliefs[state].variance for state in (0, 1))
    expected = 0.5 * math.erfc(0.4 / math.sqrt(2 * variance))
    assert chance_below_zero({0: 1.0, 1: -1.0}, beliefs) == pytest.approx(expected)
    assert chance_below_zero({1: 1.0, 0: -1.0}, beliefs) == pytest.approx(1 - expected)
    assert chance_below_zero({2: 1.0}, beliefs) == 0.0
    assert chance_below_zero({2: 0.0}, beliefs) == 0.5


def test_values_beyond_the_scale_are_cut() -> None:
    scale = Scale(-10.0, 30.0)
    assert scale.belief(60.0, 2).observed == 1.0
    assert scale.belief(20.0, 2).observed == 0.5
    assert scale.value(0.5) == 10.0
    assert scale.difference(0.5) == 20.0
    assert scale.known(0.0).observed == 0.25
