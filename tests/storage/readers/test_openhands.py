"""OpenHands: v0 and v1 events, evaluation outputs, delegates, branches, usage from counters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.readers.folders import event_order, is_event_folder
from ttc_replay.storage.records import Outcome, Score, ToolCall, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "openhands"


def test_v0_calls_of_one_answer_are_one_step(logs: Any) -> None:
    run = logs.good("openhands", GOLDEN / "v0-events.json")[0]
    assert [message.role for message in run.prompt] == ["system", "user"]
    assert run.prompt[1].content[1] == {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert [len(step.action.tool_calls) for step in run.steps] == [2, 1, 1, 1]
    first, second, third, last = run.steps
    assert (first.action.text, first.action.reasoning) == ("Look.", "Think.")
    assert [(m.tool_call_id, m.is_error) for m in first.observations] == [("c2", True), ("c1", False)]
    assert third.action.tool_calls == (ToolCall(None, "run", {"command": "pwd"}),)
    assert (third.action.text, third.observations[0].text) == ("Where am I?", "/app")
    assert (last.observations, run.outcome) == ((), Outcome(exit_reason="finished"))
    assert (len(run.tools or ()), run.source.agent, run.source.model) == (1, "CodeActAgent", "scripted-1")
    assert [step.usage.cost_usd for step in (first, second, last)] == [0.5, 0.25, 0.25]
    assert first.usage == Usage(50, 10, 5, 0.5)
    assert run.source.usage == Usage(prompt_tokens=1000, cost_usd=1.0)


def test_v0_a_delegate_is_a_sub_agent(logs: Any) -> None:
    run, delegate = logs.good("openhands", GOLDEN / "v0-events.json")
    assert (delegate.source.relation, delegate.parent_id, delegate.branch_step) == ("subagent", run.id, 1)
    assert [message.text for message in delegate.messages] == ["find", "", "no browser", "gone"]
    assert delegate.steps[0].observations[0].is_error
    assert run.steps[1].observations[0].text == "nothing"
    assert logs.counts([run, delegate]) == {
        "runs": 1,
        "messages": 15,
        "assistant_turns": 7,
        "tool_calls": 5,
        "tool_results": 4,
        "rewards": 0,
    }


def test_outputs_of_the_harness(logs: Any) -> None:
    solved, _, failed, pairs = logs.good("openhands", GOLDEN / "v0-output.jsonl")
    assert [run.task.id for run in (solved, failed, pairs)] == ["tools__greet-1", "tools__greet-2", "tools__greet-3"]
    assert (solved.outcome, solved.scores) == (Outcome(1.0, "resolved", "finished"), {"resolved": Score(1.0)})
    assert (failed.outcome, failed.truncated) == (Outcome(exit_reason="error", detail={"error": "STUCK"}), True)
    assert pairs.outcome == Outcome(0.0, "resolved")
    assert len(pairs.steps[0].action.tool_calls) == 2
    assert solved.final_state == {"git_patch": "diff --git a/greet.py b/greet.py\n"}
    assert solved.task.private == {"instance": {"patch": "the gold patch"}}
    assert [run.source.counts["rewards"] for run in (solved, failed, pairs)] == [1, 0, 1]
    assert [run.source.line for run in (solved, failed, pairs)] == [1, 2, 3]
    assert (solved.source.sampling, solved.source.usage) == ({"temperature": 0.0}, Usage(cost_usd=1.0))


def test_v1_events(logs: Any) -> None:
    (run,) = logs.good("openhands", GOLDEN / "v1-events.json")
    assert [message.role for message in run.prompt] == ["system", "user"]
    assert [[call.id for call in step.action.tool_calls] for step in run.steps] == [
        ["call_1", "call_2"],
        ["call_3"],
        ["call_4"],
        [],
        ["call_5"],
    ]
    assert run.steps[0].action.reasoning == "Both thoughts are independent."
    assert [m.is_error for step in run.steps for m in step.observations if m.role == "tool"] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert [message.text for message in run.steps[3].observations] == ["Yes."]
    assert (run.outcome, run.tools) == (Outcome(exit_reason="finished"), None)


def test_v1_output_has_usage_by_answer(logs: Any) -> None:
    (run,) = logs.good("openhands", GOLDEN / "v1-output.jsonl")
    assert [step.usage for step in run.steps] == [Usage(100, 25, 20), None, None, None, None]
    assert run.source.usage == Usage(300, 40, 120, 0.75)
    assert (run.task.id, run.source.model, run.outcome) == (
        "tools__greet-1",
        "scripted-1",
        Outcome(exit_reason="finished"),
    )


def test_v1_events_in_files_are_the_same_run(logs: Any) -> None:
    names = [path.name for path in (GOLDEN / "events").iterdir()]
    rows = [json.loads((GOLDEN / "events" / name).read_text()) for name in event_order(names)]
    assert is_event_folder(names, rows[0])
    together = json.dumps(rows).encode()
    assert logs.detected(together) == "openhands"
    (run,) = logs.good("openhands", together)
    assert run.id == logs.good("openhands", GOLDEN / "v1-events.json")[0].id


def test_v1_paths_that_were_left_are_branches(logs: Any) -> None:
    rows = json.loads((GOLDEN / "v1-events.json").read_text())
    other = {**rows[11], "id": "other", "parent_id": rows[10]["id"]}
    other["llm_message"] = {"role": "user", "content": [{"type": "text", "text": "No."}]}
    main, branch = logs.good("openhands", [*rows, other])
    assert [message.text for message in main.messages][-1] == "No."
    assert (branch.source.relation, branch.parent_id, branch.branch_step) == ("branch", main.id, 3)
    assert len(branch.steps) == 5
    assert logs.counts([main, branch])["messages"] == 15


def test_v1_a_call_logged_behind_the_first_result_joins_its_answer(logs: Any) -> None:
    rows = json.loads((GOLDEN / "v1-events.json").read_text())
    rows[3], rows[4] = rows[4], rows[3]
    for row in rows:
        row.pop("parent_id", None)
    (run,) = logs.good("openhands", rows)
    assert [call.id for call in run.steps[0].action.tool_calls] == ["call_1", "call_2"]
    assert [message.tool_call_id for message in run.steps[0].observations] == ["call_1", "call_2"]


def test_v1_ends_and_rejections(logs: Any) -> None:
    rows = json.loads((GOLDEN / "v1-events.json").read_text())[:4]
    reject = {"kind": "UserRejectObservation", "id": "r", "source": "environment", "tool_name": "think"}
    reject |= {"tool_call_id": "call_1", "rejection_reason": "no"}
    end = {"kind": "ConversationErrorEvent", "id": "e", "source": "environment", "code": "LLMError", "detail": "gone"}
    (run,) = logs.good("openhands", [*rows, reject, end])
    assert run.steps[0].observations[0].text == "Action rejected: no"
    assert run.outcome == Outcome(exit_reason="LLMError", detail={"detail": "gone"})


@pytest.mark.parametrize(
    ("names", "first", "expected"),
    [
        (["0.json", "1.json"], {"id": 0, "source": "user", "action": "message"}, True),
        (["event-00000-ab.json"], {"id": "ab", "source": "agent", "kind": "SystemPromptEvent"}, True),
        (["0.json", "1.json"], {"id": 0, "source": "environment", "observation": "null"}, True),
        (["0.json", "notes.json"], {"id": 0, "source": "user", "action": "message"}, False),
        (["a/0.json", "b/0.json"], {"id": 0, "source": "user", "action": "message"}, False),
        (["0.json", "1.json"], {"id": 0, "messages": []}, False),
        (["0.json"], {"id": True, "source": "user", "action": "message"}, False),
        (["0.json"], {"id": "x", "source": "agent", "kind": "chat"}, False),
        ([], {"id": 0, "source": "user", "action": "message"}, False),
    ],
)
def test_event_folders_are_told_by_content(names: list[str], first: dict[str, Any], expected: bool) -> None:
    assert is_event_folder(names, first) is expected


def test_event_files_stand_in_the_order_of_their_numbers() -> None:
    assert event_order(["10.json", "9.json", "x.json", "1.json"]) == ["1.json", "9.json", "10.json", "x.json"]
