"""What lies in a folder that foreign code wrote: read without following a link or opening anything but plain files.

An entry is (kind, mode, digest): `f` with the SHA-256 of the content, `l` with the target, `d`, and other kinds, whose
digest is empty. Nothing here may run while the folder is in use.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple, TypeAlias

MAX_DEPTH = 64
"""Folders within folders; the walker holds a file descriptor for each."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Entry(NamedTuple):
    """What lies at a path. `digest` None: not read yet (files of the base)."""

    kind: str
    mode: int
    digest: str | None


class Found(NamedTuple):
    """One thing a walk came upon, parents before what is in them. `entry` None: a whiteout, a deletion in an overlay.
    `opaque`: a folder that hides what lay at its place below."""

    path: str
    entry: Entry | None
    opaque: bool = False


class Unruly(Exception):
    """A tree over the limits: the text says which."""


Diff: TypeAlias = Mapping[str, Entry | None]
"""Differences to the base by path; None: deleted. What equals the base is not in it."""


class Room(NamedTuple):
    """How much a tree may hold."""

    files: int
    disk_bytes: int = 2**63

    def check(self, files: int, disk_bytes: int) -> str | None:
        """Which limit is broken, if any."""
        if files > self.files:
            return f"more than {self.files} files"
        return f"more than {self.disk_bytes >> 20} MiB on disk" if disk_bytes > self.disk_bytes else None


class _Open(NamedTuple):
    """A folder that a walk is in. `mode`: what it had, where it had to be opened up for its owner (us)."""

    number: int
    prefix: str
    names: Iterator[str]
    mode: int | None = None

    def leave(self) -> None:
        if self.mode is not None:
            os.fchmod(self.number, self.mode)
        os.close(self.number)


def walk(root: str, *, overlay: bool, hashed: bool, room: Room) -> Iterator[Found]:
    """Everything below `root`. `overlay`: it is an upper layer, with whiteouts. Raises Unruly beyond `room` or
    `MAX_DEPTH` folders deep."""
    top = os.open(root, _FOLDER)
    stack = [_Open(top, "", iter(_names(top)))]
    seen = used = 0
    try:
        while stack:
            here = stack[-1]
            name = next(here.names, None)
            if name is None:
                stack.pop().leave()
                continue
            about = os.stat(name, dir_fd=here.number, follow_symlinks=False)
            seen, used = seen + 1, used + about.st_blocks * 512
            if (broken := room.check(seen, used)) is not None:
                raise Unruly(broken)
            path = f"{here.prefix}{name}"
            if not stat.S_ISDIR(about.st_mode):
                yield Found(path, _entry(here.number, name, about, overlay=overlay, hashed=hashed))
                continue
            if len(stack) > MAX_DEPTH:
                raise Unruly(f"folders more than {MAX_DEPTH} deep")
            stack.append(_entered(here, name, about, path))
            opaque = overlay and _is_opaque(stack[-1].number)
            yield Found(path, Entry("d", stat.S_IMODE(about.st_mode), ""), opaque)
    finally:
        for folder in reversed(stack):
            folder.leave()


def _entered(here: _Open, name: str, about: os.stat_result, path: str) -> _Open:
    """The folder below; opened up where its owner may not look into it."""
    mode = stat.S_IMODE(about.st_mode)
    shut = os.geteuid() != 0 and mode & 0o500 != 0o500
    if shut:
        os.chmod(name, mode | 0o700, dir_fd=here.number)
    number = os.open(name, _FOLDER, dir_fd=here.number)
    return _Open(number, f"{path}/", iter(_names(number)), mode if shut else None)


def _names(folder: int) -> list[str]:
    return sorted(os.listdir(folder))


def _is_opaque(folder: int) -> bool:
    with suppress(OSError):
        return os.getxattr(folder, "user.overlay.opaque") == b"y"
    return False


