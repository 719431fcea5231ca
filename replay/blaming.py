"""One blame job: an ordinary run of the search engine whose algorithm spends its budget on the recorded states."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..search.blame import Blame
from ..storage.journal import FILE_NAME, decode_line, runs_folder
from ..storage.records import Spec, Trajectory
from . import blame, blame_evidence, blame_tables
from .engine import Engine, Plugins
from .running import Ran, run_search
from .settings import Settings

OWN_SEEDS = 1_000_003
"""Added to `--seed`: draws of `blame` are not those of a search with the same seed, so that both count."""


@dataclass(slots=True)
class Blamed:
    """What a job brought: the search's own report, and the document of `blame --json`."""

    ran: Ran
    document: dict[str, Any]
    reused: Mapping[str, int]
    """Rollouts of earlier runs that counted, by run."""


def blame_settings(settings: Settings, *, rollouts: int, confidence: float) -> Settings:
    """The settings of a run that blames: the algorithm, and seeds of its own. Raises UsageError for bad options."""
    options = {"rollouts": rollouts, "confidence": confidence, "success_at": settings.success_at}
    Blame(rollouts=rollouts, confidence=confidence, success_at=settings.success_at)
    return replace(settings, algorithm=Spec("blame", options), seed=settings.seed + OWN_SEEDS)


def run_blame(
    archive: Any,
    settings: Settings,
    name: str | None,
    records: Sequence[Trajectory],
    known: Sequence[Trajectory],
    plugins: Plugins,
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> Blamed:
    """Blame `records`; `known` are all recorded trajectories. `settings` as `blame_settings` returns them.

    The same call again resumes; it counts what earlier runs knew when it was first made. The run, its trees and a score
    `blame` for each step go to the archive. Raises what `run_search` raises.
    """
    run = settings.run_name(name)
    evidence, reused = _evidence(archive, settings, run, records, plugins.policy)
    spec = settings.algorithm
    if evidence:
        settings = replace(settings, algorithm=replace(spec, options={**spec.options, "known": evidence}))
    plugins.algorithm = Blame
    confidence, began = float(spec.options["confidence"]), time.monotonic()
    document: dict[str, Any] = {}

    def look(engine: Engine, events: Sequence[Mapping[str, Any]]) -> None:
        document.update(blame.report_of(engine, events, confidence, time.monotonic() - began))
        _store(archive, engine, document)

    ran = run_search(archive, settings, run, records, known, plugins, progress, look)
    return Blamed(ran, document, reused)


def detected(records: Iterable[Trajectory]) -> dict[str, Any]:
    """`blame --json` of detectors alone: nothing is re-run."""
    rows = [blame.head(record) for record in records]
    return {"v": 1, "run": None, "trajectories": rows, "totals": blame.totals(rows, None, 0.0)}


def compared(document: dict[str, Any], records: Iterable[Trajectory], success_at: float) -> None:
    """Add `by_tool`: what lost and won runs among `records` differ in."""
    document["by_tool"] = blame_tables.by_tool(records, document["trajectories"], success_at)


def _evidence(
    archive: Any, settings: Settings, run: str, records: Sequence[Trajectory], policy: Any
) -> tuple[Mapping[str, Any], Mapping[str, int]]:
    """What earlier runs know; for a run that exists, what it was begun with: its name does not depend on it."""
    path = runs_folder(archive.location) / run / FILE_NAME
    if path.is_file():
        with path.open("rb") as stream:
            first = decode_line(stream.readline().rstrip(b"\n"), 0) or {}
        options = first.get("configuration", {}).get("algorithm", {}).get("options", {})
        return options.get("known") or {}, {}
    if not getattr(policy, "sampling", True):
        return {}, {}
    return blame_evidence.gather(archive, settings, run, [record.id for record in records])


def _store(archive: Any, engine: Engine, document: Mapping[str, Any]) -> None:
    for row in document["trajectories"]:
        archive.save_step_scores(engine.run_name, row["id"], blame.step_scores(row))
    stored = archive.run(engine.run_name) or {}
    report = {**(stored.get("report") or {}), "blame": document}
    archive.save_run(engine.run_name, engine.settings.configuration(), report=report)
