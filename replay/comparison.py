"""Two runs paired by task, at equal spend: `ttc-replay compare`. What is decided here is in docs/design/compare.md.

Pure: it gets stored results and curves, and reads nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum
from typing import Any

from .curve import TOLERANCE, UNITS, Curve, Spend
from .statistics import bootstrap_interval, holm, mcnemar, rounded, wilcoxon

NEARLY = 0.05
"""How much more than the other a trajectory may have spent where its value at the cut is not known."""
ENDED = ("solved", "exhausted")
"""A tree that stopped so would not have gone on with a larger budget: its curve stays flat."""


@dataclass(frozen=True, slots=True)
class Searched:
    """One trajectory of one run, as stored. `best` is the judge's value; None: unknown."""

    task: str
    trivial: bool
    baseline: float | None
    best: float | None
    stopped: str
    spend: Spend

    @staticmethod
    def of_row(row: Mapping[str, Any]) -> Searched:
        """From a row of `Database.results`."""
        task = str((row["detail"] or {}).get("task_id", row["trajectory_id"]))
        return Searched(
            task, bool(row["trivial"]), row["baseline"], row["best"], row["stopped"] or "", Spend.of_row(row)
        )


def _no_curve(trajectory_id: str) -> Curve | None:
    return None


@dataclass(frozen=True, slots=True)
class SearchedRun:
    """One run. `rows` by trajectory id; `curve` is asked only where a cut is needed; `plans_ahead`: its algorithm
    would have searched otherwise with a smaller budget."""

    name: str
    status: str
    algorithm: str
    judge: str
    configuration: Mapping[str, Any]
    rows: Mapping[str, Searched]
    curve: Callable[[str], Curve | None] = _no_curve
    plans_ahead: bool = False
    environment_class: str | None = None
    """What its worlds can do; None: stored before that was noted."""

    @property
    def success_at(self) -> float:
        """The value from which a run counts as a success."""
        return float(self.configuration.get("success_at", 1.0))

    @property
    def moves_budget(self) -> bool:
        """Whether one trajectory may have spent what another left over."""
        return bool(self.configuration.get("allocate", "uniform") != "uniform")


@dataclass(frozen=True, slots=True)
class Taken:
    """One side of a trajectory: the value that counts and what it cost.

    `how`: whole (as it ended), cut (played again at the other's spend), nearly (as it ended, spend within 5 %).
    """

    value: float
    spend: Spend
    how: str = "whole"


@dataclass(frozen=True, slots=True)
class Match:
    """One trajectory (`item`) on both sides; `most`: the spend at which they are compared, `bound`: a budget set it."""

    item: str
    task: str
    a: Taken
    b: Taken
    most: float
    bound: bool


@dataclass(frozen=True, slots=True)
class Pairing:
    """What two runs share, and what was left out of it, counted in trajectories. `undecided`: no verdict at the cut;
    `on_average`: spend is equal, or not, over all of them together."""

    matches: Sequence[Match]
    left_out: Mapping[str, int]
    undecided: int = 0
    equal: bool = True
    on_average: bool = False

    def by_task(self) -> dict[str, list[Match]]:
        """The matches of each task, tasks in order of their ids."""
        tasks: dict[str, list[Match]] = {}
        for match in sorted(self.matches, key=lambda item: item.task):
            tasks.setdefault(match.task, []).append(match)
        return tasks

    def cuts(self, how: str) -> tuple[int, int]:
        """How many trajectories of A and of B were taken so."""
        return sum(match.a.how == how for match in self.matches), sum(match.b.how == how for match in self.matches)


def pairing(a: SearchedRun, b: SearchedRun, unit: str) -> Pairing:
    """Both runs on the trajectories that they share, each at the largest spend at which both are known.

    Where some value at that spend is not known, all are taken as they ended, and `equal` is False. A run that moves its
    budget between trajectories (`--allocate adaptive`) is not cut either: its spend is compared on average.
    """
    shared = [item for item in a.rows if item in b.rows]
    trivial = {item for item in shared if a.rows[item].trivial or b.rows[item].trivial}
    unknown = {item for item in shared if item not in trivial and _unknown(a.rows[item], b.rows[item])}
    counted = [item for item in shared if item not in trivial and item not in unknown]
    left_out = {"trivial": len(trivial), "unknown": len(unknown)}
    left_out |= {"only_a": len(a.rows) - len(shared), "only_b": len(b.rows) - len(shared)}
    ended = [_as_ended(a, b, item, unit) for item in counted]
    if a.moves_budget or b.moves_budget:
        return Pairing(ended, left_out, equal=_close(ended, unit), on_average=True)
    matches = [_match(a, b, item, unit) for item in counted]
    if undecided := sum(match is None for match in matches):
        return Pairing(ended, left_out, undecided, equal=False)
    return Pairing([match for match in matches if match is not None], left_out)


