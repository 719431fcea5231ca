"""Spans as every OpenTelemetry-like format has them, and their making from OTLP's own JSON (plain dicts, no protobuf).

Ids are opaque text, so OTLP's hex ids need no decoding. Field names may be camelCase or snake_case, as in every JSON
form of a protobuf message. A value of an unexpected type is taken as absent; what a span cannot do without is its
trace and its own id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from .chat import listing, mapping, string, unparsed
from .json_text import wrong_shape
from .otlp_names import CHOICE_EVENT, DETAILS_EVENT, EVENT_ROLES, EXCEPTION_EVENT, INPUT_VALUES, Kind, first, kind_of

_LAST_NANO = 253_402_300_799 * 10**9  # the end of the year 9999
_CONTEXT = ("gen_ai.", "session.", "error.")  # what log records say of the call they belong to
_OF_CALLS = frozenset((*EVENT_ROLES, CHOICE_EVENT, DETAILS_EVENT))
_KEPT = 8  # conversations that may run side by side
_HEX = re.compile(r"[0-9a-f]+")
_FAILED = (2, "2", "STATUS_CODE_ERROR", "ERROR")


@dataclass(slots=True, eq=False)
class Event:
    """Something inside a span: a span event, or a log record that names the span. `values`: attributes and body."""

    name: str
    time: int | None
    values: dict[str, Any]


@dataclass(slots=True, eq=False)
class Span:
    """One span. Times are nanoseconds since 1970; ids hold the trace, because they are unique within it only.

    `record` and `logs`: what of the file it and the log records inside it are, for the raw record.
    """

    trace: str
    id: str
    parent: str | None
    name: str
    kind: Kind
    start: int | None
    end: int | None
    attributes: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    error: str | None = None
    agent: str | None = None
    service: str | None = None
    record: Any = None
    line: int | None = None
    logs: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A log record as an event, and the span and the trace it belongs to. `record`: what of the file it is."""

    trace: str
    span: str
    event: Event
    record: Any
    line: int | None


def span_of(value: Mapping[str, Any], trace: str, own: str, above: str, **fields: Any) -> Span:
    """A span with what a record of any exporter's says under the same name, and what follows from `fields`."""
    parent = qualified(trace, above) if above else None
    name = string(value.get("name")) or ""
    span = Span(trace=trace, id=qualified(trace, own), parent=parent, name=name, kind="other", **fields)
    complete(span)
    return span


def complete(span: Span) -> None:
    """Fill in what follows from a span's attributes and events: kind, agent, error type."""
    for name in [name for name in span.attributes if name.startswith("mlflow.")]:
        span.attributes[name] = unparsed(span.attributes[name])  # MLflow encodes every value as JSON, exported or not
    span.kind = kind_of(span.attributes)
    names = span.attributes
    span.agent = string(first(names, "agent"))
    if span.agent is None and span.kind == "agent":
        span.agent = string(first(names, "entity")) or span.name.removeprefix("invoke_agent ") or None
    if span.error is not None:
        span.error = _error(span)
    elif span.attributes.get("error.type"):
        span.error = string(span.attributes["error.type"]) or "error"


def _error(span: Span) -> str:
    """Class and message, as far as they are known: `TimeoutError: no answer`."""
    told = [span.attributes, *(event.values for event in span.events if event.name == EXCEPTION_EVENT)]
    kinds = [found for values in told if (found := string(first(values, "error")))]
    texts = [found for values in told if (found := string(values.get("exception.message")))]
    message = span.error or next(iter(texts), "")
    kind = next(iter(kinds), "")
    return message if not kind or message.startswith(kind) else ": ".join(part for part in (kind, message) if part)


