"""Which files an ingest reads: paths, folders, glob patterns and stdin, in a fixed order.

A folder is walked sorted; hidden files and folders (a leading dot) are skipped; a link is followed only to a file
inside the folder, every other link and everything that is no regular file is listed as ignored.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from .errors import UsageError
from .readers.json_input import open_unpacked, spooled

STDIN = "-"


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read. `path` opens it, `shown` is for people; `named`: given explicitly, not found in a folder.

    `ignored`: listed only, never opened.
    """

    path: str
    named: bool = True
    ignored: bool = False

    @property
    def shown(self) -> str:
        """The path as valid Unicode."""
        return os.fsencode(self.path).decode("utf-8", "replace")

    @property
    def source_path(self) -> str:
        """What is stored as the source: absolute, so that it means the same from any folder."""
        if self.path == STDIN:
            return STDIN
        return os.fsencode(os.path.abspath(self.path)).decode("utf-8", "replace")

    @property
    def dataset(self) -> str:
        """The default dataset: the name of the file's folder."""
        return "stdin" if self.path == STDIN else Path(self.source_path).parent.name or "root"


def expand(paths: Sequence[str]) -> list[Sequence[InputFile] | Iterator[InputFile]]:
    """The files behind each path. Raises UsageError, before anything is read, for a path that does not exist."""
    return [_behind(path) for path in paths]


def _behind(path: str) -> Sequence[InputFile] | Iterator[InputFile]:
    if path == STDIN:
        return [InputFile(STDIN)]
    if os.path.isdir(path):
        return _walk(path)
    if os.path.lexists(path):
        return [InputFile(path)]
    matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not matches:
        hint = "the pattern matches nothing" if glob.has_magic(path) else "a file, a folder, or - for stdin"
        raise UsageError(f"no such file: {path}", hint=hint)
    return [item for match in matches for item in _behind(match)]


def _walk(folder: str) -> Iterator[InputFile]:
    root = os.path.realpath(folder)
    unreadable: list[str] = []
    for place, folders, names in os.walk(folder, onerror=lambda error: unreadable.append(error.filename or folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if os.path.islink(os.path.join(place, name))]:
            yield InputFile(os.path.join(place, name), named=False, ignored=True)
        for name in sorted(names):
            if not name.startswith("."):
                path = os.path.join(place, name)
                yield InputFile(path, named=False, ignored=not _is_inside(path, root))
    for path in unreadable:
        yield InputFile(path, named=False, ignored=True)


def _is_inside(path: str, root: str) -> bool:
    """Whether `path` is a regular file in `root`, through a link or not."""
    target = os.path.realpath(path)
    try:
        regular = stat.S_ISREG(os.stat(target).st_mode)
    except OSError:
        return False
    return regular and os.path.commonpath([root, target]) == root


@contextmanager
def opened(file: InputFile) -> Iterator[BinaryIO]:
    """A seekable, unpacked binary stream; pipes and stdin are copied to a temporary file first.

    Raises OSError or BadRecord when it cannot be read.
    """
    if file.path == STDIN:
        with spooled(sys.stdin.buffer) as copy:
            yield open_unpacked(copy)
        return
    with open(file.path, "rb") as stream:
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            yield open_unpacked(cast(BinaryIO, stream))
        else:
            with spooled(cast(BinaryIO, stream)) as copy:
                yield open_unpacked(copy)