def _close(matches: Sequence[Match], unit: str) -> bool:
    """Whether both sides spent the same in all, within 5 %."""
    totals = [
        fsum(spend.of(unit) for spend in side)
        for side in zip(*((match.a.spend, match.b.spend) for match in matches), strict=True)
    ]
    return not totals or max(totals) <= min(totals) * (1 + NEARLY)


def _unknown(*sides: Searched) -> bool:
    return any(side.baseline is None or side.best is None for side in sides)


def most_known(a: Searched, b: Searched, unit: str) -> tuple[float, bool]:
    """The largest spend at which both curves are known, and whether a budget set it.

    A tree that a budget stopped is known up to what it spent, one that ended by itself for ever.
    """
    stopped = [side.spend.of(unit) for side in (a, b) if side.stopped not in ENDED]
    return (min(stopped), True) if stopped else (max(a.spend.of(unit), b.spend.of(unit)), False)


def _match(a: SearchedRun, b: SearchedRun, item: str, unit: str) -> Match | None:
    most, bound = most_known(a.rows[item], b.rows[item], unit)
    left, right = _taken(a, item, unit, most), _taken(b, item, unit, most)
    return None if left is None or right is None else Match(item, a.rows[item].task, left, right, most, bound)


def _as_ended(a: SearchedRun, b: SearchedRun, item: str, unit: str) -> Match:
    left, right = a.rows[item], b.rows[item]
    return Match(item, left.task, _whole(left), _whole(right), *most_known(left, right, unit))


def _whole(row: Searched, how: str = "whole") -> Taken:
    if row.best is None:
        raise AssertionError("unknown values are left out before")
    return Taken(row.best, row.spend, how)


def _taken(run: SearchedRun, item: str, unit: str, most: float) -> Taken | None:
    row = run.rows[item]
    spent = row.spend.of(unit)
    if spent <= most * (1 + TOLERANCE):
        return _whole(row)
    known = run.curve(item)
    spend, value = known.at(unit, most) if known is not None else (row.spend, None)
    if value is not None:
        return Taken(value, spend, "cut")
    return _whole(row, "nearly") if spent <= most * (1 + NEARLY) else None


@dataclass(frozen=True, slots=True)
class Side:
    """One run over the tasks of a pair. `solved` adds up the share of each task's trajectories that reach success;
    `per_solved` is the mean cost of a trajectory of each task, added up over tasks, by `solved`. None: unknown."""

    mean: float
    solved: float
    spend: Spend
    per_solved: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """The comparison of A with B over tasks. `discordant`: tasks in which A, and in which B, has the higher value;
    `binary`: every task is a plain success or failure on both sides."""

    a: SearchedRun
    b: SearchedRun
    unit: str
    pairing: Pairing
    sides: tuple[Side, Side]
    differences: Sequence[float]
    binary: bool
    discordant: tuple[int, int]
    interval: tuple[float, float] | None
    p: float

    @property
    def test(self) -> str:
        """Which test gave p."""
        return "mcnemar" if self.binary else "wilcoxon"


def compare_pair(a: SearchedRun, b: SearchedRun, unit: str = "transitions", seed: int = 0) -> Pair:
    """Pair two runs and test the difference."""
    found = pairing(a, b, unit)
    tasks = list(found.by_task().values())
    left, right = _side(tasks, a, first=True), _side(tasks, b, first=False)
    means = [(_mean(m.a.value for m in task), _mean(m.b.value for m in task)) for task in tasks]
    differences = [rounded(mean_a - mean_b) for mean_a, mean_b in means]
    binary = all(value in (0.0, 1.0) for pair in means for value in pair)
    wins, losses = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    p = mcnemar(wins, losses) if binary else wilcoxon(differences)
    interval = bootstrap_interval(differences, seed)
    return Pair(a, b, unit, found, (left, right), differences, binary, (wins, losses), interval, p)


def _mean(values: Iterator[float]) -> float:
    known = list(values)
    return fsum(known) / len(known) if known else 0.0


def _side(tasks: Sequence[Sequence[Match]], run: SearchedRun, *, first: bool) -> Side:
    sides = [[match.a if first else match.b for match in task] for task in tasks]
    means = [_mean(taken.value for taken in task) for task in sides]
    solved = fsum(_mean(float(taken.value >= run.success_at) for taken in task) for task in sides)
    total = sum((taken.spend for task in sides for taken in task), Spend())
    costs: dict[str, float | None] = {}
    for unit, name in UNITS.items():
        amount = fsum(_mean(taken.spend.of(unit) for taken in task) for task in sides)
        unknown = total.calls > 0 and not total.of(unit)
        costs[name] = amount / solved if solved and not unknown else None
    return Side(_mean(iter(means)), solved, total, costs)


def compare(runs: Sequence[SearchedRun], unit: str = "transitions") -> list[tuple[Pair, float]]:
    """Every pair of the runs, in their order, with its p after Holm."""
    pairs = [compare_pair(a, b, unit) for a, b in combinations(runs, 2)]
    return list(zip(pairs, holm([pair.p for pair in pairs]), strict=True))
