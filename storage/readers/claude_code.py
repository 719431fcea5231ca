"""Reader of Claude Code sessions (`~/.claude/projects/<folder>/<session>.jsonl`), a format that is nowhere published.

One file is one run, held whole because its lines form a tree (`parentUuid`): the main trajectory ends in the latest
leaf. All else in the file are trajectories of their own, so that no line is lost and none stands in two raw records:

* a path that was left (rewound, edited) is a branch: `parent_id`, and `branch_step` the first step that differs;
* what follows a compaction is a continuation, beginning with the summary: this is what the model saw from there on;
* side chains (`isSidechain`, as old versions wrote them) are sub-agents; the step that called one is told by the parent
  line, by the agent's id in a tool result, or by its prompt. A file of side-chain lines alone is a sub-agent's own log
  (new versions): `Source.links` names it `agent:SESSION/AGENT`, its session, and the session names its agents;
* a conversation behind `/clear`, or of another session, is one without a parent.

`counts` are of the lines each of them owns, so that they add up to those of the file; `runs` is 1 for the file's first
trajectory and 0 for the others. A file none of whose lines names a parent in it is a plain list. Main-path lines whose
parent is missing follow the line before. A resumed session whose file begins with lines of an older one names that
(`Source.links.parent`) and shares its first `branch_step` steps.

Not in the log: the system prompt, tool schemas, sampling parameters. Only in the raw record: `toolUseResult`, thinking
signatures, snapshots, progress and any type of line that is not `user` or `assistant`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Rejected, Source, Trajectory
from .claude_code_session import Session
from .event_tree import TooManyBranches
from .held import hold
from .json_input import Head
from .json_text import TOO_LONG, BadRecord

_LINES = ("user", "assistant", "system", "attachment", "progress")


class ClaudeCodeReader:
    """Reads session files and the files of their sub-agents."""

    name = "claude-code"
    empty_is_valid = True
    """A file of summaries or snapshots alone has no run in it."""

    def detect(self, head: Head) -> float:
        """0.95 when a line is one of a session, 0.7 for summaries and snapshots alone."""
        rows = [record for record in head.records if isinstance(record, dict)]
        if any(_is_line(row) for row in rows):
            return 0.95
        return 0.7 if rows and all(_is_about_a_session(row) for row in rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the session's trajectory, then those of its continuations, branches and sub-agents."""
        lines, refused = hold(stream)
        broken = refused.pop() if refused and refused[-1].fatal else None
        yield from refused
        session = Session(lines, len(refused), replace(source, format=self.name), cut=broken is not None)
        try:
            yield from session.trajectories()
        except TooManyBranches:
            yield Rejected(BadRecord(TOO_LONG, "more branches than can be read").problem())
        if broken is not None:
            yield broken


def _is_line(row: dict[str, Any]) -> bool:
    """A line of the tree: of a known type, with an id, a session or a parent, and what its type calls for."""
    if row.get("type") not in _LINES or not isinstance(row.get("sessionId"), str):
        return False
    if "parentUuid" not in row and "uuid" not in row:
        return False
    return isinstance(row.get("message"), dict) or row["type"] not in ("user", "assistant")


def _is_about_a_session(row: dict[str, Any]) -> bool:
    kind = row.get("type")
    if kind == "summary":
        return isinstance(row.get("leafUuid"), str)
    if kind == "file-history-snapshot":
        return isinstance(row.get("snapshot"), dict)
    return isinstance(kind, str) and isinstance(row.get("sessionId"), str)
