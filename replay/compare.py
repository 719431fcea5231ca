"""Compares the observations of one step with the record: exact, JSON-equal, equal after declared rules, or different.

Rules are plain JSON (`--env-opt normalise='{"rename": {"get_user_details": {"province": "state"}}}'`), five sections,
each `{tool name or "*": ...}`; what is not keyed by a tool holds for all tools:

* `rename`: `{old key: new key}`, at any depth, on both sides;
* `ignore`: `[path]`, left out on both sides;
* `replace`: `[[regular expression, replacement]]`, on both texts before they are parsed;
* `unordered`: `[path]` of lists whose order does not matter, or `true` for every list;
* `tolerance`: the largest absolute difference between two numbers.

A path is a key (`date`), the end of a path of keys (`flights.date`) or a whole path (`$.flights.date`); list positions
are not part of a path. A rule is never silent: the level and the rules that were needed are in the `Match`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from ..storage.canonical import canonical_json
from ..storage.errors import UsageError
from ..storage.records import Message

Level: TypeAlias = Literal["exact", "json", "normalised"]
LEVELS: tuple[Level, ...] = ("exact", "json", "normalised")
"""From the strictest to the weakest; the level of a step is the weakest of its results."""

Path: TypeAlias = tuple[str, ...]
EVERY = "*"
_NOTHING = "(no result)"


@dataclass(frozen=True, slots=True)
class Match:
    """How the tool results of one step compare. `level` None: they differ, first at `expected` and `got`."""

    level: Level | None
    expected: str | None = None
    got: str | None = None
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One atomic rule: `old` and `new` are the key pair, the path (`old`) or the pattern and its replacement."""

    kind: Literal["rename", "ignore", "replace", "unordered", "tolerance"]
    tool: str
    old: str = ""
    new: str = ""
    amount: float = 0.0

    @property
    def name(self) -> str:
        """Short text for reports, such as `rename get_user_details: province -> state`."""
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

    def needed(self, tool: str | None, expected: str, got: str) -> tuple[str, ...] | None:
        """Names of a smallest set of rules under which both texts are equal; None when all rules together fail."""
        rules = [rule for rule in self.rules if rule.tool in (EVERY, tool)]
        if not rules or not _equal_under(rules, expected, got):
            return None
        for rule in tuple(rules):
            fewer = [other for other in rules if other is not rule]
            if _equal_under(fewer, expected, got):
                rules = fewer
        return tuple(rule.name for rule in rules)


def compare(expected: Sequence[Message], got: Sequence[Message], normalisers: Normaliser) -> Match:
    """Compare the tool results among two lists of observations; user replies come from the user seam and are left out.

    Results are paired by call id, the rest in order. A result that only one side has is a difference.
    """
    level, rules = 0, dict[str, None]()
    for wanted, found in _pairs(_results(expected), _results(got)):
        if wanted is None or found is None:
            return Match(None, _text(wanted), _text(found))
        reached, needed = _level(_text(wanted), _text(found), found.name or wanted.name, normalisers)
        if reached is None:
            return Match(None, _text(wanted), _text(found))
        level = max(level, reached)
        rules.update(dict.fromkeys(needed))
    return Match(LEVELS[level], rules=tuple(rules))


def _level(expected: str, got: str, tool: str | None, normalisers: Normaliser) -> tuple[int | None, tuple[str, ...]]:
    if expected == got:
        return 0, ()
    if _equal_under((), expected, got):
        return 1, ()
    needed = normalisers.needed(tool, expected, got)
    return (None, ()) if needed is None else (2, needed)


def _results(observations: Sequence[Message]) -> list[Message]:
    return [message for message in observations if message.role in ("tool", "function")]


def _pairs(expected: Sequence[Message], got: Sequence[Message]) -> list[tuple[Message | None, Message | None]]:
    """By call id where the id is there once on both sides; the others in order, the shorter side filled with None."""
    counted = [Counter(message.tool_call_id for message in side) for side in (expected, got)]
    by_id = {message.tool_call_id: message for message in got}
    known = {key for key in by_id if key is not None and counted[0][key] == counted[1][key] == 1}
    rest = iter([message for message in got if message.tool_call_id not in known])
    pairs: list[tuple[Message | None, Message | None]] = [
        (wanted, by_id[wanted.tool_call_id] if wanted.tool_call_id in known else next(rest, None))
        for wanted in expected
    ]
    return pairs + [(None, extra) for extra in rest]


