"""LangChain's serialised messages as data: nothing of LangChain is imported, and no constructor is ever called.

Three spellings, as LangSmith, Langfuse and LangGraph keep them: `{"lc": 1, "type": "constructor", "id": [...,
"AIMessage"], "kwargs": {...}}`, `{"type": "ai", "content": ...}` (`model_dump`), and `{"type": "ai", "data": {...}}`
(`message_to_dict`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..records import Message, ToolCall, Usage
from .chat import listing, mapping, string, text, tool_call, whole
from .content_blocks import block_message, content_of, flat_call

_ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
}


def is_langchain(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is a LangChain message in one of the spellings."""
    if "lc" in value:
        return kind_of(value) is not None and isinstance(value.get("kwargs"), dict)
    return kind_of(value) is not None and ("content" in value or isinstance(value.get("data"), dict))


def kind_of(value: Mapping[str, Any]) -> str | None:
    """`human`, `ai`, `tool`, ...: the type of a message, from its class or its `type`; None when it is no message."""
    if "lc" in value:
        path = listing(value.get("id"))
        name = path[-1] if path and isinstance(path[-1], str) else ""
    else:
        name = string(value.get("type")) or ""
    kind = name.removesuffix("Chunk").removesuffix("Message").lower()
    return kind if kind in _ROLES or kind in ("chat", "remove") else None


def fields_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a message, wherever its spelling keeps them."""
    inner = value.get("kwargs") if "lc" in value else value.get("data")
    return inner if isinstance(inner, dict) else value


def langchain_message(value: Mapping[str, Any]) -> Message | None:
    """The message; None for one that only removes another (`RemoveMessage`)."""
    kind, fields = kind_of(value), fields_of(value)
    if kind is None or kind == "remove":
        return None
    role = _ROLES.get(kind) or string(fields.get("role")) or "user"
    if role == "tool":
        return _result(fields)
    extra = mapping(fields.get("additional_kwargs"))
    found = block_message(role, fields.get("content"))
    calls = _calls(fields, extra) or found.tool_calls
    reasoning = found.reasoning or string(extra.get("reasoning_content"))
    return Message(role, found.content, reasoning, calls, name=string(fields.get("name")))


def langchain_usage(value: Mapping[str, Any]) -> Usage | None:
    """`usage_metadata` of an AI message: its `input_tokens` include cached ones."""
    return metadata_usage(fields_of(value).get("usage_metadata"))


def metadata_usage(value: Any) -> Usage | None:
    """The same from a bare `usage_metadata` object."""
    given = mapping(value)
    if not given:
        return None
    cached = whole(mapping(given.get("input_token_details")).get("cache_read"))
    found = Usage(whole(given.get("input_tokens")), whole(given.get("output_tokens")), cached)
    return None if found == Usage() else found


def langchain_model(value: Mapping[str, Any]) -> str | None:
    """The model that an AI message names in its `response_metadata`."""
    about = mapping(fields_of(value).get("response_metadata"))
    return string(about.get("model_name")) or string(about.get("model"))


def _result(fields: Mapping[str, Any]) -> Message:
    return Message(
        "tool",
        content_of(fields.get("content")),
        tool_call_id=text(fields.get("tool_call_id")),
        name=string(fields.get("name")),
        is_error=fields.get("status") == "error",
    )


def _calls(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Parsed calls, those whose arguments would not parse, else the provider's own."""
    given = [*listing(fields.get("tool_calls")), *listing(fields.get("invalid_tool_calls"))]
    calls = tuple(
        flat_call(item.get("id"), item.get("name"), item.get("args")) for item in given if isinstance(item, dict)
    )
    if calls:
        return calls
    own = [item for item in listing(extra.get("tool_calls")) if isinstance(item, dict)]
    return tuple(tool_call(item, "tool_calls") for item in own)
