"""Zip archives as folders of logs: members are streamed, never extracted.

What is refused, member by member, so that the others are still read: names that leave the archive (`..`, absolute, a
drive), a name that several members share (nobody can say which is meant), members that overlap (one packed text that
counts many times), what unpacks to far more than it is, what is encrypted, and what is packed in another way than
deflate. Too many members refuse the archive whole, before they are listed. An archive in an archive is not opened.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from .limits import current, shown_size
from .readers.json_text import BAD_GZIP, BadRecord
from .records import Problem
from .unpacking import CHUNK, TOO_BIG, bounded, check_ratio, stream_of, too_big

UNSAFE_MEMBER = "TTC-E026"
NOT_OPENED = "TTC-E027"

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError)
_REFUSED = (NotImplementedError, RuntimeError)
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_METHODS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 9: "deflate64", 93: "zstd", 95: "xz", 98: "PPMd"}
_DIRECTORY_ENTRY = b"PK\x01\x02"
_ENTRY_BYTES = 512  # of the directory for each member allowed: a name, an extra field
_LOCAL_HEADER = 30
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive. `problem`: why it is not read. `ignored`: a link, never followed."""

    name: str
    info: zipfile.ZipInfo
    problem: Problem | None = None
    ignored: bool = False


class Archive:
    """An open zip: `members` sorted by name, without folders and hidden files."""

    def __init__(self, opened: zipfile.ZipFile):
        self._opened = opened
        self.members = _members(opened.infolist())

    def open(self, member: Member) -> BinaryIO:
        """The content of a member without a problem, as a seekable stream whose reads raise BadRecord."""
        info = member.info
        return stream_of(lambda: bounded(self._chunks(info), lambda: info.compress_size, "zip"))

    def _chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with cast(zipfile.ZipExtFile, self._opened.open(info)) as stream:
                while chunk := stream.read1(CHUNK):
                    yield chunk
        except _REFUSED as error:
            raise BadRecord(NOT_OPENED, f"zip member: {error}") from None
        except _DAMAGED as error:
            raise BadRecord(BAD_GZIP, f"damaged zip member: {error}") from None


@contextmanager
def archive(stream: BinaryIO) -> Iterator[Archive]:
    """The zip in a seekable stream. Raises BadRecord when it is damaged or has too many members."""
    guarded = _Directory(stream, current().members)
    try:
        opened = zipfile.ZipFile(cast(BinaryIO, guarded))
    except (*_DAMAGED, *_REFUSED) as error:
        raise BadRecord(BAD_GZIP, f"damaged zip: {error}") from None
    with opened:
        if len(opened.infolist()) > current().members:
            raise _too_many(current().members)
        yield Archive(opened)


class _Directory:
    """The stream, refusing to hand out a directory of more members than allowed: each costs a kilobyte of memory."""

    def __init__(self, stream: BinaryIO, members: int):
        self._stream = stream
        self._members = members
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if size > max(self._members * _ENTRY_BYTES, 2 * CHUNK):
            raise _too_many(self._members)
        data = self._stream.read(size)
        if size > CHUNK * 2 and data.count(_DIRECTORY_ENTRY) > self._members:
            raise _too_many(self._members)
        return data

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """The stream belongs to whoever opened it."""


def _too_many(limit: int) -> BadRecord:
    return BadRecord(TOO_BIG, f"zip: more than {limit} members (--max-members)")


def _members(infos: Sequence[zipfile.ZipInfo]) -> list[Member]:
    files = [info for info in infos if not info.is_dir()]
    names = Counter(info.filename for info in files)
    overlapping = _overlapping(files)
    found = [_member(info, names[info.filename] > 1, id(info) in overlapping) for info in files]
    return sorted((item for item in found if item.problem or not _is_hidden(item.name)), key=lambda item: item.name)


def _overlapping(infos: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Which of them share bytes of the archive with another."""
    found: set[int] = set()
    end, last = 0, None
    for info in sorted(infos, key=lambda item: item.header_offset):
        if last is not None and info.header_offset < end:
            found |= {id(info), id(last)}
        own_end = info.header_offset + _LOCAL_HEADER + len(info.orig_filename) + info.compress_size
        if own_end > end:
            end, last = own_end, info
    return found


def _is_hidden(name: str) -> bool:
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


def _member(info: zipfile.ZipInfo, doubled: bool, overlaps: bool) -> Member:
    problem = _problem(info, doubled, overlaps)
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    return Member(info.filename, info, problem, ignored=is_link and problem is None)


def _problem(info: zipfile.ZipInfo, doubled: bool, overlaps: bool) -> Problem | None:
    if _is_unsafe(info.filename) or _is_unsafe(info.orig_filename):
        return Problem(UNSAFE_MEMBER, "zip member with a name that leads out of the archive: not read")
    if doubled:
        return Problem(UNSAFE_MEMBER, "zip member whose name others of the archive have too: none of them is read")
    if overlaps:
        return Problem(UNSAFE_MEMBER, "zip member that overlaps another: not read")
    if info.flag_bits & _ENCRYPTED:
        return Problem(NOT_OPENED, "zip member that is encrypted: not read")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        return Problem(NOT_OPENED, f"zip member packed with {method}: only stored and deflated members are read")
    return _size_problem(info)


def _size_problem(info: zipfile.ZipInfo) -> Problem | None:
    limits = current()
    try:
        check_ratio(info.file_size, info.compress_size, "zip", limits.ratio)
        if info.file_size > limits.file:
            raise too_big(f"zip: unpacks to more than {shown_size(limits.file)}")
    except BadRecord as error:
        return error.problem()
    return None


def _is_unsafe(name: str) -> bool:
    plain = name.replace("\\", "/")
    return plain.startswith("/") or bool(_DRIVE.match(plain)) or ".." in plain.split("/") or "\x00" in name
