"""Records to database rows and back. What a text or JSON column can hold is in `exact_json.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from .canonical import canonical_bytes
from .chat_log import ON_PAGES, LoggedSteps, joined, records_of, whole_record
from .codec import tokens_from, tokens_to_dict
from .conversation import conversation_id
from .errors import StoreError
from .exact_json import (
    Row,
    clean,
    dumps,
    loads,
    message_from_json,
    message_to_json,
    number,
    scores_from_text,
    scores_to_text,
    step_from_json,
    step_to_json,
    usage_from_json,
    usage_to_json,
)
from .records import Fidelity, Links, Message, Node, Outcome, Score, Source, Step, Task, Trajectory
from .replayability import replayability

Columns = Mapping[Any, Any]
"""Column names to values, as read."""


def trajectory_row(trajectory: Trajectory, row_number: int) -> Row:
    """The row of `trajectories`. Raises StoreError naming the trajectory when a value is not JSON."""
    task, outcome, logged = trajectory.task, trajectory.outcome, trajectory.steps
    try:
        return {
            "id": clean(trajectory.id),
            "number": row_number,
            "task_id": clean(task.id),
            "steps": len(trajectory.steps),
            "outcome": None if outcome is None else number(outcome.value),
            "parent_id": clean(trajectory.parent_id),
            "branch_step": trajectory.branch_step,
            "run": clean(trajectory.run),
            "fidelity": trajectory.fidelity,
            "truncated": trajectory.truncated,
            "task": dumps({"id": task.id, "prompt": task.prompt, "data": task.data, "seed": task.seed}),
            "task_private": dumps(task.private) if task.private else None,
            "tools": None if trajectory.tools is None else dumps(trajectory.tools),
            "prompt": None if isinstance(logged, LoggedSteps) else _prompt_text(trajectory),
            "outcome_detail": None if outcome is None else outcome_detail(outcome),
            "scores": scores_to_text(trajectory.scores),
            "final_state": None if trajectory.final_state is None else dumps(trajectory.final_state),
            **_source_columns(trajectory.source),
            **(_on_pages(logged) if isinstance(logged, LoggedSteps) else {}),
            **(_of_a_record(trajectory) if trajectory.run is None else {}),
        }
    except StoreError as error:
        error.place = error.place or trajectory.id
        raise


def _prompt_text(trajectory: Trajectory) -> str:
    return dumps([message_to_json(message) for message in trajectory.prompt])


def _on_pages(steps: LoggedSteps) -> Row:
    return {"raw": steps.rest, "raw_layout": ON_PAGES}


def _of_a_record(trajectory: Trajectory) -> Row:
    """What only recorded runs have."""
    steps, source = trajectory.steps, trajectory.source
    if not isinstance(steps, LoggedSteps):
        report, conversation = replayability(trajectory), conversation_id(trajectory)
    else:
        sampling = source is not None and source.sampling is not None
        tools = trajectory.tools is not None
        report = steps.chat.answers.report(system_prompt=steps.chat.system, tool_schemas=tools, sampling=sampling)
        conversation = steps.chat.conversation
    return {"replayability": canonical_bytes(report).decode(), "conversation": conversation}


def outcome_detail(outcome: Outcome) -> str:
    """All of an outcome but its value."""
    return dumps({"name": outcome.name, "exit_reason": outcome.exit_reason, "detail": outcome.detail})


_SOURCE_TEXTS = ("format", "dataset", "trial", "agent", "model", "started_at", "ended_at", "relation")
_SOURCE_JSON = ("counts", "extra", "tags", "sampling")


def _source_columns(source: Source | None) -> Row:
    """`format` NULL says that there is no source: no other column may then be read as one."""
    if source is None:
        return dict.fromkeys((*_SOURCE_TEXTS, *_SOURCE_JSON, "source_path", "source_line", "raw", "usage", "links"))
    return {
        **{name: clean(getattr(source, name)) for name in _SOURCE_TEXTS},
        "source_path": clean(source.path),
        "source_line": source.line,
        "counts": canonical_bytes(source.counts).decode() if source.counts else None,
        "extra": dumps(source.extra) if source.extra else None,
        "tags": dumps(source.tags) if source.tags else None,
        "sampling": None if source.sampling is None else dumps(source.sampling),
        "usage": None if source.usage is None else dumps(usage_to_json(source.usage)),
        "links": None if source.links is None else dumps(_links_to_json(source.links)),
        "raw": clean(source.raw),
    }


def _links_to_json(links: Links) -> Row:
    return {"keys": links.keys, "parent": links.parent, "children": links.children}


def _links_from_text(text: str | None) -> Links | None:
    row = loads(text)
    return None if row is None else Links(tuple(row["keys"]), row["parent"], row["children"])


def stored_trajectory(row: Columns, steps: Sequence[Columns] = (), pages: Sequence[tuple[int, str]] = ()) -> Trajectory:
    """A trajectory from its row and those of its steps or its pages, in order. Its raw record is None where the row
    comes without."""
    if row["raw_layout"] != ON_PAGES:
        return trajectory_from_row(row, tuple(map(step_from_row, steps)), _raw_from_rows(row, steps))
    messages = joined(text.encode() for _, text in pages)
    prompt, made = records_of(messages)
    raw = None if row.get("raw") is None else whole_record(row["raw"], messages)
    return trajectory_from_row(row, made, raw, prompt)


def trajectory_from_row(
    row: Columns, steps: Sequence[Step], raw: str | None = None, prompt: Sequence[Message] | None = None
) -> Trajectory:
    """A trajectory from its row (column names to values), its steps in order, and its raw record where it is known;
    `prompt` where the row has none."""
    tools = loads(row["tools"])
    if prompt is None:
        prompt = tuple(map(message_from_json, loads(row["prompt"])))
    return Trajectory(
        id=row["id"],
        task=Task(**loads(row["task"]), private=loads(row["task_private"]) or {}),
        tools=None if tools is None else tuple(tools),
        prompt=prompt,
        steps=tuple(steps),
        outcome=None if row["outcome_detail"] is None else Outcome(row["outcome"], **loads(row["outcome_detail"])),
        scores=scores_from_text(row["scores"]),
        final_state=loads(row["final_state"]),
        truncated=row["truncated"],
        parent_id=row["parent_id"],
        branch_step=row["branch_step"],
        run=row["run"],
        fidelity=row["fidelity"],
        source=_source_from_row(row, raw),
    )


def _raw_from_rows(row: Columns, steps: Sequence[Columns]) -> str | None:
    """The raw record; archives of version 2 keep the messages of some in the rows of the steps."""
    raw: str | None = row.get("raw")
    if raw is None or row["raw_layout"] != "messages":
        return raw
    lists = [row["prompt"][1:-1]]
    for step in steps:
        lists += (step["action"], step["observations"][1:-1])
    return whole_record(raw, joined(text.encode() for text in lists))


def _source_from_row(row: Columns, raw: str | None) -> Source | None:
    if row["format"] is None:
        return None
    return Source(
        **{name: row[name] for name in _SOURCE_TEXTS},
        path=row["source_path"],
        line=row["source_line"],
        counts=loads(row["counts"]) or {},
        extra=loads(row["extra"]) or {},
        raw=raw,
        usage=usage_from_json(loads(row["usage"])),
        sampling=loads(row["sampling"]),
        links=_links_from_text(row["links"]),
        tags=loads(row["tags"]) or {},
    )


def _called(step: Step | None) -> str | None:
    return clean(",".join(call.name for call in step.action.tool_calls)) if step is not None else None


def step_rows(trajectory: Trajectory, row_number: int) -> Iterator[Row]:
    """The rows of `steps`, in order."""
    for position, step in enumerate(trajectory.steps):
        yield {
            "trajectory_number": row_number,
            "trajectory_id": clean(trajectory.id),
            "position": position,
            "step_index": step.index,
            "role": clean(step.action.role),
            "text": clean(step.action.text),
            "tools": _called(step),
            "action": dumps(message_to_json(step.action)),
            "observations": dumps([message_to_json(message) for message in step.observations]),
            "fidelity": step.fidelity,
            "usage": None if step.usage is None else dumps(usage_to_json(step.usage)),
            "logprob": number(step.logprob),
            "scores": scores_to_text(step.scores),
            "started_at": clean(step.started_at),
            "ended_at": clean(step.ended_at),
            "model": clean(step.model),
            "tokens": None if step.tokens is None else dumps(tokens_to_dict(step.tokens)),
        }


def page_columns(numbered: Sequence[tuple[int, Trajectory]]) -> dict[str, list[Any]]:
    """The columns of `pages` for trajectories with `LoggedSteps`; texts are UTF-8 bytes."""
    columns: dict[str, list[Any]] = {"trajectory_number": [], "position": [], "messages": []}
    numbers, positions, texts = columns.values()
    for row_number, trajectory in numbered:
        for position, text in cast(LoggedSteps, trajectory.steps).chat.pages:
            numbers.append(row_number)
            positions.append(position)
            texts.append(text)
    return columns


def step_from_row(row: Columns) -> Step:
    """One step from its row."""
    return Step(
        index=row["step_index"],
        action=message_from_json(loads(row["action"])),
        observations=tuple(message_from_json(message) for message in loads(row["observations"])),
        fidelity=row["fidelity"],
        usage=usage_from_json(loads(row["usage"])),
        logprob=row["logprob"],
        scores=scores_from_text(row["scores"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        model=row["model"],
        tokens=tokens_from(loads(row["tokens"])),
    )


def score_rows(trajectory: Trajectory) -> Iterator[Row]:
    """The rows of `scores` for a trajectory and its steps."""
    place = {"run": clean(trajectory.run), "trajectory_id": clean(trajectory.id), "node": None}
    for name, score in trajectory.scores.items():
        yield {**place, "step_index": None, **_score_columns(name, score)}
    for step in () if isinstance(trajectory.steps, LoggedSteps) else trajectory.steps:  # logged chats score no step
        for name, score in step.scores.items():
            yield {**place, "step_index": step.index, **_score_columns(name, score)}


def node_score_row(run: str, trajectory_id: str, node: int, name: str, score: Score) -> Row:
    """One row of `scores` for a node of a tree."""
    place = {"run": clean(run), "trajectory_id": clean(trajectory_id), "node": node, "step_index": None}
    return {**place, **_score_columns(name, score)}


def step_score_row(run: str, trajectory_id: str, step: int, name: str, score: Score) -> Row:
    """One row of `scores` for a step of a trajectory, said by a run."""
    place = {"run": clean(run), "trajectory_id": clean(trajectory_id), "node": None, "step_index": step}
    return {**place, **_score_columns(name, score)}


def _score_columns(name: str, score: Score) -> Row:
    return {
        "name": clean(name),
        "value": number(score.value),
        "abstain": score.abstain,
        "error": clean(score.error),
        "detail": dumps(score.detail) if score.detail else None,
    }


def score_from_row(row: Columns) -> Score:
    """One score from its row."""
    return Score(row["value"], row["abstain"], row["error"], loads(row["detail"]) or {})


_NODE_NUMBERS = ("value_sum", "prior", "value")
_NODE_TEXTS = ("run", "trajectory_id", "key", "status", "reason", "fidelity", "call_key")
_NODE_PLAIN = ("node", "parent", "depth", "visits", "terminal", "truncated", "spine", "imputed", "samples")


def node_row(node: Node) -> Row:
    """The row of `nodes`."""
    step = node.step
    return {
        **{name: getattr(node, name) for name in _NODE_PLAIN},
        **{name: clean(getattr(node, name)) for name in _NODE_TEXTS},
        **{name: number(getattr(node, name)) for name in _NODE_NUMBERS},
        "step_index": None if step is None else step.index,
        "tools": _called(step),
        "text": None if step is None else clean(step.action.text),
        "step": None if step is None else dumps(step_to_json(step)),
    }


def node_from_row(row: Columns) -> Node:
    """One node from its row."""
    step = loads(row["step"])
    fidelity = cast("Fidelity | None", row["fidelity"])
    names = (*_NODE_PLAIN, *_NODE_TEXTS, *_NODE_NUMBERS)
    values = {name: row[name] for name in names if name != "fidelity"}
    return Node(**values, fidelity=fidelity, step=None if step is None else step_from_json(step))
