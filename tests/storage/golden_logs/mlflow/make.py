# mypy: disable-error-code="unused-ignore"
"""Make the golden MLflow traces: one scripted agent (no model, no network, no server), with mlflow-tracing's own spans.

    .venv/bin/python tests/storage/golden_logs/mlflow/make.py

Live spans of MLflow write inputs, outputs, tools and usage, and `Trace.to_json` the files. Ids and times are scripted
and keys sorted, so that the files come out the same each time. The library no longer writes schema v2: that file is
made from the other by its field names, and read back with the library's own reader of v2 before it is kept.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback, Trace, TraceData, TraceInfo
from mlflow.entities.span import LiveSpan, Span, create_mlflow_span
from mlflow.entities.span_event import SpanEvent
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import StatusCode, set_span_in_context

HERE = Path(__file__).parent
START = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
SECOND = 10**9
TRACE = "tr-abcd0000000000000000000000000001"
TOOLS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object"}}}
    for name in ("get_weather", "ask_expert", "book")
]


class Ids(IdGenerator):
    """1, 2, 3, ... as span ids."""

    def __init__(self) -> None:
        self._span = 0

    def generate_trace_id(self) -> int:
        return int(TRACE.removeprefix("tr-"), 16)

    def generate_span_id(self) -> int:
        self._span += 1
        return 0xEF << 56 | self._span


def call(identity: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def said(text: str | None, calls: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {}), **more}


def result(identity: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": text}


WEATHER = [call("c1", "get_weather", {"city": "Paris"}), call("c2", "get_weather", {"city": "Atlantis"})]
TURNS = [
    said(None, WEATHER, reasoning_content="Two cities, two calls."),
    said("Paris it is.", [call("c3", "ask_expert", {"topic": "packing"})]),
    said("Take a light coat.", [call("c4", "book", {"hotel": "Lutetia"})]),
]
RESULTS = [[result("c2", "no such city"), result("c1", "18 C, sunny")], [result("c3", "A light coat.")], []]
PROMPT = [
    {"role": "system", "content": "You plan trips. Use the tools."},
    {"role": "user", "content": "Plan a weekend: Paris or Atlantis? Ümlaut."},
]
INNER_PROMPT = [
    {"role": "system", "content": "You pack bags."},
    {"role": "user", "content": "What to pack for 18 C?"},
]
USAGE = [(100, 20, 0), (160, 15, 90), (200, 12, 150)]


def live(span: LiveSpan) -> Any:
    """The span of OpenTelemetry inside, which MLflow's types call read-only."""
    return span._span


