"""What speaks against a comparison: objections, which refuse it, and warnings, which go with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from .comparison import Pair, SearchedRun

FEWEST_TASKS = 20
"""Shared tasks under which a comparison says little."""


class Objection(NamedTuple):
    """Why two runs should not be compared, and what to do about it."""

    message: str
    hint: str


def objections(pair: Pair) -> list[Objection]:
    """What speaks against a pair, the gravest first; `--force` turns it into warnings."""
    a, b = pair.a.name, pair.b.name
    said = []
    if judged_by(pair.a) != judged_by(pair.b):
        message = f"{a} is judged by {pair.a.judge}, {b} by {pair.b.judge}, or with other options: two kinds of values"
        said.append(Objection(message, "search again with the same --accept"))
    if (tasks := len(pair.differences)) < FEWEST_TASKS:
        message = f"{a} and {b} share {tasks} tasks that count: under {FEWEST_TASKS} chance decides"
        said.append(Objection(message, "search more tasks"))
    said += [_unspent(run, without, pair.unit) for run, without in _blind(pair)]
    if not pair.pairing.equal:
        said.append(_unequal(pair))
    return said


def _unequal(pair: Pair) -> Objection:
    found = pair.pairing
    if found.on_average:
        message = f"{pair.a.name} and {pair.b.name} spent different {pair.unit} on average, by over 5 %"
        return Objection(message, "choose budgets that end at the same spend")
    least = min(match.most for match in found.matches if match.bound)
    message = (
        f"{pair.a.name} and {pair.b.name} spent different {pair.unit}, and what the judge would have said of "
        f"{found.undecided} trajectories at the smaller spend is not on record"
    )
    hint = f"search again under another --name with the budget of the smaller run (its smallest spend: {least:g})"
    return Objection(message, hint)


def _blind(pair: Pair) -> list[tuple[SearchedRun, int]]:
    """The runs whose spend in this unit says nothing, with how many of their trajectories have none known."""
    found = []
    for run in (pair.a, pair.b):
        spends = [run.rows[match.item].spend for match in pair.pairing.matches]
        without = sum(1 for spend in spends if spend.calls and not spend.of(pair.unit))
        if spends and (without or not any(spend.of(pair.unit) for spend in spends)):
            found.append((run, without))
    return found


def _unspent(run: SearchedRun, without: int, unit: str) -> Objection:
    message = f"the {unit} of {without} trajectories of {run.name} are not known"
    return Objection(message if without else f"{run.name} spent no {unit}", "choose another --spend")


def judged_by(run: SearchedRun) -> Any:
    """What gave the values: the held-back reward with its options, else the guide."""
    configuration = run.configuration
    return configuration.get("accept") or [configuration.get("rewards"), configuration.get("combine")]


def warnings_of(runs: Sequence[SearchedRun], pairs: Sequence[Pair]) -> list[str]:
    """What a reader of the figures must know, each once."""
    said = [warning for run in runs for warning in _about_run(run)]
    for a, b in combinations(runs, 2):
        said += _about_two(a, b)
    for pair in pairs:
        said += _about_pair(pair)
    return list(dict.fromkeys(said))


def _about_run(run: SearchedRun) -> Iterator[str]:
    configuration = run.configuration
    guide = [spec for spec, _ in configuration.get("rewards", ())]
    accept = configuration.get("accept")
    if run.status != "done":
        yield f"{run.name} is not finished ({run.status}): the same search command goes on"
    if accept is None or accept in guide:
        yield f"{run.name}: the reward that selected also judges ({run.judge}): its mistakes count as gains"


def _about_two(a: SearchedRun, b: SearchedRun) -> Iterator[str]:
    for key, what in (
        ("environment", "environments"),
        ("success_at", "values of --success-at"),
        ("confirm", "values of --confirm"),
        ("candidates", "numbers of --candidates, and more looks of the gate find more"),
    ):
        if a.configuration.get(key) != b.configuration.get(key):
            yield f"{a.name} and {b.name} have different {what}"
    if set(a.rows) != set(b.rows):
        only_a, only_b = len(set(a.rows) - set(b.rows)), len(set(b.rows) - set(a.rows))
        yield f"{a.name} has {only_a} trajectories that {b.name} has not, {b.name} {only_b}: only the shared ones count"


def _about_pair(pair: Pair) -> Iterator[str]:
    for run, cut in zip((pair.a, pair.b), pair.pairing.cuts("cut"), strict=True):
        if cut and run.plans_ahead:
            yield f"{run.name} was cut, but {run.algorithm} plans ahead: with the smaller budget it searches otherwise"
