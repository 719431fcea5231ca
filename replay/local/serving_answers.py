"""From a checked request to the answer: what the engine is asked, and what becomes of errors on the way."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from ...search.tree import mix
from ...storage.errors import OutOfMemory, TtcError
from .jobs import NoiseKey
from .serving_reply import Reply, reply_of
from .serving_request import ChatRequest, Refused
from .speaking import Ask, Said, Speaker

if TYPE_CHECKING:
    from ..policies.local import LocalPolicy


def decoded(body: bytes) -> Any:
    """The JSON in a body, lone surrogates (which no tokenizer takes) replaced. Raises Refused."""
    try:
        value = json.loads(body)
        text = json.dumps(value, ensure_ascii=False)
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value if clean == text else json.loads(clean)
    except (ValueError, RecursionError) as problem:
        raise Refused(f"the body is not JSON: {problem}") from problem


def ask_of(request: ChatRequest, policy: LocalPolicy) -> Ask:
    """What the engine is asked; where the request is silent, the policy's own settings hold.

    The same seed gives the same noise whatever the conversation says, so that an answer to a changed prompt is a
    counterfactual of the answer to the first one.
    """
    base = secrets.randbits(63) if request.seed is None else request.seed
    keys = tuple(NoiseKey(mix(base, number) >> 1, "served", 0) for number in range(request.choices))
    default = policy.tool_choice if request.tools else "auto"
    return Ask(
        request.messages,
        request.tools,
        keys,
        policy.max_tokens if request.max_tokens is None else request.max_tokens,
        policy.temperature if request.temperature is None else request.temperature,
        policy.top_p if request.top_p is None else request.top_p,
        policy.top_k if request.top_k is None else request.top_k,
        default if request.tool_choice is None else request.tool_choice,
        policy.parallel_tool_calls if request.parallel_calls is None else request.parallel_calls,
        request.stop,
        policy.latent_steps,
        alternatives=request.top_logprobs,
    )


def check_length(ask: Ask, speaker: Speaker) -> None:
    """Raises Refused for a conversation that leaves no room for an answer, or that the template refuses."""
    length = len(speaker.contexts.encode(ask.messages, ask.tools))
    most = speaker.loaded.context_length
    if length + ask.latent_steps >= most:
        told = f"this model's context is {most} tokens; the messages have {length}"
        raise Refused(told, "messages", status=413, code="context_length_exceeded")
    speaker.check(ask)


def answered(request: ChatRequest, ask: Ask, speaker: Speaker) -> Reply:
    """Decode and put into words. What was said keeps its very tokens when the conversation comes back."""
    answers = speaker.say([ask])[0]
    if all(said.finish_reason == "memory" for said in answers):
        raise OutOfMemory("no memory for this conversation")
    reply = reply_of(request, answers, speaker)
    for said, choice in zip(answers, reply.choices, strict=True):
        if _is_kept_whole(said, request):
            speaker.contexts.remember(ask.messages, ask.tools, choice.action, said.generated.tokens)
    return reply


def _is_kept_whole(said: Said, request: ChatRequest) -> bool:
    return said.finish_reason == "stop" and not request.stop


def refused_from(error: Exception) -> Refused:
    """Any exception as an answer in OpenAI's shape."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, OutOfMemory):
        return Refused(error.message, status=503, code="out_of_memory")
    if isinstance(error, TtcError):
        told = f"{error.message} ({error.hint})" if error.hint else error.message
        return Refused(told, "messages" if "template" in error.message else "tools", code=error.error_code)
    return Refused(f"{type(error).__name__}: {error}", status=500, code="TTC-E000")
