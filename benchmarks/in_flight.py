"""The engine with slow worlds: transitions a second at 20 ms a transition and 32 in flight, and what width costs.

    python benchmarks/in_flight.py [--trees 40] [--budget 256] [--milliseconds 20]

Each tree is a needle among 4,096 leaves (depth 6, four actions) under a process reward with noise. "serial" asks for
one transition at a time (width 1), so its trees know everything before they ask again; the others keep `width` asks
open in each tree. A search of the same width gives the same trees at any concurrency, so success depends on the width
alone; the clock decides only how long it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Any

from ttc_replay import Message, Proposal, ProposalRequest, Score, Spec, Step, StepResult, Task, ToolCall, Trajectory
from ttc_replay.replay.engine import Engine, Plugins
from ttc_replay.replay.settings import Settings
from ttc_replay.rewards.base import reward
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.storage.codec import action_key
from ttc_replay.storage.journal import MemoryJournal

DEPTH, BRANCHING, NOISE = 6, 4, 0.3
ACTIONS = [Message("assistant", "", tool_calls=(ToolCall(f"c{n}", "go", {"to": n}),)) for n in range(BRANCHING)]
KEYS = [action_key(action) for action in ACTIONS]


@cache
def unit(*parts: object) -> float:
    """A number in [0, 1) from a hash."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big") / 2.0**64


class Maze:
    """Walks down a tree; the needle's path is a hash of the task."""

    seconds = 0.0

    def __init__(self) -> None:
        self.task, self.path = "", ()  # type: tuple[str, tuple[int, ...]]

    async def reset(self, task: Task) -> list[Message]:
        self.task, self.path = task.id, ()
        return []

    async def step(self, action: Message) -> StepResult:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        self.path = (*self.path, (action.tool_calls[0].arguments or {})["to"])
        call = action.tool_calls[0].id
        return StepResult((Message("tool", "ok", tool_call_id=call, name="go"),), len(self.path) == DEPTH)

    def fork(self) -> Maze:
        other = type(self)()
        other.task, other.path = self.task, self.path
        return other

    def state(self) -> dict[str, Any]:
        return {"path": list(self.path)}


@cache
def needle(task: str) -> list[int]:
    return [int(unit(task, "needle", level) * BRANCHING) for level in range(DEPTH)]


@reward(process=True)
def warmer(trajectory: Trajectory) -> Score:
    """The share of the needle's path walked so far, with noise on unfinished states; 1.0 at the needle only."""
    path, goal = trajectory.final_state["path"], needle(trajectory.task.id)
    right = next((index for index, to in enumerate(path) if to != goal[index]), len(path))
    if len(path) == DEPTH:
        return Score(float(right == DEPTH))
    noise = NOISE * (2.0 * unit(trajectory.task.id, "noise", tuple(path)) - 1.0)
    return Score(min(0.99, max(0.0, 0.5 * right / DEPTH + 0.25 + noise * 0.5)))


class Four:
    """Proposes the four ways down."""

    sampling = False
    inline = True

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        known = list(zip(KEYS, ACTIONS, strict=True))
        return [[Proposal(action, -1.386) for key, action in known if key not in r.exclude][: r.n] for r in requests]


def record(number: int) -> Trajectory:
    """A recorded run that went wrong at once."""
    task = Task(f"maze{number}")
    wrong = (needle(task.id)[0] + 1) % BRANCHING
    steps = [Step(0, ACTIONS[wrong], (Message("tool", "ok", tool_call_id=f"c{wrong}", name="go"),))]
    zero = (Message("tool", "ok", tool_call_id="c0", name="go"),)
    steps += [Step(index, ACTIONS[0], zero) for index in range(1, DEPTH)]
    return Trajectory(task.id, task, (), (Message("user", "go"),), tuple(steps))


def run(trees: int, budget: int, width: int, concurrency: int, seconds: float) -> tuple[float, float, float]:
    """The share of needles found, transitions per second of wall time, CPU microseconds per transition."""
    Maze.seconds = 0.0  # the baselines are not what is measured
    settings = Settings(
        *(Spec("maze"), Spec("four"), ((Spec("warmer"), 1.0),)), budget=budget, width=width, concurrency=concurrency
    )
    known = [replace(record(number)) for number in range(trees)]
    guide = compose([Weighted("warmer", warmer)])
    journal = MemoryJournal([item.id for item in known])
    engine = Engine(settings, "bench", known, known, Plugins(Four(), Maze, guide), journal)
    Maze.seconds = seconds
    began, busy = time.monotonic(), time.process_time()
    groves = asyncio.run(engine.run())
    wall, busy = time.monotonic() - began, time.process_time() - busy
    spent = sum(grove.tree.spent for grove in groves if grove.tree)
    return sum(grove.verdict.node is not None for grove in groves) / trees, spent / wall, busy / spent * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trees", type=int, default=40)
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--milliseconds", type=float, default=20.0)
    arguments = parser.parse_args()
    serial, _, _ = run(arguments.trees, arguments.budget, 1, 1, 0.0)
    print(f"serial, width 1                          success {serial:.3f}")
    for width in (1, 2, 4, 8, 16, 32):
        found, rate, busy = run(arguments.trees, arguments.budget, width, 32, arguments.milliseconds / 1000)
        print(
            f"width {width:2}, 32 in flight, {arguments.milliseconds:g} ms each    success {found:.3f} "
            f"({found - serial:+.3f})   {rate:7.0f} transitions a second, {busy:4.0f} us CPU each"
        )


if __name__ == "__main__":
    main()
