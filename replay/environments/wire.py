"""What a world in a process of its own and its parent say to each other: one JSON text a line, no pickle.

Records are written exactly (`storage.exact_json`); free JSON may hold NaN and infinities, because Python reads what
Python wrote. Escapes keep every text on one line of ASCII.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...storage.canonical import plain
from ...storage.chat_log import built
from ...storage.errors import EnvironmentFailed, ReplayError, TtcError
from ...storage.exact_json import message_from_json, message_to_json, step_from_json, step_to_json
from ...storage.records import Message, StepResult, Task, Trajectory
from ...storage.rows import trajectory_from_row, trajectory_row

METHODS = ("reset", "step", "fork", "load", "tools", "state", "state_key", "hear", "reseed", "close")
"""Every method of a world that the house calls."""
ATTRIBUTES = (
    "recorded_only",
    "normalise",
    "rebind",
    "state_hash",
    "state_ignore",
    "stochastic",
    "forks_inside",
    "snapshot_every",
)
"""Every attribute of a world that the house reads, those of process isolation and of forks apart."""

# Made once: building an encoder costs more than encoding a message.
encode = json.JSONEncoder(separators=(",", ":"), default=plain).encode
decode = json.loads


def task_to_json(task: Task) -> dict[str, Any]:
    """All of a task, its gold included: the world may see it."""
    return {"id": task.id, "prompt": task.prompt, "data": task.data, "seed": task.seed, "private": task.private}


def trajectory_to_json(run: Trajectory) -> dict[str, Any]:
    """All of a run, as the database keeps it. Raises StoreError for what is not JSON."""
    run = built(run)
    raw = None if run.source is None else run.source.raw
    return {"row": trajectory_row(run, 0), "steps": [step_to_json(step) for step in run.steps], "raw": raw}


def trajectory_from_json(value: Mapping[str, Any]) -> Trajectory:
    """The inverse of `trajectory_to_json`."""
    return trajectory_from_row(value["row"], tuple(map(step_from_json, value["steps"])), value["raw"])


def result_to_json(result: StepResult) -> dict[str, Any]:
    """All of a step's result."""
    return {
        "observations": [message_to_json(message) for message in result.observations],
        "done": bool(result.done),
        "reward": None if result.reward is None else float(result.reward),
        "info": result.info,
    }


def result_from_json(value: Mapping[str, Any]) -> StepResult:
    """The inverse of `result_to_json`."""
    observations = messages_from_json(value["observations"])
    return StepResult(observations, value["done"], value["reward"], value["info"])


def messages_from_json(values: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Messages from their exact JSON."""
    return tuple(message_from_json(value) for value in values)


def arguments_to_json(method: str, arguments: Sequence[Any]) -> list[Any]:
    """The arguments of one of `METHODS`."""
    if method == "reset":
        return [task_to_json(arguments[0])]
    if method in ("step", "hear"):
        return [message_to_json(arguments[0])]
    if method == "load":
        record, runs = arguments
        return [trajectory_to_json(record), {key: trajectory_to_json(run) for key, run in runs.items()}]
    return list(arguments)


def arguments_from_json(method: str, values: Sequence[Any]) -> list[Any]:
    """The inverse of `arguments_to_json`."""
    if method == "reset":
        return [Task(**values[0])]
    if method in ("step", "hear"):
        return [message_from_json(values[0])]
    if method == "load":
        record, runs = values
        return [trajectory_from_json(record), {key: trajectory_from_json(run) for key, run in runs.items()}]
    return list(values)


def error_to_json(error: TtcError) -> dict[str, Any]:
    """Code and texts of an error."""
    return {"code": error.error_code, "message": error.message, "place": error.place, "hint": error.hint}


def error_from_json(value: Mapping[str, Any]) -> TtcError:
    """The house's error of that code with the same texts; EnvironmentFailed for a code that no class has."""
    classes = {kind.code: kind for kind in _subclasses(TtcError)}
    kind = classes.get(value["code"], EnvironmentFailed)
    if kind.__init__ is not TtcError.__init__:  # DivergedError says what differs, which is in the message already
        kind = ReplayError
    return kind(value["message"], place=value["place"], hint=value["hint"], code=value["code"])


def _subclasses(kind: type[TtcError]) -> Iterator[type[TtcError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
