"""ShareGPT rows: calls in three spellings, Harbor's exports, and what stands beside the conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Message, Outcome, Rejected, Score, ToolCall

TRACES = Path(__file__).parents[4] / "shared" / "traces" / "sharegpt"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")
TOOLS = json.dumps([{"name": "get", "description": "Gets.", "parameters": {"type": "object"}}])
ROW: dict[str, Any] = {
    "id": "r1",
    "system": "Be good.",
    "tools": TOOLS,
    "conversations": [
        {"from": "human", "value": "Two things."},
        {
            "from": "function_call",
            "value": '[{"name": "get", "arguments": {"a": 1}}, {"name": "get", "arguments": "{}"}]',
        },
        {"from": "observation", "value": "1"},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "<think>Easy.</think>\n\nDone."},
    ],
}


def row(*entries: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": kind, "value": value} for kind, value in entries], **more}


@needs_traces
@pytest.mark.parametrize("file", sorted(path.name for path in TRACES.glob("*.json")) or ["none"])
def test_real_rows_are_detected_and_counted(logs: Any, file: str) -> None:
    expected = logs.expected("sharegpt", file)
    assert logs.detected(TRACES / file) == "sharegpt"
    found = logs.good("sharegpt", TRACES / file)
    assert len(found) == expected.pop("runs")
    counts = logs.counts(found)
    assert {key: counts[key] for key in expected} == expected
    assert all(len(item.steps) == item.source.counts["assistant_turns"] for item in found)


@needs_traces
def test_harbors_rows_repeat_a_prefix_and_stay_rows(logs: Any) -> None:
    found = logs.good("sharegpt", TRACES / "harbor.terminus_2.hello-world-invalid-json.traces.json")
    assert [item.source.extra["episode"] for item in found] == [f"episode-{number}" for number in range(4)]
    assert len({item.id for item in found}) == 4
    assert {item.task.id for item in found} == {"hello-world"}
    assert found[1].messages[:2] == found[0].messages
    assert found[0].steps[0].action.reasoning is not None
    assert found[0].steps[0].action.reasoning.startswith("The task is straightforward")
    (first, _) = logs.good("sharegpt", TRACES / "harbor.openhands.hello-world.traces.json")
    assert (first.source.agent, first.source.model, len(first.tools)) == ("openhands", "gpt-4o", 6)


@needs_traces
def test_function_blocks_in_text_become_calls(logs: Any) -> None:
    found = logs.good("sharegpt", TRACES / "nebius_SWE-agent-trajectories.sft.0-2.json")
    step = found[0].steps[0]
    assert step.action.tool_calls == (ToolCall(None, "execute_bash", {"command": "ls -F"}),)
    assert step.action.text.startswith("To start addressing the issue")
    assert step.observations[0].role == "tool"
    assert found[0].prompt[0].role == "system"  # the field beside the conversation
    assert all(call.arguments for item in found for step in item.steps for call in step.action.tool_calls)


def test_a_row_with_parallel_calls_and_a_thought(logs: Any) -> None:
    assert logs.detected(ROW) == "sharegpt"
    (found,) = logs.good("sharegpt", ROW)
    assert found.prompt == (Message("system", "Be good."), Message("user", "Two things."))
    first, second = found.steps
    assert first.action.tool_calls == (ToolCall(None, "get", {"a": 1}), ToolCall(None, "get", {}, "{}"))
    assert [m.content for m in first.observations] == ["1", "2"]
    assert (second.action.content, second.action.reasoning) == ("Done.", "Easy.")
    assert found.tools[0]["function"] == {"name": "get", "description": "Gets.", "parameters": {"type": "object"}}
    assert found.source.counts == {
        "messages": 5,
        "assistant_turns": 2,
        "tool_calls": 1,
        "tool_results": 2,
        "rewards": 0,
    }


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        ('{"name": "f", "arguments": {"x": [1]}}', (ToolCall(None, "f", {"x": [1]}),)),
        (
            '{"id": "i", "function": {"name": "f", "arguments": "{\\"x\\": 1}"}}',
            (ToolCall("i", "f", {"x": 1}, '{"x": 1}'),),
        ),
        ('{"name": "f", "arguments": "not json"}', (ToolCall(None, "f", None, "not json"),)),
        ("<function=f>\n</function><function=g><parameter=a>1\n2</parameter></function>", None),
        ("no call at all", (ToolCall(None, "", None, "no call at all"),)),
        ("<function=f><parameter=a>", (ToolCall(None, "", None, "<function=f><parameter=a>"),)),
        (None, (ToolCall(None, "", None, ""),)),
    ],
)
def test_calls_in_every_spelling(logs: Any, value: Any, calls: Any) -> None:
    (found,) = logs.good("sharegpt", row(("human", "x"), ("function_call", value)))
    expected = (ToolCall(None, "f", {}), ToolCall(None, "g", {"a": "1\n2"})) if calls is None else calls
    assert found.steps[0].action.tool_calls == expected


@pytest.mark.parametrize(
    ("beside", "outcome"),
    [
        ({}, None),
        ({"result": None}, None),
        ({"result": 1}, Outcome(1.0)),
        ({"result": "AgentTimeoutError"}, Outcome(exit_reason="AgentTimeoutError")),
        ({"reward": 0.5, "result": "done"}, Outcome(0.5, exit_reason="done")),
        ({"resolved": False}, Outcome(0.0, "resolved")),
    ],
)
def test_outcomes(logs: Any, beside: dict[str, Any], outcome: Outcome | None) -> None:
    (found,) = logs.good("sharegpt", ROW | beside)
    assert found.outcome == outcome
    assert found.source.counts["rewards"] == int(outcome is not None and outcome.value is not None)


def test_what_stands_beside_is_kept(logs: Any) -> None:
    more = {
        "task": "t",
        "trial_name": "n",
        "date": "2026-01-01T01:00:00+01:00",
        "images": ["a.png"],
        "scores": {"s": 2},
    }
    (found,) = logs.good("sharegpt", ROW | more)
    assert (found.task.id, found.source.trial, found.source.started_at) == ("t", "n", "2026-01-01T00:00:00Z")
    assert (found.source.extra, found.scores) == ({"images": ["a.png"]}, {"s": Score(2.0)})


def test_an_own_system_entry_wins(logs: Any) -> None:
    (found,) = logs.good("sharegpt", row(("system", "own"), ("human", "x"), ("gpt", "y"), system="beside"))
    assert [(m.role, m.content) for m in found.prompt] == [("system", "own"), ("user", "x")]


def test_bad_rows_do_not_hide_their_neighbours(logs: Any) -> None:
    bad = [{"conversations": 5}, row(("stranger", "x")), {"conversations": [5]}, {"x": 1}, 7]
    found = logs.all("sharegpt", [ROW, *bad, ROW])
    assert [isinstance(item, Rejected) for item in found] == [False, *[True] * 5, False]
    assert [item.problem.line for item in found if isinstance(item, Rejected)] == [2, 3, 4, 5, 6]


def test_text_without_end_takes_no_time(logs: Any) -> None:
    for hostile in (
        "<function=a>" * 200_000,
        "<function=a><parameter=b>" * 100_000 + "</function>",
        "<think>" * 200_000,
    ):
        (found,) = logs.good("sharegpt", row(("human", "x"), ("function_call", hostile), ("gpt", hostile)))
        assert len(found.steps) == 2
