"""What one ingest may cost: the most of a line, a file, an archive or a nesting that is read. Flags of `ingest`.

The limits in force stand in a context variable, so that readers and the decoder need no parameter for them. A thread
starts without them: one that reads must run in a copy of the context (`contextvars.copy_context().run`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .errors import UsageError

MOST_DEPTH = 240
"""No limit on nesting may be higher: parsers and encoders further on stop at 254 levels."""

_UNITS = {"": 1, "b": 1, "k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20, "g": 2**30, "gib": 2**30}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "t": 2**40, "tib": 2**40, "tb": 10**12}
_SIZE = re.compile(r"(\d{1,15})(?:\.(\d{1,6}))?\s*([a-z]*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """`line`: bytes of one record. `file`: bytes of one file, unpacked. `ratio`: unpacked to packed bytes.

    `depth`: levels of nesting in a record. `members`: files in one archive. Raises UsageError for values below 1, and
    for a depth over `MOST_DEPTH`.
    """

    line: int = 128 * 2**20
    file: int = 8 * 2**30
    ratio: int = 200
    depth: int = 200
    members: int = 100_000

    def __post_init__(self) -> None:
        for name in ("line", "file", "ratio", "depth", "members"):
            if getattr(self, name) < 1:
                raise UsageError(f"--max-{name} {getattr(self, name)}", hint="at least 1")
        if self.depth > MOST_DEPTH:
            raise UsageError(f"--max-depth {self.depth}", hint=f"at most {MOST_DEPTH}: nothing further on reads more")


DEFAULT = Limits()
limits: ContextVar[Limits] = ContextVar("limits", default=DEFAULT)


def current() -> Limits:
    """The limits in force."""
    return limits.get()


@contextmanager
def using(wanted: Limits) -> Iterator[None]:
    """Put `wanted` in force."""
    token = limits.set(wanted)
    try:
        yield
    finally:
        limits.reset(token)


def parse_size(text: str, flag: str = "size") -> int:
    """The bytes of "256MiB", "1.5GB" or "1000". Raises UsageError, naming `flag`, for anything else."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[3].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"{flag} {text!r} is no size", hint="bytes, or a number with KiB, MiB, GiB, KB, MB or GB")
    fraction = match[2] or ""
    return int(match[1]) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def shown_size(size: int) -> str:
    """A size for people: the largest unit in which it is a whole number."""
    for name, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"
