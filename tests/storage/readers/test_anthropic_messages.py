"""Anthropic conversations: blocks, parallel results, thoughts, usage with cached tokens, answers and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.readers.anthropic_blocks import anthropic_usage
from ttc_replay.storage.records import Message, Outcome, Rejected, Score, ToolCall, Usage

CALLS = Path(__file__).parents[1] / "golden_logs" / "anthropic" / "calls.jsonl"
CALL = {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_parallel_results_in_one_message_are_split_and_stay_in_their_order(logs: Any) -> None:
    assert logs.detected(CALLS) == "anthropic"
    first, *_ = logs.good("anthropic", CALLS)
    step, answer = first.steps
    assert (first.prompt[0], step.action.text, step.action.reasoning) == (
        Message("system", "You compare."),
        "I read them.",
        "All three at once.",
    )
    assert [call.id for call in step.action.tool_calls] == ["toolu_1", "toolu_2", "toolu_3"]
    assert [(m.role, m.tool_call_id, m.name, m.is_error, m.content) for m in step.observations] == [
        ("tool", "toolu_2", "read_file", True, "no such file"),
        ("tool", "toolu_1", "read_file", False, "a dot"),
        ("user", None, None, False, "Be quick."),  # and toolu_3 was never answered
    ]
    assert (answer.action.text, answer.model) == ("a.txt is the same.", "claude-scripted-1")
    assert answer.usage == Usage(130, 5, 100, 0.25)  # 10 fresh, 100 read from the cache, 20 written to it
    assert (answer.started_at, answer.ended_at) == ("2026-03-01T11:00:00Z", "2026-03-01T11:00:02Z")
    assert (step.usage, step.model) == (None, None)


def test_what_stands_beside_the_messages(logs: Any) -> None:
    first, *_ = logs.good("anthropic", CALLS)
    assert first.tools == (
        {
            "type": "function",
            "function": {
                "name": "read_file",
                "description": "Reads a file.",
                "parameters": {
                    "type": "object",
                    "properties": {"path": {"type": "string"}},
                    "required": ["path"],
                },
            },
        },
    )
    assert (first.task.id, first.outcome) == ("compare", Outcome(1.0, exit_reason="end_turn"))
    assert first.source.sampling == {"temperature": 0.5, "max_tokens": 512}
    assert first.source.counts == {
        "messages": 4,
        "assistant_turns": 2,
        "tool_calls": 3,
        "tool_results": 2,
        "rewards": 1,
    }


def test_images_are_references_and_signatures_stay_in_the_raw_record(logs: Any) -> None:
    first, *_ = logs.good("anthropic", CALLS)
    text, image = first.prompt[1].content
    assert text["text"] == "Compare the files with this:"
    assert image["image_url"]["url"].startswith("sha256:")
    assert image["image_url"]["media_type"] == "image/png"
    raw = json.loads(first.source.raw)
    thoughts = raw["messages"][1]["content"][:2]
    assert [block.get("signature", block.get("data")) for block in thoughts] == ["c2lnbmF0dXJl", "ZW5jcnlwdGVk"]
    assert raw["messages"][0]["content"][1]["source"]["data"].startswith("iVBOR")


def test_the_servers_own_tools_stay_in_the_answer(logs: Any) -> None:
    _, searched, *_ = logs.good("anthropic", CALLS)
    (step,) = searched.steps
    assert [part["type"] for part in step.action.content] == ["server_tool_use", "web_search_tool_result", "text"]
    assert (step.action.text, step.action.tool_calls) == ("Dots are small.", ())
    assert (searched.source.counts["tool_calls"], searched.source.counts["server_tool_calls"]) == (0, 1)
    assert searched.tools == ()
    assert searched.source.extra["server_tools"][0]["name"] == "web_search"
    assert (searched.outcome.exit_reason, searched.truncated) == ("max_tokens", True)


def test_an_answer_goes_on_from_the_agents_own_words(logs: Any) -> None:
    *_, prefilled, failed = logs.good("anthropic", CALLS)
    (step,) = prefilled.steps
    assert (step.action.content, step.usage) == ("It is (Jupiter)", Usage(10, 5))
    assert (failed.steps, failed.truncated) == ((), True)
    assert failed.outcome == Outcome(exit_reason="error: overloaded_error: Overloaded")
    assert [message.role for message in failed.prompt] == ["system", "user"]


@pytest.mark.parametrize(
    "row",
    [
        {"system": "s", "messages": [said("user", "x"), said("assistant", "y")]},
        {"messages": [said("user", "x")], "tools": [{"name": "f", "input_schema": {}}]},
        {"messages": [said("user", "x"), said("assistant", [CALL])]},
        {"request": {"messages": [said("user", "x")]}, "response": {"type": "message", "content": []}},
        {"custom_id": "1", "params": {"messages": [said("user", "x")], "system": "s"}},
        {"messages": [said("user", [{"type": "image", "source": {"type": "url", "url": "a.png"}}])]},
    ],
)
def test_detection(logs: Any, row: dict[str, Any]) -> None:
    for value in (row, [row, row], json.dumps([row, row]).encode()):
        assert logs.detected(value) == "anthropic"
        assert len(logs.good("anthropic", value)) >= 1


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [said("user", "x"), said("assistant", "y")]},
        {"messages": [{"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "x"}]},
        {"system": "s", "conversations": [{"from": "human", "value": "x"}]},
        {"system": "s"},
    ],
)
def test_what_is_not_anthropics_alone_is_left_to_others(logs: Any, row: dict[str, Any]) -> None:
    assert logs.detected(row) != "anthropic"


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("text", [Message("user", "text")]),
        ([], [Message("user", None)]),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], None),
        ([{"type": "tool_result", "tool_use_id": "c"}], [Message("tool", None, tool_call_id="c", name="f")]),
        (
            [{"type": "text", "text": "a"}, {"type": "tool_result", "tool_use_id": "other", "content": []}],
            [Message("user", "a"), Message("tool", None, tool_call_id="other")],
        ),
    ],
)
def test_users_blocks(logs: Any, content: Any, messages: list[Message] | None) -> None:
    row = {"system": "s", "messages": [said("user", "x"), said("assistant", [CALL]), said("user", content)]}
    (found,) = logs.good("anthropic", row)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert list(found.steps[0].observations) == ([Message("user", parts)] if messages is None else messages)
    assert found.steps[0].action.tool_calls == (ToolCall("c", "f", {"x": 1}),)


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"input_tokens": 1, "output_tokens": 2}, Usage(1, 2)),
        ({"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3}, Usage(4, 2, 3)),
        ({"input_tokens": 1, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 0}, Usage(5, None, 0)),
        ({"input_tokens": True}, None),
        (None, None),
    ],
)
def test_usage(given: Any, usage: Usage | None) -> None:
    assert anthropic_usage(given) == usage


def test_verdicts_of_dumps(logs: Any) -> None:
    row = {"system": "s", "messages": [said("user", "x")], "resolved": True, "score": 0.5, "scores": {"a": 1, "b": "x"}}
    (found,) = logs.good("anthropic", row | {"surprise": 1, "started_at": 1772366400})
    assert found.outcome == Outcome(0.5, "score")
    assert found.scores == {"resolved": Score(1.0), "a": Score(1.0)}
    assert (found.source.extra, found.source.started_at) == ({"surprise": 1}, "2026-03-01T12:00:00Z")


def test_bad_rows_do_not_hide_their_neighbours(logs: Any) -> None:
    good = {"system": "s", "messages": [said("user", "x")]}
    bad = [{"system": "s"}, {"messages": 5}, {"messages": [5]}, {"messages": [{"content": "x"}]}, 7]
    found = logs.all("anthropic", [good, *bad, good])
    assert [isinstance(item, Rejected) for item in found] == [False, *[True] * 5, False]
    assert [item.problem.line for item in found if isinstance(item, Rejected)] == [2, 3, 4, 5, 6]
