"""One search job from settings to report: pick the trajectories, open the journal, run the engine, fold the result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..storage.errors import TtcError, UsageError
from ..storage.journal import Journal, digest, read_journal, runs_folder
from ..storage.records import Outcome, Trajectory
from .engine import Engine, Plugins
from .failures import Failure, failures
from .fold import fold_calls, fold_run
from .report import paired_interval, report_of, row_of, with_costs
from .settings import Settings

_LOG = logging.getLogger("ttc_replay.search")
DIVERGED = ("TTC-E301", "TTC-E302")
Look = Callable[[Engine, Sequence[Mapping[str, Any]]], None]


@dataclass(slots=True)
class Ran:
    """A finished (or interrupted) job: the report of `search --json`, and what ended it early."""

    report: dict[str, Any]
    interrupted: bool = False
    error: TtcError | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    failures: Sequence[Failure] = ()
    digest: str = ""
    interval: tuple[float, float] | None = None
    all_diverged: bool = False


def hidden(records: Sequence[Trajectory]) -> list[Trajectory]:
    """Records as policies may see them: no gold, no details of the outcome."""
    return [
        replace(
            record,
            task=replace(record.task, private={}),
            outcome=Outcome(record.outcome.value, record.outcome.name) if record.outcome else None,
            final_state=None,
        )
        for record in records
    ]


def failing(records: Sequence[Trajectory], success_at: float) -> list[Trajectory]:
    """Recorded runs whose outcome is below `success_at` or unknown (the baseline decides those)."""
    return [
        record
        for record in records
        if record.run is None
        and (record.outcome is None or record.outcome.value is None or record.outcome.value < success_at)
    ]


def run_search(
    archive: Any,
    settings: Settings,
    name: str | None,
    records: Sequence[Trajectory],
    known: Sequence[Trajectory],
    plugins: Plugins,
    progress: Callable[[Mapping[str, Any]], None] | None = None,
    look: Look | None = None,
) -> Ran:
    """Search `records`; `known` are all recorded trajectories (for policies, users, novelty). `look` sees the ended
    search and the events of its journal once they are folded.

    The same call again resumes. Raises RunConflict, DatabaseBusy, JournalDamaged, UsageError before anything is spent.
    """
    notes = fold_calls(archive)
    _check_steps(settings, records)
    run = settings.run_name(name)
    for plugin in (plugins.policy, plugins.shared, plugins.user_policy):
        _ready(plugin, known)
    _warn_unpriced(settings, plugins.policy)
    folder = runs_folder(archive.location) / run
    journal = Journal.open(folder, settings.configuration(), [record.id for record in records])
    try:
        ordered = _frozen(journal, records, archive)
        later = len({record.id for record in records} - set(journal.trajectories))
        if later:
            notes.append(f"{later} trajectories are newer than this run and no part of it: --name starts another")
        engine = Engine(settings, run, ordered, known, plugins, journal, archive.calls, progress)
        started = time.monotonic()
        asyncio.run(_interruptible(engine))
        journal.sync()
        return _fold(archive, engine, journal, time.monotonic() - started, notes, look)
    finally:
        journal.close()


def _ready(plugin: Any, known: Sequence[Trajectory]) -> None:
    """Let a policy, or a factory of worlds that share something, see the archive and check what it needs."""
    prepare, check = getattr(plugin, "prepare", None), getattr(plugin, "check", None)
    if prepare is not None:
        prepare(hidden(known))
    if check is not None:
        check()


def _warn_unpriced(settings: Settings, policy: Any) -> None:
    """Say at once, not at the end, that a limit of cost is none."""
    if settings.limits.cost_usd is not None and getattr(policy, "priced", True) is False:
        _LOG.warning("--max-cost cannot bind: no price is known for the model of --policy %s", settings.policy.name)


def _check_steps(settings: Settings, records: Sequence[Trajectory]) -> None:
    step = settings.from_step
    if isinstance(step, int):
        short = [record.id[:12] for record in records if step >= len(record.steps)]
        if step < 0 or short:
            raise UsageError(
                f"--from-step {step}: no such step in {', '.join(short[:3]) or 'any trajectory'}",
                hint="steps are counted from 0; `ttc-replay show ID` lists them",
            )


def _frozen(journal: Journal, records: Sequence[Trajectory], archive: Any) -> list[Trajectory]:
    """The records in the journal's frozen order: a resumed run keeps its own list."""
    by_id = {record.id: record for record in records}
    return [by_id[item] if item in by_id else archive.trajectory(item) for item in journal.trajectories]


async def _interruptible(engine: Engine) -> None:
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        """The first signal lets calls in flight end; the next one ends the process as usual."""
        engine.stop()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop, number)
    try:
        await engine.run()
    finally:
        for plugin in (engine.plugins.policy, engine.plugins.shared, engine.plugins.user_policy):
            closing = getattr(plugin, "close", None)
            if closing is not None:
                done = closing()
                if asyncio.iscoroutine(done):
                    await done


def _fold(
    archive: Any, engine: Engine, journal: Journal, seconds: float, notes: list[str], look: Look | None = None
) -> Ran:
    report = report_of(engine, seconds)
    events, _ = read_journal(journal.path)
    total = digest(events)
    status = "interrupted" if engine.interrupted else "error" if engine.error else "done"
    fold_run(archive, engine, report, total, status)
    report = with_costs(report, engine.costs)
    if look is not None:
        look(engine, events)
    rows = [row_of(grove) for grove in engine.groves if grove.reported]
    tasks = {grove.record.id: grove.record.task.id for grove in engine.groves}
    errors = [grove.baseline.error_code for grove in engine.groves if grove.baseline and grove.baseline.error]
    return Ran(
        report,
        engine.interrupted,
        engine.error,
        notes,
        warnings=[*report["warnings"], *_warnings(rows)],
        failures=failures(events),
        digest=total,
        interval=paired_interval(rows, tasks, engine.settings.seed),
        all_diverged=bool(errors) and len(errors) == len(rows) and all(code in DIVERGED for code in errors),
    )


def _warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes of rows, each once with how many runs it is about."""
    counts = Counter(note for row in rows for note in row["notes"])
    return [note if count == 1 else f"{note} ({count} runs)" for note, count in counts.most_common(10)]
