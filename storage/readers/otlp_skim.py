"""The first walk of a file: which traces it holds, how much of each, and which session each belongs to.

Of every record only ids, times and attribute names are decoded, by types; what does not fit these types (snake_case
names, Phoenix's spans, anything damaged) goes the way of the second walk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from .chat import string
from .json_text import BadRecord
from .otlp_names import FIELDS, first
from .otlp_spans import LogRecord, Span, any_value, identifier, nanoseconds

_SESSION = frozenset(FIELDS["session"])


@dataclass(frozen=True, slots=True)
class Seen:
    """A span or log record by its ids."""

    trace: str
    session: str | None
    time: int
    size: int


class _Pair(msgspec.Struct):
    key: str = ""
    value: msgspec.Raw = msgspec.Raw(b"{}")


class _Leaf(msgspec.Struct):
    """A span or a log record."""

    traceId: str = ""
    spanId: str = ""
    startTimeUnixNano: str | int = 0
    timeUnixNano: str | int = 0
    attributes: list[_Pair] = []


class _Scope(msgspec.Struct):
    spans: list[_Leaf] = []
    logRecords: list[_Leaf] = []


class _Element(msgspec.Struct):
    scopeSpans: list[_Scope] = []
    scopeLogs: list[_Scope] = []


class _Record(_Element):
    resourceSpans: list[_Element] = []
    resourceLogs: list[_Element] = []


_DECODE = msgspec.json.Decoder(_Record).decode


def skimmed(raw: bytes) -> list[Seen] | None:
    """What a record holds; None when that cannot be told so."""
    try:
        leaves = list(_leaves(_DECODE(raw)))
        if not leaves or not all(leaf.spanId and leaf.traceId for leaf in leaves):
            return None
        size = len(raw) // len(leaves)
        return [_seen(leaf, size) for leaf in leaves]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadRecord):
        return None


def _leaves(record: _Record) -> Iterator[_Leaf]:
    for element in (record, *record.resourceSpans, *record.resourceLogs):
        for scope in (*element.scopeSpans, *element.scopeLogs):
            yield from scope.spans
            yield from scope.logRecords


def _seen(leaf: _Leaf, size: int) -> Seen:
    time = nanoseconds(leaf.startTimeUnixNano) or nanoseconds(leaf.timeUnixNano) or 0
    told: dict[str, Any] = {}
    for pair in leaf.attributes:
        if pair.key in _SESSION:
            told[pair.key] = any_value(msgspec.json.decode(pair.value))
    return Seen(identifier(leaf.traceId), string(first(told, "session")) if told else None, time, size)


def seen(item: Span | LogRecord) -> Seen:
    """The same of what was read in full."""
    if isinstance(item, Span):
        values, time = item.attributes, item.start
    else:
        values, time = item.event.values, item.event.time
    size = sum(len(value) for value in values.values() if isinstance(value, str))
    return Seen(item.trace, string(first(values, "session")), time or 0, size)
