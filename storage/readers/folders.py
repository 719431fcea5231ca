"""Folders in which every file is one event of a run: whether one is, and in which order its files stand.

OpenHands keeps v0 runs as `events/0.json`, `events/1.json`, ... and v1 runs as `events/event-00000-ID.json`, ... The
ingest presents such a folder as one stream: a JSON array of the files' contents in this order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"\d{1,18}")
_SOURCES = ("agent", "user", "environment", "hook")
_V1_KIND = re.compile(r"[A-Z]\w*(?:Event|Observation|Condensation|Request)|Condensation")


def is_event_folder(names: Sequence[str], first: Mapping[str, Any]) -> bool:
    """Whether the JSON files of a folder are the events of one run.

    `names` are the files' names without the folder, `first` is the content of the first one in `event_order` (parsed
    leniently). Content decides; the names must be numbered and not repeat a number, for else they have no order.
    """
    numbers = [_number(name) for name in names]
    if not numbers or None in numbers or len(set(numbers)) != len(numbers):
        return False
    return is_event(first)


def event_order(names: Sequence[str]) -> list[str]:
    """The names by the first number in each, then by name; names without one stand last."""
    return sorted(names, key=lambda name: (_number(name) is None, _number(name) or 0, name))


def _number(name: str) -> int | None:
    found = _NUMBER.search(name.rpartition("/")[2])
    return int(found[0]) if found else None


def is_event(row: Any) -> bool:
    """Whether the object is an event of OpenHands, v0 or v1."""
    if not isinstance(row, dict) or row.get("source", "environment") not in _SOURCES:
        return False
    if isinstance(row.get("kind"), str):
        return isinstance(row.get("id"), str) and _V1_KIND.fullmatch(row["kind"]) is not None
    number = row.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        return False
    return any(isinstance(row.get(key), str) for key in ("action", "observation"))
