"""Reader of tau2-bench results: {timestamp, info, tasks, simulations}; a trajectory a simulation.

The record that is hashed is the simulation alone, so that splitting a results file changes no id. What the file says
once for all simulations is put beside each: the policy (`Task.data["policy"]`; it is not among the messages), the task
without its evaluation criteria (`Task.data`), the criteria (`Task.private`), tool schemas when the file has them, and
the rest of `info` (`Source.extra["info"]`). The simulated user may call tools too: those calls and their results carry
`requestor` "user", are part of the observations, and are counted apart. `simulations` is streamed, wherever in the
file it stands. Newer versions may keep each simulation in a file of its own, in a folder beside the results: such a
file is read by itself (it does not have the task's criteria and the tools), and the results without them are valid and
empty. Ticks of runs with sound stay in the raw record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, BinaryIO

from ..records import Message, Outcome, Rejected, Score, Source, Step, Task, ToolSchema, Trajectory
from .base import identify
from .chat import (
    chat_counts,
    chat_message,
    first_user_text,
    listing,
    mapping,
    number,
    split,
    string,
    text,
    tool_schemas,
    usage,
    whole,
)
from .clock import utc
from .documents import split_document
from .json_input import Head, container_of, guarded, records
from .json_text import BadRecord, wrong_shape
from .row_fields import stated

_SHARED = frozenset(("info", "tasks"))
_SIMULATION = frozenset(("task_id", "termination_reason", "reward_info"))
_DAY = 86400
_IN_RAW = ("start_time", "end_time", "ticks", "effect_timeline")
_DETAIL = "db_check action_checks env_assertions communicate_checks nl_assertions reward_basis reward_breakdown info"


@dataclass(frozen=True, slots=True)
class _Shared:
    """What a results file says once for all its simulations."""

    info: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str | None, Mapping[str, Any]] = field(default_factory=dict)
    tools: tuple[ToolSchema, ...] | None = None


class Tau2BenchReader:
    """Reads tau2-bench results files."""

    name = "tau2-bench"
    empty_is_valid = True

    def detect(self, head: Head) -> float:
        """0.97 for a results document, 0.85 for simulations by themselves."""
        rows = [record for record in head.records if isinstance(record, dict)]
        if any(_is_results(row) for row in rows):
            return 0.97
        return 0.85 if rows and all(_is_simulation(row) for row in rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each simulation."""
        source = replace(source, format=self.name)
        if container_of(stream) == "document":
            return guarded(_read_document(stream, source))
        return _read_records(stream, source)


def _is_results(record: Mapping[str, Any]) -> bool:
    """`info` and `tasks` may stand behind simulations that are longer than the head."""
    if "simulations" not in record:
        return isinstance(record.get("tasks"), list) and "environment_info" in mapping(record.get("info"))
    first = mapping(next(iter(listing(record["simulations"])), None))
    return "info" in record or "tasks" in record or _is_simulation(first)


def _is_simulation(record: Mapping[str, Any]) -> bool:
    messages = record.get("messages")
    if not isinstance(messages, list):
        return False
    return record.keys() >= _SIMULATION or "turn_idx" in mapping(next(iter(messages), None))


