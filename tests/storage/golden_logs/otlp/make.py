"""Make the golden OTLP logs: one scripted agent (no model, no network), traced with opentelemetry-sdk in every dialect.

    .venv/bin/python tests/storage/golden_logs/otlp/make.py

Spans are the SDK's own; `opentelemetry-proto` encodes them: to protobuf, and to OTLP/JSON with hex ids. Ids and times
are scripted, so the files come out the same each time. Like a real exporter it writes each span when it ends: children
stand before their parents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span, StatusCode, Tracer, set_span_in_context

HERE = Path(__file__).parent
START = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
SECOND = 10**9
SESSION = "trip-7"
MODEL = "scripted-1"
SYSTEM = "You plan trips. Use the tools."
PACKER = "You pack bags."
TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"Tool {name}.",
        "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
    }
    for name, argument in (("get_weather", "city"), ("ask_expert", "topic"), ("book", "hotel"))
]
LOOK_UP = [{"type": "function", "name": "look_up", "parameters": {"type": "object"}}]
USER = {"role": "user", "text": "Plan a weekend: Paris or Atlantis? Ümlaut."}


def call(identity: str, name: str, **arguments: str) -> dict[str, Any]:
    return {"id": identity, "name": name, "arguments": arguments}


def answer(identity: str, name: str, text: str, error: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "id": identity, "name": name, "text": text, "error": error}


WEATHER = [call("c1", "get_weather", city="Paris"), call("c2", "get_weather", city="Atlantis")]
TURNS: list[dict[str, Any]] = [
    {"role": "assistant", "text": None, "thought": "Two cities, two calls.", "calls": WEATHER},
    {"role": "assistant", "text": "Paris it is.", "calls": [call("c3", "ask_expert", topic="packing")]},
    {"role": "assistant", "text": "Take a light coat.", "calls": [call("c4", "book", hotel="Lutetia")]},
]
# The second result came first; the last call was never answered.
RESULTS = [
    [answer("c2", "get_weather", "no such city", "KeyError"), answer("c1", "get_weather", "18 C, sunny")],
    [answer("c3", "ask_expert", "A light coat.")],
    [],
]
INNER_USER = {"role": "user", "text": "What to pack for 18 C?"}
INNER: list[dict[str, Any]] = [
    {"role": "assistant", "text": None, "calls": [call("s1", "look_up", item="coat")]},
    {"role": "assistant", "text": "A light coat."},
]
INNER_RESULTS = [[answer("s1", "look_up", "in stock")], []]
USAGE = [(100, 20, 0), (160, 15, 90), (200, 12, 150)]


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


class Dialect:
    """How an instrumentation writes things down. `logs`: the log records it emits beside spans."""

    def __init__(self) -> None:
        self.logs: list[tuple[Span, int, str, Any, dict[str, Any]]] = []

    def agent(self, name: str) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": name,
            "gen_ai.conversation.id": SESSION,
        }

    def model(
        self, span: Span, system: str, tools: Any, history: list[Any], turn: dict[str, Any], at: int, spent: Any
    ) -> None:
        raise NotImplementedError

    def tool(self, made: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": made["name"],
            "gen_ai.tool.call.id": made["id"],
            "gen_ai.tool.call.arguments": text(made["arguments"]),
            "gen_ai.tool.call.result": result["text"],
        }

    def judge(self, tracer: Tracer, root: Span, at: int) -> None:
        attributes = {
            "gen_ai.evaluation.name": "helpful",
            "gen_ai.evaluation.score.value": 0.75,
            "gen_ai.evaluation.score.label": "good",
            "gen_ai.evaluation.explanation": "It answered.",
        }
        root.add_event("gen_ai.evaluation.result", attributes, at)

    def name(self, kind: str, name: str) -> str:
        return f"{kind} {name}"


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def request_attributes(spent: Any, finish: str) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": f"{MODEL}-2026",
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 512,
        "gen_ai.request.seed": 7,
        "gen_ai.response.finish_reasons": [finish],
        "gen_ai.usage.input_tokens": spent[0],
        "gen_ai.usage.output_tokens": spent[1],
        "gen_ai.usage.cache_read.input_tokens": spent[2],
    }


def finish_of(turn: Mapping[str, Any]) -> str:
    return "tool_calls" if turn.get("calls") else "stop"


def parts_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Role and parts, as of v1.37."""
    if message["role"] == "tool":
        part = {"type": "tool_call_response", "id": message["id"], "response": message["text"]}
        return {"role": "tool", "parts": [part]}
    parts: list[dict[str, Any]] = []
    if message.get("thought"):
        parts.append({"type": "reasoning", "content": message["thought"]})
    if message.get("text"):
        parts.append({"type": "text", "content": message["text"]})
    parts += [{"type": "tool_call", **made} for made in message.get("calls", ())]
    return {"role": message["role"], "parts": parts}


