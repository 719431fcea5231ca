"""Outcomes kept elsewhere find their trajectories."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.joined import load_outcomes
from ttc_replay.storage.records import Links, Outcome, Score, Source, Task, Trajectory

SOURCE = Source("swe-agent", "/logs/trial-7/agent/run.traj", trial="3", extra={"session_id": "s-1"})
LOG = Trajectory("f" * 64, Task("django__django-11099"), source=replace(SOURCE, links=Links(("session:k",))))


def load(tmp_path: Path, data: Any) -> Any:
    path = tmp_path / "outcomes"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return load_outcomes(str(path))


FILES: dict[str, tuple[Any, float]] = {
    "SWE-bench report": (
        {"total_instances": 2, "resolved_ids": ["django__django-11099"], "unresolved_ids": ["x"]},
        1.0,
    ),
    "SWE-agent results": ({"resolved": ["y"], "unresolved": ["django__django-11099"], "applied": []}, 0.0),
    "report by instance": ({"django__django-11099": {"resolved": True, "patch_exists": True}}, 1.0),
    "numbers by id": ({"s-1": 0.25, "other": 1}, 0.25),
    "Harbor trial": ({"trial_name": "trial-7", "task_name": "t", "verifier_result": {"rewards": {"reward": 0.5}}}, 0.5),
    "Harbor, one reward": ({"trial_name": "trial-7", "task_name": "t", "verifier_result": {"reward": 0.75}}, 0.75),
    "rows": ('{"id": "s-1", "reward": 0}\n{"id": "zzz", "reward": 1}\n', 0.0),
    "a list": ([{"task_id": "django__django-11099", "score": 0.5}], 0.5),
    "CSV": ("instance_id,reward\ndjango__django-11099,0.125\n", 0.125),
    "CSV with words": ("id,resolved\nk,TRUE\n", 1.0),
    "the id itself": ([{"trajectory_id": "f" * 64, "value": 0.5}], 0.5),
    "the run before its task": ([{"task_id": "django__django-11099", "score": 0}, {"id": "s-1", "score": 1}], 1.0),
}


@pytest.mark.parametrize("name", FILES)
def test_outcomes_are_joined(tmp_path: Path, name: str) -> None:
    data, expected = FILES[name]
    outcomes = load(tmp_path, data)
    joined, found = outcomes.join(LOG)
    assert found
    assert joined.outcome is not None
    assert joined.outcome.value == expected
    assert joined.outcome.detail == {"joined": True}


def test_several_rewards_and_what_found_nobody(tmp_path: Path) -> None:
    trial = {"trial_name": "trial-7", "verifier_result": {"rewards": {"reward": 1, "style": 0.5}}}
    outcomes = load(tmp_path, [trial, {"trial_name": "trial-8", "verifier_result": {"rewards": {"reward": 0}}}])
    joined, _ = outcomes.join(LOG)
    assert joined.scores == {"style": Score(0.5)}
    assert outcomes.unused == ["trial-8"]
    assert outcomes.join(Trajectory("0", Task("other")))[1] is False


def test_the_logs_own_outcome_stands(tmp_path: Path) -> None:
    own = Trajectory(LOG.id, LOG.task, outcome=Outcome(1.0, "r", "submitted"), source=LOG.source)
    joined, found = load(tmp_path, {"s-1": 0.0}).join(own)
    assert found
    assert joined.outcome == own.outcome
    assert joined.scores == {"reward": Score(0.0)}
    unknown = Trajectory(LOG.id, LOG.task, outcome=Outcome(None, "r", "exit_cost"), source=LOG.source)
    assert load(tmp_path, {"s-1": 0.0}).join(unknown)[0].outcome == Outcome(
        0.0, "reward", "exit_cost", {"joined": True}
    )


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{}",
        '{"id": "a"',
        "[1, 2]",
        '{"id": "a", "reward": NaN}',
        "no,known,columns\n1,2,3\n",
        '{"id": "a", "reward": null}',
    ],
)
def test_a_file_without_outcomes_is_a_clear_error(tmp_path: Path, data: str) -> None:
    with pytest.raises(UsageError, match="--reward-from"):
        load(tmp_path, data)


def test_two_rewards_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'a' has two rewards, 1 and 0"):
        load(tmp_path, [{"id": "a", "reward": 1}, {"id": "a", "reward": 0}])
    with pytest.raises(UsageError, match="No such file"):
        load_outcomes(str(tmp_path / "missing"))


def test_numbers_that_are_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    outcomes = load(tmp_path, "task_id,reward\n1234567,1\n007,0\n")
    assert {key: outcome.value for key, outcome in outcomes.tasks.items()} == {"1234567": 1.0, "007": 0.0}
