"""Codex's items: messages, reasoning, calls and outputs, as they stand in rollouts, with or without an envelope."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..records import Message, ToolCall, Usage
from .chat import arguments, content, listing, mapping, string, text, unparsed, whole
from .media import image_part, reference
from .talk import Content, Talk, simple, text_part

Item = Mapping[str, Any]
ITEM_TYPES = ("message", "reasoning")
_INJECTED = re.compile(
    r"\s*(<(environment_context|user_instructions|permissions|turn_aborted|INSTRUCTIONS)\b|# AGENTS\.md)"
)
_EXIT_CODE = re.compile(r"\A(?:.*\n){0,4}?(?:Exit code:|Process exited with code) (\d+)")


def is_call(kind: Any) -> bool:
    """Whether an item of this type is a call."""
    return isinstance(kind, str) and kind.endswith("_call")


def is_output(kind: Any) -> bool:
    """Whether an item of this type is a tool's output."""
    return isinstance(kind, str) and (kind.endswith("_output") or kind == "tool_result")


def is_item(row: Item) -> bool:
    """Whether the object is an item by itself, as very old files have them."""
    kind = row.get("type")
    if kind == "message":
        return isinstance(row.get("role"), str) and "content" in row
    if kind == "reasoning":
        return "summary" in row
    return (is_call(kind) or is_output(kind)) and "payload" not in row and ("call_id" in row or "id" in row)


def is_prompt(item: Item) -> bool:
    """Whether the item is what a user typed, not context that Codex put there."""
    if item.get("type") != "message" or item.get("role") != "user":
        return False
    return _INJECTED.match(message(item).text) is None


def message(item: Item) -> Message:
    """A message item; texts and images become parts."""
    return Message(string(item.get("role")) or "user", simple(parts(item.get("content"))))


def parts(value: Any) -> list[dict[str, Any]]:
    """Content, text or a list, as parts: images are references, unknown ones stay as they are."""
    if isinstance(value, str):
        return [text_part(value)]
    return [_part(part) for part in listing(value)]


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        return text_part(str(content(part) or ""))
    if part.get("type") in ("input_text", "output_text", "text", "summary_text", "reasoning_text"):
        return text_part(str(content(part.get("text")) or ""))
    if part.get("type") == "input_image":
        url = part.get("image_url")
        return image_part(reference(url), detail=string(part.get("detail"))) if isinstance(url, str) else part
    return part


def take(item: Item, talk: Talk, time: str | None, failed: Mapping[str, bool]) -> None:
    """Add one item to the conversation. `failed`: what the events say of the calls, by id. Others are left out."""
    kind = item.get("type")
    if kind == "message":
        _take_message(item, talk, time)
    elif kind == "reasoning":
        thoughts = [part["text"] for part in parts(item.get("summary")) if "text" in part]
        thoughts += [part["text"] for part in parts(item.get("content")) if "text" in part]
        talk.turn(time).thoughts.extend(str(thought) for thought in thoughts)
    elif is_call(kind):
        talk.call(call(item), time)
    elif is_output(kind):
        identity = text(item.get("call_id")) or text(item.get("id"))
        shown, is_error = output(item.get("output", item.get("result")))
        is_error = failed.get(identity, is_error) if identity is not None else is_error
        talk.result(identity, shown, time, is_error=is_error, name=text(item.get("name")))


def _take_message(item: Item, talk: Talk, time: str | None) -> None:
    said = message(item)
    if said.role != "assistant":
        talk.hear(said, time)
        return
    if talk.turn(time).parts:  # another message is another answer
        talk.close()
    talk.turn(time).parts.extend(parts(item.get("content")))


def call(item: Item) -> ToolCall:
    """A call of any kind: its own name, or that of its type; JSON arguments, free text, or an action."""
    inner = mapping(item.get("function"))
    kind = str(item.get("type")).removesuffix("_call")
    name = text(item.get("name")) or text(inner.get("name")) or kind
    identity = text(item.get("call_id")) or text(item.get("id"))
    given = next((item[key] for key in ("arguments", "input", "action") if item.get(key) is not None), None)
    given = inner.get("arguments") if given is None else given
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "")
    return ToolCall(identity, name, arguments(raw), raw)


def output(value: Any) -> tuple[Content, bool]:
    """(what a tool answered, whether it says that it failed), from text, parts, or an object that says more."""
    if isinstance(value, list):
        return simple(parts(value)), False
    said = mapping(value)
    if "content" in said and ("success" in said or isinstance(said["content"], (str, list))):
        inner, _ = output(said["content"])
        return inner, said.get("success") is False
    known = said or mapping(unparsed(value)) if isinstance(value, (str, dict)) and _maybe_object(value) else said
    code = mapping(known.get("metadata")).get("exit_code", known.get("exit_code", known.get("exitCode")))
    if code is None and isinstance(value, str) and (found := _EXIT_CODE.match(value[:400])):
        code = int(found[1])
    shown = content(value)
    return (shown if isinstance(shown, str) or shown is None else str(shown)), whole(code) not in (None, 0)


def _maybe_object(value: Any) -> bool:
    return not isinstance(value, str) or value.lstrip()[:1] == "{"


def usage(value: Any) -> Usage | None:
    """OpenAI's count: the input holds the cached tokens, the output the reasoning."""
    given = mapping(value)
    result = Usage(
        whole(given.get("input_tokens", given.get("prompt"))),
        whole(given.get("output_tokens", given.get("completion"))),
        whole(given.get("cached_input_tokens")),
    )
    return None if result == Usage() else result
