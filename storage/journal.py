"""The journal of a run: its truth. Append-only lines `crc32 seq json`, written at once, fsynced per batch.

The first line freezes the configuration and the resolved trajectory ids. A torn last line is dropped when the journal
is opened; any other damage is an error that names the line. A torn write leaves the beginning of a line, so only a last
line without its newline can be one: a whole line that does not verify is damage, wherever it is. Readers of a live run
read the journal, never the database (one process owns that). The database holds a fold of it and can be rebuilt.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from .canonical import canonical_json, plain
from .errors import DatabaseBusy, JournalDamaged, PluginFailed, RunConflict, StoreError
from .kill_points import die, due, kill_point

Event = dict[str, Any]
FILE_NAME = "journal.jsonl"
DIGESTED = ("tell", "score", "gate")
"""Events that the digest covers; `t` in an event is the trajectory's position in the frozen list."""
_FULL = "is the disk full? make room: the same command resumes"


# made once: building an encoder costs more than encoding an event
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=plain).encode


def runs_folder(location: str) -> Path:
    """Where the journals of a database live: `<db>.runs`, for a database URL `TTC_RUNS_DIR` or `./ttc-runs`."""
    if "://" in location:
        return Path(os.environ.get("TTC_RUNS_DIR", "ttc-runs"))
    return Path(location + ".runs")


def encode_line(sequence: int, event: Mapping[str, Any]) -> bytes:
    """One journal line. Raises PluginFailed on what is not JSON (NaN, too): only plugins can have brought it."""
    try:
        text = _encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        kind = event.get("event", "event")
        raise PluginFailed(f"a plugin returned what is not JSON ({kind}): {error}") from error
    body = f"{sequence} {text}".encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_line(line: bytes, expected_sequence: int) -> Event | None:
    """The event of a line without its newline, or None when it does not verify."""
    checksum, _, body = line.partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(body):
            return None
        sequence, _, text = body.partition(b" ")
        if int(sequence) != expected_sequence:
            return None
        event: Event = json.loads(text)
    except ValueError:
        return None
    return event


def read_journal(path: Path) -> tuple[list[Event], int]:
    """All events and the number of good bytes. Raises JournalDamaged on any bad line but a torn last one."""
    events: list[Event] = []
    good = 0
    data = path.read_bytes()
    while good < len(data):
        end = data.find(b"\n", good)
        line = data[good:] if end < 0 else data[good:end]
        event = decode_line(line, len(events)) if end >= 0 else None
        if event is None:
            if end >= 0 or not _torn(line, len(events)):
                raise JournalDamaged(
                    "the line does not verify",
                    place=f"{path}:{len(events) + 1}",
                    hint="restore the file from a copy, or delete the run's folder to start it again",
                )
            break
        events.append(event)
        good = end + 1
    return events, good


def _torn(line: bytes, sequence: int) -> bool:
    """Whether the rest of a file may be the beginning of a line.

    Not when it begins with a sound line, or ends in the next one: then a newline was damaged.
    """
    starts = re.finditer(rb"[0-9a-f]{8} %d " % (sequence + 1), line)
    holds_another = any(decode_line(line[match.start() :], sequence + 1) is not None for match in starts)
    return not holds_another and not _begins_sound(line)


def _begins_sound(line: bytes) -> bool:
    """Whether a part of the line, less than all of it, is sound: its check sum is that up to some closing brace."""
    checksum, _, body = line.partition(b" ")
    running = seen = 0
    while (brace := body.find(b"}", seen) + 1) and brace < len(body):
        running = zlib.crc32(body[seen:brace], running)
        if checksum == b"%08x" % running:
            return True
        seen = brace
    return False


