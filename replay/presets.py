"""Named normalisers for what broke replays in practice: two texts are brought into one form, then compared.

A preset takes away what differs from run to run by nature and nothing else: dates without a time are data (the day of a
flight), and so are numbers that merely look like a clock, unless a key says that they are one. `ids` is not here: which
id stands for which is kept from step to step (`naming.py`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

IDS, FLOATS = "ids", "floats"
RELATIVE_TOLERANCE = 1e-6
"""By how much two floats may differ under `floats`, relative to the larger one."""

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"[0-2]\d:[0-5]\d:[0-6]\d(?:[.,]\d{1,9})?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})\b)?"
_TIMES = re.compile(
    "|".join(
        (
            rf"\b\d{{4}}-\d{{2}}-\d{{2}}[T ](?:{_CLOCK}|[0-2]\d:[0-5]\d){_ZONE}",  # ISO 8601, Python's logging
            r"\b\d{8}T\d{6}Z?\b",  # ISO 8601, basic
            rf"\b\d{{4}}/\d{{2}}/\d{{2}} {_CLOCK}{_ZONE}",  # Go, nginx errors
            rf"\b\d{{1,2}}/{_MONTH}/\d{{4}}:{_CLOCK}(?: [+-]\d{{4}})?",  # Apache, nginx
            rf"\b{_DAY},? \d{{1,2}} {_MONTH} \d{{4}} {_CLOCK}{_ZONE}",  # RFC 5322, HTTP
            rf"\b(?:{_DAY} )?{_MONTH} [ \d]\d {_CLOCK}(?: (?:[A-Z]{{3,4}} )?\d{{4}}\b)?",  # ctime, date, syslog
            r"(?<![\w.-])1\d{9}(?:\.\d{1,9}|\d{3}|\d{6}|\d{9})?(?![\w-]|\.\d)",  # epoch: s, ms, us, ns; 2001 to 2033
        )
    )
)
_TIME_NAME = re.compile(
    r"(?:^|_|\b)(?:at|ts|time|timestamp|epoch|mtime|ctime|atime|modified|created|updated|expires|issued|exp|iat|nbf)"
    r"(?:_(?:at|on|time|s|ms|us|ns))?$|time(?:stamp)?$|(?<=[a-z])(?:At|On)$",
    re.IGNORECASE,
)
_TEMPORARY = re.compile(
    r"(?:/private)?/var/folders/\w+/[\w+-]+/[A-Z]"
    r"|(?<![\w.])(?:/private)?(?:/var)?/tmp(?!\w)|/dev/shm(?!\w)|/run/user/\d+"
    r"|[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[^\\/\s\"']+(?:\\{1,2}|/)AppData(?:\\{1,2}|/)Local(?:\\{1,2}|/)Temp"
)
_MADE = re.compile(
    r"(<tmp>(?:\\{1,2}|/))"
    r"(?:pytest-of-[^/\s]+/pytest-\d+|tmp\.?[A-Za-z0-9_]{6,}|[\w-]+[-_.](?=[A-Za-z]*\d)[A-Za-z0-9]{6,})(?!\w)"
)
_HOME = re.compile(
    r"(?<![\w.])(?:/home/[^/\s\"':]+|/Users/[^/\s\"':]+|/root(?=$|[/\s\"':,)])|[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[^\\/\s\"']+)"
)
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")
_CHOICE = r"(?:'[^']*'|\"[^\"]*\"|[\w.-]+)"
_ONE_OF = re.compile(rf"(?i)(\b(?:one|any|subset) of:? )({_CHOICE}(?:(?:, | or |, or ){_CHOICE})+)")
_LISTED = re.compile(r"(?i)(\b(?:one|any|subset) of:? )([\[(])([^\[\]()]*)([\])])")
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\d+)(?![\w.]*\d)")
_QUOTED = {"'": re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL), '"': re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)}
_OPENERS = {"{": "}", "[": "]", "(": ")"}
MAX_DEPTH = 50
"""Brackets within brackets that `sets` looks into."""


def timestamps(text: str) -> str:
    """Points in time by a placeholder: ISO 8601, epoch numbers from 2001 to 2033, common log formats."""
    return _TIMES.sub("<time>", text)


def paths(text: str) -> str:
    """Temporary folders (and the made-up name below one) and home folders by placeholders; the rest of a path stays."""
    text = _MADE.sub(r"\1<made>", _TEMPORARY.sub("<tmp>", text))
    return _HOME.sub("<home>", text)


def addresses(text: str) -> str:
    """Memory addresses (`0x7f3a…`, 6 to 16 digits) by a placeholder."""
    return _ADDRESS.sub("<address>", text)


def sets(text: str) -> str:
    """What is printed in no order of its own is sorted: members of `{…}`, choices after "one of"."""
    text = _ONE_OF.sub(lambda found: found[1] + ", ".join(sorted(re.split(r", or |, | or ", found[2]))), text)
    text = _LISTED.sub(lambda found: found[1] + found[2] + ", ".join(sorted(_members(found[3]))) + found[4], text)
    return _sorted_braces(text) if "{" in text else text


TEXT_PRESETS: dict[str, Callable[[str], str]] = {
    "timestamps": timestamps,
    "paths": paths,
    "addresses": addresses,
    "sets": sets,
}
PRESETS = (IDS, *TEXT_PRESETS, FLOATS)


def canonical(value: Any, names: Sequence[str], key: str = "") -> Any:
    """A parsed observation under text presets: every text in it, and numbers that a key calls a time."""
    if isinstance(value, str):
        for name in names:
            value = TEXT_PRESETS[name](value)
        return value
    if isinstance(value, dict):
        return {canonical(name, names): canonical(item, names, name) for name, item in value.items()}
    if isinstance(value, list):
        return [canonical(item, names, key) for item in value]
    if "timestamps" in names and _is_time(value, key):
        return "<time>"
    return value


def _is_time(value: Any, key: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _TIME_NAME.search(key):
        return False
    return any(10**9 <= value / scale < 2 * 10**9 for scale in (1, 10**3, 10**6, 10**9))


def close(left: float, right: float) -> bool:
    """Whether two numbers are equal but for the last digits of a float; two whole numbers must be equal."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    return math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-12)


