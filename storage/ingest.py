"""Ingest: log files into an archive, with an account of every record (promises P3, P5, P8).

Every record read is stored, or a duplicate (the archive has its id, or it came before in this run), or filtered
(older than `since`), or skipped with its line and code; a file of which nothing could be read is rejected. Codes:

    TTC-E010  the file cannot be read            TTC-E018  not UTF-8, or a lone surrogate
    TTC-E011  not JSON                           TTC-E019  cut in the middle
    TTC-E012  JSON, but no record of the format  TTC-E020  nested deeper than --max-depth
    TTC-E013  no reader claims the file          TTC-E021  over --max-line, or 32 MiB as stored
    TTC-E014  a number is not finite             TTC-E022  an integer of more than 4,300 digits
    TTC-E015  empty file                         TTC-E023  damaged packing, or over --max-ratio
    TTC-E016  no trajectories in it              TTC-E024  raw NUL bytes
    TTC-E017  a key twice in one object          TTC-E025  further problems, counted by code
    TTC-E026  an unsafe, doubled or overlapping  TTC-E027  an archive's member that is not opened: encrypted,
              member of an archive                         of an unknown method, or an archive itself
    TTC-E028  over --max-file or --max-members   TTC-E404  the reader itself failed

Totals count what this run accepted, by the definitions of `traces/count.py`; a second ingest of the same files
therefore has only duplicates. With `dry_run` nothing is written and only duplicates within the run are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal, Protocol, runtime_checkable

from .accounts import Accounts, FileReport
from .archives import NOT_OPENED, Member, archive
from .archives import Archive as Zip
from .chat_log import LoggedSteps, record_bytes
from .errors import IngestError, UsageError
from .input_files import URL_SCHEMES, InputFile, expand
from .joined import Outcomes
from .kill_points import kill_point
from .limits import Limits, using
from .opening import Inputs
from .readers.base import Reader, all_readers, detect_reader, find_reader
from .readers.json_input import READ_ERRORS, Head, problem_of, read_head
from .readers.json_text import UNKNOWN_FORMAT
from .reading import items_of, sound, unclaimed
from .records import Outcome, Problem, Rejected, Source, Trajectory
from .unchanged import FileMemory, Unchanged
from .unpacking import is_packed, is_unpacked, is_zip, open_text

BATCH_RECORDS = 4096
BATCH_BYTES = 64 * 2**20
"""Raw text in one transaction. Row groups that a transaction leaves half full are written again by the next one."""
_RECORDS_WEIGH = 8
"""What is built as records is held and copied several times more often than a chat that is not."""

Progress = Callable[[str, int], None]


class Archive(Protocol):
    """What ingest needs of a database."""

    def add_trajectories(self, batch: Sequence[Trajectory]) -> list[str]:
        """Store those whose id is new, all or none; the ids newly stored."""
        ...


@runtime_checkable
class Settling(Protocol):
    """An archive that can be told more about what it has."""

    def resolve_links(self) -> int:
        """Give trajectories the parents their logs name."""
        ...

    def join_outcomes(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """Give stored trajectories without a verdict one that was kept elsewhere."""
        ...


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """`format`: "auto", a format's name, or a reader. `dataset` None: the name of each file's folder.

    `on_bad`: "skip" goes on behind a bad record; "fail" reads everything before any of it is stored, and stops at the
    first bad record. `limit`: read at most that many trajectories, duplicates included. `tags` are stored with each
    trajectory. `since`: those that started earlier are not stored; those without a time are. `outcomes`: those kept
    elsewhere, joined to the trajectories whose logs have none, stored ones included.
    """

    format: str | Reader = "auto"
    dataset: str | None = None
    on_bad: Literal["skip", "fail"] = "skip"
    dry_run: bool = False
    limit: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    outcomes: Outcomes | None = None
    limits: Limits = field(default_factory=Limits)


def ingest(
    database: Archive | None,
    paths: Sequence[str],
    options: IngestOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read `paths` into `database` (None only for a dry run) and return the report of `ingest --json`.

    Files in a folder or an archive that no reader claims are listed as ignored; named explicitly they are rejected.
    `progress` is called with a path and the number of its trajectories read so far. Raises UsageError for an unknown
    format or a path that does not exist, IngestError with `on_bad="fail"`, and what the archive raises.
    """
    options = options or IngestOptions()
    with using(options.limits), Inputs() as inputs:
        if options.on_bad == "fail":
            _Job(None, options, inputs, None).run(paths)
        return _Job(None if options.dry_run else database, options, inputs, progress).run(paths)