class Attributes(Dialect):
    """Generation b (v1.37 to v1.41): messages as JSON text in attributes of the span."""

    def model(self, span: Span, system: str, tools: Any, history: Any, turn: Any, at: int, spent: Any) -> None:
        out = {**parts_message(turn), "finish_reason": finish_of(turn)}
        span.set_attributes(request_attributes(spent, finish_of(turn)))
        span.set_attribute("gen_ai.system_instructions", text([{"type": "text", "content": system}]))
        span.set_attribute("gen_ai.tool.definitions", text(tools))
        span.set_attribute("gen_ai.input.messages", text([parts_message(message) for message in history]))
        span.set_attribute("gen_ai.output.messages", text([out]))


class Workflow(Attributes):
    """Generation c: the workflow's span merged into invoke_agent, named by gen_ai.agent.name."""

    def judge(self, tracer: Tracer, root: Span, at: int) -> None:
        root.set_attribute("gen_ai.agent.description", "plans trips")
        super().judge(tracer, root, at)


class Details(Dialect):
    """Generation b, content in one event for each call, structured: a log record."""

    def model(self, span: Span, system: str, tools: Any, history: Any, turn: Any, at: int, spent: Any) -> None:
        span.set_attributes(request_attributes(spent, finish_of(turn)))
        out = {**parts_message(turn), "finish_reason": finish_of(turn)}
        details = {
            "gen_ai.operation.name": "chat",
            "gen_ai.system_instructions": [{"type": "text", "content": system}],
            "gen_ai.tool.definitions": tools,
            "gen_ai.input.messages": [parts_message(message) for message in history],
            "gen_ai.output.messages": [out],
        }
        self.logs.append((span, at, "gen_ai.client.inference.operation.details", None, details))


