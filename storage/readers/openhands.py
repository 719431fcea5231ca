"""Reader of OpenHands runs: v0 events, v1 (SDK) events, and the `output.jsonl` of both evaluation harnesses.

Events by themselves (an array, lines, or a folder of files that the ingest presents as an array: `folders.py`) are one
run, held whole. Objects with a `history` (or `trajectory`, `events`) are a run each and streamed.

* v0: calls come from the model's answer (`tool_call_metadata.model_response`); parallel ones, which share its id, are
  one step; an action without one is a call named as the action. A delegate's events are a sub-agent's trajectory. Cost
  is the growth of `llm_metrics`. State changes, recalls and condensations are in the raw record only.
* v1: `parent_id` makes a tree: the main trajectory ends in the latest event, paths that were left are branches.
  Condensations do not cut a run. Tool definitions without a parameter schema are not taken as schemas.
* of a harness: `instance_id` is the task's id, `test_result` the final state, `resolved` the outcome; `instance` is
  private.

`counts` are of the events each trajectory owns; `runs` is 1 for a run's first and 0 for its others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from ..records import Message, Outcome, Rejected, Score, Source, Step, Task, ToolSchema, Trajectory, Usage
from . import openhands_v0 as v0
from . import openhands_v1 as v1
from .base import identify
from .chat import first_user_text, listing, mapping, number, prompt_id, string, text, whole
from .clock import span, utc
from .event_tree import TooManyBranches
from .folders import is_event
from .held import hold
from .json_input import Head, read_head, records
from .json_text import TOO_LONG, BadRecord, wrong_shape
from .talk import Talk, total

_LISTS = ("history", "trajectory", "events")
_CUT_STATES = ("error", "stopped", "stuck", "paused", "rate_limited")
Event = Mapping[str, Any]


class OpenHandsReader:
    """Reads event lists of v0 and v1, and evaluation outputs."""

    name = "openhands"

    def detect(self, head: Head) -> float:
        """0.95 for events in an array or lines, and for objects that hold a list of them."""
        rows = [record for record in head.records if isinstance(record, dict)]
        if any(_listed(row) is not None for row in rows):
            return 0.95
        events = sum(map(is_event, rows))
        return 0.95 if head.container in ("lines", "array") and events * 2 > len(rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the run, then what belongs to it; of evaluation outputs that for each record."""
        source = replace(source, format=self.name)
        if any(map(is_event, read_head(stream).records)):
            yield from _read_events(stream, source)
            return
        for item in records(stream):
            if isinstance(item, Rejected):
                yield item
            elif isinstance(item.value, dict) and _listed(item.value) is not None:
                yield from _Run(item.value, replace(source, line=item.line)).trajectories()
            else:
                yield Rejected(wrong_shape("neither an event nor an object with a list of them").problem(item.line))


