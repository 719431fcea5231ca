"""Transitions per second with worlds on the event loop, in worker threads and in processes of their own.

    python benchmarks/isolation.py [--trees 4] [--rounds 3]

Two worlds: one whose step costs nothing, and one whose step keeps the interpreter busy for about 5 ms. Wall time, and
CPU time of this process and its children, starts of processes included. Interleaved rounds, medians. No threshold is
enforced here.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

from ttc_replay import Message, Proposal, Spec, Step, StepResult, Task, ToolCall, Trajectory
from ttc_replay.replay.engine import Engine, Plugins
from ttc_replay.replay.environments.family import Recipe
from ttc_replay.replay.environments.isolated import isolated
from ttc_replay.replay.settings import Settings
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.rewards.environment import environment
from ttc_replay.storage.codec import action_key
from ttc_replay.storage.journal import MemoryJournal

DEPTH = 8
ACTIONS = [Message("assistant", "", tool_calls=(ToolCall(f"c{n}", "go", {"to": n}),)) for n in range(4)]
ANSWER = (Message("tool", "ok", tool_call_id="c", name="go"),)


class Line:
    """A world that only counts its steps; `turns` of a loop make a step long."""

    isolation = "process"

    def __init__(self, turns: int = 0, inline: bool = False) -> None:
        self.turns, self.inline, self.done = turns, inline, 0

    def reset(self, task: Task) -> list[Message]:
        self.done = 0
        return []

    def step(self, action: Message) -> StepResult:
        for _ in range(self.turns):
            pass
        self.done += 1
        return StepResult(ANSWER, self.done >= DEPTH, 0.5 if self.done >= DEPTH else None)

    def fork(self) -> Line:
        twin = Line(self.turns, self.inline)
        twin.done = self.done
        return twin


class Free:
    """A policy that always proposes the same four actions."""

    sampling = False
    inline = True

    def propose(self, requests: Any) -> list[list[Proposal]]:
        return [
            [Proposal(action) for action in ACTIONS if action_key(action) not in request.exclude][: request.n]
            for request in requests
        ]


def cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def rate(make: Callable[[], Any], trees: int, budget: int) -> tuple[float, float]:
    """Transitions per wall second and per CPU second."""
    steps = tuple(Step(index, ACTIONS[0], ANSWER) for index in range(DEPTH))
    records = [Trajectory(f"t{n}", Task(f"task{n}"), (), (Message("user", "go"),), steps) for n in range(trees)]
    settings = Settings(Spec("line"), Spec("free"), ((Spec("environment"), 1.0),), budget=budget)
    guide = compose([Weighted("environment", environment)])
    journal = MemoryJournal([record.id for record in records])
    engine = Engine(settings, "bench", records, records, Plugins(Free(), make, guide), journal)
    began, spent = time.perf_counter(), cpu_seconds()
    asyncio.run(engine.run())
    made = sum(grove.tree.spent for grove in engine.groves if grove.tree)
    return made / (time.perf_counter() - began), made / (cpu_seconds() - spent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trees", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    began = time.perf_counter()
    Line(1_000_000).step(ACTIONS[0])
    turns = int(0.005 / (time.perf_counter() - began) * 1_000_000)
    rates: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for _ in range(given.rounds):
        for cost in (0, turns):
            recipe = Recipe(
                "ttc_replay.cli.plugins:in_process", {"name": f"{__file__}:Line", "options": {"turns": cost}}
            )
            makers: dict[str, Callable[[], Any]] = {
                "event loop": lambda cost=cost: Line(cost, True),  # type: ignore[misc]
                "threads": lambda cost=cost: Line(cost),  # type: ignore[misc]
                "processes": isolated(Line, recipe),
            }
            for name, make in makers.items():
                rates.setdefault((cost, name), []).append(rate(make, given.trees, 200 if cost else 2000))
    for (cost, name), values in rates.items():
        what = "5 ms of Python" if cost else "nothing"
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"a step of {what:15} {name:10} {wall:6.0f} transitions per second, {cpu:6.0f} per CPU second (medians)")


if __name__ == "__main__":
    main()
