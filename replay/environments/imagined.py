"""What every imagined world has in common: the record answers first, then something that learned from records does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...storage.canonical import content_id
from ...storage.errors import OffTapeError
from ...storage.records import Message, Step, StepResult, Task, ToolSchema, Trajectory
from ..transition import refusals
from .tape import TapeEnvironment
from .world_examples import Archive, Past, answered_calls


class ImaginedWorld(ABC):
    """See `Environment`; subclasses say what a call gives that no record answers (`imagined`). Forkable.

    An action that some run of the task took after the same sequence of calls is answered from that run, with the
    fidelity `recorded`. From the first other call on nothing is: no run has been there.
    """

    def __init__(self, archive: Archive):
        self._archive = archive
        self.record: Trajectory | None = None
        self.past = Past()
        self.steps_done = 0
        self._tape = TapeEnvironment()
        self._on_tape = True
        self._keeps_to_records = False
        self._classes: tuple[str, ...] = ()

    def load(self, record: Trajectory, runs: Mapping[str, Trajectory]) -> None:
        """Take the record and the other recorded runs of its task; they answer first."""
        self.record = record
        self._tape.load(record, runs)

    def reset(self, task: Task) -> list[Message]:
        """Rewind; the record's prompt. Raises OffTapeError when nothing was loaded."""
        self._on_tape, self.past, self._classes, self.steps_done = True, Past(), (), 0
        return self._tape.reset(task)

    def keep_to_records(self) -> None:
        """Imagine nothing from here on: what no record answers is OffTapeError."""
        self._keeps_to_records = True

    async def step(self, action: Message) -> StepResult:
        """The recorded answer, else the imagined one. Raises OffTapeError, WorldUnsure, ProviderError."""
        self.steps_done += 1
        if self._on_tape:
            try:
                return self._replayed(action, self._tape.step(action))
            except OffTapeError:
                if self._keeps_to_records:
                    raise
                self._on_tape = False
        if not action.tool_calls:
            return self.spoken(action)
        if self._keeps_to_records:
            raise OffTapeError("no record answers this action")
        refused = refusals(action, self._known_tools())
        if refused:
            self.note(action, refused, "simulated")
            return StepResult(refused, info={"fidelity": "simulated"})
        return await self.imagined(action)

    @abstractmethod
    async def imagined(self, action: Message) -> StepResult:
        """What the calls of an action give; `note` what they did. Raises WorldUnsure."""

    def spoken(self, action: Message) -> StepResult:
        """What a message without calls gives, off the record: nothing; a user may answer it."""
        return StepResult(info={"fidelity": "recorded"})

    def note(self, action: Message, observations: Sequence[Message], fidelity: str) -> None:
        """Take one step into the past."""
        for call, answer in answered_calls(Step(0, action, tuple(observations))):
            self.past = self.past.then(call, answer)
            self._classes = (*self._classes, fidelity)

    def _replayed(self, action: Message, result: StepResult) -> StepResult:
        fidelity = str(result.info.get("fidelity", "recorded"))
        self.note(action, result.observations, fidelity)
        return replace(result, info={**result.info, "fidelity": fidelity})

    def hear(self, reply: Message) -> StepResult:
        """On the record as the tape; off it the run is over with words that ended most runs in which they were said."""
        if self._on_tape:
            result = self._tape.hear(reply)
            if result.done or result.observations or self._tape.on_record:
                return result
        return StepResult(done=reply.text.strip() in self._archive.farewells)

    def fork(self) -> Any:
        """An independent copy of the calls so far."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin._tape = self._tape.fork()
        return twin

    def tools(self) -> Sequence[ToolSchema]:
        """Those of the record, none when it has none."""
        return self._tape.tools()

    def schema(self, name: str) -> ToolSchema | None:
        """The schema of one tool, where the record has it."""
        return next((tool for tool in self.tools() if tool.get("function", tool).get("name") == name), None)

    def state(self) -> dict[str, Any]:
        """The calls so far, and how each was answered. What the real tool holds is not known."""
        rows = zip(self.past.calls, self.past.results, self._classes, strict=True)
        return {
            "calls": [
                {"name": call.name, "arguments": call.arguments, "result": text.text, "fidelity": fidelity}
                for call, text, fidelity in rows
            ]
        }

    def state_key(self) -> str:
        """The sequence of calls and results: what was said beside them is no state of the tools."""
        past = zip(self.past.calls, self.past.results, strict=True)
        return content_id([[call.name, call.arguments, result.text] for call, result in past])

    def _known_tools(self) -> list[ToolSchema]:
        """The record's tools and those with examples: others do not exist. Nothing where no schema is known."""
        declared = list(self.tools())
        return declared + [{"name": name} for name in self._archive.tools] if declared else []
