"""Ingest: log files into an archive, with an account of every record (promises P3, P5, P8).

Every record read is stored, or a duplicate (the archive has its id, or it came before in this run), or skipped with
its line and code; a file of which nothing at all could be read is rejected. Codes:

    TTC-E010  the file cannot be read            TTC-E018  not UTF-8, or a lone surrogate
    TTC-E011  not JSON                           TTC-E019  cut in the middle
    TTC-E012  JSON, but no record of the format  TTC-E020  nested deeper than 200 levels
    TTC-E013  no reader claims the file          TTC-E021  over 128 MiB, or 32 MiB as stored
    TTC-E014  a number is not finite             TTC-E022  an integer of more than 4,300 digits
    TTC-E015  empty file                         TTC-E023  damaged gzip, or one that unpacks without end
    TTC-E016  no trajectories in it              TTC-E024  raw NUL bytes
    TTC-E017  a key twice in one object          TTC-E025  further problems, counted by code
    TTC-E404  the reader itself failed

Totals count what this run accepted, by the definitions of `traces/count.py`; a second ingest of the same files
therefore has only duplicates. With `dry_run` nothing is written and only duplicates within the run are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol

from .errors import IngestError, ReaderFailed, TtcError, boundary
from .input_files import InputFile, expand, opened
from .kill_points import kill_point
from .readers.base import Reader, all_readers, detect_reader, find_reader, reader_names
from .readers.json_input import READ_ERRORS, Head, guarded, problem_of, read_head, rewind
from .readers.json_text import EMPTY_FILE, MORE_PROBLEMS, NO_TRAJECTORIES, UNKNOWN_FORMAT
from .records import Problem, Rejected, Source, Trajectory

BATCH_RECORDS = 4096
BATCH_BYTES = 16 * 2**20
MAX_LISTED_PROBLEMS = 10_000
"""Problems listed for one file; more are counted by code in one last entry."""

COUNTED = ("messages", "assistant_turns", "tool_calls", "tool_results", "rewards")
Progress = Callable[[str, int], None]


class Archive(Protocol):
    """What ingest needs of a database."""

    def add_trajectories(self, batch: Sequence[Trajectory]) -> list[str]:
        """Store those whose id is new, all or none; the ids newly stored."""
        ...


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """`format`: "auto", a format's name, or a reader. `dataset` None: the name of each file's folder.

    `on_bad`: "skip" goes on behind a bad record; "fail" checks a file whole before any of it is stored, and stops at
    the first bad one (files before it stay stored). `limit`: read at most that many trajectories, duplicates included.
    """

    format: str | Reader = "auto"
    dataset: str | None = None
    on_bad: Literal["skip", "fail"] = "skip"
    dry_run: bool = False
    limit: int | None = None


@dataclass(slots=True)
class FileReport:
    """The account of one file. `read` counts trajectories handed on, stored or not."""

    path: str
    format: str | None = None
    accepted: int = 0
    duplicates: int = 0
    skipped: int = 0
    rejected: bool = False
    problems: list[Problem] = field(default_factory=list)
    unlisted: Counter[str] = field(default_factory=Counter)
    read: int = 0

    def note(self, problem: Problem) -> None:
        """List a problem, or count it when the list is full."""
        if len(self.problems) < MAX_LISTED_PROBLEMS:
            self.problems.append(problem)
        else:
            self.unlisted[problem.code] += 1

    def refuse(self, item: Rejected) -> None:
        """Account for what could not be read: a record of the file, or all of it when there was nothing before."""
        self.note(item.problem)
        if item.fatal and not self.read and not self.skipped:
            self.rejected = True
        else:
            self.skipped += 1

    def as_dict(self) -> dict[str, Any]:
        """The file's entry in the report."""
        listed = list(self.problems)
        if self.unlisted:
            codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.unlisted.items()))
            listed.append(Problem(MORE_PROBLEMS, f"{self.unlisted.total()} further problems ({codes})"))
        keys = ("path", "format", "accepted", "duplicates", "skipped", "rejected")
        problems = [{"line": item.line, "code": item.code, "message": item.message} for item in listed]
        return {**{key: getattr(self, key) for key in keys}, "problems": problems}


