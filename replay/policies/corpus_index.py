"""The archive as the corpus policy sees it: which action followed which situation in which recorded run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ...storage.codec import action_key
from ...storage.records import Message, Task, ToolCall, Trajectory
from .binding import Template, trace
from .facts import Facts, parse_observation
from .suffix import Answered

TaskKey: TypeAlias = tuple[str, str, str]
"""Log format, `task.data["domain"]`, task id: equal ids of other formats or domains are other tasks."""

MEMO_SIZE = 50_000


class Called(NamedTuple):
    """A call of an action: its id, its tool, a digest of tool and arguments, and itself."""

    id: str | None
    name: str
    digest: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Note:
    """What one message means to the index; computed once per message object."""

    message: Message
    key: str
    calls: tuple[Called, ...] = ()
    value: Any = None
    failed: bool = False


class Notes:
    """Notes by message identity, so that a growing context costs only its new messages. Starts over when full."""

    def __init__(self) -> None:
        self._known: dict[int, Note] = {}

    def of(self, message: Message) -> Note:
        """The note of this very object (held, so that its identity stays its own)."""
        note = self._known.get(id(message))
        if note is None or note.message is not message:
            if len(self._known) >= MEMO_SIZE:
                self._known.clear()
            note = self._known[id(message)] = _note(message)
        return note


@dataclass(slots=True)
class Situation:
    """Where a conversation stands. `sequence` and `bag` identify the successful calls so far, with and without their
    order; `done` counts the actions by key; `spoken` counts messages without calls."""

    notes: Notes
    sequence: int = 0
    bag: int = 0
    last_action: str = ""
    last_observation: str = ""
    last_tool: str = ""
    spoken: int = 0
    done: dict[str, int] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    call_ids: set[str] = field(default_factory=set)
    answers: list[Answered] = field(default_factory=list)
    _open: list[Called] = field(default_factory=list)

    def advance(self, messages: Iterable[Message]) -> Situation:
        """Take the next messages; those between the user and the user's own tools are not the agent's to see."""
        for message in messages:
            if message.requestor == "user" or message.role in ("system", "developer"):
                continue
            note = self.notes.of(message)
            if message.role == "assistant":
                self._act(note)
            else:
                self._observe(note)
        return self

    def _act(self, note: Note) -> None:
        self.last_action = note.key
        self.last_observation = ""
        self.done[note.key] = self.done.get(note.key, 0) + 1
        self._open = list(note.calls)
        if note.calls:
            self.last_tool = note.calls[-1].name
            self.call_ids.update(call.id for call in note.calls if call.id is not None)
        else:
            self.spoken += 1

    def _observe(self, note: Note) -> None:
        self.last_observation = note.key
        if note.message.role == "user":
            self.facts.hear(note.message.text)
            return
        call = self._answered(note.message)
        if call is None:
            return
        digest = call.digest
        self.facts.observe(call.name, note.value)
        self.answers.append(Answered(call.call, digest, note.key, note.value))
        if not note.failed:
            self.sequence = _digest(f"{self.sequence:x}/{digest:x}")
            self.bag = (self.bag + digest) % (1 << 64)

    def _answered(self, message: Message) -> Called | None:
        """The open call that this result belongs to: by id, else the first one open."""
        named = (call for call in self._open if call.id is not None and call.id == message.tool_call_id)
        call = next(named, self._open[0] if self._open else None)
        if call is not None:
            self._open.remove(call)
        return call


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One recorded action and the situation it was taken in. `ordinal`: the n-th time its run took this action."""

    run_id: str
    step: int
    key: str
    ordinal: int
    action: Message
    tools: frozenset[str]
    last_action: str
    last_observation: str
    spoken: int


@dataclass(slots=True)
class Group:
    """The runs of one task: by id in order of their outcome (best first), and by situation."""

    runs: dict[str, Sequence[Occurrence]] = field(default_factory=dict)
    by_sequence: dict[int, list[Occurrence]] = field(default_factory=lambda: defaultdict(list))
    by_bag: dict[int, list[Occurrence]] = field(default_factory=lambda: defaultdict(list))
    by_observation: dict[str, list[Occurrence]] = field(default_factory=lambda: defaultdict(list))
    by_action: dict[str, list[Occurrence]] = field(default_factory=lambda: defaultdict(list))


@dataclass(slots=True)
class Tally:
    """How many runs did something, how many of them have a known outcome, and how well those ended in sum."""

    runs: int = 0
    judged: int = 0
    successes: float = 0.0

    def add(self, success: float | None) -> None:
        """Count one run; `success` None: its outcome is unknown."""
        self.runs += 1
        if success is not None:
            self.judged += 1
            self.successes += success


@dataclass(slots=True)
class CorpusIndex:
    """Built once by `build_index`; read-only afterwards."""

    groups: dict[TaskKey, Group] = field(default_factory=dict)
    task_of: dict[str, TaskKey] = field(default_factory=dict)
    success: dict[str, float | None] = field(default_factory=dict)
    habits: dict[str, list[tuple[Template, Mapping[TaskKey, Tally]]]] = field(default_factory=dict)
    """By the tool called last: the templates of the calls that followed, the most usual first, by task."""
    answers: dict[str, Sequence[Answered]] = field(default_factory=dict)
    """By run: its calls with what was answered, in order."""

    def groups_of(self, task: Task, trajectory_id: str) -> list[tuple[TaskKey, Group]]:
        """The runs of this task: of the known trajectory, else every group with the task's id and domain."""
        if trajectory_id in self.task_of:
            key = self.task_of[trajectory_id]
            return [(key, self.groups[key])]
        wanted = task_key(task, "")[1:]
        return [(key, group) for key, group in sorted(self.groups.items()) if key[1:] == wanted]


