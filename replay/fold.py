"""Folds journals into the database: paid calls into the permanent cache, finished trees into rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from ..storage.errors import JournalDamaged
from ..storage.journal import journals, read_journal, runs_folder
from ..storage.kill_points import kill_point
from ..storage.records import Node, Score, Trajectory
from .engine import Engine
from .report import ROW_KEYS, row_of


class Archive(Protocol):
    """What folding needs of the database."""

    location: str

    def calls(self, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The finished calls among `keys`."""
        ...

    def save_calls(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep finished calls; known keys are left as they are."""
        ...

    def folded(self, path: str) -> int:
        """How many bytes of a journal were folded."""
        ...

    def set_folded(self, path: str, sequence: int) -> None:
        """Remember that."""
        ...

    def run(self, run: str) -> Mapping[str, Any] | None:
        """The stored run."""
        ...

    def save_run(self, run: str, configuration: Mapping[str, Any], **columns: Any) -> None:
        """Insert or update a run."""
        ...

    def save_results(self, run: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace a run's results."""
        ...

    def save_nodes(
        self, run: str, trajectory_id: str, nodes: Sequence[Node], scores: Mapping[int, Mapping[str, Score]]
    ) -> None:
        """Replace one tree of a run."""
        ...

    def replace_trajectories(self, batch: Sequence[Trajectory]) -> None:
        """Store counterfactuals, those of the same id anew."""
        ...


def fold_calls(archive: Archive) -> list[str]:
    """Take the finished calls of every journal that grew since the last fold. Returns the damaged journals' errors."""
    damaged = []
    for path in journals(runs_folder(archive.location)):
        if path.stat().st_size == archive.folded(str(path)):
            continue
        try:
            events, good_bytes = read_journal(path)
        except JournalDamaged as error:
            damaged.append(error.line())
            continue
        kill_point("fold.calls")
        _save_calls(archive, path.parent.name, events)
        kill_point("fold.bookmark")
        archive.set_folded(str(path), good_bytes)
    return damaged


def _save_calls(archive: Archive, run: str, events: Sequence[Mapping[str, Any]]) -> None:
    fresh = [event for event in events if event["event"] == "result" and not event.get("cached")]
    rows = [{"key": e["key"], "run": run, "body": e["body"], "usage": e.get("usage")} for e in fresh]
    if rows:
        archive.save_calls(rows)


def fold_run(archive: Archive, engine: Engine, report: Mapping[str, Any], digest: str, status: str) -> None:
    """Write the run, its results, trees and counterfactuals; what an earlier session of the run wrote is replaced.

    `started_at` is that of the first session, `ended_at` that of this one.
    """
    settings, run = engine.settings, engine.run_name
    kill_point("fold.begin")
    for grove in engine.groves:
        if grove.tree is not None and grove.reported:
            kill_point("fold.trees")
            archive.save_nodes(run, grove.record.id, grove.tree.rows(run), grove.tree.scores)
    found = [grove.verdict.counterfactual for grove in engine.groves]
    kill_point("fold.found")
    archive.replace_trajectories([item for item in found if item is not None])
    kill_point("fold.results")
    archive.save_results(run, [_stored(row_of(grove), grove.position) for grove in engine.groves if grove.reported])
    kill_point("fold.run")
    archive.save_run(
        run,
        settings.configuration(),
        status=status,
        algorithm=settings.algorithm.name,
        judge=settings.judge,
        digest=digest,
        report=report,
        seed=settings.seed,
        started_at=(archive.run(run) or {}).get("started_at") or engine.started_at,
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    fold_calls(archive)
    kill_point("fold.done")


def _stored(row: Mapping[str, Any], position: int) -> dict[str, Any]:
    kept = {key: row[key] for key in ROW_KEYS if key != "id"}
    detail = {"refused": row["refused"], "notes": row["notes"], "task_id": row["task_id"]}
    if row["unconfirmed"]:
        detail["unconfirmed"] = True
    return {"trajectory_id": row["id"], "position": position, **kept, "detail": detail}
