"""`demo`: the whole chain on the shipped bookkeeping logs; no key, no GPU, no network."""

from __future__ import annotations

import importlib.resources
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..replay.running import Ran
    from ..replay.settings import Settings
    from ..storage.database import Database

BUDGET = 64
"""Transitions per failed run."""
DATASET = "bookkeeping-demo"
LEVELS = ("easy", "hard", "medium")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the database and the datasets.")] = Path("ttc-demo"),
    policy: Annotated[
        str | None,
        typer.Option(help="smollm2: a real small model re-runs its own failed logs under search; minutes of CPU."),
    ] = None,
) -> None:
    """Ingest, replay, search and export shipped bookkeeping logs. Example: ttc-replay demo --out /tmp/demo."""
    from . import demo_smollm2
    from .search import exit_code

    state: State = ctx.obj
    if policy is not None:
        demo_smollm2.run(state, policy, out)
    began = time.monotonic()
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = replace(state, db=str(out / "ttc.duckdb"))
    with state.database() as database:
        ingested = ingest_shipped(state, database, DATASET, [f"{level}.jsonl" for level in LEVELS])
        replayed = replay_shipped(state, database, DATASET)
        ran = _search(state, database)
        exports = [] if ran.interrupted else export_pair(database, ran.report["run"], out)
    document = {
        "v": 1,
        "out": str(out),
        "ingest": ingested["totals"],
        "replay": replayed["totals"],
        "search": ran.report["totals"],
        "interval": list(ran.interval) if ran.interval else None,
        "export": exports,
        "seconds": round(time.monotonic() - began, 1),
    }
    state.emit(document, lambda console: _show(console, document, ran))
    if ran.interrupted:
        state.note("interrupted; the same command resumes")
    raise typer.Exit(exit_code(ran))


def ingest_shipped(state: State, database: Database, dataset: str, names: Sequence[str]) -> dict[str, Any]:
    """The logs lie beside the environment's module: of that the house knows only the entry point."""
    from ..storage.ingest import IngestOptions, ingest
    from .plugins import find

    package = find("environment", "bookkeeping").__module__.rpartition(".")[0]
    with importlib.resources.as_file(importlib.resources.files(package) / "logs") as folder:
        paths = [str(folder / name) for name in names]
        state.note(f"1/4 ingest: {len(paths)} shipped log files")
        return ingest(database, paths, IngestOptions(dataset=dataset))


def replay_shipped(state: State, database: Database, dataset: str) -> dict[str, Any]:
    """Every run of the dataset, re-executed and compared."""
    from ..replay.replaying import replay_all
    from ..storage.records import Spec
    from . import jobs, plugins

    records = jobs.Selector(dataset=dataset, every=True).records(database)
    state.note(f"2/4 replay: {len(records)} runs re-executed and compared")
    return replay_all(records, plugins.factory("environment", Spec("bookkeeping")))


def _settings() -> Settings:
    from ..replay.settings import Settings
    from ..storage.records import Spec

    guide = ("bookkeeping-identity", "bookkeeping-policy")
    return Settings(
        environment=Spec("bookkeeping"),
        policy=Spec("corpus", {"same_task_only": True}),
        rewards=tuple((Spec(name), 1.0) for name in guide),
        combine="min",
        accept=Spec("bookkeeping-gold"),
        algorithm=Spec("mcts"),
        from_step="auto",
        budget=BUDGET,
    )


def _search(state: State, database: Database) -> Ran:
    from ..replay.running import run_search
    from . import jobs
    from .render import progress

    selector = jobs.Selector(dataset=DATASET)
    settings = jobs.with_selector(_settings(), selector)
    records = jobs.chosen(database, selector, settings.success_at)
    state.note(f"3/4 search: {len(records)} failed runs, MCTS, {settings.budget} transitions each, no model")
    with progress("search", quiet=state.quiet) as tell:
        plugins = jobs.make_plugins(settings)
        return run_search(database, settings, "demo", records, jobs.recorded(database), plugins, tell)


def export_pair(database: Database, run: str, out: Path) -> list[dict[str, Any]]:
    """The run as SFT rows and as preference pairs, each in a folder of its own."""
    from ..storage.export import export
    from ..storage.exporters.options import ExportOptions

    reports = []
    for name, folder in (("trl-sft", "sft"), ("trl-dpo", "dpo")):
        options = ExportOptions(format=name, out=out / folder, runs=(run,), test_fraction=0.1)
        reports.append(export(database, options))
    return reports


def _show(console: Console, document: Mapping[str, Any], ran: Ran) -> None:
    totals, replayed = document["search"], document["replay"]
    lines = [
        f"ingest   {document['ingest']['trajectories']} new runs, {document['ingest']['duplicates']} already there",
        f"replay   {replayed['matched']} of {replayed['steps']} steps reproduce, {replayed['diverged']} runs diverged",
        f"search   {totals['trajectories']} failed runs, {totals['transitions']} transitions, "
        f"{totals['calls']} model calls, {totals['seconds']:.1f} s",
        f"         {totals['improved']} improved ({totals['novel']} novel, "
        f"{totals['improved'] - totals['novel']} copied), {totals['trivial']} trivial tasks counted apart",
        f"gate     {totals['gate']['accepted']} accepted, {totals['gate']['refused']} refused: the guide liked them, "
        "the held-back gold check did not",
        f"lanes    observed {_number(totals['mean_observed'])} → baseline {_number(totals['mean_baseline'])} → "
        f"best {_number(totals['mean_best'])}  (mean success; judge: {ran.report['judge']})",
        f"gain     95 % paired interval over tasks: {_interval(document['interval'])}",
        *map(export_line, document["export"]),
        f"{document['seconds']} s in all. Next: ttc-replay --db {document['out']}/ttc.duckdb ls runs",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "too few tasks" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def export_line(report: Mapping[str, Any]) -> str:
    """What one export wrote."""
    first = report["files"][0]["path"] if report["files"] else "nothing"
    return f"export   {report['format']}: {sum(report['splits'].values())} rows in {Path(first).parent}"
