"""One Codex rollout: its lines as segments (compactions, rolled-back turns), and each of them as a trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import Links, Message, Outcome, Rejected, Relation, Source, Task, Trajectory
from .base import identify
from .chat import listing, mapping, prompt_id, string, text, whole
from .clock import span, utc
from .codex_events import Events, from_events
from .codex_items import Item, is_call, is_item, is_output, is_prompt, message, take
from .event_tree import MAX_WEIGHT, TooManyBranches
from .json_input import Record
from .json_text import BadRecord
from .talk import Talk, total

LINE_TYPES = ("session_meta", "turn_context", "response_item", "event_msg", "compacted", "world_state")


@dataclass(slots=True)
class _Segment:
    """Lines (by number) that make one conversation; `whole` has those shared with the parent before its own."""

    whole: list[int]
    own: list[int]
    relation: Relation | None = None
    parent: _Segment | None = None
    identity: str = ""
    task: Task | None = None
    steps: int = 0


def entry(line: Item) -> tuple[str, Item]:
    """(type, payload) of a line of any age: bare items and the bare first line of old files get their envelope."""
    kind, payload = line.get("type"), line.get("payload")
    if isinstance(payload, dict):
        return str(kind), payload
    if is_item(line):
        return "response_item", line
    if kind is None and isinstance(line.get("id"), str) and "timestamp" in line:
        return "session_meta", line
    return "other", line


class Rollout:
    """The lines of one file, and the trajectories in them."""

    def __init__(self, records: Sequence[Record], bad_lines: int, source: Source, *, cut: bool):
        self._lines = [record.value for record in records]
        self._numbers = [record.line for record in records]
        self._entries = [entry(line) for line in self._lines]
        self._bad_lines = bad_lines
        self._source = source
        self._cut = cut
        self._events = Events([(kind, payload) for kind, payload in self._entries])
        self._has_items = any(kind == "response_item" for kind, _ in self._entries)
        self._meta = next((payload for kind, payload in self._entries if kind == "session_meta"), {})

    def trajectories(self) -> Iterator[Trajectory | Rejected]:
        """The segments in order of their lines, a branch behind what it left."""
        for position, segment in enumerate(self._segments()):
            number = self._numbers[segment.own[0]] if segment.own else None
            try:
                trajectory = self._trajectory(segment, is_first=position == 0, number=number)
            except BadRecord as error:
                yield Rejected(error.problem(number))
                continue
            segment.identity, segment.task, segment.steps = trajectory.id, trajectory.task, len(trajectory.steps)
            yield trajectory

    def _segments(self) -> list[_Segment]:
        current = _Segment([], [])
        found, weight = [current], 0
        for index, (kind, payload) in enumerate(self._entries):
            if kind == "compacted":
                current = _Segment([], [], "continuation", current)
                found.append(current)
            if kind == "event_msg" and payload.get("type") == "thread_rolled_back":
                branch = self._rolled_back(current, whole(payload.get("num_turns")) or 0)
                if branch is not None:
                    found.append(branch)
                    weight += len(branch.whole) + sum(len(str(self._lines[line])) for line in branch.whole) // 1024
                    if weight > MAX_WEIGHT:
                        raise TooManyBranches
            current.own.append(index)
        for segment in found:
            segment.whole = segment.whole or segment.own
        return found

    def _rolled_back(self, current: _Segment, turns: int) -> _Segment | None:
        """Take the last turns, each of which begins with a user's prompt, out of the current segment."""
        starts = [place for place, index in enumerate(current.own) if self._is_prompt(index)]
        if not 0 < turns <= len(starts):
            return None
        cut = starts[-turns]
        branch = _Segment(list(current.own), current.own[cut:], "branch", current)
        del current.own[cut:]
        return branch

    def _is_prompt(self, index: int) -> bool:
        kind, payload = self._entries[index]
        if self._has_items:
            return kind == "response_item" and is_prompt(payload)
        return kind == "event_msg" and payload.get("type") == "user_message"

    def _talk(self, segment: _Segment) -> Talk:
        talk = Talk(self._prompt(segment))
        talk.model = self._model_before(segment)
        for index in segment.whole:
            kind, payload = self._entries[index]
            time = utc(self._lines[index].get("timestamp"))
            if kind == "turn_context":
                talk.model = string(payload.get("model")) or talk.model
            elif kind == "response_item":
                take(payload, talk, time, self._events.failed)
            elif kind == "event_msg" and payload.get("type") == "token_count":
                self._events.spend(index, talk)
            elif kind == "event_msg" and not self._has_items:
                from_events(payload, talk, time)
        return talk

    def _model_before(self, segment: _Segment) -> str | None:
        """The model in force where a continuation begins."""
        earlier = reversed(range(segment.whole[0] if segment.whole else 0))
        contexts = (self._entries[index][1] for index in earlier if self._entries[index][0] == "turn_context")
        return next((name for context in contexts if (name := string(context.get("model")))), None)

    def _prompt(self, segment: _Segment) -> list[Message]:
        base = self._meta.get("base_instructions")
        said = string(mapping(base).get("text")) or string(base)
        system = [Message("system", said)] if said else []
        if segment.relation != "continuation":
            return system
        compacted = self._entries[segment.own[0]][1]
        history = Talk()
        for item in listing(compacted.get("replacement_history")):
            if isinstance(item, dict):
                take(item, history, None, {})
        summary = string(compacted.get("message"))
        return system + (history.messages() or ([Message("user", summary)] if summary else []))

    def _trajectory(self, segment: _Segment, *, is_first: bool, number: int | None) -> Trajectory:
        talk = self._talk(segment)
        steps, prompt = talk.steps(), tuple(talk.prompt)
        parent = segment.parent
        shared = len(self._shared(segment).turns) if segment.relation == "branch" else None
        reason, detail = self._events.end(segment.own)
        started, ended = span(utc(self._lines[index].get("timestamp")) for index in segment.whole)
        relation, links = self._links(segment, talk)
        own = [self._lines[index] for index in segment.own]
        identity, source = identify(
            self._source,
            own,
            line=number,
            agent="codex",
            model=next((turn.model for turn in reversed(talk.turns) if turn.model), None) or talk.model,
            counts=self._counts(segment, is_first),
            extra=self._about(),
            started_at=started,
            ended_at=ended,
            usage=self._events.last_total if is_first else total(step.usage for step in steps[shared or 0 :]),
            sampling=self._sampling(),
            relation=relation,
            links=links,
        )
        return Trajectory(
            id=identity,
            task=self._task(segment, prompt, identity),
            prompt=prompt,
            steps=steps,
            outcome=Outcome(exit_reason=reason, detail=detail) if reason else None,
            truncated=reason not in (None, "completed") or (self._cut and segment.own[-1:] == [len(self._lines) - 1]),
            parent_id=(parent.identity or None) if parent else None,
            branch_step=shared,
            source=source,
        )

    def _shared(self, segment: _Segment) -> Talk:
        """The conversation before the turns that were rolled back."""
        before = len(segment.whole) - len(segment.own)
        return self._talk(_Segment(segment.whole[:before], segment.whole[:before]))

    def _task(self, segment: _Segment, prompt: tuple[Message, ...], identity: str) -> Task:
        """A continuation has the task of what it continues; else equal prompts are one task."""
        if segment.relation == "continuation" and segment.parent is not None and segment.parent.task is not None:
            return segment.parent.task
        asked = (
            index for index in segment.whole if self._entries[index][0] == "response_item" and self._is_prompt(index)
        )
        first = next(asked, None)
        said = message(self._entries[first][1]).text if first is not None else ""
        heard = next((item.text for item in prompt if item.role == "user"), "")
        known = any(item.role == "user" for item in prompt)
        return Task(prompt_id(prompt) if known else f"session-{self._thread_id() or identity[:16]}", said or heard)

    def _thread_id(self) -> str | None:
        return text(self._meta.get("id"))

    def _links(self, segment: _Segment, talk: Talk) -> tuple[Relation | None, Links | None]:
        children = {f"thread:{name}": step for name, step in self._events.spawned(segment.own, talk).items()}
        if segment.relation is not None:
            return segment.relation, Links(children=children) if children else None
        identity = self._thread_id()
        keys = (f"thread:{identity}",) if identity else ()
        spawn = mapping(mapping(mapping(self._meta.get("source")).get("subagent")).get("thread_spawn"))
        caller, forked = text(spawn.get("parent_thread_id")), text(self._meta.get("forked_from_id"))
        relation: Relation | None = "subagent" if caller else "branch" if forked else None
        parent = caller or forked
        links = Links(keys, f"thread:{parent}" if parent else None, children)
        return relation, links if links != Links() else None

    def _counts(self, segment: _Segment, is_first: bool) -> dict[str, int]:
        """By the definitions of `traces/count.py`; bare items count like those in an envelope."""
        items = [
            payload for index in segment.own for kind, payload in [self._entries[index]] if kind == "response_item"
        ]
        kinds = [item.get("type") for item in items]
        answers = [item for item in items if item.get("type") == "message" and item.get("role") == "assistant"]
        return {
            "runs": int(is_first),
            "messages": kinds.count("message"),
            "assistant_turns": len(answers),
            "tool_calls": sum(is_call(kind) for kind in kinds),
            "tool_results": sum(is_output(kind) for kind in kinds),
            "rewards": 0,
            "events": len(segment.own),
            "bad_lines": self._bad_lines if is_first else 0,
        }

    def _about(self) -> dict[str, Any]:
        """What the first line says of the session."""
        left_out = ("base_instructions", "type")
        return {key: value for key, value in self._meta.items() if key not in left_out and value is not None}

    def _sampling(self) -> Mapping[str, Any] | None:
        context = next((payload for kind, payload in self._entries if kind == "turn_context"), {})
        names = {"effort": "reasoning_effort", "summary": "reasoning_summary"}
        found = {name: context[key] for key, name in names.items() if context.get(key) is not None}
        return found or None
