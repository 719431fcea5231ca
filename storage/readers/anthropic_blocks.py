"""Anthropic's messages and blocks as our messages: results are messages of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..records import Message, ToolCall, Usage
from .chat import arguments, content, mapping, string, text, whole
from .json_text import wrong_shape
from .media import data_reference, file_part, image_part, reference

_THOUGHTS = ("thinking", "redacted_thinking")
Part = Mapping[str, Any]


def block_messages(value: Any, where: str, names: dict[str, str]) -> Iterator[Message]:
    """The messages in one entry of `messages`, in order. `names`: those of the tools called so far, by call id; calls
    in this entry are added. Raises BadRecord where it is no message.
    """
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise wrong_shape(f"{where} is not an object with a role")
    role, given = value["role"], value.get("content")
    if not isinstance(given, list):
        yield Message(role, content(given))
    elif role == "assistant":
        yield _action(given, names)
    else:
        yield from _heard(role, given, names)


def _action(blocks: list[Any], names: dict[str, str]) -> Message:
    """What the agent did: calls that the server ran for it stay parts of what it said."""
    calls = tuple(_call(block) for block in blocks if _kind(block) == "tool_use")
    names.update({call.id: call.name for call in calls if call.id is not None})
    thoughts = [string(block.get("thinking")) or "" for block in blocks if _kind(block) == "thinking"]
    parts = [_part(block) for block in blocks if _kind(block) not in ("tool_use", *_THOUGHTS)]
    return Message("assistant", simple(parts), "\n".join(filter(None, thoughts)) or None, calls)


def _heard(role: str, blocks: list[Any], names: Mapping[str, str]) -> Iterator[Message]:
    """Results, each by itself, and what is said around them."""
    parts: list[Part] = []
    for block in blocks:
        if _kind(block) != "tool_result":
            parts.append(_part(block))
            continue
        if parts:
            yield Message(role, simple(parts))
            parts = []
        identity = text(block.get("tool_use_id"))
        failed = block.get("is_error") is True
        name = names.get(identity) if identity is not None else None
        yield Message("tool", _result(block.get("content")), tool_call_id=identity, name=name, is_error=failed)
    if parts or not blocks:
        yield Message(role, simple(parts))


def _kind(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None


def _call(block: Mapping[str, Any]) -> ToolCall:
    given = block.get("input")
    identity, name = text(block.get("id")), text(block.get("name")) or ""
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "")
    return ToolCall(identity, name, arguments(raw), raw)


def _result(value: Any) -> Any:
    return simple([_part(block) for block in value]) if isinstance(value, list) else content(value)


def simple(parts: list[Part]) -> Any:
    """Plain text where that is all there is; None for nothing."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"} and isinstance(parts[0]["text"], str):
        return parts[0]["text"]
    return parts or None


def system_message(value: Any) -> Message | None:
    """The system prompt: text, or blocks of text."""
    said = _result(value)
    return Message("system", said) if said else None


def _part(block: Any) -> Part:
    if not isinstance(block, dict):
        return {"type": "text", "text": str(content(block) or "")}
    kind, source = block.get("type"), mapping(block.get("source"))
    if kind == "text":
        return {"type": "text", "text": string(block.get("text")) or ""}
    if kind == "image" and source:
        return image_part(_place(source), media_type=string(source.get("media_type")))
    if kind == "document" and source.get("type") in ("base64", "url", "file"):
        about = {key: string(block.get(key)) for key in ("title", "context")}
        return file_part(_place(source), "document", media_type=string(source.get("media_type")), **about)
    return block


def _place(source: Mapping[str, Any]) -> str:
    """Data as its hash; a URL; or the id of a file that the server has."""
    if source.get("type") == "base64":
        return data_reference(source.get("data"))
    return reference(source.get("url")) or f"file:{text(source.get('file_id')) or ''}"


def anthropic_usage(value: Any, cost: Any = None) -> Usage | None:
    """Tokens of one call: Anthropic's input excludes what was read from and written to the cache, ours includes it."""
    given = mapping(value)
    fresh, read, written = (
        whole(given.get(key)) for key in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    prompt = None if fresh is None else fresh + (read or 0) + (written or 0)
    money = float(cost) if isinstance(cost, (int, float)) and not isinstance(cost, bool) else None
    result = Usage(prompt, whole(given.get("output_tokens")), read, money)
    return None if result == Usage() else result
