"""Records to and from plain dicts; messages in the OpenAI style that plugins may return instead of records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .canonical import canonical_json
from .records import Message, Outcome, Proposal, Score, Step, StepResult, TokenTrace, ToolCall, Usage

EXAMPLE_ASSISTANT = "example_assistant"
"""The `name` of an assistant message that shows how it is done, as OpenAI's guides call it: the agent never said it."""


def call_from(value: ToolCall | Mapping[str, Any]) -> ToolCall:
    """A tool call from a record or an OpenAI-style dict; arguments may be a dict or a JSON string."""
    if isinstance(value, ToolCall):
        return value
    function = value.get("function") or value
    given = function.get("arguments")
    if isinstance(given, Mapping):
        return ToolCall(value.get("id"), str(function["name"]), given)
    raw = "" if given is None else str(given)
    return ToolCall(value.get("id"), str(function["name"]), parse_arguments(raw), raw)


def parse_arguments(raw: str) -> Mapping[str, Any] | None:
    """The JSON object in `raw`, `{}` for an empty text, None for anything else (NaN and infinities are not JSON)."""
    if not raw.strip():
        return {}
    try:
        parsed = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def message_from(value: Message | Mapping[str, Any]) -> Message:
    """A message from a record or an OpenAI-style dict. Raises KeyError without a role."""
    if isinstance(value, Message):
        return value
    calls = value.get("tool_calls") or ()
    return Message(
        role=str(value["role"]),
        content=value.get("content"),
        reasoning=value.get("reasoning") or value.get("reasoning_content"),
        tool_calls=tuple(call_from(call) for call in calls),
        tool_call_id=value.get("tool_call_id"),
        name=value.get("name"),
        requestor=value.get("requestor"),
        is_error=value.get("is_error") is True,
    )


def call_to_dict(call: ToolCall) -> dict[str, Any]:
    """OpenAI style: arguments are the JSON text, as logged where it was logged."""
    raw = call.arguments_raw if call.arguments_raw is not None else canonical_json(call.arguments or {})
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": raw}}


