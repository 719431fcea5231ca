"""Strict, streaming input for JSON logs: JSONL, a JSON array, or one document; plain or gzip; file, pipe or stdin.

The container is told by content, never by the file's name. A UTF-8 byte order mark, CRLF and blank lines are fine.
Streams handed to readers are binary, unpacked and seekable; `rewind` puts one back to its first byte of text.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Literal, TypeVar, cast

from ..records import Problem, Rejected
from .json_scan import Scanner, beginning, beginnings, elements
from .json_text import (
    BAD_GZIP,
    CUT_SHORT,
    MAX_RECORD_BYTES,
    NOT_JSON,
    NOT_READ,
    NUL_BYTES,
    BadRecord,
    balanced,
    cut_short,
    decode,
    ends_in_string,
    too_long,
)

Container = Literal["lines", "array", "document", "empty", "other"]
Item = TypeVar("Item")

READ_ERRORS = (BadRecord, OSError, EOFError, zlib.error)
"""What reading bytes, plain or gzip, may raise; `problem_of` makes data of it."""

HEAD_BYTES = 2**20
_HEAD_LINES, _HEAD_ELEMENTS = 50, 10
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_BOMB_BYTES, _BOMB_RATIO, _MAX_UNPACKED = 10 * 2**20, 200, 8 * 2**30
_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"(\xb5/\xfd": "zstd data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file, parsed leniently, for detection.

    `records`: the first lines or elements that parse, or the one document. Values may be cut where the head ends:
    cut objects and arrays as far as they go, anything else that is cut is None. `note` says what a file that is no
    JSON looks like.
    """

    container: Container
    records: tuple[Any, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One decoded record: its first line in the file (1-based) and its number among the records (from 0)."""

    value: Any
    line: int
    position: int


class _Unpacked(gzip.GzipFile):
    """A gzip stream that refuses to unpack without end: promise P8."""

    def __init__(self, packed: BinaryIO):
        super().__init__(fileobj=packed, mode="rb")
        self._packed = packed

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._check()
        return data

    def readline(self, size: int | None = -1) -> bytes:
        data = super().readline(size)
        self._check()
        return data

    def _check(self) -> None:
        unpacked, packed = self.tell(), self._packed.tell()
        if unpacked > _MAX_UNPACKED or (unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * max(packed, 1)):
            raise BadRecord(BAD_GZIP, f"gzip: {packed} bytes unpack to more than {unpacked // 2**20} MiB")


def open_unpacked(stream: BinaryIO) -> BinaryIO:
    """The seekable `stream` itself, or its content when it is gzip."""
    magic = stream.read(2)
    stream.seek(0)
    return cast(BinaryIO, _Unpacked(stream)) if magic == b"\x1f\x8b" else stream


@contextmanager
def spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    """A seekable copy of a pipe in an unnamed temporary file. Raises BadRecord on binary data or over 8 GiB."""
    with tempfile.TemporaryFile() as copy:
        _copy(stream, cast(BinaryIO, copy))
        yield cast(BinaryIO, copy)


def _copy(stream: BinaryIO, copy: BinaryIO) -> None:
    size = 0
    while chunk := stream.read(HEAD_BYTES):
        if size == 0 and not chunk.startswith(b"\x1f\x8b") and b"\x00" in chunk:
            raise BadRecord(NUL_BYTES, "raw NUL bytes: binary data")
        size += len(chunk)
        if size > _MAX_UNPACKED:
            raise BadRecord(NOT_READ, "more than 8 GiB from a pipe: write it to a file first")
        copy.write(chunk)
    copy.seek(0)


def rewind(stream: BinaryIO) -> None:
    """Back to the first byte of text, behind a byte order mark."""
    stream.seek(0)
    if stream.read(3) != _BOM:
        stream.seek(0)


def read_head(stream: BinaryIO) -> Head:
    """Parse the first MiB and rewind. Raises BadRecord, OSError, EOFError or zlib.error when it cannot be read."""
    data, whole = _first_bytes(stream)
    container = _container(data, whole)
    if container == "lines":
        return Head(container, tuple(_head_lines(data, whole)))
    if container == "array":
        return Head(container, tuple(islice(beginnings(Scanner(io.BytesIO(data))), _HEAD_ELEMENTS)))
    if container == "document":
        return Head(container, (beginning(Scanner(io.BytesIO(data))),))
    return Head(container, note=_looks_like(data))


def container_of(stream: BinaryIO) -> Container:
    """What the stream holds, by its first MiB. Leaves the stream rewound."""
    return _container(*_first_bytes(stream))


def _first_bytes(stream: BinaryIO) -> tuple[bytes, bool]:
    rewind(stream)
    data = stream.read(HEAD_BYTES + 1)
    rewind(stream)
    return data[:HEAD_BYTES], len(data) <= HEAD_BYTES


def _container(data: bytes, whole: bool) -> Container:
    lines = [line for line in data.split(b"\n") if line.strip(_SPACE)][: _HEAD_LINES + 1]
    if not lines:
        return "empty" if whole else "other"
    first, others = lines[0].strip(_SPACE), [line.strip(_SPACE) for line in lines[1:]]
    if first[:1] not in (b"{", b"["):
        return "lines" if any(_whole_object(line) for line in others) else "other"
    if others and (balanced(first) or _cut_line(first, others[0])):
        return "lines"
    return "array" if first[:1] == b"[" else "document"


def _whole_object(line: bytes) -> bool:
    return line[:1] == b"{" and len(line) > 2 and balanced(line)


def _cut_line(first: bytes, second: bytes) -> bool:
    """Whether the first line is a damaged JSONL line rather than the first line of a document over several lines: no
    JSON string goes on over a newline, and a document does not go on with an object where a key or a comma is due.
    """
    return ends_in_string(first) or (first[-1:] not in b"[,:" and _whole_object(second))


def _head_lines(data: bytes, whole: bool) -> Iterator[Any]:
    lines = data.split(b"\n")
    for line in (lines if whole else lines[:-1])[: 4 * _HEAD_LINES]:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue  # reported when the file is read


def _looks_like(data: bytes) -> str:
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    return "binary data" if b"\x00" in data else "text that is not JSON"


def records(stream: BinaryIO) -> Iterator[Record | Rejected]:
    """Every record of the stream, decoded strictly, in order; what is wrong comes as `Rejected` in its place.

    JSONL: one a line. Array: its elements. Document: the one value (or several, one behind the other).
    """
    return guarded(_records(stream))


def _records(stream: BinaryIO) -> Iterator[Record | Rejected]:
    container = container_of(stream)
    scanner = None
    if container == "lines":
        raws = _lines(stream)
    else:
        scanner = Scanner(stream)
        raws = elements(scanner) if container == "array" else _values(scanner)
    for position, (line, raw) in enumerate(raws):
        try:
            if raw is None:
                raise too_long(MAX_RECORD_BYTES)
            yield Record(decode(raw), line, position)
        except BadRecord as error:
            yield Rejected(error.problem(line))
    if scanner is not None and container == "array" and scanner.peek() is not None:
        raise BadRecord(NOT_JSON, "more text behind the end of the array", scanner.line)


def _values(scanner: Scanner) -> Iterator[tuple[int, bytes | None]]:
    while scanner.peek() is not None:
        line = scanner.line
        yield line, scanner.value()


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(number, bytes) of every line that is not blank; None for one over the limit, which is never held."""
    number = 0
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(line) > MAX_RECORD_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(HEAD_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif line.strip(_SPACE):
            if not line.endswith(b"\n") and cut_short(line):
                raise BadRecord(CUT_SHORT, "cut in the middle (last line; is its writer still running?)", number)
            yield number, line


def guarded(items: Iterator[Item]) -> Iterator[Item | Rejected]:
    """The items, and a fatal `Rejected` in place of an error that ends the file."""
    try:
        yield from items
    except READ_ERRORS as error:
        yield Rejected(problem_of(error), fatal=True)


def problem_of(error: Exception) -> Problem:
    """An error of reading bytes as data."""
    if isinstance(error, BadRecord):
        return error.problem()
    if isinstance(error, (gzip.BadGzipFile, EOFError, zlib.error)):
        return Problem(BAD_GZIP, f"damaged gzip: {error}")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Problem(NOT_READ, f"cannot be read: {reason}")
