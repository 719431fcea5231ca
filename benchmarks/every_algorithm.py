"""Every algorithm on the shipped bookkeeping logs and on recorded airline runs, at equal spend, as Markdown tables.

    python benchmarks/every_algorithm.py [--traces ../shared/traces/tau-bench] [--budgets 64 256] [--seeds 1] [--only X]

Everything goes through the command line, so that the figures are those that a user gets. Without `--traces` (or the
extra [tau2]) only the bookkeeping table is made. `mean best` is over the non-trivial runs with a known baseline.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ttc_replay import search

LOGS = Path(__file__).parents[1] / "examples" / "bookkeeping" / "logs"
BOOKKEEPING = (
    *("--env", "bookkeeping", "--policy", "corpus", "--policy-opt", "same_task_only=true"),
    *("--reward", "bookkeeping-identity", "--reward", "bookkeeping-policy", "--combine", "min"),
    *("--accept", "bookkeeping-gold"),
)
AIRLINE = ("--env", "tau2", "--policy", "corpus", "--reward", "environment")
VARIANTS: dict[str, tuple[str, ...]] = {
    "mcts, uct": ("--algorithm", "mcts", "--algorithm-opt", "selection=uct"),
    "mcts, from-step auto": ("--algorithm", "mcts", "--from-step", "auto"),
    "mcts, adaptive": ("--algorithm", "mcts", "--allocate", "adaptive"),
    "beam, 2 x 2": ("--algorithm", "beam", "--algorithm-opt", "beam_width=2", "--algorithm-opt", "branching=2"),
    "particles, 3": ("--algorithm", "particles", "--algorithm-opt", "particles=3"),
}


def ttc(database: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ttc_replay", "--db", str(database), "--json", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def contestants() -> dict[str, tuple[str, ...]]:
    """Each algorithm with its defaults, then some variants."""
    return {**{name: ("--algorithm", name) for name in search.names()}, **VARIANTS}


def row(database: Path, common: tuple[str, ...], label: str, options: tuple[str, ...], budget: int, seeds: int) -> str:
    """One line: means over the seeds."""
    totals = [
        ttc(database, "search", *common, *options, "--budget", str(budget), "--seed", str(seed))["totals"]
        for seed in range(seeds)
    ]

    def mean(name: str) -> float:
        return statistics.fmean(total[name] or 0.0 for total in totals)

    tried = totals[0]["trajectories"] - totals[0]["trivial"]
    refused = statistics.fmean(total["gate"]["refused"] for total in totals)
    return (
        f"| {label} | {budget} | {mean('improved'):.4g} of {tried} | {mean('novel'):.4g} | {refused:.4g} | "
        f"{mean('mean_best'):.3f} | {mean('transitions'):.0f} | {mean('seconds'):.1f} |"
    )


def table(title: str, database: Path, common: tuple[str, ...], arguments: argparse.Namespace) -> None:
    print(f"\n{title}\n")
    print("| algorithm | budget | improved | novel | refused | mean best | transitions | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for budget in arguments.budgets:
        for label, options in contestants().items():
            if not arguments.only or label in arguments.only:
                print(row(database, common, label, options, budget, arguments.seeds), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--budgets", type=int, nargs="+", default=[64])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        books = Path(folder) / "books.duckdb"
        ttc(books, "ingest", str(LOGS), "--dataset", "books")
        table("Bookkeeping: 69 failed runs of 96", books, BOOKKEEPING, arguments)
        if arguments.traces is not None:
            airline = Path(folder) / "airline.duckdb"
            ttc(airline, "ingest", str(arguments.traces), "--dataset", "airline")
            table("Airline: 57 failed runs of 100", airline, AIRLINE, arguments)


if __name__ == "__main__":
    main()
