"""Typed parts of messages: OpenAI, Responses, Anthropic, Gemini, AI SDK and GenAI parts, told apart by their own keys.

Text, reasoning, calls and results become what the records have for them; images and files become references; any
other part is kept as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..records import JsonObject, Message, ToolCall
from .block_spellings import normal_part
from .chat import arguments, content, listing, mapping, string, text
from .media import data_reference, file_part, image_part, reference
from .talk import Content, simple, text_part

_TEXT = frozenset(("text", "input_text", "output_text", "summary_text"))
_REASONING = frozenset(("thinking", "reasoning"))
_CALLS = frozenset(("tool_use", "tool-call", "tool_call", "function_call", "toolCall", "server_tool_use"))
_RESULTS = frozenset(("tool_result", "tool-result", "tool_call_response", "function_call_output", "toolResult"))
_IMAGES = frozenset(("image", "image_url", "input_image"))
_FILES = frozenset(("file", "input_file", "document", "input_audio", "audio", "video", "blob", "uri"))


@dataclass(slots=True)
class Blocks:
    """What the parts of one message say."""

    parts: list[JsonObject] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)


def flat_call(identity: Any, name: Any, given: Any) -> ToolCall:
    """A call from its pieces; arguments that are text are kept exactly."""
    if isinstance(given, dict):
        return ToolCall(text(identity), text(name) or "", given)
    raw = given if isinstance(given, str) else "" if given is None else json.dumps(given, ensure_ascii=False)
    return ToolCall(text(identity), text(name) or "", arguments(raw), raw)


def content_of(value: Any) -> Content:
    """The content of a message or a result: its text when that is all of it, else parts."""
    if not isinstance(value, list):
        return content(value)
    if not all(isinstance(item, str) or "type" in mapping(item) or "text" in mapping(item) for item in value):
        return json.dumps(value, ensure_ascii=False)  # what a tool answered, not parts of a message
    return simple(read_blocks(value, nested=False).parts)


def block_message(role: str, value: Any) -> Message:
    """A message of `role`; results among its parts are left out (`block_messages` has them)."""
    if not isinstance(value, list):
        return Message(role, content(value))
    return _own_message(role, read_blocks(value))


def block_messages(role: str, value: Any) -> list[Message]:
    """The messages in one entry's content: its tool results, each by itself, then what else it says."""
    if not isinstance(value, list):
        return [Message(role, content(value))]
    blocks = read_blocks(value)
    own = _own_message(role, blocks)
    empty = own.content is None and not own.tool_calls and own.reasoning is None
    return [*blocks.results, *([] if empty and blocks.results else [own])]


def _own_message(role: str, blocks: Blocks) -> Message:
    return Message(role, simple(blocks.parts), "\n".join(blocks.reasoning) or None, tuple(blocks.calls))


def read_blocks(values: list[Any], nested: bool = True) -> Blocks:
    """Sort the parts of a list. `nested` False: calls and results are parts like any other (inside a result)."""
    found = Blocks()
    for item in values:
        if not isinstance(item, dict):
            found.parts.append(text_part(str(content(item) or "")))
            continue
        value = normal_part(item)
        if not (nested and (_take_call(value, found) or _take_result(value, found) or _take_reasoning(value, found))):
            found.parts.append(_part(value))
    return found


def _take_call(value: Mapping[str, Any], found: Blocks) -> bool:
    inner = value.get("function_call", value.get("functionCall"))
    if isinstance(inner, dict):  # Gemini
        found.calls.append(flat_call(inner.get("id"), inner.get("name"), inner.get("args")))
    elif string(value.get("type")) in _CALLS and value.keys() & {"name", "toolName", "tool_name"}:
        found.calls.append(typed_call(value))
    else:
        return False
    return True


def typed_call(value: Mapping[str, Any]) -> ToolCall:
    """A call whose id, name and arguments stand beside each other, however they are called."""
    given = next((value[key] for key in ("input", "arguments", "args", "parameters") if key in value), None)
    identity = next((value[key] for key in ("toolCallId", "call_id", "tool_call_id", "id") if value.get(key)), None)
    return flat_call(identity, value.get("toolName", value.get("tool_name", value.get("name"))), given)


