"""What dumps put beside a conversation, whatever its format: verdicts, times, the task, parameters of sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..records import Message, Outcome, Score, Task
from .chat import first_user_text, mapping, number, prompt_id, string, text, whole
from .clock import utc

OUTCOMES = ("reward", "score", "resolved")
_EXITS = ("exit_reason", "exit_status", "termination_reason")
_STARTS = ("started_at", "start_time", "startTime", "created_at", "timestamp", "request_time", "date")
_ENDS = ("ended_at", "end_time", "endTime", "completed_at", "response_time")
_TASK_IDS = ("task_id", "instance_id", "task")
Json = Mapping[str, Any]
USED = frozenset((*OUTCOMES, *_EXITS, *_STARTS, *_ENDS, *_TASK_IDS, "scores", "trial", "agent"))
"""Keys that these functions read."""


def verdicts(row: Json, reason: str | None = None) -> tuple[Outcome | None, dict[str, Score]]:
    """(outcome, the other scores): the first of `reward`, `score`, `resolved` that is a number or bool is the outcome;
    the others, and numbers in `scores`, are named scores. `reason`: why it ended, where the row does not say it.
    """
    named = mapping(row.get("scores"))
    values = {name: number(named[name], f"scores.{name}") for name in named}
    scores = {name: Score(value) for name, value in values.items() if value is not None}
    reason = next((found for key in _EXITS if (found := string(row.get(key)))), reason)
    known = {name: value for name in OUTCOMES if (value := number(row.get(name), name)) is not None}
    if not known:
        return (None if reason is None else Outcome(exit_reason=reason)), scores
    main = next(iter(known))
    rest = {name: Score(value) for name, value in known.items() if name != main}
    return Outcome(known[main], main, reason), scores | rest


def times(row: Json) -> tuple[str | None, str | None]:
    """(started, ended), of whatever keys the row has."""
    return _time(row, _STARTS), _time(row, _ENDS)


def _time(row: Json, keys: Sequence[str]) -> str | None:
    return next((found for key in keys if (found := utc(row.get(key))) is not None), None)


def task(row: Json, prompt: Sequence[Message], sampling: Json | None = None) -> Task:
    """The task that the row names; else equal prompts are one."""
    identity = next((found for key in _TASK_IDS if (found := text(row.get(key)))), None)
    return Task(identity or prompt_id(prompt), first_user_text(prompt), seed=whole(mapping(sampling).get("seed")))


def stated(row: Json, keys: Iterable[str] | None = None) -> dict[str, Any] | None:
    """Those of the keys (of all keys, without a choice) that have a value; None: none of them."""
    found = {key: row[key] for key in (row if keys is None else keys) if row.get(key) is not None}
    return found or None