def close_texts(left: str, right: str) -> bool:
    """Whether two texts are equal but for the last digits of floats that stand in them."""
    if _NUMBER.sub("<number>", left) != _NUMBER.sub("<number>", right):
        return False
    pairs = zip(_NUMBER.findall(left), _NUMBER.findall(right), strict=True)
    return all(a == b or (not (a.isdigit() and b.isdigit()) and close(float(a), float(b))) for a, b in pairs)


def _sorted_braces(text: str) -> str:
    """The members of every `{…}` in sorted order, innermost first. Quotes are respected; what is not closed stays."""
    parts: list[str] = []
    stack: list[tuple[int, list[int]]] = []  # where in `parts` a brace was opened, and where its commas are
    at = 0
    while at < len(text):
        character = text[at]
        quoted = _quoted(text, at) if stack and character in "'\"" else None
        if quoted is not None:
            parts.append(quoted)
            at += len(quoted)
            continue
        parts.append(character)
        at += 1
        if character in _OPENERS and len(stack) < MAX_DEPTH:
            stack.append((len(parts) - 1, []))
        elif stack and character == "," and parts[stack[-1][0]] == "{":
            stack[-1][1].append(len(parts) - 1)
        elif stack and character == _OPENERS[parts[stack[-1][0]]]:
            start, commas = stack.pop()
            if character == "}" and commas:
                inner = _between(parts, [start, *commas, len(parts) - 1])
                parts[start:] = ["{" + ", ".join(sorted(inner)) + "}"]
            else:
                parts[start:] = ["".join(parts[start:])]
    return "".join(parts)


def _between(parts: Sequence[str], cuts: Sequence[int]) -> list[str]:
    pairs = itertools.pairwise(cuts)
    return ["".join(parts[first + 1 : last]).strip() for first, last in pairs]


def _quoted(text: str, at: int) -> str | None:
    """The quoted text that begins here, None when it never ends or the mark is an apostrophe in a word."""
    if at and text[at - 1].isalnum():
        return None
    found = _QUOTED[text[at]].match(text, at)
    return found[0] if found else None


def _members(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
