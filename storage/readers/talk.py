"""A conversation put together from events: what the agent says and calls until something comes back is a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from ..records import JsonObject, Message, Step, ToolCall, Usage
from .chat import whole
from .clock import span

Content = str | Sequence[JsonObject] | None


@dataclass(slots=True)
class Turn:
    """One action and what came back, while it grows."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    observations: list[Message] = field(default_factory=list)
    usage: Usage | None = None
    model: str | None = None
    times: list[str | None] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    next_open: int = 0

    def step(self, index: int) -> Step:
        """The turn as a step."""
        action = Message("assistant", simple(self.parts), "\n".join(self.thoughts) or None, tuple(self.calls))
        started, ended = span(self.times)
        return Step(
            index,
            action,
            tuple(self.observations),
            usage=self.usage,
            started_at=started,
            ended_at=ended,
            model=self.model,
        )


class Talk:
    """`prompt`: the messages before the first action. `model`: the one in force for turns that begin."""

    def __init__(self, prompt: Sequence[Message] = ()) -> None:
        self.prompt: list[Message] = list(prompt)
        self.turns: list[Turn] = []
        self.model: str | None = None
        self._open = False
        self._made: dict[str, tuple[int, int]] = {}

    def steps(self) -> tuple[Step, ...]:
        """The turns as steps."""
        return tuple(turn.step(index) for index, turn in enumerate(self.turns))

    def messages(self) -> list[Message]:
        """The whole conversation in order."""
        flat = list(self.prompt)
        for step in self.steps():
            flat += [step.action, *step.observations]
        return flat

    def turn(self, time: str | None = None) -> Turn:
        """The turn that the agent is in; a new one when something came back since, or it was closed."""
        if not self._open:
            self.turns.append(Turn(model=self.model))
            self._open = True
        self.turns[-1].times.append(time)
        return self.turns[-1]

    def close(self) -> None:
        """What the agent does next is another turn."""
        self._open = False

    def call(self, call: ToolCall, time: str | None = None, turn: int | None = None) -> None:
        """A call of the agent's turn, or of an earlier one that it was logged apart from."""
        into = self.turn(time) if turn is None else self.turns[turn]
        if call.id is not None:
            self._made[call.id] = (len(self.turns) - 1 if turn is None else turn, len(into.calls))
        into.calls.append(call)

    def hear(self, message: Message, time: str | None = None, *, reply: bool = False) -> None:
        """What somebody else says. `reply`: it is what the action brought about, so its time counts."""
        self._open = False
        if not self.turns:
            self.prompt.append(message)
            return
        self.turns[-1].observations.append(message)
        if reply:
            self.turns[-1].times.append(time)

    def result(
        self,
        identity: str | None,
        content: Content,
        time: str | None = None,
        *,
        is_error: bool = False,
        name: str | None = None,
    ) -> None:
        """A tool result, in recorded order, joined to its call by id, else to the first call that is still open."""
        call = self._answered(identity)
        known = identity if identity is not None else call.id if call else None
        message = Message("tool", content, tool_call_id=known, name=name or (call.name if call else None))
        self.hear(replace(message, is_error=is_error), time, reply=True)

    def step_of_call(self, identity: str | None) -> int | None:
        """The step that made a call."""
        return self._made[identity][0] if identity in self._made else None

    def _answered(self, identity: str | None) -> ToolCall | None:
        if identity is not None:
            if identity not in self._made:
                return None
            step, place = self._made[identity]
            self.turns[step].answered.add(place)
            return self.turns[step].calls[place]
        turn = self.turns[-1] if self.turns else Turn()
        while turn.next_open in turn.answered:
            turn.next_open += 1
        if turn.next_open >= len(turn.calls):
            return None
        turn.answered.add(turn.next_open)
        return turn.calls[turn.next_open]


def simple(parts: Sequence[JsonObject]) -> Content:
    """One text is a string, no part is None."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"} and isinstance(parts[0]["text"], str):
        return parts[0]["text"]
    return list(parts) or None


def text_part(text: str) -> dict[str, Any]:
    """Text as a part."""
    return {"type": "text", "text": text}


def named_results(messages: Sequence[Message]) -> list[Message]:
    """Tool results with the name of the call that they answer."""
    names = {call.id: call.name for message in messages for call in message.tool_calls if call.id is not None}
    return [
        replace(message, name=message.name or names.get(message.tool_call_id or ""))
        if message.role == "tool"
        else message
        for message in messages
    ]


def added(one: Usage | None, other: Usage | None) -> Usage | None:
    """Both together; a field that neither knows stays unknown, and so does a sum that no number holds."""
    if one is None or other is None:
        return one or other
    cost = _sum(one.cost_usd, other.cost_usd)
    return Usage(
        whole(_sum(one.prompt_tokens, other.prompt_tokens)),
        whole(_sum(one.completion_tokens, other.completion_tokens)),
        whole(_sum(one.cached_tokens, other.cached_tokens)),
        cost if cost is None or math.isfinite(cost) else None,
    )


def _sum(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def total(usages: Iterable[Usage | None]) -> Usage | None:
    """All of them together; None when nothing is known."""
    return reduce(added, usages, None)
