"""The shipped logs of scripted agents: reproducible, re-executable, honest about what made them, with failures."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Task, Trajectory
from ttc_replay.examples.bookkeeping.agents import PROFILES, call_for
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.record import LOGS, NOTE, main
from ttc_replay.examples.bookkeeping.verifiers import gold, identity, policy
from ttc_replay.examples.bookkeeping.world import DIFFICULTIES, task, world_of
from ttc_replay.storage.canonical import canonical_json
from ttc_replay.storage.codec import messages_from, messages_to_dicts, steps_from_messages

ROWS: list[dict[str, Any]] = [
    json.loads(line)
    for level in sorted(DIFFICULTIES)
    for line in (LOGS / f"{level}.jsonl").read_text(encoding="utf-8").splitlines()
]


def share(chosen: list[bool]) -> float:
    return sum(chosen) / len(chosen)


def named(row: dict[str, Any]) -> str:
    return f"{row['task_id']}/{row['trial']}"


def test_the_recorder_makes_the_same_files_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    shipped = {f"{level}.jsonl": (LOGS / f"{level}.jsonl").read_bytes() for level in DIFFICULTIES}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == shipped
    assert capsys.readouterr().out.count(" bytes\n") == len(shipped) == len(DIFFICULTIES)
    assert sum(map(len, shipped.values())) < 1_500_000


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_every_run_re_executes_exactly_to_the_recorded_verdicts(row: dict[str, Any]) -> None:
    prompt, steps = steps_from_messages(messages_from(row["messages"]))
    environment = BookkeepingEnvironment()
    assert tuple(environment.reset(Task(row["task_id"], seed=row["seed"]))) == prompt
    assert row["tools"] == environment.tools()
    for step in steps:
        result = environment.step(step.action)
        assert messages_to_dicts(result.observations) == messages_to_dicts(step.observations)
        last = step is steps[-1]
        assert result.done == last
        assert result.reward == (row["scores"]["identity"] if last else None)
    ended = Trajectory(id="", task=task(row["task_id"]), steps=steps, final_state=environment.state())
    verdicts = {model.name: model.score([ended])[0].value for model in (identity, policy, gold)}
    assert verdicts == {**row["scores"], "gold": row["reward"]}


def test_the_log_says_what_made_it() -> None:
    for row in ROWS:
        made = row["metadata"]
        assert made["generated_by"] == "ttc_replay.examples.bookkeeping.record"
        assert made["note"] == NOTE
        assert row["agent"] == f"imperfect-{made['profile']}"
        assert made["profile"] in PROFILES


def test_there_are_several_runs_of_each_task_in_every_difficulty() -> None:
    runs = Counter(row["task_id"] for row in ROWS)
    assert set(runs.values()) == {4}
    assert Counter(key.split("/")[1] for key in runs) == dict.fromkeys(DIFFICULTIES, 8)
    lengths = [sum(message["role"] == "assistant" for message in row["messages"]) for row in ROWS]
    assert 8 <= sum(lengths) / len(lengths) <= 25


def test_a_part_succeeds_and_every_profile_and_difficulty_does_both() -> None:
    assert 0.15 <= share([row["reward"] == 1.0 for row in ROWS]) <= 0.40
    outcomes: dict[str, set[float]] = defaultdict(set)
    for row in ROWS:
        outcomes[row["agent"]].add(row["reward"])
        outcomes[row["metadata"]["difficulty"]].add(row["reward"])
    assert len(outcomes) == len(PROFILES) + len(DIFFICULTIES)
    assert all(values == {0.0, 1.0} for values in outcomes.values()), outcomes


def test_books_can_pass_the_visible_checks_and_be_wrong() -> None:
    reconciled = [row["scores"]["identity"] == 1.0 and row["reward"] == 0.0 for row in ROWS]
    undetected = [wrong and row["scores"]["policy"] == 1.0 for wrong, row in zip(reconciled, ROWS, strict=True)]
    assert share(reconciled) >= 0.2
    assert 0.05 <= share(undetected) <= 0.15
    assert any(row["scores"]["identity"] == 0.0 for row in ROWS)


def test_success_means_that_the_visible_checks_pass_too() -> None:
    assert all(row["scores"] == {"identity": 1.0, "policy": 1.0} for row in ROWS if row["reward"] == 1.0)


def test_most_tasks_can_be_stitched_together_from_recorded_calls_and_some_cannot() -> None:
    recorded: dict[str, set[str]] = defaultdict(set)
    solved: dict[str, bool] = defaultdict(bool)
    for row in ROWS:
        solved[row["task_id"]] |= row["reward"] == 1.0
        for message in messages_from(row["messages"]):
            recorded[row["task_id"]].update(_call_texts(message))
    possible = {task_id: _gold_calls(task_id) <= calls for task_id, calls in recorded.items()}
    assert 0.6 <= share(list(possible.values())) <= 0.9
    assert any(possible[task_id] and not solved[task_id] for task_id in possible)


def test_refused_calls_undo_and_unclosed_months_occur() -> None:
    told = [message.text for row in ROWS for message in messages_from(row["messages"]) if message.role == "tool"]
    used = {call.name for row in ROWS for message in messages_from(row["messages"]) for call in message.tool_calls}
    assert sum('"error"' in text for text in told) >= 5
    assert used == {tool["function"]["name"] for tool in ROWS[0]["tools"]}
    assert any(row["messages"][-1]["role"] == "assistant" for row in ROWS)


def _call_texts(message: Message) -> list[str]:
    return [f"{call.name} {canonical_json(call.arguments)}" for call in message.tool_calls]


def _gold_calls(task_id: str) -> set[str]:
    made = world_of(task(task_id))
    calls = (call_for(made.line[line], booking) for line, booking in made.gold.items())
    return {f"{name} {canonical_json(arguments)}" for name, arguments in calls}
