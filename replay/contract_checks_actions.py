"""Actions to try a world with: simple valid arguments from JSON schemas, and what is wrong with them on purpose.

Values that the world has shown under a property's name are tried first, so that ids and names are real ones.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..storage.records import Message, ToolCall, ToolSchema

MAX_DEPTH = 6
"""Levels of a schema that are filled in; deeper ones get their emptiest value."""
UNKNOWN_TOOL = "ttc_check_no_such_tool"
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_WRONG: dict[str, Any] = {
    "string": 7,
    "integer": "seven",
    "number": "seven",
    "boolean": "maybe",
    "array": 7,
    "object": 7,
}


class Facts:
    """Values by key, as the world has shown them in JSON answers."""

    def __init__(self) -> None:
        self._seen: dict[str, list[Any]] = {}

    def note(self, messages: Sequence[Message]) -> None:
        """Remember what these say."""
        for message in messages:
            try:
                self._collect(json.loads(message.text))
            except (ValueError, RecursionError):
                continue

    def _collect(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                self._collect(item)
        elif isinstance(value, dict):
            for key, item in value.items():
                known = self._seen.setdefault(key, [])
                if not isinstance(item, (dict, list)) and item not in known:
                    known.append(item)
                self._collect(item)

    def of(self, key: str, kind: str | None) -> list[Any]:
        """Values of a key that are of a JSON type, in the order of first sight."""
        return [value for value in self._seen.get(key, ()) if kind is None or _is(value, kind)]


def _is(value: Any, kind: str) -> bool:
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    types: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "null": type(None)}
    return kind in types and isinstance(value, types[kind])


def function_of(tool: ToolSchema) -> Mapping[str, Any]:
    """Name, description and parameters, however the schema is wrapped."""
    inner: Mapping[str, Any] = tool.get("function", tool)
    return inner


def calling(name: str, arguments: Mapping[str, Any] | None, number: int, raw: str | None = None) -> Message:
    """An action of one call."""
    return Message("assistant", "", tool_calls=(ToolCall(f"call_check_{number}", name, arguments, raw),))


def candidates(tools: Sequence[ToolSchema], facts: Facts, turn: int) -> Iterator[Message]:
    """One action for each tool: the required arguments in even turns, all in odd ones."""
    for at, tool in enumerate(tools):
        function = function_of(tool)
        schema = function.get("parameters") or {}
        arguments = sample(schema, facts, turn, every=bool(turn % 2))
        yield calling(str(function["name"]), arguments if isinstance(arguments, dict) else {}, turn * len(tools) + at)


def wrong_actions(tools: Sequence[ToolSchema]) -> Iterator[tuple[str, Message]]:
    """(what is wrong, the action): nothing given, wrong types, an unknown argument, no JSON object."""
    count = itertools.count(1000)
    for tool in tools:
        function = function_of(tool)
        name, schema = str(function["name"]), function.get("parameters") or {}
        if schema.get("required"):
            yield f"{name} without arguments", calling(name, {}, next(count))
        if properties := schema.get("properties") or {}:
            wrong = {key: _wrong_value(inner) for key, inner in properties.items()}
            yield f"{name} with arguments of wrong types", calling(name, wrong, next(count))
        valid = sample(schema, Facts(), 0)
        extra = {**(valid if isinstance(valid, dict) else {}), "ttc_check_unknown": 1}
        yield f"{name} with an unknown argument", calling(name, extra, next(count))
        yield f"{name} with arguments that are no JSON object", calling(name, None, next(count), "[1, 2")


def _wrong_value(schema: Any) -> Any:
    kind = _type(schema) if isinstance(schema, Mapping) else None
    return _WRONG.get(kind or "string", 7)


def sample(schema: Any, facts: Facts, turn: int = 0, *, every: bool = False, name: str = "", depth: int = 0) -> Any:
    """A simple value that the schema allows, as far as this goes; `turn` varies it, `every`: optional properties too.

    `pattern`, `not` and conditions are not looked at: give `examples` where they matter.
    """
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return {} if depth > MAX_DEPTH else "a"
    if (fixed := _fixed(schema, turn)) is not None:
        return fixed
    for key in ("anyOf", "oneOf"):
        if options := schema.get(key):
            return sample(options[turn % len(options)], facts, turn, every=every, name=name, depth=depth + 1)
    if parts := schema.get("allOf"):
        schema = _joined(schema, parts)
    kind = _type(schema)
    if seen := facts.of(name, kind):
        return seen[turn % len(seen)]
    if kind == "object":
        return _object(schema, facts, turn, every=every, depth=depth)
    if kind == "array":
        length = max(int(schema.get("minItems", 1)), 1 if every else 0)
        inner = schema.get("items", {})
        return [sample(inner, facts, turn + at, every=every, name=name, depth=depth + 1) for at in range(length)]
    return _scalar(schema, kind, turn)


def _fixed(schema: Mapping[str, Any], turn: int) -> Any:
    """A value that the schema itself names."""
    if "const" in schema:
        return schema["const"]
    for key in ("enum", "examples"):
        if isinstance(values := schema.get(key), (list, tuple)) and values:
            return values[turn % len(values)]
    return schema.get("default")


def _joined(schema: Mapping[str, Any], parts: Sequence[Any]) -> dict[str, Any]:
    joined: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        for key, value in part.items():
            both = {**joined.get(key, {}), **value} if key == "properties" else value
            joined[key] = [*joined.get(key, []), *value] if key == "required" else both
    return joined


def _type(schema: Mapping[str, Any]) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, (list, tuple)):
        kind = next((item for item in kind if item != "null"), "null")
    if kind is None and ("properties" in schema or "required" in schema):
        return "object"
    return None if kind is None else str(kind)


def _object(schema: Mapping[str, Any], facts: Facts, turn: int, *, every: bool, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    wanted = properties if every else [key for key in schema.get("required") or () if key in properties]
    return {key: sample(properties[key], facts, turn, every=every, name=key, depth=depth + 1) for key in wanted}


def _scalar(schema: Mapping[str, Any], kind: str | None, turn: int) -> Any:
    if kind == "boolean":
        return turn % 2 == 0
    if kind == "null":
        return None
    if kind in ("integer", "number"):
        return _number(schema, turn)
    text = _FORMATS.get(str(schema.get("format")), "ab"[turn % 2])
    text = text.ljust(int(schema.get("minLength", 0)), "a")
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _number(schema: Mapping[str, Any], turn: int) -> int | float:
    """One of the first three numbers in the schema's range, in steps of `multipleOf`, else of 1."""
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    first = step if low is None else math.ceil(low / step) * step if "multipleOf" in schema else low
    if low is not None and first == low and "minimum" not in schema:
        first += step
    room = 2 if high is None else math.floor((high - first) / step)
    if high is not None and "maximum" not in schema and first + room * step == high:
        room -= 1
    if low is None and room < 0:
        first, room = first + step * room, 0
    if room < 0 and high is not None and low is not None:
        return float(low + high) / 2
    value = first + step * (turn % (min(room, 2) + 1))
    return int(value) if float(value).is_integer() else float(value)