def event_of(message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and body, as of v1.36 and before."""
    if message["role"] == "tool":
        return "gen_ai.tool.message", {"id": message["id"], "content": message["text"]}
    body: dict[str, Any] = {"content": message["text"]} if message.get("text") else {}
    if message.get("calls"):
        body["tool_calls"] = [openai_call(made) for made in message["calls"]]
    return f"gen_ai.{message['role']}.message", body


def openai_call(made: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": made["name"], "arguments": text(made["arguments"])}
    return {"id": made["id"], "type": "function", "function": function}


class Events(Dialect):
    """Generation a: an event for each message, as log records (or as span events, where bodies are attributes)."""

    def __init__(self, in_spans: bool):
        super().__init__()
        self._in_spans = in_spans

    def model(self, span: Span, system: str, tools: Any, history: Any, turn: Any, at: int, spent: Any) -> None:
        given = request_attributes(spent, finish_of(turn))
        given["gen_ai.system"] = given.pop("gen_ai.provider.name")
        span.set_attributes(given)
        events = [event_of({"role": "system", "text": system}), *(event_of(message) for message in history)]
        out = {"role": "assistant", **event_of(turn)[1]}
        events.append(("gen_ai.choice", {"index": 0, "finish_reason": finish_of(turn), "message": out}))
        for number, (name, body) in enumerate(events):
            if self._in_spans:
                flat = {key: text(value) if isinstance(value, (dict, list)) else value for key, value in body.items()}
                span.add_event(name, flat, at + number)
            else:
                self.logs.append((span, at + number, name, body, {"gen_ai.system": "scripted", "event.name": name}))


class OpenLLMetry(Dialect):
    """gen_ai.prompt.N and gen_ai.completion.N, and Traceloop's workflow, agent and tool spans."""

    def agent(self, name: str) -> dict[str, Any]:
        return {
            "traceloop.span.kind": "agent",
            "traceloop.entity.name": name,
            "traceloop.association.properties.session_id": SESSION,
        }

    def tool(self, made: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "traceloop.span.kind": "tool",
            "traceloop.entity.name": made["name"],
            "traceloop.entity.input": text({"args": [], "kwargs": made["arguments"]}),
            "traceloop.entity.output": text(result["text"]),
        }

    def model(self, span: Span, system: str, tools: Any, history: Any, turn: Any, at: int, spent: Any) -> None:
        span.set_attributes(
            {
                "llm.request.type": "chat",
                "gen_ai.system": "scripted",
                "gen_ai.request.model": MODEL,
                "gen_ai.response.model": f"{MODEL}-2026",
                "gen_ai.request.temperature": 0.2,
                "gen_ai.request.max_tokens": 512,
                "gen_ai.usage.prompt_tokens": spent[0],
                "gen_ai.usage.completion_tokens": spent[1],
                "gen_ai.usage.cache_read_input_tokens": spent[2],
                "llm.usage.total_tokens": spent[0] + spent[1],
                "gen_ai.completion.0.finish_reason": finish_of(turn),
            }
        )
        for number, tool in enumerate(tools):
            for key in tool.keys() - {"type"}:
                value = tool[key]
                span.set_attribute(
                    f"llm.request.functions.{number}.{key}", value if key != "parameters" else text(value)
                )
        for number, message in enumerate([{"role": "system", "text": system}, *history]):
            self._message(span, f"gen_ai.prompt.{number}", message)
        self._message(span, "gen_ai.completion.0", turn)

    def _message(self, span: Span, prefix: str, message: Mapping[str, Any]) -> None:
        span.set_attribute(f"{prefix}.role", message["role"])
        if message.get("text"):
            is_user = message["role"] == "user"
            said = text([{"type": "text", "text": message["text"]}]) if is_user else message["text"]
            span.set_attribute(f"{prefix}.content", said)
        if message["role"] == "tool":
            span.set_attribute(f"{prefix}.tool_call_id", message["id"])
        for number, made in enumerate(message.get("calls", ())):
            for key, value in made.items():
                said = text(value) if key == "arguments" else value
                span.set_attribute(f"{prefix}.tool_calls.{number}.{key}", said)


class AgentOps(OpenLLMetry):
    """AgentOps writes gen_ai.prompt.N too, and its own kinds of spans."""

    def agent(self, name: str) -> dict[str, Any]:
        return {"agentops.span.kind": "agent", "agent.name": name, "session.id": SESSION}

    def tool(self, made: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "agentops.span.kind": "tool",
            "tool.name": made["name"],
            "tool.parameters": text(made["arguments"]),
            "tool.result": result["text"],
        }


class OpenInference(Dialect):
    """OpenInference: flattened messages, content in parts for the user, a gap in the indices, costs, an evaluator."""

    def agent(self, name: str) -> dict[str, Any]:
        return {"openinference.span.kind": "AGENT", "agent.name": name, "session.id": SESSION}

    def tool(self, made: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "openinference.span.kind": "TOOL",
            "tool.name": made["name"],
            "tool_call.id": made["id"],
            "input.value": text(made["arguments"]),
            "input.mime_type": "application/json",
            "output.value": result["text"],
        }

    def model(self, span: Span, system: str, tools: Any, history: Any, turn: Any, at: int, spent: Any) -> None:
        parameters = {"temperature": 0.2, "max_tokens": 512, "seed": 7}
        span.set_attributes(
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": f"{MODEL}-2026",
                "llm.invocation_parameters": text(parameters),
                "llm.token_count.prompt": spent[0],
                "llm.token_count.completion": spent[1],
                "llm.token_count.prompt_details.cache_read": spent[2],
                "llm.cost.total": spent[1] / 1000,
                "llm.finish_reason": finish_of(turn),
                "input.value": text({"messages": "…"}),
                "output.value": "…",
            }
        )
        for number, tool in enumerate(tools):
            schema = {"type": "function", "function": {key: tool[key] for key in tool if key != "type"}}
            span.set_attribute(f"llm.tools.{number}.tool.json_schema", text(schema))
        for number, message in enumerate([{"role": "system", "text": system}, *history]):
            index = number if number == 0 else number + 3  # indices may have gaps
            self._message(span, f"llm.input_messages.{index}.message", message)
        self._message(span, "llm.output_messages.0.message", turn)

    def _message(self, span: Span, prefix: str, message: Mapping[str, Any]) -> None:
        span.set_attribute(f"{prefix}.role", message["role"])
        if message["role"] == "user":
            span.set_attribute(f"{prefix}.contents.0.message_content.type", "text")
            span.set_attribute(f"{prefix}.contents.0.message_content.text", message["text"])
        elif message.get("text"):
            span.set_attribute(f"{prefix}.content", message["text"])
        if message["role"] == "tool":
            span.set_attribute(f"{prefix}.tool_call_id", message["id"])
            span.set_attribute(f"{prefix}.name", message["name"])
        for number, made in enumerate(message.get("calls", ())):
            inner = f"{prefix}.tool_calls.{number}.tool_call"
            span.set_attribute(f"{inner}.id", made["id"])
            span.set_attribute(f"{inner}.function.name", made["name"])
            span.set_attribute(f"{inner}.function.arguments", text(made["arguments"]))

    def judge(self, tracer: Tracer, root: Span, at: int) -> None:
        span = tracer.start_span("helpful", set_span_in_context(root), start_time=at)
        span.set_attribute("openinference.span.kind", "EVALUATOR")
        span.set_attribute("output.value", text({"score": 0.75, "label": "good", "explanation": "It answered."}))
        span.end(at + 1)


class Silent(Dialect):
    """No content: the default of most instrumentations."""

    def tool(self, made: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        kept = ("gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.call.id")
        return {key: value for key, value in super().tool(made, result).items() if key in kept}

    def model(self, span: Span, system: str, tools: Any, history: Any, turn: Any, at: int, spent: Any) -> None:
        span.set_attributes(request_attributes(spent, finish_of(turn)))


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
        made = scope.spans.add()
        context = span.context
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
        record = scope.log_records.add()
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
    import base64

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
