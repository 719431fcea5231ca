"""What a fork of the `sql` world costs, by engine and size, against re-execution: `python benchmarks/sql_forks.py`.

`read`: a world that only read, forked and asked once. `written`: a world that wrote, forked and asked once (the image
is made anew each time, because the parent writes again). `re-execution`: reset, the same write, the same query.
CPU milliseconds, mean of the runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ttc_replay import Message, Task, ToolCall
from ttc_replay.replay.environments.sql import SqlEnvironment

SIZES = (300, 10_000, 100_000)
RUNS = 20
SCRIPT = """
CREATE TABLE facts (id INTEGER, twice INTEGER, name VARCHAR);
INSERT INTO facts WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < {rows})
    SELECT i, 2 * i, 'name ' || i FROM r;
"""
READ, WRITE = "SELECT max(id) FROM facts", "INSERT INTO facts VALUES (0, 0, 'new')"


def run(world: SqlEnvironment, sql: str) -> None:
    result = world.step(Message("assistant", tool_calls=(ToolCall("c", "run_sql", {"sql": sql}),)))
    assert "error" not in result.observations[0].text, result.observations[0].text


def mean_milliseconds(work: Callable[[], None]) -> float:
    work()
    began = time.process_time()
    for _ in range(RUNS):
        work()
    return (time.process_time() - began) / RUNS * 1000


def opened(engine: str, rows: int) -> tuple[SqlEnvironment, Task]:
    task = Task("t", data={"database_sql": SCRIPT.format(rows=rows)})
    world = SqlEnvironment(engine=engine, writable=True)
    world.reset(task)
    return world, task


def read_fork(world: SqlEnvironment) -> None:
    run(world.fork(), READ)


def written_fork(world: SqlEnvironment) -> None:
    run(world, WRITE)
    child = world.fork()
    run(child, READ)
    child.close()


def re_execution(engine: str, task: Task) -> None:
    world = SqlEnvironment(engine=engine, writable=True)
    world.reset(task)
    run(world, WRITE)
    run(world, READ)
    world.close()


def main() -> None:
    print("| engine | rows | read | written | re-execution |\n|---|---|---|---|---|")
    for engine in ("sqlite", "duckdb"):
        for rows in SIZES:
            world, task = opened(engine, rows)
            figures = [
                mean_milliseconds(partial(read_fork, world)),
                mean_milliseconds(partial(written_fork, world)),
                mean_milliseconds(partial(re_execution, engine, task)),
            ]
            print(f"| {engine} | {rows:,} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |", flush=True)
            world.close()


if __name__ == "__main__":
    main()
