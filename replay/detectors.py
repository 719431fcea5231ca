"""Detectors: what the record of a run alone shows of how it went wrong. Pure functions; nothing is called.

Each says in its docstring what it claims. None claims that what it found lost the run: a failed run often shows
nothing, a successful one often something. `blame --dataset` says how often each is found in lost and in won runs.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..storage.codec import action_key
from ..storage.records import Message, Step, ToolCall, Trajectory
from .identifiers import identifiers, seen_in

Detector = Callable[[Trajectory], "Iterator[Finding]"]

LOOP_CALLS = 3
"""Times that the same call gets the same answer, not in a row, from which on it is a loop."""
_ERROR_TEXT = re.compile(r"\s*(error\b|exception\b|traceback \(most recent|[\w.]*(error|exception):)", re.IGNORECASE)
_TOLD = re.compile(
    r"error|fail|unable|cannot|can't|can not|could not|couldn't|not (?:found|possible|allowed|available|exist)|"
    r"no such|refused|invalid|wrong|unfortunately|sorry|apolog|issue|problem",
    re.IGNORECASE,
)
_GIVES_UP = re.compile(
    r"\b(?:i (?:give up|am unable to|cannot|can't|could not|couldn't|was unable to|was not able to|am not able to)|"
    r"i'm (?:unable|not able) to|unable to (?:complete|continue|proceed)|beyond my)\b",
    re.IGNORECASE,
)
_HANDS_OVER = re.compile(r"transfer|hand_?(?:over|off)|escalat|give_?up|abort", re.IGNORECASE)
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (Mapping,),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector found at a step. `tool`: the tool it is about; None: what the agent said."""

    step: int
    kind: str
    tool: str | None
    detail: str


def detect(trajectory: Trajectory) -> list[Finding]:
    """Everything that the detectors find, in the order of the steps."""
    found = [finding for detector in DETECTORS.values() for finding in detector(trajectory)]
    return sorted(found, key=lambda finding: (finding.step, finding.kind, finding.tool or ""))


def loops(trajectory: Trajectory) -> Iterator[Finding]:
    """The agent repeats itself and nothing changes: a step makes the same calls (or says the same) as the step before
    and hears the same, or a call gets the same answer for the third time. One finding per repetition."""
    answered: Counter[tuple[str, str]] = Counter()
    before: tuple[str, tuple[str, ...]] | None = None
    for step in trajectory.steps:
        now = action_key(step.action), tuple(message.text for message in step.observations)
        again = now == before and (step.action.tool_calls or now[0] != "say:")
        if again:
            yield Finding(step.index, "loop", _tool(step), "the same as the step before, with the same result")
        for call, answer in results(step):
            key = _call_key(call), answer.text if answer is not None else ""
            answered[key] += 1
            if answered[key] >= LOOP_CALLS and not again:
                yield Finding(step.index, "loop", call.name, f"time {answered[key]} with the same answer")
        before = now


def repeated_errors(trajectory: Trajectory) -> Iterator[Finding]:
    """A tool answers with an error that it has given in this run before, word for word."""
    known: set[tuple[str, str]] = set()
    for step in trajectory.steps:
        for call, answer in results(step):
            if answer is not None and is_error(answer):
                key = call.name, answer.text
                if key in known:
                    yield Finding(step.index, "repeated-error", call.name, _brief(answer.text))
                known.add(key)


def ignored_errors(trajectory: Trajectory) -> Iterator[Finding]:
    """A tool fails, the agent never calls that tool again, and what it says next does not speak of a failure.

    English words for failure are looked for; an agent that speaks another language seems to ignore more.
    """
    steps = trajectory.steps
    last_call = {call.name: place for place, step in enumerate(steps) for call in step.action.tool_calls}
    for place, step in enumerate(steps):
        said = steps[place + 1].action if place + 1 < len(steps) else None
        told = said is not None and _TOLD.search(f"{said.text} {said.reasoning or ''}")
        for call, answer in results(step):
            if answer is not None and is_error(answer) and last_call[call.name] == place and not told:
                yield Finding(step.index, "ignored-error", call.name, _brief(answer.text))


def empty_answers(trajectory: Trajectory) -> Iterator[Finding]:
    """An action says nothing and calls nothing."""
    for step in trajectory.steps:
        if not step.action.tool_calls and not step.action.text.strip():
            yield Finding(step.index, "empty-answer", None, "no text, no call")


def invented_ids(trajectory: Trajectory) -> Iterator[Finding]:
    """A call's argument looks like an identifier, and nothing that the agent had read contains it.

    Read are the prompt, the tools' schemas, earlier observations and earlier results of the same run, not what the
    agent wrote itself. An id that the agent is to choose (the name of something new) is found too.
    """
    read = [json.dumps(trajectory.tools, default=str)] if trajectory.tools else []
    read += [message.text for message in trajectory.prompt]
    for step in trajectory.steps:
        for call in step.action.tool_calls:
            for name, value in identifiers(call.arguments or {}):
                if not seen_in(value, read):
                    yield Finding(step.index, "invented-id", call.name, f"{name}={_brief(value)}")
        read += [message.text for message in step.observations]