def nanoseconds(value: Any) -> int | None:
    """A time of OTLP: an integer, or its decimal text. 0 and what is beyond the year 9999 is unknown."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LAST_NANO:
        return None
    return value


def iso(nanos: int | None) -> str | None:
    """ISO 8601 in UTC, to the microsecond."""
    if nanos is None:
        return None
    seconds, rest = divmod(nanos, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest // 1000:06d}Z" if rest >= 1000 else text + "Z"


def from_iso(value: Any) -> int | None:
    """Nanoseconds of an ISO 8601 text (without a zone: UTC) or of a number of them; None for anything else."""
    if not isinstance(value, str):
        return nanoseconds(value)
    try:
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return nanoseconds(round(moment.timestamp() * 10**6) * 1000)
    except (ValueError, OverflowError):
        return None


def any_value(value: Any) -> Any:
    """The Python value of an OTLP AnyValue; None for one that is empty, or is not one."""
    if not isinstance(value, dict):
        return None
    for name, content in value.items():
        reader = _VALUES.get(name)
        if reader is not None:
            return reader(content)
    return None


def _integer(content: Any) -> int | None:
    if isinstance(content, str) and len(content) < 21:
        try:
            return int(content)
        except ValueError:
            return None
    return content if isinstance(content, int) and not isinstance(content, bool) else None


def _double(content: Any) -> float | int | None:
    return content if isinstance(content, (int, float)) and not isinstance(content, bool) else None


def _array(content: Any) -> list[Any]:
    return [any_value(item) for item in listing(mapping(content).get("values"))]


def _pairs(content: Any) -> dict[str, Any]:
    return attributes_of(mapping(content).get("values"))


_VALUES = {
    "stringValue": string,
    "intValue": _integer,
    "doubleValue": _double,
    "boolValue": lambda content: content if isinstance(content, bool) else None,
    "arrayValue": _array,
    "kvlistValue": _pairs,
    "bytesValue": string,  # base64 text in JSON
}
_VALUES |= {
    "string_value": string,
    "int_value": _integer,
    "double_value": _double,
    "bool_value": _VALUES["boolValue"],
    "array_value": _array,
    "kvlist_value": _pairs,
    "bytes_value": string,
}


class Repeated:
    """Converts the lists of messages that one span after another repeats, each element once."""

    def __init__(self) -> None:
        self._seen: list[tuple[list[Any], list[Any]]] = []

    def read(self, value: Any) -> Any:
        """As `any_value`; elements that are as they were last time are the same objects again."""
        given = mapping(field_of(value, "arrayValue", "array_value")).get("values")
        if not isinstance(given, list):
            return any_value(value)
        before = next((seen for seen in self._seen if seen[0] and given[: len(seen[0])] == seen[0]), None)
        done = [] if before is None else before[1]
        found = [*done, *(any_value(item) for item in given[len(done) :])]
        if before is not None:
            self._seen.remove(before)
        self._seen.insert(0, (given, found))
        del self._seen[_KEPT:]
        return found


def attributes_of(pairs: Any, repeated: Repeated | None = None) -> dict[str, Any]:
    """OTLP's list of {key, value} as a dict; of a key that stands twice the last value holds."""
    found: dict[str, Any] = {}
    for pair in listing(pairs):
        if not isinstance(pair, dict):
            continue
        key, value = pair.get("key"), pair.get("value")
        if not isinstance(key, str) or not isinstance(value, dict):
            continue
        text = value.get("stringValue")  # by far the most frequent
        if isinstance(text, str):
            found[key] = text
        elif repeated is not None and key in INPUT_VALUES:
            found[key] = repeated.read(value)
        else:
            found[key] = any_value(value)
    return found


def field_of(value: Mapping[str, Any], *names: str) -> Any:
    """The first of several spellings of a field that is there."""
    for name in names:
        found = value.get(name)
        if found is not None:
            return found
    return None


