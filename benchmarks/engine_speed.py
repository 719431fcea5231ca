"""Transitions per CPU second of the whole loop with a zero-cost policy and world: in memory, and with the journal on.

    python benchmarks/engine_speed.py [--rounds 3] [--trees 40] [--budget 500]

Interleaved rounds in one process, medians; CPU time of the process. No threshold is enforced here.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttc_replay import Message, Proposal, ProposalRequest, Spec, Step, StepResult, Task, ToolCall, Trajectory
from ttc_replay.replay.engine import Engine, Plugins
from ttc_replay.replay.settings import Settings
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.rewards.environment import environment
from ttc_replay.storage.codec import action_key
from ttc_replay.storage.journal import Journal, MemoryJournal

DEPTH = 8
ALGORITHMS = {
    "beam": Spec("beam"),
    "mcts, expand=4": Spec("mcts", {"expand": 4}),
    "mcts": Spec("mcts"),
    "best-of-n": Spec("best-of-n"),
}
"""The first two ask for four children at a time, the others for one."""
ACTIONS = [Message("assistant", "", tool_calls=(ToolCall(f"c{n}", "go", {"to": n}),)) for n in range(4)]
KEYS = [action_key(action) for action in ACTIONS]
ANSWER = (Message("tool", "ok", tool_call_id="c", name="go"),)
PROPOSALS = list(zip(KEYS, (Proposal(action, -1.4) for action in ACTIONS), strict=True))
GOES_ON, ENDS = StepResult(ANSWER), StepResult(ANSWER, True, 0.5)


class Line:
    """A world that only counts its steps."""

    inline = True

    def __init__(self, done: int = 0) -> None:
        self.done = done

    def reset(self, task: Task) -> list[Message]:
        self.done = 0
        return []

    def step(self, action: Message) -> StepResult:
        self.done += 1
        return ENDS if self.done >= DEPTH else GOES_ON

    def fork(self) -> Line:
        return Line(self.done)


class Free:
    """A policy that always proposes the same four actions."""

    sampling = False
    inline = True

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return [[known for key, known in PROPOSALS if key not in r.exclude][: r.n] for r in requests]


def records(trees: int) -> list[Trajectory]:
    steps = tuple(Step(index, ACTIONS[0], ANSWER) for index in range(DEPTH))
    return [Trajectory(f"t{n}", Task(f"task{n}"), (), (Message("user", "go"),), steps) for n in range(trees)]


def one(trees: int, budget: int, journal: Any, algorithm: str) -> float:
    settings = Settings(
        Spec("line"), Spec("free"), ((Spec("environment"), 1.0),), budget=budget, algorithm=ALGORITHMS[algorithm]
    )
    guide = compose([Weighted("environment", environment)])
    known = records(trees)
    engine = Engine(settings, "bench", known, known, Plugins(Free(), Line, guide), journal)
    began = time.process_time()
    asyncio.run(engine.run())
    spent = time.process_time() - began
    return sum(grove.tree.spent for grove in engine.groves if grove.tree) / spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=40)
    parser.add_argument("--budget", type=int, default=500)
    arguments = parser.parse_args()
    rates: dict[tuple[str, str], list[float]] = {}
    for number in range(arguments.rounds):
        for algorithm in ALGORITHMS:
            ids = [record.id for record in records(arguments.trees)]
            rate = one(arguments.trees, arguments.budget, MemoryJournal(ids), algorithm)
            rates.setdefault((algorithm, "in memory"), []).append(rate)
            with tempfile.TemporaryDirectory() as folder:
                journal = Journal.open(Path(folder) / str(number), {}, ids)
                rate = one(arguments.trees, arguments.budget, journal, algorithm)
                journal.close()
            rates.setdefault((algorithm, "journal on"), []).append(rate)
    for (algorithm, kind), values in rates.items():
        print(f"{algorithm:14} {kind:10} {statistics.median(values):9.0f} transitions per CPU second (median)")


if __name__ == "__main__":
    main()
