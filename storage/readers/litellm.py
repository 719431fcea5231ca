"""Reader of LiteLLM's StandardLoggingPayloads, as its logging callbacks write them: JSONL, a JSON array, or one.

A payload is one model call. Calls are one run when they share a session id, or a trace id (LiteLLM puts a caller's
session id there; else it is one request with its retries and fallbacks), or when the answer of one stands in the
history of a later one. They stand anywhere in a file, so they are put by in a temporary file and folded run by run
(`call_fold`): memory holds one run, and a few numbers a call. A failed attempt that was tried again makes no step and
no tokens; a call that was logged twice counts once. Conversations of other prompts under one id are children of the
longest.

Redacted calls are strung together by their ids alone. Hashed keys, people, IP addresses and user agents are not in
`Source.extra`; the raw record has them as logged. Calls that are no conversation (embeddings, images, ...) are skipped,
each with its line. LiteLLM logs no rewards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, BinaryIO

from ..records import Message, Rejected, Source, Trajectory, Usage
from .base import most
from .call_fold import Call, Fold, Thread, answer_keys, first_said
from .call_runs import Placed, arranged, sampling_of, trajectory_of
from .chat import mapping, number, string, text, whole
from .clock import utc
from .encoded import opened
from .json_input import Head, records
from .json_text import BadRecord, wrong_shape
from .message_shapes import messages_of, with_system
from .record_groups import Kept, RecordGroups
from .tool_shapes import tools_of

_MARKS = frozenset(
    (
        *("call_type", "status", "response_cost", "startTime", "endTime", "model_parameters", "hidden_params"),
        *("messages", "response"),
    )
)
_WRAPPER = "standard_logging_object"
_REDACTED = "redacted-by-litellm"
_NO_TALK = (
    "embedding",
    "image",
    "speech",
    "transcription",
    "moderation",
    "rerank",
    "file",
    "batch",
    "search",
    "ocr",
    "video",
)
_ABOUT = ("custom_llm_provider", "model_group", "request_tags", "call_type")


class LiteLLMReader:
    """Reads LiteLLM logging payloads."""

    name = "litellm"

    def detect(self, head: Head) -> float:
        """0.95 when at least half of the first records are payloads."""
        return 0.95 if most(head.records, lambda record: len(_MARKS & _payload(record).keys()) >= 6) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the main conversation of each run, then its children, or what is wrong with a payload."""
        source = replace(source, format=self.name)
        with RecordGroups() as groups:
            chains: dict[bytes, str] = {}
            for item in records(stream):
                if isinstance(item, Rejected):
                    yield item
                    continue
                try:
                    _put_by(item.value, item.line, groups, chains)
                except BadRecord as error:
                    yield Rejected(error.problem(item.line))
            for _, kept in groups:
                yield from _run(kept, source)


def _payload(record: Any) -> Mapping[str, Any]:
    given = mapping(record)
    return mapping(given.get(_WRAPPER)) or given


def _put_by(record: Any, line: int, groups: RecordGroups, chains: dict[bytes, str]) -> None:
    """Add a payload to its run, which it may join with another one."""
    payload = _payload(record)
    if len(_MARKS & payload.keys()) < 4:
        raise wrong_shape("no logging payload: call_type, status, messages and response are missing")
    kind = string(payload.get("call_type")) or ""
    if any(name in kind for name in _NO_TALK):
        raise wrong_shape(f"call_type {kind[:40]!a} is no conversation")
    key = _run_key(payload)
    call = _call(payload)
    if not _is_redacted(payload):
        last = max((at for at, message in enumerate(call.history) if message.role == "assistant"), default=-1)
        if last >= 0:
            for digest in _digests(call.history[last], call.history[:last]):
                if digest in chains:
                    groups.join(chains[digest], key)
        if call.output is not None:
            chains |= dict.fromkeys(_digests(call.output, call.history), key)
    groups.add(key, record, line)


def _digests(answer: Message, before: Sequence[Message]) -> Iterator[bytes]:
    """What an answer is known by in the histories of later calls: its calls' ids, else all that was said so far."""
    said = [(item.role, item.text.strip(), [call.name for call in item.tool_calls]) for item in (*before, answer)]
    ids: list[Any] = [(first_said(before), key) for key in answer_keys(answer) if key[0] == "id"]
    for known in map(repr, ids or [said]):
        yield sha256(known.encode("utf-8", "replace")).digest()[:16]


def _run_key(payload: Mapping[str, Any]) -> str:
    given = mapping(payload.get("metadata"))
    asked = mapping(given.get("requester_metadata"))
    named = (payload.get("session_id"), asked.get("session_id"), asked.get("trace_id"), payload.get("trace_id"))
    found = next((name for name in named if isinstance(name, str) and name), None)
    return found or _call_id(payload)


def _call_id(payload: Mapping[str, Any]) -> str:
    return text(payload.get("litellm_call_id")) or text(payload.get("id")) or ""


