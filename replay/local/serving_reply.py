"""Answers in OpenAI's shape: a completion, or the chunks of a stream of which only the text may come early.

Chunks and completion say the same: the deltas of a stream, put together, are the message of the completion.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...storage.canonical import content_id
from ...storage.codec import call_to_dict
from ...storage.records import Message
from .serving_request import ChatRequest
from .speaking import Said, Speaker

JsonRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer as it goes out: cut at a stop text, its calls named."""

    index: int
    action: Message
    finish_reason: str
    logprobs: list[JsonRow] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What all rows of one answer share, and the answer's choices."""

    model: str
    fingerprint: str
    choices: Sequence[Choice]
    usage: Mapping[str, Any]
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def named(self, other: Reply) -> Reply:
        """This answer under the id and time of another: the one whose stream has begun already."""
        return replace(self, id=other.id, created=other.created)

    def completion(self) -> JsonRow:
        """The whole answer as one object."""
        choices = [
            {
                "index": choice.index,
                "message": message_row(choice.action),
                "finish_reason": choice.finish_reason,
                "logprobs": _logprobs_row(choice.logprobs),
            }
            for choice in self.choices
        ]
        return {**self.head("chat.completion"), "choices": choices, "usage": dict(self.usage)}

    def head(self, kind: str) -> JsonRow:
        """What every object of this answer begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def chunk(
        self, index: int, delta: JsonRow, finish_reason: str | None = None, logprobs: list[JsonRow] | None = None
    ) -> JsonRow:
        """One object of a stream."""
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": _logprobs_row(logprobs)}
        return {**self.head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self) -> JsonRow:
        """The last object of a stream whose `stream_options` ask for usage."""
        return {**self.head("chat.completion.chunk"), "choices": [], "usage": dict(self.usage)}


def _logprobs_row(logprobs: list[JsonRow] | None) -> JsonRow | None:
    return None if logprobs is None else {"content": logprobs, "refusal": None}


def message_row(action: Message) -> JsonRow:
    """The message of a completion; without text beside calls, `content` is null."""
    row: JsonRow = {"role": "assistant", "content": action.text or (None if action.tool_calls else ""), "refusal": None}
    if action.reasoning:
        row["reasoning_content"] = action.reasoning
    if action.tool_calls:
        row["tool_calls"] = [call_to_dict(call) for call in action.tool_calls]
    return row


def reply_of(request: ChatRequest, answers: Sequence[Said], speaker: Speaker) -> Reply:
    """The answer to a checked request."""
    choices = [_choice(index, request, said, speaker) for index, said in enumerate(answers)]
    return Reply(speaker.loaded.name, f"ttc-{speaker.loaded.digest[:16]}", choices, _usage(answers))


def _usage(answers: Sequence[Said]) -> JsonRow:
    prompt = answers[0].generated.prompt_tokens
    completion = sum(len(said.generated.tokens) for said in answers)
    cached = min(said.generated.cached_tokens for said in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _choice(index: int, request: ChatRequest, said: Said, speaker: Speaker) -> Choice:
    action, is_stopped = cut_at(said.action, request.stop)
    generated = said.generated
    calls = tuple(
        replace(call, id=f"call_{content_id(generated.prompt_tokens, list(generated.tokens), place)[:20]}")
        for place, call in enumerate(action.tool_calls)
    )
    reason = "length" if generated.finish_reason in ("length", "context", "memory") and not is_stopped else "stop"
    reason = "tool_calls" if calls and reason == "stop" else reason
    kept = _before_stop(generated.tokens, request.stop, speaker) if is_stopped else len(generated.tokens)
    logprobs = token_rows(said, kept, speaker) if request.logprobs else None
    return Choice(index, replace(action, tool_calls=calls), reason, logprobs)


def cut_at(action: Message, stops: Sequence[str]) -> tuple[Message, bool]:
    """The action up to the first stop text in it, and whether there was one; what came behind it is gone."""
    for name in ("reasoning", "content"):
        text = getattr(action, name) or ""
        places = [place for stop in stops if (place := text.find(stop)) >= 0]
        if places:
            rest: dict[str, Any] = {"content": ""} if name == "reasoning" else {}
            return replace(action, tool_calls=(), **{**rest, name: text[: min(places)]}), True
    return action, False


def _before_stop(tokens: Sequence[int], stops: Sequence[str], speaker: Speaker) -> int:
    """How many tokens were said before a stop text was whole."""
    for count in range(1, len(tokens) + 1):
        if any(stop in speaker.text(tokens[:count]) for stop in stops):
            return count - 1
    return len(tokens)


def token_rows(said: Said, count: int, speaker: Speaker) -> list[JsonRow]:
    """The first `count` tokens with their natural log-probabilities and, where they were asked for, the most likely
    ones of each position; end tokens are no part of the answer."""
    generated = said.generated
    rows = []
    for at, (token, logprob) in enumerate(zip(generated.tokens[:count], generated.logprobs, strict=False)):
        if token not in speaker.chat.end_tokens:
            others = generated.alternatives[at] if generated.alternatives else ()
            top = [_token_row(other, value, speaker) for other, value in others]
            rows.append({**_token_row(token, logprob, speaker), "top_logprobs": top})
    return rows


def _token_row(token: int, logprob: float, speaker: Speaker) -> JsonRow:
    text = speaker.text([token])
    whole = "\ufffd" not in text  # part of a character that takes several tokens
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}
