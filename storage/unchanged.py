"""Files that have not changed since they were read whole: their accounts are remembered, they are not read again.

A file is the same while its device, inode, size and both its times are; one that was touched within two seconds before
it was read is never taken for unchanged (its next change might not move the clock: git's rule). The key holds whatever
else the account depends on: this version, the readers, the format asked for, the limits.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

from .accounts import Accounts, FileReport
from .canonical import content_id
from .errors import ReaderFailed
from .input_files import STDIN, InputFile
from .records import Problem

_RACY_SECONDS = 2.0


@runtime_checkable
class FileMemory(Protocol):
    """An archive that remembers the files it has read."""

    def known_files(self) -> set[str]:
        """The keys of those files."""
        ...

    def read_accounts(self, keys: Sequence[str]) -> dict[str, Any]:
        """Their accounts."""
        ...

    def remember_files(self, accounts: Mapping[str, Any]) -> None:
        """Keep accounts of files all of whose trajectories are stored."""
        ...


class Unchanged:
    """What one ingest knows of files it need not read, and what it learns. `about`: what accounts depend on."""

    def __init__(self, memory: FileMemory | None, about: Sequence[str]):
        self._memory = memory
        self._about = [version("ttc-replay"), *about]
        self._known = memory.known_files() if memory is not None else set()
        self._learnt: list[tuple[str, InputFile, list[FileReport], list[str]]] = []

    def key(self, file: InputFile) -> str | None:
        """The key of a file; None where nobody can tell whether it has changed."""
        if self._memory is None or file.path == STDIN or file.is_url or file.events or file.ignored:
            return None
        try:
            status = os.stat(file.path)
        except OSError:
            return None
        touched = max(status.st_mtime, status.st_ctime)
        if not stat.S_ISREG(status.st_mode) or time.time() - touched < _RACY_SECONDS:
            return None
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return content_id(status.st_dev, status.st_ino, status.st_size, times, file.named, self._about)

    def recall(self, key: str | None, file: InputFile, accounts: Accounts) -> bool:
        """Enter the remembered account of a file; False when there is none."""
        if key is None or key not in self._known or self._memory is None:
            return False
        account = self._memory.read_accounts([key])[key]
        accounts.files += [_report(entry, file) for entry in account["files"]]
        accounts.ignored += [file.shown + end for end in account["ignored"]]
        return True

    def learn(self, key: str | None, file: InputFile, reports: Sequence[FileReport], ignored: Sequence[str]) -> None:
        """Note what was read of a file; kept by `keep`, when all of it is stored.

        What was rejected, or failed in the reader, is tried again: an extra may be installed by then, a reader mended.
        """
        if key is not None and reports and not any(map(_may_change, reports)):
            self._learnt.append((key, file, list(reports), list(ignored)))

    def keep(self) -> None:
        """Remember what was learnt."""
        if self._memory is not None and self._learnt:
            self._memory.remember_files(
                {
                    key: {
                        "files": [_entry(report, file) for report in reports],
                        "ignored": [path.removeprefix(file.shown) for path in ignored],
                    }
                    for key, file, reports, ignored in self._learnt
                }
            )


def _may_change(report: FileReport) -> bool:
    failed = any(problem.code == ReaderFailed.code for problem in report.problems)
    return report.rejected or failed or bool(report.unlisted)


def _entry(report: FileReport, file: InputFile) -> dict[str, Any]:
    return {
        "end": report.path.removeprefix(file.shown),
        "format": report.format,
        "stored": report.accepted + report.duplicates,
        "skipped": report.skipped,
        "rejected": report.rejected,
        "problems": [[problem.code, problem.message, problem.line] for problem in report.problems],
    }


def _report(entry: Mapping[str, Any], file: InputFile) -> FileReport:
    return FileReport(
        file.shown + entry["end"],
        entry["format"],
        duplicates=entry["stored"],
        skipped=entry["skipped"],
        rejected=entry["rejected"],
        problems=[Problem(*problem) for problem in entry["problems"]],
        read=entry["stored"],
    )
