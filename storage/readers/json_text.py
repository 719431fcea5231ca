"""Strict decoding of one JSON text: what is not plain, finite, unambiguous Unicode JSON is a coded problem.

Decided once for every format (the codes are listed in `storage/ingest.py`): numbers that are not finite, duplicate
keys, lone surrogates, raw NUL bytes, nesting over the limit and integers of more than 4,300 digits make the record
unreadable, because no two later readers (DuckDB, Arrow, a trainer) agree on what they mean. `\\u0000` inside a string
is valid Unicode and is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec
import numpy

from ..canonical import canonical_bytes
from ..errors import IngestError
from ..limits import current
from ..records import Problem

MAX_RECORD_BYTES = 128 * 2**20
"""A line or element over this length is stepped over without being held."""
MAX_STORED_BYTES = 32 * 2**20
"""The most canonical text of one record: the way to the database copies it about ten times (promise P8: 1.5 GiB)."""
MAX_VALUES_MEMORY = 400 * 2**20

NOT_READ = "TTC-E010"
NOT_JSON = "TTC-E011"
WRONG_SHAPE = "TTC-E012"
UNKNOWN_FORMAT = "TTC-E013"
NOT_FINITE = "TTC-E014"
EMPTY_FILE = "TTC-E015"
NO_TRAJECTORIES = "TTC-E016"
DUPLICATE_KEY = "TTC-E017"
NOT_UNICODE = "TTC-E018"
CUT_SHORT = "TTC-E019"
TOO_DEEP = "TTC-E020"
TOO_LONG = "TTC-E021"
HUGE_INTEGER = "TTC-E022"
BAD_GZIP = "TTC-E023"
NUL_BYTES = "TTC-E024"
MORE_PROBLEMS = "TTC-E025"

_CHECK_SIZE_FROM = 2**20
_COLON = ord(":")
_SHORT = 4096  # bytes: up to here numpy is not faster
_PAIRS = numpy.dtype("<u2")
_ESCAPE = int.from_bytes(b"\\u", "little")
_CONTAINERS = (dict, list)
_FAST = msgspec.json.Decoder()
_CONTAINER_BYTES, _VALUE_BYTES = 200, 40  # of a decoded record, as measured, its conversion included
# A closed string, or (group 1) one that is open to the end. Possessive: hostile text cannot make it backtrack.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(")(?:[^"\\]++|\\.)*+\\?\Z', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class BadRecord(IngestError):
    """One record, or the rest of a file, cannot be read. `line` is 1-based in the file, None where unknown."""

    def __init__(self, code: str, message: str, line: int | None = None):
        super().__init__(message, code=code)
        self.at_line = line

    def problem(self, line: int | None = None) -> Problem:
        """The same as data; `line` is used when the error knows none."""
        return Problem(self.error_code, self.message, self.at_line if self.at_line is not None else line)


def wrong_shape(message: str) -> BadRecord:
    """JSON, but not a record of the format."""
    return BadRecord(WRONG_SHAPE, message)


def decode(data: bytes) -> Any:
    """The value of one JSON text. Raises BadRecord with the code of what is wrong with it.

    msgspec decides what is good; whatever it refuses goes to the slow decoder, which says exactly what is wrong.
    """
    check_size(data)
    try:
        value = _FAST.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_exactly(data)
    if len(data) > 2 * current().depth:
        check_depth(value)
    return value if has_all_keys(data, canonical_bytes(value)) else _decode_exactly(data)


def has_all_keys(data: bytes, canonical: bytes) -> bool:
    """Whether no key stood twice in `data`: a lost key took its colon with it. False may also be a false alarm."""
    colons = _colons(data)
    if (
        len(data) < _SHORT or _has_unicode_escapes(data)
    ) and b"\\u003" in data:  # an escaped colon is one in the canonical text only
        colons += data.count(b"\\u003a") + data.count(b"\\u003A")
    return colons == _colons(canonical)


def _colons(data: bytes) -> int:
    if len(data) < _SHORT:
        return data.count(b":")
    return int(numpy.count_nonzero(numpy.frombuffer(data, numpy.uint8) == _COLON))


def _has_unicode_escapes(data: bytes) -> bool:
    """Whether there is a backslash before a `u`: looked for two bytes at a time, three times as fast as `in`."""
    size = len(data)
    even = numpy.frombuffer(data, _PAIRS, size // 2)
    odd = numpy.frombuffer(data, _PAIRS, (size - 1) // 2, 1) if size > 2 else even
    return bool((even == _ESCAPE).any() or (odd == _ESCAPE).any())


def _decode_exactly(data: bytes) -> Any:
    if b"\x00" in data:
        raise BadRecord(NUL_BYTES, "raw NUL bytes: binary data, or a file damaged by a crash")
    if data.count(b"[") + data.count(b"{") > current().depth:
        _check_depth(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord(NOT_UNICODE, f"not UTF-8: byte {error.start + 1} of the record") from None
    value = _parse(text)
    if _SURROGATE_ESCAPE.search(data):
        _check_surrogates(value)
    return value


def _parse(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except _NotFiniteError:
        raise BadRecord(NOT_FINITE, _describe_not_finite(text)) from None
    except json.JSONDecodeError as error:
        raise BadRecord(NOT_JSON, f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python's own limit of 4,300 digits; JSONDecodeError was caught above
        raise BadRecord(HUGE_INTEGER, "an integer of more than 4,300 digits") from None


def balanced(data: bytes) -> bool:
    """Whether `data` closes every bracket and string it opens: a whole JSON value, as far as structure goes."""
    return _open_ends(data) == (False, 0)


def ends_in_string(data: bytes) -> bool:
    """Whether a string is still open at the end of `data`."""
    return _open_ends(data)[0]


def cut_short(data: bytes) -> bool:
    """Whether `data` opens more than it closes."""
    in_string, depth = _open_ends(data)
    return in_string or depth > 0


def _open_ends(data: bytes) -> tuple[bool, int]:
    bare = _without_strings(data)
    depth = bare.count(b"[") + bare.count(b"{") - bare.count(b"]") - bare.count(b"}")
    return b'"' in bare, depth


def _without_strings(data: bytes) -> bytes:
    """Structure only: closed strings are left out, of an open one its quote is left."""
    return _STRINGS.sub(rb"\1", data)


def check_size(data: bytes) -> None:
    """Raise BadRecord when a record is too long, or would take too much memory when decoded."""
    if len(data) > current().line:
        raise too_long(current().line)
    if len(data) <= _CHECK_SIZE_FROM:
        return
    containers, values = data.count(b"[") + data.count(b"{"), data.count(b",")
    if containers * _CONTAINER_BYTES + values * _VALUE_BYTES > MAX_VALUES_MEMORY:
        raise BadRecord(TOO_LONG, f"{containers} containers and {values} values in one record are too many to hold")


def too_long(limit: int) -> BadRecord:
    """The record is longer than `limit` bytes."""
    return BadRecord(TOO_LONG, f"longer than {limit // 2**20} MiB")


def _check_depth(data: bytes) -> None:
    depth = 0
    for bracket in _BRACKETS.findall(_without_strings(data)):
        depth += 1 if bracket in b"[{" else -1
        if depth > current().depth:
            raise _too_deep()


def check_depth(value: Any) -> None:
    """Raise BadRecord when containers are nested deeper than the limit."""
    level = [value]
    for _ in range(current().depth):
        inner = (item.values() if type(item) is dict else item for item in level if type(item) in _CONTAINERS)
        level = [child for children in inner for child in children if type(child) in _CONTAINERS]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BadRecord:
    return BadRecord(TOO_DEEP, f"nested deeper than {current().depth} levels")


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadRecord(NOT_UNICODE, "text that is not Unicode: a lone surrogate (\\ud800 to \\udfff)") from None


class _NotFiniteError(Exception):
    pass


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFiniteError(name)


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _NotFiniteError(text)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRecord(DUPLICATE_KEY, f"key {double[:60]!a} twice in one object")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite_float)


def _describe_not_finite(text: str) -> str:
    """`reward is NaN`: the place and the number, found in a second, lenient pass."""
    try:
        loose = json.loads(text)
    except ValueError:
        return "a number is not finite, and more is wrong with the record"
    for path, value in _floats(loose):
        if value != value or value in (float("inf"), float("-inf")):
            name = "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")
            return f"{path} is {name}"
    return "a number is not finite"  # under a duplicate key that the lenient pass lost


def _floats(value: Any) -> Iterator[tuple[str, float]]:
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, float):
            yield (path or "the value")[:120], item
        elif isinstance(item, dict):
            stack.extend((f"{path}.{key}" if path else key, child) for key, child in reversed(item.items()))
        elif isinstance(item, list):
            stack.extend((f"{path}[{index}]", item[index]) for index in range(len(item) - 1, -1, -1))
