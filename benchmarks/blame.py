"""Does `blame` find a planted mistake, and for how many rollouts? Figures of docs/blame.md, as a Markdown table.

    python benchmarks/blame.py [--runs 120]

Each run of bookkeeping is perfect but for one booking at a known step. The policy that plays on is the example's
`NoisyBookkeeper`: a whole month goes well with probability 0.8; `mends`: the chance that it sees a wrong line before it
closes; `shuffles`: it books in any order. Beside the adaptive allocation: the same number of rollouts from every step,
detectors alone, and guessing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.planted import NoisyBookkeeper, PlantedRun, planted_runs
from ttc_replay.examples.bookkeeping.verifiers import gold
from ttc_replay.examples.bookkeeping.world import Difficulty
from ttc_replay.replay.blaming import blame_settings, detected, run_blame
from ttc_replay.replay.engine import Plugins
from ttc_replay.replay.settings import Settings
from ttc_replay.replay.statistics import wilson_interval
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.storage.database import Database
from ttc_replay.storage.readers.base import find_reader
from ttc_replay.storage.records import Source, Spec, Trajectory

WORLDS: tuple[tuple[Difficulty, dict[str, Any], tuple[int, ...]], ...] = (
    ("medium", {}, (16,)),
    ("hard", {}, (16,)),
    ("hard", {"shuffles": True}, (16,)),
    ("medium", {"mends": 0.3}, (16, 48)),
)
"""Difficulty, options of the policy, values of --rollouts."""
NEAR = 1
"""Steps that the answer may be off."""


@dataclass(frozen=True)
class Found:
    """What one way of blaming found of one run."""

    off: int | None
    """Distance from the planted step; None: it named no step."""
    rollouts: int
    transitions: int
    said: str


def blamed(runs: Sequence[PlantedRun], policy: dict[str, Any], rollouts: int, *, uniform: bool) -> list[Found]:
    """Ingest the runs and blame all of them."""
    spec = Spec("NoisyBookkeeper", policy)
    settings = Settings(Spec("bookkeeping"), spec, ((Spec("bookkeeping-gold"), 1.0),), budget=100_000)
    settings = replace(blame_settings(settings, rollouts=rollouts, confidence=0.95), selector=(("every", True),))
    if uniform:
        options = {**settings.algorithm.options, "uniform": True}
        settings = replace(settings, algorithm=replace(settings.algorithm, options=options))
    guide = compose([Weighted("bookkeeping-gold", gold)])
    records = trajectories(runs)
    plugins = Plugins(NoisyBookkeeper(**policy), BookkeepingEnvironment, guide)
    with tempfile.TemporaryDirectory() as folder, Database.open(str(Path(folder) / "planted.duckdb")) as archive:
        archive.add_trajectories(records)
        rows = run_blame(archive, settings, None, records, records, plugins).document["trajectories"]
    planted = {run.task_id: run.step for run in runs}
    return [found(row, planted[row["task_id"]]) for row in rows]


def trajectories(runs: Sequence[PlantedRun]) -> list[Trajectory]:
    """The runs as `ingest` reads them."""
    stream = BytesIO(b"".join(json.dumps(run.record).encode() + b"\n" for run in runs))
    read = find_reader("openai-chat").read(stream, Source("openai-chat", dataset="planted"))
    return [item for item in read if isinstance(item, Trajectory)]


def found(row: dict[str, Any], planted: int) -> Found:
    step = row["pivotal"]["step"] if row["pivotal"] else None
    spent = sum(item["transitions"] for item in row["steps"])
    return Found(None if step is None else abs(step - planted), row["rollouts"], spent, row["stopped"])


def by_detectors(runs: Sequence[PlantedRun]) -> list[Found]:
    """The nearest finding of any detector: more than a user would know to choose."""
    answers = []
    planted = {run.task_id: run.step for run in runs}
    for row in detected(trajectories(runs))["trajectories"]:
        offs = [abs(item["step"] - planted[row["task_id"]]) for item in row["detectors"]]
        answers.append(Found(min(offs, default=None), 0, 0, ""))
    return answers


def line(label: str, answers: Sequence[Found]) -> str:
    count = len(answers)
    near = sum(item.off is not None and item.off <= NEAR for item in answers)
    exact = sum(item.off == 0 for item in answers)
    low, high = wilson_interval(near, count)
    rollouts = [item.rollouts for item in answers]
    decided = sum(item.said == "decided" for item in answers)
    mean, spent = statistics.fmean(rollouts), statistics.fmean(item.transitions for item in answers)
    share = f"{near} of {count} [{low:.0%}, {high:.0%}]"
    return f"| {label} | {exact} | {share} | {decided} | {mean:.1f} | {max(rollouts)} | {spent:.1f} |"


def guessing(runs: Sequence[PlantedRun]) -> float:
    """The share of runs whose step a guess among all steps finds within NEAR."""
    shares = []
    for run in runs:
        steps = sum(message["role"] == "assistant" for message in run.record["messages"])
        shares.append((min(steps - 1, run.step + NEAR) - max(0, run.step - NEAR) + 1) / steps)
    return statistics.fmean(shares)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=120)
    arguments = parser.parse_args()
    print("| runs, and how | exact | within one step | decided | rollouts a run | most | transitions a run |")
    print("|---|---|---|---|---|---|---|")
    for difficulty, policy, allowed in WORLDS:
        runs = list(planted_runs(difficulty, arguments.runs))
        label = ", ".join([difficulty, *(f"{key} {value}" for key, value in policy.items())])
        for rollouts in allowed:
            for way, uniform in (("adaptive", False), ("every step alike", True)):
                answers = blamed(runs, policy, rollouts, uniform=uniform)
                print(line(f"{label}: {way}, at most {rollouts} a step", answers), flush=True)
        if not policy:
            print(line(f"{label}: detectors alone", by_detectors(runs)))
            print(f"| {label}: guessing | | {guessing(runs):.0%} expected | 0 | 0 | 0 | 0 |", flush=True)


if __name__ == "__main__":
    main()
