"""Responses API logs: chains and branches of calls, item lists, every kind of call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.readers import openai_responses
from ttc_replay.storage.records import Links, Message, Outcome, Rejected, ToolCall, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "openai-responses"
CALLS, ITEMS = GOLDEN / "calls.jsonl", GOLDEN / "items.json"


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}", **more}


def output(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": name, "output": value, **more}


def answer(name: str, text: str, before: str | None = None, asked: Any = "x") -> dict[str, Any]:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {"object": "response", "id": name, "previous_response_id": before, "input": asked, "output": [said]}


def test_calls_that_go_on_from_each_other_are_one_trajectory(logs: Any) -> None:
    assert logs.detected(CALLS) == "openai-responses"
    _, _, main, branch = logs.good("openai-responses", CALLS)
    assert [message.role for message in branch.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    first, shell, last = branch.steps
    assert (first.action.reasoning, first.usage) == ("All three at once.", Usage(101, 9, 64))
    assert [call.id for call in first.action.tool_calls] == ["c1", "c2", "c3"]
    assert [(m.tool_call_id, m.name, m.is_error, m.content) for m in first.observations] == [
        ("c2", "read_file", True, "no such file"),
        ("c1", "read_file", False, "a dot"),
    ]
    assert shell.action.tool_calls[0].arguments == {"type": "exec", "command": ["ls"], "env": {}}
    assert [(m.tool_call_id, m.name) for m in shell.observations] == [("c4", "local_shell")]
    assert (last.action.text, last.started_at, last.model) == ("The same.", "2026-03-01T12:00:03Z", "gpt-scripted-1")
    assert len(json.loads(branch.source.raw)) == 3
    assert (main.parent_id, main.source.relation) == (None, None)


def test_the_latest_is_the_main_one_and_others_are_its_branches(logs: Any) -> None:
    _, _, main, branch = logs.good("openai-responses", CALLS)
    assert (branch.parent_id, branch.branch_step, branch.source.relation) == (main.id, 1, "branch")
    assert [step.action.text for step in main.steps] == ["", "Done."]
    assert main.steps[0] == branch.steps[0]
    assert branch.source.links.keys == ("response:resp_1", "response:resp_2", "response:resp_3")


def test_calls_by_themselves(logs: Any) -> None:
    searched, failed, *_ = logs.good("openai-responses", CALLS)
    (step,) = searched.steps
    assert [part["type"] for part in step.action.content] == ["web_search_call", "text"]
    assert (step.action.tool_calls, step.action.text) == ((), "Small.")
    assert (searched.source.counts["tool_calls"], searched.source.counts["server_tool_calls"]) == (0, 1)
    assert [tool["function"]["name"] for tool in searched.tools] == ["read_file"]
    assert searched.source.extra["hosted_tools"] == [{"type": "local_shell"}]
    assert searched.source.sampling["temperature"] == 0.5
    assert (failed.steps, failed.truncated) == ((), True)
    assert failed.outcome == Outcome(exit_reason="error: server_error: Try again.")


def test_images_are_references_and_encrypted_reasoning_stays_in_the_raw_record(logs: Any) -> None:
    *_, branch = logs.good("openai-responses", CALLS)
    text, image = branch.prompt[1].content
    assert (text["text"], image["image_url"]["detail"]) == ("Compare with this:", "low")
    assert image["image_url"]["url"].startswith("sha256:")
    assert "ZW5jcnlwdGVk" in branch.source.raw
    assert "ZW5jcnlwdGVk" not in repr(branch.messages)


def test_an_item_list_is_one_trajectory_in_every_container(logs: Any) -> None:
    items = json.loads(ITEMS.read_text())
    spelled = (ITEMS, items, {"items": items}, json.dumps([items]).encode())
    found = [logs.good("openai-responses", value) for value in spelled]
    # Lines of items are what very old Codex rollouts look like: they are read as such unless the format is named.
    assert [logs.detected(value) for value in spelled] == [
        "openai-responses",
        "codex",
        "openai-responses",
        "openai-responses",
    ]
    assert {len(some) for some in found} == {1}
    assert len({some[0].id for some in found}) == 1
    (one,) = found[0]
    assert [m.role for m in one.prompt] == ["developer", "user"]
    patch, last = one.steps
    assert patch.action.tool_calls == (ToolCall("d1", "patch", None, "*** Begin Patch"),)
    assert patch.observations == (Message("tool", "ok", tool_call_id="d1", name="patch"),)
    assert [part["type"] for part in last.action.content] == ["mcp_call", "text"]
    assert one.source.counts["items"] == 6


@pytest.mark.parametrize(
    ("item", "made"),
    [
        (call("c", arguments='{"a": 1}'), ToolCall("c", "f", {"a": 1}, '{"a": 1}')),
        (call("c", arguments="nothing"), ToolCall("c", "f", None, "nothing")),
        ({"type": "shell_call", "id": "i", "call_id": "c", "action": {"commands": ["ls"]}}, None),
        ({"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file"}}, None),
        ({"type": "computer_call", "call_id": "c", "actions": [{"type": "click"}]}, None),
    ],
)
def test_calls_of_every_kind(logs: Any, item: dict[str, Any], made: ToolCall | None) -> None:
    (found,) = logs.good("openai-responses", [{"input": "x", "output": [item]}])
    (action,) = found.steps[0].action.tool_calls
    assert action.id == "c"
    assert made is None or action == made
    assert action.name == (made.name if made else item["type"].removesuffix("_call"))


@pytest.mark.parametrize(
    ("item", "content", "failed"),
    [
        (output("c", "ok"), "ok", False),
        (output("c", [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]), None, False),
        (output("c", {"a": 1}), '{"a": 1}', False),
        (output("c", "x", status="incomplete"), "x", True),
        (output("c", '{"output": "x", "metadata": {"exit_code": 2}}'), None, True),
        ({"type": "shell_call_output", "call_id": "c", "output": [{"outcome": {"exit_code": 1}}]}, None, True),
        ({"type": "shell_call_output", "call_id": "c", "output": [{"outcome": {"type": "timeout"}}]}, None, True),
    ],
)
def test_outputs_of_every_kind(logs: Any, item: dict[str, Any], content: Any, failed: bool) -> None:
    (found,) = logs.good("openai-responses", [{"input": ["", {"role": "user", "content": "x"}, call("c"), item]}])
    (result,) = found.steps[0].observations
    assert (result.role, result.tool_call_id, result.is_error) == ("tool", "c", failed)
    assert content is None or result.content == content


def test_consecutive_items_of_the_agent_are_one_action(logs: Any) -> None:
    reasoning = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}
    before = {"role": "assistant", "content": "I look."}
    items = [{"role": "user", "content": "x"}, reasoning, before, call("a"), call("b"), output("b", 1), output("a", 2)]
    (found,) = logs.good("openai-responses", [{"input": items, "output": [call("c")], "instructions": "Be good."}])
    first, second = found.steps
    assert found.prompt[0] == Message("system", "Be good.")
    assert (first.action.reasoning, first.action.text, len(first.action.tool_calls)) == ("hm", "I look.", 2)
    assert [m.tool_call_id for m in first.observations] == ["b", "a"]
    assert [made.id for made in second.action.tool_calls] == ["c"]


def test_a_chain_whose_beginning_is_elsewhere_is_linked(logs: Any) -> None:
    (found,) = logs.good("openai-responses", [answer("r2", "b", "r1")])
    assert found.source.links == Links(("response:r2",), "response:r1")
    assert found.source.relation == "continuation"


def test_calls_in_any_order_and_in_a_ring(logs: Any) -> None:
    rows = [answer("r3", "c", "r2"), answer("r1", "a"), answer("r2", "b", "r1")]
    (found,) = logs.good("openai-responses", rows)
    assert [step.action.text for step in found.steps] == ["a", "b", "c"]
    ring = [answer("r1", "a", "r2"), answer("r2", "b", "r1"), answer("r3", "c", "r3")]
    assert len(logs.good("openai-responses", ring)) == 3


def test_more_than_can_be_held_becomes_linked_trajectories(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_responses, "_MAX_HELD", 1)
    rows = [answer("r1", "a"), answer("r2", "b", "r1"), answer("r3", "c", "r2")]
    found = logs.good("openai-responses", rows)
    links = {item.source.links.keys: item.source.links.parent for item in found}
    assert links == {
        ("response:r2",): "response:r1",
        ("response:r3",): "response:r2",
        ("response:r1",): None,
    }


def test_bad_rows_do_not_hide_their_neighbours(logs: Any) -> None:
    bad: list[Any] = [{"x": 1}, {"output": 5}, 7, {"request": {"input": 5}, "response": {"object": "response"}}]
    found = logs.all("openai-responses", [answer("r1", "a"), *bad, answer("r9", "z")])
    assert [isinstance(item, Rejected) for item in found] == [False, *[True] * 4, False]
    assert [item.problem.line for item in found if isinstance(item, Rejected)] == [2, 3, 4, 5]


def test_a_bad_line_among_items_costs_itself(logs: Any) -> None:
    items = [{"role": "user", "content": "x"}, call("a"), output("a", "1")]
    data = b"\n".join([*(json.dumps(item).encode() for item in items), b'{"type": ', b"5"])
    good, *refused = logs.all("openai-responses", data)
    assert len(good.messages) == 3
    assert {item.problem.line for item in refused} == {4, 5}


def test_branches_without_room_stand_alone_and_name_what_they_go_on_from(
    logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each branch holds the whole chain before it: 12,000 calls and 12,000 answers to the last one (5 MB) took more
    than 1 GB, and hours.
    """
    monkeypatch.setattr(openai_responses, "MAX_WEIGHT", 400)
    rows = [answer(f"c{number}", "a", f"c{number - 1}" if number else None) for number in range(100)]
    rows += [answer(f"d{number}", f"{number}", "c99") for number in range(50)]
    found = logs.good("openai-responses", rows)
    whole = [item for item in found if len(item.steps) == 101]
    alone = [item for item in found if len(item.steps) == 1]
    assert (len(whole), len(alone)) == (4, 46)
    assert [item.steps[-1].action.text for item in whole] == ["49", "48", "47", "46"]
    assert [(item.source.relation, item.branch_step) for item in whole] == [(None, None), *[("branch", 100)] * 3]
    assert {(item.source.relation, item.source.links.parent) for item in alone} == {("continuation", "response:c99")}
