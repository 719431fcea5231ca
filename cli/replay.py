"""`replay`: re-execute recorded runs and compare."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 20
"""Rows printed; -v prints all."""

USAGE = ("TTC-E100", "TTC-E101", "TTC-E102", "TTC-E103", "TTC-E104")
"""When every item failed with one of these, the command was wrong."""
_RAISED = re.compile(r"error\[(TTC-E\d+)\]: ")

Options = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the plugin; repeat for more.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Trajectories; a unique beginning is enough.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    ctx: typer.Context,
    env: Annotated[str, typer.Option(help="Environment: a name, module:attribute, or ./file.py:attribute.")],
    ids: Ids = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    env_opt: Options = None,
    tolerant: Annotated[bool, typer.Option("--tolerant", help="Go on after a difference.")] = False,
) -> None:
    """Re-execute recorded runs and compare every observation; calls no model. Example: ttc-replay replay --env tau2."""
    import asyncio

    from ..replay.drive import is_async, run_inline
    from ..replay.replaying import replay_all
    from . import jobs, plugins
    from .render import progress

    state: State = ctx.obj
    factory, probe = plugins.environment(jobs.specs(env, env_opt or (), "--env-opt"))
    drive = asyncio.run if is_async(probe, "reset", "step", "fork", "hear", "state") else run_inline
    with state.database(create=False) as database:
        selector = jobs.Selector(tuple(ids or ()), dataset, every=True).resolved(database)
        records = selector.records(database)
        known = by_task(jobs.recorded(database))
    if not records:
        state.note("nothing selected: no recorded trajectory matches")
    with progress("replay", quiet=state.quiet) as tell:
        report = replay_all(
            records,
            factory,
            tolerant=tolerant,
            known=known,
            drive=drive,
            progress=lambda done, total: tell({"done": done, "total": total}),
        )
    state.emit(report, lambda console: show_replay(console, report, None if state.verbose else SHOWN))
    raise typer.Exit(finish(report))


def rebound_said(count: int) -> str:
    """How many places of recorded arguments got an id of the world; nothing when none did."""
    return f"; {count} recorded arguments re-bound to new ids" if count else ""


def by_task(records: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Recorded runs by task id, then by trajectory id."""
    known: dict[str, dict[str, Any]] = {}
    for record in records:
        known.setdefault(record.task.id, {})[record.id] = record
    return known


def finish(report: Mapping[str, Any]) -> int:
    """Say on stderr what did not reproduce; the exit code: 5 when a run diverged, 1 when a world failed."""
    from .failures import HINTS, complain

    totals = report["totals"]
    rows = [row for row in report["trajectories"] if row["first_divergence"] is not None]
    if not rows:
        return 0
    first, where = rows[0]["first_divergence"], f"trajectory {rows[0]['id'][:12]}"
    count = f"{len(rows)} of {totals['trajectories']} runs"
    raised = _RAISED.match(first["got"]) if first["expected"] is None else None
    if raised is not None:  # the world failed, or the tape has no answer: `got` is that error's line
        complain(f"{first['got']} ({count} do not reproduce)", HINTS.get(raised[1], "ttc-replay replay --help"))
    else:
        differs = f"step {first['step']}: expected {_brief(first['expected'])}, got {_brief(first['got'])}"
        complain(f"error[TTC-E301]: {count} diverged, the first: {where}, {differs}", HINTS["TTC-E301"])
    if totals["diverged"]:
        return 5
    return 2 if raised is not None and raised[1] in USAGE and totals["failed"] == totals["trajectories"] else 1


def _brief(text: Any) -> str:
    shown = str(text)
    return shown if len(shown) <= 120 else shown[:119] + "…"


def show_replay(console: Console, report: Mapping[str, Any], most: int | None) -> None:
    """The report for people: the runs that diverged, or else the first ones."""
    from .render import clean, rows_table

    rows = [row for row in report["trajectories"] if row["first_divergence"] is not None] or report["trajectories"]
    shown = rows[:most]
    rows_table(console, "", shown, ("id", "steps", "matched", "level", "fidelity", "baseline"))
    if len(shown) < len(rows):
        console.print(f"… {len(shown)} of {len(rows)} shown (-v and --json list all)")
    for row in shown:
        if (first := row["first_divergence"]) is not None:
            console.print(f"{row['id'][:12]} step {first['step']}: expected {clean(first['expected'], 200)}")
            console.print(f"{'':12} got {clean(first['got'], 200)}")
    totals = report["totals"]
    levels = ", ".join(f"{count} {level}" for level, count in totals["levels"].items() if count)
    parts = "".join(f", {name} {part['agreed']} of {part['compared']}" for name, part in totals["parts"].items())
    console.print(
        f"{totals['trajectories']} runs: {totals['matched']} of {totals['steps']} steps reproduce"
        f"{f' (weakest level per run: {levels})' if levels else ''}, "
        f"{totals['diverged']} diverged, {totals['failed']} failed; "
        f"recomputed outcome equals the recorded one in {totals['agreed']} of {totals['compared']}{parts}"
    )
    states, rules = totals["final_states"], totals["rules"]
    ends = f"; final state equals the recorded one in {states['agreed']} of {states['compared']}"
    kind, rebound = report["environment_class"], rebound_said(totals["rebound"])
    console.print(f"environment: {kind}{ends if states['compared'] else ''}{rebound}")
    if rules:
        console.print("rules used: " + ", ".join(f"{clean(name)} ({count} runs)" for name, count in rules.items()))
