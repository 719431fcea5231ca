"""Whether two results are the same answer: rows with duplicates, in any order unless one was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

TOLERANCE = 1e-6
"""Relative and absolute: sums of floats taken in another order agree far better."""
MATCH_AT_MOST = 400
"""Rows up to which each is looked for among all others when sorting did not line them up."""

Rows = Sequence[Sequence[Any]]


def same_rows(expected: Rows, got: Rows, *, ordered: bool) -> bool:
    """Compare by position of columns, not by their names. NULL equals only NULL; 1 equals 1.0; texts are compared as
    they are. Rows are a multiset, a list when `ordered`."""
    if len(expected) != len(got):
        return False
    if ordered:
        return all(_same(left, right) for left, right in zip(expected, got, strict=True))
    pairs = zip(sorted(expected, key=_place), sorted(got, key=_place), strict=True)
    if all(_same(left, right) for left, right in pairs):
        return True
    return len(expected) <= MATCH_AT_MOST and _matched(expected, list(got))


def _matched(expected: Rows, rest: list[Sequence[Any]]) -> bool:
    """Two numbers that differ by a hair may sort rows apart; so look for a partner of each."""
    for row in expected:
        twin = next((at for at, other in enumerate(rest) if _same(row, other)), None)
        if twin is None:
            return False
        del rest[twin]
    return True


def _same(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(_equal(a, b) for a, b in zip(left, right, strict=True))


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(left) is type(right) and bool(left == right)


def _place(row: Sequence[Any]) -> list[tuple[int, float, str]]:
    """A sort key over values of any kind."""
    return [
        (1, float(value), "")
        if isinstance(value, (int, float))
        else (2, 0.0, str(value))
        if value is not None
        else (0, 0.0, "")
        for value in row
    ]
