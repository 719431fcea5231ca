"""Make the golden OTLP logs: one scripted agent (no model, no network), traced with opentelemetry-sdk in every dialect.

    .venv/bin/python -m tests.storage.golden_logs.otlp.make

Spans are the SDK's own; `opentelemetry-proto` encodes them: to protobuf, and to OTLP/JSON with hex ids. Ids and times
are scripted, so the files come out the same each time. Like a real exporter it writes each span when it ends: children
stand before their parents.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span, StatusCode, Tracer, set_span_in_context

from tests.storage.golden_logs.otlp.dialects import (
    AgentOps,
    Attributes,
    Details,
    Dialect,
    Events,
    OpenInference,
    OpenLLMetry,
    Silent,
    Workflow,
    text,
)
from tests.storage.golden_logs.otlp.scenario import (
    INNER,
    INNER_RESULTS,
    INNER_USER,
    LOOK_UP,
    MODEL,
    PACKER,
    RESULTS,
    SYSTEM,
    TOOLS,
    TURNS,
    USAGE,
    USER,
)

HERE = Path(__file__).parent
START = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
SECOND = 10**9


class Ids(IdGenerator):
    """1, 2, 3, ... as ids; every trace of a provider has its own."""

    def __init__(self, trace: int):
        self._trace, self._span = trace, 0

    def generate_trace_id(self) -> int:
        self._trace += 1
        return 0xABCD << 112 | self._trace

    def generate_span_id(self) -> int:
        self._span += 1
        return 0xEF << 56 | self._trace << 16 | self._span


class Kept(SpanExporter):
    """Keeps what is exported."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


class Player:
    """Plays the script: the agent, its tools, and the expert that one tool asks."""

    def __init__(self, dialect: Dialect, tracer: Tracer):
        self._dialect, self._tracer, self._at = dialect, tracer, START

    def tick(self) -> int:
        self._at += SECOND
        return self._at

    def start(self, name: str, attributes: dict[str, Any], parent: Span | None) -> Span:
        context = set_span_in_context(parent) if parent is not None else None
        return self._tracer.start_span(name, context, attributes=attributes, start_time=self.tick())

    def play(self) -> None:
        root = self.start(self._dialect.name("invoke_agent", "planner"), self._dialect.agent("planner"), None)
        self._loop(root, SYSTEM, TOOLS, [USER], TURNS, RESULTS)
        self._dialect.judge(self._tracer, root, self.tick())
        root.end(self.tick())

    def _loop(self, agent: Span, system: str, tools: Any, history: list[Any], turns: Any, results: Any) -> None:
        for number, turn in enumerate(turns):
            span = self.start(self._dialect.name("chat", MODEL), {}, agent)
            self._dialect.model(span, system, tools, history, turn, self._at, USAGE[number])
            span.end(self.tick())
            history = [*history, turn, *results[number]]
            made = {call["id"]: call for call in turn.get("calls", ())}
            for result in results[number]:
                self._tool(agent, made[result["id"]], result)

    def _tool(self, agent: Span, made: dict[str, Any], result: dict[str, Any]) -> None:
        name = self._dialect.name("execute_tool", made["name"])
        span = self.start(name, self._dialect.tool(made, result), agent)
        if made["name"] == "ask_expert":
            inner = self.start(self._dialect.name("invoke_agent", "packer"), self._dialect.agent("packer"), span)
            self._loop(inner, PACKER, LOOK_UP, [INNER_USER], INNER, INNER_RESULTS)
            inner.end(self.tick())
        if result["error"]:
            span.set_attribute("error.type", result["error"])
            span.set_status(StatusCode.ERROR, result["text"])
        span.end(self.tick())


