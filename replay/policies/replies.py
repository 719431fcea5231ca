"""What a completion says, from replies that may be nonsense: actions, log probabilities, token ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...storage.canonical import canonical_json
from ...storage.codec import parse_arguments
from ...storage.records import Message, Proposal, TokenTrace, ToolCall

ROUNDING = 1e-3
"""How far above 0 a log probability may be by rounding; one that is higher is none."""


def proposals_of(response: Any, n: int) -> list[Proposal]:
    """The first `n` choices of a completion; LiteLLM has checked that they are choices."""
    prompt = _token_ids(getattr(response, "prompt_token_ids", None))
    return [proposal_of(choice, prompt) for choice in response.choices[:n]]


def proposal_of(choice: Any, prompt: tuple[int, ...] | None = None) -> Proposal:
    """One choice of a completion; arguments are kept as written, parsed where they are a JSON object.

    `prompt`: the token ids of the context, where the server tells them (vLLM: `return_token_ids`).
    """
    message = choice.message
    calls = tuple(_call_of(call) for call in message.tool_calls or ())
    content = message.content if message.content is not None or calls else ""
    action = Message("assistant", content, getattr(message, "reasoning_content", None), calls)
    logprobs = _logprobs(choice)
    logprob = math.fsum(logprobs) if logprobs else None
    return Proposal(action, logprob, None, choice.finish_reason, tokens=_trace(choice, logprobs, prompt))


def _call_of(call: Any) -> ToolCall:
    raw = call.function.arguments or ""
    arguments = parse_arguments(raw)
    try:
        canonical_json(arguments)
    except ValueError:  # NaN or 1e400: Python reads it, JSON does not have it
        arguments = None
    return ToolCall(None if call.id is None else str(call.id), call.function.name or "", arguments, raw)


def _logprobs(choice: Any) -> tuple[float, ...] | None:
    """Of each token; None when the server gives none, or any that no log probability can be."""
    rows = getattr(getattr(choice, "logprobs", None), "content", None)
    values = tuple(float(row.logprob) for row in rows or ())
    if not values or not all(math.isfinite(value) and value <= ROUNDING for value in values):
        return None
    return tuple(min(0.0, value) for value in values)


def _trace(choice: Any, logprobs: Sequence[float] | None, prompt: tuple[int, ...] | None) -> TokenTrace | None:
    """Token ids with their log probabilities, where the server gave as many of one as of the other."""
    ids = _token_ids((getattr(choice, "provider_specific_fields", None) or {}).get("token_ids"))
    if ids is None or logprobs is None or len(ids) != len(logprobs):
        return None
    return TokenTrace(ids, tuple(logprobs), prompt=prompt)


def _token_ids(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not value or not all(type(item) is int and item >= 0 for item in value):
        return None
    return tuple(value)
