"""Walk a JSON document of any size while holding one value of it at a time.

The scanner knows only structure (strings, brackets, commas); each value it cuts out is decoded strictly afterwards, so
a bad element of a big array costs that element and not the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO

from ..limits import current
from .json_text import CUT_SHORT, NOT_JSON, BadRecord, decode

_CHUNK = 2**20
_SPACE = re.compile(rb"[ \t\r\n]*")
# Possessive (++, *+): hostile text cannot make these backtrack.
_STRING_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{}]', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\r\n,:\[\]{}"]*')
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_OUTSIDE_STRINGS = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_BLOCK, _TOKENS_BY_HAND = 2**16, 2**12
_STEPS = bytes.maketrans(b"[{]}", b"\x02\x02\x00\x00")  # how each bracket changes the depth, plus 1
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class Scanner:
    """A cursor in a JSON document. Every method raises BadRecord with a line when the structure is broken."""

    def __init__(self, stream: BinaryIO, limit: int | None = None):
        self._stream = stream
        self._limit = current().line if limit is None else limit
        self._data = b""
        self._at = 0  # the cursor in `_data`
        self._kept: int | None = None  # start of the value being cut out; what lies before it may be dropped
        self._line, self._counted = 1, 0  # `_line` counts the newlines before `_counted`

    @property
    def line(self) -> int:
        """The 1-based line of the cursor."""
        self._line += self._data.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str | None:
        """The next character that is not space; None at the end of the document."""
        while True:
            self._at = _end(_SPACE.match(self._data, self._at))
            if self._at < len(self._data):
                return chr(self._data[self._at])
            if not self._read_on():
                return None

    def take(self, expected: str) -> str:
        """Step over the next character, which must be one of `expected`; it is returned."""
        found = self.peek()
        if found is None:
            raise self._cut_short(self.line)
        if found not in expected:
            wanted = " or ".join(repr(item) for item in expected)
            raise BadRecord(NOT_JSON, f"not JSON: expected {wanted}, found {found!a}", self.line)
        self._at += 1
        return found

    def value(self, *, keep: bool = True) -> bytes | None:
        """The bytes of the next value; None when not kept or over the limit (it is stepped over all the same)."""
        first, line = self.peek(), self.line
        if first is None:
            raise self._cut_short(line)
        if first in ",:]}":
            raise BadRecord(NOT_JSON, f"not JSON: a value expected, found {first!r}", line)
        self._kept = self._at if keep else None
        if first in '"[{':
            self._step_nested(line)
        else:
            self._step_scalar()
        start, self._kept = self._kept, None
        if start is None or self._at - start > self._limit:
            return None
        return self._data[start : self._at]

    def _step_scalar(self) -> None:
        while True:
            self._at = _end(_SCALAR.match(self._data, self._at))
            if self._at < len(self._data) or not self._read_on():
                return

    def _step_nested(self, line: int) -> None:
        depth, tokens = 0, 0
        while True:
            tokens += 1
            if tokens % _TOKENS_BY_HAND == 0:
                depth = self._skip_blocks(depth)
            match = _TOKEN.search(self._data, self._at)
            self._at = match.end() if match else len(self._data)
            if match is None:
                self._must_read_on(line)
                continue
            token = match.group()
            if token == b'"':  # the string is not closed in the data at hand
                self._step_string(line)
            else:
                depth += (token in b"[{") - (token in b"]}")
            if depth <= 0:
                return

    def _skip_blocks(self, depth: int) -> int:
        """Step over blocks in which the value at hand does not end, far faster than token by token; the new depth."""
        while True:
            end = _end(_OUTSIDE_STRINGS.match(self._data, self._at, self._at + _BLOCK))
            brackets = _STRINGS.sub(b"", self._data[self._at : end]).translate(_STEPS, _NO_BRACKETS)
            depths = list(accumulate((step - 1 for step in brackets), initial=depth))
            if end <= self._at or min(depths) <= 0:
                return depth
            self._at, depth = end, depths[-1]

    def _step_string(self, line: int) -> None:
        while True:
            self._at = _end(_STRING_TEXT.match(self._data, self._at))
            if self._data[self._at : self._at + 1] == b'"':
                self._at += 1
                return
            self._must_read_on(line)

    def _must_read_on(self, line: int) -> None:
        if not self._read_on():
            raise self._cut_short(line)

    def _read_on(self) -> bool:
        """Read more and drop what is no longer needed; False at the end of the file."""
        _ = self.line  # the newlines of what is dropped are counted
        if self._kept is not None and self._at - self._kept > self._limit:
            self._kept = None
        start = self._at if self._kept is None else self._kept
        rest = self._data[start:]
        # Reading as much again as is held keeps the copying linear for a value of any size.
        chunk = self._stream.read(max(_CHUNK, len(rest)))
        self._data = rest + chunk
        self._at -= start
        self._counted = self._at
        self._kept = None if self._kept is None else 0
        return bool(chunk)

    def _cut_short(self, line: int) -> BadRecord:
        return BadRecord(CUT_SHORT, "the file ends in the middle of a value", line)


def _end(match: re.Match[bytes] | None) -> int:
    return match.end() if match else 0  # these patterns match the empty text, so there always is a match


def elements(scanner: Scanner) -> Iterator[tuple[int, bytes | None]]:
    """(line, bytes) of each element of the array at the cursor; None instead of bytes that are too long."""
    scanner.take("[")
    if scanner.peek() == "]":
        scanner.take("]")
        return
    while True:
        scanner.peek()
        line = scanner.line
        yield line, scanner.value()
        if scanner.take(",]") == "]":
            return


def keys(scanner: Scanner) -> Iterator[str]:
    """The keys of the object at the cursor. After each one the caller must step over its value."""
    scanner.take("{")
    if scanner.peek() == "}":
        scanner.take("}")
        return
    while True:
        if scanner.peek() != '"':
            scanner.take('"')
        line, raw = scanner.line, scanner.value()
        key = decode(raw) if raw is not None else None
        if not isinstance(key, str):
            raise BadRecord(NOT_JSON, "not JSON: a key expected", line)
        scanner.take(":")
        yield key
        if scanner.take(",}") == "}":
            return


def beginning(scanner: Scanner, depth: int = 4) -> Any:
    """What can be told of the next value when the data may be cut anywhere: cut containers are returned as far as
    they go, other values that are cut are None. Lenient: NaN and duplicate keys are no matter here.
    """
    first = scanner.peek()
    if depth > 0 and first == "{":
        return _beginning_object(scanner, depth)
    if depth > 0 and first == "[":
        return _beginning_array(scanner, depth)
    raw = scanner.value()
    try:
        return json.loads(raw.decode()) if raw is not None else None
    except (ValueError, RecursionError):
        return None


def _beginning_object(scanner: Scanner, depth: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    try:
        for key in keys(scanner):
            row[key] = None
            row[key] = beginning(scanner, depth - 1)
    except BadRecord:
        pass  # the data ends here: that is what this function is for
    return row


def _beginning_array(scanner: Scanner, depth: int) -> list[Any]:
    return list(beginnings(scanner, depth))


def beginnings(scanner: Scanner, depth: int = 4) -> Iterator[Any]:
    """The `beginning` of each element of the array at the cursor, as far as the data goes."""
    try:
        scanner.take("[")
        if scanner.peek() == "]":
            scanner.take("]")
            return
        while True:
            yield beginning(scanner, depth - 1)
            if scanner.take(",]") == "]":
                return
    except BadRecord:
        return