def _text(message: Message | None) -> str:
    if message is None:
        return _NOTHING
    content = message.content
    return canonical_json(content) if content is not None and not isinstance(content, str) else message.text


def _equal_under(rules: Sequence[Rule], expected: str, got: str) -> bool:
    for rule in rules:
        if rule.kind == "replace":
            expected, got = (re.sub(rule.old, rule.new, text) for text in (expected, got))
    if expected == got:
        return True
    try:
        return _equal_parsed(rules, json.loads(expected), json.loads(got))
    except (ValueError, RecursionError):  # not JSON, or nested deeper than any tool result is
        return False


def _equal_parsed(rules: Sequence[Rule], left: Any, right: Any) -> bool:
    reshaping = [rule for rule in rules if rule.kind in ("rename", "ignore")]
    if reshaping:
        left, right = _reshaped(left, reshaping, ()), _reshaped(right, reshaping, ())
    tolerance = max((rule.amount for rule in rules if rule.kind == "tolerance"), default=0.0)
    unordered = [rule for rule in rules if rule.kind == "unordered"]
    return _equal(left, right, (), tolerance, lambda path: any(rule.covers(path) for rule in unordered))


def _reshaped(value: Any, rules: Sequence[Rule], path: Path) -> Any:
    """A copy with keys renamed and ignored paths left out; a rename never overwrites a key that is already there."""
    if isinstance(value, list):
        return [_reshaped(item, rules, path) for item in value]
    if not isinstance(value, dict):
        return value
    renames = {rule.old: rule.new for rule in rules if rule.kind == "rename"}
    ignored = [rule for rule in rules if rule.kind == "ignore"]
    kept = {}
    for key, item in value.items():
        name = renames[key] if renames.get(key, key) not in value and key in renames else key
        here = (*path, name)
        if not any(rule.covers(here) for rule in ignored):
            kept[name] = _reshaped(item, rules, here)
    return kept


def _equal(left: Any, right: Any, path: Path, tolerance: float, unordered: Callable[[Path], bool]) -> bool:
    """Equal as JSON: 1 equals 1.0, true does not equal 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            _equal(item, right[key], (*path, key), tolerance, unordered) for key, item in left.items()
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and _equal_lists(left, right, path, tolerance, unordered)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right or abs(left - right) <= tolerance
    return bool(left == right)


def _equal_lists(
    left: list[Any], right: list[Any], path: Path, tolerance: float, unordered: Callable[[Path], bool]
) -> bool:
    if not unordered(path):
        return all(_equal(a, b, path, tolerance, unordered) for a, b in zip(left, right, strict=True))
    rest = list(right)
    for item in left:
        twin = next((at for at, other in enumerate(rest) if _equal(item, other, path, tolerance, unordered)), None)
        if twin is None:
            return False
        del rest[twin]
    return True


def normalisers_from(config: Mapping[str, Any] | None) -> Normaliser:
    """Build the rules from plain JSON (the module's docstring says its form); None has none. Raises UsageError."""
    return _parsed(json.dumps(config)) if config else Normaliser()


@lru_cache(maxsize=64)
def _parsed(text: str) -> Normaliser:
    config = json.loads(text)
    sections = {"rename": _renames, "ignore": _paths, "replace": _replaces, "unordered": _paths, "tolerance": _amount}
    rules: list[Rule] = []
    for kind, given in config.items():
        if kind not in sections:
            raise _wrong(f"there is no section {kind!r}", f"sections are {', '.join(sections)}")
        try:
            for tool, value in _per_tool(kind, given).items():
                rules.extend(sections[kind](kind, tool, value))
        except (TypeError, ValueError, AttributeError, re.error) as cause:
            raise _wrong(f"section {kind!r}: {cause}", "see ttc_replay.replay.compare for the form") from cause
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
