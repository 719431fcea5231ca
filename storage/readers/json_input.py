"""Strict, streaming input for JSON logs: JSONL, a JSON array, or one document.

The container is told by content, never by the file's name. A UTF-8 byte order mark, CRLF and blank lines are fine.
Streams handed to readers are binary, unpacked (`storage/unpacking.py`) and seekable; `rewind` puts one back to its
first byte of text.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Literal, TypeVar

from ..limits import current
from ..records import Problem, Rejected
from .json_scan import Scanner, beginning, beginnings, elements
from .json_text import (
    CUT_SHORT,
    NOT_JSON,
    NOT_READ,
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
"""What reading bytes, plain or packed, may raise; `problem_of` makes data of it."""

HEAD_BYTES = 2**20
_HEAD_LINES, _HEAD_ELEMENTS = 50, 10
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "gzip data",
    b"(\xb5/\xfd": "zstd data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
}
_TAR_MAGIC, _TAR_AT = b"ustar", 257


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file, parsed leniently, for detection.

    `records`: the first lines or elements that parse, or the one document. Values may be cut where the head ends:
    cut objects and arrays as far as they go, anything else that is cut is None. `note` says what a file that is no
    JSON looks like; `data` is its first MiB as it stands (of a JSON file too), for formats that are not text.
    """

    container: Container
    records: tuple[Any, ...] = ()
    note: str = ""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Record:
    """One decoded record: its first line in the file (1-based) and its number among the records (from 0)."""

    value: Any
    line: int
    position: int


@contextmanager
def as_file(stream: BinaryIO, suffix: str = "") -> Iterator[str]:
    """The path of a private temporary copy of the whole stream, for libraries that want a file; gone afterwards."""
    with tempfile.NamedTemporaryFile(prefix="ttc-", suffix=suffix) as copy:  # mode 0600
        stream.seek(0)
        shutil.copyfileobj(stream, copy, HEAD_BYTES)
        copy.flush()
        yield copy.name


def rewind(stream: BinaryIO) -> None:
    """Back to the first byte of text, behind a byte order mark."""
    stream.seek(0)
    if stream.read(3) != _BOM:
        stream.seek(0)


def read_head(stream: BinaryIO) -> Head:
    """Parse the first MiB and rewind. Raises BadRecord, OSError, EOFError or zlib.error when it cannot be read."""
    data, whole = _first_bytes(stream)
    container = _container(data, whole)
    if container in ("empty", "other"):
        return Head(container, note=_looks_like(data), data=data)
    text = _lenient(data)
    if container == "lines":
        return Head(container, tuple(_head_lines(text, whole)), data=data)
    scanner = Scanner(io.BytesIO(text))
    found = islice(beginnings(scanner), _HEAD_ELEMENTS) if container == "array" else (beginning(scanner),)
    return Head(container, tuple(found), data=data)


def _lenient(data: bytes) -> bytes:
    """The data without what is no Unicode, so that one bad character does not hide of which format a file is."""
    text = _SURROGATE_ESCAPE.sub(rb"\\ufffd", data)
    return text if text.isascii() else text.decode("utf-8", "replace").encode()


def container_of(stream: BinaryIO) -> Container:
    """What the stream holds, by its first MiB. Leaves the stream rewound."""
    return _container(*_first_bytes(stream))


def _first_bytes(stream: BinaryIO) -> tuple[bytes, bool]:
    """The first MiB and whether that is all. What is readable of a damaged file counts: the reader meets the damage."""
    rewind(stream)
    data, whole = bytearray(), True
    read = getattr(stream, "read1", stream.read)
    try:
        while len(data) <= HEAD_BYTES and (chunk := read(HEAD_BYTES + 1 - len(data))):
            data += chunk
    except READ_ERRORS:
        if not data:
            raise
        whole = False
    rewind(stream)
    return bytes(data[:HEAD_BYTES]), whole and len(data) <= HEAD_BYTES


def _container(data: bytes, whole: bool) -> Container:
    if any(data.startswith(magic) for magic in _MAGIC):
        return "other"  # stored text in an archive or a database must not pass for lines
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
            yield json.loads(line.decode())  # of bytes it would guess an encoding
        except (ValueError, RecursionError):
            continue  # reported when the file is read


def _looks_like(data: bytes) -> str:
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data[_TAR_AT : _TAR_AT + len(_TAR_MAGIC)] == _TAR_MAGIC:
        return "a tar archive: unpack it first"
    return "binary data" if b"\x00" in data else "text that is not JSON"


def records(stream: BinaryIO, decoder: Callable[[bytes], Any] = decode) -> Iterator[Record | Rejected]:
    """Every record of the stream, decoded strictly, in order; what is wrong comes as `Rejected` in its place.

    JSONL: one a line. Array: its elements. Document: the one value (or several, one behind the other).
    """
    return guarded(_records(stream, decoder))


def _records(stream: BinaryIO, decoder: Callable[[bytes], Any]) -> Iterator[Record | Rejected]:
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
                raise too_long(current().line)
            yield Record(decoder(raw), line, position)
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
    number, limit = 0, current().line
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := stream.readline(HEAD_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif not line.isspace() or line.strip(_SPACE):
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
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Problem(NOT_READ, f"cannot be read: {reason}")
