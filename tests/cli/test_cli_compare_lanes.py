"""`compare` of runs whose lanes or budgets are not the plain ones: `--confirm` and `--allocate adaptive`, end to end.

Every figure is made again from the JSON reports of the searches, and from nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

PLAYS = 12
UNITS = ("transitions", "calls", "tokens", "cost_usd")


def tasks_of(cli: Any) -> dict[str, str]:
    return {row["id"]: row["task_id"] for row in cli("ls", "--json").document["rows"]}


def counted(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that count: not trivial, both lanes known."""
    rows = said["trajectories"]
    return [row for row in rows if not row["trivial"] and None not in (row["baseline"], row["best"])]


def by_task(rows: list[dict[str, Any]], task_of: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tasks.setdefault(task_of[row["id"]], []).append(row)
    return tasks


def check_the_pair(pair: Mapping[str, Any], said: list[dict[str, Any]], task_of: Mapping[str, str]) -> None:
    """Means, wins, spend, successes and prices of a pair of which nothing was cut, from both reports."""
    sides = [by_task(counted(report), task_of) for report in said]
    assert sides[0].keys() == sides[1].keys()
    means = [{task: fmean(row["best"] for row in rows) for task, rows in side.items()} for side in sides]
    assert pair["tasks"] == len(sides[0])
    assert pair["trajectories"] == sum(map(len, sides[0].values()))
    assert pair["difference"] == pytest.approx(fmean(means[0].values()) - fmean(means[1].values()))
    assert pair["wins"] == sum(means[0][task] > means[1][task] + 1e-9 for task in means[0])
    assert pair["losses"] == sum(means[0][task] < means[1][task] - 1e-9 for task in means[0])
    for side, mean, name in zip(sides, means, ("a", "b"), strict=True):
        cost = pair["spend"][name]
        solved = sum(fmean(row["best"] >= 1.0 for row in rows) for rows in side.values())
        assert pair[f"mean_{name}"] == pytest.approx(fmean(mean.values()))
        assert (cost["solved"], cost["cut"]) == (pytest.approx(solved), 0)
        for unit in UNITS:
            assert cost[unit] == pytest.approx(sum(row[unit] for rows in side.values() for row in rows))
            price = sum(fmean(row[unit] for row in rows) for rows in side.values())
            assert cost["per_solved"][unit] == (pytest.approx(price / solved) if solved else None)


# --- --confirm ------------------------------------------------------------------------------------------------------


def test_confirmed_lanes_are_what_is_compared(cli: Any, books: Path, search_books: Any, plugin: Any) -> None:
    """In a world that fails under one seed in three nothing is surely solved, and the means say so."""
    said = []
    for name, more in (("sure", ()), ("plain", ("--algorithm", "best-of-n")), ("other", ("--confirm", PLAYS + 1))):
        searched = [plugin("Moody") if word == "bookkeeping" else word for word in search_books[:-1]]
        confirm = ("--confirm", PLAYS) if name != "other" else ()
        said.append(cli(*searched, name, *confirm, *more, "--json", "-q").document)
    task_of = tasks_of(cli)
    found = [row for row in said[0]["trajectories"] if row["counterfactual_id"]]
    assert found
    for row in found:
        won = row["best"] * PLAYS
        assert won == pytest.approx(round(won)), "a mean over the plays"
        assert 0.0 < row["best"] < 1.0
    done = cli("compare", "sure", "plain", "--force", "--json")
    assert (done.code, done.err) == (0, "")
    (pair,) = done.document["pairs"]
    check_the_pair(pair, said[:2], task_of)
    assert pair["spend"]["a"]["solved"] == 0.0
    assert pair["spend"]["a"]["per_solved"]["transitions"] is None, "nothing is surely solved: no price"
    assert not any("--confirm" in warning for warning in done.document["warnings"])
    warned = cli("compare", "sure", "other", "--force", "--json").document["warnings"]
    assert "sure and other have different values of --confirm" in warned


@pytest.fixture
def lucky(cli: Any, record: Any, write_logs: Any, tmp_path: Path, plugin: Any) -> Any:
    """Twenty-four failed runs of the toy world with chances; the function searches them and gives the report."""
    records = [record(1, 1, 1, 1, target=6 + index % 4, task=f"t{index:02}") for index in range(24)]
    assert cli("ingest", write_logs(tmp_path / "lucky.jsonl", records), "-q").code == 0

    def search(name: str, budget: int, *more: object) -> Any:
        world = ("search", "--env", plugin("Lucky"), "--policy", plugin("Digits"), "--reward", "environment")
        plays = ("--confirm", PLAYS, "--candidates", 1000)
        return cli(*world, *plays, "--budget", budget, "--name", name, *more, "--json", "-q").document

    return search


def test_a_confirmed_run_that_is_cut_gives_what_the_smaller_budget_gave(cli: Any, lucky: Any) -> None:
    """The baseline of a trajectory that found nothing by then is its own verdict, not the mean of later plays."""
    small, large = lucky("small", 7), lucky("large", 60)
    better = [row for row in large["trajectories"] if row["counterfactual_id"] and row["baseline"] > 0.0]
    nothing_yet = {row["id"] for row in small["trajectories"] if not row["counterfactual_id"]}
    assert nothing_yet & {row["id"] for row in better}, "some records are lucky under a seed, too"
    (pair,) = cli("compare", "small", "large", "--json").document["pairs"]
    assert (pair["spend"]["equal"], pair["spend"]["b"]["cut"] > 0) == (True, True)
    assert (pair["mean_a"], pair["mean_b"]) == (small["totals"]["mean_best"], small["totals"]["mean_best"])
    assert (pair["wins"], pair["losses"]) == (0, 0)


# --- --allocate adaptive --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "budgets"),
    [("mcts", (16, 16)), ("greedy", (24, 24)), ("mcts", (12, 16))],
    ids=["asks of one child", "asks of several children", "unequal spend"],
)
def test_a_run_that_moves_its_budget_is_compared_on_average(
    cli: Any, books: Path, search_books: Any, algorithm: str, budgets: tuple[int, int]
) -> None:
    said = []
    for name, budget in zip(("uniform", "adaptive"), budgets, strict=True):
        chosen = ("--budget", budget, "--name", name, "--allocate", name, "--algorithm", algorithm)
        said.append(cli(*search_books[:-4], *chosen, "--json", "-q").document)
    most = [max(row["transitions"] for row in report["trajectories"]) for report in said]
    assert most[0] <= budgets[0]
    assert most[1] > budgets[1], "some get more than their share"
    assert said[1]["totals"]["transitions"] <= budgets[1] * len(said[1]["trajectories"]), "but all together do not"

    task_of = tasks_of(cli)
    document = cli("compare", "uniform", "adaptive", "--force", "--json").document
    (pair,) = document["pairs"]
    check_the_pair(pair, said, task_of)
    spent = [sum(row["transitions"] for row in counted(report)) for report in said]
    each = [amount / pair["trajectories"] for amount in spent]
    equal = max(spent) <= 1.05 * min(spent)
    assert equal is (budgets[0] == budgets[1])
    assert (pair["spend"]["on_average"], pair["spend"]["equal"]) == (True, equal)
    told = f"at equal spend, on average {max(each):.4g} transitions per trajectory"
    if not equal:
        told = f"at unequal spend (uniform {each[0]:.4g}, adaptive {each[1]:.4g} transitions per trajectory)"
    assert told in pair["sentence"]
    assert any("on average, by over 5 %" in warning for warning in document["warnings"]) is not equal
