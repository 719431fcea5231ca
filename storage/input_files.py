"""Which files an ingest reads: paths, folders, glob patterns, database URLs and stdin, in a fixed order.

A folder is walked sorted; hidden files and folders (a leading dot) are skipped; a link is followed only to a file
inside the folder. Every other link, everything that is no regular file, and what by its name is documentation or code
is listed as ignored. A folder that holds the events of one run, a file each, is one input.
"""

from __future__ import annotations

import glob
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import UsageError
from .readers.folders import event_order, is_event_folder

STDIN = "-"
URL_SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_PROSE_AND_CODE = (".md", ".rst", ".py", ".ipynb", ".sh")
_PROSE = re.compile(r"(licen[cs]e|copying|notice|readme|authors|changelog|makefile)s?([-_.].*)?", re.IGNORECASE)
_EVENT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read. `path` opens it, `shown` is for people; `named`: given explicitly, not found in a folder.

    `ignored`: listed only, never opened. `member`: its name within the archive `path`. `events`: the files, in order,
    of a folder that holds one run.
    """

    path: str
    named: bool = True
    ignored: bool = False
    member: str | None = None
    events: tuple[str, ...] = ()

    @property
    def is_url(self) -> bool:
        """Whether this is a database, not a file."""
        return self.path.startswith(URL_SCHEMES)

    @property
    def shown(self) -> str:
        """The path as valid Unicode, a URL without its password."""
        return self._with_member(_without_secret(self.path) if self.is_url else _valid(self.path))

    @property
    def source_path(self) -> str:
        """What is stored as the source: absolute, so that it means the same from any folder."""
        if self.path == STDIN or self.is_url:
            return self.shown
        return self._with_member(_valid(os.path.abspath(self.path)))

    @property
    def dataset(self) -> str:
        """The default dataset: the name of the file's folder; of what lies at the top of an archive, the archive's."""
        if self.path == STDIN:
            return "stdin"
        if self.is_url:
            return urlsplit(self.path).path.strip("/") or "postgresql"
        if self.member is not None and "/" not in self.member:
            return Path(_valid(os.path.abspath(self.path))).stem or "root"
        return Path(self.source_path).parent.name or "root"

    def _with_member(self, path: str) -> str:
        return path if self.member is None else f"{path}/{_valid(self.member)}"


def _valid(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _without_secret(url: str) -> str:
    """A database URL as far as it may be shown: no password, no parameters."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")
    user = place[0].partition(":")[0]
    return f"{parts.scheme}://{user}{place[1]}{place[2]}{parts.path}"


def expand(paths: Sequence[str]) -> list[Sequence[InputFile] | Iterator[InputFile]]:
    """The files behind each path. Raises UsageError, before anything is read, for a path that does not exist."""
    return [_behind(path) for path in paths]


def _behind(path: str) -> Sequence[InputFile] | Iterator[InputFile]:
    if path == STDIN or path.startswith(URL_SCHEMES):
        return [InputFile(path)]
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
        yield from _files(place, sorted(name for name in names if not name.startswith(".")), root)
    for path in unreadable:
        yield InputFile(path, named=False, ignored=True)


def _files(place: str, names: list[str], root: str) -> Iterator[InputFile]:
    """The files of one folder; the event files of one run are one input."""
    readable = {name: _is_inside(os.path.join(place, name), root) for name in names}
    events = _events(place, [name for name in names if readable[name]])
    if events:
        yield InputFile(place, named=False, events=tuple(os.path.join(place, name) for name in events))
    for name in names:
        if name not in events:
            ignored = not readable[name] or _is_prose_or_code(name)
            yield InputFile(os.path.join(place, name), named=False, ignored=ignored)


def _is_prose_or_code(name: str) -> bool:
    return name.lower().endswith(_PROSE_AND_CODE) or _PROSE.fullmatch(name) is not None


def _is_inside(path: str, root: str) -> bool:
    """Whether `path` is a regular file in `root`, through a link or not."""
    target = os.path.realpath(path)
    try:
        regular = stat.S_ISREG(os.stat(target).st_mode)
    except OSError:
        return False
    return regular and os.path.commonpath([root, target]) == root


def _events(place: str, names: list[str]) -> list[str]:
    """The event files of the one run that lies in this folder, in order; empty when it is a folder of logs."""
    ordered = event_order([name for name in names if name.endswith(".json")])
    if not ordered:
        return []
    first = _first_value(os.path.join(place, ordered[0]))
    return ordered if isinstance(first, dict) and is_event_folder(ordered, first) else []


def _first_value(path: str) -> Any:
    """The JSON value of a small file; None where there is none."""
    try:
        with open(path, "rb") as stream:
            return json.loads(stream.read(_EVENT_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
