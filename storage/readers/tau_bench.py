"""Reader of tau-bench (v1) results: a list of {task_id, trial, reward, info, traj}.

Gold (the task's `actions` and `outputs`) goes to `Task.private`; the log has no tool schemas (`tools` None) and names
neither agent, model nor times. The domain is known where the system prompt is one of tau-bench's own policies. A run
that died of an error has `info.error` and often an empty `traj`: it is kept, with the error as its exit reason. Its
environment answers a call that failed with a text that begins with `Error: `: such a result is marked as an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Message, Outcome, Rejected, Score, Source, Task, Trajectory
from .base import each_record, identify, most
from .chat import chat_counts, chat_messages, first_user_text, mapping, number, prompt_id, split, string, text, usage
from .json_input import Head
from .json_text import wrong_shape

_POLICY_TITLE = re.compile(r"#+\s*(airline|retail)\s+agent\s+policy", re.IGNORECASE)
_PRIVATE = ("actions", "outputs")
_VERDICTS = ("r_actions", "r_outputs")


class TauBenchReader:
    """Reads tau-bench (v1) result lists; the same records as JSONL or alone are read too."""

    name = "tau-bench"

    def detect(self, head: Head) -> float:
        """0.95 when the first records that are objects have a `traj` list with a task id or info."""
        rows = [record for record in head.records if isinstance(record, dict)]
        return 0.95 if most(rows, _is_run) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each element of the list."""
        return each_record(stream, replace(source, format=self.name), _trajectory)


def _is_run(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("traj"), list) and ("task_id" in record or "info" in record)


def _trajectory(record: Any, source: Source) -> Trajectory:
    if not isinstance(record, dict) or not ("traj" in record or "task_id" in record):
        raise wrong_shape("a tau-bench run is an object with `traj` and `task_id`")
    info = mapping(record.get("info"))
    raw_messages = record.get("traj")
    raw_messages = [] if raw_messages is None else raw_messages
    messages = [_marked(message) for message in chat_messages(raw_messages, "traj")]
    spent = [usage(message.get("usage")) for message in raw_messages if message["role"] == "assistant"]
    prompt, steps = split(messages, spent)
    value = number(record.get("reward"), "reward")
    identity, source = identify(
        source,
        record,
        trial=text(record.get("trial")),
        counts=chat_counts(raw_messages, int(value is not None)),
        extra=_extra(record, info),
    )
    verdicts = mapping(mapping(info.get("reward_info")).get("info"))
    return Trajectory(
        id=identity,
        task=_task(record, info, prompt),
        prompt=prompt,
        steps=steps,
        outcome=_outcome(value, info, verdicts),
        scores=_scores(verdicts),
        truncated=info.get("error") is not None,
        source=source,
    )


def _marked(message: Message) -> Message:
    failed = message.role == "tool" and isinstance(message.content, str) and message.content.startswith("Error: ")
    return replace(message, is_error=True) if failed else message


def _extra(record: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    used = ("task", "reward_info")
    rest = {key: record[key] for key in record if key not in ("task_id", "trial", "reward", "info", "traj")}
    return rest | {key: info[key] for key in info if key not in used}


def _task(record: Mapping[str, Any], info: Mapping[str, Any], prompt: Sequence[Message]) -> Task:
    given = mapping(info.get("task"))
    data: dict[str, Any] = {key: given[key] for key in given if key not in _PRIVATE}
    domain = string(record.get("domain")) or string(record.get("env")) or _domain(prompt)
    if domain is not None:
        data.setdefault("domain", domain)
    return Task(
        id=text(record.get("task_id")) or prompt_id(prompt),
        prompt=first_user_text(prompt),
        data=data,
        private={key: given[key] for key in _PRIVATE if key in given},
    )


def _domain(prompt: Sequence[Message]) -> str | None:
    """tau-bench's two policies open with their domain."""
    for message in prompt:
        found = _POLICY_TITLE.match(message.text.lstrip()) if message.role == "system" else None
        if found:
            return found.group(1).lower()
    return None


def _outcome(value: float | None, info: Mapping[str, Any], verdicts: Mapping[str, Any]) -> Outcome | None:
    error = info.get("error")
    if value is None and error is None:
        return None
    reward_info = info.get("reward_info")
    detail: dict[str, Any] = {"reward_info_present": isinstance(reward_info, dict), **verdicts}
    return Outcome(value, "reward", None if error is None else f"error: {error}", detail)


def _scores(verdicts: Mapping[str, Any]) -> dict[str, Score]:
    values = {name: number(verdicts.get(name), name) for name in _VERDICTS}
    return {name: Score(value) for name, value in values.items() if value is not None}
