"""What an agent knows at one point of a conversation: the observations of each tool, parsed, and what the user said."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
MISSING: Any = object()
"""No value at that place; None is a value."""

MAX_BACK = 3
"""How many observations of one tool are looked at, from the latest."""
MAX_LEAVES = 4000
"""Values of one observation that are indexed; later ones have no provenance."""
MAX_DEPTH = 40
"""How deep an observation is indexed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in an observation. `key`: it is a member's name; the path ends in the member's number."""

    path: Path
    key: bool = False


@dataclass(slots=True)
class Facts:
    """Observations by tool and the user's texts, both in the order in which they came in. Not thread-safe."""

    observations: dict[str, list[Any]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    _order: list[tuple[str, Any]] = field(default_factory=list)
    _indexes: dict[int, Mapping[Hashable, Sequence[Place]]] = field(default_factory=dict)

    def observe(self, tool: str, value: Any) -> None:
        """A tool answered `value`: parsed JSON, or the text where it is none."""
        self.observations.setdefault(tool, []).append(value)
        self._order.append((tool, value))

    def hear(self, text: str) -> None:
        """The user said `text`."""
        self.said.append(text)

    def latest(self, tool: str, back: int = 0) -> Any:
        """The observation of `tool` that lies `back` before its latest, or MISSING."""
        values = self.observations.get(tool, ())
        return values[-1 - back] if back < len(values) else MISSING

    def places(self, identity: Hashable) -> Iterator[tuple[str, int, Sequence[Place]]]:
        """(tool, back, places) of each observation that holds the value, the latest first, MAX_BACK a tool."""
        seen: dict[str, int] = {}
        for number in range(len(self._order) - 1, -1, -1):
            tool = self._order[number][0]
            back = seen[tool] = seen.get(tool, -1) + 1
            if back < MAX_BACK and (found := self._index(number).get(identity)):
                yield tool, back, found

    def _index(self, number: int) -> Mapping[Hashable, Sequence[Place]]:
        if number not in self._indexes:
            self._indexes[number] = index_of(self._order[number][1])
        return self._indexes[number]


def parse_observation(text: str) -> Any:
    """The JSON value in an observation's text, else the stripped text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()


def index_of(value: Any) -> dict[Hashable, list[Place]]:
    """By identity, the places of each value of an observation."""
    found: dict[Hashable, list[Place]] = {}
    for place, leaf in itertools.islice(_places(value, ()), MAX_LEAVES):
        if (identity := identity_of(leaf)) is not None:
            found.setdefault(identity, []).append(place)
    return found


def identity_of(value: Any) -> Hashable | None:
    """What makes two scalars the same value: 5 and 5.0 are, 1 and true are not. None: no value to look for."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return ("number", value)


def last_name(path: Path) -> str:
    """The last member name on a path, empty when it has only indexes."""
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def follow(value: Any, path: Path, *, keys: bool = False) -> Any:
    """The value at `path` or MISSING. `keys`: the last part is the number of a member, whose name is the value."""
    for number, part in enumerate(path):
        if keys and number == len(path) - 1 and isinstance(value, dict):
            value = list(value)
        value = _member(value, part)
        if value is MISSING:
            return MISSING
    return value


def _member(value: Any, part: str | int) -> Any:
    if isinstance(part, str):
        return value.get(part, MISSING) if isinstance(value, dict) else MISSING
    return value[part] if isinstance(value, list) and 0 <= part < len(value) else MISSING


def _places(value: Any, path: Path) -> Iterator[tuple[Place, Any]]:
    if len(path) > MAX_DEPTH:
        return
    if isinstance(value, dict):
        for number, (name, item) in enumerate(value.items()):
            yield Place((*path, number), key=True), name
            yield from _places(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))
    else:
        yield Place(path), value
