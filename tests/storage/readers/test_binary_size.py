"""What binary data would cost once decoded: counted exactly, and never over the end of damaged data."""

from __future__ import annotations

from typing import Any

import ormsgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from ttc_replay.storage.readers import binary_size
from ttc_replay.storage.readers.binary_size import check_msgpack, check_protobuf
from ttc_replay.storage.readers.json_text import BadRecord

scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.text("x", min_size=300)),
    *(st.binary(max_size=300), st.builds(ormsgpack.Ext, st.integers(0, 9), st.just(b"\x01\x02"))),
)
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(st.text(), inner)))
SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def cost(value: Any) -> int:
    """200 for what contains, 40 for what does not; of a map its keys count as well."""
    if isinstance(value, dict):
        return 200 + sum(40 + cost(item) for item in value.values())
    if isinstance(value, list):
        return 200 + sum(map(cost, value))
    return 200 + 2 * 40 if isinstance(value, ormsgpack.Ext) else 40


@SETTINGS
@given(values)
def test_msgpack_is_counted_exactly(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setattr(binary_size, "_SMALL", -1)
    data = ormsgpack.packb(value)
    monkeypatch.setattr(binary_size, "MAX_VALUES_MEMORY", cost(value))
    check_msgpack(data)
    monkeypatch.setattr(binary_size, "MAX_VALUES_MEMORY", cost(value) - 1)
    with pytest.raises(BadRecord, match="too many values"):
        check_msgpack(data)


def many(spans: int, attributes: int, nested: int) -> tuple[bytes, int]:
    """(spans with attributes whose values are lists, how many messages these are)."""
    element = ResourceSpans()
    scope = element.scope_spans.add()
    scope.scope.name = "a scope"
    for _ in range(spans):
        span = scope.spans.add(name="n" * 200, start_time_unix_nano=2**60, flags=3)
        for number in range(attributes):
            pair = span.attributes.add(key="\x0a\x02\x12\x00")  # a text that looks like messages is none
            for _ in range(nested):
                pair.value.array_value.values.add(double_value=number)
    in_value = 2 + nested if nested else 0  # the value and its list
    return element.SerializeToString(), 2 + spans * (1 + attributes * (1 + in_value))


@SETTINGS
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_protobuf_is_counted_exactly(monkeypatch: pytest.MonkeyPatch, spans: int, attributes: int, nested: int) -> None:
    monkeypatch.setattr(binary_size, "_SMALL", -1)
    data, messages = many(spans, attributes, nested)
    monkeypatch.setattr(binary_size, "MAX_VALUES_MEMORY", messages * 400)
    check_protobuf(data, ResourceSpans.DESCRIPTOR)
    monkeypatch.setattr(binary_size, "MAX_VALUES_MEMORY", messages * 400 - 1)
    with pytest.raises(BadRecord, match="too many values"):
        check_protobuf(data, ResourceSpans.DESCRIPTOR)


@SETTINGS
@given(st.binary(max_size=200))
def test_damaged_data_is_left_to_the_decoder(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(binary_size, "_SMALL", -1)
    check_msgpack(data)
    check_protobuf(data, ResourceSpans.DESCRIPTOR)


def test_small_data_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary_size, "MAX_VALUES_MEMORY", 1)
    check_msgpack(b"\x90" * 1000)
    check_protobuf(b"\x0a\x00" * 1000, ResourceSpans.DESCRIPTOR)
