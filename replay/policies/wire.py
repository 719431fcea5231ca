"""What goes over the wire: OpenAI chat messages and tool schemas as strict servers want them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...storage.canonical import canonical_json
from ...storage.codec import message_to_dict
from ...storage.records import Message, ToolCall, ToolSchema


def wire_messages(messages: Sequence[Message], *, reasoning: bool) -> list[dict[str, Any]]:
    """OpenAI chat messages as strict servers want them.

    What the user's side did with tools is left out (the agent never saw it). Calls without an id get one, and results
    take theirs in order; a call that was never answered is answered "not executed"; arguments that are no JSON object
    go as `{"invalid": text}`.
    """
    rows: list[dict[str, Any]] = []
    open_ids: list[str] = []
    for message in messages:
        if message.requestor == "user":
            continue
        row = _wire_message(message, reasoning)
        if row["role"] == "tool":
            row.setdefault("tool_call_id", open_ids[0] if open_ids else "call_unknown")
            open_ids = [item for item in open_ids if item != row["tool_call_id"]]
        else:
            rows.extend(_unanswered(open_ids))
            open_ids = [
                call.setdefault("id", f"call_{len(rows)}_{place}")
                for place, call in enumerate(row.get("tool_calls", ()))
            ]
        rows.append(row)
    return _encodable(rows + _unanswered(open_ids))


def _encodable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lone surrogates, which logs hold and UTF-8 cannot, become U+FFFD."""
    text = json.dumps(rows, ensure_ascii=False, default=dict)
    if text.isascii():
        return rows
    clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    cleaned: list[dict[str, Any]] = json.loads(clean)
    return rows if clean == text else cleaned


def _unanswered(open_ids: Sequence[str]) -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": item, "content": "Error: not executed"} for item in open_ids]


def _wire_message(message: Message, reasoning: bool) -> dict[str, Any]:
    row = message_to_dict(message)
    row.pop("requestor", None)
    row.pop("is_error", None)
    if not reasoning:
        row.pop("reasoning_content", None)
    if row["role"] == "function":  # OpenAI's older name for it
        row["role"] = "tool"
    if message.tool_calls:
        row["tool_calls"] = [_wire_call(call) for call in message.tool_calls]
    elif row["content"] is None:
        row["content"] = ""
    return row


def _wire_call(call: ToolCall) -> dict[str, Any]:
    raw = call.arguments_raw
    if call.arguments is None:
        raw = canonical_json({"invalid": raw or ""})
    elif raw is None or not raw.strip():
        raw = canonical_json(call.arguments)
    row = {"type": "function", "function": {"name": call.name, "arguments": raw}}
    return row if call.id is None else {"id": call.id, **row}


def wire_tool(tool: ToolSchema) -> dict[str, Any]:
    """`{"type": "function", "function": ...}`, also from a bare function schema."""
    return dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}


def fold_seed(seed: int) -> int:
    """A 63-bit seed as 31 bits, which every server takes; all bits count."""
    return (seed ^ (seed >> 31) ^ (seed >> 62)) & 0x7FFFFFFF
