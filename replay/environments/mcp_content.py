"""What a Model Context Protocol server says, as the house's records: tool schemas and observations."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from ...storage.canonical import canonical_json
from ...storage.records import Message, ToolCall, ToolSchema


def schema_of(tool: Any) -> ToolSchema:
    """An OpenAI-style schema of a listed tool (`mcp.types.Tool`)."""
    function = {"name": tool.name, "description": tool.description or "", "parameters": dict(tool.input_schema)}
    return {"type": "function", "function": function}


def observation(call: ToolCall, result: Any) -> Message:
    """The observation of a call from an `mcp.types.CallToolResult`: the text of all parts, one below the other.

    Structured content stands in where there is no part. What is no text is named by type, size and hash: the bytes are
    not kept, and two equal pictures are equal observations.
    """
    text = "\n".join(part_text(part) for part in result.content)
    if not result.content and result.structured_content is not None:
        text = canonical_json(result.structured_content)
    return Message("tool", text, tool_call_id=call.id, name=call.name, is_error=bool(result.is_error))


def refusal(call: ToolCall, why: str) -> Message:
    """The observation of a call that was refused before any tool ran."""
    return Message("tool", f"Error: {why}", tool_call_id=call.id, name=call.name, is_error=True)


def part_text(part: Any) -> str:
    """One content part as text."""
    if part.type == "text":
        return str(part.text)
    if part.type in ("image", "audio"):
        return _reference(part.type, part.mime_type, part.data)
    if part.type == "resource_link":
        return f"[resource {part.uri}]"
    inner = part.resource
    text = getattr(inner, "text", None)
    return str(text) if text is not None else _reference("resource", inner.mime_type, inner.blob)


def _reference(kind: str, mime_type: str | None, data: str) -> str:
    try:
        raw = base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raw = data.encode("utf-8", "replace")
    return f"[{kind} {mime_type or 'of unknown type'}, {len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}]"
