"""SIGKILL at kill points of a small complete job (promises P1, P2, P4): the same command again ends as if nothing was.

60 kills in the normal suite, spread over all kill points; `TTC_KILLS=500 pytest tests/reliability/test_kills.py` for
more. Each case is a fresh folder with what lay there before one stage, a process that dies in it, and one that is not
killed. Every fourth case dies a second time, every third is looked at by `doctor` in between.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ttc_replay.storage.journal import journals, read_journal
from ttc_replay.storage.kill_points import KILL_AT, POINTS

KILLS = int(os.environ.get("TTC_KILLS", "60"))
SEED = 20
CONCURRENCY = 4
NOT_IN_THE_JOB = {"export.aside"}
"""Passed only where a file system cannot exchange two folders: `test_replaced_exports.py`."""


class Kill(NamedTuple):
    """A pass of a kill point, and a later one of any point at which the next process dies."""

    stage: str
    point: str
    nth: int
    second: int


def plan(passes: Mapping[str, Sequence[str]], kills: int) -> list[Kill]:
    """`kills` passes: each point of each kind once, somewhere in some stage, then whatever the dice say.

    How often the disk is waited for depends on timing, so only the first half of those passes is taken.
    """
    draw = random.Random(SEED)
    by_point: dict[str, list[tuple[str, int]]] = {}
    for stage, points in passes.items():
        for point, total in Counter(points).items():
            sure = (total + 1) // 2 if point in ("journal.fsync", "journal.synced") else total
            by_point.setdefault(point, []).extend((stage, count) for count in range(1, sure + 1))
    first = [(point, *draw.choice(places)) for point, places in sorted(by_point.items())]
    draw.shuffle(first)
    rest = [(point, *place) for point, places in sorted(by_point.items()) for place in places]
    draw.shuffle(rest)
    chosen = list(dict.fromkeys([*first, *rest]))[:kills]
    return [Kill(stage, point, count, draw.randint(1, 40)) for point, stage, count in chosen]


@pytest.fixture(scope="session")
def kills(job: Any) -> list[Kill]:
    return plan({stage: job.passes(stage) for stage in job.stages}, KILLS)


def finished_calls(folder: Path) -> set[str]:
    """The keys of calls whose result is in the journal of the paid search."""
    found: set[str] = set()
    for path in journals(folder / "ttc.duckdb.runs"):
        found |= {event["key"] for event in read_journal(path)[0] if event["event"] == "result"}
    return found


def exported(state: Mapping[str, Any]) -> dict[str, str]:
    """The visible files of exports, with their hashes."""
    return {path: found for path, found in state["files"].items() if path.startswith(("data/", "rows.jsonl"))}


def test_every_kill_point_is_passed(job: Any) -> None:
    passed = {point.partition("/")[0] for stage in job.stages for point in job.passes(stage)}
    assert passed == POINTS.keys() - NOT_IN_THE_JOB
    kinds = {point.partition("/")[2] for point in job.passes("paid") if "/" in point}
    assert kinds >= {"config", "baseline", "intent", "result", "tell", "score", "gate", "done"}


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_stage_ends_like_one_that_was_not(
    job: Any, kills: list[Kill], forked: Any, left: Callable[..., Any], tmp_path: Path, number: int
) -> None:
    assert number < len(kills), "the job has fewer passes than kills were asked for"
    kill = kills[number]
    folder = job.before(kill.stage)
    command = job.commands(tmp_path.name)[kill.stage]
    asked = job.server.asked.setdefault(tmp_path.name, [])
    deaths = [f"{kill.point}:{kill.nth}", *([str(kill.second)] if number % 4 == 0 else [])]
    known: set[str] = set()
    before = 0
    allowed = [exported(state) for state in (left(folder, False), job.after(kill.stage))]
    for death in deaths:
        killed = forked(folder, "-q", "--json", *command, **{KILL_AT: death})
        assert killed.code == -signal.SIGKILL or death != deaths[0], f"{kill}: {killed}"
        after = finished_calls(folder)
        assert known <= after, f"{kill}: what was acknowledged is there"
        known, before = after, len(asked)
        assert exported(left(folder, False)) in allowed, (
            f"{kill}: an export is there whole, or as it was, or not at all"
        )
    if number % 3 == 0:
        opened = forked(_copy(folder, tmp_path / "looked-at"), "--json", "doctor")
        assert json.loads(opened.out)["ok"], f"{kill}: {opened}"

    done = forked(folder, "-q", "--json", *command)
    assert done.code == 0, f"{kill}: {done}"
    assert known.isdisjoint(asked[before:]), f"{kill}: a finished call was made again"
    if kill.stage == "paid":
        repeated = sum(count - 1 for count in Counter(asked).values())
        told = json.loads(done.out)["totals"]["repeated_calls"]
        assert repeated <= told <= CONCURRENCY * len(deaths), f"{kill}: at most what was in flight, and counted"
    assert left(folder) == job.after(kill.stage), str(kill)


def _copy(folder: Path, to: Path) -> Path:
    """A copy to look at: opening the database folds its log into the file, which the command itself is to do."""
    return Path(shutil.copytree(folder, to))


def test_a_process_of_its_own_dies_where_it_is_told(job: Any, left: Callable[..., Any]) -> None:
    """The program as it is started by people, and the number of a pass instead of a name."""
    folder = job.before("free")
    command = [sys.executable, "-m", "ttc_replay", "-q", *job.commands("alone")["free"]]
    environment = {**os.environ, KILL_AT: "150"}
    killed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    del environment[KILL_AT]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert left(folder) == job.after("free")
