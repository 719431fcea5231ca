"""Bulk writing against row-wise writing: the same rows, the same schema, the same process, interleaved.

Each path writes the same encoded rows (trajectories, steps, scores) in one transaction and closes the file:

    arrow           `storage.bulk.insert`
    executemany     SQLAlchemy Core, one statement per row
    multi_values    what this dialect makes of Core's executemany below 10,000 rows: statements of 1,000 rows each

Prints rows per CPU second of each (medians over the rounds) and `ratio` = arrow to executemany. Target: >= 20.
`ratio_with_encoding` is the same from records on: `Database.add_trajectories`, which encodes and looks for duplicates,
against encoding plus executemany.

    python benchmarks/ingest_bulk.py [--rounds 3] [--trajectories 1500] [--steps 12] [--json]
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

from sqlalchemy import Connection, Table

from ttc_replay.storage import schema
from ttc_replay.storage.bulk import insert
from ttc_replay.storage.database import Database
from ttc_replay.storage.engines import open_engine
from ttc_replay.storage.exact_json import Row
from ttc_replay.storage.migrations import migrate
from ttc_replay.storage.records import Message, Outcome, Score, Source, Step, Task, ToolCall, Trajectory
from ttc_replay.storage.rows import score_rows, step_rows, trajectory_row

TARGET = 20.0
Rows = dict[Table, list[Row]]
Insert = Callable[[Connection, Table, Sequence[Row]], None]
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


def encode(batch: Sequence[Trajectory]) -> Rows:
    """The rows of each table."""
    numbered = list(enumerate(batch))
    return {
        schema.trajectories: [trajectory_row(item, number) for number, item in numbered],
        schema.steps: [row for number, item in numbered for row in step_rows(item, number)],
        schema.scores: [row for item in batch for row in score_rows(item)],
    }


def write(path: Path, rows: Rows, one: Insert, *, multi_values: bool = False) -> float:
    """CPU seconds to write all rows with `one` in one transaction, up to the closed file."""
    opened = open_engine(str(path), create=True)
    migrate(opened.engine)
    dialect: Any = opened.engine.dialect
    dialect.use_insertmanyvalues_wo_returning = multi_values
    dialect.duckdb_copy_threshold = 0  # from 10,000 rows on it would register a data frame, and no longer be row-wise
    start = time.process_time()
    with opened.engine.begin() as connection:
        for table, some in rows.items():
            one(connection, table, some)
    opened.close()
    return time.process_time() - start


def core(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """SQLAlchemy Core's own way."""
    connection.execute(table.insert(), rows)


PATHS: dict[str, Callable[[Path, Rows], float]] = {
    "arrow": partial(write, one=insert),
    "executemany": partial(write, one=core),
    "multi_values": partial(write, one=core, multi_values=True),
}


def add(path: Path, batch: Sequence[Trajectory]) -> float:
    """CPU seconds of one `add_trajectories`, up to the closed file."""
    database = Database.open(str(path))
    start = time.process_time()
    added = database.add_trajectories(batch)
    database.close()
    if len(added) != len(batch):
        raise SystemExit("the bulk path did not store every trajectory")
    return time.process_time() - start


def measure(rounds: int, trajectories: int, steps: int) -> dict[str, float]:
    """Rows per CPU second of each path and the ratios, all medians over the rounds."""
    batch = [make_trajectory(seed, steps) for seed in range(trajectories)]
    spent: dict[str, list[float]] = {name: [] for name in (*PATHS, "encode", "add_trajectories")}
    with tempfile.TemporaryDirectory() as folder:
        add(Path(folder) / "warm-up.duckdb", batch)
        for round_number in range(rounds):
            start = time.process_time()
            rows = encode(batch)
            spent["encode"].append(time.process_time() - start)
            for name, path in PATHS.items():
                spent[name].append(path(Path(folder) / f"{name}-{round_number}.duckdb", rows))
            spent["add_trajectories"].append(add(Path(folder) / f"add-{round_number}.duckdb", batch))
    total = sum(len(some) for some in rows.values())
    result: dict[str, float] = {"rows": total, "target": TARGET}
    for name, values in spent.items():
        result[f"{name}_rows_per_cpu_second"] = statistics.median(total / value for value in values)
    for name in ("executemany", "multi_values"):
        pairs = zip(spent[name], spent["arrow"], strict=True)
        result["ratio" if name == "executemany" else "ratio_to_multi_values"] = statistics.median(
            a / b for a, b in pairs
        )
    whole = zip(spent["encode"], spent["executemany"], spent["add_trajectories"], strict=True)
    result["ratio_with_encoding"] = statistics.median((encoded + slow) / fast for encoded, slow, fast in whole)
    return result


def main() -> None:
    """Run and print; exit code 1 below the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trajectories", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rounds, options.trajectories, options.steps)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:40} {value:12.1f}")
    raise SystemExit(0 if result["ratio"] >= TARGET else 1)


if __name__ == "__main__":
    main()
