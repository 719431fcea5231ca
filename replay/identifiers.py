"""Which arguments of a call look like identifiers, and whether a text holds one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NAME = re.compile(
    r"(?:^|_)(?:id|ids|uuid|number|code|codes|ref|reference|key|sku|iban|account|invoice|order|line)$", re.IGNORECASE
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHAPE = re.compile(r"[A-Za-z]+[-_#]?[0-9]{2,}[A-Za-z0-9_-]*")
_PLAIN = re.compile(r"[A-Za-z0-9#][A-Za-z0-9_.:#/-]*")
_TIME = re.compile(r"\d{1,4}[-/:.]\d{1,2}(?:[-/:.]\d{1,4})?(?:[T ].*)?")
SHORTEST, SHORTEST_BY_SHAPE = 3, 5
MAX_DEPTH = 20


def identifiers(arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each argument, nested ones too, that looks like an identifier.

    It has no spaces, is no date or time, has a digit, and either its name says so (`id`, `order_id`, `userId`,
    `invoice`, `account`, ...; three characters or more) or it is letters followed by digits (`HAT170`, `INV-0042`; five
    or more). Words without a digit (airport codes, currencies) are known to an agent without being read.
    """
    for name, value in arguments.items():
        yield from _inside(str(name), value, 0)


def _inside(name: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        for key, item in value.items():
            yield from _inside(str(key), item, depth + 1)
    elif isinstance(value, (list, tuple)) and depth < MAX_DEPTH:
        for item in value:
            yield from _inside(name, item, depth + 1)
    elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        text = str(value)
        if _is_identifier(name, text, numeric=not isinstance(value, str)):
            yield name, text


def _is_identifier(name: str, text: str, *, numeric: bool) -> bool:
    if not _PLAIN.fullmatch(text) or _TIME.fullmatch(text) or not any(letter.isdigit() for letter in text):
        return False
    if _NAME.search(_CAMEL.sub("_", name)):
        return len(text) >= SHORTEST
    return not numeric and len(text) >= SHORTEST_BY_SHAPE and _SHAPE.fullmatch(text) is not None


def seen_in(identifier: str, texts: Sequence[str]) -> bool:
    """Whether a text holds the identifier as a word of its own, in any case; a leading # may be missing."""
    word = identifier.lstrip("#")
    whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", re.IGNORECASE)
    return any(whole.search(text) for text in texts)
