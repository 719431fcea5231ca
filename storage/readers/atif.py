"""Reader of ATIF, the agent trajectory interchange format (v1.0 to v1.8, by hand: newer and unknown fields are fine).

One agent step is one action with its observation results as `tool` messages. A system or user step is a message; what
it observed follows it (role `tool` when the result names a call, else the step's own role). Embedded
`subagent_trajectories` are trajectories of their own, `Source.extra["parent_session"]` naming what they belong to; the
raw record of the outer one still holds them. ATIF has no reward and no task id: equal prompts are one task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Message, Rejected, Source, Task, ToolCall, Trajectory, Usage
from .base import identify
from .chat import arguments, content, first_user_text, mapping, number, prompt_id, split, string, text, tool_schemas
from .chat import usage as usage_of
from .json_input import Head, records
from .json_text import BadRecord, wrong_shape

_ROLES = {"agent": "assistant", "user": "user", "system": "system"}
_TASK_IDS = ("task_id", "task_name")


class AtifReader:
    """Reads ATIF documents; several in one list or JSONL file are read too."""

    name = "atif"

    def detect(self, head: Head) -> float:
        """0.98 with ATIF's schema version, 0.7 for the shape of its steps."""
        rows = [record for record in head.records if isinstance(record, dict)]
        if rows and all(str(row.get("schema_version")).startswith("ATIF") for row in rows):
            return 0.98
        return 0.7 if rows and all(_has_steps(row) for row in rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the document's trajectory, then those embedded in it, each in the place of its parent's next."""
        source = replace(source, format=self.name)
        for item in records(stream):
            if isinstance(item, Rejected):
                yield item
            else:
                yield from _documents(item.value, replace(source, line=item.line))


def _has_steps(record: Mapping[str, Any]) -> bool:
    steps = record.get("steps")
    if not isinstance(record.get("agent"), dict) or not isinstance(steps, list) or not steps:
        return False
    first = mapping(steps[0])
    return "step_id" in first and first.get("source") in _ROLES


def _documents(value: Any, source: Source) -> Iterator[Trajectory | Rejected]:
    waiting: list[tuple[Any, str | None]] = [(value, None)]
    while waiting:
        document, parent = waiting.pop()
        try:
            yield _trajectory(document, source, parent)
        except BadRecord as error:
            yield Rejected(error.problem(source.line))
        inner = document.get("subagent_trajectories") if isinstance(document, dict) else None
        if isinstance(inner, list):
            name = string(document.get("session_id")) or string(document.get("trajectory_id")) or ""
            waiting.extend((item, name) for item in reversed(inner))


def _trajectory(document: Any, source: Source, parent: str | None) -> Trajectory:
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise wrong_shape("an ATIF document is an object with a list of `steps`")
    raw_steps = document["steps"]
    messages: list[Message] = []
    for index, step in enumerate(raw_steps):
        messages.extend(_step_messages(step, f"steps[{index}]"))
    agent_steps = [step for step in raw_steps if step["source"] == "agent"]
    prompt, steps = split(messages, [_usage(step) for step in agent_steps], [_logprob(step) for step in agent_steps])
    agent = mapping(document.get("agent"))
    identity, source = identify(
        source,
        document,
        agent=string(agent.get("name")),
        model=string(agent.get("model_name")) or _first_model(agent_steps),
        counts=_counts(raw_steps),
        extra=_extra(document, agent, parent),
    )
    return Trajectory(
        id=identity,
        task=_task(document, prompt),
        tools=tool_schemas(agent.get("tool_definitions")),
        prompt=prompt,
        steps=steps,
        source=source,
    )


def _step_messages(step: Any, where: str) -> list[Message]:
    if not isinstance(step, dict):
        raise wrong_shape(f"{where} is not an object")
    role = _ROLES.get(step["source"]) if isinstance(step.get("source"), str) else None
    if role is None:
        raise wrong_shape(f"{where} has no source among system, user, agent")
    calls = tuple(
        _call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(_list(step, "tool_calls", where))
    )
    message = Message(role, content(step.get("message")), string(step.get("reasoning_content")), calls)
    observation = step.get("observation")
    if observation is not None and not isinstance(observation, dict):
        raise wrong_shape(f"{where}.observation is not an object")
    results = _list(mapping(observation), "results", f"{where}.observation")
    return [message, *_results(results, message, where)]


def _list(value: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = value.get(key)
    if found is not None and not isinstance(found, list):
        raise wrong_shape(f"{where}.{key} is not a list")
    return found or []


def _call(value: Any, where: str) -> ToolCall:
    if not isinstance(value, dict):
        raise wrong_shape(f"{where} is not an object")
    given = value.get("arguments")
    identity, name = text(value.get("tool_call_id")), text(value.get("function_name")) or ""
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "")
    return ToolCall(identity, name, arguments(raw), raw)


def _results(results: list[Any], message: Message, where: str) -> Iterator[Message]:
    """A result without a call id takes that of the call in its place when there is one result to each call."""
    calls = message.tool_calls
    in_order = len(calls) == len(results)
    for index, result in enumerate(results):
        if not isinstance(result, dict):
            raise wrong_shape(f"{where}.observation.results[{index}] is not an object")
        call_id = text(result.get("source_call_id"))
        if call_id is None and in_order:
            call_id = calls[index].id
        role = "tool" if message.role == "assistant" or call_id is not None else message.role
        yield Message(role, content(result.get("content")), tool_call_id=call_id)


def _usage(step: Mapping[str, Any]) -> Usage | None:
    return usage_of(step.get("metrics"))


def _logprob(step: Mapping[str, Any]) -> float | None:
    """The sum over the completion's tokens, when every one of them was logged."""
    given = mapping(step.get("metrics")).get("logprobs")
    if not isinstance(given, list) or not given:
        return None
    values = [number(item, "metrics.logprobs") for item in given]
    known = [value for value in values if value is not None]
    return number(sum(known), "metrics.logprobs") if len(known) == len(values) else None


def _first_model(agent_steps: list[Mapping[str, Any]]) -> str | None:
    return next((name for step in agent_steps if (name := string(step.get("model_name")))), None)


def _counts(steps: list[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "messages": len(steps),
        "assistant_turns": sum(step["source"] == "agent" for step in steps),
        "tool_calls": sum(len(step.get("tool_calls") or ()) for step in steps),
        "tool_results": sum(len(mapping(step.get("observation")).get("results") or ()) for step in steps),
        "rewards": 0,
    }


def _task(document: Mapping[str, Any], prompt: tuple[Message, ...]) -> Task:
    extra = mapping(document.get("extra"))
    identity = next((found for key in _TASK_IDS if (found := text(extra.get(key)))), None)
    return Task(identity or prompt_id(prompt), first_user_text(prompt))


def _extra(document: Mapping[str, Any], agent: Mapping[str, Any], parent: str | None) -> dict[str, Any]:
    """All that is said once: everything but the steps, the tools and the embedded trajectories."""
    left_out = ("steps", "subagent_trajectories", "agent")
    extra = {key: document[key] for key in document if key not in left_out}
    about = {key: agent[key] for key in agent if key not in ("name", "model_name", "tool_definitions")}
    if about:
        extra["agent"] = about
    return extra if parent is None else {**extra, "parent_session": parent}
