"""A sample of an Inspect log as a trajectory, and its agents' threads behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..codec import steps_from_messages
from ..records import Message, Rejected, Source, Step, Task, ToolSchema, Trajectory
from .base import identify
from .chat import chat_counts, first_user_text, listing, mapping, prompt_id, string, text, tool_schemas, whole
from .clock import utc
from .inspect_events import Agent, Events, ModelCall, events_of, matched, resolved
from .inspect_library import attachments_of, can_resolve, read_input, read_messages
from .inspect_messages import inspect_message, summed_usage
from .inspect_scores import verdicts
from .json_text import TOO_LONG, BadRecord, wrong_shape

_TASK_DATA = ("choices", "metadata", "files", "setup", "sandbox", "description")
_EXTRA = ("uuid", "total_time", "working_time", "turn_count", "model_fallbacks", "invalidation", "role_usage")
_ABOUT = (
    "run_id",
    "eval_id",
    "created",
    "task",
    "task_id",
    "task_version",
    "task_args",
    "tags",
    "metadata",
    "packages",
)
_LARGE = ("events", "events_data", "transcript", "attachments", "timelines")
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Log:
    """What a log says once for all its samples."""

    header: Json

    @property
    def eval(self) -> Json:
        """The task, the model, the configuration."""
        return mapping(self.header.get("eval"))

    @property
    def agent(self) -> str | None:
        """The solver: as it was named for the eval, else the last of the plan."""
        steps = [string(mapping(step).get("solver")) for step in listing(mapping(self.header.get("plan")).get("steps"))]
        return string(self.eval.get("solver")) or next((name for name in reversed(steps) if name), None)

    @property
    def sampling(self) -> dict[str, Any]:
        """Parameters that the log states for every call."""
        plan = mapping(mapping(self.header.get("plan")).get("config"))
        return _stated({**plan, **mapping(self.eval.get("model_generate_config"))})


def _stated(config: Json) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not None}


def sample_trajectories(sample: Any, log: Log, source: Source) -> Iterator[Trajectory | Rejected]:
    """The sample's own trajectory, then those of its agents, or what is wrong with each."""
    try:
        if not isinstance(sample, dict) or not isinstance(sample.get("messages", []), list):
            raise wrong_shape("a sample is an object with a list of `messages`")
        events = events_of(sample)
        raw_messages = sample.get("messages") or []
        made = matched(raw_messages, events.calls, attachments_of(sample))
        main = _trajectory(sample, log, source, events, made)
    except BadRecord as error:
        yield Rejected(replace(error.problem(source.line), message=f"sample {_name(sample)}: {error.message}"))
        return
    yield main
    yield from _agents(sample, log, source, events, made, main)


def _name(sample: Any) -> str:
    found = mapping(sample)
    return f"{text(found.get('id')) or '?'!s:.60}, epoch {text(found.get('epoch')) or '?'!s:.20}"


def _trajectory(sample: Json, log: Log, source: Source, events: Events, made: list[ModelCall | None]) -> Trajectory:
    raw_messages = listing(sample.get("messages"))
    messages = read_messages(log.header, sample, raw_messages)
    prompt, steps = _steps([inspect_message(message) for message in messages], made)
    outcome, scores, counts = verdicts(sample, log.header)
    source, identity = _identified(source, sample)
    started, ended = utc(sample.get("started_at")), utc(sample.get("completed_at"))
    sampling = _sampling(made) or log.sampling
    count = chat_counts(messages, counts.pop("rewards"))
    return Trajectory(
        id=identity,
        task=_task(sample, log, prompt, sampling),
        tools=_tools(made, attachments_of(sample)),
        prompt=prompt,
        steps=steps,
        outcome=outcome,
        scores=scores,
        final_state=sample.get("store") or None,
        truncated=sample.get("error") is not None or sample.get("limit") is not None,
        source=replace(
            source,
            trial=text(sample.get("epoch")),
            agent=log.agent,
            model=string(log.eval.get("model")),
            counts={**count, **counts, "events": len(_raw_events(sample))},
            extra=_extra(sample, log) | dict(source.extra),
            started_at=started or events.times[0],
            ended_at=ended or events.times[1],
            usage=summed_usage(sample.get("model_usage")),
            sampling=sampling or None,
        ),
    )


def _raw_events(sample: Json) -> Any:
    return listing(sample.get("events"))


def _identified(source: Source, record: Json) -> tuple[Source, str]:
    """A record too long to be stored is kept without its events: the messages are what counts."""
    try:
        identity, identified = identify(source, record)
    except BadRecord as error:
        left_out = [key for key in _LARGE if record.get(key)]
        if error.error_code != TOO_LONG or not left_out:
            raise
        identity, identified = identify(source, {key: record[key] for key in record if key not in left_out})
        identified = replace(identified, extra={"raw_without": left_out})
    return identified, identity


