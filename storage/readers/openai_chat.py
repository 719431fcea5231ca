"""Reader of OpenAI chat conversations: JSONL, a JSON array, or one object; a conversation a record.

A record holds `messages` (a list, or its JSON text) and maybe `tools` (or legacy `functions`). Assistant messages with
the `name` "example_assistant" are worked examples: part of the prompt, no steps. Beside them dumps put:

* the outcome: the first of `reward`, `score`, `resolved` that is a number or bool (the others become named scores),
  with `exit_reason`, `exit_status`, `termination_reason` or `finish_reason` beside it; `scores` {name: value};
* the task: `task_id`, `instance_id` or `id` (else equal prompts are one task), `seed`, `private`, and `task` and
  `metadata` objects, which become `Task.data` (metadata under its own key);
* `trial`, `agent`, `model`, `final_state`, `truncated`; times (`started_at`, `start_time`, `created_at`, `created`,
  `timestamp`; `ended_at`, `end_time`) and parameters of sampling (`temperature`, `top_p`, ...).

Every other key, `usage` and `info` too, goes to `Source.extra`; all of it stays in `Source.raw`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

import msgspec

from ..canonical import canonical_bytes
from ..chat_log import ChatLog, LoggedPrompt, LoggedSteps, NotPlainError
from ..codec import score_from
from ..records import Message, Outcome, Rejected, Score, Source, Step, Task, Trajectory
from .base import identify, record_id
from .chat import (
    chat_counts,
    chat_messages,
    first_user_text,
    mapping,
    number,
    prompt_id,
    split,
    string,
    text,
    tool_schemas,
    unparsed,
    usage,
    whole,
)
from .clock import utc
from .json_input import Head, records
from .json_text import (
    MAX_STORED_BYTES,
    BadRecord,
    check_depth,
    check_size,
    decode,
    has_all_keys,
    wrong_shape,
)

_OUTCOMES = ("reward", "score", "resolved")
_EXITS = ("exit_reason", "exit_status", "termination_reason", "finish_reason")
_STARTS = ("started_at", "start_time", "created_at", "created", "timestamp")
_ENDS = ("ended_at", "end_time")
_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens")
_TASK_IDS = ("task_id", "instance_id", "id")
_TASK_FIELDS = ("id", "prompt", "seed", "private", "data")
_OTHER_FORMATS = frozenset(("trajectory_format", "simulations", "traj"))  # mini-swe-agent, tau2-bench, tau-bench
_BY_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODE = msgspec.json.Decoder().decode
_ANTHROPIC_PARTS = frozenset(("tool_use", "tool_result", "thinking", "redacted_thinking"))


class OpenAIChatReader:
    """Reads OpenAI chat conversations with whatever a dump put beside them."""

    name = "openai-chat"

    def detect(self, head: Head) -> float:
        """0.8 when at least half of the first records are conversations and no other format's marks are there."""
        found = [_is_conversation(record) for record in head.records]
        return 0.8 if found and sum(found) * 2 >= len(found) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each record."""
        about = {"format": self.name, "path": source.path, "dataset": source.dataset, "tags": source.tags}
        for item in records(stream, _Text):
            if isinstance(item, Rejected):
                yield item
                continue
            try:
                yield _trajectory(item.value, {**about, "line": item.line})
            except BadRecord as error:
                yield Rejected(error.problem(item.line))


def _is_conversation(record: Any) -> bool:
    if not isinstance(record, dict) or _OTHER_FORMATS & record.keys():
        return False
    info = mapping(record.get("info"))
    if "mini_version" in info or "model_stats" in info:
        return False
    messages = unparsed(record.get("messages"))
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return False
    # The last message may be cut where the head ends.
    return all("role" in message for message in messages[:-1]) and not any(map(_is_anthropic, messages))


def _is_anthropic(message: Mapping[str, Any]) -> bool:
    parts = message.get("content")
    return isinstance(parts, list) and any(
        isinstance(part, dict) and str(part.get("type")) in _ANTHROPIC_PARTS for part in parts
    )


class _Text:
    """One record: decoded by its keys only, the messages as text, where that will do; else strictly.

    Raises BadRecord when it is too big.
    """

    __slots__ = ("data", "value")

    def __init__(self, data: bytes):
        check_size(data)
        self.data = data
        try:
            self.value: Any = _BY_KEYS(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.value = None

    def plain(self) -> tuple[ChatLog, dict[str, Any]] | None:
        """The chat and what stands beside it; None where only a strict look can tell what is in the record."""
        if self.value is None or "messages" not in self.value or len(self.data) > MAX_STORED_BYTES:
            return None
        left = dict(self.value)
        try:
            chat = ChatLog(left.pop("messages"))
            return chat, {key: _DECODE(text) for key, text in left.items()}
        except (NotPlainError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None


def _trajectory(text: _Text, about: dict[str, Any]) -> Trajectory:
    found = _plain(text, about["format"])
    body, left = found if found is not None else _over_records(decode(text.data), about["format"])
    outcome, scores = _verdicts(left)
    trial, agent, model = (_take_text(left, key) for key in ("trial", "agent", "model"))
    return Trajectory(
        id=body.id,
        task=_task(left, body.prompt),
        tools=_tools(left),
        prompt=body.prompt,
        steps=body.steps,
        outcome=outcome,
        scores=scores,
        final_state=left.pop("final_state", None),
        truncated=left.pop("truncated", None) is True,
        source=Source(
            **about,
            trial=trial,
            agent=agent,
            model=model,
            counts={**body.counts, "rewards": int(outcome is not None and outcome.value is not None)},
            started_at=_take_time(left, _STARTS),
            ended_at=_take_time(left, _ENDS),
            sampling=_take_sampling(left),
            extra=left,
            raw=body.raw,
        ),
    )


class _Body(NamedTuple):
    """A conversation's messages and identity; `raw` None: it is put together from the messages."""

    id: str
    prompt: Sequence[Message]
    steps: Sequence[Step]
    counts: Mapping[str, int]
    raw: str | None


