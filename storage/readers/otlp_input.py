"""What an OTLP file holds, in its order: spans and log records, from JSON or from protobuf, a piece at a time.

JSON: one document, one request a line, a list of requests, of `resourceSpans` elements, or of bare spans. A document is
walked, never held whole. Field names may be camelCase or snake_case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from ..canonical import canonical_bytes
from ..limits import current
from ..records import Rejected
from .chat import listing, mapping, string
from .json_input import container_of, guarded, records, rewind
from .json_scan import Scanner, elements, keys
from .json_text import DUPLICATE_KEY, TOO_LONG, BadRecord, decode, too_long, wrong_shape
from .otlp_names import INPUT_INDEXED, INPUT_VALUES
from .otlp_phoenix import is_phoenix, phoenix_span
from .otlp_proto import is_protobuf, proto_parts
from .otlp_skim import Seen, seen, skimmed
from .otlp_spans import LogRecord, Repeated, Span, attributes_of, field_of, otlp_log, otlp_span

SPANS = ("resourceSpans", "resource_spans")
LOGS = ("resourceLogs", "resource_logs")
_SCOPE_SPANS = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")
_SCOPE_LOGS = ("scopeLogs", "scope_logs")
_LOG_RECORDS = ("logRecords", "log_records")
_LISTS = (*SPANS, *LOGS, "data")  # `data`: a page of Phoenix's API
_INPUT_PREFIXES = tuple(f"{prefix}." for prefix in INPUT_INDEXED)
_LEVELS = {
    **dict.fromkeys(SPANS, "resourceSpans"),
    **dict.fromkeys(LOGS, "resourceLogs"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file: an element of `resourceSpans` or `resourceLogs`, or (`span`) a span by itself."""

    name: str
    value: Any
    line: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A span or log record as it stands in the file, with what stands around it: for the raw record."""

    name: str
    resource: Mapping[str, Any]
    resource_key: bytes
    scope: Mapping[str, Any]
    scope_key: bytes
    value: Any


def leaves(stream: BinaryIO) -> Iterator[Span | LogRecord | Rejected]:
    """Every span and log record of a file, in order; what cannot be read comes as `Rejected` in its place."""
    repeated = Repeated()
    for text in _texts(stream):
        if isinstance(text, Rejected):
            yield text
            continue
        for part in _parts_of(text):
            yield from (part,) if isinstance(part, Rejected) else spans_of(part, repeated)


def glance(stream: BinaryIO) -> Iterator[Seen]:
    """What `leaves` will yield, by its ids only."""
    for text in _texts(stream):
        if isinstance(text, Rejected):
            continue
        found = skimmed(text.data) if isinstance(text, _Text) else None
        if found is not None:
            yield from found
            continue
        for part in _parts_of(text):
            for item in () if isinstance(part, Rejected) else spans_of(part, Repeated()):
                if not isinstance(item, Rejected):
                    yield seen(item)


@dataclass(frozen=True, slots=True)
class _Text:
    """The JSON text of a record, or of an element of the list `name`."""

    data: bytes
    line: int
    name: str = ""


def _texts(stream: BinaryIO) -> Iterator[_Text | Part | Rejected]:
    rewind(stream)
    if is_protobuf(stream.read(2**16)):
        return guarded(Part(name, value, None) for name, value in proto_parts(stream))
    if container_of(stream) == "document":
        return guarded(_document(stream))
    return _records(stream)


def _records(stream: BinaryIO) -> Iterator[_Text | Rejected]:
    for item in records(stream, lambda raw: raw):
        yield item if isinstance(item, Rejected) else _Text(item.value, item.line)


def _parts_of(text: _Text | Part) -> Iterator[Part | Rejected]:
    if isinstance(text, Part):
        yield text
        return
    try:
        value = decode(text.data)
    except BadRecord as error:
        yield Rejected(error.problem(text.line))
        return
    if text.name:
        yield Part(text.name, value, text.line)
    else:
        yield from _of_value(value, text.line)


def _of_value(value: Any, line: int | None) -> Iterator[Part]:
    names = [name for name in _LISTS if isinstance(mapping(value).get(name), list)]
    for name in names:
        for element in value[name]:
            yield Part(_LEVELS.get(name, "span"), element, line)
    if not names:
        yield Part(_level(value), value, line)


def _level(value: Any) -> str:
    """What a value by itself is: an element of a request, else a span."""
    given = mapping(value)
    if field_of(given, *_SCOPE_SPANS) is not None:
        return "resourceSpans"
    return "resourceLogs" if field_of(given, *_SCOPE_LOGS) is not None else "span"


def _document(stream: BinaryIO) -> Iterator[_Text | Part | Rejected]:
    """One document, or several one behind the other."""
    rewind(stream)
    scanner = Scanner(stream)
    while (begins := scanner.peek()) is not None:
        line = scanner.line
        if begins != "{":
            yield _Text(_whole(scanner.value(), line), line)
            continue
        rest: dict[str, Any] = {}
        listed = False
        for name in keys(scanner):
            at = scanner.line
            if name in _LISTS and scanner.peek() == "[":
                listed = True
                yield from _listed(_LEVELS.get(name, "span"), scanner)
            elif name in rest:
                raise BadRecord(DUPLICATE_KEY, f"key {name[:60]!a} twice in one object", at)
            else:
                rest[name] = _decoded(scanner.value(), at)
        if not listed:
            yield from _of_value(rest, line)


def _listed(name: str, scanner: Scanner) -> Iterator[_Text | Rejected]:
    for line, raw in elements(scanner):
        if raw is None:
            yield Rejected(too_long(current().line).problem(line))
        else:
            yield _Text(raw, line, name)


def _whole(raw: bytes | None, line: int) -> bytes:
    if raw is None:
        raise BadRecord(TOO_LONG, too_long(current().line).message, line)
    return raw


def _decoded(raw: bytes | None, line: int) -> Any:
    try:
        return decode(_whole(raw, line))
    except BadRecord as error:
        raise BadRecord(error.error_code, error.message, line) from None


def spans_of(part: Part, repeated: Repeated) -> Iterator[Span | LogRecord | Rejected]:
    """The spans and log records of a piece; one that has no ids is `Rejected`."""
    if part.name == "span":
        yield from _guarded(lambda: _lone_span(part), part.line)
        return
    is_spans = part.name == "resourceSpans"
    scopes, leaves = (_SCOPE_SPANS, ("spans",)) if is_spans else (_SCOPE_LOGS, _LOG_RECORDS)
    if not isinstance(part.value, dict):
        yield Rejected(wrong_shape(f"an element of {part.name} is no object").problem(part.line))
        return
    around = _without(part.value, scopes)
    around_key = canonical_bytes(around)
    resource = attributes_of(mapping(around.get("resource")).get("attributes"))
    service = string(resource.get("service.name"))
    for scope in listing(field_of(part.value, *scopes)):
        about = _without(mapping(scope), leaves)
        about_key = canonical_bytes(about)
        for value in listing(field_of(mapping(scope), *leaves)):
            piece = Piece(part.name, around, around_key, about, about_key, value)
            if is_spans:
                yield from _guarded(
                    lambda made=piece: otlp_span(made.value, service, made, part.line, repeated), part.line
                )
            else:
                yield from _guarded(lambda made=piece: otlp_log(made.value, made, part.line, repeated), part.line)


def _without(value: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value[name] for name in value if name not in names}


def _lone_span(part: Part) -> Span:
    if is_phoenix(part.value):
        return phoenix_span(part.value, part.line)
    return otlp_span(part.value, None, Piece("resourceSpans", {}, b"", {}, b"", part.value), part.line)


def _guarded(make: Any, line: int | None) -> Iterator[Span | LogRecord | Rejected]:
    try:
        yield make()
    except BadRecord as error:
        yield Rejected(error.problem(line))


def raw_record(spans: list[Span], main: bool, repeated: frozenset[str]) -> dict[str, Any]:
    """All that a file says of these spans, as one request: however it was split, the same spans give the same.

    Spans with an id in `repeated` are without their input messages.
    """
    found: dict[str, Any] = {}
    groups: dict[tuple[str, bytes], dict[str, Any]] = {}
    scopes: dict[tuple[str, bytes, bytes], list[Any]] = {}
    for span in spans:
        for record in (span.record, *span.logs):
            if isinstance(record, Piece):
                _collect(_bare(record) if span.id in repeated else record, found, groups, scopes)
            elif record is not None:
                found.setdefault("spans", []).append(record)
    return found


def _bare(piece: Piece) -> Piece:
    pairs = [
        pair for pair in listing(mapping(piece.value).get("attributes")) if not _is_input(mapping(pair).get("key"))
    ]
    return replace(piece, value={**piece.value, "attributes": pairs})


def _is_input(key: Any) -> bool:
    return isinstance(key, str) and (key in INPUT_VALUES or key.startswith(_INPUT_PREFIXES))


def _collect(
    piece: Piece,
    found: dict[str, Any],
    groups: dict[tuple[str, bytes], dict[str, Any]],
    scopes: dict[tuple[str, bytes, bytes], list[Any]],
) -> None:
    inner, leaf = ("scopeSpans", "spans") if piece.name == "resourceSpans" else ("scopeLogs", "logRecords")
    group = groups.get((piece.name, piece.resource_key))
    if group is None:
        group = groups[piece.name, piece.resource_key] = {**piece.resource, inner: []}
        found.setdefault(piece.name, []).append(group)
    place = (piece.name, piece.resource_key, piece.scope_key)
    leaves = scopes.get(place)
    if leaves is None:
        leaves = scopes[place] = []
        group[inner].append({**piece.scope, leaf: leaves})
    leaves.append(piece.value)
