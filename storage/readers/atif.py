"""Reader of ATIF, the agent trajectory interchange format, v1.0 to v1.8.

A document is judged by the package `atif` where that is installed (extra `atif`), and read all the same when it is not,
or refuses it (newer fields, other mistakes): `Source.extra["not_valid"]` then says what it found. One agent step is one
action with its observation results as `tool` messages. A system or user step is a message; what it observed follows it
(role `tool` when the result names a call, else the step's own role). Embedded `subagent_trajectories` are trajectories
of their own, whose parent is what embeds them; documents that it refers to by file, and the one that continues it, are
linked by path (before v1.7 also by session). ATIF has no reward and no task id: equal prompts are one task. Steps
copied from another document's context are kept and listed in `Source.extra["copied_steps"]`. Token ids stay in the raw
record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, BinaryIO

from ..records import Message, Rejected, Source, Step, Task, Trajectory, Usage
from .atif_links import links_of, references, relation_of
from .atif_steps import ROLES, logprob, step_messages, usage_of_step
from .base import identify
from .chat import first_user_text, listing, mapping, number, prompt_id, split, string, text, tool_schemas, whole
from .clock import span, utc
from .json_input import Head, records
from .json_text import BadRecord, wrong_shape

_TASK_IDS = ("task_id", "task_name")
_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "seed", "reasoning_effort")
Json = Mapping[str, Any]


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
                yield from _documents(item.value, replace(source, line=item.line), alone=item.position == 0)


def _has_steps(record: Json) -> bool:
    steps = record.get("steps")
    if not isinstance(record.get("agent"), dict) or not isinstance(steps, list) or not steps:
        return False
    first = mapping(steps[0])
    return "step_id" in first and first.get("source") in ROLES


@dataclass(frozen=True, slots=True)
class _Parent:
    """What embeds a document."""

    id: str | None
    name: str
    calls: Mapping[str, int | None]
    """Ids of embedded trajectories to the step that called each."""


def _documents(value: Any, source: Source, alone: bool) -> Iterator[Trajectory | Rejected]:
    waiting: list[tuple[Any, _Parent | None]] = [(value, None)]
    while waiting:
        document, parent = waiting.pop()
        made: Trajectory | None = None
        try:
            made = _trajectory(document, source, parent, alone)
            yield made
        except BadRecord as error:
            yield Rejected(error.problem(source.line))
        inner = document.get("subagent_trajectories") if isinstance(document, dict) else None
        if isinstance(inner, list):
            name = string(document.get("session_id")) or string(document.get("trajectory_id")) or ""
            calls = {key: step for key, _, step in references(document) if key}
            below = _Parent(made.id if made else None, name, calls)
            waiting.extend((item, below) for item in reversed(inner))


def _trajectory(document: Any, source: Source, parent: _Parent | None, alone: bool) -> Trajectory:
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise wrong_shape("an ATIF document is an object with a list of `steps`")
    raw_steps = document["steps"]
    messages: list[Message] = []
    for index, step in enumerate(raw_steps):
        messages.extend(step_messages(step, f"steps[{index}]"))
    agent_steps = [step for step in raw_steps if step["source"] == "agent"]
    usages, logprobs = [usage_of_step(step) for step in agent_steps], [logprob(step) for step in agent_steps]
    agent = mapping(document.get("agent"))
    model = string(agent.get("model_name"))
    prompt, steps = split(messages, usages, logprobs)
    started, ended = span(utc(step.get("timestamp")) for step in raw_steps)
    sampling = _sampling(agent, agent_steps)
    identity, source = identify(
        source,
        document,
        agent=string(agent.get("name")),
        model=model or _first_model(agent_steps),
        counts=_counts(raw_steps),
        extra=_extra(document, agent, agent_steps, parent),
        started_at=started,
        ended_at=ended,
        usage=_total(document),
        sampling=sampling or None,
        relation="subagent" if parent else relation_of(document),
        links=links_of(document, source.path if alone and parent is None else None),
    )
    return Trajectory(
        id=identity,
        task=_task(document, prompt, sampling),
        tools=tool_schemas(agent.get("tool_definitions")),
        prompt=prompt,
        steps=tuple(_told(step, raw, model) for step, raw in zip(steps, agent_steps, strict=True)),
        parent_id=parent.id if parent else None,
        branch_step=parent.calls.get(string(document.get("trajectory_id")) or "") if parent else None,
        source=source,
    )


def _told(step: Step, raw: Json, model: str | None) -> Step:
    """The time and the model of a step; one that no model made has none."""
    made_by = string(raw.get("model_name")) or (None if raw.get("llm_call_count") == 0 else model)
    return replace(step, started_at=utc(raw.get("timestamp")), model=made_by)


def _first_model(agent_steps: list[Json]) -> str | None:
    return next((name for step in agent_steps if (name := string(step.get("model_name")))), None)


def _sampling(agent: Json, agent_steps: list[Json]) -> dict[str, Any]:
    """What agents put beside their configuration, and the effort of the first step that states one."""
    extra = mapping(agent.get("extra"))
    found = {key: extra[key] for key in _SAMPLING if isinstance(extra.get(key), (int, float, str))}
    effort = next((step["reasoning_effort"] for step in agent_steps if step.get("reasoning_effort") is not None), None)
    return found | ({"reasoning_effort": effort} if isinstance(effort, (int, float, str)) else {})


def _counts(steps: list[Json]) -> dict[str, int]:
    return {
        "messages": len(steps),
        "assistant_turns": sum(step["source"] == "agent" for step in steps),
        "tool_calls": sum(len(step.get("tool_calls") or ()) for step in steps),
        "tool_results": sum(len(mapping(step.get("observation")).get("results") or ()) for step in steps),
        "rewards": 0,
    }


def _total(document: Json) -> Usage | None:
    total = mapping(document.get("final_metrics"))
    cost = total.get("total_cost_usd")
    result = Usage(
        whole(total.get("total_prompt_tokens")),
        whole(total.get("total_completion_tokens")),
        whole(total.get("total_cached_tokens")),
        None if isinstance(cost, bool) else number(cost, "final_metrics.total_cost_usd"),
    )
    return None if result == Usage() else result


def _task(document: Json, prompt: tuple[Message, ...], sampling: Json) -> Task:
    extra = mapping(document.get("extra"))
    identity = next((found for key in _TASK_IDS if (found := text(extra.get(key)))), None)
    return Task(identity or prompt_id(prompt), first_user_text(prompt), seed=whole(sampling.get("seed")))


def _extra(document: Json, agent: Json, agent_steps: list[Json], parent: _Parent | None) -> dict[str, Any]:
    """All that is said once: everything but the steps, the tools and the embedded trajectories."""
    left_out = ("steps", "subagent_trajectories", "agent")
    extra = {key: document[key] for key in document if key not in left_out}
    about = {key: agent[key] for key in agent if key not in ("name", "model_name", "tool_definitions")}
    copied = [index for index, step in enumerate(agent_steps) if step.get("is_copied_context") is True]
    found = {
        "agent": about,
        "parent_session": parent.name if parent else None,
        "copied_steps": copied,
        "not_valid": _refusal(document) if parent is None else None,
    }
    return extra | {key: value for key, value in found.items() if value}


def _refusal(document: Json) -> str | None:
    """What the package `atif` has against the document, in one line; None: nothing, or it is not installed."""
    model = _model()
    if model is None:
        return None
    try:
        model.model_validate(document)
    except (ValueError, TypeError, RecursionError) as error:
        errors = getattr(error, "errors", None)
        first = mapping(next(iter(errors(include_url=False, include_input=False)), None)) if errors else {}
        where = ".".join(str(part) for part in listing(list(first.get("loc", ()))))
        return f"{where}: {first.get('msg', type(error).__name__)}"[:300]
    return None


@cache
def _model() -> Any:
    try:
        from atif import Trajectory as Model
    except ImportError:
        return None
    return Model
