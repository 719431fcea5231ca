"""How instrumentations write a call, a tool and an agent down: attributes, events and log records of each dialect."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Span, Tracer, set_span_in_context

from tests.storage.golden_logs.otlp.scenario import MODEL, SESSION


class Dialect(ABC):
    """How an instrumentation writes things down. `logs`: the log records it emits beside spans."""

    def __init__(self) -> None:
        self.logs: list[tuple[Span, int, str, Any, dict[str, Any]]] = []

    def agent(self, name: str) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": name,
            "gen_ai.conversation.id": SESSION,
        }

    @abstractmethod
    def model(
        self, span: Span, system: str, tools: Any, history: list[Any], turn: dict[str, Any], at: int, spent: Any
    ) -> None:
        """Write down one call of the model."""

    def tool(self, made: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": made["name"],
            "gen_ai.tool.call.id": made["id"],
            "gen_ai.tool.call.arguments": text(made["arguments"]),
            "gen_ai.tool.call.result": result["text"],
        }

    def judge(self, tracer: Tracer, root: Span, at: int) -> None:
        attributes: dict[str, Any] = {
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
            for key in sorted(tool.keys() - {"type"}):
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
