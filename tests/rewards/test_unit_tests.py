"""`tests-pass` and `tests-share`: what the counts in a state are worth."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay import Task, Trajectory
from ttc_replay.rewards.base import is_process
from ttc_replay.rewards.unit_tests import passed, share

CASES: list[tuple[Any, float | None, float | None]] = [
    ({"tests": {"passed": 3, "of": 3}}, 1.0, 1.0),
    ({"tests": {"passed": 2, "of": 4}}, 0.0, 0.5),
    ({"tests": {"passed": 0, "of": 0}}, 0.0, 0.0),
    ({"tests": {"passed": "3", "of": 3}}, None, None),
    ({"files": {}}, None, None),
    ("text", None, None),
    (None, None, None),
]


@pytest.mark.parametrize(("state", "passes", "of_all"), CASES)
def test_counts_become_scores(state: Any, passes: float | None, of_all: float | None) -> None:
    run = Trajectory("r", Task("t"), final_state=state)
    (whole,), (part,) = passed.score([run]), share.score([run])
    assert (whole.value, part.value) == (passes, of_all)
    assert (whole.abstain, part.abstain) == (passes is None, of_all is None)
    assert (whole.error, part.error) == (None, None)


def test_only_the_share_judges_every_step() -> None:
    assert (is_process(passed), is_process(share)) == (False, True)
