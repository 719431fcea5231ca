"""`search`: every algorithm by name, votes over a user's answer key, allocation, merged states, confirmation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.storage.database import Database


def configuration(database: Path, run: str) -> dict[str, Any]:
    with Database.open(str(database), create=False) as archive:
        row = archive.run(run)
    assert row is not None
    found: dict[str, Any] = row["configuration"]
    return found


@pytest.mark.parametrize("name", search.names())
def test_every_algorithm_searches_resumes_and_stays_within_its_budget(
    cli: Any, toys: Path, search_toys: tuple[str, ...], name: str
) -> None:
    command = (*search_toys[:-4], "--budget", "30", "--algorithm", name, "--name", name)
    first = cli(*command, "--json")
    assert first.code == 0, first.err
    report = first.document
    assert report["algorithm"] == name
    assert all(0 < row["transitions"] <= 30 for row in report["trajectories"])
    again = cli(*command, "--json").document
    assert again["trajectories"] == report["trajectories"], "there is nothing left to do"


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (("--allocate", "adaptive"), "allocate", "adaptive"),
        (("--merge-states",), "merge_states", True),
        (("--confirm", "3"), "confirm", 3),
    ],
)
def test_options_that_change_the_result_are_part_of_what_a_run_is(
    cli: Any, toys: Path, search_toys: tuple[str, ...], options: tuple[str, ...], key: str, value: Any
) -> None:
    assert cli(*search_toys, *options).code == 0
    assert configuration(toys, "toy")[key] == value
    clash = cli(*search_toys)
    assert (clash.code, clash.codes) == (2, ["TTC-E105"])
    assert key in clash.err


def test_adaptive_gives_the_hard_run_what_the_easy_ones_leave_over(
    cli: Any, toys: Path, search_toys: tuple[str, ...]
) -> None:
    command = (*search_toys[:-4], "--budget", "60", "--candidates", "1")
    uniform = cli(*command, "--name", "u", "--json").document
    adaptive = cli(*command, "--name", "a", "--allocate", "adaptive", "--json").document
    hard = {row["id"]: row["transitions"] for row in uniform["trajectories"] if row["stopped"] == "budget"}
    assert hard
    assert any(row["transitions"] > hard[row["id"]] for row in adaptive["trajectories"] if row["id"] in hard)
    assert adaptive["totals"]["transitions"] <= 3 * 60


def test_votes_are_counted_over_the_users_answer_key(
    cli: Any, toys: Path, search_toys: tuple[str, ...], plugin: Callable[[str], str]
) -> None:
    command = (*search_toys[:-4], "--budget", "60", "--algorithm", "self-consistency", "--name", "votes")
    assert cli(*command, "--algorithm-opt", f"answer={plugin('total_of')}").code == 0
    journal = (Path(f"{toys}.runs") / "votes" / "journal.jsonl").read_text(encoding="utf-8")
    assert '"state_key":"9"' in journal


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--allocate", "fair"), "one of: uniform, adaptive"),
        (("--algorithm-opt", "answer=nowhere"), "no answer key named 'nowhere'"),
        (("--algorithm-opt", "answer=./nowhere.py:total"), "there is no file"),
        (("--algorithm", "mtcs"), "did you mean mcts"),
        (("--algorithm", "mcts", "--algorithm-opt", "backup=max"), "no option 'backup'"),
    ],
)
def test_wrong_options_are_told_before_anything_is_spent(
    cli: Any, toys: Path, search_toys: tuple[str, ...], options: tuple[str, ...], said: str
) -> None:
    done = cli(*search_toys, *options)
    assert done.code == 2
    assert said in done.err
    assert not Path(f"{toys}.runs").exists()


def test_a_planning_algorithm_takes_its_budget_as_an_option_too(
    cli: Any, toys: Path, search_toys: tuple[str, ...]
) -> None:
    done = cli(*search_toys, "--algorithm", "gumbel", "--algorithm-opt", "budget=20", "--json")
    assert done.code == 0, done.err
