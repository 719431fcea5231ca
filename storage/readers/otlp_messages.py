"""Messages in whatever shape a span's attribute holds them: OpenTelemetry GenAI, OpenAI (chat and Responses),
Anthropic, Gemini, Bedrock, LangChain, the Vercel AI SDK, pydantic-ai, OpenInference.

Nothing here raises on an unexpected value: what is no message is left to the raw record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..records import Message, ToolCall
from .chat import content, listing, mapping, string, text, unparsed
from .content_blocks import block_messages, flat_call, typed_call
from .langchain_messages import is_langchain, langchain_message
from .otlp_parts import normal_parts
from .otlp_spans import field_of

_ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "bot": "assistant", "function": "tool"}
_ITEMS = {"function_call": "assistant", "custom_tool_call": "assistant", "reasoning": "assistant"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_KINDS = {"request": "user", "response": "assistant"}  # pydantic-ai
_LISTS = ("messages", "input", "contents", "prompt", "choices", "output", "candidates", "generations", "message")
_TEXTS = ("input", "prompt", "output", "content", "completion", "text")
_SYSTEMS = ("system", "instructions", "system_instruction", "systemInstruction")
SYSTEM_ROLES = ("system", "developer")


def messages_of(value: Any, role: str) -> list[Message]:
    """The messages in a value: a list of them, one, a request or response that holds them, or a text said by `role`."""
    if isinstance(value, str):
        found = unparsed(value) if value[:1] in ("[", "{", '"') else value
        if isinstance(found, str):
            return [Message(role, found)]
        value = found
    if isinstance(value, list):
        return [message for item in value for message in message_of(item, role)]
    return list(_holder(value, role)) if isinstance(value, dict) else []


def _holder(value: Mapping[str, Any], role: str) -> Iterator[Message]:
    """A request or response around messages, or one message."""
    if "role" in value or "parts" in value or is_langchain(value):
        yield from message_of(value, role)
        return
    system = field_of(value, *_SYSTEMS) or field_of(mapping(value.get("config")), *_SYSTEMS)
    if system is not None:
        yield from system_messages(system)
    for name in (*_LISTS, *_TEXTS):
        inner = value.get(name)
        if isinstance(inner, (list, dict)) or (isinstance(inner, str) and name in _TEXTS):
            yield from messages_of(inner, role)
            return


def system_messages(value: Any) -> list[Message]:
    """System instructions: a text, parts, or a message without a role."""
    value = unparsed(value) if isinstance(value, str) and value[:1] in ("[", "{") else value
    if isinstance(value, dict):
        value = value.get("parts", value.get("content", [value]))
    if not isinstance(value, (str, list)):
        return []
    found = block_messages("system", normal_parts(value) if isinstance(value, list) else value)
    return [message for message in found if message.content]


def message_of(value: Any, role: str) -> list[Message]:
    """The messages in one element of a list; several where tool results stand in one message."""
    if isinstance(value, str):
        return [Message(role, value)]
    if isinstance(value, list):  # LangChain's batches
        return [message for item in value for message in message_of(item, role)]
    if not isinstance(value, dict):
        return []
    inner = value.get("message", value.get("kwargs") if "lc" not in value else None)
    if not isinstance(inner, dict):
        inner = value.get("content")
    if isinstance(inner, dict) and "role" not in value:
        return message_of(inner, role)
    if is_langchain(value):
        made = langchain_message(value)
        return [] if made is None else [made]
    kind = string(value.get("type"))
    if kind in _OUTPUTS or kind in _ITEMS:
        return _item(value, str(kind))
    return _chat(value, role)


def _item(value: Mapping[str, Any], kind: str) -> list[Message]:
    """An item of the Responses API, or a part without its message."""
    if kind in ("function_call", "custom_tool_call"):
        return [Message("assistant", tool_calls=(typed_call(value),))]
    role = _ITEMS.get(kind, "tool")
    if kind == "reasoning" and isinstance(value.get("content"), list):
        value = {"type": kind, "text": "\n".join(str(mapping(part).get("text", "")) for part in value["content"])}
    found = block_messages(role, [{**value, "type": kind.replace("custom_tool_call", "function_call")}])
    return [message for message in found if message.role == "tool" or message.reasoning]


def _chat(value: Mapping[str, Any], role: str) -> list[Message]:
    """A message with a role; without one it is said by `role`, if it says anything."""
    given = string(value.get("role")) or _KINDS.get(string(value.get("kind")) or "")
    role = _ROLES.get(given, given) if given else role
    if value.get("kind") == "request" and isinstance(value.get("parts"), list):
        return _request(value["parts"])
    body = next((value[key] for key in ("parts", "contents", "content") if value.get(key) is not None), None)
    if given is None and body is None and not value.get("tool_calls"):
        return messages_of(value["text"], role) if isinstance(value.get("text"), str) else []
    calls = _calls(value)
    if role == "tool" and not isinstance(body, list):
        return [_tool_message(value, body)]
    found = block_messages(role, normal_parts(body)) if isinstance(body, list) else [Message(role, content(body))]
    if calls and (not found or found[-1].role == "tool"):
        found.append(Message(role))
    if found and found[-1].role != "tool":
        found[-1] = _completed(found[-1], value, calls)
    elif role == "tool" and found:
        found = [_identified(message, value) for message in found]
    return found


def _request(parts: list[Any]) -> list[Message]:
    """pydantic-ai puts the system prompt, results and what the user says into one request."""
    system = [part for part in parts if mapping(part).get("part_kind") == "system-prompt"]
    others = [part for part in parts if part not in system]
    found = block_messages("user", normal_parts(others)) if others else []
    return [*(system_messages(normal_parts(system)) if system else ()), *found]


def _completed(message: Message, value: Mapping[str, Any], calls: tuple[ToolCall, ...]) -> Message:
    """With what stands beside the content: calls, reasoning, a name, the id of the call that a tool answers."""
    reasoning = string(field_of(value, "reasoning_content", "reasoning", "thinking"))
    named, answers = string(value.get("name")), text(value.get("tool_call_id"))
    if not (calls or reasoning or named or answers):
        return message
    return Message(
        message.role,
        message.content,
        reasoning or message.reasoning,
        calls or message.tool_calls,
        answers,
        named,
        is_error=message.is_error,
    )


def _tool_message(value: Mapping[str, Any], body: Any) -> Message:
    return _identified(Message("tool", content(body), is_error=value.get("status") == "error"), value)


def _identified(message: Message, value: Mapping[str, Any]) -> Message:
    identity = message.tool_call_id or text(field_of(value, "tool_call_id", "toolCallId", "call_id", "id"))
    return replace(message, role="tool", tool_call_id=identity, name=message.name or string(value.get("name")))


def _calls(value: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    given = value.get("tool_calls", value.get("toolCalls"))
    found = tuple(call_of(item) for item in listing(unparsed(given)) if isinstance(item, dict))
    legacy = value.get("function_call")
    if not found and isinstance(legacy, dict):
        return (call_of(legacy),)
    name = string(value.get("function_call_name"))
    return found or ((flat_call(None, name, value.get("function_call_arguments_json")),) if name else ())


def call_of(value: Mapping[str, Any]) -> ToolCall:
    """A call, flat or with `tool_call`, `function` or `custom` around its fields."""
    for name in ("tool_call", "function", "custom"):
        inner = value.get(name)
        if isinstance(inner, dict):
            value = {**value, **inner}
    return typed_call(value)
