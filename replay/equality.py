"""Whether two observations are equal under given rules, and up to which renaming of ids."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .naming import Names, Pair, Permit, accepted
from .presets import FLOATS, IDS, TEXT_PRESETS, canonical, close, close_texts
from .rules import Path, Rule


def _nothing() -> Iterable[str]:
    return ()


@dataclass(slots=True)
class Naming:
    """What is known of ids while observations are compared, step after step.

    `names` grows with every comparison that needed more. `permit` says which new pairs may be re-bound without a
    declared rule (None: none). `settled` gives the ids that stand for themselves; it is asked only where ids differ.
    """

    names: Names
    permit: Permit | None = None
    settled: Callable[[], Iterable[str]] = _nothing


def agree(rules: Sequence[Rule], expected: str, got: str, naming: Naming, permit: Permit | None = None) -> Names | None:
    """The names under which both texts are equal under the rules; None when they are not.

    In `got` what `naming.names` knows is in the record's ids already. `permit`: which further pairs of ids may be taken
    besides those that the preset `ids` allows.
    """
    for rule in rules:
        if rule.kind == "replace":
            expected, got = (re.sub(rule.old, rule.new, text) for text in (expected, got))
    if expected == got:
        return naming.names
    left, right = (_prepared(rules, value) for value in _both(expected, got))
    names = naming.names
    if may := _may(rules, permit):
        names, right = accepted(names, left, right, may, naming.settled)
    return names if _equal_values(rules, left, right) else None


def _both(expected: str, got: str) -> tuple[Any, Any]:
    """Both as JSON; as texts when one is none, or nested deeper than any tool result is."""
    try:
        return json.loads(expected), json.loads(got)
    except (ValueError, RecursionError):
        return expected, got


def _prepared(rules: Sequence[Rule], value: Any) -> Any:
    presets = [rule.old for rule in rules if rule.kind == "preset" and rule.old in TEXT_PRESETS]
    if presets:
        value = canonical(value, presets)
    reshaping = [rule for rule in rules if rule.kind in ("rename", "ignore")]
    return reshaped(value, reshaping, ()) if reshaping else value


def _has(rules: Sequence[Rule], preset: str) -> bool:
    return any(rule.kind == "preset" and rule.old == preset for rule in rules)


def _may(rules: Sequence[Rule], permit: Permit | None) -> Permit | None:
    if not _has(rules, IDS):
        return permit

    def may(pair: Pair) -> bool:
        return pair.strong or (permit is not None and permit(pair))

    return may


@dataclass(frozen=True, slots=True)
class _How:
    tolerance: float
    floats: bool
    unordered: Callable[[Path], bool]


def _equal_values(rules: Sequence[Rule], left: Any, right: Any) -> bool:
    tolerance = max((rule.amount for rule in rules if rule.kind == "tolerance"), default=0.0)
    unordered = [rule for rule in rules if rule.kind == "unordered"]
    how = _How(tolerance, _has(rules, FLOATS), lambda path: any(rule.covers(path) for rule in unordered))
    return _equal(left, right, (), how)


def reshaped(value: Any, rules: Sequence[Rule], path: Path) -> Any:
    """A copy with keys renamed and ignored paths left out; a rename never overwrites a key that is already there."""
    if isinstance(value, list):
        return [reshaped(item, rules, path) for item in value]
    if not isinstance(value, dict):
        return value
    renames = {rule.old: rule.new for rule in rules if rule.kind == "rename"}
    ignored = [rule for rule in rules if rule.kind == "ignore"]
    kept = {}
    for key, item in value.items():
        name = renames[key] if renames.get(key, key) not in value and key in renames else key
        here = (*path, name)
        if not any(rule.covers(here) for rule in ignored):
            kept[name] = reshaped(item, rules, here)
    return kept


def _equal(left: Any, right: Any, path: Path, how: _How) -> bool:
    """Equal as JSON: 1 equals 1.0, true does not equal 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            _equal(item, right[key], (*path, key), how) for key, item in left.items()
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and _equal_lists(left, right, path, how)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right or abs(left - right) <= how.tolerance or (how.floats and close(left, right))
    if how.floats and isinstance(left, str) and isinstance(right, str):
        return close_texts(left, right)
    return bool(left == right)


def _equal_lists(left: list[Any], right: list[Any], path: Path, how: _How) -> bool:
    if not how.unordered(path):
        return all(_equal(a, b, path, how) for a, b in zip(left, right, strict=True))
    rest = list(right)
    for item in left:
        twin = next((at for at, other in enumerate(rest) if _equal(item, other, path, how)), None)
        if twin is None:
            return False
        del rest[twin]
    return True
