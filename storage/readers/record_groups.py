"""Records that belong together but stand apart in a file: put by in a temporary file, then read back group by group.

In memory stay a key and two numbers a record, and one group at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..canonical import canonical_bytes
from .json_text import MAX_VALUES_MEMORY, TOO_LONG, BadRecord, decode


class Kept(NamedTuple):
    """A record of a group: its value and the line it stood in."""

    value: Any
    line: int | None


class RecordGroups:
    """A context manager: `add` every record, then iterate over (key, records) in the order in which keys first came."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="ttc-")  # noqa: SIM115 - closed by __exit__
        self._places: dict[str, list[tuple[int, int, int | None]]] = {}
        self._joined: dict[str, str] = {}
        self._end = 0

    def __enter__(self) -> RecordGroups:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str, record: Any, line: int | None) -> None:
        """Put a record by. `record` is plain JSON as decoded."""
        data = canonical_bytes(record)
        self._file.write(data)
        self._places.setdefault(self._of(key), []).append((self._end, len(data), line))
        self._end += len(data)

    def join(self, key: str, other: str) -> None:
        """Make one group of two: what was and what will be added under `other` belongs to `key`."""
        key, other = self._of(key), self._of(other)
        if key != other:
            self._joined[other] = key
            self._places.setdefault(key, []).extend(self._places.pop(other, ()))

    def _of(self, key: str) -> str:
        while key in self._joined:
            key = self._joined[key]
        return key

    def __iter__(self) -> Iterator[tuple[str, list[Kept] | BadRecord]]:
        for key, places in self._places.items():
            if sum(size for _, size, _ in places) > MAX_VALUES_MEMORY:
                yield key, BadRecord(TOO_LONG, "one run of this size is too much to hold", places[0][2])
                continue
            yield key, [self._read(*place) for place in sorted(places)]

    def _read(self, start: int, size: int, line: int | None) -> Kept:
        self._file.seek(start)
        return Kept(decode(self._file.read(size)), line)
