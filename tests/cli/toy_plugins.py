"""Plugins by file for the tests of the command line: a toy world, policies over it, and rewards that misbehave."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttc_replay import Message, Proposal, ProposalRequest, StepResult, Task, ToolCall, Trajectory, Usage, reward
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.storage.codec import action_key

LENGTH = 4


def add(by: int) -> Message:
    """The only sensible action."""
    return Message("assistant", "", tool_calls=(ToolCall(f"call_{by}", "add", {"by": by}),))


class Counter:
    """Four additions; success is a total of exactly `task.data["metadata"]["target"]`. Any other tool raises."""

    inline = True

    def __init__(self, tool: str = "add") -> None:
        self.tool = tool
        self.total = self.done = self.target = 0

    def reset(self, task: Task) -> list[Message]:
        self.total = self.done = 0
        self.target = int(task.data["metadata"]["target"])
        return []

    def step(self, action: Message) -> StepResult:
        if not action.tool_calls:
            return StepResult([], True, 0.0)
        call = action.tool_calls[0]
        if call.name != self.tool:
            raise KeyError(call.name)
        if (by := (call.arguments or {})["by"]) == 13:
            raise RuntimeError("the world does not like 13")
        self.total, self.done = self.total + by, self.done + 1
        over = self.done >= LENGTH
        value = float(self.total == self.target) if over else None
        return StepResult([Message("tool", f'{{"total": {self.total}}}', tool_call_id=call.id)], over, value)

    def fork(self) -> Counter:
        other = type(self)(self.tool)
        other.total, other.done, other.target = self.total, self.done, self.target
        return other

    def tools(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": self.tool, "parameters": {"type": "object"}}}]

    def state(self) -> dict[str, int]:
        return {"total": self.total, "done": self.done}


class Slow(Counter):
    """The same world, in threads, at 5 ms a step: long enough to be interrupted."""

    inline = False

    def step(self, action: Message) -> StepResult:
        time.sleep(0.005)
        return super().step(action)


class Unwilling:
    """A world that cannot start."""

    def reset(self, task: Task) -> list[Message]:
        raise ValueError("no such month")

    def step(self, action: Message) -> StepResult:
        raise AssertionError("never reached")


class Digits:
    """Proposes 1, 2, 3; `wild` adds a tool that nobody knows and an addition that the world does not like."""

    sampling = False
    inline = True

    def __init__(self, wild: bool = False) -> None:
        unknown = Message("assistant", "", tool_calls=(ToolCall("call_x", "subtract", {"by": 1}),))
        self.actions = [unknown, add(13)] * wild + [add(1), add(2), add(3)]

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> list[Proposal]:
        fresh = [action for action in self.actions if action_key(action) not in request.exclude]
        return [Proposal(action) for action in fresh[: request.n]]


class Metered:
    """A paid policy that writes each call it answers to a file, begun and done; sleeps to be killed in the middle."""

    metered = True
    sampling = True
    batched = False

    def __init__(self, log: str, seconds: float = 0.0) -> None:
        self.log = Path(log)
        self.seconds = seconds

    def identity(self) -> dict[str, str]:
        return {"policy": "metered toy"}  # where it logs its calls is no part of what it answers

    def estimate(self, request: ProposalRequest) -> Usage:
        return Usage(100, 10, None, 0.01)

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> list[Proposal]:
        key = json.dumps([request.trajectory_id, request.seed, request.n])
        self._write(f"begun {key}\n")
        time.sleep(self.seconds)
        usage = Usage(80, 5, None, 0.005)
        chosen = [1 + (request.seed + index) % 3 for index in range(request.n)]
        self._write(f"done {key}\n")
        return [Proposal(add(by), usage=usage if index == 0 else None) for index, by in enumerate(chosen)]

    def _write(self, line: str) -> None:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line.encode())
        os.close(descriptor)


class Speechless:
    """A policy that raises."""

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        raise ValueError("no idea")


@reward
def broken(trajectory: Trajectory) -> float:
    """A reward that raises."""
    raise ValueError("cannot judge")


@reward
def gold(trajectory: Trajectory) -> float:
    """The gate: needs the gold, which only it may see."""
    return float(trajectory.final_state["total"] == trajectory.task.private["gold"])


@reward
def never(trajectory: Trajectory, why: str = "") -> float:
    """Refuses everything."""
    return 0.0


@reward
def pleased(trajectory: Trajectory) -> float:
    """Likes everything."""
    return 1.0


class Widest:
    """An algorithm by its place: UCT with another constant."""

    def __new__(cls, wideness: float = 2.0) -> Any:
        from ttc_replay import search

        return search.create("mcts", exploration=wideness)


class Lines:
    """A reader by its place: one number a line is a run that added it four times."""

    name = "lines"

    def detect(self, head: Any) -> float:
        return 0.0

    def read(self, stream: Any, source: Any) -> Any:
        for number, line in enumerate(stream, 1):
            yield Trajectory(f"line-{number}-{int(line)}", Task(f"line {int(line)}"), source=source)


class Texts:
    """An exporter by its place: the last answer of each counterfactual."""

    name = "texts"
    columns = ("messages",)
    units = ("rest",)
    training = None

    def rows(self, selection: Any) -> Any:
        from ttc_replay.storage.exporters.base import Row

        for item in selection:
            text = item.counterfactual.messages[-1].text
            columns = {"messages": [{"role": "tool", "content": text}]}
            yield Row(columns, item, text + item.counterfactual.id, {"trajectory_id": item.counterfactual.id})


def total_of(trajectory: Trajectory) -> str | None:
    """What a run of the toy world answers: its total."""
    return None if trajectory.final_state is None else str(trajectory.final_state["total"])


class Lucky(Counter):
    """The toy world with chances: under one seed in four, two more are there at the end."""

    def __init__(self, tool: str = "add") -> None:
        super().__init__(tool)
        self.luck = 0

    def reseed(self, seed: int) -> None:
        self.luck = 2 * (seed % 4 == 0)

    def step(self, action: Message) -> StepResult:
        if self.done == LENGTH - 1:
            self.total += self.luck
        return super().step(action)

    def fork(self) -> Lucky:
        other = Lucky(self.tool)
        other.total, other.done, other.target, other.luck = self.total, self.done, self.target, self.luck
        return other


class Moody(BookkeepingEnvironment):
    """The bookkeeping world with chances: under one seed in three the month cannot be closed."""

    moody = False

    def reseed(self, seed: int) -> None:
        self.moody = seed % 3 == 0

    def step(self, action: Message) -> StepResult:
        if self.moody and any(call.name == "close_month" for call in action.tool_calls):
            text = '{"error": "the bank is away"}'
            return StepResult([Message("tool", text, tool_call_id=c.id, name=c.name) for c in action.tool_calls])
        return super().step(action)

    def fork(self) -> Moody:
        other = super().fork()
        other.__class__ = Moody
        assert isinstance(other, Moody)
        other.moody = self.moody
        return other