def _read_events(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    lines, refused = hold(stream)
    broken = refused.pop() if refused and refused[-1].fatal else None
    yield from refused
    if lines:
        events = [record.value for record in lines]
        yield from _Run(events, replace(source, line=lines[0].line), cut=broken is not None).trajectories()
    if broken is not None:
        yield broken


def _listed(row: Mapping[str, Any]) -> list[Event] | None:
    """The events in an object: a list of them, or of pairs of action and observation. None: it has none."""
    for key in _LISTS:
        given = row.get(key)
        if isinstance(given, list):
            flat = [event for item in given for event in (item if isinstance(item, list) else [item])]
            events: list[Event] = [event for event in flat if isinstance(event, dict)]
            if any(map(is_event, events[:10])) or (not flat and "instance_id" in row and "test_result" in row):
                return events
    return None


@dataclass(frozen=True, slots=True)
class _Part:
    """One thread of a run: its conversation, its own events, and what they say of it."""

    talk: Talk
    own: Sequence[Event]
    counts: Mapping[str, int]
    end: tuple[str | None, dict[str, Any]] | None
    tools: tuple[ToolSchema, ...] | None
    usage: Usage | None
    agent: str | None
    about: Mapping[str, Any]


class _Run:
    """One run: its events, and the record of the harness that they stood in (or a list of events alone)."""

    def __init__(self, raw: Any, source: Source, *, cut: bool = False):
        self._record: Mapping[str, Any] = mapping(raw)
        self._raw = raw
        self._source = source
        self._cut = cut
        self._events: Sequence[Event] = (_listed(raw) or []) if isinstance(raw, dict) else raw
        self._ids: list[str] = []

    def trajectories(self) -> Iterator[Trajectory | Rejected]:
        """The run's own trajectory, then those of delegates (v0) or branches (v1)."""
        is_v1 = any("kind" in event for event in self._events)
        try:
            yield from self._branches() if is_v1 else self._threads()
        except TooManyBranches:
            yield Rejected(BadRecord(TOO_LONG, "more branches than can be read").problem(self._source.line))
        except BadRecord as error:
            yield Rejected(error.problem(self._source.line))

    def _threads(self) -> Iterator[Trajectory]:
        found = v0.Events(self._events)
        ids: dict[int, str] = {}
        for position, thread in enumerate(found.threads):
            own = [self._events[index] for index in thread.own]
            end = (thread.state, {"error": thread.error} if thread.error else {}) if thread.state else None
            about = {"openhands_version": thread.version} if thread.version else {}
            spent = total(turn.usage for turn in thread.talk.turns) if position else found.total
            part = _Part(thread.talk, own, v0.counts(own), end, thread.tools, spent, thread.agent, about)
            made = self._trajectory(part, is_first=position == 0)
            ids[id(thread)] = made.id
            if position and made.source is not None:
                step = thread.step if (thread.step or 0) >= 0 else None
                made = replace(made, parent_id=ids.get(id(thread.parent)), branch_step=step)
                made = replace(made, source=replace(made.source or self._source, relation="subagent"))
            yield made

    def _branches(self) -> Iterator[Trajectory]:
        spent = v1.usages(self._metrics())
        owner: dict[int, tuple[str, Sequence[Step]]] = {}
        found = list(v1.branches(self._events))
        taken = {index for path in found[1:] for index in path.own}
        for position, path in enumerate(found or [None]):
            whole_path = path.whole if path is not None and position else sorted(set(range(len(self._events))) - taken)
            events = [self._events[index] for index in whole_path]
            own = events if path is None or not position else [self._events[index] for index in path.own]
            said = v1.Conversation(events, spent)
            used = total(turn.usage for turn in said.talk.turns)
            part = _Part(said.talk, own, v1.counts(own), said.end, said.tools, used, "openhands", {})
            made = self._trajectory(part, is_first=position == 0)
            if position and path is not None and path.fork is not None and made.source is not None:
                parent, steps = owner[path.fork]
                step = _first_difference(made.steps, steps)
                made = replace(made, parent_id=parent, branch_step=step, source=replace(made.source, relation="branch"))
            owner |= dict.fromkeys(whole_path if not position else (path.own if path else ()), (made.id, made.steps))
            yield made

    def _metrics(self) -> Mapping[str, Any]:
        """Of the harness, or of the last state that the events have."""
        given = mapping(self._record.get("metrics"))
        if given:
            return given
        for event in reversed(self._events):
            value = mapping(event.get("value"))
            stats = mapping(value.get("stats", value if event.get("key") == "stats" else None))
            models = [mapping(item) for item in mapping(stats.get("usage_to_metrics")).values()]
            if models:
                usages = [item for model in models for item in listing(model.get("token_usages"))]
                return {**models[0], "token_usages": usages}
        return {}

    def _trajectory(self, part: _Part, *, is_first: bool) -> Trajectory:
        steps, prompt = part.talk.steps(), tuple(part.talk.prompt)
        record = self._record if is_first else {}
        outcome = _outcome(record, part.end)
        value = outcome.value if outcome else None
        identity, source = self._identified(part, record, is_first=is_first, rewards=int(value is not None))
        return Trajectory(
            id=identity,
            task=self._task(prompt, identity, is_first),
            tools=part.tools,
            prompt=prompt,
            steps=steps,
            outcome=outcome,
            scores={"resolved": Score(value)} if value is not None else {},
            final_state=record.get("test_result"),
            truncated=(self._cut and is_first) or (outcome is not None and outcome.exit_reason in _CUT_STATES),
            source=source,
        )

    def _identified(
        self, part: _Part, record: Mapping[str, Any], *, is_first: bool, rewards: int
    ) -> tuple[str, Source]:
        metadata = mapping(self._record.get("metadata"))
        llm = mapping(metadata.get("llm", metadata.get("llm_config")))
        answered = next((turn.model for turn in reversed(part.talk.turns) if turn.model), None)
        started, ended = span(utc(event.get("timestamp")) for event in part.own)
        return identify(
            self._source,
            self._raw if is_first and isinstance(self._raw, dict) else list(part.own),
            agent=part.agent,
            model=answered or string(llm.get("model")),
            counts={**part.counts, "runs": int(is_first), "rewards": rewards},
            extra={**_about(record), **part.about},
            started_at=started,
            ended_at=ended,
            usage=(_stated(self._metrics()) if is_first else None) or part.usage,
            sampling={key: llm[key] for key in ("temperature", "top_p", "seed") if llm.get(key) is not None} or None,
        )

    def _task(self, prompt: tuple[Message, ...], identity: str, is_first: bool) -> Task:
        record = self._record if is_first else {}
        known = any(message.role == "user" for message in prompt)
        name = text(record.get("instance_id")) or (prompt_id(prompt) if known else f"run-{identity[:16]}")
        private = mapping(record.get("instance"))
        asked = first_user_text(prompt) or string(record.get("instruction")) or ""
        return Task(name, asked, private={"instance": private} if private else {})


def _first_difference(steps: Sequence[Step], others: Sequence[Step]) -> int:
    pairs = enumerate(zip(steps, others, strict=False))
    shared = min(len(steps), len(others))
    return next((i for i, (a, b) in pairs if (a.action, a.observations) != (b.action, b.observations)), shared)


def _stated(metrics: Mapping[str, Any]) -> Usage | None:
    given = mapping(metrics.get("accumulated_token_usage"))
    cost = metrics.get("accumulated_cost")
    result = Usage(
        whole(given.get("prompt_tokens")),
        whole(given.get("completion_tokens")),
        whole(given.get("cache_read_tokens")),
        number(cost, "metrics.accumulated_cost") if not isinstance(cost, bool) else None,
    )
    return None if result == Usage() else result


def _outcome(record: Mapping[str, Any], end: tuple[str | None, dict[str, Any]] | None) -> Outcome | None:
    reports = (record, mapping(record.get("report")), mapping(mapping(record.get("test_result")).get("report")))
    verdict = next((report["resolved"] for report in reports if isinstance(report.get("resolved"), bool)), None)
    reason, detail = end or (None, {})
    error = string(record.get("error"))
    if error:
        reason, detail = "error", {**detail, "error": error}
    if verdict is None and reason is None:
        return None
    return Outcome(
        None if verdict is None else float(verdict), "resolved" if verdict is not None else "reward", reason, detail
    )


def _about(record: Mapping[str, Any]) -> dict[str, Any]:
    left_out = (*_LISTS, "instance_id", "instance", "test_result", "metrics", "error", "resolved", "report")
    return {key: record[key] for key in record if key not in left_out and record[key] is not None}