def task_key(task: Task, log_format: str) -> TaskKey:
    """See `TaskKey`."""
    return (log_format, str(task.data.get("domain") or ""), task.id)


def build_index(records: Iterable[Trajectory], notes: Notes) -> CorpusIndex:
    """Index recorded runs. Independent of their order; the same trajectory given twice counts once."""
    index = CorpusIndex()
    followed: dict[str, dict[Template, set[str]]] = {}
    for record in records:
        if record.id in index.task_of:
            continue
        key = task_key(record.task, record.source.format if record.source else "")
        index.task_of[record.id] = key
        index.success[record.id] = _success(record)
        group = index.groups.setdefault(key, Group())
        index.answers[record.id] = _add_run(group, record, notes, followed)
    for group in index.groups.values():
        _in_order(group, index.success)
    index.habits = _habits(followed, index)
    return index


def _add_run(
    group: Group, record: Trajectory, notes: Notes, followed: dict[str, dict[Template, set[str]]]
) -> Sequence[Answered]:
    """Index one run; its calls with their answers."""
    situation = Situation(notes).advance(record.prompt)
    occurrences = []
    for step in record.steps:
        occurrence = _occurrence(record.id, step.index, step.action, situation)
        occurrences.append(occurrence)
        group.by_sequence[situation.sequence].append(occurrence)
        group.by_bag[situation.bag].append(occurrence)
        group.by_observation[situation.last_observation].append(occurrence)
        group.by_action[situation.last_action].append(occurrence)
        for call in step.action.tool_calls:
            if (template := trace(call, situation.facts)) is not None:
                habit = followed.setdefault(situation.last_tool, {})
                habit.setdefault(template, set()).add(record.id)
        situation.advance((step.action, *step.observations))
    group.runs[record.id] = occurrences
    return situation.answers


def _occurrence(run_id: str, step: int, action: Message, situation: Situation) -> Occurrence:
    key = situation.notes.of(action).key
    return Occurrence(
        run_id=run_id,
        step=step,
        key=key,
        ordinal=situation.done.get(key, 0) + 1,
        action=action,
        tools=frozenset(call.name for call in action.tool_calls),
        last_action=situation.last_action,
        last_observation=situation.last_observation,
        spoken=situation.spoken,
    )


def _in_order(group: Group, success: Mapping[str, float | None]) -> None:
    """Best runs first, then by id: nothing may depend on the order in which the archive was read."""

    def rank(run_id: str) -> tuple[float, str]:
        return (-(success[run_id] or 0.0), run_id)

    group.runs = {run_id: group.runs[run_id] for run_id in sorted(group.runs, key=rank)}
    for table in (group.by_sequence, group.by_bag, group.by_observation, group.by_action):
        for occurrences in table.values():
            occurrences.sort(key=lambda item: (*rank(item.run_id), item.step))


def _habits(
    followed: Mapping[str, Mapping[Template, set[str]]], index: CorpusIndex
) -> dict[str, list[tuple[Template, Mapping[TaskKey, Tally]]]]:
    """Templates whose constants are confirmed (the same value at the same place in two runs), the most usual first."""
    users: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for templates in followed.values():
        for template, run_ids in templates.items():
            for constant in template.constants:
                users[constant] |= run_ids
    habits: dict[str, list[tuple[Template, Mapping[TaskKey, Tally]]]] = {}
    for last_tool, templates in followed.items():
        confirmed = [
            (template, run_ids)
            for template, run_ids in templates.items()
            if all(len(users[constant]) >= 2 for constant in template.constants)
        ]
        confirmed.sort(key=lambda item: (-len(item[1]), repr(item[0])))
        habits[last_tool] = [(template, _by_task(run_ids, index)) for template, run_ids in confirmed]
    return habits


def _by_task(run_ids: Iterable[str], index: CorpusIndex) -> dict[TaskKey, Tally]:
    tallies: dict[TaskKey, Tally] = {}
    for run_id in sorted(run_ids):
        tallies.setdefault(index.task_of[run_id], Tally()).add(index.success[run_id])
    return tallies


def _success(record: Trajectory) -> float | None:
    """How well a run ended, within 0 and 1; None when the log has no verdict."""
    value = record.outcome.value if record.outcome is not None else None
    return None if value is None or value != value else min(1.0, max(0.0, value))


def _note(message: Message) -> Note:
    if message.role == "assistant":
        calls = tuple(Called(call.id, call.name, digest_of(call), call) for call in message.tool_calls)
        return Note(message, action_key(message), calls)
    text = message.text.strip()
    if message.role == "user":
        return Note(message, f"user:{text}")
    value = parse_observation(text)
    return Note(message, f"tool:{text}", value=value, failed=_is_error(text, value))


def digest_of(call: ToolCall) -> int:
    """Equal for equal tools and arguments."""
    return _digest(action_key(Message("assistant", tool_calls=(call,))))


def _is_error(text: str, value: Any) -> bool:
    """Whether a tool's answer says that the call failed: a text that opens with "error", or a true `error` member."""
    return text[:6].lower().startswith("error") or (isinstance(value, dict) and bool(value.get("error")))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
