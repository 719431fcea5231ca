"""Executed tools beside folded conversations: the results and failures that no later call's history has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..canonical import canonical_json
from ..records import Message, ToolCall
from .call_fold import Thread
from .likeness import arguments_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """One executed tool, as the log saw it from the outside."""

    key: str
    name: str
    scope: str = ""
    call_id: str | None = None
    arguments: Any = None
    result: Message
    started_at: str | None = None


def place_results(threads: Sequence[Thread], runs: Sequence[ToolRun]) -> int:
    """Give every call that has no result in its conversation the one that the log saw, and mark the results of failed
    runs; returns how many runs no call asked for. Runs are matched by call id, else by name and arguments in order.
    """
    left = _Runs(runs)
    for thread in sorted(threads, key=lambda item: item.origin is not None):  # a branch shares its origin's results
        _place(thread, left)
    return left.size


class _Runs:
    """Tool runs that no call has taken yet."""

    def __init__(self, runs: Sequence[ToolRun]):
        self._taken: set[str] = set()
        self._runs = runs
        self._by_id: dict[str, list[ToolRun]] = {}
        self._by_name: dict[tuple[str, str], list[ToolRun]] = {}
        for run in runs:
            self._by_name.setdefault((run.scope, run.name), []).append(run)
            if run.call_id is not None:
                self._by_id.setdefault(run.call_id, []).append(run)

    @property
    def size(self) -> int:
        """How many are left."""
        return sum(run.key not in self._taken for run in self._runs)

    def take(self, call: ToolCall, scope: str) -> ToolRun | None:
        """The run of a call."""
        run = self._first(self._by_id.get(call.id or "", []))
        if run is None:
            named = self._by_name.get((scope, call.name), [])
            loose = [run for run in named if run.call_id is None or call.id is None]
            wanted = arguments_text(call)
            run = self._first([run for run in loose if _spelled(run.arguments) == wanted]) or self._first(loose)
        if run is not None:
            self._taken.add(run.key)
        return run

    def _first(self, runs: Sequence[ToolRun]) -> ToolRun | None:
        return next((run for run in runs if run.key not in self._taken), None)


def _place(thread: Thread, left: _Runs) -> None:
    at = thread.shared
    while at < len(thread.messages):
        end = _end_of_results(thread.messages, at)
        if thread.messages[at].role == "assistant":
            end += _place_one(thread, at, end, left)
        at = max(end, at + 1)


def _place_one(thread: Thread, at: int, end: int, left: _Runs) -> int:
    """Fill in one action's results; returns how many were put in."""
    action = thread.messages[at]
    missing: list[Message] = []
    for call, found in _answers(action, thread.messages[at + 1 : end]):
        run = left.take(call, thread.scope)
        if run is None:
            continue
        thread.tool_keys[run.key] = thread.step_of(at)
        if found is None:
            missing.append(replace(run.result, tool_call_id=call.id, name=call.name))
        elif run.result.is_error:
            thread.messages[at + 1 + found] = replace(thread.messages[at + 1 + found], is_error=True)
    if missing:
        thread.messages[end:end] = missing
        grown = len(missing)
        thread.answered = {key + grown if key >= end else key: call for key, call in thread.answered.items()}
    return len(missing)


def _end_of_results(messages: Sequence[Message], at: int) -> int:
    end = at + 1
    while end < len(messages) and messages[end].role == "tool":
        end += 1
    return end


def _answers(action: Message, results: Sequence[Message]) -> Iterator[tuple[ToolCall, int | None]]:
    """(call, index of its result or None): by id; results without a known id belong to calls in order."""
    ids = [result.tool_call_id for result in results]
    known = {call.id for call in action.tool_calls if call.id}
    loose = [index for index, identity in enumerate(ids) if identity is None or identity not in known]
    for call in action.tool_calls:
        if call.id is not None and call.id in ids:
            yield call, ids.index(call.id)
            continue
        named = next((index for index in loose if results[index].name in (None, call.name)), None)
        if named is not None:
            loose.remove(named)
        yield call, named


def _spelled(value: Any) -> str:
    return canonical_json(value) if isinstance(value, dict) else str(value or "")
