"""Records to database rows and back, exactly; standard library only.

Two kinds of text, two rules, because PostgreSQL stores neither NUL nor lone surrogates:

* JSON columns restore every value exactly: both are escapes there (`\\u0000`, `\\ud800`). JSON knows no NaN and no
  infinity, so a non-finite float inside free JSON is stored as the text "NaN", "Infinity" or "-Infinity".
* Plain text columns (ids, names, paths, keys) and numbers: NUL and lone surrogates become U+FFFD, NaN becomes NULL.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from .errors import StoreError
from .records import Fidelity, Message, Node, Outcome, Score, Source, Step, Task, ToolCall, Trajectory, Usage

Row = dict[str, Any]
"""Column names to values, to be written."""
Columns = Mapping[Any, Any]
"""Column names to values, as read."""

_MESSAGE_FIELDS = ("role", "content", "reasoning", "tool_call_id", "name", "requestor")
_USAGE_FIELDS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")


def dumps(value: Any) -> str:
    """Compact JSON that both databases can store. Raises StoreError for what is not JSON, naming the type."""
    try:
        try:
            text = _encode(value)
        except ValueError:
            text = _encode(_finite(value))
        return text if _storable(text) else json.dumps(json.loads(text), separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as cause:
        raise StoreError(f"a value cannot be stored as JSON: {cause}") from cause


def loads(text: str | None) -> Any:
    """The value of a JSON column; None for NULL."""
    return None if text is None else json.loads(text)


def clean(text: str | None) -> str | None:
    """A plain text column's value: NUL and lone surrogates become U+FFFD."""
    if text is None or (_storable(text) and "\x00" not in text):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def number(value: float | None) -> float | None:
    """A number column's value: NaN, which is no verdict, becomes NULL."""
    return None if value is None or value != value else value


def _number(value: float | str | None) -> float | None:
    """The inverse of what `_finite` made of an infinity; a logarithm of 0 is one."""
    return float(value) if isinstance(value, str) else value


def _storable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


# Made once: building an encoder costs more than encoding a message. A cycle ends in RecursionError.
_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False, default=_plain
).encode


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return [_finite(item) for item in value]
    return value


# Records as compact JSON objects: a field that has its default is left out, so that None and "" stay apart.


def _call_to_json(call: ToolCall) -> Row:
    row: Row = {"id": call.id, "name": call.name, "arguments": call.arguments}
    if call.arguments_raw is not None:
        row["arguments_raw"] = call.arguments_raw
    return row


def message_to_json(message: Message) -> Row:
    """All of a message; unlike `codec.message_to_dict` nothing is normalised on the way."""
    row: Row = {"role": message.role}  # written out: a loop over names takes three times as long, and this is hot
    if message.content is not None:
        row["content"] = message.content
    if message.reasoning is not None:
        row["reasoning"] = message.reasoning
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        row["name"] = message.name
    if message.requestor is not None:
        row["requestor"] = message.requestor
    if message.tool_calls:
        row["tool_calls"] = [_call_to_json(call) for call in message.tool_calls]
    return row


def message_from_json(row: Mapping[str, Any]) -> Message:
    """The inverse of `message_to_json`."""
    calls = tuple(
        ToolCall(call["id"], call["name"], call["arguments"], call.get("arguments_raw"))
        for call in row.get("tool_calls", ())
    )
    return Message(**{name: row.get(name) for name in _MESSAGE_FIELDS}, tool_calls=calls)  # type: ignore[arg-type]


def _usage_to_json(usage: Usage | None) -> Row | None:
    if usage is None:
        return None
    known = {name: number(getattr(usage, name)) for name in _USAGE_FIELDS}
    return {name: value for name, value in known.items() if value is not None}


def _usage_from_json(row: Mapping[str, Any] | None) -> Usage | None:
    return None if row is None else Usage(**{**row, "cost_usd": _number(row.get("cost_usd"))})


def score_to_json(score: Score) -> Row:
    """All of a score."""
    row: Row = {"value": number(score.value)}
    if score.abstain:
        row["abstain"] = True
    if score.error is not None:
        row["error"] = score.error
    if score.detail:
        row["detail"] = score.detail
    return row


def score_from_json(row: Mapping[str, Any]) -> Score:
    """The inverse of `score_to_json`."""
    return Score(_number(row["value"]), row.get("abstain", False), row.get("error"), row.get("detail", {}))


def _scores_to_text(scores: Mapping[str, Score]) -> str | None:
    return dumps({name: score_to_json(score) for name, score in scores.items()}) if scores else None


def _scores_from_text(text: str | None) -> dict[str, Score]:
    return {name: score_from_json(row) for name, row in loads(text).items()} if text else {}