def _plain(text: _Text, format_name: str) -> tuple[_Body, dict[str, Any]] | None:
    """The fast way; None when the record has something that only the other one understands."""
    found = text.plain()
    if found is None:
        return None
    chat, left = found
    canonical = canonical_bytes({**left, "messages": msgspec.Raw(chat.canonical())})
    if not has_all_keys(text.data, canonical):
        return None
    check_depth(left)
    steps = LoggedSteps(chat, canonical_bytes(left).decode())
    return _Body(record_id(format_name, canonical), LoggedPrompt(chat), steps, chat.counts(0), None), left


def _over_records(record: Any, format_name: str) -> tuple[_Body, dict[str, Any]]:
    if not isinstance(record, dict):
        raise wrong_shape("a conversation is an object with `messages`")
    if "messages" not in record:
        raise wrong_shape("no `messages`")
    left = dict(record)
    given = left.pop("messages")
    raw_messages = decode(given.encode()) if isinstance(given, str) else given
    messages = chat_messages(raw_messages, "messages")
    prompt, steps = split(messages, [_message_usage(item) for item in raw_messages if item["role"] == "assistant"])
    identity, source = identify(Source(format_name), record)
    return _Body(identity, prompt, steps, chat_counts(raw_messages, 0), source.raw), left


def _message_usage(message: Mapping[str, Any]) -> Any:
    return usage(message.get("usage"), message.get("cost"))


def _take_time(left: dict[str, Any], keys: Sequence[str]) -> str | None:
    """A time as ISO 8601 text: given as such, or as seconds since 1970."""
    found = next((key for key in keys if key in left), None)
    time = None if found is None else utc(left[found])
    if time is not None and found is not None:
        del left[found]
    return time


def _take_sampling(left: dict[str, Any]) -> dict[str, Any] | None:
    found = {key: left.pop(key) for key in _SAMPLING if isinstance(left.get(key), (int, float))}
    return found or None


def _take_text(left: dict[str, Any], key: str) -> str | None:
    """The value of a key as text; a value that is none stays in `left`."""
    found = text(left.get(key))
    if found is not None or left.get(key, "") is None:
        del left[key]
    return found


def _tools(left: dict[str, Any]) -> tuple[Mapping[str, Any], ...] | None:
    for key in ("tools", "functions"):
        schemas = tool_schemas(left.get(key))
        if schemas is not None:
            del left[key]
            return schemas
    return None


def _task(left: dict[str, Any], prompt: Sequence[Message]) -> Task:
    given = left.pop("task") if isinstance(left.get("task"), dict) else {}
    data: dict[str, Any] = {key: given[key] for key in given if key not in _TASK_FIELDS}
    data |= mapping(given.get("data"))
    for key in ("metadata", "task"):
        if isinstance(left.get(key), dict) or (key == "task" and key in left):
            data[key] = left.pop(key)
    identity = next((found for key in _TASK_IDS if (found := _take_text(left, key)) is not None), None)
    seed = whole(left.get("seed"))
    if seed is not None:
        del left["seed"]
    private = {**mapping(given.get("private")), **mapping(left.get("private"))}
    if isinstance(left.get("private"), dict):
        del left["private"]
    return Task(
        id=identity or text(given.get("id")) or prompt_id(prompt),
        prompt=string(given.get("prompt")) or first_user_text(prompt),
        data=data,
        seed=seed if seed is not None else whole(given.get("seed")),
        private=private,
    )


def _verdicts(left: dict[str, Any]) -> tuple[Outcome | None, dict[str, Score]]:
    scores = _named_scores(left)
    outcome: Outcome | None = None
    for name in _OUTCOMES:
        value = number(left.get(name), name)
        if value is None:
            continue
        del left[name]
        if outcome is None:
            outcome = Outcome(value, name)
        else:
            scores.setdefault(name, Score(value))
    reason = next((left.pop(key) for key in _EXITS if isinstance(left.get(key), str)), None)
    if reason is not None:
        outcome = replace(outcome or Outcome(), exit_reason=reason)
    return outcome, scores


def _named_scores(left: dict[str, Any]) -> dict[str, Score]:
    """Scores that can be read are taken out of `left`; the others stay there."""
    given = mapping(left.get("scores"))
    found = {name: score for name in given if (score := _score(given[name], name)) is not None}
    rest = {name: given[name] for name in given if name not in found}
    if given and rest:
        left["scores"] = rest
    elif given:
        del left["scores"]
    return found


def _score(value: Any, name: str) -> Score | None:
    where = f"scores.{name}"
    if not isinstance(value, dict):
        return Score(abstain=True) if value is None else _plain_score(number(value, where))
    error, detail = value.get("error"), value.get("detail") or {}
    if not isinstance(detail, dict) or not (error is None or isinstance(error, str)):
        return None
    plain = number(value.get("value"), where)
    if plain is None and not error and not value.get("abstain"):
        return None
    return score_from({"value": plain, "abstain": value.get("abstain"), "error": error, "detail": detail})


def _plain_score(value: float | None) -> Score | None:
    return None if value is None else Score(value)
