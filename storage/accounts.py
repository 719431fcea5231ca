"""The accounts of an ingest: what became of every record of every file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .readers.json_text import MORE_PROBLEMS
from .records import Problem, Rejected, Trajectory

MAX_LISTED_PROBLEMS = 10_000
"""Problems listed for one file; more are counted by code in one last entry."""

COUNTED = ("messages", "assistant_turns", "tool_calls", "tool_results", "rewards")


@dataclass(slots=True)
class FileReport:
    """The account of one file. `read` counts trajectories handed on, stored or not; `filtered` those too old."""

    path: str
    format: str | None = None
    accepted: int = 0
    duplicates: int = 0
    skipped: int = 0
    rejected: bool = False
    problems: list[Problem] = field(default_factory=list)
    unlisted: Counter[str] = field(default_factory=Counter)
    read: int = 0
    filtered: int = 0

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
        filtered = {"filtered": self.filtered} if self.filtered else {}
        return {**{key: getattr(self, key) for key in keys}, **filtered, "problems": problems}


@dataclass(slots=True)
class Accounts:
    """The accounts of all files. `undated`: trajectories kept although nobody knows whether they are too old."""

    files: list[FileReport] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    undated: int = 0

    def count(self, trajectory: Trajectory) -> None:
        """Count what was newly stored."""
        self.counts["trajectories"] += 1
        self.counts["steps"] += len(trajectory.steps)
        counts = trajectory.source.counts if trajectory.source else {}
        self.counts.update({key: counts.get(key, 0) for key in COUNTED})

    def report(self) -> dict[str, Any]:
        """The report of design.md section 7; `filtered` and `undated` are among the totals where they are not 0."""
        totals = {key: self.counts[key] for key in ("trajectories", "steps", *COUNTED)}
        totals["duplicates"] = sum(file.duplicates for file in self.files)
        totals["skipped"] = sum(file.skipped for file in self.files)
        totals["rejected_files"] = sum(file.rejected for file in self.files)
        extra = {"filtered": sum(file.filtered for file in self.files), "undated": self.undated}
        totals |= {key: value for key, value in extra.items() if value}
        return {"v": 1, "files": [file.as_dict() for file in self.files], "ignored": self.ignored, "totals": totals}


def exit_code(report: Mapping[str, Any]) -> int:
    """0: everything read is in the archive. 3: nothing is, and something was refused. 1: some of it was refused."""
    totals = report["totals"]
    if not totals["skipped"] and not totals["rejected_files"]:
        return 0
    return 1 if totals["trajectories"] or totals["duplicates"] or totals.get("filtered") else 3
