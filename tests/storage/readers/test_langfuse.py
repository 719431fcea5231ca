"""Langfuse traces: what each of the ten real ones holds, the golden ones in full, and every trap of the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Message, Outcome, ToolCall, Trajectory, Usage

TRACES = Path(__file__).parents[4] / "shared" / "traces" / "langfuse"
GOLDEN = Path(__file__).parents[1] / "golden_logs" / "langfuse"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")

# roles of the main conversation (s system, d developer, u user, a assistant, t tool; a digit: its calls), tools it was
# offered, tokens in and out of all its steps, children
REAL: dict[str, tuple[str, int | None, tuple[int, int], int]] = {
    "agno-2025-06-11": ("s u a1 t a", 2, (826, 245), 0),
    "autogen-2025-06-06": ("s u a", None, (41, 3), 0),
    "claude-agent-2025-12-22": ("s u a a1 t a1 t a", None, (34, 232), 0),
    "google-adk-2025-08-28": ("s u a1 t a", 1, (67, 9), 0),
    "koog-2025-08-26": ("s u a2 t t a", None, (215, 125), 0),
    "langgraph-js-2025-10-30": ("u a1 t a", None, (321, 123), 0),
    "openai-agents-2025-09-30": ("s u a1 t a", 1, (140, 44), 0),
    "pydantic-ai-2025-06-06": ("s u a", None, (31, 96), 0),
    "pydantic-ai-tools-2025-12-04": ("s u a3 t t t a u a", 5, (1184, 140), 1),
    "vercel-aisdk-2025-11-17": ("u a1 t", 1, (62, 85), 0),
}


def shape(messages: Any) -> str:
    return " ".join(
        message.role[0] + (str(len(message.tool_calls)) if message.tool_calls else "") for message in messages
    )


@needs_traces
@pytest.mark.parametrize("name", REAL)
def test_real_traces(logs: Any, name: str) -> None:
    main, *children = logs.good("langfuse", TRACES / f"{name}.trace.json")
    roles, tools, tokens, below = REAL[name]
    assert shape(main.messages) == roles
    assert (None if main.tools is None else len(main.tools)) == tools
    used = [step.usage for step in main.steps if step.usage is not None]
    assert (sum(item.prompt_tokens or 0 for item in used), sum(item.completion_tokens or 0 for item in used)) == tokens
    assert all(item.cost_usd for item in used)
    assert [child.parent_id for child in children] == [main.id] * below
    answered = {result.tool_call_id for result in main.messages if result.role == "tool" and result.tool_call_id}
    assert answered <= {call.id for step in main.steps for call in step.action.tool_calls}
    assert all(step.started_at and step.ended_at and step.model for step in main.steps)
    assert json.loads(main.source.raw) == json.loads((TRACES / f"{name}.trace.json").read_text())


@needs_traces
def test_scores_of_real_traces(logs: Any) -> None:
    [main] = logs.good("langfuse", TRACES / "claude-agent-2025-12-22.trace.json")
    assert main.outcome == Outcome(0.0, "correctness")
    assert {name: score.value for name, score in main.scores.items()} == {
        "correctness": 0,
        "hallucination": 1,
        "toxicity": 0,
    }
    assert main.scores["correctness"].detail["comment"].startswith("The generation does not provide")
    assert main.prompt[0] == Message(
        "system", "You are a friendly travel assistant who helps with weather information."
    )


@needs_traces
def test_an_agent_of_another_prompt_in_the_same_trace_is_a_child(logs: Any) -> None:
    main, critic = logs.good("langfuse", TRACES / "pydantic-ai-tools-2025-12-04.trace.json")
    assert main.steps[-1].action.text.startswith("Why do programmers hate nature?")
    assert critic.source.relation == "subagent"
    assert critic.prompt[0].text == "You are a joke critic. Evaluate if the joke is funny and well-crafted."
    assert critic.source.sampling == {"temperature": 0}
    assert (main.source.counts["assistant_turns"], critic.source.counts["assistant_turns"]) == (3, 1)


def test_golden_agent_with_an_agent_as_tool(logs: Any) -> None:
    main, child, image, branch, bare = logs.good("langfuse", GOLDEN / "traces.jsonl")
    assert shape(main.messages) == "s u a2 t t a2 t"
    assert [call.id for call in main.steps[0].action.tool_calls] == ["c1", "c2"]
    assert main.steps[0].action.reasoning == "Ask for both."
    found = [(item.tool_call_id, item.text, item.is_error) for item in main.steps[0].observations]
    assert found == [("c2", "no such map", True), ("c1", "Deed 7 lies in room 2.", False)]  # in recorded order
    assert main.steps[1].observations == (
        Message("tool", '{"rang": true}', tool_call_id="c3", name="ring"),
    )  # c4: none
    assert main.steps[0].usage == Usage(100, 12, 60, 0.00003)
    assert (main.steps[1].started_at, main.steps[1].ended_at) == ("2026-02-03T09:00:09Z", "2026-02-03T09:00:10Z")
    assert main.source.sampling == {"temperature": 0.3, "seed": 11}
    assert [tool["function"]["name"] for tool in main.tools] == ["archive"]
    assert main.outcome == Outcome(0.75, "helpful", None, {"categorical": {"tone": "kind"}})
    assert {name: score.value for name, score in main.scores.items()} == {"helpful": 0.75, "found": 1.0}
    assert main.steps[1].scores["brief"].value == 0.5
    assert (child.parent_id, child.source.relation, child.branch_step, child.source.agent) == (
        main.id,
        "subagent",
        0,
        "archivist",
    )
    assert shape(child.messages) == "s u a1 t a"
    assert {row["id"] for row in json.loads(child.source.raw)["observations"]} == {"g3", "t3", "g4"}
    assert [item.task.prompt for item in (image, branch, bare)] == ["What is it?", "What is it?", "Good day"]


def test_golden_image_branch_and_failure(logs: Any) -> None:
    _, _, main, branch, bare = logs.good("langfuse", GOLDEN / "traces.jsonl")
    url = main.prompt[1].content[0]["image_url"]
    assert url["url"].startswith("sha256:")
    assert url["media_type"] == "image/png"
    assert "AAECAwQF" in main.source.raw
    assert main.steps[0].action == Message("assistant", "Let me zoom.", tool_calls=(ToolCall("z1", "zoom", {"by": 2}),))
    assert main.steps[0].observations == (Message("tool", "grey", tool_call_id="z1", is_error=True),)
    assert (main.outcome.exit_reason, main.truncated) == ("error: overloaded", True)
    assert (branch.source.relation, branch.parent_id, branch.branch_step) == ("branch", main.id, 0)
    assert (branch.steps[0].action.text, branch.steps[0].action.reasoning) == ("A gradient.", "Noise?")
    assert [message.text for message in bare.messages] == ["Good day", "Good day to you"]


def test_a_page_of_the_api_holds_the_same_traces(logs: Any) -> None:
    ids = [item.id for item in logs.good("langfuse", GOLDEN / "page.json")]
    lines = [item.id for item in logs.good("langfuse", GOLDEN / "traces.jsonl")]
    assert ids == [lines[0], lines[1], lines[4]]


def trace(*rows: dict[str, Any], **about: Any) -> dict[str, Any]:
    observations = [
        {"id": str(at), "type": "GENERATION", "traceId": "t", "name": "n", **row} for at, row in enumerate(rows)
    ]
    return {"trace": {"id": "t", "name": "n", **about, "observations": observations}, "observations": observations}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "q"}], "output": {"role": "assistant", "content": text}, **more}


def one(logs: Any, value: Any) -> Trajectory:
    return logs.good("langfuse", value)[0]  # type: ignore[no-any-return]


def test_observations_inside_and_beside_the_trace_are_counted_once(logs: Any) -> None:
    assert one(logs, trace(said("a"))).source.counts == {  # type: ignore[union-attr]
        "runs": 1,
        "observations": 1,
        "assistant_turns": 1,
        "tool_observations": 0,
        "rewards": 0,
    }


def test_time_orders_observations_whatever_their_place(logs: Any) -> None:
    late = said("b", startTime="2026-01-01T00:00:02Z")
    late["input"] = [*late["input"], {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]
    assert shape(one(logs, trace(late, said("a", startTime="2026-01-01T00:00:01.5+00:00"))).messages) == "u a u a"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"input": 5, "output": 2, "total": 7, "prompt_details.cache_read": 3}, Usage(5, 2, 3)),
        ({"input": 5, "input_cache_read": 3, "output": 2, "output_reasoning": 4, "total": 14}, Usage(8, 6, 3)),
        ({"input": 5, "cache_read_input_tokens": 3, "output": 2}, Usage(8, 2, 3)),
        ({"total": 9}, None),
        ({"input": "x", "output": True}, None),
    ],
)
def test_tokens_by_bucket(logs: Any, counts: Any, expected: Usage | None) -> None:
    assert one(logs, trace(said("a", usageDetails=counts))).steps[0].usage == expected


def test_a_wrapper_and_what_it_wraps_are_one_call_unless_it_wraps_several(logs: Any) -> None:
    outer = said("a", id="o", usageDetails={"input": 90, "output": 9}, startTime="2026-01-01T00:00:01Z")
    inner = said("a", parentObservationId="o", usageDetails={"input": 4, "output": 2}, startTime="2026-01-01T00:00:02Z")
    both = one(logs, trace(outer, inner))
    assert [step.usage for step in both.steps] == [Usage(4, 2)]
    assert both.source is not None
    assert both.source.counts["assistant_turns"] == 2
    history = [*inner["input"], inner["output"], {"role": "user", "content": "r"}]
    second = {**said("b", parentObservationId="o", startTime="2026-01-01T00:00:03Z"), "input": history}
    assert [step.action.text for step in one(logs, trace(outer, inner, second)).steps] == ["a", "b"]


def test_flattened_attributes_stand_in_for_a_missing_input(logs: Any) -> None:
    attributes = {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "q",
        "llm.input_messages.10.message.role": "tool",
        "llm.input_messages.10.message.content": "r",
        "llm.input_messages.2.message.role": "assistant",
        "llm.input_messages.2.message.tool_calls.0.tool_call.function.name": "f",
        "llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments": "{}",
        "llm.input_messages.2.message.tool_calls.0.tool_call.id": "c1",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "a",
        "llm.tools.0.tool.json_schema": '{"type": "function", "function": {"name": "f"}}',
    }
    row = {"input": None, "output": None, "metadata": json.dumps({"attributes": attributes})}
    found = one(logs, trace(row))
    assert shape(found.messages) == "u a1 t a"
    assert found.prompt[0].content == "q"
    assert found.tools == ({"type": "function", "function": {"name": "f"}},)
    old = {f"gen_ai.prompt.0.{key}": value for key, value in (("role", "user"), ("content", "q"))}
    old |= {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "a"}
    assert shape(one(logs, trace({**row, "metadata": {"attributes": old}})).messages) == "u a"


def test_a_provider_name_is_no_system_prompt(logs: Any) -> None:
    settings = {"system": "openai.responses", "maxRetries": "2"}
    assert shape(one(logs, trace(said("a", modelParameters=settings))).messages) == "u a"
    assert one(logs, trace(said("a", modelParameters={"system": "be good"}))).prompt[0].text == "be good"


def test_spans_that_ran_a_tool_answer_its_call(logs: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {**said(""), "startTime": "2026-01-01T00:00:01Z"}
    asked["output"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    span: dict[str, Any] = {
        "type": "SPAN",
        "name": "tool.f",
        "input": "{}",
        "output": "done",
        "startTime": "2026-01-01T00:00:02Z",
    }
    span["metadata"] = {"attributes": {"gen_ai.tool.call.id": "c1"}}
    found = one(logs, trace(asked, span))
    assert found.steps[0].observations == (Message("tool", "done", tool_call_id="c1", name="f"),)
    assert found.source is not None
    assert found.source.counts["tool_observations"] == 0  # a SPAN


def test_parents_in_a_circle_and_parents_that_are_missing_end(logs: Any) -> None:
    rows = [
        said("a", id="x", parentObservationId="y", type="AGENT"),
        said("b", id="y", parentObservationId="x", type="TOOL"),
    ]
    rows.append(said("c", id="z", parentObservationId="x"))
    assert shape(one(logs, trace(*rows, said("d", parentObservationId="gone"))).messages) == "u a"


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ([{"name": "a", "dataType": "BOOLEAN", "value": 1}], Outcome(1.0, "a")),
        (
            [{"name": "a", "dataType": "CATEGORICAL", "value": 1, "stringValue": "x"}],
            Outcome(detail={"categorical": {"a": "x"}}),
        ),
        ([{"name": "a", "dataType": "NUMERIC", "value": None}], Outcome(detail={"categorical": {"a": None}})),
        ([], None),
    ],
)
def test_kinds_of_scores(logs: Any, scores: Any, outcome: Outcome | None) -> None:
    found = one(logs, trace(said("a"), scores=scores))
    assert found.outcome == outcome
    assert found.source is not None
    assert found.source.counts["rewards"] == int(outcome is not None and outcome.value is not None)


def test_scores_of_one_name_are_all_kept(logs: Any) -> None:
    rows = [{"name": "a", "dataType": "NUMERIC", "value": value} for value in (0.25, 0.5)]
    found = one(logs, trace(said("a"), scores=rows))
    assert {name: score.value for name, score in found.scores.items()} == {"a": 0.25, "a (2)": 0.5}


@pytest.mark.parametrize(
    "bad",
    [
        5,
        {"trace": {"id": "t"}, "observations": 5},
        {},
        {"trace": {}},
        trace(said("a"), scores=[{"dataType": "NUMERIC", "value": 10**400}]),
    ],
)
def test_a_bad_trace_does_not_hide_its_neighbours(logs: Any, bad: Any) -> None:
    first, problem, last = logs.all("langfuse", [trace(said("a")), bad, trace(said("b"))])
    assert (first.steps[0].action.text, last.steps[0].action.text) == ("a", "b")
    assert problem.problem.line == 2
    assert problem.problem.code in ("TTC-E012", "TTC-E014", "TTC-E022")