def ingest(
    database: Archive | None,
    paths: Sequence[str],
    options: IngestOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read `paths` into `database` (None only for a dry run) and return the report of `ingest --json`.

    Files in a folder that no reader claims are listed as ignored; named explicitly they are rejected. `progress` is
    called with a path and the number of its trajectories read so far. Raises UsageError for an unknown format or a
    path that does not exist, IngestError with `on_bad="fail"`, and what the archive raises.
    """
    options = options or IngestOptions()
    job = _Job(None if options.dry_run else database, options, progress)
    for files in expand(paths):
        for file in files:
            if job.is_full:
                break
            job.take(file)
    job.flush()
    return job.report()


def exit_code(report: Mapping[str, Any]) -> int:
    """0: everything read is in the archive. 3: nothing is, and something was refused. 1: some of it was refused."""
    totals = report["totals"]
    if not totals["skipped"] and not totals["rejected_files"]:
        return 0
    return 1 if totals["trajectories"] or totals["duplicates"] else 3


class _Job:
    """One ingest: a batch that fills over file borders, and the accounts."""

    def __init__(self, archive: Archive | None, options: IngestOptions, progress: Progress | None):
        self._archive = archive
        self._options = options
        self._progress = progress
        self._asked = _asked(options.format)
        self._readers = all_readers() if self._asked is None else []
        self._batch: list[tuple[Trajectory, FileReport]] = []
        self._batch_bytes = 0
        self._dry_ids: set[bytes] = set()
        self._read = 0
        self._files: list[FileReport] = []
        self._ignored: list[str] = []
        self._counts: Counter[str] = Counter()

    @property
    def is_full(self) -> bool:
        return self._options.limit is not None and self._read >= self._options.limit

    def take(self, file: InputFile) -> None:
        """Read one file into the batch."""
        if file.ignored:
            self._ignored.append(file.shown)
            return
        account = FileReport(file.shown)
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(opened(file))
                reader = self._reader_for(file, stream, account)
            except READ_ERRORS as error:
                account.refuse(Rejected(problem_of(error), fatal=True))
                self._keep(account)
                return
            if reader is not None:
                account.format = reader.name
                self._take_items(file, reader, stream, account)

    def _take_items(self, file: InputFile, reader: Reader, stream: BinaryIO, account: FileReport) -> None:
        source = Source(reader.name, file.source_path, dataset=self._options.dataset or file.dataset)
        if self._options.on_bad == "fail":
            self._check(reader, stream, source, account)
        for item in _items(reader, stream, source, account):
            if isinstance(item, Rejected):
                account.refuse(item)
                self._fail_if_told(account)
                continue
            account.read += 1
            self._add(item, account)
            if self.is_full:
                break
        self._keep(account)

    def _reader_for(self, file: InputFile, stream: BinaryIO, account: FileReport) -> Reader | None:
        """The reader to use; None when the file was ignored or rejected, which is noted."""
        if self._asked is not None:
            return self._asked
        head = read_head(stream)
        reader = detect_reader(head, self._readers)
        if reader is None and not file.named:
            self._ignored.append(file.shown)
        elif reader is None:
            account.refuse(Rejected(_unclaimed(head), fatal=True))
            self._keep(account)
        return reader

    def _check(self, reader: Reader, stream: BinaryIO, source: Source, account: FileReport) -> None:
        """Read the file without storing it. Raises IngestError at its first problem."""
        trial = FileReport(account.path)
        left = None if self._options.limit is None else self._options.limit - self._read
        for item in _items(reader, stream, source, trial):
            if isinstance(item, Rejected):
                trial.refuse(item)
                self._fail_if_told(trial)
            trial.read += 1
            if left is not None and trial.read >= left:
                return

    def _keep(self, account: FileReport) -> None:
        self._files.append(account)
        self._fail_if_told(account)

    def _fail_if_told(self, account: FileReport) -> None:
        if self._options.on_bad == "skip" or not account.problems:
            return
        self.flush()
        first = account.problems[0]
        place = account.path if first.line is None else f"{account.path}:{first.line}"
        raise IngestError(first.message, place=place, code=first.code, hint="--on-bad skip goes on behind bad records")

    def _add(self, trajectory: Trajectory, account: FileReport) -> None:
        size = len(trajectory.source.raw or "") if trajectory.source else 0
        if len(self._batch) >= BATCH_RECORDS or self._batch_bytes + size > BATCH_BYTES:
            self.flush()
        self._read += 1
        self._batch.append((trajectory, account))
        self._batch_bytes += size
        if self._progress is not None:
            self._progress(account.path, account.read)

    def flush(self) -> None:
        """Store the batch and settle which of it was new."""
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        first: dict[str, Trajectory] = {}
        for trajectory, _ in batch:
            first.setdefault(trajectory.id, trajectory)
        kill_point("ingest.batch")
        stored = set(self._store(list(first.values())))
        kill_point("ingest.stored")
        for trajectory, account in batch:
            if trajectory.id in stored:
                stored.remove(trajectory.id)
                account.accepted += 1
                self._count(trajectory)
            else:
                account.duplicates += 1

    def _store(self, batch: list[Trajectory]) -> list[str]:
        if self._archive is not None:
            return self._archive.add_trajectories(batch) if batch else []
        new = [item.id for item in batch if item.id.encode() not in self._dry_ids]
        self._dry_ids.update(identity.encode() for identity in new)
        return new

    def _count(self, trajectory: Trajectory) -> None:
        self._counts["trajectories"] += 1
        self._counts["steps"] += len(trajectory.steps)
        counts = trajectory.source.counts if trajectory.source else {}
        self._counts.update({key: counts.get(key, 0) for key in COUNTED})

    def report(self) -> dict[str, Any]:
        """The report of design.md section 7."""
        totals = {key: self._counts[key] for key in ("trajectories", "steps", *COUNTED)}
        totals["duplicates"] = sum(file.duplicates for file in self._files)
        totals["skipped"] = sum(file.skipped for file in self._files)
        totals["rejected_files"] = sum(file.rejected for file in self._files)
        files = [file.as_dict() for file in self._files]
        return {"v": 1, "files": files, "ignored": self._ignored, "totals": totals}


def _asked(given: str | Reader) -> Reader | None:
    """The reader asked for; None for detection."""
    if isinstance(given, str):
        return None if given == "auto" else find_reader(given)
    return given


def _items(reader: Reader, stream: BinaryIO, source: Source, account: FileReport) -> Iterator[Trajectory | Rejected]:
    """What the reader yields; an empty file, a reader that fails or finds nothing is a fatal `Rejected`."""
    found = False
    try:
        with boundary(ReaderFailed, f"reader {reader.name!r} failed", place=account.path):
            rewind(stream)
            for item in guarded(reader.read(stream, source)):
                found = True
                yield item
                if isinstance(item, Rejected) and item.fatal:
                    return
            if not found:
                yield Rejected(_nothing_in(stream), fatal=True)
    except READ_ERRORS as error:
        yield Rejected(problem_of(error), fatal=True)
    except TtcError as error:
        yield Rejected(Problem(error.error_code, error.message), fatal=True)


def _nothing_in(stream: BinaryIO) -> Problem:
    if read_head(stream).container == "empty":
        return Problem(EMPTY_FILE, "empty file")
    return Problem(NO_TRAJECTORIES, "no trajectories in it")


def _unclaimed(head: Head) -> Problem:
    if head.container == "empty":
        return Problem(EMPTY_FILE, "empty file")
    what = head.note or {"lines": "JSON lines", "array": "a JSON array"}.get(head.container, "a JSON document")
    return Problem(UNKNOWN_FORMAT, f"no reader knows this file ({what}); formats: {', '.join(reader_names())}")
