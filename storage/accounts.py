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
    """The account of one file. `read` counts trajectories handed on, stored or not; `filtered` those too old;
    `subagents` those stored besides, that are parts of an entry of the source.
    """

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
    subagents: int = 0

    def settle(self, trajectory: Trajectory, is_new: bool) -> None:
        """Account for a trajectory that is in the archive now. One that is part of another entry of the source is
        counted apart, and only when it is new.
        """
        if is_part(trajectory):
            self.subagents += is_new
        elif is_new:
            self.accepted += 1
        else:
            self.duplicates += 1

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
        extra = {key: value for key in ("filtered", "subagents") if (value := getattr(self, key))}
        return {**{key: getattr(self, key) for key in keys}, **extra, "problems": problems}


@dataclass(slots=True)
class Accounts:
    """The accounts of all files. `undated`: trajectories kept although nobody knows whether they are too old. `joined`:
    trajectories that got an outcome kept elsewhere; `unmatched`: ids of such that found none (None: not asked).
    """

    files: list[FileReport] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    undated: int = 0
    joined: int = 0
    unmatched: list[str] | None = None

    def count(self, trajectory: Trajectory) -> None:
        """Count what was newly stored."""
        self.counts["trajectories"] += not is_part(trajectory)
        self.counts["steps"] += len(trajectory.steps)
        counts = trajectory.source.counts if trajectory.source else {}
        self.counts.update({key: counts.get(key, 0) for key in COUNTED})

    def report(self) -> dict[str, Any]:
        """The report of design.md section 7; `filtered`, `subagents` and `undated` only where they are not 0."""
        totals = {key: self.counts[key] for key in ("trajectories", "steps", *COUNTED)}
        totals["duplicates"] = sum(file.duplicates for file in self.files)
        totals["skipped"] = sum(file.skipped for file in self.files)
        totals["rejected_files"] = sum(file.rejected for file in self.files)
        extra = {key: sum(getattr(file, key) for file in self.files) for key in ("filtered", "subagents")}
        extra["undated"] = self.undated
        totals |= {key: value for key, value in extra.items() if value}
        report = {"v": 1, "files": [file.as_dict() for file in self.files], "ignored": self.ignored, "totals": totals}
        if self.unmatched is not None:
            report["reward_from"] = {"joined": self.joined, "unmatched": self.unmatched}
        return report


def is_part(trajectory: Trajectory) -> bool:
    """Whether it is no run of its own by the reader's counts: a sub-agent in the trace of the run that called it."""
    return trajectory.source is not None and trajectory.source.counts.get("runs", 1) == 0


def exit_code(report: Mapping[str, Any]) -> int:
    """0: everything read is in the archive. 3: nothing is, and something was refused. 1: some of it was refused."""
    totals = report["totals"]
    if not totals["skipped"] and not totals["rejected_files"]:
        return 0
    return 1 if totals["trajectories"] or totals["duplicates"] or totals.get("filtered") else 3
