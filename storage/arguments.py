"""The arguments of a logged call: one way of reading the text, whoever reads it, so that stored logs read alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .codec import parse_arguments
from .readers.json_text import DUPLICATE_KEY, BadRecord, decode


def call_arguments(raw: str) -> Mapping[str, Any] | None:
    """The JSON object in the text of a call's arguments; None when there is none, or one that cannot be kept (NaN, too
    deep, not Unicode). Of a key that stands twice the last value holds, as in every agent that runs such a call.
    """
    if not raw.strip():
        return {}
    try:
        parsed = decode(raw.encode("utf-8", "surrogatepass"))
    except BadRecord as error:
        return parse_arguments(raw) if error.error_code == DUPLICATE_KEY else None
    return parsed if isinstance(parsed, dict) else None
