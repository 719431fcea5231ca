"""Rules under which an observation still counts as equal to the record's, and how they are written.

Rules are plain JSON (`--env-opt normalise='{"presets": ["timestamps"]}'`) in six sections, each keyed by tool name or
"*"; what is not keyed by a tool holds for all tools:

* `presets`: names of ready-made rules (`presets.py`): ids, timestamps, paths, addresses, sets, floats;
* `rename`: `{old key: new key}`, at any depth, on both sides;
* `ignore`: `[path]`, left out on both sides;
* `replace`: `[[regular expression, replacement]]`, on both texts before they are parsed;
* `unordered`: `[path]` of lists whose order does not matter, or `true` for every list;
* `tolerance`: the largest absolute difference between two numbers.

A path is a key (`date`), the end of a path of keys (`flights.date`) or a whole path (`$.flights.date`); list positions
are not part of a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from ..storage.errors import UsageError
from .presets import PRESETS

Path: TypeAlias = tuple[str, ...]
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """One atomic rule: `old` and `new` are the key pair, the path (`old`) or the pattern and its replacement."""

    kind: Literal["rename", "ignore", "replace", "unordered", "tolerance", "preset"]
    tool: str
    old: str = ""
    new: str = ""
    amount: float = 0.0

    @property
    def name(self) -> str:
        """Short text for reports, such as `rename get_user_details: province -> state`."""
        if self.kind == "preset":
            return f"preset {self.tool}: {self.old}"
        if self.kind == "tolerance":
            return f"tolerance {self.tool}: {self.amount:g}"
        return f"{self.kind} {self.tool}: {self.old}" + (
            f" -> {self.new}" if self.kind in ("rename", "replace") else ""
        )

    def covers(self, path: Path) -> bool:
        """Whether a path rule holds for a value at `path` (keys only)."""
        if self.old == EVERY:
            return True
        parts = tuple(self.old.split("."))
        return path == parts[1:] if parts[0] == "$" else path[-len(parts) :] == parts


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Declared rules, atomic and in order. Build one with `normalisers_from`."""

    rules: tuple[Rule, ...] = ()

    def of(self, tool: str | None) -> Sequence[Rule]:
        """The rules that hold for results of this tool."""
        return [rule for rule in self.rules if rule.tool in (EVERY, tool)]


def normalisers_from(config: Mapping[str, Any] | None) -> Normaliser:
    """Build the rules from plain JSON (the module's docstring says its form); None has none. Raises UsageError."""
    return _parsed(json.dumps(config)) if config else Normaliser()


@lru_cache(maxsize=64)
def _parsed(text: str) -> Normaliser:
    config = json.loads(text)
    sections = {
        "presets": _presets,
        "rename": _renames,
        "ignore": _paths,
        "replace": _replaces,
        "unordered": _paths,
        "tolerance": _amount,
    }
    rules: list[Rule] = []
    for kind, given in config.items():
        if kind not in sections:
            raise _wrong(f"there is no section {kind!r}", f"sections are {', '.join(sections)}")
        try:
            for tool, value in _per_tool(kind, given).items():
                rules.extend(sections[kind](kind, tool, value))
        except (TypeError, ValueError, AttributeError, re.error) as cause:
            raise _wrong(f"section {kind!r}: {cause}", "see ttc_replay.replay.rules for the form") from cause
    return Normaliser(tuple(rules))


def _wrong(problem: str, hint: str) -> UsageError:
    return UsageError(f"normalise: {problem}", hint=hint)


def _per_tool(kind: str, given: Any) -> Mapping[str, Any]:
    """The section keyed by tool; a section without tools holds for all of them."""
    keyed = isinstance(given, dict) and (kind != "rename" or all(isinstance(item, dict) for item in given.values()))
    return given if keyed else {EVERY: given}


def _renames(_: str, tool: str, value: Any) -> list[Rule]:
    if not all(isinstance(new, str) for new in value.values()):
        raise TypeError("a new key is not a text")
    return [Rule("rename", tool, old, new) for old, new in value.items()]


def _paths(kind: str, tool: str, value: Any) -> list[Rule]:
    if value is False:
        return []
    paths = [EVERY] if value is True and kind == "unordered" else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise TypeError("a list of paths is needed")
    named: Literal["ignore", "unordered"] = "ignore" if kind == "ignore" else "unordered"
    return [Rule(named, tool, path) for path in paths]


def _replaces(_: str, tool: str, value: Any) -> list[Rule]:
    rules = [Rule("replace", tool, str(pattern), str(replacement)) for pattern, replacement in value]
    for rule in rules:
        re.sub(rule.old, rule.new, "")  # a wrong pattern or group reference is said now, not at the first step
    return rules


def _amount(_: str, tool: str, value: Any) -> list[Rule]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise TypeError("a number of at least 0 is needed")
    return [Rule("tolerance", tool, amount=float(value))]


def _presets(_: str, tool: str, value: Any) -> list[Rule]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("a list of names is needed")
    if unknown := [name for name in value if name not in PRESETS]:
        raise ValueError(f"there is no preset {unknown[0]!r}; presets are {', '.join(PRESETS)}")
    return [Rule("preset", tool, name) for name in value]