def _steps(messages: list[Message], made: list[ModelCall | None]) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
    prompt, steps = steps_from_messages(messages)
    return prompt, tuple(_with_call(step, call) for step, call in zip(steps, made, strict=True))


def _with_call(step: Step, call: ModelCall | None) -> Step:
    if call is None:
        return step
    started, ended = call.times
    return replace(step, usage=call.usage, started_at=started, ended_at=ended, model=call.model)


def _sampling(made: list[ModelCall | None]) -> dict[str, Any]:
    """The parameters of the first call, which hold those of the log."""
    first = next((call for call in made if call is not None), None)
    return _stated(mapping(first.event.get("config"))) if first else {}


def _tools(made: list[ModelCall | None], attachments: Json) -> tuple[ToolSchema, ...] | None:
    """Every tool that some call of the thread was offered; None when no call is logged."""
    calls = [call for call in made if call is not None]
    found: dict[str, Any] = {}
    for call in calls:
        for tool in listing(call.event.get("tools")):
            name = string(mapping(tool).get("name"))
            if name is not None and name not in found:
                found[name] = {key: value for key, value in tool.items() if value is not None}
    schemas = list(found.values())
    return tool_schemas(resolved(schemas, attachments if can_resolve(schemas, attachments) else {})) if calls else None


def _task(sample: Json, log: Log, prompt: tuple[Message, ...], sampling: Json) -> Task:
    data = {key: sample[key] for key in _TASK_DATA if sample.get(key)}
    task = string(log.eval.get("task"))
    identity = text(sample.get("id"))
    private = {} if sample.get("target") in (None, "", []) else {"target": sample["target"]}
    return Task(
        id="/".join(filter(None, (task, identity))) or prompt_id(prompt),
        prompt=string(sample.get("input")) or first_user_text(prompt),
        data=data | ({"task": task} if task else {}),
        seed=whole(sampling.get("seed")),
        private=private,
    )


def _extra(sample: Json, log: Log) -> dict[str, Any]:
    extra = {key: sample[key] for key in _EXTRA if sample.get(key)}
    about = {key: log.eval[key] for key in _ABOUT if log.eval.get(key)}
    dataset = string(mapping(log.eval.get("dataset")).get("name"))
    status = string(log.header.get("status")) or "started"
    return extra | {"eval": about | {"status": status} | ({"dataset": dataset} if dataset else {})}


def _agents(
    sample: Json, log: Log, source: Source, events: Events, made: list[ModelCall | None], main: Trajectory
) -> Iterator[Trajectory | Rejected]:
    """Agents whose model calls made none of the main thread's messages, each behind the one that called it."""
    known: dict[str, Trajectory] = {}
    used = {id(call) for call in made}
    for name, agent in events.agents.items():
        if not agent.calls or any(id(call) in used for call in agent.calls):
            continue
        parent = known.get(agent.parent or "", main)
        try:
            found = _agent(sample, log, source, agent)
        except BadRecord as error:
            message = f"sample {_name(sample)}, agent {string(agent.begin.get('name'))}: {error.message}"
            yield Rejected(replace(error.problem(source.line), message=message))
            continue
        known[name] = replace(found, parent_id=parent.id, branch_step=_caller(parent, events.callers.get(name)))
        yield known[name]


def _caller(parent: Trajectory, call: str | None) -> int | None:
    """The parent's step that called it."""
    for step in parent.steps:
        if call is not None and any(made.id == call for made in step.action.tool_calls):
            return step.index
    return None


def _agent(sample: Json, log: Log, source: Source, agent: Agent) -> Trajectory:
    """An agent's thread: what its last model call was given, and the answer."""
    last = agent.calls[-1]
    messages = read_input(log.header, sample, last.event)
    made = matched(messages, agent.calls, attachments_of(sample))
    prompt, steps = _steps([inspect_message(message) for message in messages], made)
    record = {"id": sample.get("id"), "epoch": sample.get("epoch"), "agent": agent.begin, "events": agent.events}
    source, identity = _identified(source, record)
    started, ended = utc(agent.begin.get("timestamp")), last.times[1]
    return Trajectory(
        id=identity,
        task=Task(prompt_id(prompt), first_user_text(prompt)),
        tools=_tools(made, attachments_of(sample)),
        prompt=prompt,
        steps=steps,
        source=replace(
            source,
            trial=text(sample.get("epoch")),
            agent=string(agent.begin.get("name")),
            model=last.model,
            counts=chat_counts(messages, 0) | {"events": len(agent.events)},
            started_at=started,
            ended_at=ended,
            sampling=_sampling(made) or None,
            relation="subagent",
        ),
    )
