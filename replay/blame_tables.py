"""Over many runs: which tools and which kinds of step lose them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..storage.records import Trajectory
from .detectors import detect, kinds, step_tool
from .statistics import wilson_interval

MESSAGE = "(message)"
PIVOTAL = "pivotal"


def by_tool(
    records: Iterable[Trajectory], rows: Sequence[Mapping[str, Any]], success_at: float
) -> list[dict[str, Any]]:
    """One row per tool and kind. A detector's row: in which share of the lost and of the won runs it found something,
    with 95 % Wilson intervals; runs without a verdict are left out. The row of kind `pivotal`: in which share of the
    blamed runs with a pivotal step that step was of this tool, and what share of all their steps are (`share_steps`).

    `rows`: the trajectories of the report. Rows that speak most against a tool come first.
    """
    lost, won = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    runs = {True: 0, False: 0}
    steps = {row["id"]: row for row in rows if row["pivotal"]}
    used: Counter[str] = Counter()
    for record in records:
        if record.id in steps:
            used.update(step_tool(step) for step in record.steps)
        value = record.outcome.value if record.outcome else None
        if value is not None:
            found = {(tool or MESSAGE, kind) for tool, kind in kinds(detect(record))}
            (won if value >= success_at else lost).update(found)
            runs[value >= success_at] += 1
    table = [_row(tool, kind, lost[tool, kind], won[tool, kind], runs) for tool, kind in sorted({*lost, *won})]
    table.sort(key=lambda row: (-(row["share_lost"] or 0.0) + (row["share_won"] or 0.0), row["kind"], row["tool"]))
    return [*_pivotal(list(steps.values()), used), *table]


def _row(tool: str, kind: str, lost: int, won: int, runs: Mapping[bool, int]) -> dict[str, Any]:
    return {
        "tool": tool,
        "kind": kind,
        "runs": lost + won,
        **_share("lost", lost, runs[False]),
        **_share("won", won, runs[True]),
        "share_steps": None,
    }


def _pivotal(rows: Sequence[Mapping[str, Any]], used: Counter[str]) -> list[dict[str, Any]]:
    counted = Counter(next(step["tool"] for step in row["steps"] if _is_pivotal(row, step)) for row in rows)
    return [
        {
            "tool": tool,
            "kind": PIVOTAL,
            "runs": count,
            **_share("lost", count, len(rows)),
            **_share("won", None, 0),
            "share_steps": round(used[tool] / used.total(), 4) if used else None,
        }
        for tool, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    ]


def _is_pivotal(row: Mapping[str, Any], step: Mapping[str, Any]) -> bool:
    return bool(step["index"] == row["pivotal"]["step"])


def _share(name: str, count: int | None, runs: int) -> dict[str, Any]:
    """A count of so many runs, its share and the 95 % interval of that; no share of no runs."""
    if count is None or not runs:
        return {name: count, f"share_{name}": None, f"{name}_low": None, f"{name}_high": None}
    low, high = wilson_interval(count, runs)
    return {
        name: count,
        f"share_{name}": round(count / runs, 4),
        f"{name}_low": round(low, 4),
        f"{name}_high": round(high, 4),
    }
