"""The members of a zip archive that is itself a log (an Inspect `.eval`), read bounded and without extracting."""

from __future__ import annotations

import re
import struct
import zipfile
from typing import BinaryIO

from ..errors import ReaderFailed, boundary
from ..limits import current
from .json_text import BAD_GZIP, TOO_LONG, BadRecord, too_long

_ENTRY_BYTES = 512  # of the directory for each member allowed: a name, an extra field
_SMALL_DIRECTORY = 2**19
_TAIL_BYTES = 2**16 + 128
_MAGIC = b"PK\x03\x04"


def first_members(data: bytes) -> list[str]:
    """Names of the archive's first members, as far as their headers stand in `data`; empty for any other file."""
    if not data.startswith(_MAGIC):
        return []
    return [_name(data, found.start()) for found in re.finditer(re.escape(_MAGIC), data)]


def _name(data: bytes, start: int) -> str:
    header = data[start : start + 30]
    length = int.from_bytes(header[26:28], "little")
    return data[start + 30 : start + 30 + length].decode("utf-8", "replace")


class ZipMembers:
    """An open archive. Raises BadRecord where it is damaged, or its directory is too long to hold."""

    def __init__(self, stream: BinaryIO):
        _check_directory(stream)
        try:
            self._archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error) as error:
            raise BadRecord(BAD_GZIP, f"damaged zip archive: {error}") from None
        # Of members with one name the last is meant: an archive that was written to again.
        self._members = {member.filename: member for member in self._archive.infolist()}

    @property
    def names(self) -> list[str]:
        """Every name once, in the order of the directory."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises BadRecord when they are damaged or too long, KeyError when there is none."""
        member = self._members[name]
        limit = current().line
        if member.file_size > limit:
            raise too_long(limit)
        try:
            # Each compression has errors of its own.
            with boundary(ReaderFailed, name), self._archive.open(member) as packed:
                data = packed.read(limit + 1)
        except ReaderFailed as error:
            raise BadRecord(BAD_GZIP, f"damaged zip member {' '.join(error.message.split())}") from None
        if len(data) > limit:
            raise too_long(limit)
        return data


def _check_directory(stream: BinaryIO) -> None:
    """The length of the directory, from the record at the archive's end (of zip64: from the wider one before it)."""
    end = stream.seek(0, 2)
    stream.seek(max(0, end - _TAIL_BYTES))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise BadRecord(BAD_GZIP, "damaged zip archive: it has no end (is its writer still running?)")
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if wide >= 0 and len(tail) >= wide + 56:
        size = max(size if size != 0xFFFFFFFF else 0, int.from_bytes(tail[wide + 40 : wide + 48], "little"))
    members = current().members
    if size > max(members * _ENTRY_BYTES, _SMALL_DIRECTORY):
        raise BadRecord(TOO_LONG, f"zip: more than {members} members (--max-members)")
