"""Parts of messages that name themselves by their keys, put into the shapes that `content_blocks` reads.

OpenInference's `message_content`, Bedrock (`toolUse`, `toolResult`), what users say to pydantic-ai (`kind`), and the
data parts of OpenTelemetry GenAI (`blob`, `uri`). Calls that the provider itself ran (`server_tool_call`) stay parts
of the message: nobody can run them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .chat import mapping, string


def _prompted(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """A piece of what a user says to pydantic-ai: a URL, or data."""
    kind = "image" if "image" in f"{item.get('kind')} {item.get('media_type')}" else "file"
    if "data" in item:
        return {"type": kind, "source": {"type": "base64", "data": item["data"], "media_type": item.get("media_type")}}
    return {"type": kind, "url": item.get("url")}


def normal_part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """One part; one that is known already, or of no known kind, as it is."""
    inner = part.get("message_content")
    if isinstance(inner, dict):
        return _open_inference(inner)
    kind = part.get("type")
    if kind is None:
        return _untyped(part)
    change = _TYPED.get(kind) if isinstance(kind, str) else None
    return change(part) if change is not None else part


def _open_inference(part: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("image", "audio", "video", "document"):
        url = mapping(mapping(part.get(name)).get(name)).get("url", mapping(part.get(name)).get("url"))
        if isinstance(url, str):
            return {"type": name, "url": url}
    return part


def _untyped(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bedrock's parts have one key and no type."""
    if "kind" in part and part.keys() & {"url", "data"}:
        return _prompted(part)
    call, result = part.get("toolUse"), part.get("toolResult")
    if isinstance(call, dict):
        return {"type": "tool_use", "id": call.get("toolUseId"), "name": call.get("name"), "input": call.get("input")}
    if isinstance(result, dict):
        failed = result.get("status") == "error"
        content = [_bedrock_answer(item) for item in result.get("content") or () if isinstance(item, dict)]
        only = content[0] if len(content) == 1 and content[0].keys() == {"type", "text"} else None
        said = only["text"] if only else content
        return {"type": "tool_result", "tool_use_id": result.get("toolUseId"), "content": said, "is_error": failed}
    thought = mapping(mapping(part.get("reasoningContent")).get("reasoningText")).get("text")
    if isinstance(thought, str):
        return {"type": "thinking", "thinking": thought}
    source = mapping(mapping(part.get("image")).get("source"))
    return {"type": "image", "source": {"type": "base64", "data": source["bytes"]}} if "bytes" in source else part


def _bedrock_answer(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "text", "text": item["text"]} if isinstance(item.get("text"), str) else item


def _data(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenTelemetry's inline data and URIs: `modality` says what they are."""
    kind = string(part.get("modality")) or "file"
    mime = string(part.get("mime_type"))
    kind = "image" if kind == "image" or (mime or "").startswith("image/") else "file"
    if part.get("type") == "uri":
        return {"type": kind, "url": part.get("uri"), "mime_type": mime}
    data = part.get("content", part.get("data"))
    return {"type": kind, "source": {"type": "base64", "data": data, "media_type": mime}} if data else part


def _refusal(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "text", "text": part.get("refusal")}


_TYPED: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "blob": _data,
    "uri": _data,
    "refusal": _refusal,
}
