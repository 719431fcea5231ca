"""What a query gave, and its text: JSON of one form whatever the engine, so that a run repeats and can be compared."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

DIGITS = 12
"""Significant digits of a float: sums taken in another order, or by another version, end in other last digits."""


class Refused(Exception):
    """A statement that cannot be executed or is not allowed; its text is for the agent."""


class WriteNeeded(Refused):
    """The statement would change the database, and this connection only reads."""


class TimedOut(Refused):
    """The statement ran into the time-out. Says something of the machine, too, so it is no verdict on a query."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one statement: wall seconds, rows fetched, bytes of the observation, characters of one value in it."""

    timeout_seconds: float = 10.0
    max_rows: int = 50
    max_bytes: int = 16_384
    max_characters: int = 400


@dataclass(frozen=True, slots=True)
class Result:
    """Columns and rows of a statement. `more`: there are rows beyond those fetched. `changed`: rows that a statement
    without a result changed, as far as the engine counts them."""

    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    more: bool = False
    changed: int | None = None


def shown(result: Result, limits: Limits) -> dict[str, Any]:
    """The result as JSON: `columns`, `types`, `rows`, and `truncated`, a text, when not all rows are there.

    Rows are cut to `max_rows`, then so that their text has at most `max_bytes` (the first row always stands).
    """
    if not result.columns:
        return {"ok": True} if result.changed is None else {"ok": True, "rows_changed": result.changed}
    rows: list[list[Any]] = []
    used = 0
    for row in result.rows[: limits.max_rows]:
        plain = [_cut(value, limits) for value in map(plain_value, row)]
        used += len(text_of(plain).encode("utf-8", "replace"))
        if rows and used > limits.max_bytes:
            break
        rows.append(plain)
    answer: dict[str, Any] = {"columns": list(result.columns), "types": list(result.types), "rows": rows}
    if result.more or len(rows) < len(result.rows):
        answer["truncated"] = f"only the first {len(rows)} rows are shown; there are more"
    return answer


def text_of(value: Any) -> str:
    """JSON text of a plain value."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def plain_value(value: Any) -> Any:
    """A database value as JSON. NULL is null; whole numbers and booleans stay; floats have 12 significant digits.

    Exact decimals, dates (ISO 8601), and floats that are no number (`NaN`, `Infinity`) become text, bytes become
    `x'6162'`; lists and structs become arrays and objects.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"x'{bytes(value).hex()}'"
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    return str(value)


def _float(value: float) -> float | str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.{DIGITS}g}") + 0.0  # -0.0 becomes 0.0


def _cut(value: Any, limits: Limits) -> Any:
    """Long texts, and anything whose JSON text is long, cut with a mark that says by how much."""
    text = value if isinstance(value, str) else text_of(value)
    if len(text) <= limits.max_characters:
        return value
    return f"{text[: limits.max_characters]}… (+{len(text) - limits.max_characters} characters)"
