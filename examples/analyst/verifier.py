"""`analyst-results`: does the answered query give what the gold query gives, on several warehouses?

One warehouse is not enough: a constant, or a query whose mistake happens not to matter there, passes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ttc_replay import Score, Task, Trajectory, reward
from ttc_replay.examples.analyst.comparison import same_rows
from ttc_replay.examples.analyst.warehouse import image
from ttc_replay.replay.environments.sql_results import Limits, Refused, TimedOut, plain_value

DATABASES = 3
APART = 1000
"""Between the seeds of the warehouses of one question: shipped questions have no seed in common."""
LIMITS = Limits(timeout_seconds=20.0, max_rows=20_000)


@reward
def results(trajectory: Trajectory, databases: int = DATABASES) -> Score | None:
    """1.0 when the answer equals the gold's result on the task's own warehouse and on `databases` - 1 others.

    0.0 also without an answer, and for a query that fails somewhere. A value without a query is compared on the task's
    own warehouse only (`detail["databases"]` says on how many). Abstains without a final state or without gold
    (`Task.private["gold_sql"]`); a time-out, and gold that fails, are errors and no verdict.
    """
    state, task = trajectory.final_state, trajectory.task
    gold = task.private.get("gold_sql")
    if state is None or not isinstance(gold, str):
        return None
    answer = state["answer"]
    if answer is None:
        return Score(0.0, detail={"why": "no answer"})
    seeds = seeds_of(task, databases if answer["sql"] is not None else 1)
    for seed in seeds:
        why = _differs(seed, gold, answer, ordered=bool(task.private.get("ordered")), own=seed == seeds[0])
        if why is not None:
            return Score(0.0, detail={"why": why, "seed": seed, "databases": len(seeds)})
    return Score(1.0, detail={"databases": len(seeds)})


def seeds_of(task: Task, databases: int) -> list[int]:
    """Seeds of the warehouses that a question is judged on, its own first. Raises ValueError below 1."""
    if databases < 1:
        raise ValueError(f"databases {databases}: at least the task's own")
    return [(task.seed or 0) + APART * number for number in range(databases)]


@lru_cache(maxsize=4096)
def rows_of(seed: int, sql: str) -> Sequence[Sequence[Any]]:
    """All rows of a query on a warehouse. Raises Refused, also for more than 20,000 rows."""
    found = image(seed).run(sql, LIMITS)
    if found.more:
        raise Refused(f"more than {LIMITS.max_rows} rows")
    return found.rows


def _differs(seed: int, gold: str, answer: Any, *, ordered: bool, own: bool) -> str | None:
    """Why an answer is wrong on one warehouse; None when it is right. Raises TimedOut, and what the gold raises."""
    expected = rows_of(seed, gold)
    if answer["sql"] is not None:
        try:
            got = rows_of(seed, answer["sql"])
        except TimedOut:
            raise
        except Refused as refused:
            return f"the query fails: {refused}"
        if not same_rows(expected, got, ordered=ordered):
            return "other rows"
    if own and answer["value"] is not None:
        plain = [[plain_value(item) for item in row] for row in expected]
        if not same_rows(plain, _rows(answer["value"]), ordered=ordered):
            return "another value"
    return None


def _rows(value: Any) -> Sequence[Sequence[Any]]:
    """A value as rows: a list of lists as it is, a list as one column, anything else as one row of one column."""
    if not isinstance(value, list):
        return [[value]]
    return [item if isinstance(item, list) else [item] for item in value]
