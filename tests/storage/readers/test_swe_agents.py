"""SWE-agent and mini-swe-agent: demonstrations, text commands, exit states, instances, all shapes of messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Outcome, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs"
TRAJ = GOLDEN / "swe-agent" / "tools__greet-1.traj"
MINI = GOLDEN / "mini-swe-agent"


def test_demonstrations_are_no_steps(logs: Any) -> None:
    (run,) = logs.good("swe-agent", TRAJ)
    assert [(m.role, m.name) for m in run.prompt] == [
        ("system", None),
        ("user", "demonstration"),
        ("assistant", "demonstration"),
        ("user", "demonstration"),
        ("user", None),
    ]
    assert (len(run.steps), run.source.counts["assistant_turns"], run.source.counts["actions"]) == (2, 3, 1)
    assert run.source.extra["actions"] == ["ls && cat greet.py", "submit"]


def test_a_traj_keeps_calls_usage_and_the_end(logs: Any) -> None:
    (run,) = logs.good("swe-agent", TRAJ)
    first, last = run.steps
    assert [(call.id, call.arguments) for call in first.action.tool_calls] == [("c1", {"command": "ls"}), ("c2", None)]
    assert first.action.tool_calls[1].arguments_raw == '{"command": "cat greet.py"'
    assert first.action.reasoning == "Independent."
    assert [(m.tool_call_id, m.name) for m in first.observations] == [("c1", "bash")]
    assert last.observations == ()
    assert (run.outcome, run.truncated) == (Outcome(exit_reason="exit_cost"), True)
    assert run.final_state == {"submission": "diff --git a/greet.py b/greet.py\n"}
    assert (run.source.usage, run.source.model) == (Usage(900, 80, cost_usd=1.5), "gpt-4o")
    assert run.source.sampling == {"temperature": 0.0}
    assert run.task.data == {"repo": {"repo_name": "testbed", "base_commit": "0a1b"}}


@pytest.mark.parametrize(
    ("change", "identity"),
    [
        ({}, "tools__greet-1"),
        ({"instance_id": "own"}, "own"),
        ({"replay_config": json.dumps({"agent": {"name": "repo__repo-7"}})}, "repo__repo-7"),
        ({"replay_config": {"problem_statement": {"id": "as-object"}}}, "as-object"),
    ],
)
def test_the_task_is_the_instance(logs: Any, change: dict[str, Any], identity: str) -> None:
    (run,) = logs.good("swe-agent", {**json.loads(TRAJ.read_text()), **change})
    assert run.task.id == identity


def test_equal_prompts_are_one_task_where_no_instance_is_named(logs: Any) -> None:
    document = {**json.loads(TRAJ.read_text()), "replay_config": None}
    first, second = logs.good("swe-agent", [document, {**document, "info": {}}])
    assert first.id != second.id
    assert first.task.id == second.task.id
    assert first.task.id.startswith("prompt-")


def test_a_traj_without_history_is_read_from_what_ran(logs: Any) -> None:
    steps = [{"action": "ls", "observation": "a", "response": "I look.\n```\nls\n```", "thought": "I look."}]
    assert logs.detected({"trajectory": steps, "info": {}}) == "swe-agent"
    (run,) = logs.good("swe-agent", {"trajectory": steps})
    assert [(m.role, m.text) for m in run.messages] == [("assistant", steps[0]["response"]), ("user", "a")]
    assert run.source.extra["actions"] == ["ls"]


def test_mini_v2_with_tool_calls(logs: Any) -> None:
    (run,) = logs.good("mini-swe-agent", MINI / "tools__greet-1.v2.traj.json")
    first, last = run.steps[0], run.steps[-1]
    assert [call.id for call in first.action.tool_calls] == ["call_a", "call_b"]
    assert [(m.tool_call_id, m.name, m.is_error) for m in first.observations] == [
        ("call_a", "bash", False),
        ("call_b", "bash", True),
    ]
    assert first.action.reasoning == "Two reads do not depend on each other."
    assert [step.usage for step in run.steps] == [
        Usage(100, 20, 0, 0.25),
        Usage(180, 15, 100, 0.25),
        Usage(230, 12, 180, 0.25),
    ]
    assert (first.started_at, first.model) == ("2025-10-09T08:53:21Z", "scripted-1")
    assert (last.observations, run.outcome, run.truncated) == ((), Outcome(exit_reason="Submitted"), False)
    assert run.final_state == {"submission": "diff --git a/greet.py b/greet.py\n"}
    assert (run.task.id, run.source.usage) == ("tools__greet-1", Usage(cost_usd=0.75))
    assert run.source.extra["actions"][1] == ["echo fixed"]
    assert logs.counts([run]) == {
        "messages": 9,
        "assistant_turns": 3,
        "tool_calls": 4,
        "tool_results": 3,
        "rewards": 0,
    }


def test_mini_v2_in_text_mode(logs: Any) -> None:
    (run,) = logs.good("mini-swe-agent", MINI / "text__greet-2.v2.traj.json")
    assert run.source.extra["actions"] == [["ls /nowhere"], ["echo hello"]]
    assert [[m.is_error for m in step.observations] for step in run.steps] == [[True], [False]]
    assert (run.outcome, run.truncated) == (Outcome(exit_reason="LimitsExceeded"), True)
    assert run.source.counts["tool_calls"] == 0


def test_mini_v2_with_responses_items(logs: Any) -> None:
    (run,) = logs.good("mini-swe-agent", MINI / "items__greet-3.v2.traj.json")
    assert [message.text for message in run.prompt] == [
        "You can run bash commands through the bash tool.",
        "Please solve this issue: say hello",
    ]
    first = run.steps[0]
    assert (first.action.text, first.action.reasoning) == ("I say hello.", "Look first.")
    assert [call.arguments for call in first.action.tool_calls] == [{"command": "echo hello"}]
    assert [(m.role, m.tool_call_id, m.name) for m in first.observations] == [("tool", "fc_1", "bash")]
    assert first.usage == Usage(30, 7, 10, 0.5)


def test_a_bare_list_of_messages_is_one_run(logs: Any) -> None:
    rows = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "go\n```bash\nls\n```"},
        {"role": "user", "content": "<returncode>1</returncode>\n<output>\n</output>"},
    ]
    data = json.dumps(rows).encode()
    assert logs.detected(data) == "mini-swe-agent"
    (run,) = logs.good("mini-swe-agent", data)
    assert (run.source.extra["actions"], run.steps[0].observations[0].is_error) == ([["ls"]], True)
    assert logs.detected(json.dumps(rows[:2]).encode()) is None


def test_a_crash_of_the_agent_is_kept(logs: Any) -> None:
    last = {"role": "exit", "content": "boom", "extra": {"exit_status": "ValueError", "traceback": "t"}}
    document = {
        "trajectory_format": "mini-swe-agent-1.1",
        "messages": [{"role": "user", "content": "u"}, last],
        "info": {},
    }
    (run,) = logs.good("mini-swe-agent", document)
    assert (run.outcome, run.truncated) == (Outcome(exit_reason="ValueError", detail={"traceback": "t"}), True)
    assert run.source.counts["messages"] == 2