class Player:
    """Plays the script in live spans."""

    def __init__(self) -> None:
        provider = TracerProvider(id_generator=Ids())
        self._tracer = provider.get_tracer("scripted")
        self._at = START
        self.live: list[LiveSpan] = []

    def _tick(self) -> int:
        self._at += SECOND
        return self._at

    def _start(self, name: str, kind: str, parent: LiveSpan | None) -> LiveSpan:
        context = set_span_in_context(live(parent)) if parent is not None else None
        made = create_mlflow_span(self._tracer.start_span(name, context, start_time=self._tick()), TRACE, kind)
        assert isinstance(made, LiveSpan)
        self.live.append(made)
        return made

    def _end(self, span: LiveSpan) -> None:
        live(span).end(self._tick())

    def play(self) -> None:
        root = self._start("planner", "AGENT", None)
        root.set_inputs({"request": PROMPT[1]["content"]})
        self._loop(root, PROMPT, TURNS, RESULTS, TOOLS)
        root.set_outputs(TURNS[-1]["content"])
        root.set_status("OK")
        self._end(root)

    def _loop(self, agent: LiveSpan, history: list[Any], turns: list[Any], results: list[Any], tools: Any) -> None:
        for number, turn in enumerate(turns):
            model = self._start("chat", "CHAT_MODEL", agent)
            model.set_inputs({"model": "scripted-1", "messages": history, "temperature": 0.2, "seed": 7})
            model.set_attribute("mlflow.chat.tools", tools)
            finish = "tool_calls" if turn.get("tool_calls") else "stop"
            model.set_outputs({"choices": [{"index": 0, "message": turn, "finish_reason": finish}]})
            spent = USAGE[number]
            counts = {"input_tokens": spent[0], "output_tokens": spent[1], "total_tokens": spent[0] + spent[1]}
            model.set_attribute("mlflow.chat.tokenUsage", counts | {"cache_read_input_tokens": spent[2]})
            model.set_attribute("mlflow.llm.cost", {"total_cost": spent[1] / 1000})
            model.set_attribute("mlflow.llm.model", "scripted-1")
            self._end(model)
            history = [*history, turn, *results[number]]
            for answer in results[number]:
                self._tool(
                    agent, next(made for made in turn["tool_calls"] if made["id"] == answer["tool_call_id"]), answer
                )

    def _tool(self, agent: LiveSpan, made: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        name = made["function"]["name"]
        span = self._start(name, "TOOL", agent)
        span.set_inputs(json.loads(made["function"]["arguments"]))
        if name == "ask_expert":
            inner = self._start("packer", "AGENT", span)
            self._loop(inner, INNER_PROMPT, [said("A light coat.")], [[]], [])
            self._end(inner)
        if answer["content"] == "no such city":
            about: dict[str, Any] = {"exception.type": "KeyError", "exception.message": "no such city"}
            span.add_event(SpanEvent("exception", self._at, about))  # type: ignore[abstract]
            live(span).set_status(StatusCode.ERROR, "no such city")
        span.set_outputs(answer["content"])
        self._end(span)


def trace() -> Trace:
    player = Player()
    player.play()
    spans = [Span(live._span) for live in player.live]
    info = TraceInfo(
        trace_id=TRACE,
        trace_location=TraceLocation.from_experiment_id("7"),
        request_time=START // 10**6,
        state=TraceState.OK,
        request_preview="Plan a weekend",
        execution_duration=22_000,
        trace_metadata={
            "mlflow.trace.session": "trip-7",
            "mlflow.trace.tokenUsage": json.dumps({"input_tokens": 560, "output_tokens": 67, "total_tokens": 627}),
        },
        tags={"mlflow.traceName": "planner", "team": "travel"},
        assessments=assessments(spans),
    )
    return Trace(info, TraceData(spans))


def assessments(spans: list[Span]) -> list[Any]:
    judge, person = AssessmentSource("LLM_JUDGE", "judge-1"), AssessmentSource("HUMAN", "kim")
    common: dict[str, Any] = {
        "trace_id": TRACE,
        "create_time_ms": START // 10**6,
        "last_update_time_ms": START // 10**6,
    }
    return [
        Feedback(name="tone", value="formal", source=person, rationale="no emoji", **common),
        Feedback(name="safe", value="yes", source=judge, **common),
        Feedback(name="helpful", value=0.75, source=judge, rationale="It answered.", **common),
        Feedback(name="grounded", value=True, source=judge, span_id=spans[1].span_id, **common),
        Feedback(name="broken", error=AssessmentError("TIMEOUT", "no answer"), source=judge, **common),
        Expectation(name="hotel", value="Lutetia", source=person, **common),
    ]


def as_version_2(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same trace by the field names of MLflow 2."""
    spans = []
    for span in value["data"]["spans"]:
        spans.append(
            {
                "name": span["name"],
                "context": {"span_id": "0x" + hexed(span["span_id"]), "trace_id": "0x" + hexed(span["trace_id"])},
                "parent_id": "0x" + hexed(span["parent_span_id"]) if span["parent_span_id"] else None,
                "start_time": span["start_time_unix_nano"],
                "end_time": span["end_time_unix_nano"],
                "status_code": span["status"]["code"].removeprefix("STATUS_CODE_"),
                "status_message": span["status"]["message"] or "",
                "attributes": span["attributes"],
                "events": [
                    {"name": event["name"], "timestamp": event["time_unix_nano"], "attributes": event["attributes"]}
                    for event in span["events"]
                ],
            }
        )
    info = {
        "request_id": TRACE,
        "experiment_id": "7",
        "timestamp_ms": START // 10**6,
        "execution_time_ms": 22_000,
        "status": "OK",
        "request_metadata": value["info"]["trace_metadata"],
        "tags": value["info"]["tags"],
        "assessments": value["info"]["assessments"],
    }
    return {"info": info, "data": {"spans": spans}}


def hexed(encoded: str) -> str:
    return base64.b64decode(encoded).hex()


def main() -> None:
    made = trace()
    value = json.loads(made.to_json())
    (HERE / "trace-v3.json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    (HERE / "traces-v3.jsonl").write_text(json.dumps(value, sort_keys=True) + "\n")
    old = as_version_2(value)
    read = Trace.from_dict(json.loads(json.dumps(old)))
    assert [span.span_id for span in read.data.spans] == [span.span_id for span in made.data.spans]
    assert [span.outputs for span in read.data.spans] == [span.outputs for span in made.data.spans]
    (HERE / "trace-v2.json").write_text(json.dumps(old, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
