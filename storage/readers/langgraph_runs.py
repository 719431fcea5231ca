"""The trajectories of one LangGraph thread: its leaves, and the sub-graphs that it called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..canonical import canonical_json
from ..codec import steps_from_messages
from ..records import Message, Outcome, Rejected, Source, Step, Task, Trajectory
from .base import identify
from .chat import chat_message, first_user_text, mapping, prompt_id, string
from .clock import span, utc
from .json_text import BadRecord, wrong_shape
from .langchain_messages import is_langchain, langchain_message, langchain_model, langchain_usage
from .langgraph_threads import ERROR, INTERRUPT, Fetch, Leaf, Said, is_action, leaves, state_of, wrong


@dataclass(frozen=True, slots=True)
class Namespace:
    """One graph of a thread: `parents` has each of its checkpoints with the one before."""

    thread_id: str
    name: str
    parents: Mapping[str, str | None]


@dataclass(slots=True)
class _Family:
    """What a sub-graph must know of the graphs above: each leaf's trajectory and the checkpoints it went through."""

    members: list[tuple[str, str, Mapping[str, int]]] = field(default_factory=list)

    def caller(self, name: str, leaf: Leaf) -> tuple[str | None, int | None]:
        """(id of the trajectory that called a sub-graph, the step whose action did)."""
        above = mapping(leaf.metadata.get("parents"))
        for parent in _above(name):
            known = [(identity, acted) for space, identity, acted in self.members if space == parent]
            checkpoint = string(above.get(parent)) or ""
            for identity, acted in known:
                if checkpoint in acted:
                    return identity, acted[checkpoint] - 1 if acted[checkpoint] else None
            if known:
                return known[0][0], None
        return None, None


def _above(name: str) -> Iterator[str]:
    """The namespaces around one, from the nearest: `a:1|b:2` is in `a:1`, which is in ``."""
    while name:
        name = name.rpartition("|")[0]
        yield name


def thread_runs(
    namespaces: Sequence[Namespace], fetcher: Callable[[Namespace], Fetch], source: Source
) -> Iterator[Trajectory | Rejected]:
    """Yield each graph's main run and its branches, callers before what they called."""
    family = _Family()
    for space in sorted(namespaces, key=lambda item: (item.name.count("|"), item.name != "", item.name)):
        where = f"thread {space.thread_id[:80]!a}" + (f", graph {space.name[:120]!a}" if space.name else "")
        found, refused = leaves(space.parents, fetcher(space), where)
        yield from refused
        if found and not any(leaf.path.said for leaf in found):
            if not space.name:
                yield Rejected(wrong_shape(f"{where}: no channel holds messages").problem())
            continue
        yield from _namespace_runs(space, found, family, source, where)


def _namespace_runs(
    space: Namespace, found: Sequence[Leaf], family: _Family, source: Source, where: str
) -> Iterator[Trajectory | Rejected]:
    main: Trajectory | None = None
    counted: set[str] = set()
    for leaf in found:
        try:
            made = _trajectory(space, leaf, source, counted)
        except BadRecord as error:
            yield Rejected(wrong(error, f"{where}, checkpoint {leaf.checkpoint_id}").problem())
            continue
        if main is not None:
            made = _linked(
                made, main.id, "branch", _first_difference(main.steps, made.steps, main.prompt == made.prompt)
            )
        elif space.name:
            parent, step = family.caller(space.name, leaf)
            made = _linked(made, parent, "subagent", step)
        main = main or made
        family.members.append((space.name, made.id, leaf.path.acted))
        yield made


def _linked(made: Trajectory, parent: str | None, relation: Any, step: int | None) -> Trajectory:
    source = replace(made.source, relation=relation) if made.source is not None else None
    return replace(made, parent_id=parent, branch_step=step, source=source)


def _first_difference(main: Sequence[Step], other: Sequence[Step], same_prompt: bool) -> int:
    if not same_prompt:
        return 0
    for number, (one, two) in enumerate(zip(main, other, strict=False)):
        if one.action != two.action or one.observations != two.observations:
            return number
    return min(len(main), len(other))


