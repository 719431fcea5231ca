"""A user played by a policy (`--user-policy`): the conversation seen from the other side, asked of a model or a script.

Roles are swapped: what the agent said is the user's prompt, what the user said is its own answer. Tool calls and their
results are the agent's to see and are left out. The task's scenario is the system prompt; gold never is. As in
tau-bench (arXiv 2406.12045, section 3.3) the simulated user ends the conversation with a mark.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unfinished
from dataclasses import dataclass, replace
from typing import Any

from ..storage.canonical import seed_from
from ..storage.errors import PolicyFailed
from ..storage.records import Fidelity, Message, ProposalRequest, Spec, Task, Trajectory, Usage
from .calls import NO_USAGE, Append, Caller, Lookup, Reply, add_usage
from .drive import is_async, run_inline

STOP = "###STOP###"
"""What the user says when there is nothing more to talk about. A world that listens (`hear`) decides for itself."""
BY = "user"
RULES = f"""You play a user who talks to an agent. Stay in the role that the scenario gives you.

- One short message at a time, in your own words; do not give everything away at once.
- Use only what the scenario says. What it does not say you do not know.
- When your goal is reached, or clearly cannot be, answer {STOP}."""
_SCENARIO_KEYS = ("user_scenario", "scenario", "instruction", "instructions")
_WAIT_SECONDS = 0.5


def scenario_of(task: Task) -> str:
    """What the user of a task wants: its user scenario or instruction, else its prompt. Gold is not looked at."""
    found = next((task.data[key] for key in _SCENARIO_KEYS if task.data.get(key)), None)
    if found is None:
        return task.prompt
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, indent=2)


def swapped(messages: Sequence[Message], scenario: str) -> tuple[Message, ...]:
    """The conversation as the user's side sees it. Messages of one side in a row become one."""
    made = [Message("system", f"{RULES}\n\nScenario:\n{scenario}")]
    for message in messages:
        role = {"user": "assistant", "assistant": "user"}.get(message.role)
        text = message.text.strip()
        if role is None or not text or message.requestor == "user":
            continue
        if made[-1].role == role:
            made[-1] = replace(made[-1], content=f"{made[-1].text}\n\n{text}")
        else:
            made.append(Message(role, text))
    return tuple(made)


class UserSide:
    """The user policy of one run: one caller, so that its calls are journalled, cached and counted as the agent's."""

    def __init__(self, policy: Any, spec: Spec, append: Append, lookup: Lookup, seed: int):
        self.caller = Caller(policy, spec, lambda event: append({**event, "by": BY}), lookup)
        self.seed = seed
        self.here = bool(getattr(policy, "inline", False)) or is_async(policy, "propose")
        """Whether it is asked where the event loop runs: async, or in memory."""
        self.waits = not getattr(policy, "inline", False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        if hasattr(policy, "may_pay_again"):
            policy.may_pay_again = _never

    def open(self) -> None:
        """Called on the event loop before anybody is asked."""
        self._loop, self._closed = asyncio.get_running_loop(), False

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closed = True

    def of(self, record: Trajectory) -> SimulatedUser:
        """The user of one record's task."""
        return SimulatedUser(self, record, scenario_of(record.task))

    def worst(self, request: ProposalRequest, spoken: int) -> tuple[int, Usage]:
        """Calls and use that one reply may cost at most, after `spoken` more tokens of the agent."""
        if not self.caller.metered:
            return 0, NO_USAGE
        usage = self.caller.estimate(request)
        return 1, replace(usage, prompt_tokens=(usage.prompt_tokens or 0) + spoken)

    async def ask(self, request: ProposalRequest) -> Reply:
        """The policy's reply, wherever this runs: on the event loop, or in a worker thread that has none."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._ask_in_thread(request)
        if self.here:
            return (await self.caller.propose([request]))[0]
        return await asyncio.to_thread(self._ask_in_thread, request)

    def _ask_in_thread(self, request: ProposalRequest) -> Reply:
        if not self.here or not self.waits:
            return run_inline(self.caller.propose([request]))[0]
        if self._loop is None:
            raise PolicyFailed("the user policy is async, and no event loop runs")
        return self._awaited(asyncio.run_coroutine_threadsafe(self.caller.propose([request]), self._loop))

    def _awaited(self, future: Future[list[Reply]]) -> Reply:
        while True:
            try:
                return future.result(_WAIT_SECONDS)[0]
            except Unfinished:
                if self._closed or future.done():
                    future.cancel()
                    raise PolicyFailed("the run ended while the user was asked") from None


@dataclass(slots=True)
class SimulatedUser:
    """See `User`. One object a record; `for_one()` gives one that counts what a single transition costs."""

    side: UserSide
    record: Trajectory
    scenario: str
    calls: int = 0
    usage: Usage = NO_USAGE

    @property
    def fidelity(self) -> Fidelity:
        """A reply that a policy made up."""
        return "simulated"

    def for_one(self) -> SimulatedUser:
        """The same user, with an account of its own."""
        return replace(self, calls=0, usage=NO_USAGE)

    def request(self, messages: Sequence[Message]) -> ProposalRequest:
        """What the policy is asked after `messages`. The seed depends on the run, the record and the conversation."""
        seen = swapped(messages, self.scenario)
        spoken = sum(message.role == "assistant" for message in seen)
        seed = seed_from(self.side.seed, self.record.id, BY, [[message.role, message.text] for message in seen])
        task = replace(self.record.task, private={})
        return ProposalRequest(task, self.record.id, spoken, BY, seen, (), 1, seed, {"first_sample": 0})

    async def reply(self, messages: Sequence[Message], source: tuple[str, int] | None) -> Message | None:
        """What the user says; None when it has nothing to say. Raises the policy's error."""
        request = self.request(messages)
        reply = await self.side.ask(request)
        if reply.error is not None:
            raise reply.error
        if reply.key is not None:
            told = reply.usage.prompt_tokens is not None or reply.usage.completion_tokens is not None
            used = reply.usage if told else self.side.worst(request, 0)[1]
            self.calls, self.usage = self.calls + 1, add_usage([self.usage, used])
        text = reply.proposals[0].action.text.strip() if reply.proposals else ""
        return Message("user", text) if text else None

    def ends(self, reply: Message) -> bool:
        """Whether the user is done talking."""
        return STOP in reply.text


def _never(request: ProposalRequest) -> bool:
    """A reply that was paid for and useless is not paid for again: the tree's budget knows nothing of it."""
    return False


def worst_of(
    side: UserSide | None, user: Any, messages: Sequence[Message], agent: Sequence[Usage]
) -> tuple[int, Usage]:
    """What one reply may cost at most after one more message of the agent; nothing without a simulated user."""
    if side is None or not isinstance(user, SimulatedUser):
        return 0, NO_USAGE
    spoken = max((usage.completion_tokens or 0 for usage in agent), default=0)
    return side.worst(user.request(messages), spoken)
