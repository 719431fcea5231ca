"""Items of the Responses API as messages: what the agent says and calls until something comes back is one action."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..records import Message, ToolCall
from .chat import arguments, content, listing, mapping, string, text, unparsed, whole
from .media import data_reference, file_part, image_part, reference
from .talk import simple, text_part

CLIENT_CALLS = (
    "function_call",
    "custom_tool_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "computer_call",
)
"""Calls that whoever sent the request runs. Every other `..._call` was run by the server."""
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_GIVEN = ("arguments", "input", "action", "operation", "actions")
Item = Mapping[str, Any]


def is_output(kind: Any) -> bool:
    """Whether an item of this type is what came back from a call."""
    return isinstance(kind, str) and kind.endswith("_output")


def is_server_call(kind: Any) -> bool:
    """Whether an item of this type is a call that the server ran."""
    return isinstance(kind, str) and kind.endswith("_call") and kind not in CLIENT_CALLS


def is_message(item: Item) -> bool:
    """Whether the item is a message; the short form has no type."""
    return item.get("type") == "message" or ("type" not in item and isinstance(item.get("role"), str))


def is_item(value: Any) -> bool:
    """Whether the value has the shape of an item that only this API has."""
    item = mapping(value)
    kind = item.get("type")
    if kind == "message":
        return isinstance(item.get("role"), str) and "content" in item
    if kind == "reasoning":
        return "summary" in item
    is_known = kind in CLIENT_CALLS or is_server_call(kind) or is_output(kind)
    return is_known and ("call_id" in item or "id" in item) and "payload" not in item


def is_own(item: Item) -> bool:
    """Whether the agent (or its server) made the item."""
    kind = item.get("type")
    if is_message(item):
        return item.get("role") == "assistant"
    return kind == "reasoning" or kind in CLIENT_CALLS or is_server_call(kind)


def item_messages(items: Iterable[Any], names: dict[str, str]) -> Iterator[Message]:
    """The messages of a list of items. `names`: those of the tools called so far, by call id; new ones are added.
    Types that are no part of a conversation are left out: they stay in the raw record.
    """
    action: list[Item] = []
    for item in items:
        if not isinstance(item, dict):
            continue
        if is_own(item):
            action.append(item)
            continue
        if not is_message(item) and not is_output(item.get("type")):
            continue
        if action:
            yield _action(action, names)
            action = []
        yield _heard(item, names)
    if action:
        yield _action(action, names)


def _action(items: list[Item], names: dict[str, str]) -> Message:
    parts: list[dict[str, Any]] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for item in items:
        if is_message(item):
            parts.extend(parts_of(item.get("content")))
        elif item.get("type") == "reasoning":
            said = [*listing(item.get("summary")), *listing(item.get("content"))]
            thoughts.extend(found for part in said if (found := string(mapping(part).get("text"))))
        elif item.get("type") in CLIENT_CALLS:
            calls.append(call_of(item))
        else:
            parts.append({key: item[key] for key in item if key != "result" or not isinstance(item[key], str)})
    names.update({call.id: call.name for call in calls if call.id is not None})
    return Message("assistant", simple(parts), "\n".join(thoughts) or None, tuple(calls))


def call_of(item: Item) -> ToolCall:
    """A call: its own name, or that of its type; JSON arguments, free text, or an action."""
    inner = mapping(item.get("function"))
    name = text(item.get("name")) or text(inner.get("name")) or str(item.get("type")).removesuffix("_call")
    identity = text(item.get("call_id")) or text(item.get("id"))
    given = next((item[key] for key in _GIVEN if item.get(key) is not None), inner.get("arguments"))
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "") if not isinstance(given, list) else json.dumps(given, ensure_ascii=False)
    return ToolCall(identity, name, arguments(raw), raw)


def _heard(item: Item, names: Mapping[str, str]) -> Message:
    if is_message(item):
        return Message(string(item.get("role")) or "user", simple(parts_of(item.get("content"))))
    identity = text(item.get("call_id")) or text(item.get("id"))
    name = names.get(identity) if identity is not None else None
    return Message("tool", _output(item.get("output")), tool_call_id=identity, name=name, is_error=_failed(item))


def _output(value: Any) -> Any:
    """Text, parts, a screenshot; of anything else its JSON."""
    if isinstance(value, list) and all("type" in mapping(part) for part in value):
        return simple(parts_of(value))
    if mapping(value).get("type") == "computer_screenshot":
        return [part_of(value)]
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else content(value)


def _failed(item: Item) -> bool:
    """The API's own word, or an exit code of a shell."""
    given = unparsed(item.get("output"))
    outcomes = [mapping(mapping(part).get("outcome")) for part in listing(given)]
    codes = [whole(mapping(mapping(given).get("metadata")).get("exit_code"))]
    codes += [whole(outcome.get("exit_code")) for outcome in outcomes]
    timed_out = any(outcome.get("type") == "timeout" for outcome in outcomes)
    return item.get("status") in ("failed", "incomplete") or timed_out or any(code not in (None, 0) for code in codes)


def parts_of(value: Any) -> list[dict[str, Any]]:
    """Content, text or a list, as parts: images and files are references, unknown ones stay as they are."""
    if isinstance(value, str):
        return [text_part(value)]
    return [part_of(part) for part in listing(value)]


def part_of(part: Any) -> dict[str, Any]:
    """One part."""
    if not isinstance(part, dict):
        return text_part(str(content(part) or ""))
    kind = part.get("type")
    if kind in _TEXTS:
        return text_part(string(part.get("text")) or "")
    if kind == "refusal":
        return {"type": "refusal", "refusal": string(part.get("refusal")) or ""}
    if kind in ("input_image", "computer_screenshot"):
        return image_part(_place(part, "image_url"), detail=string(part.get("detail")))
    if kind == "input_file":
        return file_part(_place(part, "file_url"), "file", filename=string(part.get("filename")))
    if kind == "input_audio":
        sound = mapping(part.get("input_audio"))
        return file_part(data_reference(sound.get("data")), "audio", format=string(sound.get("format")))
    return part


def _place(part: Item, key: str) -> str:
    """A URL; data as its hash; or the id of a file that the server has."""
    if isinstance(part.get("file_data"), str):
        return reference(part["file_data"])
    return reference(part.get(key)) or f"file:{text(part.get('file_id')) or ''}"
