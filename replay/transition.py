"""One transition: an action executed by a world, the user's reply where the agent spoke, the class of the result.

The same function serves the record (baseline) and the search, so that replayed and searched steps cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..storage.canonical import plain
from ..storage.codec import result_from
from ..storage.errors import EnvironmentFailed, boundary, classified
from ..storage.records import (
    FIDELITY_ORDER,
    Fidelity,
    Message,
    Proposal,
    Score,
    Step,
    StepResult,
    ToolCall,
    ToolSchema,
    lowest_fidelity,
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


def fidelity_of(environment: Any, result: StepResult) -> Fidelity:
    """The class of one answer: that of its world, or a lower one that the answer itself names (`info["fidelity"]`).

    A world may say that it is less true than its class, never that it is truer.
    """
    of_class = CLASS_FIDELITY[environment_class(environment)]
    named = result.info.get("fidelity") if result.info else None
    if named not in FIDELITY_ORDER[:-1]:
        return of_class
    return lowest_fidelity([of_class, named]) or of_class


def world_scores(result: StepResult) -> dict[str, Score]:
    """What an imagined answer says of itself (`info["world"]`) as the score `world`; {} for any other answer.

    The value is its confidence; an answer whose confidence nobody knows abstains.
    """
    said = result.info.get("world") if result.info else None
    if not isinstance(said, Mapping):
        return {}
    detail = {key: value for key, value in said.items() if key != "confidence"}
    confidence = said.get("confidence")
    return {"world": Score(confidence, abstain=confidence is None, detail=detail)}


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
    fidelity = fidelity_of(environment, result)
    given = result.reward
    if not done and not observations and not action.tool_calls:
        if user is None:
            done = True
        elif (reply := await finish(user.reply([*context, action], proposal.source))) is None:
            done = truncated = True
        else:
            told: Fidelity = getattr(user, "fidelity", "recorded")
            observations, fidelity = (reply,), lowest_fidelity([told, fidelity]) or fidelity
            heard = await hear(environment, reply)
            done, given = heard.done or _ends(environment, user, reply), _sum(given, heard.reward)
    scores = world_scores(result)
    if given is not None:
        scores["environment"] = Score(float(given))
    usage, logprob = proposal.usage, proposal.logprob
    step = Step(index, action, observations, fidelity, usage, logprob, scores, tokens=proposal.tokens)
    return step, done, truncated


def _ends(environment: Any, user: User, reply: Message) -> bool:
    """Whether a reply ends the run in a world that does not listen to users."""
    ends = getattr(user, "ends", None)
    return ends is not None and not hasattr(environment, "hear") and bool(ends(reply))


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