def _read_records(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    """Results documents or simulations that are lines or elements of a list: each is held whole."""
    for item in records(stream):
        if isinstance(item, Rejected):
            yield item
            continue
        whole_results = isinstance(item.value, dict) and "simulations" in item.value
        simulations = listing(item.value["simulations"]) if whole_results else [item.value]
        shared = _shared(item.value) if whole_results else _Shared()
        for simulation in simulations:
            yield _read_one(simulation, shared, replace(source, line=item.line))


def _read_document(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    """Stream a results document; a document without simulations is one by itself, unless it has their tasks: then they
    are in files of their own, in a folder beside it.
    """
    found, simulations = split_document(stream, "simulations", _SHARED)
    if simulations is None:
        if not found.keys() >= _SHARED:
            yield _read_one(found, _Shared(), replace(source, line=1))
        return
    shared = _shared(found)
    for item in simulations:
        yield item if isinstance(item, Rejected) else _read_one(item.value, shared, replace(source, line=item.line))


def _shared(results: Mapping[str, Any]) -> _Shared:
    info = mapping(results.get("info"))
    tasks = {text(task.get("id")): task for task in listing(results.get("tasks")) if isinstance(task, dict)}
    return _Shared(info, tasks, _tools(mapping(info.get("environment_info")).get("tool_defs")))


def _tools(definitions: Any) -> tuple[ToolSchema, ...] | None:
    """OpenAI schemas from a list of them, or from tau2's mapping of name to signature (`doc`, `params`)."""
    if not isinstance(definitions, dict):
        return tool_schemas(definitions)
    signatures = {name: mapping(signature) for name, signature in definitions.items()}
    return tuple(
        {
            "type": "function",
            "function": {
                "name": string(signature.get("name")) or name,
                "description": string(signature.get("doc")) or "",
                "parameters": mapping(signature.get("params")) or {"type": "object", "properties": {}},
            },
        }
        for name, signature in signatures.items()
    )


def _read_one(simulation: Any, shared: _Shared, source: Source) -> Trajectory | Rejected:
    try:
        return _trajectory(simulation, shared, source)
    except BadRecord as error:
        return Rejected(error.problem(source.line))


def _trajectory(simulation: Any, shared: _Shared, source: Source) -> Trajectory:
    if not isinstance(simulation, dict) or not {"messages", "task_id"} & simulation.keys():
        raise wrong_shape("a simulation is an object with `messages` and `task_id`")
    raw_messages = simulation.get("messages")
    raw_messages = [] if raw_messages is None else raw_messages
    messages = _messages(raw_messages)
    acted = [item for item in raw_messages if item["role"] == "assistant"]
    prompt, steps = split(messages, [_usage(item) for item in acted])
    value = number(mapping(simulation.get("reward_info")).get("reward"), "reward_info.reward")
    agent = mapping(shared.info.get("agent_info"))
    identity, source = identify(
        source,
        simulation,
        trial=text(simulation.get("trial")),
        agent=string(agent.get("implementation")),
        model=string(agent.get("llm")),
        counts=_counts(raw_messages, int(value is not None)),
        extra=_extra(simulation, shared),
        started_at=utc(simulation.get("start_time")),
        ended_at=utc(simulation.get("end_time")),
        usage=usage(None, simulation.get("agent_cost")),
        sampling=stated(mapping(agent.get("llm_args"))),
    )
    outcome, scores = _verdicts(simulation, value)
    return Trajectory(
        id=identity,
        task=_task(simulation, shared, messages),
        tools=shared.tools,
        prompt=prompt,
        steps=tuple(_told(step, item) for step, item in zip(steps, acted, strict=True)),
        outcome=outcome,
        scores=scores,
        truncated=_was_cut(outcome),
        source=source,
    )


def _messages(values: Any) -> tuple[Message, ...]:
    if not isinstance(values, list):
        raise wrong_shape("messages is not a list")
    flat: list[Message] = []
    for index, value in enumerate(values):
        where = f"messages[{index}]"
        inner = value.get("tool_messages") if isinstance(value, dict) else None
        if isinstance(inner, list):  # one entry may bundle the results of parallel calls
            if not isinstance(value.get("role"), str):
                raise wrong_shape(f"{where} has no role")
            flat.extend(_message(part, f"{where}.tool_messages[{part_index}]") for part_index, part in enumerate(inner))
        else:
            flat.append(_message(value, where))
    return tuple(flat)


def _message(value: Any, where: str) -> Message:
    message = chat_message(value, where)
    if message.role == "tool":
        own_id = text(value.get("id"))
        user = message.requestor == "user"
        return replace(
            message,
            tool_call_id=own_id or message.tool_call_id,
            requestor="user" if user else None,
            is_error=value.get("error") is True,
        )
    calls_tools = message.role == "user" and bool(message.tool_calls)
    return replace(message, requestor="user" if calls_tools else None)


def _usage(message: Mapping[str, Any]) -> Any:
    """The provider's own answer, where it was kept, knows the cached tokens."""
    given = mapping(message.get("usage"))
    raw = mapping(mapping(message.get("raw_data")).get("usage"))
    return usage({**raw, **given}, message.get("cost"))


def _told(step: Step, message: Mapping[str, Any]) -> Step:
    """When an action was made, and by what. A message is stamped when it is complete."""
    ended = utc(message.get("timestamp"))
    seconds = number(message.get("generation_time_seconds"), "generation_time_seconds")
    started = None
    if ended is not None and seconds is not None and 0 <= seconds < _DAY:
        started = utc((datetime.fromisoformat(ended) - timedelta(seconds=seconds)).isoformat())
    model = string(mapping(message.get("raw_data")).get("model"))
    return replace(step, started_at=started, ended_at=ended, model=model)


def _counts(values: list[Mapping[str, Any]], rewards: int) -> dict[str, int]:
    counts = chat_counts(values, rewards)
    user_results = sum(item["role"] == "tool" and item.get("requestor") == "user" for item in values)
    user_calls = sum(len(item.get("tool_calls") or ()) for item in values if item["role"] == "user")
    counts["tool_results"] -= user_results
    return counts | {"user_tool_calls": user_calls, "user_tool_results": user_results}


def _task(simulation: Mapping[str, Any], shared: _Shared, messages: tuple[Message, ...]) -> Task:
    identity = text(simulation.get("task_id")) or "unknown"
    given = shared.tasks.get(identity, {})
    environment = mapping(shared.info.get("environment_info"))
    data: dict[str, Any] = {key: given[key] for key in given if key not in ("id", "evaluation_criteria")}
    for key, value in (
        ("domain", environment.get("domain_name")),
        ("policy", environment.get("policy", simulation.get("policy"))),
    ):
        if isinstance(value, str):
            data.setdefault(key, value)
    criteria = given.get("evaluation_criteria")
    seed = whole(simulation.get("seed"))
    return Task(
        id=identity,
        prompt=first_user_text(messages),
        data=data,
        seed=seed if seed is not None else whole(shared.info.get("seed")),
        private={} if criteria is None else {"evaluation_criteria": criteria},
    )


def _extra(simulation: Mapping[str, Any], shared: _Shared) -> dict[str, Any]:
    used = ("messages", "task_id", "trial", "seed", "reward_info", "termination_reason", "policy", *_IN_RAW)
    extra = {key: simulation[key] for key in simulation if key not in used and simulation[key] is not None}
    environment = mapping(shared.info.get("environment_info"))
    about = {key: shared.info[key] for key in shared.info if key != "environment_info"}
    rest = {key: environment[key] for key in environment if key not in ("policy", "tool_defs", "domain_name")}
    return extra | {"info": about | ({"environment_info": rest} if rest else {})}


def _verdicts(simulation: Mapping[str, Any], value: float | None) -> tuple[Outcome | None, dict[str, Score]]:
    reward_info = mapping(simulation.get("reward_info"))
    reason = string(simulation.get("termination_reason"))
    breakdown = mapping(reward_info.get("reward_breakdown"))
    parts = {name: number(breakdown[name], f"reward_breakdown.{name}") for name in breakdown}
    scores = {name: Score(part) for name, part in parts.items() if part is not None}
    if value is None and reason is None and not reward_info:
        return None, scores
    detail = {key: reward_info[key] for key in _DETAIL.split() if reward_info.get(key) is not None}
    return Outcome(value, "reward", reason, detail), scores


def _was_cut(outcome: Outcome | None) -> bool:
    """Neither side ended the run: a limit or an error did."""
    reason = outcome.exit_reason if outcome else None
    return reason is not None and (
        reason.startswith("max_") or reason == "timeout" or reason.endswith(("_error", "_errors"))
    )
