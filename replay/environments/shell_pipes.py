"""Pipes, files in memory and high numbers: what passes descriptors into a sandbox."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class End:
    """One end of a pipe, closed once."""

    def __init__(self, number: int):
        self.number = number

    def close(self) -> None:
        """Harmless when it is closed, or was taken."""
        if self.number >= 0:
            os.close(self.release())

    def release(self) -> int:
        """Its number, which is the caller's to close."""
        number, self.number = self.number, -1
        return number


@contextmanager
def pipe() -> Iterator[tuple[End, End]]:
    """The two ends, reading and writing; closed at the end unless somebody took them."""
    ends = [End(number) for number in os.pipe()]
    try:
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.close()


@contextmanager
def written(data: bytes) -> Iterator[int]:
    """A file in memory that holds `data`."""
    descriptor = os.memfd_create("sandbox")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def moved(descriptors: Iterable[int]) -> Iterator[list[int]]:
    """Copies with high numbers, which no number inside collides with."""
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in descriptors]
    try:
        yield copies
    finally:
        for copy in copies:
            os.close(copy)