def otlp_span(value: Any, service: str | None, record: Any, line: int | None, repeated: Repeated | None = None) -> Span:
    """A span of OTLP. Raises BadRecord when it has no ids."""
    if not isinstance(value, dict):
        raise wrong_shape("a span is an object")
    trace = identifier(field_of(value, "traceId", "trace_id"))
    own = identifier(field_of(value, "spanId", "span_id"))
    if not trace or not own:
        raise wrong_shape("a span without traceId or spanId")
    status = mapping(value.get("status"))
    code = status.get("code")
    failed = isinstance(code, (int, str)) and code in _FAILED
    above = identifier(field_of(value, "parentSpanId", "parent_span_id"))
    return span_of(
        value,
        trace,
        own,
        above,
        start=nanoseconds(field_of(value, "startTimeUnixNano", "start_time_unix_nano")),
        end=nanoseconds(field_of(value, "endTimeUnixNano", "end_time_unix_nano")),
        attributes=attributes_of(value.get("attributes"), repeated),
        events=list(_events(value.get("events"))),
        error=(string(status.get("message")) or "") if failed else None,
        service=service,
        record=record,
        line=line,
    )


def qualified(trace: str, span: str) -> str:
    """The id of a span among those of several traces."""
    return f"{trace}/{span}"


def identifier(value: Any) -> str:
    """A span or trace id: hex is the same in upper and lower case, anything else is taken as it is."""
    return _identifier(value) if isinstance(value, str) else ""


@lru_cache(maxsize=4096)
def _identifier(value: str) -> str:
    if not value.strip("0"):
        return ""
    lower = value.lower()
    return lower if _HEX.fullmatch(lower) else value


def _events(values: Any) -> Iterator[Event]:
    for value in listing(values):
        if isinstance(value, dict):
            time = nanoseconds(field_of(value, "timeUnixNano", "time_unix_nano"))
            yield Event(string(value.get("name")) or "", time, attributes_of(value.get("attributes")))


def otlp_log(value: Any, record: Any, line: int | None, repeated: Repeated | None = None) -> LogRecord:
    """A log record as an event of its span. One without a trace belongs to its conversation. Raises BadRecord when it
    names neither.
    """
    if not isinstance(value, dict):
        raise wrong_shape("a log record is an object")
    values = attributes_of(value.get("attributes"), repeated)
    name = string(field_of(value, "eventName", "event_name")) or string(values.get("event.name")) or ""
    session = string(first(values, "session"))
    trace = identifier(field_of(value, "traceId", "trace_id")) or (f"session:{session}" if session else "")
    if not trace:
        raise wrong_shape("a log record without traceId")
    body = any_value(value.get("body"))
    body = unparsed(body) if isinstance(body, str) and body[:1] in ("{", "[") else body
    values |= body if isinstance(body, dict) else {"content": body} if isinstance(body, str) else {}
    time = nanoseconds(field_of(value, "timeUnixNano", "time_unix_nano"))
    if time is None:
        time = nanoseconds(field_of(value, "observedTimeUnixNano", "observed_time_unix_nano"))
    span = identifier(field_of(value, "spanId", "span_id"))
    return LogRecord(trace, qualified(trace, span), Event(name, time, values), record, line)


def with_logs(spans: list[Span], logs: list[LogRecord]) -> list[Span]:
    """The spans with the log records that belong to each; log records without a span are one, for each span id."""
    by_id = {span.id: span for span in spans}
    made: dict[str, Span] = {}
    for log in logs:
        span = by_id.get(log.span) or made.get(log.span)
        if span is None:
            span = made[log.span] = Span(log.trace, log.span, None, "", "other", None, None, {}, line=log.line)
        span.events.append(log.event)
        span.logs.append(log.record)
    for span in made.values():
        _complete(span)
    return [*spans, *made.values()]


def _complete(span: Span) -> None:
    """A span that is known from its log records only."""
    times = [event.time for event in span.events if event.time is not None]
    span.start, span.end = min(times, default=None), max(times, default=None)
    for event in span.events:
        span.attributes |= {name: value for name, value in event.values.items() if name.startswith(_CONTEXT)}
    complete(span)
    if any(event.name in _OF_CALLS for event in span.events):
        span.kind = "llm"
