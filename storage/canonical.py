"""Canonical JSON and content hashes: the same value gives the same text and the same id everywhere."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, ASCII only, floats by `repr`. Raises ValueError on NaN and infinities."""
    return _ENCODER.encode(value)


def canonical_bytes(value: Any) -> bytes:
    """The canonical text of a logged record: as `canonical_json`, but UTF-8 and fast; floats in their shortest form.

    `value` is plain JSON. What no UTF-8 can hold (lone surrogates, which no strict reader lets through) is escaped.
    Raises TypeError or ValueError for what is not JSON.
    """
    try:
        encoded: bytes = _record_encoder().encode(value)
    except UnicodeEncodeError:
        return canonical_json(value).encode()
    return encoded


@cache
def _record_encoder() -> Any:
    import msgspec

    return msgspec.json.Encoder(order="sorted")


def content_id(*parts: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of all parts."""
    return hashlib.sha256(canonical_json(parts).encode("ascii")).hexdigest()


def seed_from(*parts: Any) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    return int(content_id(*parts)[:16], 16) >> 1


def plain(value: Any) -> Any:
    """Mappings, tuples and sets of records are plain JSON; anything else is the caller's mistake."""
    if hasattr(value, "keys"):
        return dict(value)
    if isinstance(value, (tuple, set, frozenset)):
        return sorted(value) if isinstance(value, (set, frozenset)) else list(value)
    raise TypeError(f"not JSON: {type(value).__name__}")


# one encoder for all: building it costs more than encoding a small value
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=plain)
