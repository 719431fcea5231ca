"""Spans as Arize Phoenix exports them: `context.trace_id`, `parent_id`, ISO times, attributes nested or with dots.

Both forms are read: the API's objects (`context` and `attributes` are objects) and the data frame's rows, whose
columns are `context.trace_id`, `attributes.llm.model_name` and so on. Annotations beside a span are its scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .chat import listing, mapping, string
from .json_text import wrong_shape
from .otlp_spans import Event, Span, field_of, from_iso, identifier, span_of

_KIND = "openinference.span.kind"


def is_phoenix(value: Any) -> bool:
    """Whether an object is a span of Phoenix."""
    given = mapping(value)
    inside = mapping(given.get("context"))
    has_ids = "context.trace_id" in given or "trace_id" in inside
    return has_ids and ("span_kind" in given or "parent_id" in given)


def phoenix_span(value: Mapping[str, Any], line: int | None) -> Span:
    """The span. Raises BadRecord when it has no ids."""
    context = mapping(value.get("context"))
    trace = identifier(value.get("context.trace_id", context.get("trace_id")))
    own = identifier(value.get("context.span_id", context.get("span_id")))
    if not trace or not own:
        raise wrong_shape("a span without context.trace_id or context.span_id")
    above = identifier(value.get("parent_id"))
    attributes = dict(_flat("", mapping(value.get("attributes"))))
    columns = {name: value[name] for name in value if name.startswith("attributes.") and value[name] is not None}
    attributes |= dict(_flat("", {name.removeprefix("attributes."): found for name, found in columns.items()}))
    if string(value.get("span_kind")):
        attributes.setdefault(_KIND, value["span_kind"])
    attributes |= _annotations(value)
    failed = value.get("status_code") == "ERROR"
    return span_of(
        value,
        trace,
        own,
        above,
        start=from_iso(value.get("start_time")),
        end=from_iso(value.get("end_time")),
        attributes=attributes,
        events=list(_events(value.get("events"))),
        error=(string(value.get("status_message")) or "") if failed else None,
        record=value,
        line=line,
    )


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Nested objects and lists as names with dots and indices."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from _flat(f"{prefix}.{index}", inner)
    elif value is not None:
        yield prefix, value


def _annotations(value: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, item in enumerate(listing(value.get("annotations"))):
        result = mapping(mapping(item).get("result")) or mapping(item)
        for name, inner in {**result, "name": mapping(item).get("name")}.items():
            if inner is not None:
                found[f"annotations.{index}.annotation.{name}"] = inner
    return found


def _events(values: Any) -> Iterator[Event]:
    for value in listing(values):
        if isinstance(value, dict):
            attributes = dict(_flat("", mapping(value.get("attributes"))))
            yield Event(string(value.get("name")) or "", from_iso(field_of(value, "timestamp", "time")), attributes)
