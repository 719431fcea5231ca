"""One big JSON document whose runs are one of its lists: the rest of it is held, the list is streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..limits import current
from ..records import Rejected
from .json_input import Record, rewind
from .json_scan import Scanner, elements, keys
from .json_text import DUPLICATE_KEY, NOT_JSON, WRONG_SHAPE, BadRecord, decode, too_long

Decoder = Callable[[bytes], Any]
Rows = Iterator[Record | Rejected]


def split_document(
    stream: BinaryIO, big: str, needed: frozenset[str], decoder: Decoder = decode
) -> tuple[dict[str, Any], Rows | None]:
    """(the other keys, the elements of the list `big`; None when the document has no such key or it is null).

    One pass when all of `needed` stand before the list (what stands behind it is then checked but not returned); else
    a second one. Raises BadRecord, here or while the elements are read, where the document itself is broken.
    """
    rewind(stream)
    scanner = Scanner(stream)
    found: dict[str, Any] = {}
    seen: set[str] = set()
    late = False
    walk = _unique_keys(scanner, seen)
    for key in walk:
        if key == big and needed <= seen:
            return found, _streamed(scanner, walk, big, decoder)
        if key == big:
            late = True
            scanner.value(keep=False)
        else:
            found[key] = _decoded(scanner, decoder)
    _at_end(scanner)
    return found, _late(stream, big, decoder) if late else None


def _unique_keys(scanner: Scanner, seen: set[str]) -> Iterator[str]:
    for key in keys(scanner):
        if key in seen:
            raise BadRecord(DUPLICATE_KEY, f"key {key[:60]!a} twice in one object", scanner.line)
        seen.add(key)
        yield key


def _streamed(scanner: Scanner, walk: Iterator[str], big: str, decoder: Decoder) -> Rows:
    yield from _elements(scanner, big, decoder)
    for _ in walk:
        scanner.value(keep=False)
    _at_end(scanner)


def _late(stream: BinaryIO, big: str, decoder: Decoder) -> Rows:
    rewind(stream)
    scanner = Scanner(stream)
    for key in keys(scanner):
        if key == big:
            yield from _elements(scanner, big, decoder)
        else:
            scanner.value(keep=False)


def _elements(scanner: Scanner, big: str, decoder: Decoder) -> Rows:
    if scanner.peek() != "[":
        line, other = scanner.line, _decoded(scanner, decoder)
        if other is not None:
            raise BadRecord(WRONG_SHAPE, f"`{big}` is not a list", line)
        return
    for position, (line, raw) in enumerate(elements(scanner)):
        try:
            yield Record(_strictly(raw, line, decoder), line, position)
        except BadRecord as error:
            yield Rejected(error.problem(line))


def _decoded(scanner: Scanner, decoder: Decoder) -> Any:
    line = scanner.line
    return _strictly(scanner.value(), line, decoder)


def _strictly(raw: bytes | None, line: int, decoder: Decoder) -> Any:
    try:
        if raw is None:
            raise too_long(current().line)
        return decoder(raw)
    except BadRecord as error:
        raise BadRecord(error.error_code, error.message, line) from None


def _at_end(scanner: Scanner) -> None:
    if scanner.peek() is not None:
        raise BadRecord(NOT_JSON, "more text behind the end of the document", scanner.line)
