"""Success at a fixed number of transitions, and speed, on six problems: ours, peers, plain baselines.

    python -m benchmarks.search [--transitions 64 256 1024] [--seeds 20] [--problems ...] [--algorithms ...]
    python -m benchmarks.search --widths          # mcts with 1 to 32 asks open, instead

Prints Markdown. Peers play if they can be imported (docs/benchmarks.md says how). The slowest of them stops at 256
transitions unless --slow is given.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from .contestants import Contestant, everybody, ours
from .problems import PROBLEMS
from .tables import Row, cell, summary, table, write_between
from .world import Reading

WIDTHS = (1, 2, 4, 8, 16, 32)
WIDTH_PROBLEMS = ("needle", "sparse", "game24")
SLOW_LIMIT = 256


def play(problem: str, contestant: Contestant, limits: Sequence[int], seeds: int, slow: bool = True) -> Row:
    """All seeds of one contestant on one problem."""
    if contestant.slow and not slow:
        limits = [limit for limit in limits if limit <= SLOW_LIMIT]
    readings: dict[int, list[Reading]] = {limit: [] for limit in limits}
    for seed in range(seeds if contestant.absent is None and limits else 0):
        for reading in contestant.play(PROBLEMS[problem](seed), limits):
            readings[reading.limit].append(reading)
    return Row(problem, contestant, readings)


def main_tables(arguments: argparse.Namespace, lines: list[str]) -> list[Row]:
    """One table a problem, then who is best."""
    chosen = [one for one in everybody(arguments.width) if not arguments.algorithms or one.name in arguments.algorithms]
    joined = [Row.of(record) for file in arguments.join or [] for record in json.loads(file.read_text("utf-8"))]
    every: list[Row] = []
    for problem in arguments.problems:
        rows = [row for row in joined if row.problem == problem]
        if not arguments.join:
            rows = [play(problem, one, arguments.transitions, arguments.seeds, arguments.slow) for one in chosen]
        show(lines, ["", f"### {problem}", "", *table(rows, arguments.transitions)])
        every += rows
    show(lines, ["", "### Who is best", "", *summary(every, arguments.transitions)])
    return every


def width_table(arguments: argparse.Namespace, lines: list[str]) -> list[Row]:
    """Success of mcts against the number of open asks."""
    heads = [f"{problem} @{limit}" for problem in arguments.problems for limit in arguments.transitions]
    show(lines, ["| width | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"])
    every: list[Row] = []
    for width in WIDTHS:
        mcts = ours("mcts", width)
        rows = [play(problem, mcts, arguments.transitions, arguments.seeds) for problem in arguments.problems]
        show(
            lines, [f"| {width} | " + " | ".join(cell(found) for row in rows for found in row.readings.values()) + " |"]
        )
        every += rows
    return every


def show(lines: list[str], more: list[str]) -> None:
    """Print lines at once, and keep them."""
    print(*more, sep="\n", flush=True)
    lines += more


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--transitions", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS))
    parser.add_argument("--algorithms", nargs="+", metavar="NAME")
    parser.add_argument("--width", type=int, default=1, help="asks open in ours; peers play one at a time")
    parser.add_argument("--widths", action="store_true")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--docs", type=Path, metavar="PAGE", help="write the tables between the markers of this page")
    parser.add_argument("--join", type=Path, nargs="+", metavar="FILE", help="play nothing: tables of what --json kept")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    arguments.problems = arguments.problems or list(WIDTH_PROBLEMS if arguments.widths else PROBLEMS)
    known = [one.name for one in everybody()] if arguments.algorithms else []
    for name in arguments.algorithms or []:
        if name not in known:
            parser.error(f"nobody is called {name!r}; near: {get_close_matches(name, known) or known}")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables; with --json keep every reading."""
    arguments = parse(argv)
    lines: list[str] = []
    where = f"Python {platform.python_version()}, {machine()}"
    show(lines, [f"{where}; {arguments.seeds} instances a problem.", ""])
    rows = width_table(arguments, lines) if arguments.widths else main_tables(arguments, lines)
    for absent in sorted({f"{row.contestant.name}: {row.contestant.absent}" for row in rows if row.contestant.absent}):
        print(f"not installed: {absent}", file=sys.stderr)
    if arguments.docs:
        write_between(arguments.docs, "widths" if arguments.widths else "search", lines)
    if arguments.json:
        arguments.json.write_text(json.dumps([row.record() for row in rows], indent=1) + "\n", "utf-8")


def machine() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
