"""Answers from the record only: the world of a log whose tools cannot be executed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...storage.codec import action_key
from ...storage.errors import OffTapeError
from ...storage.records import JsonObject, Message, Step, StepResult, Task, ToolSchema, Trajectory

_IMAGINED: JsonObject = {"fidelity": "simulated"}
"""What a record says that a world model has written: the tape makes it no truer."""
_NO_INFO: JsonObject = {}
_HINT = "use --env with an environment that executes actions, or a policy that keeps to recorded ones (corpus)"


@dataclass(slots=True)
class _Tape:
    """What was answered to which action after which environment calls: a trie over the runs' calls.

    `answers` (what was said, whether the run ended, whether a world model said it) and `next_node` are keyed by (node,
    action key); node 0 is the state before any call. The first run that recorded an answer wins, and the record itself
    is the first run.
    """

    answers: dict[tuple[int, str], tuple[tuple[Message, ...], bool, bool]] = field(default_factory=dict)
    next_node: dict[tuple[int, str], int] = field(default_factory=dict)

    def add(self, run: Trajectory) -> None:
        """Record a run. Messages without calls and without an answer of the world do not change its state."""
        node = 0
        for step in run.steps:
            answered = _world_side(step)
            if not step.action.tool_calls and not answered:
                continue
            place = (node, action_key(step.action))
            self.answers.setdefault(place, (answered, _ends(run, step), step.fidelity == "simulated"))
            node = self.next_node.setdefault(place, len(self.next_node) + 1)


def _world_side(step: Step) -> tuple[Message, ...]:
    """What the world answered to the agent: the user side comes from the user seam and through `hear`."""
    return tuple(message for message in step.observations if message.role != "user" and message.requestor != "user")


def _ends(run: Trajectory, step: Step) -> bool:
    """Whether the run was over after this step, with no reply of the user to wait for."""
    replied = len(_world_side(step)) < len(step.observations)
    return not run.truncated and not replied and step.index == run.last.index


class TapeEnvironment:
    """See `Environment`. Needs `load` before `reset`; every answer has the fidelity `recorded`.

    An action is answered if some run of the same task recorded it after the same sequence of environment calls (the
    record itself first). Any other action raises OffTapeError: a tape does not guess.
    """

    inline = True
    recorded_only = True

    def __init__(self) -> None:
        self._record: Trajectory | None = None
        self._tape = _Tape()
        self._node = 0
        self._done_steps = 0
        self._on_record = True

    def load(self, record: Trajectory, runs: Mapping[str, Trajectory]) -> None:
        """Take the record and the other recorded runs; those of other tasks are left out."""
        self._record = record
        self._tape = _Tape()
        self._tape.add(record)
        for run in runs.values():
            if run.id != record.id and _same_task(run, record):
                self._tape.add(run)

    def reset(self, task: Task) -> list[Message]:
        """Rewind; the record's prompt. Raises OffTapeError when nothing was loaded."""
        if self._record is None:
            raise OffTapeError("the tape is empty", hint="load(record, runs) comes before reset")
        self._node = 0
        self._done_steps = 0
        self._on_record = True
        return list(self._record.prompt)

    def step(self, action: Message) -> StepResult:
        """The recorded answer to this action. Raises OffTapeError when no run has one."""
        key = action_key(action)
        self._follow(key)
        place = (self._node, key)
        if place in self._tape.answers:
            observations, ends, imagined = self._tape.answers[place]
            self._node = self._tape.next_node[place]
            return StepResult(_readdressed(observations, action), ends, info=_IMAGINED if imagined else _NO_INFO)
        if action.tool_calls:
            raise OffTapeError(f"step {self._done_steps - 1}: no run recorded an answer to {key[:120]}", hint=_HINT)
        waits = any(message.role == "user" for message in self._last_observations())
        return StepResult(done=self._at_end() and not waits)

    def hear(self, reply: Message) -> StepResult:
        """The recorded results of what the user called; the run is over with the reply that ended the record."""
        ended = self._at_end() and self._last_observations()[-1:] == (reply,)
        return StepResult(self._user_results(reply), done=ended)

    @property
    def on_record(self) -> bool:
        """Whether every action so far was the record's own."""
        return self._on_record

    def _user_results(self, reply: Message) -> list[Message]:
        if self._record is None or not self._on_record or not reply.tool_calls:
            return []
        asked = {call.id for call in reply.tool_calls}
        observations = self._record.steps[self._done_steps - 1].observations
        return [message for message in observations if message.role == "tool" and message.tool_call_id in asked]

    def _follow(self, key: str) -> None:
        steps = self._record.steps if self._record else ()
        at = self._done_steps
        self._on_record = self._on_record and at < len(steps) and action_key(steps[at].action) == key
        self._done_steps += 1

    def _at_end(self) -> bool:
        record = self._record
        whole = record is not None and not record.truncated and self._done_steps == len(record.steps)
        return whole and self._on_record

    def _last_observations(self) -> tuple[Message, ...]:
        return self._record.last.observations if self._record and self._record.steps else ()

    def fork(self) -> TapeEnvironment:
        """An independent copy of the position; the tape is shared and never changes."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def tools(self) -> Sequence[ToolSchema]:
        """Those of the record, none when it has none."""
        return tuple(self._record.tools or ()) if self._record else ()


def _same_task(run: Trajectory, record: Trajectory) -> bool:
    """The same id in the same dataset, as far as both say where they are from."""
    datasets = {item.source.dataset for item in (run, record) if item.source and item.source.dataset}
    return run.task.id == record.task.id and len(datasets) < 2


def _readdressed(observations: Sequence[Message], action: Message) -> list[Message]:
    """The answers under the call ids of this action, where another run's call had other ids."""
    results = [message for message in observations if message.role in ("tool", "function")]
    asked = [call.id for call in action.tool_calls]
    if len(results) != len(asked) or {message.tool_call_id for message in results} == set(asked):
        return list(observations)
    ids = iter(asked)
    return [_addressed(message, next(ids)) if message in results else message for message in observations]


def _addressed(message: Message, call_id: str | None) -> Message:
    return Message(
        message.role, message.content, message.reasoning, message.tool_calls, call_id, message.name, message.requestor
    )
