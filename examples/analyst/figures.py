"""Measures the figures of README.md: `python -m ttc_replay.examples.analyst.figures [PART...]`.

Parts: `candidates` (wrong queries that one warehouse, or several, let through), `log` (the recorded runs), `search`
(the failed runs under best-of-n and MCTS at equal transitions, three seeds). About a minute of CPU time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ttc_replay import Score, Spec, Trajectory
from ttc_replay.examples.analyst.agents import NoisyAnalyst, flaws_of
from ttc_replay.examples.analyst.checks import checks, judged
from ttc_replay.examples.analyst.questions import FLAWS, QUESTIONS, question, task
from ttc_replay.examples.analyst.record import LOGS, environment
from ttc_replay.examples.analyst.verifier import results, rows_of
from ttc_replay.replay.engine import Plugins
from ttc_replay.replay.running import failing, run_search
from ttc_replay.replay.settings import Settings
from ttc_replay.replay.statistics import wilson_interval
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.storage.database import Database, Query
from ttc_replay.storage.ingest import IngestOptions, ingest

MOST_FLAWS = 2
DATABASES = (1, 2, 3, 5)
ALGORITHMS = ("best-of-n", "mcts")


def verdict(number: int, sql: str, databases: int) -> Score:
    """The verifier's on one query."""
    state = {"answer": {"sql": sql, "value": None}}
    ended = Trajectory(id="", task=task(number), final_state=state)
    return results.with_options(databases=databases).score([ended])[0]


def constant(number: int) -> str:
    """The right result of the question's own warehouse, as a query that reads no table."""
    rows = rows_of(number, question(number).sql())
    texts = ["(" + ", ".join(_literal(value) for value in row) + ")" for row in rows]
    return f"VALUES {', '.join(texts)}" if texts else "SELECT 1 WHERE 0"


def _literal(value: object) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def candidates() -> None:
    """Every query with one or two flaws, of every question, and the constant of each."""
    wrong = [(number, flaws) for number in range(QUESTIONS) for flaws in question(number).wrong(MOST_FLAWS)]
    queries = [(number, question(number).sql(flaws)) for number, flaws in wrong]
    for name, chosen in (("wrong queries", queries), ("constants", [(n, constant(n)) for n in range(QUESTIONS)])):
        for databases in DATABASES:
            passed = sum(verdict(number, sql, databases).value == 1.0 for number, sql in chosen)
            print(f"{name}, {databases} warehouses: {_share(passed, len(chosen))}")
    unseen = [not judged(number, sql)[2] for number, sql in queries]
    print(f"wrong queries that break no house rule: {_share(sum(unseen), len(queries))}")


def log() -> None:
    """How the recorded runs ended, and the flaws of their answers."""
    with tempfile.TemporaryDirectory() as folder, Database.open(str(Path(folder) / "figures.duckdb")) as database:
        records = _ingested(database)
    right = sum(record.outcome is not None and record.outcome.value == 1.0 for record in records)
    steps = sum(len(record.steps) for record in records)
    print(f"recorded: {_share(right, len(records))}; {steps / len(records):.1f} steps a run")
    flaws: Counter[str] = Counter()
    for record in records:
        sql = str((record.last.action.tool_calls[0].arguments or {}).get("sql"))
        flaws.update(flaws_of(question(record.task.seed or 0), sql) or ())
    print("answers with: " + ", ".join(f"{FLAWS[name]} {count}" for name, count in flaws.most_common()))


def search(budget: int, seeds: Sequence[int]) -> None:
    """The failed runs, each algorithm at the same number of transitions."""
    with tempfile.TemporaryDirectory() as folder, Database.open(str(Path(folder) / "figures.duckdb")) as database:
        known = _ingested(database)
        records = failing(known, 1.0)
        for algorithm in ALGORITHMS:
            for seed in seeds:
                settings = Settings(
                    environment=Spec("sql", {"build": "ttc_replay.examples.analyst.warehouse:build"}),
                    policy=Spec("ttc_replay.examples.analyst.agents:NoisyAnalyst"),
                    rewards=((Spec("analyst-checks"), 1.0),),
                    accept=Spec("analyst-results"),
                    algorithm=Spec(algorithm),
                    budget=budget,
                    seed=seed,
                )
                guide, gate = compose([Weighted("checks", checks)]), compose([Weighted("results", results)])
                ran = run_search(
                    database, settings, None, records, known, Plugins(NoisyAnalyst(), environment, guide, gate)
                )
                totals = ran.report["totals"]
                print(
                    f"{algorithm}, seed {seed}: {_share(totals['improved'], len(records))} repaired, "
                    f"{totals['transitions']} transitions; gate {totals['gate']['accepted']} accepted, "
                    f"{totals['gate']['refused']} refused",
                    flush=True,
                )


def _ingested(database: Database) -> list[Trajectory]:
    ingest(database, [str(LOGS / "analyst.jsonl")], IngestOptions(dataset="analyst"))
    return list(database.trajectories(Query(recorded=True)))


def _share(right: int, of: int) -> str:
    low, high = wilson_interval(right, of)
    return f"{right}/{of} {right / of:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the analyst example.")
    parser.add_argument("parts", nargs="*", default=["candidates", "log", "search"], help="what to measure")
    parser.add_argument("--budget", type=int, default=48, help="transitions of each failed run")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each algorithm")
    given = parser.parse_args(arguments)
    for part in given.parts:
        if part == "search":
            search(given.budget, range(given.seeds))
        else:
            {"candidates": candidates, "log": log}[part]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