def _entry(folder: int, name: str, about: os.stat_result, *, overlay: bool, hashed: bool) -> Entry | None:
    mode = stat.S_IMODE(about.st_mode)
    if stat.S_ISREG(about.st_mode):
        return Entry("f", mode, _digest(folder, name, about) if hashed else None)
    if stat.S_ISLNK(about.st_mode):
        return Entry("l", 0, os.readlink(name, dir_fd=folder))
    if overlay and stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
        return None
    return Entry({stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}.get(stat.S_IFMT(about.st_mode), "c"), mode, "")


def _digest(folder: int, name: str, about: os.stat_result) -> str:
    try:
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except PermissionError:  # its owner (we) may not read it
        mode = stat.S_IMODE(about.st_mode)
        os.chmod(name, mode | 0o400, dir_fd=folder)
        descriptor = os.open(name, _FILE, dir_fd=folder)
        os.fchmod(descriptor, mode)
    with open(descriptor, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(root: str, most: int) -> tuple[int, int]:
    """(bytes on disk, entries) below `root`, which may be in use: whatever moves or vanishes meanwhile is left out.
    Stops after `most` entries."""
    total, seen = 0, 0
    waiting = [root]
    while waiting and seen <= most:
        try:
            with os.scandir(waiting.pop()) as found:
                for item in found:
                    seen += 1
                    about = item.stat(follow_symlinks=False)
                    total += about.st_blocks * 512
                    if stat.S_ISDIR(about.st_mode):
                        waiting.append(item.path)
        except OSError:
            continue
    return total, seen


class Base:
    """The entries of an untouched folder; contents are read when something is compared with them."""

    def __init__(self, root: str, most: int):
        self._root = root
        self._entries: dict[str, Entry] = {
            found.path: found.entry for found in walk(root, overlay=False, hashed=False, room=Room(most)) if found.entry
        }

    def get(self, path: str) -> Entry | None:
        """The entry at a path, its content's digest included; None: there is nothing."""
        entry = self._entries.get(path)
        if entry is None or entry.digest is not None:
            return entry
        with open(os.path.join(self._root, path), "rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entry = self._entries[path] = entry._replace(digest=digest)
        return entry

    @cached_property
    def key(self) -> str:
        """The hash of everything in it; reads every file once."""
        return tree_key({path: self.get(path) for path in self._entries})

    def below(self, path: str) -> Iterator[str]:
        """Every path inside a folder."""
        if path in self._entries and self._entries[path].kind == "d":
            yield from (known for known in self._entries if known.startswith(path + "/"))

    def whole(self, tree: Mapping[str, Entry]) -> Diff:
        """The differences of a whole other tree."""
        diff: dict[str, Entry | None] = {path: None for path in self._entries if path not in tree}
        diff.update((path, entry) for path, entry in tree.items() if entry != self.get(path))
        return diff

    def layered(self, before: Diff, layer: Iterator[Found]) -> Diff:
        """The differences when an overlay's upper layer is laid over those of `before`."""
        diff = dict(before)
        for path, entry, opaque in layer:
            if entry is None or entry.kind != "d" or opaque:
                self._hide(diff, path)
            if entry == self.get(path):
                diff.pop(path, None)
            elif entry is not None or path in self._entries:
                diff[path] = entry
            else:
                diff.pop(path, None)
        return diff

    def _hide(self, diff: dict[str, Entry | None], path: str) -> None:
        """Nothing is left below `path`."""
        for known in [known for known in diff if known.startswith(path + "/")]:
            del diff[known]
        diff.update(dict.fromkeys(self.below(path)))


def tree_key(diff: Diff, *more: str) -> str:
    """A hash of differences and texts, in git's manner: kinds, modes, names and contents, nothing else (no times)."""
    digest = hashlib.sha256()
    for path in sorted(diff):
        entry = diff[path]
        line = "deleted" if entry is None else f"{entry.kind} {entry.mode:o} {entry.digest}"
        digest.update(f"{line}\0{path}\0".encode("utf-8", "surrogateescape"))
    for text in more:
        digest.update(f"\0{text}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
