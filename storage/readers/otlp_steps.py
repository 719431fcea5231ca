"""A folded thread as prompt and steps: tool spans add results, errors and times that the inputs do not hold."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..codec import steps_from_messages
from ..records import Message, Score, Step, ToolCall
from .chat import string, text, unparsed
from .content_blocks import content_of, flat_call
from .message_shapes import together
from .otlp_calls import Call
from .otlp_names import first
from .otlp_spans import Span, iso
from .otlp_threads import Thread


@dataclass(slots=True, eq=False)
class ToolRun:
    """A span of a tool: what was called, how, and what it answered."""

    span: Span
    call_id: str | None
    name: str
    arguments: Any
    result: Any
    used: bool = False

    def message(self, call: ToolCall) -> Message:
        """The result, as the message that the next input would have held."""
        said = self.result if self.result is not None else self.span.error
        identity = call.id if call.id is not None else self.call_id
        return Message("tool", content_of(said), None, (), identity, self.name, None, self.span.error is not None)

    def call(self) -> ToolCall:
        """The call, where the model's own message was not captured."""
        if self.arguments is None:
            return ToolCall(self.call_id, self.name, None, "")
        return flat_call(self.call_id, self.name, unparsed(self.arguments))


def tool_run(span: Span) -> ToolRun:
    """What a tool's span says."""
    names = span.attributes
    name = string(first(names, "tool_name")) or span.name.removeprefix("execute_tool ")
    result = first(names, "tool_result")
    if isinstance(result, str) and result[:1] == '"':
        plain = unparsed(result)
        result = plain if isinstance(plain, str) else result
    identity = text(first(names, "tool_call_id"))
    return ToolRun(span, identity, name, first(names, "tool_arguments"), result)


class ToolRuns:
    """The tools that ran in one run, each of which answers one call. `scopes`: the agents around a span, by its id."""

    def __init__(self, spans: Iterable[Span], scopes: Mapping[str, tuple[str, ...]]):
        self._by_id: dict[str, list[ToolRun]] = {}
        self._by_name: dict[str, list[ToolRun]] = {}
        self._by_scope: dict[tuple[str, ...], list[ToolRun]] = {}
        for run in map(tool_run, spans):
            if run.call_id is not None:
                self._by_id.setdefault(run.call_id, []).append(run)
            self._by_name.setdefault(run.name, []).append(run)
            self._by_scope.setdefault(scopes.get(run.span.id, ()), []).append(run)

    def answer(self, call: ToolCall, since: int) -> ToolRun | None:
        """The run of a call that was made at `since`: by its id, else the next of that tool."""
        if call.id is not None and call.id in self._by_id:
            return self._next(self._by_id[call.id], since)
        return self._next(self._by_name.get(call.name, []), since, anonymous=call.id is not None)

    def _next(self, runs: list[ToolRun], since: int, anonymous: bool = False) -> ToolRun | None:
        """The first that is free; `anonymous`: and that names no call, because it would be another one."""
        while runs and runs[0].used:
            del runs[0]
        for run in runs:
            if not run.used and (run.span.start or since) >= since and not (anonymous and run.call_id):
                run.used = True
                return run
        return None

    def between(self, scope: tuple[str, ...], start: int, end: int | None) -> list[ToolRun]:
        """Runs of an agent that no call claimed and that began in this time; they are claimed now."""
        runs = self._by_scope.get(scope, [])
        first = bisect_left(runs, start, key=_start)
        last = len(runs) if end is None else bisect_left(runs, end, key=_start)
        found = [run for run in runs[first:last] if not run.used]
        for run in found:
            run.used = True
        return found


def _start(run: ToolRun) -> int:
    return run.span.start or 0


def conversation(
    thread: Thread, tools: ToolRuns, scores: Mapping[str, Mapping[str, Score]]
) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
    """Prompt and steps. `scores`: of spans, by span id."""
    messages, places = _merged(thread)
    prompt, steps = steps_from_messages([*thread.system.messages, *messages])
    calls = _calls_by_step(thread, messages, places)
    starts = sorted(call.span.start or 0 for call in thread.calls)
    filled = []
    for step in steps:
        call = calls.get(step.index)
        if call is None:
            observed, _ = _observations(step, tools, 0)
            filled.append(replace(step, observations=observed))
            continue
        ran = _runs_after(call, thread, tools, starts) if call.is_empty else []
        done = [run.span.end for run in ran if run.span.end is not None]
        filled.append(_filled(_uncaptured(step, ran), call, tools, scores.get(call.span.id, {}), done))
    return prompt, tuple(filled)


