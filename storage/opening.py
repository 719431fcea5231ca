"""Input files as streams for readers: binary, unpacked, seekable.

Stdin and pipes are copied to an unnamed temporary file and kept until the end, so that they can be read twice. A folder
of events, one JSON file each, reads as one JSON array with an element a line.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import BinaryIO, cast

from .input_files import STDIN, InputFile
from .limits import current, shown_size
from .readers.json_scan import Scanner
from .readers.json_text import NUL_BYTES, BadRecord
from .unpacking import CHUNK, ENCODINGS, GZIP, ZIP, ZSTD, open_unpacked, stream_of, too_big

_PACKED = (GZIP, ZSTD, ZIP, b"PAR1", b"SQLite format 3", *(mark for mark, _ in ENCODINGS))
_UNREADABLE = b"unreadable"
_BUFFER = 2**18
"""Bytes: lines of logs are long, and the default of 8 KiB makes reading three times as dear."""
"""What stands in the array for an event that is no JSON value: the decoder refuses it, its neighbours are read."""


class Inputs:
    """Opens input files; a context manager that owns the copies of what can be read only once."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._copies: dict[str, BinaryIO] = {}

    def __enter__(self) -> Inputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def opened(self, file: InputFile) -> Iterator[BinaryIO]:
        """The content of a file that is neither a URL nor in an archive. Raises OSError or BadRecord."""
        if file.events:
            yield stream_of(lambda: _event_array(file.events))
        elif file.path in self._copies:
            yield self._again(file.path)
        elif file.path == STDIN:
            yield self._kept(STDIN, sys.stdin.buffer)
        else:
            with open(file.path, "rb", buffering=_BUFFER) as stream:
                yield self._plain_or_kept(file.path, stream)

    def _plain_or_kept(self, path: str, stream: BinaryIO) -> BinaryIO:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            return self._kept(path, stream)
        if status.st_size > current().file:
            raise too_big(f"over {shown_size(current().file)}")
        return open_unpacked(stream)

    def _kept(self, path: str, stream: BinaryIO) -> BinaryIO:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stack
        copy = cast(BinaryIO, self._stack.enter_context(file))
        _copy(stream, copy)
        self._copies[path] = copy
        return self._again(path)

    def _again(self, path: str) -> BinaryIO:
        self._copies[path].seek(0)
        return open_unpacked(self._copies[path])


def _copy(stream: BinaryIO, copy: BinaryIO) -> None:
    """Raises BadRecord on binary data of an unknown kind (it may never end) or over the limit."""
    size, limit = 0, current().file
    while chunk := stream.read(CHUNK):
        if size == 0 and not chunk.startswith(_PACKED) and b"\x00" in chunk:
            raise BadRecord(NUL_BYTES, "raw NUL bytes: binary data")
        size += len(chunk)
        if size > limit:
            raise too_big(f"more than {shown_size(limit)} from a pipe")
        copy.write(chunk)


def _event_array(paths: tuple[str, ...]) -> Iterator[bytes]:
    for number, path in enumerate(paths):
        yield b"[" if number == 0 else b",\n"
        yield _event(path)
    yield b"]\n"


def _event(path: str) -> bytes:
    """One event on one line, so that its number in the order is its line. Raises OSError."""
    limit = current().line
    with open(path, "rb") as stream:
        data = stream.read(limit + 1)
    text = b" ".join(data.split(b"\n")).strip()
    return text if len(data) <= limit and _is_one_value(text) else _UNREADABLE


def _is_one_value(text: bytes) -> bool:
    try:
        scanner = Scanner(io.BytesIO(text))
        return scanner.value() == text
    except BadRecord:
        return False
