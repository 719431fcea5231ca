"""One transition: an action executed by a world, the user's reply where the agent spoke, the class of the result.

The same function serves the record (baseline) and the search, so that replayed and searched steps cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..storage.canonical import plain
from ..storage.codec import result_from
from ..storage.errors import EnvironmentFailed, boundary, classified
from ..storage.records import (
    Fidelity,
    Message,
    Proposal,
    Score,
    Step,
    StepResult,
    ToolCall,
    ToolSchema,
)
from .drive import finish
from .environments.base import environment_class, tools_of
from .environments.users import User

_encode = json.JSONEncoder(allow_nan=False, default=plain).encode

CLASS_FIDELITY: dict[str, Fidelity] = {
    "forkable": "snapshot",
    "re-executable": "reexecuted",
    "recorded only": "recorded",
}


async def execute(environment: Any, action: Message, index: int) -> StepResult:
    """Let the environment execute one action.

    Unknown tools and unparseable arguments on which the environment raises become error observations: they go back to
    the agent. Any other exception is EnvironmentFailed.
    """
    try:
        result = environment.step(action)
        if type(result) is not StepResult:  # the house's own type is not awaitable
            result = await finish(result)
        return result_from(result)
    except Exception as cause:
        place = f"{type(environment).__name__}, step {index}"
        failed = classified(cause, EnvironmentFailed, "environment.step", place=place)
        if isinstance(failed, EnvironmentFailed) and (refused := refusals(action, tools_of(environment))):
            return StepResult(refused)
        raise failed from cause


def refusals(action: Message, tools: Sequence[ToolSchema]) -> list[Message]:
    """Error observations for every call of an action of which at least one cannot be executed; [] when all could."""
    known = {str(tool.get("function", tool).get("name")) for tool in tools}
    reasons = [_reason(call, known) for call in action.tool_calls]
    if not any(reasons):
        return []
    return [
        Message(role="tool", content=f"Error: {reason or 'not executed'}", tool_call_id=call.id, name=call.name)
        for call, reason in zip(action.tool_calls, reasons, strict=True)
    ]


def _reason(call: ToolCall, known: set[str]) -> str | None:
    if known and call.name not in known:
        return f"there is no tool {call.name}"
    return "the arguments are not a JSON object" if call.arguments is None else None


async def hear(environment: Any, reply: Message) -> StepResult:
    """Tell a world that listens what the user said; a world that does not goes on."""
    method = getattr(environment, "hear", None)
    if method is None:
        return StepResult()
    with boundary(EnvironmentFailed, f"{type(environment).__name__}.hear"):
        return result_from(await finish(method(reply)))


async def state_of(environment: Any) -> Any:
    """`state()` of a world that has it, as plain JSON, else None. Raises EnvironmentFailed, also when it is not JSON.

    A copy, so that what a reward sees is what the journal keeps, whatever the world does next.
    """
    method = getattr(environment, "state", None)
    if method is None:
        return None
    with boundary(EnvironmentFailed, f"{type(environment).__name__}.state"):
        state = await finish(method())
        return None if state is None else json.loads(_encode(state))


async def play(
    environment: Any,
    proposal: Proposal,
    index: int,
    context: Sequence[Message],
    user: User | None,
) -> tuple[Step, bool, bool]:
    """Execute `proposal` in a live environment that stands before step `index`; `context` is the conversation so far.

    Returns the step, whether the run is over, and whether it was cut (then it is over, too). An action without calls
    that the world does not answer goes to the user; a world without a user ends on it; a user with nothing left to say
    truncates the run. Raises EnvironmentFailed.
    """
    action = proposal.action
    result = await execute(environment, action, index)
    observations, done, truncated = tuple(result.observations), result.done, False
    fidelity = CLASS_FIDELITY[environment_class(environment)]
    given = result.reward
    if not done and not observations and not action.tool_calls:
        if user is None:
            done = True
        elif (reply := user.reply([*context, action], proposal.source)) is None:
            done = truncated = True
        else:
            observations, fidelity = (reply,), "recorded"
            heard = await hear(environment, reply)
            done, given = heard.done, _sum(given, heard.reward)
    scores = {} if given is None else {"environment": Score(float(given))}
    usage, logprob = proposal.usage, proposal.logprob
    step = Step(index, action, observations, fidelity, usage, logprob, scores, tokens=proposal.tokens)
    return step, done, truncated


def _sum(first: float | None, second: float | None) -> float | None:
    known = [value for value in (first, second) if value is not None]
    return float(sum(known)) if known else None


def reward_scores(rewards: Sequence[float | None]) -> dict[str, Score]:
    """The step's own reward as the score `environment`; {} when the world gave none."""
    given = [value for value in rewards if value is not None]
    return {"environment": Score(float(sum(given)))} if given else {}


def state_key(environment: Any) -> str | None:
    """`state_key()` of a world that has it, else None (states of that world are never merged)."""
    method = getattr(environment, "state_key", None)
    return method() if method is not None else None
