"""Codex's items: messages, reasoning, calls and outputs, as they stand in rollouts, with or without an envelope."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..records import Message, Usage
from . import response_items
from .chat import content, mapping, string, text, unparsed, whole
from .response_items import call_of, parts_of
from .talk import Content, Talk, simple

Item = Mapping[str, Any]
ITEM_TYPES = ("message", "reasoning")
_INJECTED = re.compile(
    r"\s*(<(environment_context|user_instructions|permissions|turn_aborted|INSTRUCTIONS)\b|# AGENTS\.md)"
)
_EXIT_CODE = re.compile(r"\A(?:.*\n){0,4}?(?:Exit code:|Process exited with code) (\d+)")


def is_call(kind: Any) -> bool:
    """Whether an item of this type is a call, of a tool of whoever's."""
    return isinstance(kind, str) and kind.endswith("_call")


def is_output(kind: Any) -> bool:
    """Whether an item of this type is a tool's output."""
    return response_items.is_output(kind) or kind == "tool_result"


def is_item(row: Item) -> bool:
    """Whether the object is an item by itself, as very old files have them."""
    is_old_output = row.get("type") == "tool_result" and "payload" not in row and ("call_id" in row or "id" in row)
    return is_old_output or response_items.is_item(row)


def is_prompt(item: Item) -> bool:
    """Whether the item is what a user typed, not context that Codex put there."""
    if item.get("type") != "message" or item.get("role") != "user":
        return False
    return _INJECTED.match(message(item).text) is None


def message(item: Item) -> Message:
    """A message item; texts and images become parts."""
    return Message(string(item.get("role")) or "user", simple(parts_of(item.get("content"))))


def take(item: Item, talk: Talk, time: str | None, failed: Mapping[str, bool]) -> None:
    """Add one item to the conversation. `failed`: what the events say of the calls, by id. Others are left out."""
    kind = item.get("type")
    if kind == "message":
        _take_message(item, talk, time)
    elif kind == "reasoning":
        thoughts = [part["text"] for part in parts_of(item.get("summary")) if "text" in part]
        thoughts += [part["text"] for part in parts_of(item.get("content")) if "text" in part]
        talk.turn(time).thoughts.extend(str(thought) for thought in thoughts)
    elif is_call(kind):
        talk.call(call_of(item), time)
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
    talk.turn(time).parts.extend(parts_of(item.get("content")))


def output(value: Any) -> tuple[Content, bool]:
    """(what a tool answered, whether it says that it failed), from text, parts, or an object that says more."""
    if isinstance(value, list):
        return simple(parts_of(value)), False
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
