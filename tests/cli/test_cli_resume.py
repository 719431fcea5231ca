"""Resume (promises P1, P2, P6): a search that is killed and run again ends like one that was not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from ttc_replay.storage.database import Database
from ttc_replay.storage.journal import digest, read_journal

KILLS = 6
JOURNAL_PARTS = (0.0, 0.6)
"""Kills when the journal has reached these parts of its final size."""


def journal_of(database: Path, run: str) -> Path:
    return Path(f"{database}.runs") / run / "journal.jsonl"


def stored(database: Path, run: str) -> dict[str, Any]:
    """What a run left, less what clocks decide: digest, report rows, nodes with their scores, counterfactuals."""
    with Database.open(str(database), create=False) as archive:
        row = archive.run(run)
        assert row is not None
        assert row["status"] == "done"
        totals = {key: value for key, value in row["report"]["totals"].items() if key != "seconds"}
        nodes = archive.query(f"select * exclude (run) from nodes where run = '{run}' order by trajectory_id, node")
        scores = archive.query(f"select * from v_scores where run = '{run}' order by all")
        found = archive.query(f"select * from v_trajectories where run = '{run}' order by id")
        return {
            "digest": row["digest"],
            "rows": row["report"]["trajectories"],
            "totals": totals,
            "nodes": nodes,
            "scores": scores,
            "found": found,
        }


def finish(cli: Any, database: Path, command: Sequence[str]) -> dict[str, Any]:
    """Run a search to its end; what it left."""
    done = cli("--db", database, "-q", "--json", *command)
    assert done.code == 0, done.err
    report = done.document
    left = stored(database, report["run"])
    assert left["digest"] == digest(read_journal(journal_of(database, report["run"]))[0])
    assert left["rows"] == report["trajectories"]
    return left


Start = Callable[..., "subprocess.Popen[str]"]


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> bool:
    """SIGKILL the process once `ready`; whether it still ran then."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.fixture
def long_search() -> tuple[str, ...]:
    """A search of the bookkeeping archive that takes some tenths of a second."""
    return (
        *("search", "--env", "bookkeeping", "--policy", "corpus", "--policy-opt", "same_task_only=true"),
        *("--reward", "bookkeeping-identity", "--accept", "bookkeeping-gold", "--budget", "60", "--name", "long"),
    )


def test_sigkill_at_any_moment_loses_nothing(
    spawn: Start, cli: Any, books: Path, bookkeeping_archive: Path, tmp_path: Path, long_search: tuple[str, ...]
) -> None:
    """Kills at random delays and at given sizes of the journal, several in a row on one archive."""
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = finish(cli, Path(copy(bookkeeping_archive, whole / "ttc.duckdb")), long_search)
    final = size_of(journal_of(whole / "ttc.duckdb", "long"))
    journal = journal_of(books, "long")
    assert expected["totals"]["improved"] > 0

    killed = 0
    began = time.monotonic()
    for part in JOURNAL_PARTS:
        process = spawn("--db", books, "-q", *long_search)
        before = size_of(journal)
        killed += kill_when(process, lambda goal=part * final: size_of(journal) > goal)  # type: ignore[misc]
        assert size_of(journal) >= before, "what was acknowledged is there"
    seconds = (time.monotonic() - began) / len(JOURNAL_PARTS)
    draw = random.Random(20)
    for _ in range(KILLS):
        delay = draw.uniform(0.4, 1.2) * seconds
        due = time.monotonic() + delay
        hit = kill_when(spawn("--db", books, "-q", *long_search), lambda due=due: time.monotonic() > due)  # type: ignore[misc]
        killed += hit
        seconds *= 1.0 if hit else 0.6  # on a machine whose speed changes, too
    assert killed >= len(JOURNAL_PARTS) + KILLS // 2
    assert finish(cli, books, long_search) == expected


def metered_search(plugin: Callable[[str], str], log: Path, *more: str, seconds: float = 0.0) -> tuple[str, ...]:
    """A search of the toy archive with a paid policy that logs its calls."""
    return (
        *("search", "--env", plugin("Counter"), "--policy", plugin("Metered"), "--reward", "environment"),
        *("--accept", plugin("gold"), "--policy-opt", f"log={log}", "--policy-opt", f"seconds={seconds}"),
        *("--name", "paid", "--budget", "40", "--algorithm", "best-of-n", *more),
    )


def calls(log: Path, kind: str = "done") -> Counter[str]:
    """How often each call was begun or done."""
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(line.partition(" ")[2] for line in lines if line.startswith(kind))


