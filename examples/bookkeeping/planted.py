"""Runs with one planted mistake, and the imperfect agent that plays on from any step of them.

For measuring `blame`: the run is perfect but for one booking, so the step that lost it is known. The agent is a script,
no model; it reads from the conversation what is booked, and its only luck is the request's seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttc_replay import Message, Proposal, ProposalRequest, Task, ToolCall, Trajectory
from ttc_replay.examples.bookkeeping.agents import Bookkeeper, Profile, call_for
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.ledger import Booking
from ttc_replay.examples.bookkeeping.mistakes import MISTAKES, blind_spot
from ttc_replay.examples.bookkeeping.verifiers import gold
from ttc_replay.examples.bookkeeping.world import Difficulty, FeedLine, World, task, world_of
from ttc_replay.storage.codec import messages_to_dicts

FAULTLESS = Profile("faultless", {}, duplicate=0.0, typo=0.0, review=0.5, attention=0.0, searches_first=1.0)


@dataclass
class _Planted(Bookkeeper):
    """A faultless bookkeeper who books one line wrongly. `step`: at which action, once it is done."""

    line: str = ""
    wrong: Booking | None = None
    step: int | None = None

    def _mistaken(self, line: FeedLine, right: Booking) -> Booking | None:
        if line.id != self.line:
            return None
        self.step = sum(message.role == "assistant" for message in self.messages)
        return self.wrong


@dataclass(frozen=True, slots=True)
class PlantedRun:
    """One run: its record as `openai-chat`, and the step and name of its only mistake."""

    record: Mapping[str, Any]
    step: int
    mistake: str

    @property
    def task_id(self) -> str:
        """The run's task; no two planted runs have the same."""
        return str(self.record["task_id"])


def planted_runs(difficulty: Difficulty, count: int, first: int = 1000) -> Iterator[PlantedRun]:
    """So many runs, one a task, from task number `first` on; the kind of mistake goes round, its line is drawn.

    Left out are tasks with a blind spot, and mistakes that the world refuses or the auditor does not mind.
    """
    names, made, number = list(MISTAKES), 0, first
    while made < count:
        run = _planted(task(f"bookkeeping/{difficulty}/{number:03d}"), names[made % len(names) :] + names, number)
        number += 1
        if run is not None:
            made += 1
            yield run


def _planted(job: Task, names: Sequence[str], seed: int) -> PlantedRun | None:
    """The first mistake among `names` that can be made in this task; None when the run is not lost by it."""
    world, draw = world_of(job), random.Random(f"planted/{job.id}")
    if blind_spot(world):
        return None
    for name in names:
        for line in draw.sample(world.lines, len(world.lines)):
            wrong = MISTAKES[name](world, line, world.gold[line.id])
            if wrong is not None:
                return _played(job, world, line, wrong, name)
    return None


def _played(job: Task, world: World, line: FeedLine, wrong: Booking, name: str) -> PlantedRun | None:
    environment = BookkeepingEnvironment()
    prompt = list(environment.reset(job))
    agent = _Planted(environment, world, FAULTLESS, random.Random(job.id), prompt, line=line.id, wrong=wrong)
    agent.work()
    verdict = gold.score([Trajectory("", job, final_state=environment.state())])[0].value
    if verdict != 0.0 or agent.step is None or len(agent.made[line.id]) != 1 or agent.made[line.id][0] != wrong:
        return None
    record = {
        "task_id": job.id,
        "seed": job.seed,
        "agent": "planted",
        "reward": verdict,
        "metadata": {"planted_step": agent.step, "mistake": name},
        "tools": environment.tools(),
        "messages": messages_to_dicts(agent.messages),
    }
    return PlantedRun(record, agent.step, name)


class NoisyBookkeeper:
    """Plays the rest of a month: from faultless books it closes a faultless month with probability `skill`.

    Each line that is still to be booked goes wrong with the same chance, so that a whole month goes well with
    probability `skill`. `mends`: with that probability it sees, before it closes, a line that it or the record booked
    wrongly, and puts it right. `shuffles`: it books the open lines in any order, so that it seldom repeats a recorded
    action, as a model with words of its own. A stochastic policy (`sampling`): the request's seed decides.
    """

    sampling = True
    inline = True

    def __init__(self, skill: float = 0.8, mends: float = 0.0, shuffles: bool = False) -> None:
        self._skill, self._mends, self._shuffles = skill, mends, shuffles

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        """One action for each wanted one; all of one request alike, as they share a seed."""
        return [[Proposal(self._next(request))] * request.n for request in requests]

    def _next(self, request: ProposalRequest) -> Message:
        world, draw = world_of(request.task), random.Random(request.seed)
        calls = [call for message in request.messages for call in message.tool_calls]
        if not any(call.name == "list_feed" for call in calls):
            return _action(request, "list_feed", {})
        if not any(call.name == "search_invoices" for call in calls):
            return _action(request, "search_invoices", {"query": ""})
        booked = _booked(request.messages)
        if still_open := [line for line in world.lines if not booked.get(line.id)]:
            line = draw.choice(still_open) if self._shuffles else still_open[0]
            return _action(request, *call_for(line, self._booking(world, line, draw)))
        if not any(call.name == "trial_balance" for call in calls):
            return _action(request, "trial_balance", {})
        return self._closing(request, world, booked, draw)

    def _booking(self, world: World, line: FeedLine, draw: random.Random) -> Booking:
        right = world.gold[line.id]
        if draw.random() < self._skill ** (1.0 / len(world.lines)):
            return right
        wrong = (MISTAKES[name](world, line, right) for name in draw.sample(list(MISTAKES), len(MISTAKES)))
        return next((booking for booking in wrong if booking is not None), right)

    def _closing(
        self, request: ProposalRequest, world: World, booked: Mapping[str, list[str]], draw: random.Random
    ) -> Message:
        """Close; or, where the agent looks and sees something wrong, undo it first."""
        looked = sum(call.name == "undo" for message in request.messages for call in message.tool_calls)
        for line in world.lines:
            name, arguments = call_for(line, world.gold[line.id])
            if booked[line.id] != [_key(name, arguments)] and looked < len(world.lines) and draw.random() < self._mends:
                return _action(request, "undo", {"line": line.id})
        return _action(request, "close_month", {"month": world.month.label})


def _action(request: ProposalRequest, name: str, arguments: Mapping[str, Any]) -> Message:
    return Message("assistant", None, tool_calls=(ToolCall(f"call_{request.step}", name, arguments),))


def _booked(messages: Sequence[Message]) -> dict[str, list[str]]:
    """By line, the bookings that stand: calls that were not refused, less what was undone."""
    answers = {message.tool_call_id: message.text for message in messages if message.role == "tool"}
    booked: dict[str, list[str]] = {}
    for message in messages:
        for call in message.tool_calls:
            line = (call.arguments or {}).get("line")
            if isinstance(line, str) and '"error"' not in answers.get(call.id, '"error"'):
                if call.name == "undo":
                    booked[line] = []
                else:
                    booked.setdefault(line, []).append(_key(call.name, call.arguments or {}))
    return booked


def _key(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{name} {json.dumps(arguments, sort_keys=True)}"
