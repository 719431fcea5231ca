"""Kill points: named places where a crash would matter, at which a test can end this process with a real SIGKILL.

Off unless the environment says otherwise; then passing one costs a look at a variable. Two variables turn them on:

    TTC_KILL_AT=NAME:COUNT      die when NAME (or NAME/KIND, e.g. journal.written/tell) is passed for the COUNT-th time
    TTC_KILL_AT=N               die at the N-th pass of any point, counted from 1
    TTC_KILL_COUNT=FILE         append NAME or NAME/KIND and a newline to FILE at each pass

`tests/reliability` kills at hundreds of them; `docs/design/kill-points.md` says why they are in the code.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping

from .errors import UsageError

KILL_AT, KILL_COUNT = "TTC_KILL_AT", "TTC_KILL_COUNT"

POINTS: Mapping[str, str] = {
    "database.attached": "the file is there and locked, and may have no tables yet",
    "migration.begin": "a migration's transaction has begun, nothing in it has run",
    "migration.applied": "its tables and record are made, not committed",
    "migration.done": "one migration is committed, the next has not begun",
    "database.begin": "a write transaction has begun",
    "database.add": "trajectories of a batch are inserted, their steps are not",
    "database.commit": "every statement has run, nothing is committed",
    "database.committed": "a transaction is committed, nobody has been told",
    "database.close": "all is committed, the log is not folded into the file",
    "ingest.batch": "a batch is read and not stored",
    "ingest.stored": "a batch is stored and not accounted for",
    "journal.opened": "the journal file exists and is locked; a new one is empty, an old one may have a torn end",
    "journal.append": "an event has happened and is not written (of kind result: paid for and not written)",
    "journal.torn": "half of an event's line is written",
    "journal.written": "an event is written, nothing was done with it",
    "journal.fsync": "events are written and not forced to the disk",
    "journal.synced": "events are on the disk, nothing was done with them",
    "fold.begin": "the search is over, nothing of it is in the database",
    "fold.trees": "before the trees of the run are stored, one transaction each",
    "fold.found": "the trees are stored, the counterfactuals are not",
    "fold.results": "the counterfactuals are stored, the run's results are not",
    "fold.run": "the results are stored, the run's own row is not",
    "fold.calls": "the paid calls of a journal are read and not in the permanent cache",
    "fold.bookmark": "they are in the cache, how far the journal was read is not noted",
    "fold.done": "all is stored, nothing is reported",
    "export.rows": "the rows are made, no file is",
    "export.staged": "the staging folder is there and empty",
    "export.file": "a file is about to be staged",
    "export.torn": "half of a staged file is written",
    "export.rename": "everything is staged and on the disk, the target is as before",
    "export.aside": "the earlier export was moved aside (only where folders cannot be exchanged)",
    "export.renamed": "the target is new, what was there before is not removed",
    "export.saved": "files and lineage are stored, nothing is reported",
}
"""Every kill point: what is true when it is passed."""


class Watch:
    """Counts passes, and says which one is to be the last."""

    def __init__(self, kill_at: str | None, log: str | None):
        name, colon, count = (kill_at or "").rpartition(":")
        base = name.partition("/")[0]
        if kill_at and (not count.isdigit() or int(count) < 1 or (colon and base not in POINTS)):
            hint = "NAME:COUNT or the number of a pass; the names are in storage/kill_points.py"
            raise UsageError(f"{KILL_AT}={kill_at} names no pass of a kill point", hint=hint)
        self._name, self._count = name, int(count or 0)
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._passes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def due(self, name: str, kind: str) -> bool:
        """Count one pass; whether the process is to die at it."""
        if name not in POINTS:
            raise KeyError(name)
        full = f"{name}/{kind}" if kind else name
        with self._lock:
            self._passes.update({"", name, full})
            if self._log is not None:
                os.write(self._log, f"{full}\n".encode())
            return self._name in ("", name, full) and self._passes[self._name] == self._count


_watch: Watch | None = None


def arm(environment: Mapping[str, str] | None = None) -> None:
    """Turn the kill points on or off as the environment says. Raises UsageError for a pass that cannot be."""
    global _watch  # noqa: PLW0603 (one process dies once)
    found = os.environ if environment is None else environment
    kill_at, log = found.get(KILL_AT), found.get(KILL_COUNT)
    _watch = Watch(kill_at, log) if kill_at or log else None


def kill_point(name: str, kind: str = "") -> None:
    """A place to die at. `name` is one of POINTS; `kind` tells passes of one name apart."""
    if _watch is not None and _watch.due(name, kind):
        die()


def due(name: str, kind: str = "") -> bool:
    """As `kill_point`, for a place that leaves something half done first: when True, do that and `die`."""
    return _watch is not None and _watch.due(name, kind)


def die() -> None:
    """SIGKILL to this very process: no handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


arm()