def played(dialect: Dialect, trace: int) -> list[ReadableSpan]:
    """The spans, in the order in which they ended."""
    kept = Kept()
    provider = TracerProvider(id_generator=Ids(trace), resource=Resource({"service.name": "trips"}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    Player(dialect, provider.get_tracer("scripted-instrumentation", "1.0")).play()
    return kept.spans


def put(target: Any, value: Any) -> None:
    """A Python value into an AnyValue."""
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, Mapping):
        target.kvlist_value.SetInParent()
        put_all(target.kvlist_value.values, value)
    elif value is not None:
        target.array_value.SetInParent()
        for item in value:
            put(target.array_value.values.add(), item)


def put_all(target: Any, values: Mapping[str, Any] | None) -> None:
    for key, value in (values or {}).items():
        pair = target.add()
        pair.key = key
        put(pair.value, value)


def trace_request(spans: list[ReadableSpan]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    put_all(resource.resource.attributes, spans[0].resource.attributes)
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "scripted-instrumentation", "1.0"
    for span in spans:
        made: Any = scope.spans.add()
        context: Any = span.context
        made.trace_id, made.span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
        if span.parent is not None:
            made.parent_span_id = span.parent.span_id.to_bytes(8, "big")
        made.name, made.kind, made.flags = span.name, span.kind.value + 1, 0x100
        made.start_time_unix_nano, made.end_time_unix_nano = span.start_time or 0, span.end_time or 0
        put_all(made.attributes, span.attributes)
        for event in span.events:
            noted = made.events.add()
            noted.name, noted.time_unix_nano = event.name, event.timestamp
            put_all(noted.attributes, event.attributes)
        made.status.SetInParent()
        if not span.status.is_ok:
            made.status.code, made.status.message = 2, span.status.description or ""
    return request


def logs_request(logs: list[Any]) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    put_all(resource.resource.attributes, {"service.name": "trips"})
    scope = resource.scope_logs.add()
    scope.scope.name = "scripted-instrumentation"
    for span, at, name, body, attributes in logs:
        record: Any = scope.log_records.add()
        context = span.get_span_context()
        record.trace_id, record.span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
        record.time_unix_nano, record.event_name, record.severity_number = at, name, 9
        put_all(record.attributes, attributes)
        if body is not None:
            put(record.body, body)
    return request


def otlp_json(request: Any) -> dict[str, Any]:
    """OTLP/JSON: as protobuf's JSON, but ids are hex and enums numbers."""
    value: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    names = ("traceId", "spanId", "parentSpanId")
    for holder in leaves(value):
        for name in names:
            if name in holder:
                holder[name] = hexed(holder[name])
    return value


def leaves(value: Any) -> Iterator[dict[str, Any]]:
    for resource in (*value.get("resourceSpans", ()), *value.get("resourceLogs", ())):
        for scope in (*resource.get("scopeSpans", ()), *resource.get("scopeLogs", ())):
            yield from (*scope.get("spans", ()), *scope.get("logRecords", ()))


def hexed(encoded: str) -> str:
    return base64.b64decode(encoded).hex()


def lines(spans: list[ReadableSpan]) -> list[str]:
    """One request a line, a span each, as file exporters write them."""
    return [text(otlp_json(trace_request([span]))) for span in spans]


def varint(number: int) -> bytes:
    data = b""
    while number > 0x7F:
        data += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return data + bytes((number,))


def write(name: str, data: str | bytes) -> None:
    (HERE / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def main() -> None:
    makers: dict[str, Callable[[], Dialect]] = {
        "genai-attributes": Attributes,
        "genai-workflow": Workflow,
        "genai-span-events": lambda: Events(in_spans=True),
        "openllmetry": OpenLLMetry,
        "agentops": AgentOps,
        "openinference": OpenInference,
        "no-content": Silent,
    }
    for number, (name, maker) in enumerate(makers.items()):
        write(f"{name}.jsonl", "\n".join(lines(played(maker(), number))) + "\n")
    spans = played(Attributes(), 0)
    write("genai-attributes.json", text(otlp_json(trace_request(spans))))
    write("genai-attributes.pb", trace_request(spans).SerializeToString())
    framed = [trace_request([span]).SerializeToString() for span in spans]
    write("genai-attributes.delimited.pb", b"".join(varint(len(data)) + data for data in framed))
    write("genai-attributes.collector.pb", b"".join(len(data).to_bytes(4, "big") + data for data in framed))
    for number, (name, dialect) in enumerate({"genai-details": Details(), "genai-log-events": Events(False)}.items()):
        spans = played(dialect, 20 + number)
        log_lines = [text(otlp_json(logs_request([log]))) for log in dialect.logs]
        write(f"{name}.jsonl", "\n".join([*log_lines, *lines(spans)]) + "\n")
        write(f"{name}.logs.pb", logs_request(dialect.logs).SerializeToString())


if __name__ == "__main__":
    main()