def malformed_arguments(trajectory: Trajectory) -> Iterator[Finding]:
    """A call's arguments are not a JSON object, lack one that the tool's schema requires, have one that it does not
    know, or one of another JSON type. Schemas that allow anything are held to nothing; nested values are not looked at.
    """
    schemas = {_function(tool).get("name"): _function(tool).get("parameters") or {} for tool in trajectory.tools or ()}
    for step in trajectory.steps:
        for call in step.action.tool_calls:
            if call.arguments is None:
                yield Finding(
                    step.index, "malformed-arguments", call.name, _brief(call.arguments_raw or "no JSON object")
                )
            elif (wrong := _against(call.arguments, schemas.get(call.name) or {})) is not None:
                yield Finding(step.index, "malformed-arguments", call.name, wrong)


def unknown_tools(trajectory: Trajectory) -> Iterator[Finding]:
    """A call names a tool that the run does not have. Says nothing where the log has no tool schemas."""
    known = {_function(tool).get("name") for tool in trajectory.tools or ()}
    for step in trajectory.steps:
        for call in step.action.tool_calls:
            if known and call.name not in known:
                yield Finding(step.index, "unknown-tool", call.name, "the run has no such tool")


def gave_up(trajectory: Trajectory) -> Iterator[Finding]:
    """The run's last action says, in English, that the agent cannot do it, or calls a tool that hands over or aborts.

    Handing over may be right: some tasks ask for it.
    """
    if not trajectory.steps:
        return
    step = trajectory.last
    handed = next((call.name for call in step.action.tool_calls if _HANDS_OVER.search(call.name)), None)
    said = None if step.action.tool_calls else _GIVES_UP.search(step.action.text)
    if handed is not None:
        yield Finding(step.index, "gave-up", handed, "the run ends by handing over")
    elif said is not None:
        yield Finding(step.index, "gave-up", None, _brief(step.action.text[said.start() :]))


DETECTORS: dict[str, Detector] = {
    "loop": loops,
    "repeated-error": repeated_errors,
    "ignored-error": ignored_errors,
    "empty-answer": empty_answers,
    "invented-id": invented_ids,
    "malformed-arguments": malformed_arguments,
    "unknown-tool": unknown_tools,
    "gave-up": gave_up,
}
"""By the kind of what they find."""


def is_error(answer: Message) -> bool:
    """Whether a tool's answer says that the call failed: the log marks it, it opens with "error" or the name of an
    exception, or it is a JSON object whose `error` is true in Python's sense."""
    if answer.is_error or _ERROR_TEXT.match(answer.text):
        return True
    text = answer.text.strip()
    if not text.startswith("{") or '"error"' not in text:
        return False
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and bool(parsed.get("error"))


def results(step: Step) -> Iterator[tuple[ToolCall, Message | None]]:
    """Each call of a step with its result: by id, else the next one in order; None where there is none."""
    answers = [message for message in step.observations if message.role == "tool"]
    by_id = {message.tool_call_id: message for message in answers if message.tool_call_id is not None}
    rest = iter([message for message in answers if message.tool_call_id is None])
    for call in step.action.tool_calls:
        answer = by_id.get(call.id) if call.id is not None else None
        yield call, answer if answer is not None else next(rest, None)


def step_tool(step: Step) -> str:
    """The kind of a step: the tools that it calls, joined by "+", else "(message)"."""
    return "+".join(call.name for call in step.action.tool_calls) or "(message)"


def _tool(step: Step) -> str | None:
    return step_tool(step) if step.action.tool_calls else None


def _call_key(call: ToolCall) -> str:
    return action_key(Message("assistant", tool_calls=(call,)))


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else tool


def _against(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str | None:
    """How arguments offend against the top level of their schema."""
    properties: Mapping[str, Any] = schema.get("properties") or {}
    if missing := [str(key) for key in schema.get("required") or () if key not in arguments]:
        return f"missing: {', '.join(missing)}"
    closed = bool(properties) and schema.get("additionalProperties", False) is False
    if closed and (unknown := [key for key in arguments if key not in properties]):
        return f"unknown: {', '.join(unknown)}"
    wrong = [key for key, value in arguments.items() if not _is_of(value, properties.get(key))]
    return f"of another type: {', '.join(wrong)}" if wrong else None


def _is_of(value: Any, schema: Any) -> bool:
    """Whether a value is of the one JSON type that its schema names; unknown and several types allow anything."""
    wanted = schema.get("type") if isinstance(schema, Mapping) else None
    types = _TYPES.get(wanted) if isinstance(wanted, str) else None
    if types is None or value is None:
        return True
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, types)


def _brief(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= 100 else shown[:99] + "…"


def kinds(findings: Sequence[Finding]) -> set[tuple[str | None, str]]:
    """The distinct (tool, kind) of findings: a run counts once for each."""
    return {(finding.tool, finding.kind) for finding in findings}
