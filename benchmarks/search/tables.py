"""Readings as tables: success with its interval, speed, and what went wrong on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

from .contestants import RANDOM, Contestant
from .world import Reading

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Row:
    """One contestant on one problem: by limit, the readings of all seeds."""

    problem: str
    contestant: Contestant
    readings: dict[int, list[Reading]]

    def speed(self) -> float | None:
        """The median over seeds of transitions per CPU second, at the largest limit that was played."""
        played = self.readings[max(self.readings)] if self.readings else []
        speeds = [reading.transitions / reading.cpu_seconds for reading in played if reading.cpu_seconds > 0.0]
        return median(speeds) if speeds else None

    def counted(self, what: str) -> float:
        """The mean per run over all readings."""
        numbers = [float(getattr(reading, what)) for readings in self.readings.values() for reading in readings]
        return sum(numbers) / len(numbers) if numbers else 0.0

    def record(self) -> dict[str, Any]:
        """What goes into --json."""
        return {
            "problem": self.problem,
            "contestant": self.contestant.name,
            "group": self.contestant.group,
            "absent": self.contestant.absent,
            "readings": [asdict(reading) for readings in self.readings.values() for reading in readings],
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> Row:
        """The row that `record` made; its contestant plays no more."""
        readings: dict[int, list[Reading]] = {}
        for reading in (Reading(**fields) for fields in record["readings"]):
            readings.setdefault(reading.limit, []).append(reading)
        who = Contestant(record["contestant"], record["group"], lambda problem, limits: [], record["absent"])
        return cls(record["problem"], who, readings)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    if not trials:
        return 0.0, 1.0
    share, extra = successes / trials, Z * Z / trials
    middle = (share + extra / 2) / (1 + extra)
    half = Z * sqrt(share * (1 - share) / trials + extra / (4 * trials)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def cell(readings: Sequence[Reading]) -> str:
    """Solved runs in percent with their interval; a dash where nothing was played."""
    if not readings:
        return "–"
    solved = sum(reading.solved for reading in readings)
    low, high = wilson(solved, len(readings))
    return f"{100 * solved / len(readings):.0f} [{100 * low:.0f}–{100 * high:.0f}]"


def table(rows: Sequence[Row], limits: Sequence[int]) -> list[str]:
    """One problem as Markdown lines."""
    pace = next((row.speed() for row in rows if row.contestant.name == RANDOM), None)
    heads = ["who", *(f"solved % @{limit}" for limit in limits), "transitions/CPU-s", "× random"]
    heads += ["stalls", "ended", "ends expanded", "repeats"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(_cells(row, limits, pace)) + " |" for row in rows]


def summary(rows: Sequence[Row], limits: Sequence[int]) -> list[str]:
    """Who is best of each group, a line for each problem and limit."""
    lines = [
        "| problem | transitions | mcts | best of ours | best peer | best plain | random rollouts |",
        "|---" * 7 + "|",
    ]
    for problem in dict.fromkeys(row.problem for row in rows):
        here = [row for row in rows if row.problem == problem]
        for limit in limits:
            groups = ([row for row in here if row.contestant.group == group] for group in ("ours", "peer", "plain"))
            named = (next((row for row in here if row.contestant.name == name), None) for name in ("mcts", RANDOM))
            mcts, rollouts = ("–" if row is None else _percent(row, limit) for row in named)
            cells = [problem, str(limit), mcts, *(_best(group, limit) for group in groups), rollouts]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def _share(row: Row, limit: int) -> float:
    readings = row.readings.get(limit)
    return sum(reading.solved for reading in readings) / len(readings) if readings else -1.0


def _percent(row: Row, limit: int) -> str:
    share = _share(row, limit)
    return "–" if share < 0.0 else f"{100 * share:.0f}"


def _best(rows: Sequence[Row], limit: int) -> str:
    """The highest share and who has it."""
    top = max((_share(row, limit) for row in rows), default=-1.0)
    who = [row.contestant.name for row in rows if _share(row, limit) == top]
    if top <= 0.0:
        return "–" if top < 0.0 else "0"
    return f"{100 * top:.0f} ({', '.join(who) if len(who) < 4 else f'{len(who)} of them'})"


def write_between(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between the page's markers `<!-- figures: name -->` and `<!-- /figures -->`."""
    text = page.read_text("utf-8")
    begin = f"<!-- figures: {name} -->\n"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition("<!-- /figures -->")
    if not found or not closed:
        raise ValueError(f"{page} has no {begin.strip()} ... <!-- /figures -->")
    page.write_text(head + begin + "\n".join(lines) + "\n" + closed + tail, "utf-8")


def _cells(row: Row, limits: Sequence[int], pace: float | None) -> list[str]:
    who = row.contestant
    name = f"**{who.name}**" if who.group == "ours" else who.name
    if who.absent is not None:
        return [f"{name}: not installed", *["–"] * (len(limits) + 6)]
    speed = row.speed()
    ratio = "–" if speed is None or not pace else f"{speed / pace:.2f}"
    shown = "–" if speed is None else f"{speed:,.0f}"
    counts = [f"{row.counted(what):.3g}" for what in ("stalled", "ended", "ends_expanded", "repeats")]
    return [name, *(cell(row.readings.get(limit, [])) for limit in limits), shown, ratio, *counts]
