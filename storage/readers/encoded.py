"""Values that a log keeps as JSON text."""

from __future__ import annotations

from typing import Any

from .json_text import BadRecord, decode

_ENCODED = 3


def opened(value: Any) -> Any:
    """The list, object or text inside JSON text, however often it was encoded; anything else as it is."""
    for _ in range(_ENCODED):
        if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
            return value
        try:
            inner = decode(value.encode())
        except (BadRecord, UnicodeEncodeError):
            return value
        if not isinstance(inner, (str, dict, list)):
            return value
        value = inner
    return value
