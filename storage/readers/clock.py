"""Times of logs in one spelling: ISO 8601, in UTC with Z where the zone is known."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any


def utc(value: Any) -> str | None:
    """The time of ISO 8601 text, or of seconds since 1970. A time without a zone keeps having none; None: no time."""
    try:
        if isinstance(value, str):
            return _spelled(datetime.fromisoformat(value.strip()))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _spelled(datetime.fromtimestamp(value, UTC))
    except (ValueError, OverflowError, OSError):
        pass  # placeholders such as "NORMALIZED_TIMESTAMP", and years that no calendar has
    return None


def _spelled(moment: datetime) -> str:
    if moment.tzinfo is None:
        return moment.isoformat()
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def span(times: Iterable[str | None]) -> tuple[str | None, str | None]:
    """The earliest and the latest of times as `utc` spells them; (None, None) when there is none."""
    known = sorted((datetime.fromisoformat(time).replace(tzinfo=UTC), time) for time in times if time is not None)
    return (known[0][1], known[-1][1]) if known else (None, None)
