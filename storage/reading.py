"""What a reader yields, made safe: an empty file, a reader that fails or finds nothing is a fatal `Rejected`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from .errors import MissingExtra, ReaderFailed, TtcError, boundary
from .readers.base import Reader, reader_names
from .readers.json_input import Head, guarded, read_head, rewind
from .readers.json_text import EMPTY_FILE, NO_TRAJECTORIES, UNKNOWN_FORMAT
from .records import Problem, Rejected, Source, Trajectory

Items = Iterator[Trajectory | Rejected]


def items_of(reader: Reader, stream: BinaryIO, source: Source) -> Items:
    """What the reader finds in the stream, up to the first fatal problem. Raises nothing but interrupts."""
    return sound(_content(reader, stream, source), reader.name)


def _content(reader: Reader, stream: BinaryIO, source: Source) -> Items:
    rewind(stream)
    found = False
    for item in reader.read(stream, source):
        found = True
        yield item
    nothing = None if found else _nothing_in(stream, reader)
    if nothing is not None:
        yield Rejected(nothing, fatal=True)


def sound(items: Items, reader: str) -> Items:
    """The items up to the first fatal one; what reading them raises becomes that."""
    try:
        with boundary(ReaderFailed, f"reader {reader!r} failed"):
            for item in guarded(items):
                yield item
                if isinstance(item, Rejected) and item.fatal:
                    return
    except MissingExtra as error:
        yield Rejected(Problem(error.error_code, f"{error.message}: {error.hint}"), fatal=True)
    except TtcError as error:
        yield Rejected(Problem(error.error_code, error.message), fatal=True)


def _nothing_in(stream: BinaryIO, reader: Reader) -> Problem | None:
    """Why a file without a single item is bad; None where the format allows that (`empty_is_valid`)."""
    if read_head(stream).container == "empty":
        return Problem(EMPTY_FILE, "empty file")
    if getattr(reader, "empty_is_valid", False):
        return None
    return Problem(NO_TRAJECTORIES, "no trajectories in it")


def unclaimed(head: Head) -> Problem:
    """Why no reader reads a file that was named."""
    if head.container == "empty":
        return Problem(EMPTY_FILE, "empty file")
    what = head.note or {"lines": "JSON lines", "array": "a JSON array"}.get(head.container, "a JSON document")
    return Problem(UNKNOWN_FORMAT, f"no reader knows this file ({what}); formats: {', '.join(reader_names())}")
