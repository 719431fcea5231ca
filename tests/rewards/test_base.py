"""The reward decorator, the contract of its results, and the environment's own reward."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.rewards.base import FunctionReward, RewardModel, is_process, reward
from ttc_replay.rewards.environment import environment
from ttc_replay.storage.records import Message, Score, Step, Task, Trajectory

RUN = Trajectory("run", Task("task"), final_state={"balance": 3})


def run_with(*given_scores: Score | None) -> Trajectory:
    """A run whose steps carry these environment scores (None: no score)."""
    steps = tuple(
        Step(index, Message("assistant", "act"), scores={} if score is None else {"environment": score})
        for index, score in enumerate(given_scores)
    )
    return Trajectory("run", Task("task"), steps=steps)


@reward
def balance(trajectory: Trajectory) -> float:
    """What is left."""
    return float(trajectory.final_state["balance"])


@reward(process=True)
def length_so_far(trajectory: Trajectory, per_step: float = 1.0) -> float:
    """Steps."""
    return len(trajectory.steps) * per_step


def test_decorated_function_is_a_reward_model_and_still_a_function() -> None:
    assert isinstance(balance, RewardModel)
    assert balance(RUN) == 3.0
    assert [score.value for score in balance.score([RUN, RUN])] == [3.0, 3.0]
    assert (balance.name, balance.__doc__) == ("balance", "What is left.")


def test_process_is_declared_and_options_make_a_copy() -> None:
    halved = length_so_far.with_options(per_step=0.5)
    item = run_with(None, None)
    assert (is_process(balance), is_process(length_so_far), is_process(halved)) == (False, True, True)
    assert [halved.score([item])[0].value, length_so_far.score([item])[0].value] == [1.0, 2.0]
    assert halved.name == "length-so-far"
    with pytest.raises(TypeError, match="per_stop"):
        length_so_far.with_options(per_stop=0.5)


@pytest.mark.parametrize(
    ("returned", "value", "abstains", "error"),
    [
        (0.0, 0.0, False, None),
        (True, 1.0, False, None),
        (None, None, True, None),
        (Score(abstain=True), None, True, None),
        (Score(error="ledger missing"), None, False, "ledger missing"),
        (math.nan, None, False, "not a finite number"),
        (-math.inf, None, False, "not a finite number"),
        ("good", None, False, "ValueError"),
    ],
)
def test_what_a_function_may_return(returned: Any, value: float | None, abstains: bool, error: str | None) -> None:
    score = FunctionReward(lambda trajectory: returned).score([RUN])[0]
    assert (score.value, score.abstain) == (value, abstains)
    assert (score.error is None) == (error is None)
    assert error is None or error in str(score.error)


def test_an_exception_is_an_error_and_spares_the_other_items() -> None:
    bad = Trajectory("bad", Task("task"), final_state=None)
    scores = balance.score([RUN, bad, RUN])
    assert [score.value for score in scores] == [3.0, None, 3.0]
    assert "balance" in str(scores[1].error)
    assert "TypeError" in str(scores[1].error)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (run_with(), Score(abstain=True)),
        (run_with(None, None), Score(abstain=True)),
        (run_with(Score(abstain=True)), Score(abstain=True)),
        (run_with(None, Score(0.0)), Score(0.0)),
        (run_with(Score(0.5), None, Score(1.0)), Score(1.5)),
        (run_with(Score(1.0), Score(error="world broke")), Score(error="world broke")),
    ],
)
def test_environment_reward_is_the_return_or_nothing(item: Trajectory, expected: Score) -> None:
    assert list(environment.score([item])) == [expected]
    assert not is_process(environment)


def test_environment_reward_that_is_no_number_is_an_error() -> None:
    scores = environment.score([run_with(Score(math.nan)), run_with(Score(1e308), Score(1e308)), run_with(Score(1.0))])
    assert [score.value for score in scores] == [None, None, 1.0]
    assert all("finite" in str(score.error) for score in scores[:2])


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6))))
def test_environment_reward_sums_what_was_given(values: list[float | None]) -> None:
    score = environment.score([run_with(*(None if value is None else Score(value) for value in values))])[0]
    known = [value for value in values if value is not None]
    assert score.abstain == (not known)
    assert score.value == (pytest.approx(math.fsum(known)) if known else None)
