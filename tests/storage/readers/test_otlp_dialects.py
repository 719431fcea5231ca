"""How instrumentations spell things: answers of every shape, real attributes of five frameworks, Phoenix's export."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.readers.flat_attributes import built, indexed
from ttc_replay.storage.readers.otlp_names import FIELDS, KINDS, kind_of
from ttc_replay.storage.readers.otlp_spans import any_value, from_iso, iso, nanoseconds
from ttc_replay.storage.records import Message, Score, ToolCall, Trajectory, Usage

TRACES = Path(__file__).parents[4] / "shared" / "traces" / "langfuse"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")
CALL_TEXT = ToolCall("c1", "f", {"a": 1}, '{"a": 1}')
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
RESPONSES: dict[str, Any] = {
    "openai": {"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]},
    "responses": {
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]}]
    },
    "anthropic": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "ok"}]},
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"text": "ok"}]}}]},
    "bedrock": {"output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}}},
    "langchain": {"generations": [[{"text": "ok", "message": {"type": "ai", "content": "ok"}}]]},
    "plain": "ok",
}


@pytest.mark.parametrize("shape", RESPONSES)
def test_answers_of_every_shape(logs: Any, shape: str) -> None:
    answer = RESPONSES[shape]
    attributes = {"openinference.span.kind": "LLM", "input.value": "hi", "output.value": answer}
    (found,) = logs.good("otlp", document([plain_span(attributes)]))
    assert [message.text for message in found.messages] == ["hi", "ok"]


def attribute(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value if isinstance(value, str) else json.dumps(value)}


def plain_span(attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    pairs = [{"key": key, "value": attribute(value)} for key, value in attributes.items() if value is not None]
    made = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "s", "startTimeUnixNano": "1000", "attributes": pairs}
    return made | more


def document(spans: list[Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def rebuilt(path: Path) -> dict[str, Any]:
    """The spans whose attributes an export of Langfuse kept."""
    spans = []
    for item in json.loads(path.read_text())["observations"]:
        about = item["metadata"] if isinstance(item["metadata"], dict) else json.loads(item["metadata"] or "{}")
        given = about.get("attributes") or {}
        attributes = given if isinstance(given, dict) else json.loads(given)
        start = datetime.fromisoformat(item["startTime"])
        times = {"startTimeUnixNano": str(int(start.timestamp() * 1000) * 10**6)}
        ids = {"traceId": item["traceId"], "spanId": item["id"], "parentSpanId": item["parentObservationId"] or ""}
        spans.append(plain_span(attributes, name=item["name"], **ids, **times))
    return document(spans)


# Roles of the main conversation, names of its calls, tokens of its first step, tools.
REAL = {
    "agno-2025-06-11": ("suata", ["duckduckgo_search"], None, 2),
    "google-adk-2025-08-28": ("suata", ["say_hello"], Usage(28, 3), 1),
    "koog-2025-08-26": ("suatta", ["HelloTool", "ByeTool"], None, None),
    "openai-agents-2025-09-30": ("suata", ["get_weather"], Usage(55, 15, 0), 1),
    "pydantic-ai-2025-06-06": ("sua", [], Usage(31, 96), 0),
}


@needs_traces
@pytest.mark.parametrize("name", REAL)
def test_real_attributes_of_frameworks(logs: Any, name: str) -> None:
    (found,) = logs.good("otlp", rebuilt(TRACES / f"{name}.trace.json"))
    turns, calls, usage, tools = REAL[name]
    assert "".join(message.role[0] for message in found.messages) == turns
    assert [call.name for step in found.steps for call in step.action.tool_calls] == calls
    assert found.steps[0].usage == usage
    assert tools == (None if found.tools is None else len(found.tools))
    assert all(len(step.observations) == len(step.action.tool_calls) for step in found.steps)


def test_the_vercel_ai_sdk(logs: Any) -> None:
    tools = [json.dumps({"type": "function", "name": "f", "inputSchema": {"type": "object"}})]
    inner = {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.prompt.messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "ai.prompt.tools": tools,
        "ai.response.text": "calling",
        "ai.response.toolCalls": [{"toolCallId": "c1", "toolName": "f", "args": '{"a": 1}'}],
        "ai.response.finishReason": "tool-calls",
        "ai.usage.promptTokens": 5,
    }
    ran = {"ai.operationId": "ai.toolCall", "ai.toolCall.id": "c1", "ai.toolCall.name": "f", "ai.toolCall.result": "r"}
    outer = {"ai.operationId": "ai.generateText", "ai.telemetry.functionId": "chat"}
    spans = [
        plain_span(outer, spanId="01" * 8),
        plain_span(inner, spanId="02" * 8, parentSpanId="01" * 8),
        plain_span(ran, spanId="03" * 8, parentSpanId="01" * 8, startTimeUnixNano="2000"),
    ]
    (found,) = logs.good("otlp", document(spans))
    assert found.messages == (
        Message("user", "hi"),
        Message("assistant", "calling", None, (CALL_TEXT,)),
        Message("tool", "r", tool_call_id="c1", name="f"),
    )
    assert found.tools == ({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},)
    assert (found.source.agent, found.steps[0].usage) == ("chat", Usage(5))


def test_content_events_of_the_first_generation(logs: Any) -> None:
    """gen_ai.content.prompt and gen_ai.content.completion, and content as JSON text in one attribute."""
    prompt = {"gen_ai.prompt": json.dumps([{"role": "user", "content": "hi"}])}
    completion = {"gen_ai.completion": json.dumps([{"role": "assistant", "content": "ok"}])}
    events = [
        {"name": "gen_ai.content.prompt", "attributes": plain_span(prompt)["attributes"]},
        {"name": "gen_ai.content.completion", "attributes": plain_span(completion)["attributes"]},
    ]
    (found,) = logs.good("otlp", document([plain_span({"gen_ai.operation.name": "chat"}, events=events)]))
    assert [message.text for message in found.messages] == ["hi", "ok"]
    body = {"gen_ai.event.content": json.dumps({"message": {"content": "ok"}, "finish_reason": "stop"})}
    said = {"gen_ai.event.content": json.dumps({"content": "hi"})}
    events = [
        {"name": "gen_ai.user.message", "attributes": plain_span(said)["attributes"]},
        {"name": "gen_ai.choice", "attributes": plain_span(body)["attributes"]},
    ]
    (found,) = logs.good("otlp", document([plain_span({"gen_ai.operation.name": "chat"}, events=events)]))
    assert [message.text for message in found.messages] == ["hi", "ok"]
    assert found.outcome.exit_reason == "stop"


def test_log_events_without_a_trace_belong_to_their_conversation(logs: Any) -> None:
    def record(name: str, time: int, body: dict[str, Any]) -> dict[str, Any]:
        pairs = [
            {"key": "event.name", "value": attribute(name)},
            {"key": "gen_ai.conversation.id", "value": attribute("c")},
        ]
        values = [{"key": key, "value": attribute(value)} for key, value in body.items()]
        return {"timeUnixNano": str(time), "attributes": pairs, "body": {"kvlistValue": {"values": values}}}

    told = [
        record("gen_ai.user.message", 1, {"content": "hi"}),
        record("gen_ai.choice", 2, {"index": 0, "message": json.dumps({"role": "assistant", "content": "ok"})}),
    ]
    row = {"resourceLogs": [{"scopeLogs": [{"logRecords": told}]}]}
    assert logs.detected(row) == "otlp"
    (found,) = logs.good("otlp", row)
    assert [message.text for message in found.messages] == ["hi", "ok"]
    lost = logs.all("otlp", {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": attribute("x")}]}]}]})
    assert [item.problem.code for item in lost] == ["TTC-E012"]


PHOENIX = {
    "id": "U3Bhbjox",
    "name": "ChatCompletion",
    "context": {"trace_id": "ab" * 16, "span_id": "01" * 8},
    "span_kind": "LLM",
    "parent_id": None,
    "start_time": "2026-01-01T00:00:00.250000+00:00",
    "end_time": "2026-01-01T01:00:01+01:00",
    "status_code": "OK",
    "attributes": {
        "llm": {
            "model_name": "m",
            "input_messages": [{"message": {"role": "user", "content": "hi"}}],
            "output_messages": [{"message": {"role": "assistant", "content": "ok"}}],
            "token_count": {"prompt": 3, "completion": 1},
        }
    },
    "annotations": [{"name": "correct", "result": {"score": 1, "label": "yes", "explanation": "it is"}}],
}
FLAT = {
    "name": "ChatCompletion",
    "context.trace_id": "ab" * 16,
    "context.span_id": "01" * 8,
    "parent_id": None,
    "span_kind": "LLM",
    "start_time": "2026-01-01T00:00:00.250000",
    "end_time": "2026-01-01T00:00:01",
    "status_code": "ERROR",
    "status_message": "late",
    "attributes.llm.model_name": "m",
    "attributes.llm.input_messages": [{"message.role": "user", "message.content": "hi"}],
    "attributes.llm.output_messages": [{"message.role": "assistant", "message.content": "ok"}],
    "attributes.llm.token_count.prompt": 3,
    "attributes.llm.token_count.completion": 1,
    "attributes.input.value": None,
}


@pytest.mark.parametrize(
    "value", [PHOENIX, FLAT, {"data": [PHOENIX], "next_cursor": None}, [FLAT]], ids=["api", "row", "page", "rows"]
)
def test_spans_as_phoenix_exports_them(logs: Any, value: Any) -> None:
    data = json.dumps(value).encode()
    assert logs.detected(data) == "otlp"
    (found,) = logs.good("otlp", data)
    assert [message.text for message in found.messages] == ["hi", "ok"]
    (step,) = found.steps
    assert (step.usage, step.model) == (Usage(3, 1), "m")
    assert (step.started_at, step.ended_at) == ("2026-01-01T00:00:00.250000Z", "2026-01-01T00:00:01Z")
    if "next" in str(value) or value is PHOENIX:
        assert step.scores == {"correct": Score(1.0, detail={"label": "yes", "explanation": "it is"})}
    else:
        assert (found.outcome.exit_reason, found.truncated) == ("late", True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"stringValue": "x"}, "x"),
        ({"intValue": "-9223372036854775808"}, -(2**63)),
        ({"intValue": 5}, 5),
        ({"intValue": "five"}, None),
        ({"doubleValue": "NaN"}, None),
        ({"boolValue": False}, False),
        ({"arrayValue": {}}, []),
        ({"arrayValue": {"values": [{"intValue": "1"}, {}]}}, [1, None]),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}, {"key": 1}, None]}}, {"k": "v"}),
        ({"kvlist_value": {"values": [{"key": "k", "value": {"int_value": 1}}]}}, {"k": 1}),
        ({"bytesValue": "AAE="}, "AAE="),
        ({}, None),
        ("text", None),
    ],
)
def test_values_of_otlp(value: Any, expected: Any) -> None:
    assert any_value(value) == expected


def test_times() -> None:
    assert iso(nanoseconds("1767225600123456789")) == "2026-01-01T00:00:00.123456Z"
    assert iso(nanoseconds(1767225600000000000)) == "2026-01-01T00:00:00Z"
    assert [nanoseconds(value) for value in (0, "0", -1, "x", None, True, 1.5, 10**30, "9" * 40)] == [None] * 9
    assert from_iso("2026-01-01T02:00:00+02:00") == from_iso("2026-01-01T00:00:00Z") == 1767225600 * 10**9
    assert from_iso("yesterday") is None


def test_indices_are_sorted_as_numbers_and_gaps_close() -> None:
    attributes = {f"llm.input_messages.{index}.message.role": str(index) for index in (10, 2, 0)}
    attributes |= {"llm.input_messages.2.message.tool_calls.1.tool_call.id": "b", "llm.a." + "0." * 40 + "x": "deep"}
    lists = indexed(attributes)
    assert [built(item)["message"]["role"] for item in lists["llm.input_messages"]] == ["0", "2", "10"]
    assert built(lists["llm.input_messages"][1])["message"]["tool_calls"] == [{"tool_call": {"id": "b"}}]
    assert "llm.a" not in lists


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"gen_ai.operation.name": "chat"}, "llm"),
        ({"gen_ai.operation.name": "invoke_workflow"}, "agent"),
        ({"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "m"}, "other"),
        ({"openinference.span.kind": "LLM"}, "llm"),
        ({"openinference.span.kind": "EVALUATOR"}, "evaluator"),
        ({"openinference.span.kind": "CHAIN", "gen_ai.operation.name": "execute_tool"}, "tool"),
        ({"traceloop.span.kind": "task"}, "other"),
        ({"agentops.span.kind": "agent"}, "agent"),
        ({"llm.request.type": "completion"}, "llm"),
        ({"gen_ai.prompt.0.role": "user"}, "llm"),
        ({"agent_name": "a", "gen_ai.usage.input_tokens": 1}, "agent"),
        ({"gen_ai.tool.name": "t", "tool_response": "r"}, "tool"),
        ({"http.route": "/"}, "other"),
        ({}, "other"),
    ],
)
def test_what_a_span_is(attributes: dict[str, Any], kind: str) -> None:
    assert kind_of(attributes) == kind


def test_the_table_names_what_the_libraries_name() -> None:
    """The conventions' own constants: a name that changes there is noticed here."""
    genai = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    openinference = pytest.importorskip("openinference.semconv.trace")
    table = {name for names in FIELDS.values() for name in names}
    for name in ("REQUEST_MODEL", "RESPONSE_MODEL", "USAGE_INPUT_TOKENS", "USAGE_OUTPUT_TOKENS", "CONVERSATION_ID"):
        assert getattr(genai, f"GEN_AI_{name}") in table
    for name in ("TOOL_CALL_ID", "TOOL_CALL_ARGUMENTS", "TOOL_CALL_RESULT", "AGENT_NAME", "EVALUATION_SCORE_VALUE"):
        assert getattr(genai, f"GEN_AI_{name}") in table
    assert genai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS in table
    spans = openinference.SpanAttributes
    for name in (
        "LLM_MODEL_NAME",
        "LLM_TOKEN_COUNT_PROMPT",
        "LLM_COST_TOTAL",
        "SESSION_ID",
        "TOOL_NAME",
        "OUTPUT_VALUE",
    ):
        assert getattr(spans, name) in table
    for kind in ("LLM", "AGENT", "TOOL", "EVALUATOR"):
        assert getattr(openinference.OpenInferenceSpanKindValues, kind).value.lower() in KINDS


def test_one_answer_of_a_tool_in_quotes_is_its_text(logs: Any) -> None:
    """Traceloop writes results as JSON text."""
    out = [{"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}]
    spans = [
        plain_span({"gen_ai.operation.name": "chat", "gen_ai.input.messages": "hi", "gen_ai.output.messages": out}),
        plain_span(
            {"traceloop.span.kind": "tool", "traceloop.entity.name": "f", "traceloop.entity.output": '"a b"'},
            spanId="02" * 8,
            startTimeUnixNano="2000",
        ),
    ]
    (found,) = logs.good("otlp", document(spans))
    assert isinstance(found, Trajectory)
    assert [item.content for item in found.steps[0].observations] == ["a b"]
