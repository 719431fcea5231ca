"""OTLP protobuf as OTLP/JSON's plain dicts: one request, requests one behind the other, each with its length before it.

The length is a varint (what protobuf libraries write) or four bytes, big-endian (the collector's file exporter). A file
is walked by its outermost fields, so that one element of `resource_spans` is held at a time. Needs the extra `otlp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from ..errors import MissingExtra
from ..limits import current
from .json_text import CUT_SHORT, NOT_READ, BadRecord, too_long

_FIELD = 0x0A  # field 1, with a length: `resource_spans` and `resource_logs` both
_SCOPES = 0x12


def is_protobuf(data: bytes) -> bool:
    """Whether data begins like an export request in any of the framings."""
    return _framing(data) is not None


def _framing(data: bytes) -> str | None:
    if _is_request(data):
        return "single"
    if len(data) > 5 and data[0] < 0x08 and _is_request(data[4:], int.from_bytes(data[:4], "big")):
        return "fixed"
    size, start = _varint(data, 0)
    return "varint" if size is not None and _is_request(data[start:], size) else None


def _is_request(data: bytes, size: int | None = None) -> bool:
    """Whether data is field 1 whose content begins with a resource, or a scope, that is no longer than it."""
    if data[:1] != b"\x0a":
        return False
    outer, start = _varint(data, 1)
    if outer is None or outer < 4 or (size is not None and outer + start > size):
        return False
    if data[start : start + 1] not in (b"\x0a", b"\x12"):
        return False
    inner, place = _varint(data, start + 1)
    if inner is None or inner + (place - start) > outer:
        return False
    if data[start] == _FIELD and inner:  # a resource: attributes, or how many were dropped
        return data[place : place + 1] in (b"\x0a", b"\x10", b"\x1a")
    return data[start] == _SCOPES or data[place : place + 1] in (b"\x12", b"\x1a")


def _varint(data: bytes, at: int) -> tuple[int | None, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            return None, at
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return None, at


def proto_parts(stream: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`resourceSpans` or `resourceLogs`, element) of the whole stream. Raises BadRecord where it is damaged, and
    MissingExtra without the library.
    """
    try:
        from .otlp_proto_dicts import element_of
    except ImportError:
        raise MissingExtra("OTLP protobuf needs opentelemetry-proto", hint="pip install 'ttc-replay[otlp]'") from None
    stream.seek(0)
    framing = _framing(stream.read(2**16))
    stream.seek(0)
    for data in _elements(_Bytes(stream), framing or "single"):
        yield element_of(data)


class _Bytes:
    """A stream of fields, with the place for messages."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.at = 0

    def take(self, size: int) -> bytes:
        """Exactly so many bytes. Raises BadRecord when there are fewer."""
        if size > current().line:
            raise too_long(current().line)
        data = self._stream.read(size)
        self.at += len(data)
        if len(data) < size:
            raise BadRecord(CUT_SHORT, f"the protobuf data ends in the middle of a field (byte {self.at})")
        return data

    def fixed(self) -> int | None:
        """The next four bytes as a number; None at the end of the stream."""
        first = self._stream.read(1)
        self.at += len(first)
        return int.from_bytes(first + self.take(3), "big") if first else None

    def varint(self) -> int | None:
        """The next number; None at the end of the stream."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self._stream.read(1)
            if not byte and not shift:
                return None
            self.at += len(byte)
            if not byte:
                break
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise damaged(f"a number that does not end (byte {self.at})")


def damaged(message: str) -> BadRecord:
    """Protobuf data that is none."""
    return BadRecord(NOT_READ, f"damaged protobuf: {message}")


def _elements(data: _Bytes, framing: str) -> Iterator[bytes]:
    while True:
        end: int | None = None
        if framing != "single":
            size = _length(data, framing)
            if size is None:
                return
            end = data.at + size
        while end is None or data.at < end:
            tag = data.varint()
            if tag is None:
                if end is not None:
                    raise BadRecord(CUT_SHORT, f"the protobuf data ends in the middle of a message (byte {data.at})")
                return
            content = _field(data, tag)
            if tag == _FIELD and content is not None:
                yield content


def _length(data: _Bytes, framing: str) -> int | None:
    if framing == "varint":
        return data.varint()
    return data.fixed()


def _field(data: _Bytes, tag: int) -> bytes | None:
    """The content of a field with a length; of any other it is stepped over."""
    kind = tag & 7
    if kind == 2:
        size = data.varint()
        return data.take(size or 0)
    if kind == 0:
        data.varint()
    elif kind in (1, 5):
        data.take(8 if kind == 1 else 4)
    else:
        raise damaged(f"wire type {kind} (byte {data.at})")
    return None