def check(paths: Sequence[str], asked: str | Reader | None) -> list[Sequence[InputFile] | Iterator[InputFile]]:
    """The files behind each path. Raises UsageError, before anything is read, for a path that does not exist, or a
    database whose format is not named.
    """
    for path in paths:
        if path.startswith(URL_SCHEMES) and not hasattr(asked, "read_postgres"):
            shown = InputFile(path).shown
            raise UsageError(f"{shown}: a database of which format?", hint="name it: --format langgraph")
    return expand(paths)


class _Job:
    """One reading of all the input: a batch that fills over file borders, and the accounts."""

    def __init__(self, database: Archive | None, options: IngestOptions, inputs: Inputs, progress: Progress | None):
        self._archive = database
        self._options = options
        self._inputs = inputs
        self._progress = progress
        self._asked = _asked(options.format)
        self._readers = all_readers() if self._asked is None else []
        self._batch: list[tuple[Trajectory, FileReport]] = []
        self._batch_bytes = 0
        self._dry_ids: set[bytes] = set()
        self._read = 0
        self._accounts = Accounts()
        self._late: dict[str, Outcome] = {}
        self._unchanged = Unchanged(self._memory(), self._about())

    def _memory(self) -> FileMemory | None:
        """Files are remembered where reading one always gives the same account."""
        asked = self._options
        whole = asked.limit is None and asked.since is None and asked.outcomes is None
        return self._archive if whole and isinstance(self._archive, FileMemory) else None

    def _about(self) -> list[str]:
        readers = self._readers or ([self._asked] if self._asked is not None else [])
        return [repr(self._options.limits), *(f"{reader.name} {type(reader).__module__}" for reader in readers)]

    @property
    def is_full(self) -> bool:
        return self._options.limit is not None and self._read >= self._options.limit

    def run(self, paths: Sequence[str]) -> dict[str, Any]:
        """Read everything; the report."""
        for files in check(paths, self._asked):
            for file in files:
                if self.is_full:
                    break
                self._take_unless_known(file)
        self.flush()
        if self._archive is not None:
            self._unchanged.keep()
            self._settle(self._archive)
        return self._accounts.report()

    def _take_unless_known(self, file: InputFile) -> None:
        """Read one input, unless it was read whole before and has not changed since."""
        key = self._unchanged.key(file)
        if self._unchanged.recall(key, file, self._accounts):
            return
        files, ignored = len(self._accounts.files), len(self._accounts.ignored)
        self._take(file)
        self._unchanged.learn(key, file, self._accounts.files[files:], self._accounts.ignored[ignored:])

    def _settle(self, archive: Archive) -> None:
        """What can only be told when everything is stored: who belongs to whom, and late outcomes."""
        if isinstance(archive, Settling):
            archive.resolve_links()
            self._accounts.joined += len(archive.join_outcomes(self._late))
        if self._options.outcomes is not None:
            self._accounts.unmatched = self._options.outcomes.unused

    def _take(self, file: InputFile) -> None:
        """Read one input into the batch."""
        if file.ignored:
            self._accounts.ignored.append(file.shown)
        elif file.is_url:
            self._take_database(file)
        else:
            self._take_content(file, self._inputs.opened(file))

    def _take_database(self, file: InputFile) -> None:
        """Read a PostgreSQL database; `check` has seen that the format lies in one."""
        reader: Any = self._asked
        account = FileReport(file.shown, reader.name)
        items = reader.read_postgres(file.path, self._source(reader, file))
        self._take_items(sound(items, reader.name), account)

    def _take_content(self, file: InputFile, opening: AbstractContextManager[BinaryIO]) -> None:
        """Read what `opening` opens: a log, or an archive of logs."""
        account = FileReport(file.shown)
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(opening)
                head = read_head(stream)
            except READ_ERRORS as error:
                self._refuse(account, problem_of(error))
                return
            reader = self._reader_for(head)
            if reader is not None:
                account.format = reader.name
                self._take_items(items_of(reader, stream, self._source(reader, file)), account)
            elif is_zip(head.data) and file.member is None and not is_unpacked(stream):
                self._take_archive(file, stream)
            else:
                self._take_unclaimed(file, stream, head, account)

    def _reader_for(self, head: Head) -> Reader | None:
        """The reader to use. A zip is for the reader that claims it as a whole, asked for or not."""
        if self._asked is None:
            return detect_reader(head, self._readers)
        return detect_reader(head, [self._asked]) if is_zip(head.data) else self._asked

    def _take_unclaimed(self, file: InputFile, stream: BinaryIO, head: Head, account: FileReport) -> None:
        if is_packed(head.data) and (is_unpacked(stream) or file.member is not None):
            self._refuse(account, Problem(NOT_OPENED, f"{head.note} within packed data is not opened: unpack it first"))
        elif file.named:
            self._refuse(account, unclaimed(head))
        else:
            self._accounts.ignored.append(file.shown)

    def _take_archive(self, file: InputFile, stream: BinaryIO) -> None:
        """Read the members of a zip; one in which no member is claimed counts as a file that no reader claims."""
        files, ignored = len(self._accounts.files), len(self._accounts.ignored)
        account = FileReport(file.shown)
        with ExitStack() as stack:
            try:
                opened = stack.enter_context(archive(stream))
            except READ_ERRORS as error:
                self._refuse(account, problem_of(error))
                return
            for member in opened.members:
                if self.is_full:
                    return
                self._take_member(file, opened, member)
        if len(self._accounts.files) == files:
            del self._accounts.ignored[ignored:]
            if file.named:
                self._refuse(account, Problem(UNKNOWN_FORMAT, "a zip archive in which no reader knows any file"))
            else:
                self._accounts.ignored.append(file.shown)

    def _take_member(self, file: InputFile, opened: Zip, member: Member) -> None:
        inner = replace(file, member=member.name, named=False)
        if member.problem is not None:
            self._refuse(FileReport(inner.shown), member.problem)
        elif member.ignored:
            self._accounts.ignored.append(inner.shown)
        else:
            self._take_content(inner, nullcontext(open_text(opened.open(member))))

    def _source(self, reader: Reader, file: InputFile) -> Source:
        dataset = self._options.dataset or file.dataset
        return Source(reader.name, file.source_path, dataset=dataset, tags=self._options.tags)

    def _take_items(self, items: Iterator[Trajectory | Rejected], account: FileReport) -> None:
        for item in items:
            if isinstance(item, Rejected):
                account.refuse(item)
                self._fail_if_told(account)
                continue
            account.read += 1
            if self._is_too_old(item):
                account.filtered += 1
                continue
            self._add(self._joined(item), account)
            if self.is_full:
                break
        self._keep(account)

    def _joined(self, trajectory: Trajectory) -> Trajectory:
        """With the outcome that is kept elsewhere, where there is one."""
        if self._options.outcomes is None:
            return trajectory
        joined, found = self._options.outcomes.join(trajectory)
        if found and joined.outcome is not None:
            self._late[joined.id] = joined.outcome
        return joined

    def _is_too_old(self, trajectory: Trajectory) -> bool:
        if self._options.since is None:
            return False
        started = _time(trajectory.source.started_at if trajectory.source else None)
        if started is None:
            self._accounts.undated += 1
            return False
        return started < _aware(self._options.since)

    def _refuse(self, account: FileReport, problem: Problem) -> None:
        """Nothing of the file was read."""
        account.refuse(Rejected(problem, fatal=True))
        self._keep(account)

    def _keep(self, account: FileReport) -> None:
        self._accounts.files.append(account)
        self._fail_if_told(account)

    def _fail_if_told(self, account: FileReport) -> None:
        if self._options.on_bad == "skip" or not account.problems:
            return
        first = account.problems[0]
        place = account.path if first.line is None else f"{account.path}:{first.line}"
        raise IngestError(first.message, place=place, code=first.code, hint="--on-bad skip goes on behind bad records")

    def _add(self, trajectory: Trajectory, account: FileReport) -> None:
        size = record_bytes(trajectory) * (1 if isinstance(trajectory.steps, LoggedSteps) else _RECORDS_WEIGH)
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
            is_new = trajectory.id in stored
            stored.discard(trajectory.id)
            account.settle(trajectory, is_new)
            if is_new:
                self._accounts.count(trajectory)
                self._accounts.joined += self._late.pop(trajectory.id, None) is not None

    def _store(self, batch: list[Trajectory]) -> list[str]:
        if self._archive is not None:
            return self._archive.add_trajectories(batch) if batch else []
        new = [item.id for item in batch if item.id.encode() not in self._dry_ids]
        self._dry_ids.update(identity.encode() for identity in new)
        return new


def _asked(given: str | Reader) -> Reader | None:
    """The reader asked for; None for detection."""
    if isinstance(given, str):
        return None if given == "auto" else find_reader(given)
    return given


def _time(text: str | None) -> datetime | None:
    """A recorded time; None where there is none that can be read."""
    try:
        return _aware(datetime.fromisoformat(text)) if text else None
    except ValueError:
        return None


def _aware(time: datetime) -> datetime:
    """Times without a zone are taken as UTC."""
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
