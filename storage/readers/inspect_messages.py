"""Messages and usage of Inspect in our terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..records import Message, ToolCall, Usage
from .chat import arguments, content, listing, mapping, number, string, text, whole
from .media import file_part, image_part, reference

_FILES = ("audio", "video", "document")


def inspect_message(value: Mapping[str, Any]) -> Message:
    """A message; a tool result that failed is marked, and says why where it has no content."""
    parts, reasoning = _content(value.get("content"))
    error = mapping(value.get("error"))
    role = string(value.get("role")) or "user"
    if error and not parts:
        parts = string(error.get("message")) or parts
    return Message(
        role=role,
        content=parts,
        reasoning=reasoning,
        tool_calls=tuple(_call(call) for call in listing(value.get("tool_calls")) if isinstance(call, dict)),
        tool_call_id=text(value.get("tool_call_id")) if role == "tool" else None,
        name=string(value.get("function")),
        is_error=bool(error),
    )


def _call(value: Mapping[str, Any]) -> ToolCall:
    given = value.get("arguments")
    identity, name = text(value.get("id")), text(value.get("function")) or ""
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "")
    return ToolCall(identity, name, arguments(raw), raw)


def _content(value: Any) -> tuple[Any, str | None]:
    """(text or parts, reasoning). Reasoning stands among the parts in Inspect; one part of text is plain text here."""
    if not isinstance(value, list):
        return content(value), None
    thoughts = [thought for part in value if (thought := _thought(part)) is not None]
    parts = [_part(part) for part in value if _kind(part) != "reasoning"]
    reasoning = "\n".join(filter(None, thoughts)) or None
    if all(part.keys() == {"type", "text"} for part in parts) and len(parts) < 2:
        return (parts[0]["text"] if parts else ""), reasoning
    return parts, reasoning


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


def _thought(part: Any) -> str | None:
    """A redacted thought has at most a summary that can be read."""
    if _kind(part) != "reasoning":
        return None
    return string(part.get("summary" if part.get("redacted") else "reasoning")) or ""


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        return {"type": "text", "text": str(content(part) or "")}
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": string(part.get("text")) or ""}
    if kind == "image":
        return image_part(reference(part.get("image")), detail=part.get("detail"))
    if kind in _FILES:
        about = {key: part[key] for key in ("format", "filename", "mime_type") if key in part}
        return file_part(reference(part.get(kind)), str(kind), **about)
    return dict(part)


def inspect_usage(value: Any) -> Usage | None:
    """Usage of one call or one model. Inspect's input excludes cached tokens, that of its oldest logs includes them:
    the total tells which.
    """
    given = mapping(value)
    fresh, answered, total = (whole(given.get(key)) for key in ("input_tokens", "output_tokens", "total_tokens"))
    read, written = whole(given.get("input_tokens_cache_read")), whole(given.get("input_tokens_cache_write"))
    prompt = fresh
    if fresh is not None:
        cached = (read or 0) + (written or 0)
        prompt = fresh if total is not None and total == fresh + (answered or 0) else fresh + cached
    cost = given.get("total_cost")
    result = Usage(prompt, answered, read, None if isinstance(cost, bool) else number(cost, "total_cost"))
    return None if result == Usage() else result


def summed_usage(values: Any) -> Usage | None:
    """The sum over the models of a sample's `model_usage`."""
    found = list(_each_usage(values))
    if not found:
        return None
    return Usage(
        _sum(usage.prompt_tokens for usage in found),
        _sum(usage.completion_tokens for usage in found),
        _sum(usage.cached_tokens for usage in found),
        _sum(usage.cost_usd for usage in found),
    )


def _each_usage(values: Any) -> Iterator[Usage]:
    for value in mapping(values).values():
        usage = inspect_usage(value)
        if usage is not None:
            yield usage


def _sum(values: Iterator[Any]) -> Any:
    """None when nothing is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
