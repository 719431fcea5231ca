"""Bulk writing against row-wise writing: the same trajectories, the same schema, the same process, interleaved.

A: `Database.add_trajectories` (Arrow). B: SQLAlchemy Core executemany of the same rows into the same tables, on a
database opened the same way. Both start from records and encode them; both count CPU time of the whole process.
Prints rows per CPU second of each and their ratio, the median over the rounds. Target: ratio >= 20.

    python benchmarks/ingest_bulk.py [--rounds 3] [--trajectories 100] [--steps 10] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ttc_replay.storage import schema
from ttc_replay.storage.database import Database
from ttc_replay.storage.engines import open_engine
from ttc_replay.storage.migrations import migrate
from ttc_replay.storage.records import Message, Outcome, Score, Source, Step, Task, ToolCall, Trajectory
from ttc_replay.storage.rows import score_rows, step_rows, trajectory_row

TARGET = 20.0
WORDS = "flight booking refund customer seat baggage policy airline ticket date change cancel upgrade total".split()


def make_trajectory(seed: int, steps: int) -> Trajectory:
    """A made-up customer-service run: two messages a step, observations of about 2 kB, one process score a step."""
    randomly = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(randomly.choices(WORDS, k=count))

    def step(index: int) -> Step:
        call = ToolCall(f"call_{seed}_{index}", "get_reservation", {"id": f"{seed:06d}", "note": words(8)})
        observation = Message("tool", words(300), tool_call_id=call.id)
        return Step(
            index, Message("assistant", words(30), tool_calls=(call,)), (observation,), scores={"p": Score(0.5)}
        )

    return Trajectory(
        id=f"{seed:064x}",
        task=Task(f"task-{seed % 50}", words(40)),
        tools=({"type": "function", "function": {"name": "get_reservation", "description": words(20)}},),
        prompt=(Message("system", words(400)), Message("user", words(40))),
        steps=tuple(step(index) for index in range(steps)),
        outcome=Outcome(float(seed % 2)),
        source=Source("openai-chat", "made-up.jsonl", seed, dataset="benchmark", raw=words(3000)),
    )


def rows_of(batch: Sequence[Trajectory]) -> int:
    """Rows that a batch becomes: trajectories, steps and scores."""
    return sum(1 + 2 * len(trajectory.steps) for trajectory in batch)


def bulk(path: Path, batch: Sequence[Trajectory]) -> float:
    """CPU seconds of one `add_trajectories`."""
    with Database.open(str(path)) as database:
        start = time.process_time()
        added = database.add_trajectories(batch)
        spent = time.process_time() - start
    if len(added) != len(batch):
        raise SystemExit("the bulk path did not store every trajectory")
    return spent


def row_wise(path: Path, batch: Sequence[Trajectory]) -> float:
    """CPU seconds of executemany into the same tables, in one transaction."""
    opened = open_engine(str(path), create=True)
    migrate(opened.engine)
    start = time.process_time()
    with opened.engine.begin() as connection:
        numbered = list(enumerate(batch))
        connection.execute(schema.trajectories.insert(), [trajectory_row(item, number) for number, item in numbered])
        connection.execute(schema.steps.insert(), [row for number, item in numbered for row in step_rows(item, number)])
        connection.execute(schema.scores.insert(), [row for item in batch for row in score_rows(item)])
    spent = time.process_time() - start
    opened.close()
    return spent


def measure(rounds: int, trajectories: int, steps: int) -> dict[str, float]:
    """Median rows per CPU second of both paths and the median of the rounds' ratios."""
    batch = [make_trajectory(seed, steps) for seed in range(trajectories)]
    rows = rows_of(batch)
    paths: dict[str, Callable[[Path, Sequence[Trajectory]], float]] = {"bulk": bulk, "row_wise": row_wise}
    speeds: dict[str, list[float]] = {name: [] for name in paths}
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(rounds + 1):  # the first one warms up and does not count
            for name, path in paths.items():
                spent = path(Path(folder) / f"{name}-{round_number}.duckdb", batch)
                if round_number:
                    speeds[name].append(rows / spent)
    ratios = [fast / slow for fast, slow in zip(speeds["bulk"], speeds["row_wise"], strict=True)]
    return {
        "rows": rows,
        "bulk_rows_per_cpu_second": statistics.median(speeds["bulk"]),
        "row_wise_rows_per_cpu_second": statistics.median(speeds["row_wise"]),
        "ratio": statistics.median(ratios),
        "target": TARGET,
    }


def main() -> None:
    """Run and print; exit code 1 below the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trajectories", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rounds, options.trajectories, options.steps)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:32} {value:12.1f}")
    raise SystemExit(0 if result["ratio"] >= TARGET else 1)


if __name__ == "__main__":
    main()