def test_no_finished_call_is_paid_twice(
    spawn: Start, cli: Any, toys: Path, toy_archive: Path, tmp_path: Path, plugin: Callable[[str], str]
) -> None:
    log, other = tmp_path / "calls.txt", tmp_path / "whole"
    other.mkdir()
    command = metered_search(plugin, log, seconds=0.01)
    journal = journal_of(toys, "paid")
    finished: Counter[str] = Counter()
    for enough in (1, 20):
        process = spawn("--db", toys, "-q", *command)
        kill_when(process, lambda enough=enough: _results(journal) >= enough)  # type: ignore[misc]
        events, _ = read_journal(journal)
        finished = Counter({event["key"]: 1 for event in events if event["event"] == "result"})
        assert len(finished) >= enough
    left = finish(cli, toys, command)
    events, _ = read_journal(journal)
    results = Counter(event["key"] for event in events if event["event"] == "result")
    assert set(finished) <= set(results)
    assert set(results.values()) == {1}, "no finished call was made again"
    begun, done = calls(log, "begun"), calls(log)
    repeated = sum(count - 1 for count in begun.values())
    assert sum(done.values()) - len(done) <= repeated <= left["totals"]["repeated_calls"] <= 2 * 8
    assert left["totals"]["calls"] == len(results) == len(done)

    (other / "calls.txt").touch()
    whole = finish(cli, Path(copy(toy_archive, other / "ttc.duckdb")), _with(command, log, other / "calls.txt"))
    assert whole["totals"].pop("repeated_calls") == 0
    del left["totals"]["repeated_calls"]
    assert whole == left
    assert set(calls(other / "calls.txt")) == set(done)


def _results(journal: Path) -> int:
    return journal.read_bytes().count(b'"event":"result"') if journal.exists() else 0


def _with(command: Sequence[str], old: Path, new: Path) -> tuple[str, ...]:
    return tuple(part.replace(str(old), str(new)) for part in command)


def test_a_call_is_never_paid_twice_across_runs(cli: Any, toys: Path, plugin: Any, tmp_path: Path) -> None:
    log = tmp_path / "calls.txt"
    command = metered_search(plugin, log)
    first = cli(*command, "--json").document
    paid = calls(log)
    assert first["totals"]["calls"] == len(paid) > 0
    again = cli(*command[:-5], "other", *command[-4:], "--json").document
    assert again["run"] == "other"
    assert calls(log) == paid, "the permanent cache answered"
    assert again["trajectories"] != []
    assert [row["best"] for row in again["trajectories"]] == [row["best"] for row in first["trajectories"]]


def test_hard_limits_hold(cli: Any, toys: Path, plugin: Any, tmp_path: Path) -> None:
    log = tmp_path / "calls.txt"
    limited = cli(*metered_search(plugin, log, "--max-calls", "7"), "--json").document
    assert limited["totals"]["calls"] == sum(calls(log).values()) <= 7
    dear = cli(*metered_search(plugin, log, "--max-cost", "0.1"), "--json").document
    assert dear["totals"]["cost_usd"] <= 0.1
    assert sum(calls(log).values()) == dear["totals"]["calls"] > limited["totals"]["calls"]


def test_a_larger_budget_continues(cli: Any, books: Path, search_books: tuple[str, ...]) -> None:
    short = cli(*search_books, "--json").document
    told = read_journal(journal_of(books, "small"))[0]
    longer = cli(*search_books, "--budget", 30, "--json").document
    events = read_journal(journal_of(books, "small"))[0]
    assert events[: len(told)] == told
    assert longer["totals"]["transitions"] > short["totals"]["transitions"]
    direct = cli(*search_books[:-1], "direct", "--budget", 30, "--json").document
    with Database.open(str(books)) as archive:
        continued, at_once = archive.run("small"), archive.run("direct")
    assert continued is not None
    assert at_once is not None
    assert continued["digest"] == at_once["digest"]
    same = [{**row, "counterfactual_id": None} for row in longer["trajectories"]]  # an id names its run
    assert same == [{**row, "counterfactual_id": None} for row in direct["trajectories"]]


@pytest.mark.parametrize("seed", [0, 7])
def test_concurrency_changes_nothing(cli: Any, books: Path, search_books: tuple[str, ...], seed: int) -> None:
    digests = set()
    for workers in (1, 8):
        name = f"workers-{workers}"
        assert cli(*search_books[:-1], name, "--concurrency", workers, "--seed", seed).code == 0
        digests.add(digest(read_journal(journal_of(books, name))[0]))
    assert len(digests) == 1


def test_two_processes_on_one_run(spawn: Start, cli: Any, toys: Path, plugin: Any, search_toys: Any) -> None:
    slow = [plugin("Slow") if item == plugin("Counter") else item for item in search_toys]
    first = spawn("--db", toys, "--json", *slow)
    journal = journal_of(toys, "toy")
    deadline = time.monotonic() + 20
    while size_of(journal) == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    busy = cli(*slow)
    assert (busy.code, busy.codes) == (6, ["TTC-E201"])
    out, err = first.communicate()
    assert first.returncode == 0, err
    assert len(json.loads(out)["trajectories"]) == 3


def test_a_second_interrupt_ends_the_process_at_once(
    spawn: Start, toys: Path, plugin: Callable[[str], str], tmp_path: Path
) -> None:
    """A call that takes very long does not hold up who is in a hurry."""
    log = tmp_path / "calls.txt"
    process = spawn("--db", toys, *metered_search(plugin, log, seconds=5.0))
    deadline = time.monotonic() + 20
    while not calls(log, "begun") and time.monotonic() < deadline:
        time.sleep(0.005)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None, "the first signal waits for calls in flight"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert time.monotonic() - began < 4
    assert process.returncode == -signal.SIGTERM
