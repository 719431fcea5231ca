"""Records as compact JSON and back, exactly; unlike `codec` nothing is normalised. Standard library only.

Two kinds of text, two rules, because PostgreSQL stores neither NUL nor lone surrogates:

* JSON columns restore every value exactly: both are escapes there (`\\u0000`, `\\ud800`). JSON knows no NaN and no
  infinity, so a non-finite float inside free JSON is stored as the text "NaN", "Infinity" or "-Infinity".
* Plain text columns (ids, names, paths, keys) and numbers: NUL and lone surrogates become U+FFFD, NaN becomes NULL.

A field that has its default is left out, so that None and "" stay apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .arguments import call_arguments
from .codec import tokens_from, tokens_to_dict
from .errors import StoreError
from .records import Message, Score, Step, ToolCall, Usage

Row = dict[str, Any]
"""Column names to values, to be written."""

_MESSAGE_FIELDS = ("role", "content", "reasoning", "tool_call_id", "name", "requestor")
_STEP_TEXTS = ("started_at", "ended_at", "model")
_USAGE_FIELDS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")


def dumps(value: Any) -> str:
    """Compact JSON that both databases can store. Raises StoreError for what is not JSON, naming the type."""
    try:
        try:
            text = _encode(value)
        except ValueError:
            text = _encode(_finite(value))
        return text if _storable(text) else json.dumps(json.loads(text), separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as cause:
        raise StoreError(f"a value cannot be stored as JSON: {cause}") from cause


def loads(text: str | None) -> Any:
    """The value of a JSON column; None for NULL."""
    return None if text is None else json.loads(text)


def clean(text: str | None) -> str | None:
    """A plain text column's value: NUL and lone surrogates become U+FFFD."""
    if text is None or (_storable(text) and "\x00" not in text):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def number(value: float | None) -> float | None:
    """A number column's value: NaN, which is no verdict, becomes NULL."""
    return None if value is None or value != value else value


def _number(value: float | str | None) -> float | None:
    """The inverse of what `_finite` made of an infinity; a logarithm of 0 is one."""
    return float(value) if isinstance(value, str) else value


def _storable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


# Made once: building an encoder costs more than encoding a message. A cycle ends in RecursionError.
_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, default=_plain
).encode


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return [_finite(item) for item in value]
    return value


def _call_to_json(call: ToolCall) -> Row:
    """OpenAI's shape; arguments are the text as logged, or the object where the log has one. Where text and object are
    not of one meaning, both are kept."""
    raw = call.arguments_raw
    row: Row = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    if raw is not None:
        row["function"]["arguments"] = raw
        if call_arguments(raw) != call.arguments:
            row["parsed"] = call.arguments
    return row


def _call_from_json(row: Mapping[str, Any]) -> ToolCall:
    """The inverse; archives of version 1 hold calls flat."""
    body = row.get("function", row)
    given = body.get("arguments")
    if isinstance(given, str):
        parsed = row["parsed"] if "parsed" in row else call_arguments(given)
        return ToolCall(row.get("id"), body["name"], parsed, given)
    return ToolCall(row.get("id"), body["name"], given, row.get("arguments_raw"))


def message_to_json(message: Message) -> Row:
    """All of a message; unlike `codec.message_to_dict` nothing is normalised on the way."""
    row: Row = {"role": message.role}  # written out: a loop over names takes three times as long, and this is hot
    if message.content is not None:
        row["content"] = message.content
    if message.reasoning is not None:
        row["reasoning"] = message.reasoning
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        row["name"] = message.name
    if message.requestor is not None:
        row["requestor"] = message.requestor
    if message.is_error:
        row["is_error"] = True
    if message.tool_calls:
        row["tool_calls"] = [_call_to_json(call) for call in message.tool_calls]
    return row


def message_from_json(row: Mapping[str, Any]) -> Message:
    """The inverse of `message_to_json`; plain logged messages, with what else they hold, are read as well."""
    calls = tuple(map(_call_from_json, row.get("tool_calls") or ()))
    named: dict[str, Any] = {name: row.get(name) for name in _MESSAGE_FIELDS}
    return Message(**named, tool_calls=calls, is_error=row.get("is_error", False))


def usage_to_json(usage: Usage | None) -> Row | None:
    """The known fields; None for no usage at all."""
    if usage is None:
        return None
    known = {name: number(getattr(usage, name)) for name in _USAGE_FIELDS}
    return {name: value for name, value in known.items() if value is not None}


def usage_from_json(row: Mapping[str, Any] | None) -> Usage | None:
    """The inverse of `usage_to_json`."""
    return None if row is None else Usage(**{**row, "cost_usd": _number(row.get("cost_usd"))})


def score_to_json(score: Score) -> Row:
    """All of a score."""
    row: Row = {"value": number(score.value)}
    if score.abstain:
        row["abstain"] = True
    if score.error is not None:
        row["error"] = score.error
    if score.detail:
        row["detail"] = score.detail
    return row


def score_from_json(row: Mapping[str, Any]) -> Score:
    """The inverse of `score_to_json`."""
    return Score(_number(row["value"]), row.get("abstain", False), row.get("error"), row.get("detail", {}))


def scores_to_text(scores: Mapping[str, Score]) -> str | None:
    """Named scores as a JSON column; NULL for none."""
    return dumps({name: score_to_json(score) for name, score in scores.items()}) if scores else None


def scores_from_text(text: str | None) -> dict[str, Score]:
    """The inverse of `scores_to_text`."""
    return {name: score_from_json(row) for name, row in loads(text).items()} if text else {}


def step_to_json(step: Step) -> Row:
    """All of a step, as nodes keep it."""
    rest = {name: text for name in _STEP_TEXTS if (text := getattr(step, name)) is not None}
    if step.tokens is not None:
        rest["tokens"] = tokens_to_dict(step.tokens)
    return {
        "index": step.index,
        "action": message_to_json(step.action),
        "observations": [message_to_json(message) for message in step.observations],
        "fidelity": step.fidelity,
        "usage": usage_to_json(step.usage),
        "logprob": number(step.logprob),
        "scores": {name: score_to_json(score) for name, score in step.scores.items()},
        **rest,
    }


def step_from_json(row: Mapping[str, Any]) -> Step:
    """The inverse of `step_to_json`."""
    return Step(
        index=row["index"],
        action=message_from_json(row["action"]),
        observations=tuple(message_from_json(message) for message in row["observations"]),
        fidelity=row["fidelity"],
        usage=usage_from_json(row["usage"]),
        logprob=_number(row["logprob"]),
        scores={name: score_from_json(score) for name, score in row["scores"].items()},
        **{name: row[name] for name in _STEP_TEXTS if name in row},
        tokens=tokens_from(row.get("tokens")),
    )