def message_to_dict(message: Message) -> dict[str, Any]:
    """OpenAI style; keys that are empty are left out, except `content`."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        row["reasoning_content"] = message.reasoning
    if message.tool_calls:
        row["tool_calls"] = [call_to_dict(call) for call in message.tool_calls]
    for key in ("tool_call_id", "name", "requestor"):
        if getattr(message, key) is not None:
            row[key] = getattr(message, key)
    if message.is_error:
        row["is_error"] = True
    return row


def messages_to_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """`message_to_dict` over a sequence."""
    return [message_to_dict(message) for message in messages]


def messages_from(values: Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """`message_from` over a sequence."""
    return tuple(message_from(value) for value in values)


def result_from(value: StepResult | Mapping[str, Any]) -> StepResult:
    """A step result from a record or a dict with the same keys; observations may be dicts."""
    if isinstance(value, StepResult):
        for item in value.observations:
            if type(item) is not Message:
                break
        else:
            return value
        return StepResult(messages_from(value.observations), value.done, value.reward, value.info)
    observations = messages_from(value.get("observations") or ())
    return StepResult(observations, bool(value.get("done")), value.get("reward"), value.get("info") or {})


def proposal_from(value: Proposal | Message | Mapping[str, Any]) -> Proposal:
    """A proposal from a record, a bare message, or a dict: of a proposal (`action`) or of a message (`role`)."""
    if isinstance(value, Proposal):
        return value if type(value.action) is Message else _with_message(value)
    if isinstance(value, Message):
        return Proposal(value)
    if "action" not in value:
        return Proposal(message_from({"role": "assistant", **value}))
    source = value.get("source")
    return Proposal(
        action=message_from({"role": "assistant", **_as_dict(value["action"])}),
        logprob=value.get("logprob"),
        usage=usage_from(value.get("usage")),
        finish_reason=value.get("finish_reason"),
        source=(str(source[0]), int(source[1])) if source else None,
        tokens=tokens_from(value.get("tokens")),
    )


def _as_dict(value: Message | Mapping[str, Any]) -> Mapping[str, Any]:
    return message_to_dict(value) if isinstance(value, Message) else value


def _with_message(value: Proposal) -> Proposal:
    action = message_from({"role": "assistant", **_as_dict(value.action)})
    return replace(value, action=action)


def usage_from(value: Usage | Mapping[str, Any] | None) -> Usage | None:
    """Usage from a record or a dict of its fields (OpenAI's `prompt_tokens_details.cached_tokens` is read too)."""
    if value is None or isinstance(value, Usage):
        return value
    details = value.get("prompt_tokens_details") or {}
    cached = value.get("cached_tokens", details.get("cached_tokens"))
    return Usage(value.get("prompt_tokens"), value.get("completion_tokens"), cached, value.get("cost_usd"))


def usage_to_dict(usage: Usage) -> dict[str, Any]:
    """Fields that are known."""
    keys = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")
    return {key: getattr(usage, key) for key in keys if getattr(usage, key) is not None}


def tokens_from(value: TokenTrace | Mapping[str, Any] | None) -> TokenTrace | None:
    """Sampled tokens from a record or a dict of its fields."""
    if value is None or isinstance(value, TokenTrace):
        return value
    prompt = value.get("prompt")
    return TokenTrace(
        ids=tuple(value["ids"]),
        logprobs=tuple(value["logprobs"]),
        margin=value.get("margin"),
        undecided=value.get("undecided", 0),
        prompt=None if prompt is None else tuple(prompt),
        shared=value.get("shared", 0),
        model=value.get("model"),
    )


def tokens_to_dict(trace: TokenTrace) -> dict[str, Any]:
    """All of a trace; fields that have their default are left out."""
    row: dict[str, Any] = {"ids": list(trace.ids), "logprobs": list(trace.logprobs)}
    if trace.margin is not None:
        row["margin"] = trace.margin
    if trace.undecided:
        row["undecided"] = trace.undecided
    if trace.prompt is not None:
        row["prompt"] = list(trace.prompt)
    if trace.shared:
        row["shared"] = trace.shared
    if trace.model is not None:
        row["model"] = trace.model
    return row


def score_to_dict(score: Score) -> dict[str, Any]:
    """Compact: only what is set."""
    row: dict[str, Any] = {"value": score.value}
    if score.abstain:
        row["abstain"] = True
    if score.error:
        row["error"] = score.error
    if score.detail:
        row["detail"] = dict(score.detail)
    return row


def score_from(value: Score | Mapping[str, Any] | float | int | bool | None) -> Score:
    """A score from a record, a number, a dict, or None (which abstains)."""
    if isinstance(value, Score):
        return value
    if value is None:
        return Score(abstain=True)
    if isinstance(value, Mapping):
        detail = value.get("detail") or {}
        return Score(value.get("value"), bool(value.get("abstain")), value.get("error"), detail)
    return Score(float(value))


def step_to_dict(step: Step) -> dict[str, Any]:
    """All of a step; unknown fields are left out."""
    row: dict[str, Any] = {
        "index": step.index,
        "action": message_to_dict(step.action),
        "observations": messages_to_dicts(step.observations),
    }
    if step.fidelity:
        row["fidelity"] = step.fidelity
    if step.usage:
        row["usage"] = usage_to_dict(step.usage)
    if step.logprob is not None:
        row["logprob"] = step.logprob
    if step.scores:
        row["scores"] = {name: score_to_dict(score) for name, score in step.scores.items()}
    if step.tokens is not None:
        row["tokens"] = tokens_to_dict(step.tokens)
    return row


def step_from(value: Mapping[str, Any]) -> Step:
    """The inverse of `step_to_dict`."""
    return Step(
        index=int(value["index"]),
        action=message_from(value["action"]),
        observations=messages_from(value.get("observations") or ()),
        fidelity=value.get("fidelity"),
        usage=usage_from(value.get("usage")),
        logprob=value.get("logprob"),
        scores={name: score_from(score) for name, score in (value.get("scores") or {}).items()},
        tokens=tokens_from(value.get("tokens")),
    )


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """All of an outcome."""
    detail = dict(outcome.detail)
    return {"value": outcome.value, "name": outcome.name, "exit_reason": outcome.exit_reason, "detail": detail}


def outcome_from(value: Mapping[str, Any] | None) -> Outcome | None:
    """The inverse of `outcome_to_dict`."""
    if value is None:
        return None
    return Outcome(value.get("value"), value.get("name", "reward"), value.get("exit_reason"), value.get("detail") or {})


def steps_from_messages(
    messages: Sequence[Message], *, examples: bool = False
) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
    """Split a conversation into prompt (before the first assistant message) and steps. Nothing is lost or reordered.

    `examples`: assistant messages named `EXAMPLE_ASSISTANT` begin no step.
    """
    shown = EXAMPLE_ASSISTANT if examples else None
    starts = [
        index
        for index, message in enumerate(messages)
        if message.role == "assistant" and (shown is None or message.name != shown)
    ]
    if not starts:
        return tuple(messages), ()
    ends = [*starts[1:], len(messages)]
    steps = tuple(
        Step(number, messages[start], tuple(messages[start + 1 : end]))
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    )
    return tuple(messages[: starts[0]]), steps


def action_key(action: Message) -> str:
    """Identity of an action for merging duplicates: its calls (name and parsed arguments, ids left out), else its text.

    Text beside calls does not count: two messages that call the same tools the same way lead to the same state.
    """
    if not action.tool_calls:
        return f"say:{action.text.strip()}"
    calls = [
        f"{call.name}({canonical_json(call.arguments) if call.arguments is not None else call.arguments_raw})"
        for call in action.tool_calls
    ]
    return "call:" + ";".join(calls)