class Journal:
    """An open journal: `events` are what was there, `append` adds. One process at a time (advisory lock).

    Threads may append: policies are asked from workers.
    """

    keeps_nothing = False

    def __init__(self, path: Path, events: list[Event], descriptor: int):
        self.path = path
        self.events = events
        self._descriptor = descriptor
        self._next = len(events)
        self._unsynced = False
        self._broken = False
        self._writing = threading.Lock()

    @classmethod
    def open(cls, folder: Path, configuration: Mapping[str, Any], trajectories: Sequence[str]) -> Journal:
        """Open or create the journal in `folder`; a torn last line is cut off.

        Raises RunConflict when the journal was made with another configuration, DatabaseBusy when another process
        holds it, JournalDamaged on any other damage.
        """
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # `mode` holds for the last folder only
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / FILE_NAME
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _lock(descriptor, path)
            kill_point("journal.opened")
            events, good = read_journal(path)
            os.ftruncate(descriptor, good)
            journal = cls(path, events, descriptor)
            if not events:
                journal.append({"event": "config", "configuration": configuration, "trajectories": list(trajectories)})
                journal.sync()
            else:
                _same(path, events[0], configuration)
        except BaseException:
            os.close(descriptor)
            raise
        return journal

    @property
    def trajectories(self) -> list[str]:
        """The ids frozen in the first line."""
        first = self.events[0] if self.events else {}
        return list(first.get("trajectories", ()))

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event at once (one `write`), without waiting for the disk. Raises StoreError when it is full, and
        from then on: what follows half a line could not be read any more."""
        with self._writing:
            kind = str(event.get("event", ""))
            kill_point("journal.append", kind)
            line = encode_line(self._next, event)
            if due("journal.torn", kind):
                os.write(self._descriptor, line[: len(line) // 2])
                die()
            self._put(line)
            if not self.events:
                self.events.append(dict(event))
            self._next += 1
            self._unsynced = True
            kill_point("journal.written", kind)

    def _put(self, line: bytes) -> None:
        if self._broken:
            raise StoreError("the journal could not be written before", place=str(self.path), hint=_FULL)
        self._broken = True
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise StoreError(f"the journal cannot be written: {error}", place=str(self.path), hint=_FULL) from error
        if written != len(line):
            raise StoreError("the journal was not written whole", place=str(self.path), hint=_FULL)
        self._broken = False

    def sync(self) -> None:
        """Wait until everything written is on the disk; does nothing when it already is. Raises StoreError."""
        if not self._unsynced:
            return
        kill_point("journal.fsync")
        self._unsynced = False  # before, not after: what another thread writes meanwhile may be too late for this one
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._unsynced = True
            raise StoreError(f"the journal does not reach the disk: {error}", place=str(self.path)) from error
        kill_point("journal.synced")

    def close(self) -> None:
        """Sync and give the lock back."""
        try:
            self.sync()
        finally:
            os.close(self._descriptor)


class MemoryJournal:
    """A journal of nothing, for searches that nobody resumes: events are dropped, except the frozen first line."""

    keeps_nothing = True

    def __init__(self, trajectories: Sequence[str]):
        self.events: list[Event] = [{"event": "config", "trajectories": list(trajectories)}]

    def append(self, event: Mapping[str, Any]) -> None:
        """Forget the event."""

    def sync(self) -> None:
        """Nothing waits for a disk."""

    def close(self) -> None:
        """Nothing is open."""


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatabaseBusy(
            "another process is running this run", place=str(path), hint="wait for it, or give this one another --name"
        ) from None


def _same(path: Path, first: Event, configuration: Mapping[str, Any]) -> None:
    frozen = first.get("configuration") or {}
    if canonical_json(frozen) == canonical_json(configuration):
        return
    changed = sorted(key for key in {*frozen, *configuration} if frozen.get(key) != configuration.get(key))
    raise RunConflict(
        f"the run exists with another configuration: {', '.join(changed)}",
        place=str(path),
        hint="choose another --name, or repeat the command as it was",
    )


def digest(events: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over tell, score and gate events: trajectories in frozen order, each in its commit order.

    Without `calls` and `usage`: what a provider charges, its cache and retries included, does not make another tree.
    Nor do the probabilities that a local model measured: batches of another size round them differently.

    Gates that a later tell of the same trajectory overtook (the run was continued with a larger budget) do not count,
    and of two gate sets without a tell between them only the last counts.
    """
    by_trajectory: dict[int, list[Mapping[str, Any]]] = {}
    for event in events:
        if event["event"] in DIGESTED:
            kept = by_trajectory.setdefault(event["t"], [])
            if event["event"] != "gate" or event.get("first"):
                kept[:] = [old for old in kept if old["event"] != "gate"]
            kept.append(event)
    total = sha256()
    for position in sorted(by_trajectory):
        for event in by_trajectory[position]:
            total.update(canonical_json(_without_spend(event)).encode())
    return total.hexdigest()


def _without_spend(event: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in event.items() if key not in ("calls", "usage")}
    if "children" in kept:
        kept["children"] = [_child_without_spend(child) for child in kept["children"]]
    return kept


def _child_without_spend(child: Mapping[str, Any]) -> Mapping[str, Any]:
    step, kept = child.get("step"), child
    left_out: tuple[str, ...] = ("usage",)
    if child.get("measured"):
        kept = {key: value for key, value in child.items() if key != "prior"}
        left_out = ("usage", "logprob", "tokens")
    if step is None or not any(key in step for key in left_out):
        return kept
    return {**kept, "step": {key: value for key, value in step.items() if key not in left_out}}


def journals(folder: Path) -> Iterator[Path]:
    """Every journal of a database, in name order."""
    if folder.is_dir():
        yield from sorted(folder.glob(f"*/{FILE_NAME}"))
