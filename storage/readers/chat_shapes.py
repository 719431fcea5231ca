"""One message in the chat shapes of many frameworks: the parts of its content, and what stands beside them.

OpenAI, Anthropic, Gemini, AI SDK, GenAI, OpenInference and pydantic-ai each spell roles, calls and results otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..records import Message, ToolCall
from .chat import listing, mapping, string, text
from .content_blocks import block_message, block_messages, content_of, flat_call, is_result, typed_call
from .encoded import opened

SYSTEM_ROLES = ("system", "developer")
_ROLES = frozenset((*SYSTEM_ROLES, "user", "assistant", "tool"))
_SAME_ROLE = {"model": "assistant", "ai": "assistant", "human": "user", "function": "tool", "bot": "assistant"}
_NO_ROLE = ("", "unknown")
_BODIES = ("parts", "contents", "content", "text")
_THOUGHTS = dict.fromkeys(("reasoning_content", "reasoning", "thinking")).keys()
_PYDANTIC_KINDS = {"request": "user", "response": "assistant"}
_PYDANTIC_ROLES = {"system-prompt": "system", "user-prompt": "user", "tool-return": "tool", "retry-prompt": "tool"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer that was logged by itself: it joins the assistant message beside it."""

    message: Message


Found = Iterator[Message | Piece]


def chat_entry(value: Mapping[str, Any], role: str) -> Found:
    """The messages in one entry: its results stand before it. `role`: whose words they are if it does not say."""
    calls = _calls(value)
    role, name = _speaker(value, "assistant" if calls else role)
    body = next((value[key] for key in _BODIES if value.get(key) is not None), None)
    told = opened(body) if not isinstance(body, str) or "arguments" in body else None
    if _is_calls(told):  # a call written as the content of a message of any role
        yield Piece(Message("assistant", tool_calls=tuple(call_of(item) for item in listing(told))))
        return
    if isinstance(body, dict):
        body = body["parts"] if isinstance(body.get("parts"), list) else json.dumps(body, ensure_ascii=False)
    if any("part_kind" in mapping(part) for part in listing(body)):
        yield from _pydantic(listing(body))
    elif role == "tool":
        yield from (_identified(found, value, name) for found in _tool_messages(value, body))
    else:
        *results, own = block_messages(role, body)
        if own.role == "tool" and calls:
            results, own = [*results, own], Message(role)
        yield from results
        yield own if own.role == "tool" else _completed(own, value, name, calls)


def _tool_messages(value: Mapping[str, Any], body: Any) -> list[Message]:
    """The results in a tool's message; where it is one itself, its content."""
    if any(is_result(part) for part in listing(body) if isinstance(part, dict)):
        return block_messages("tool", body)
    failed = value.get("is_error") is True or value.get("status") == "error"
    return [Message("tool", content_of(body), is_error=failed)]


def _speaker(value: Mapping[str, Any], role: str) -> tuple[str, str | None]:
    """(role, name) of a message; `role` where it names none."""
    name, given = string(value.get("name")), string(value.get("role")) or ""
    if given in _NO_ROLE:
        return _PYDANTIC_KINDS.get(string(value.get("kind")) or "", role), name
    role = _SAME_ROLE.get(given.lower(), given.lower())
    return (role, name) if role in _ROLES else ("tool", name or given)  # some exporters put a tool's name there


def _completed(own: Message, value: Mapping[str, Any], name: str | None, calls: tuple[ToolCall, ...]) -> Message:
    """With what stands beside the content: calls, reasoning, a name."""
    if not (calls or name or value.keys() & _THOUGHTS):
        return own
    given = (string(value.get(key)) for key in _THOUGHTS)
    reasoning = own.reasoning or next((said for said in given if said), None)
    return Message(own.role, own.content, reasoning, calls or own.tool_calls, name=name)


def _identified(result: Message, value: Mapping[str, Any], name: str | None) -> Message:
    """A result, with the id of its call that the message around it has."""
    given = next((value[key] for key in ("tool_call_id", "toolCallId", "call_id") if value.get(key) is not None), None)
    if given is None and name is None:
        return result
    return replace(result, tool_call_id=result.tool_call_id or text(given), name=result.name or name)


def _calls(value: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls beside a message's content, in the legacy and OpenInference's flat spelling too."""
    given = listing(opened(value.get("tool_calls") or value.get("toolCalls")))
    legacy = value.get("function_call")
    found = [item for item in given if isinstance(item, dict)] or ([legacy] if isinstance(legacy, dict) else [])
    name = string(value.get("function_call_name"))
    if not found and name:
        return (flat_call(None, name, value.get("function_call_arguments_json")),)
    return tuple(call_of(item) for item in found)


def call_of(value: Mapping[str, Any]) -> ToolCall:
    """A call, flat or with `tool_call`, `function` or `custom` around its fields."""
    for name in ("tool_call", "function", "custom"):
        inner = value.get(name)
        if isinstance(inner, dict):
            value = {**value, **inner}
    return typed_call(value)


def _is_calls(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(
        mapping(item).get("type") == "function" and "arguments" in mapping(item.get("function")) for item in value
    )


def _pydantic(parts: Iterable[Any]) -> Iterator[Message]:
    """pydantic-ai's parts, each of which has a role."""
    answer: list[Any] = []
    for part in map(mapping, parts):
        kind = string(part.get("part_kind")) or ""
        role, named = _PYDANTIC_ROLES.get(kind), text(part.get("tool_call_id"))
        if role == "tool" and (named is not None or kind == "tool-return"):
            given, name = content_of(part.get("content")), string(part.get("tool_name"))
            yield Message("tool", given, tool_call_id=named, name=name, is_error=kind == "retry-prompt")
        elif role is not None:
            said = block_message("user" if role == "tool" else role, part.get("content"))
            yield replace(said, is_error=kind == "retry-prompt")
        elif kind == "tool-call":
            answer.append({"type": kind, **part})
        elif kind in ("text", "thinking"):
            answer.append({"type": kind, "text": part.get("content")})
    if answer:
        yield block_message("assistant", answer)