def _runs_after(call: Call, thread: Thread, tools: ToolRuns, starts: list[int]) -> list[ToolRun]:
    """The tools that ran between a call and the next one of its thread."""
    since = call.span.start or 0
    after = bisect_right(starts, since)
    return tools.between(thread.scope, since, starts[after] if after < len(starts) else None)


def _filled(step: Step, call: Call, tools: ToolRuns, scores: Mapping[str, Score], done: list[int]) -> Step:
    """The step with what its call's span says. `done`: when the tools ended that are in it already."""
    span = call.span
    observations, ended = _observations(step, tools, span.start or 0)
    ends = [time for time in (span.end, ended, *done) if time is not None]
    return replace(
        step,
        observations=observations,
        usage=call.usage,
        scores=scores,
        started_at=iso(span.start),
        ended_at=iso(max(ends, default=None)),
        model=string(first(span.attributes, "model")),
    )


def _calls_by_step(thread: Thread, messages: list[Message], places: Mapping[int, int]) -> dict[int, Call]:
    numbers = _step_numbers(messages)
    pairs = zip(thread.calls, thread.actions, strict=True)
    return {numbers[places[place]]: call for call, place in pairs if place is not None and places[place] in numbers}


def _step_numbers(messages: list[Message]) -> dict[int, int]:
    actions = (place for place, message in enumerate(messages) if message.role == "assistant")
    return {place: number for number, place in enumerate(actions)}


def _merged(thread: Thread) -> tuple[list[Message], dict[int, int]]:
    """The messages, items of one answer (reasoning, text, calls) put together, and where each went."""
    merged: list[Message] = []
    places: dict[int, int] = {}
    starts = {place for place in thread.actions if place is not None}
    for place, message in enumerate(thread.messages):
        before = merged[-1] if merged else None
        if before is not None and place not in starts and _is_rest(before, message):
            merged[-1] = together(before, message)
        else:
            merged.append(message)
        places[place] = len(merged) - 1
    return merged, places


def _is_rest(before: Message, message: Message) -> bool:
    if before.role != "assistant" or message.role != "assistant":
        return False
    return not message.text or (not before.text and not before.tool_calls)


def _uncaptured(step: Step, runs: list[ToolRun]) -> Step:
    """A step of which nothing was captured but the tools that ran after it."""
    if not runs:
        return step
    calls = tuple(run.call() for run in runs)
    answers = tuple(run.message(call) for run, call in zip(runs, calls, strict=True))
    return replace(step, action=replace(step.action, tool_calls=calls), observations=(*answers, *step.observations))


def _observations(step: Step, tools: ToolRuns, since: int) -> tuple[tuple[Message, ...], int | None]:
    """What came back, and when the last tool ended. It keeps its recorded order; results that only a tool's span has
    stand behind the other results.
    """
    waiting = list(step.action.tool_calls)
    observed: list[Message] = []
    behind, ends = 0, []
    for message in step.observations:
        if message.role == "tool":
            call = _called(message, waiting)
            run = tools.answer(call, since) if call is not None else None
            ends += [run.span.end] if run is not None and run.span.end else []
            observed.append(_completed(message, call, run))
            behind = len(observed)
        else:
            observed.append(message)
    for call in waiting:
        run = tools.answer(call, since)
        if run is not None and (run.result is not None or run.span.error is not None):
            ends += [run.span.end] if run.span.end else []
            observed.insert(behind, run.message(call))
            behind += 1
    return tuple(observed), max(ends, default=None)


def _called(message: Message, waiting: list[ToolCall]) -> ToolCall | None:
    """The call that a result answers, by its id, else the first that waits; it waits no longer."""
    named = (call for call in waiting if call.id is not None and call.id == message.tool_call_id)
    found = next(named, None)
    if found is None and message.tool_call_id is None and waiting:
        same = (call for call in waiting if call.name == message.name)
        found = next(same, waiting[0])
    if found is not None:
        waiting.remove(found)
    return found


def _completed(message: Message, call: ToolCall | None, run: ToolRun | None) -> Message:
    identity = message.tool_call_id or (call.id if call is not None else None)
    if run is None:
        return replace(message, tool_call_id=identity)
    failed = message.is_error or run.span.error is not None
    content = message.content if message.content is not None else content_of(run.result)
    return replace(message, content=content, tool_call_id=identity, name=message.name or run.name, is_error=failed)
