"""Messages of `opentelemetry-proto` as the plain dicts of OTLP/JSON: hex ids, 64-bit integers as text, no defaults.

`google.protobuf.json_format` would do the rest, but writes ids as base64, and takes several times as long.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from .binary_size import check_protobuf
from .json_text import NOT_READ, TOO_LONG, BadRecord

_TRACE_ID = 16


def element_of(data: bytes) -> tuple[str, dict[str, Any]]:
    """(`resourceSpans` or `resourceLogs`, the element) of its bytes; both have the same outer fields, so it is told by
    the ids of its spans. Raises BadRecord when it is neither.
    """
    try:
        spans = _parsed(ResourceSpans(), data)
    except BadRecord as error:
        if error.error_code == TOO_LONG:
            raise
        return "resourceLogs", _resource_logs(_parsed(ResourceLogs(), data))
    if any(len(span.trace_id) == _TRACE_ID for scope in spans.scope_spans for span in scope.spans):
        return "resourceSpans", _resource_spans(spans)
    logs = _parsed(ResourceLogs(), data)
    if any(record.time_unix_nano or record.trace_id for scope in logs.scope_logs for record in scope.log_records):
        return "resourceLogs", _resource_logs(logs)
    return "resourceSpans", _resource_spans(spans)


def _parsed(message: Any, data: bytes) -> Any:
    check_protobuf(data, message.DESCRIPTOR)
    try:
        message.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise BadRecord(NOT_READ, f"damaged protobuf: {error}") from None
    return message


def _resource_spans(value: Any) -> dict[str, Any]:
    scopes = [{**_scope(scope), "spans": [_span(span) for span in scope.spans]} for scope in value.scope_spans]
    return {**_resource(value), "scopeSpans": scopes}


def _resource_logs(value: Any) -> dict[str, Any]:
    scopes = [{**_scope(scope), "logRecords": [_log(log) for log in scope.log_records]} for scope in value.scope_logs]
    return {**_resource(value), "scopeLogs": scopes}


def _resource(value: Any) -> dict[str, Any]:
    about = _set(attributes=_pairs(value.resource.attributes), droppedAttributesCount=_dropped(value.resource))
    return _set(resource=about if value.HasField("resource") else None, schemaUrl=value.schema_url)


def _scope(value: Any) -> dict[str, Any]:
    scope = value.scope
    about = _set(name=scope.name, version=scope.version, attributes=_pairs(scope.attributes))
    return _set(scope=about if value.HasField("scope") else None, schemaUrl=value.schema_url)


def _span(span: Any) -> dict[str, Any]:
    status = _set(code=span.status.code, message=span.status.message)
    return _set(
        traceId=span.trace_id.hex(),
        spanId=span.span_id.hex(),
        traceState=span.trace_state,
        parentSpanId=span.parent_span_id.hex(),
        flags=span.flags,
        name=span.name,
        kind=span.kind,
        startTimeUnixNano=_nanos(span.start_time_unix_nano),
        endTimeUnixNano=_nanos(span.end_time_unix_nano),
        attributes=_pairs(span.attributes),
        droppedAttributesCount=_dropped(span),
        events=[_event(event) for event in span.events],
        droppedEventsCount=span.dropped_events_count,
        links=[_link(link) for link in span.links],
        droppedLinksCount=span.dropped_links_count,
        status=status if span.HasField("status") else None,
    )


def _event(event: Any) -> dict[str, Any]:
    time = _nanos(event.time_unix_nano)
    pairs = _pairs(event.attributes)
    return _set(timeUnixNano=time, name=event.name, attributes=pairs, droppedAttributesCount=_dropped(event))


def _link(link: Any) -> dict[str, Any]:
    return _set(
        traceId=link.trace_id.hex(),
        spanId=link.span_id.hex(),
        traceState=link.trace_state,
        attributes=_pairs(link.attributes),
        droppedAttributesCount=_dropped(link),
        flags=link.flags,
    )


def _log(record: Any) -> dict[str, Any]:
    return _set(
        timeUnixNano=_nanos(record.time_unix_nano),
        observedTimeUnixNano=_nanos(record.observed_time_unix_nano),
        severityNumber=record.severity_number,
        severityText=record.severity_text,
        body=_any(record.body) if record.HasField("body") else None,
        attributes=_pairs(record.attributes),
        droppedAttributesCount=_dropped(record),
        flags=record.flags,
        traceId=record.trace_id.hex(),
        spanId=record.span_id.hex(),
        eventName=record.event_name,
    )


def _set(**fields: Any) -> dict[str, Any]:
    """The fields that are not at their default."""
    return {name: value for name, value in fields.items() if value is not None and value not in (0, "", [])}


def _dropped(value: Any) -> int:
    return int(value.dropped_attributes_count)


def _nanos(value: int) -> str:
    return str(value) if value else ""


def _pairs(pairs: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"key": pair.key, "value": _any(pair.value)} for pair in pairs]


def _any(value: Any) -> dict[str, Any]:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    if kind == "bool_value":
        return {"boolValue": value.bool_value}
    if kind == "double_value":
        number = value.double_value
        return {"doubleValue": number if math.isfinite(number) else _not_finite(number)}
    if kind == "bytes_value":
        return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
    if kind == "array_value":
        return {"arrayValue": _set(values=[_any(item) for item in value.array_value.values])}
    if kind == "kvlist_value":
        return {"kvlistValue": _set(values=_pairs(value.kvlist_value.values))}
    return {}


def _not_finite(number: float) -> str:
    """As protobuf's JSON spells it."""
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