def _trajectory(space: Namespace, leaf: Leaf, source: Source, counted: set[str]) -> Trajectory:
    kept = [(said, message) for said in leaf.path.said if (message := _message(said.raw)) is not None]
    messages = [message for _, message in kept]
    prompt, steps = steps_from_messages(messages)
    actions = [said for said, message in kept if message.role == "assistant"]
    steps = tuple(_timed(step, said) for step, said in zip(steps, actions, strict=True))
    new = [point["checkpoint_id"] for point in leaf.path.checkpoints if point["checkpoint_id"] not in counted]
    started, ended = span(utc(point["ts"]) for point in leaf.path.checkpoints)
    identity, source = identify(
        source,
        _record(space, leaf),
        agent=_agent(space, leaf),
        model=next((step.model for step in reversed(steps) if step.model), None),
        counts=_counts(messages) | {"runs": int(not counted and not space.name), "checkpoints": len(new)},
        extra=_extra(space, leaf),
        started_at=started,
        ended_at=ended,
    )
    counted.update(new)
    outcome = _ending(leaf)
    return Trajectory(
        id=identity,
        task=Task(prompt_id(prompt), first_user_text(prompt)),
        prompt=prompt,
        steps=steps,
        outcome=outcome,
        final_state=state_of(leaf),
        truncated=outcome is not None,
        source=source,
    )


def _message(raw: Mapping[str, Any]) -> Message | None:
    return langchain_message(raw) if is_langchain(raw) else chat_message(raw, "a message of the state")


def _timed(step: Step, said: Said) -> Step:
    usage = langchain_usage(said.raw) if is_action(said.raw) else None
    return replace(
        step, usage=usage, started_at=utc(said.before), ended_at=utc(said.since), model=langchain_model(said.raw)
    )


def _record(space: Namespace, leaf: Leaf) -> dict[str, Any]:
    """All of a leaf: its state, and what every checkpoint on the way to it wrote."""
    return {
        "thread_id": space.thread_id,
        "checkpoint_ns": space.name,
        "checkpoints": leaf.path.checkpoints,
        "messages": [said.raw for said in leaf.path.said],
        "values": {name: leaf.values[name] for name in leaf.values if name != leaf.channel},
    }


def _counts(messages: Sequence[Message]) -> dict[str, int]:
    actions = [message for message in messages if message.role == "assistant"]
    return {
        "messages": len(messages),
        "assistant_turns": len(actions),
        "tool_calls": sum(len(message.tool_calls) for message in actions),
        "tool_results": sum(message.role == "tool" for message in messages),
        "rewards": 0,
    }


def _agent(space: Namespace, leaf: Leaf) -> str | None:
    named = string(leaf.metadata.get("lc_agent_name")) or string(leaf.metadata.get("graph_id"))
    return named or space.name.rpartition("|")[2].partition(":")[0] or None


def _extra(space: Namespace, leaf: Leaf) -> dict[str, Any]:
    extra: dict[str, Any] = {"thread_id": space.thread_id, "checkpoint_id": leaf.checkpoint_id, "channel": leaf.channel}
    if space.name:
        extra["checkpoint_ns"] = space.name
    pending = sorted({channel for _, channel, _ in leaf.pending})
    return extra | ({"pending_writes": pending} if pending else {})


def _ending(leaf: Leaf) -> Outcome | None:
    """Why a run stands still: it waits for a person, or a node failed."""
    waits = [
        value if isinstance(value, list) else [value] for _, channel, value in leaf.pending if channel == INTERRUPT
    ]
    asked = [item for value in waits for item in value]
    failed = [value for _, channel, value in leaf.pending if channel == ERROR]
    if failed:
        said = failed[0] if isinstance(failed[0], str) else canonical_json(failed[0])
        return Outcome(None, exit_reason=f"error: {said[:500]}")
    if asked:
        return Outcome(None, exit_reason="interrupted", detail={"interrupts": asked})
    return None