def step_to_json(step: Step) -> Row:
    """All of a step, as nodes keep it."""
    return {
        "index": step.index,
        "action": message_to_json(step.action),
        "observations": [message_to_json(message) for message in step.observations],
        "fidelity": step.fidelity,
        "usage": _usage_to_json(step.usage),
        "logprob": number(step.logprob),
        "scores": {name: score_to_json(score) for name, score in step.scores.items()},
    }


def step_from_json(row: Mapping[str, Any]) -> Step:
    """The inverse of `step_to_json`."""
    return Step(
        index=row["index"],
        action=message_from_json(row["action"]),
        observations=tuple(message_from_json(message) for message in row["observations"]),
        fidelity=row["fidelity"],
        usage=_usage_from_json(row["usage"]),
        logprob=_number(row["logprob"]),
        scores={name: score_from_json(score) for name, score in row["scores"].items()},
    )


def trajectory_row(trajectory: Trajectory, row_number: int) -> Row:
    """The row of `trajectories`. Raises StoreError naming the trajectory when a value is not JSON."""
    task, outcome = trajectory.task, trajectory.outcome
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
            "prompt": dumps([message_to_json(message) for message in trajectory.prompt]),
            "outcome_detail": None if outcome is None else dumps(_outcome_to_json(outcome)),
            "scores": _scores_to_text(trajectory.scores),
            "final_state": None if trajectory.final_state is None else dumps(trajectory.final_state),
            **_source_columns(trajectory.source),
        }
    except StoreError as error:
        error.place = error.place or trajectory.id
        raise


def _outcome_to_json(outcome: Outcome) -> Row:
    return {"name": outcome.name, "exit_reason": outcome.exit_reason, "detail": outcome.detail}


_SOURCE_TEXTS = ("format", "dataset", "trial", "agent", "model")


def _source_columns(source: Source | None) -> Row:
    """`format` NULL says that there is no source: no other column may then be read as one."""
    if source is None:
        return dict.fromkeys((*_SOURCE_TEXTS, "source_path", "source_line", "counts", "extra", "raw"))
    return {
        **{name: clean(getattr(source, name)) for name in _SOURCE_TEXTS},
        "source_path": clean(source.path),
        "source_line": source.line,
        "counts": dumps(source.counts) if source.counts else None,
        "extra": dumps(source.extra) if source.extra else None,
        "raw": clean(source.raw),
    }


def trajectory_from_row(row: Columns, steps: Sequence[Step]) -> Trajectory:
    """A trajectory from its row (column names to values; `raw` may be missing) and its steps in order."""
    tools = loads(row["tools"])
    return Trajectory(
        id=row["id"],
        task=Task(**loads(row["task"]), private=loads(row["task_private"]) or {}),
        tools=None if tools is None else tuple(tools),
        prompt=tuple(message_from_json(message) for message in loads(row["prompt"])),
        steps=tuple(steps),
        outcome=None if row["outcome_detail"] is None else Outcome(row["outcome"], **loads(row["outcome_detail"])),
        scores=_scores_from_text(row["scores"]),
        final_state=loads(row["final_state"]),
        truncated=row["truncated"],
        parent_id=row["parent_id"],
        branch_step=row["branch_step"],
        run=row["run"],
        fidelity=row["fidelity"],
        source=_source_from_row(row),
    )


def _source_from_row(row: Columns) -> Source | None:
    if row["format"] is None:
        return None
    return Source(
        **{name: row[name] for name in _SOURCE_TEXTS},
        path=row["source_path"],
        line=row["source_line"],
        counts=loads(row["counts"]) or {},
        extra=loads(row["extra"]) or {},
        raw=row.get("raw"),
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
            "usage": None if step.usage is None else dumps(_usage_to_json(step.usage)),
            "logprob": number(step.logprob),
            "scores": _scores_to_text(step.scores),
        }


def step_from_row(row: Columns) -> Step:
    """One step from its row."""
    return Step(
        index=row["step_index"],
        action=message_from_json(loads(row["action"])),
        observations=tuple(message_from_json(message) for message in loads(row["observations"])),
        fidelity=row["fidelity"],
        usage=_usage_from_json(loads(row["usage"])),
        logprob=row["logprob"],
        scores=_scores_from_text(row["scores"]),
    )


def score_rows(trajectory: Trajectory) -> Iterator[Row]:
    """The rows of `scores` for a trajectory and its steps."""
    place = {"run": clean(trajectory.run), "trajectory_id": clean(trajectory.id), "node": None}
    for name, score in trajectory.scores.items():
        yield {**place, "step_index": None, **_score_columns(name, score)}
    for step in trajectory.steps:
        for name, score in step.scores.items():
            yield {**place, "step_index": step.index, **_score_columns(name, score)}


def node_score_row(run: str, trajectory_id: str, node: int, name: str, score: Score) -> Row:
    """One row of `scores` for a node of a tree."""
    place = {"run": clean(run), "trajectory_id": clean(trajectory_id), "node": node, "step_index": None}
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
