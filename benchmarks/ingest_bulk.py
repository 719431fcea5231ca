"""Bulk writing against row-wise writing: the same trajectories, the same schema, the same process, interleaved.

`bulk`: `Database.add_trajectories` (Arrow). `executemany`: SQLAlchemy Core, one statement per row. `multi_values`: what
this dialect makes of Core's executemany by itself below 10,000 rows, statements of 1,000 rows each. All start from
records and encode them; all count the CPU time of the process from the first row to the closed file. Prints rows per
CPU second and the ratio of bulk to executemany, medians over the rounds. Target: ratio >= 20.

    python benchmarks/ingest_bulk.py [--rounds 3] [--trajectories 400] [--steps 12] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ttc_replay.storage import schema
from ttc_replay.storage.database import Database
from ttc_replay.storage.engines import open_engine
from ttc_replay.storage.migrations import migrate
from ttc_replay.storage.records import Message, Outcome, Score, Source, Step, Task, ToolCall, Trajectory
from ttc_replay.storage.rows import score_rows, step_rows, trajectory_row

TARGET = 20.0
WORDS = ("flight", "booking", "refund", "customer", "seat", "baggage", "policy", "ticket", "change", "cancel", "total")


def make_trajectory(seed: int, steps: int) -> Trajectory:
    """A made-up customer-service run with the sizes of the recorded tau-bench airline runs: 12 steps, 330 bytes an
    action, 470 an observation, 18 kB the raw record."""
    randomly = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(randomly.choices(WORDS, k=count))

    def step(index: int) -> Step:
        call = ToolCall(f"call_{seed}_{index}", "get_reservation", {"id": f"{seed:06d}", "note": words(8)})
        observation = Message("tool", words(58), tool_call_id=call.id)
        return Step(index, Message("assistant", words(20), tool_calls=(call,)), (observation,))

    return Trajectory(
        id=f"{seed:064x}",
        task=Task(f"task-{seed % 50}", words(40)),
        tools=({"type": "function", "function": {"name": "get_reservation", "description": words(20)}},),
        prompt=(Message("system", words(850)), Message("user", words(40))),
        steps=tuple(step(index) for index in range(steps)),
        outcome=Outcome(float(seed % 2)),
        scores={"judge": Score(randomly.random())},
        source=Source("openai-chat", "made-up.jsonl", seed, dataset="benchmark", raw=words(2550)),
    )


def rows_of(batch: Sequence[Trajectory]) -> int:
    """Rows that a batch becomes: trajectories, steps and scores."""
    return sum(1 + len(trajectory.steps) + len(trajectory.scores) for trajectory in batch)


def bulk(path: Path, batch: Sequence[Trajectory]) -> float:
    """CPU seconds of one `add_trajectories`."""
    database = Database.open(str(path))
    start = time.process_time()
    added = database.add_trajectories(batch)
    database.close()
    if len(added) != len(batch):
        raise SystemExit("the bulk path did not store every trajectory")
    return time.process_time() - start


def core(path: Path, batch: Sequence[Trajectory], *, multi_values: bool) -> float:
    """CPU seconds of Core inserts into the same tables, in one transaction."""
    opened = open_engine(str(path), create=True)
    migrate(opened.engine)
    dialect: Any = opened.engine.dialect
    dialect.use_insertmanyvalues_wo_returning = multi_values
    dialect.duckdb_copy_threshold = 0  # from 10,000 rows on it would register a data frame, and no longer be row-wise
    start = time.process_time()
    with opened.engine.begin() as connection:
        numbered = list(enumerate(batch))
        connection.execute(schema.trajectories.insert(), [trajectory_row(item, number) for number, item in numbered])
        connection.execute(schema.steps.insert(), [row for number, item in numbered for row in step_rows(item, number)])
        connection.execute(schema.scores.insert(), [row for item in batch for row in score_rows(item)])
    opened.close()
    return time.process_time() - start


PATHS: dict[str, Callable[[Path, Sequence[Trajectory]], float]] = {
    "bulk": bulk,
    "executemany": partial(core, multi_values=False),
    "multi_values": partial(core, multi_values=True),
}


def measure(rounds: int, trajectories: int, steps: int) -> dict[str, float]:
    """Median rows per CPU second of each path, and medians of the rounds' ratios."""
    batch = [make_trajectory(seed, steps) for seed in range(trajectories)]
    rows = rows_of(batch)
    speeds: dict[str, list[float]] = {name: [] for name in PATHS}
    with tempfile.TemporaryDirectory() as folder:
        bulk(Path(folder) / "warm-up.duckdb", batch)
        for round_number in range(rounds):
            for name, path in PATHS.items():
                speeds[name].append(rows / path(Path(folder) / f"{name}-{round_number}.duckdb", batch))
    result: dict[str, float] = {"rows": rows, "target": TARGET}
    for name, values in speeds.items():
        result[f"{name}_rows_per_cpu_second"] = statistics.median(values)
    for name, key in (("executemany", "ratio"), ("multi_values", "ratio_to_multi_values")):
        result[key] = statistics.median(fast / slow for fast, slow in zip(speeds["bulk"], speeds[name], strict=True))
    return result


def main() -> None:
    """Run and print; exit code 1 below the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trajectories", type=int, default=400)
    parser.add_argument("--steps", type=int, default=12)
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
