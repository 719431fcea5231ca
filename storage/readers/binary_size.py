"""What binary data would cost once it is decoded, told before it is: a byte may stand for an object of a hundred.

The limits are those of JSON text (`json_text.decode`). Both walks know structure only, and stop at the limit; what is
damaged is left to the decoder.
"""

from __future__ import annotations

from typing import Any

from .json_text import MAX_VALUES_MEMORY, TOO_LONG, BadRecord

_CONTAINER_BYTES, _VALUE_BYTES = 200, 40
_MESSAGE_BYTES = 400  # of a protobuf message, parsed and as a dict
_SMALL = 2**21  # bytes that are never too many

# Of each first byte of a value: the bytes of its head, how many of them tell a length to step over, what it costs.
_MSGPACK: list[tuple[int, int, int]] = [(1, 0, _VALUE_BYTES)] * 256
_MSGPACK[0x80:0xA0] = [(1, 0, _CONTAINER_BYTES)] * 32
_MSGPACK[0xA0:0xC0] = [(1 + size, 0, _VALUE_BYTES) for size in range(32)]
for _head, _width in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4)):  # binary and text
    _MSGPACK[_head] = (1 + _width, _width, _VALUE_BYTES)
for _head, _size in ((0xCA, 4), (0xCB, 8), (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):  # numbers
    _MSGPACK[_head] = (1 + _size, 0, _VALUE_BYTES)
for _head, _size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
    _MSGPACK[_head] = (1 + _size, 0, _VALUE_BYTES)
for _head, _size in ((0xC7, 2), (0xC8, 3), (0xC9, 5), *((head, 1) for head in range(0xD4, 0xD9))):
    _MSGPACK[_head] = (1 + _size, 0, _CONTAINER_BYTES)  # an extension, whose content is walked too
for _head, _size in ((0xDC, 2), (0xDD, 4), (0xDE, 2), (0xDF, 4)):  # lists and maps
    _MSGPACK[_head] = (1 + _size, 0, _CONTAINER_BYTES)


def check_msgpack(data: bytes) -> None:
    """Raise BadRecord when the values in it are too many to hold."""
    at, cost = 0, 0
    while len(data) > _SMALL and at < len(data):
        head, length, price = _MSGPACK[data[at]]
        if length:
            at += int.from_bytes(data[at + 1 : at + 1 + length], "big")
        at += head
        cost += price
        if cost > MAX_VALUES_MEMORY:
            raise _too_many()


def check_protobuf(data: bytes, descriptor: Any) -> None:
    """Raise BadRecord when the messages within a message of this type are too many to hold."""
    known: dict[Any, dict[int, Any]] = {}
    found = 0
    stack = [(descriptor, 0, len(data))] if len(data) > _SMALL else []
    while stack:
        kind, at, end = stack.pop()
        if kind.full_name not in known:
            known[kind.full_name] = {field.number: field.message_type for field in kind.fields}
        inner_of = known[kind.full_name]
        while at < end:
            tag, at = _varint(data, at)
            size, start = _extent(data, at, tag & 7)
            inner = inner_of.get(tag >> 3) if tag & 7 == 2 else None
            if inner is not None:
                found += 1
                stack.append((inner, start, min(start + size, end)))
            at = start + size
            if found * _MESSAGE_BYTES > MAX_VALUES_MEMORY:
                raise _too_many()


def _extent(data: bytes, at: int, wire: int) -> tuple[int, int]:
    """(size, start) of a field's content."""
    if wire == 2:
        return _varint(data, at)
    if wire == 0:
        return 0, _varint(data, at)[1]
    return {1: 8, 5: 4}.get(wire, len(data)), at  # groups are no more: nothing behind them is walked


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at


def _too_many() -> BadRecord:
    return BadRecord(TOO_LONG, "too many values in one record to hold")
