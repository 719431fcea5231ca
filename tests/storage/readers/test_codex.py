"""Codex rollouts and `exec --json`: items not events, usage of each call, rolled-back turns, compaction, old files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Links, Message, Outcome, ToolCall, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "codex"
META = {"timestamp": "2026-01-05T10:00:00Z", "type": "session_meta", "payload": {"id": "t", "cwd": "/"}}


def item(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-05T10:00:01Z", "type": "response_item", "payload": {"type": kind, **payload}}


def event(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-05T10:00:02Z", "type": "event_msg", "payload": {"type": kind, **payload}}


def said(role: str, text: str) -> dict[str, Any]:
    return item("message", role=role, content=[{"type": "input_text", "text": text}])


def tokens(total: int | None, last: int) -> dict[str, Any]:
    info: dict[str, Any] = {"last_token_usage": {"input_tokens": last, "output_tokens": 1}}
    if total is not None:
        info["total_token_usage"] = {"input_tokens": total, "output_tokens": 1}
    return event("token_count", info=info)


def test_a_rollout_is_its_items_once(logs: Any) -> None:
    main, branch, continued = logs.good("codex", GOLDEN / "rollout.jsonl")
    assert [message.role for message in main.prompt] == ["system", "user", "user"]
    assert (main.task.prompt, main.prompt[0].text) == ("Why does greet() not greet?", "You are Codex.")
    assert [step.action.text for step in main.steps] == ["", "", "The patch was empty.", "I try again."]
    first, second = main.steps[:2]
    assert first.action.reasoning == "Read both files."
    assert [call.id for call in first.action.tool_calls] == ["call_1", "call_2"]
    assert [(m.tool_call_id, m.name, m.is_error) for m in first.observations] == [
        ("call_2", "exec_command", True),
        ("call_1", "exec_command", False),
    ]
    assert second.action.tool_calls == (ToolCall("call_3", "apply_patch", None, "*** Begin Patch\n*** End Patch"),)
    assert second.observations[0].is_error
    assert main.outcome == Outcome(exit_reason="completed")
    assert main.source.sampling == {"reasoning_effort": "high", "reasoning_summary": "auto"}
    assert {step.model for step in (*main.steps, *branch.steps, *continued.steps)} == {"gpt-5.2-codex"}


def test_cumulative_usage_is_given_to_calls(logs: Any) -> None:
    main, branch, continued = logs.good("codex", GOLDEN / "rollout.jsonl")
    assert [step.usage for step in main.steps] == [
        Usage(1000, 50, 0),
        Usage(1200, 30, 1000),
        Usage(1300, 10, 1200),
        Usage(1500, 25, 1400),
    ]
    assert (branch.steps[-1].usage, branch.source.usage) == (Usage(1400, 5, 1300), Usage(1400, 5, 1300))
    assert continued.steps[0].usage == Usage(400, 20, 0)
    assert main.source.usage == Usage(6800, 140, 4900)


@pytest.mark.parametrize(
    ("counts", "spent"),
    [
        ([tokens(10, 10), tokens(10, 10)], [10]),
        ([tokens(50, 10)], [10]),
        ([tokens(None, 7)], [7]),
        ([tokens(100, 10), tokens(20, 5)], [15]),
        ([event("token_count", info=None)], [None]),
    ],
)
def test_counters_that_repeat_begin_late_or_fall(logs: Any, counts: list[Any], spent: list[int | None]) -> None:
    (run,) = logs.good("codex", [META, said("user", "go"), said("assistant", "ok"), *counts])
    assert [step.usage.prompt_tokens if step.usage else None for step in run.steps] == spent


def test_rolled_back_turns_are_a_branch_and_a_compaction_a_continuation(logs: Any) -> None:
    main, branch, continued = logs.good("codex", GOLDEN / "rollout.jsonl")
    assert (branch.source.relation, branch.parent_id, branch.branch_step) == ("branch", main.id, 3)
    assert [step.action.text for step in branch.steps[3:]] == ["Forgotten."]
    assert (continued.source.relation, continued.parent_id, continued.task) == ("continuation", main.id, main.task)
    assert [message.text for message in continued.prompt[1:]] == [
        "Why does greet() not greet?",
        "Summary: greet() is empty.",
    ]
    assert continued.steps[0].action.tool_calls == (ToolCall("call_5", "exec_command", None, '{"cmd": "pytest'),)
    assert (continued.steps[0].observations, continued.truncated) == ((), True)
    together = logs.counts([main, branch, continued])
    assert together == {
        "runs": 1,
        "messages": 7,
        "assistant_turns": 3,
        "tool_calls": 5,
        "tool_results": 4,
        "rewards": 0,
        "events": 40,
        "bad_lines": 0,
    }


def test_threads_name_their_parents_and_children(logs: Any) -> None:
    main, *_ = logs.good("codex", GOLDEN / "rollout.jsonl")
    (agent,) = logs.good("codex", GOLDEN / "subagent.jsonl")
    assert main.source.links == Links(("thread:thread-1",), None, {"thread:thread-2": 3})
    assert (agent.source.links, agent.source.relation) == (Links(("thread:thread-2",), "thread:thread-1"), "subagent")
    forked = {**META, "payload": {"id": "new", "forked_from_id": "old"}}
    (run,) = logs.good("codex", [forked, META, said("user", "go")])
    assert (run.source.links, run.source.relation) == (Links(("thread:new",), "thread:old"), "branch")


def test_bare_items_of_old_files(logs: Any) -> None:
    (run,) = logs.good("codex", GOLDEN / "bare.jsonl")
    assert [step.action.text for step in run.steps] == ["", "One: a."]
    (call,) = run.steps[0].action.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_9", "local_shell", {"type": "exec", "command": ["ls"]})
    assert run.source.counts["messages"] == 2
    assert run.source.extra["instructions"] == "Be short."


def test_a_legacy_file_without_items_is_read_from_its_events(logs: Any) -> None:
    (run,) = logs.good("codex", GOLDEN / "events-only.jsonl")
    assert [message.text for message in run.messages] == ["List files.", "", "ls: /nowhere", "There is none."]
    assert run.steps[0].observations[0].is_error
    assert (run.steps[0].action.reasoning, run.source.counts["messages"]) == ("ls", 0)


def test_what_exec_prints(logs: Any) -> None:
    (run,) = logs.good("codex", GOLDEN / "exec.jsonl")
    first, second, third = run.steps
    assert [(call.id, call.name) for call in first.action.tool_calls] == [
        ("item_1", "command_execution"),
        ("item_2", "docs.search"),
    ]
    assert [(m.tool_call_id, m.text, m.is_error) for m in first.observations] == [
        ("item_1", "no\n", True),
        ("item_2", "1 hit", False),
    ]
    assert second.observations[0] == Message("tool", "completed", tool_call_id="item_3", name="file_change")
    assert third.action.text == "Done."
    assert (run.task.id, run.prompt, run.source.usage) == ("thread-thread-4", (), Usage(900, 60, 300))
    assert run.outcome == Outcome(exit_reason="completed")


def test_two_threads_printed_into_one_file_are_two_runs(logs: Any) -> None:
    rows = [
        {"type": "thread.started", "thread_id": "a"},
        {"type": "item.completed", "item": {"id": "0", "type": "agent_message", "text": "one"}},
        {"type": "thread.started", "thread_id": "b"},
        {"type": "turn.failed", "error": {"message": "boom"}},
    ]
    first, second = logs.good("codex", rows)
    assert (first.task.id, second.task.id) == ("thread-a", "thread-b")
    assert (second.outcome, second.truncated) == (Outcome(exit_reason="error", detail={"message": "boom"}), True)


@pytest.mark.parametrize(
    ("output", "content", "is_error"),
    [
        ("plain", "plain", False),
        ("Exit code: 2\nOutput:\nno", "Exit code: 2\nOutput:\nno", True),
        ("Chunk ID: 1\nWall time: 1 s\nProcess exited with code 0\nOutput:", None, False),
        ({"content": "no", "success": False}, "no", True),
        ([{"type": "input_text", "text": "a"}], "a", False),
        (None, None, False),
    ],
)
def test_outputs(logs: Any, output: Any, content: Any, is_error: bool) -> None:
    rows = [
        META,
        said("user", "go"),
        item("function_call", name="f", arguments="{}", call_id="c"),
        item("function_call_output", call_id="c", output=output),
    ]
    (run,) = logs.good("codex", rows)
    (result,) = run.steps[0].observations
    assert (result.content, result.is_error) == (content if content is not None else output, is_error)


def test_images_are_references_and_unknown_types_are_kept(logs: Any) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8="}
    rows = [META, item("message", role="user", content=[image]), item("novelty", x=1), {"type": "later", "payload": {}}]
    (run,) = logs.good("codex", rows)
    (part,) = run.prompt[0].content
    assert part["image_url"]["url"].startswith("sha256:")
    assert '"novelty"' in run.source.raw
    assert run.source.counts["events"] == 4
