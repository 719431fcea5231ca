"""Reader of Codex CLI logs: rollouts (`~/.codex/sessions/.../rollout-*.jsonl`), and what `codex exec --json` prints.

One file is one run, held whole. The conversation is made of the response items; events (`event_msg`) say the same
again, so of them only usage, errors, the end and failed commands are taken. A legacy file without any item is read from
its events. Files of before the envelope have bare items, which are read too.

* Usage of a call is the growth of `total_token_usage`; repeated counts add nothing; where the total falls (a fork, a
  compaction) `last_token_usage` holds. The last total is the run's.
* What follows `compacted` is a trajectory of its own (relation "continuation") that begins with what replaced the
  history; turns that were rolled back are a branch. `counts` are of the lines each owns, so that they add up to those
  of the file; `runs` is 1 for the first and 0 for the others.
* Sub-agents and forks are files of their own: `Source.links` names threads as `thread:ID`.

The system message is `base_instructions` where the log has them (older `instructions` are the user's: `Source.extra`).
Not in the log: tool schemas. Only in the raw record: encrypted reasoning, snapshots, all other events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Outcome, Rejected, Source, Task, Trajectory
from .base import identify
from .codex_exec import ExecThread, is_event, threads
from .codex_items import is_item
from .codex_rollout import LINE_TYPES, Rollout
from .event_tree import TooManyBranches
from .held import hold
from .json_input import Head, Record
from .json_text import TOO_LONG, BadRecord


class CodexReader:
    """Reads rollouts of every age and the events of `codex exec --json`."""

    name = "codex"

    def detect(self, head: Head) -> float:
        """0.95 for lines of a rollout or of `exec --json`, 0.8 for the bare items of old files."""
        rows = [record for record in head.records if isinstance(record, dict)]
        if head.container not in ("lines", "document"):
            return 0.0
        if any(_is_line(row) or is_event(row) for row in rows):
            return 0.95
        old = [row for row in rows if "record_type" in row or is_item(row)]
        return 0.8 if any(is_item(row) for row in rows) and len(old) * 2 > len(rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the run's trajectory, then its continuations and branches; of `exec --json` one for each thread."""
        lines, refused = hold(stream)
        broken = refused.pop() if refused and refused[-1].fatal else None
        yield from refused
        source = replace(source, format=self.name)
        rows = [record.value for record in lines]
        if any(map(is_event, rows)) and not any(map(_is_line, rows)):
            yield from _exec_threads(lines, len(refused), source, cut=broken is not None)
        elif lines:
            try:
                yield from Rollout(lines, len(refused), source, cut=broken is not None).trajectories()
            except TooManyBranches:
                yield Rejected(BadRecord(TOO_LONG, "more branches than can be read").problem())
        if broken is not None:
            yield broken


def _is_line(row: dict[str, Any]) -> bool:
    return row.get("type") in LINE_TYPES and isinstance(row.get("payload"), dict)


def _exec_threads(lines: list[Record], bad_lines: int, source: Source, *, cut: bool) -> Iterator[Trajectory | Rejected]:
    groups = threads([(record.line, record.value) for record in lines])
    for number, group in enumerate(groups):
        rows = [row for _, row in group]
        thread = ExecThread(rows)
        counts = {
            **thread.counts,
            "runs": int(number == 0),
            "events": len(rows),
            "bad_lines": 0 if number else bad_lines,
        }
        steps = thread.talk.steps()
        reason, detail = thread.end or (None, {})
        try:
            identity, made = identify(
                source,
                rows,
                line=group[0][0],
                agent="codex",
                counts=counts,
                usage=thread.usage,
                extra={"dialect": "exec", **({"thread_id": thread.identity} if thread.identity else {})},
            )
        except BadRecord as error:
            yield Rejected(error.problem(group[0][0]))
            continue
        yield Trajectory(
            id=identity,
            task=Task(f"thread-{thread.identity or identity[:16]}"),  # the log does not hold what was asked
            steps=steps,
            outcome=Outcome(exit_reason=reason, detail=dict(detail)) if reason else None,
            truncated=reason == "error" or (cut and number == len(groups) - 1),
            source=made,
        )