def is_result(value: Mapping[str, Any]) -> bool:
    """Whether a part is a tool's result."""
    return string(normal_part(value).get("type")) in _RESULTS


def _take_result(value: Mapping[str, Any], found: Blocks) -> bool:
    inner = value.get("function_response", value.get("functionResponse"))
    if isinstance(inner, dict):  # Gemini
        found.results.append(_result(inner.get("id"), inner.get("name"), inner.get("response"), False))
    elif string(value.get("type")) in _RESULTS:
        found.results.append(typed_result(value))
    else:
        return False
    return True


def typed_result(value: Mapping[str, Any]) -> Message:
    """A tool result whose id, name and content stand beside each other, however they are called."""
    keys = ("toolCallId", "tool_use_id", "call_id", "tool_call_id", "id")
    identity = next((value[key] for key in keys if value.get(key)), None)
    given = next(
        (value[key] for key in ("content", "output", "result", "response") if value.get(key) is not None), None
    )
    failed = value.get("is_error") is True or value.get("isError") is True
    return _result(identity, value.get("toolName", value.get("tool_name", value.get("name"))), given, failed)


def _result(identity: Any, name: Any, given: Any, failed: bool) -> Message:
    wrapped = mapping(given)
    if wrapped.keys() == {"type", "value"}:  # AI SDK 5: {"type": "text" | "json" | "error-text", "value": ...}
        failed = failed or str(wrapped["type"]).startswith("error")
        given = wrapped["value"]
    return Message("tool", content_of(given), tool_call_id=text(identity), name=string(name), is_error=failed)


def _take_reasoning(value: Mapping[str, Any], found: Blocks) -> bool:
    if value.get("thought") is True and isinstance(value.get("text"), str):  # Gemini
        found.reasoning.append(value["text"])
        return True
    if string(value.get("type")) not in _REASONING:
        return False
    keys = ("thinking", "reasoning", "text", "content")
    said = next((value[key] for key in keys if isinstance(value.get(key), str)), None)
    for key in ("content", "summary") if said is None else ():
        parts = listing(value.get(key))
        said = said or "\n".join(item["text"] for item in parts if isinstance(mapping(item).get("text"), str))
    if said:
        found.reasoning.append(said)
    return True


def _part(value: Mapping[str, Any]) -> JsonObject:
    kind = string(value.get("type"))
    said = value.get("text", value.get("content") if kind == "text" else None)
    if isinstance(said, str) and (kind in _TEXT or value.get("type") is None):
        rest = {key: value[key] for key in value if key not in ("type", "text", "content", "annotations", "logprobs")}
        return {"type": "text", "text": said} | {key: rest[key] for key in rest if rest[key] not in (None, [], "")}
    inline = mapping(value.get("inline_data", value.get("inlineData")))
    if "data" in inline:
        return _media(inline.get("mime_type", inline.get("mimeType")), data_reference(inline["data"]))
    if kind in _IMAGES or kind in _FILES:
        return _media_part(kind or "", value)
    return value


def _media_part(kind: str, value: Mapping[str, Any]) -> JsonObject:
    """An image or a file; one that names no place or data is kept as it is."""
    source = mapping(value.get("source"))
    inner = value.get("image_url", value.get(kind))
    given = mapping(inner).get("url", mapping(inner).get("data", inner))
    options = (
        given,
        source.get("data"),
        source.get("url"),
        value.get("url"),
        value.get("data"),
        value.get("file_data"),
    )
    url = next((item for item in options if isinstance(item, str) and item), None)
    if url is None:
        return value
    about = source.get("media_type", value.get("mediaType", value.get("mime_type", value.get("mimeType"))))
    made = data_reference(url) if source.get("type") == "base64" else reference(url)
    return image_part(made, media_type=about) if kind in _IMAGES else file_part(made, "file", media_type=about)


def _media(about: Any, url: str) -> JsonObject:
    is_image = isinstance(about, str) and about.startswith("image/")
    return image_part(url, media_type=about) if is_image else file_part(url, "file", media_type=about)