def _run(kept: Sequence[Kept] | BadRecord, source: Source) -> Iterator[Trajectory | Rejected]:
    if isinstance(kept, BadRecord):
        yield Rejected(kept.problem())
        return
    distinct = {_identity(item): item for item in kept}
    ordered = sorted(distinct.items(), key=lambda item: (_started(item[1]), item[0]))
    records_of = {f"{at}": item for at, (_, item) in enumerate(ordered)}
    fold = Fold()
    redacted = 0
    for key, item in records_of.items():
        payload = _payload(item.value)
        hidden = _is_redacted(payload)
        call = _call(payload, key)
        fold.take(replace(call, history=(), goes_on=True) if hidden and redacted else call)
        redacted += hidden
    ids: list[str] = []
    for placed in arranged(fold.threads, {}):
        try:
            made = _trajectory(placed, ids, records_of, source, redacted if not ids else 0)
        except BadRecord as error:
            yield Rejected(error.problem(kept[0].line))
            return
        ids.append(made.id)
        yield made


def _identity(item: Kept) -> tuple[str, str, str]:
    """A call that was logged twice has the same."""
    payload = _payload(item.value)
    return _call_id(payload), str(payload.get("status")), str(payload.get("startTime"))


def _started(item: Kept) -> str:
    return utc(_payload(item.value).get("startTime")) or "~"


def _is_redacted(payload: Mapping[str, Any]) -> bool:
    asked = messages_of(payload.get("messages"))
    answered = messages_of(payload.get("response"), "assistant")
    return any(message.text == _REDACTED for message in (*asked[-1:], *answered[-1:]))


def _call(payload: Mapping[str, Any], key: str = "") -> Call:
    settings = mapping(opened(payload.get("model_parameters")))
    response = opened(payload.get("response"))
    choices = mapping(response).get("choices")
    answered = messages_of(choices[:1] if isinstance(choices, list) else response, "assistant")
    failed = payload.get("status") == "failure"
    said = string(payload.get("error_str")) or string(mapping(payload.get("error_information")).get("error_message"))
    output = answered[-1] if answered and answered[-1].role == "assistant" else None
    return Call(
        key=key,
        history=tuple(with_system(messages_of(payload.get("messages")), settings)),
        output=None if failed else output,
        tools=tools_of(settings.get("tools")) or tools_of(settings.get("functions")),
        model=string(payload.get("model")),
        usage=None if failed else _usage(payload, mapping(response)),
        sampling=sampling_of(settings),
        started_at=utc(payload.get("startTime")),
        ended_at=utc(payload.get("endTime")),
        error=((said or "failure").strip().splitlines() or ["failure"])[0][:500] if failed else None,
        goes_on=bool(settings.get("previous_response_id")),
    )


def _usage(payload: Mapping[str, Any], response: Mapping[str, Any]) -> Usage | None:
    given = mapping(mapping(payload.get("metadata")).get("usage_object")) or mapping(response.get("usage"))
    details = mapping(given.get("prompt_tokens_details", given.get("input_tokens_details")))
    cost = payload.get("response_cost")
    found = Usage(
        whole(payload.get("prompt_tokens")),
        whole(payload.get("completion_tokens")),
        whole(details.get("cached_tokens")),
        None if isinstance(cost, bool) else number(cost, "response_cost"),
    )
    return None if found == Usage() else found


def _trajectory(
    item: Placed, ids: Sequence[str], records_of: Mapping[str, Kept], source: Source, redacted: int
) -> Trajectory:
    thread = item.thread
    own = [records_of[call.key] for call in thread.calls]
    return trajectory_of(
        item,
        [kept.value for kept in own],
        ids,
        replace(source, line=own[0].line),
        model=next((call.model for call in reversed(thread.calls) if call.model), None),
        counts={"runs": int(not ids), **_counts(thread)},
        extra=_extra(own, thread, redacted),
    )


def _counts(thread: Thread) -> dict[str, int]:
    messages = thread.messages[thread.shared :]
    return {
        "calls": len(thread.calls),
        "failed_calls": sum(call.error is not None for call in thread.calls),
        "messages": len(messages),
        "assistant_turns": sum(message.role == "assistant" for message in messages),
        "tool_calls": sum(len(message.tool_calls) for message in messages),
        "tool_results": sum(message.role == "tool" for message in messages),
        "rewards": 0,
    }


def _extra(own: Sequence[Kept], thread: Thread, redacted: int) -> dict[str, Any]:
    """What is said of the first call, without keys, people and addresses."""
    payload = _payload(own[0].value)
    extra = {key: payload[key] for key in _ABOUT if payload.get(key) not in (None, "", [])}
    for key in ("trace_id", "session_id"):
        if isinstance(payload.get(key), str) and payload[key]:
            extra[key] = payload[key]
    failed = [call.error for call in thread.calls[:-1] if call.error is not None]
    return extra | ({"failed_attempts": failed} if failed else {}) | ({"redacted": redacted} if redacted else {})
