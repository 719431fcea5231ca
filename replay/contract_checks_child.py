"""The same walk in another process under another hash seed: `python -m ttc_replay.replay.contract_checks_child`.

One JSON document on stdin (how to build the world, the record, the moves), one on stdout (results and keys).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from ..storage.codec import message_from, message_to_dict, messages_to_dicts, result_from, step_from, step_to_dict
from ..storage.errors import EnvironmentFailed
from ..storage.records import StepResult, Task, Trajectory
from .contract_checks_world import Bench, Move
from .environments.family import Recipe
from .transition import state_key

SECONDS = 120.0
"""How long the other process may take, imports included."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What another process saw: a result for each move, and the key before each and after the last."""

    results: list[StepResult]
    keys: list[str | None]


async def elsewhere(bench: Bench, recipe: Recipe, hash_seed: int) -> Elsewhere:
    """Walk there. Raises EnvironmentFailed when that process fails."""
    told = json.dumps({"path": sys.path, "recipe": [recipe.loader, dict(recipe.arguments)], **_bench_to_json(bench)})
    try:
        done = subprocess.run(  # noqa: S603  this interpreter and this module
            [sys.executable, "-m", __name__],
            input=told,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailed(f"no answer from another process within {SECONDS:g} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFailed(f"in another process: {last}", hint="it is built there by its name and options alone")
    said = json.loads(done.stdout)
    return Elsewhere([result_from(item) for item in said["results"]], said["keys"])


def _bench_to_json(bench: Bench) -> dict[str, Any]:
    moves = [[message_to_dict(move.action), messages_to_dicts(move.replies)] for move in bench.moves]
    runs = {bench.record.id: bench.record, **bench.runs}
    return {"moves": moves, "record": bench.record.id, "runs": [_run_to_json(run) for run in runs.values()]}


def _run_to_json(run: Trajectory) -> dict[str, Any]:
    task = run.task
    return {
        "id": run.id,
        "task": [task.id, task.prompt, dict(task.data), task.seed, dict(task.private)],
        "tools": None if run.tools is None else list(run.tools),
        "prompt": messages_to_dicts(run.prompt),
        "steps": [step_to_dict(step) for step in run.steps],
        "truncated": run.truncated,
    }


def _run_from_json(row: Mapping[str, Any]) -> Trajectory:
    identity, prompt, data, seed, private = row["task"]
    return Trajectory(
        id=row["id"],
        task=Task(identity, prompt, data, seed, private),
        tools=None if row["tools"] is None else tuple(row["tools"]),
        prompt=tuple(message_from(item) for item in row["prompt"]),
        steps=tuple(step_from(item) for item in row["steps"]),
        truncated=row["truncated"],
    )


def _bench_from_json(told: Mapping[str, Any]) -> Bench:
    loader, arguments = told["recipe"]
    module, _, name = loader.partition(":")
    build: Any = reduce(getattr, name.split("."), importlib.import_module(module))
    runs = {row["id"]: _run_from_json(row) for row in told["runs"]}
    moves = [Move(message_from(action), tuple(message_from(item) for item in said)) for action, said in told["moves"]]
    return Bench(lambda: build(**arguments), runs[told["record"]], recorded=True, runs=runs, moves=moves)


async def _walked(bench: Bench) -> dict[str, Any]:
    world = await bench.session.fresh()
    results: list[dict[str, Any]] = []
    keys = [state_key(world)]
    for at, move in enumerate(bench.moves):
        result = await bench.move(world, move, at)
        said = {"observations": messages_to_dicts(result.observations), "done": result.done, "reward": result.reward}
        results.append(said)
        keys.append(state_key(world))
    return {"results": results, "keys": keys}


def main() -> None:
    """Read, walk, answer. What the world prints goes to stderr."""
    told = json.load(sys.stdin)
    sys.path[:] = told["path"]
    with contextlib.redirect_stdout(sys.stderr):
        said = asyncio.run(_walked(_bench_from_json(told)))
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
