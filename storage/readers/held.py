"""Logs of which a whole file (or folder) is one run: its records are held together, within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from ..records import Rejected
from .json_input import Record, records
from .json_text import MAX_VALUES_MEMORY, TOO_LONG, BadRecord, wrong_shape

_CONTAINER_BYTES, _VALUE_BYTES = 200, 40


class _Metered:
    """A stream that ends in BadRecord when what was read of it would be too much to hold as values."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._bytes = 0

    def read(self, size: int = -1) -> bytes:
        return self._counted(self._stream.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._counted(self._stream.readline(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        self._bytes = 0
        return self._stream.seek(offset, whence)

    def _counted(self, data: bytes) -> bytes:
        containers, values = data.count(b"[") + data.count(b"{"), data.count(b",")
        self._bytes += len(data) + containers * _CONTAINER_BYTES + values * _VALUE_BYTES
        if self._bytes > MAX_VALUES_MEMORY:
            raise BadRecord(TOO_LONG, "one run of this size is too much to hold")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def metered(stream: BinaryIO) -> BinaryIO:
    """The stream, with a bound on what is read of it: for readers that keep every record until the end."""
    return cast(BinaryIO, _Metered(stream))


def hold(stream: BinaryIO) -> tuple[list[Record], list[Rejected]]:
    """(every record that is a JSON object, what was refused). A fatal refusal stands last: what came before it is
    whole, except where the file is too long to be held, of which nothing is returned.
    """
    found: list[Record] = []
    refused: list[Rejected] = []
    for item in _objects(metered(stream)):
        if isinstance(item, Rejected):
            refused.append(item)
        else:
            found.append(item)
    too_long = bool(refused) and refused[-1].fatal and refused[-1].problem.code == TOO_LONG
    return ([] if too_long else found), refused


def _objects(stream: BinaryIO) -> Iterator[Record | Rejected]:
    for item in records(stream):
        if isinstance(item, Rejected) or isinstance(item.value, dict):
            yield item
        else:
            yield Rejected(wrong_shape("not a JSON object").problem(item.line))
