"""Anthropic's messages and blocks as our messages: results are messages of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..records import Message, ToolCall, Usage
from .chat import arguments, content, mapping, string, text, whole
from .json_text import wrong_shape
from .media import data_reference, file_part, image_part, reference
from .talk import Content, simple, text_part

THOUGHTS = ("thinking", "redacted_thinking")
Part = dict[str, Any]


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
    calls = tuple(call_of(block) for block in blocks if kind_of(block) == "tool_use")
    names.update({call.id: call.name for call in calls if call.id is not None})
    thoughts = [string(block.get("thinking")) or "" for block in blocks if kind_of(block) == "thinking"]
    parts = [part_of(block) for block in blocks if kind_of(block) not in ("tool_use", *THOUGHTS)]
    return Message("assistant", simple(parts), "\n".join(filter(None, thoughts)) or None, calls)


def _heard(role: str, blocks: list[Any], names: Mapping[str, str]) -> Iterator[Message]:
    """Results, each by itself, and what is said around them."""
    parts: list[Part] = []
    for block in blocks:
        if kind_of(block) != "tool_result":
            parts.append(part_of(block))
            continue
        if parts:
            yield Message(role, simple(parts))
            parts = []
        identity = text(block.get("tool_use_id"))
        failed = block.get("is_error") is True
        name = names.get(identity) if identity is not None else None
        yield Message("tool", result_content(block.get("content")), tool_call_id=identity, name=name, is_error=failed)
    if parts or not blocks:
        yield Message(role, simple(parts))


def kind_of(block: Any) -> Any:
    """The type of a block; None for what is no block."""
    return block.get("type") if isinstance(block, dict) else None


def call_of(block: Mapping[str, Any]) -> ToolCall:
    """The call in a `tool_use` block."""
    given = block.get("input")
    identity, name = text(block.get("id")), text(block.get("name")) or ""
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "")
    return ToolCall(identity, name, arguments(raw), raw)


def result_content(value: Any) -> Content:
    """What a tool answered: text, or blocks as parts."""
    return simple([part_of(block) for block in value]) if isinstance(value, list) else content(value)


def system_message(value: Any) -> Message | None:
    """The system prompt: text, or blocks of text."""
    said = result_content(value)
    return Message("system", said) if said else None


def part_of(block: Any) -> Part:
    """A block as a part of a message: images and documents are references, unknown ones stay as they are."""
    if not isinstance(block, dict):
        return text_part(str(content(block) or ""))
    kind, source = block.get("type"), mapping(block.get("source"))
    if kind == "text":
        return text_part(string(block.get("text")) or "")
    if kind == "image" and source:
        return image_part(_place(source), media_type=string(source.get("media_type")))
    if kind == "document" and source.get("type") in ("base64", "url", "file"):
        about = {key: string(block.get(key)) for key in ("title", "context")}
        return file_part(_place(source), "document", media_type=string(source.get("media_type")), **about)
    return block


def _place(source: Mapping[str, Any]) -> str:
    """Data as its hash; a URL; or the id of a file that the server has."""
    if "data" in source:
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
    result = Usage(whole(prompt), whole(given.get("output_tokens")), read, money)
    return None if result == Usage() else result
