"""What would *this* run have said: the recorded step whose noise a counterfactual answer shares.

The n-th answer to a request has n = 0 for the factual one: its noise is a function of trajectory and step only, neither
of the search's seed nor of the branch, and where the record has that step it is the posterior noise under which the
model says what was recorded. All others have fresh noise. docs/design/counterfactual-sampling.md says what it assumes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...storage.records import Message, ProposalRequest, ToolCall, ToolSchema, Trajectory
from ..local.jobs import NoiseKey
from .wire import wire_tool

if TYPE_CHECKING:
    from ..local.speaking import Factual, Speaker

FACTUAL_SEED = 0


class Records:
    """Recorded runs by id, for the factual answers of a search."""

    def __init__(self) -> None:
        self._runs: dict[str, Trajectory] = {}

    def keep(self, records: Iterable[Trajectory]) -> None:
        """Know these runs."""
        self._runs.update((record.id, record) for record in records)

    def key(self, request: ProposalRequest) -> NoiseKey:
        """The noise of the factual answer."""
        return NoiseKey(FACTUAL_SEED, request.trajectory_id, request.step)

    def factual(self, request: ProposalRequest, speaker: Speaker) -> Factual | None:
        """What the recorded run said at this step and in which context; None where it has no such step."""
        from ..local.speaking import Factual

        record = self._runs.get(request.trajectory_id)
        if record is None or request.step >= len(record.steps):
            return None
        steps = record.steps[: request.step]
        messages = [*(record.prompt or prompt_of(request.messages))]
        for step in steps:
            messages += [step.action, *step.observations]
        said = record.steps[request.step]
        *traces, trace = speaker.own([*(step.tokens for step in steps), said.tokens])
        context = speaker.contexts.encode(messages, request.tools, traces)
        if trace is not None:
            return Factual(trace.ids, context)
        action = spaced(said.action, request.tools)
        return Factual(tuple(speaker.chat.encode_action(messages, request.tools, action)), context)


def prompt_of(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages before the first action."""
    first = next((place for place, message in enumerate(messages) if message.role == "assistant"), len(messages))
    return messages[:first]


def spaced(action: Message, tools: Sequence[ToolSchema]) -> Message:
    """The action with the arguments of its calls written as the grammar writes them: one spacing, properties in the
    order of the schema. What the call means stays."""
    orders = {schema["function"]["name"]: _order(schema["function"]) for schema in map(wire_tool, tools)}
    calls = tuple(_spaced_call(call, orders.get(call.name, ())) for call in action.tool_calls)
    return replace(action, tool_calls=calls) if calls else action


def _order(function: Mapping[str, Any]) -> Sequence[str]:
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return list(properties) if isinstance(properties, Mapping) else []


def _spaced_call(call: ToolCall, order: Sequence[str]) -> ToolCall:
    if call.arguments is None:
        return call
    known = {name: call.arguments[name] for name in order if name in call.arguments}
    ordered = known | {name: value for name, value in call.arguments.items() if name not in known}
    return replace(call, arguments_raw=json.dumps(ordered, ensure_ascii=False, default=dict))
