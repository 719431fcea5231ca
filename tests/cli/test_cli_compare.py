"""`compare` from end to end: two searches, then what the command says of them and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copytree, rmtree
from statistics import fmean
from typing import Any

import pytest

from ttc_replay.cli.main import main
from ttc_replay.storage.database import Database

TASKS = 24
PAIR_KEYS = """
    a b tasks trajectories left_out mean_a mean_b difference interval test p p_holm wins ties losses spend sentence
"""
PLUGINS = Path(__file__).with_name("toy_plugins.py")
GATE = ("--accept", f"{PLUGINS}:gold")
REFUSING = ("--accept", f"{PLUGINS}:never", "--candidates", "1000")
PAID = ("--policy", f"{PLUGINS}:Metered", "--policy-opt")
RUNS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "deep": ("mcts", 40, GATE),
    "wide": ("beam", 40, GATE),
    "drawn": ("best-of-n", 40, GATE),
    "greedy": ("greedy", 40, GATE),
    "deeper": ("mcts", 42, GATE),
    "shallow": ("mcts", 20, GATE),
    "some": ("mcts", 40, (*GATE, "--where", "task_id < 't21'")),
    "tiny": ("mcts", 7, ()),
    "small": ("mcts", 24, ()),
    "large": ("mcts", 60, ()),
    "voted": ("self-consistency", 60, ()),
    "planned": ("gumbel", 60, ()),
    "refused-small": ("mcts", 12, REFUSING),
    "refused-large": ("mcts", 30, REFUSING),
    "few": ("best-of-n", 8, PAID),
    "many": ("best-of-n", 16, PAID),
}
"""Searches of the toys: algorithm, budget, further options. Those of `GATE` are judged by a held-back reward."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, record: Any, write_logs: Any) -> Path:
    """Twenty-four failed runs of the toy world, each of a task of its own, some out of reach, and `RUNS` over them."""
    folder = tmp_path_factory.mktemp("many")
    records = [record(1, 1, 1, 1, target=6 + index % 9, task=f"t{index:02}") for index in range(TASKS)]
    logs = write_logs(folder / "many.jsonl", records)
    quiet(folder, "ingest", logs, "--dataset", "many")
    world = ("search", "--env", f"{PLUGINS}:Counter", "--reward", "environment")
    for name, (algorithm, budget, more) in RUNS.items():
        policy = (f"log={folder / 'calls.log'}",) if more is PAID else ("--policy", f"{PLUGINS}:Digits")
        quiet(folder, *world, "--algorithm", algorithm, "--budget", budget, "--name", name, *more, *policy)
    return folder


def quiet(folder: Path, *arguments: object) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--db", str(folder / "ttc.duckdb"), "-q", *map(str, arguments)])
    assert left.value.code == 0


@pytest.fixture
def many(searched: Path, tmp_path: Path) -> Path:
    """A copy of the searched toys, at the default place of `cli`."""
    copytree(searched, tmp_path, dirs_exist_ok=True)
    return tmp_path / "ttc.duckdb"


@pytest.fixture
def report(many: Path) -> Callable[[str], dict[str, Any]]:
    """What `search --json` said of a run."""

    def read(name: str) -> dict[str, Any]:
        with Database.open(str(many), create=False) as database:
            row = database.run(name)
            assert row is not None
            return dict(row["report"])

    return read


def means_by_task(said: Mapping[str, Any], task_of: Mapping[str, str]) -> dict[str, float]:
    """The mean of `best` by task, from what `search --json` said."""
    values: dict[str, list[float]] = {}
    for row in said["trajectories"]:
        values.setdefault(task_of[row["id"]], []).append(row["best"])
    return {task: fmean(known) for task, known in values.items()}


# --- what it says ---------------------------------------------------------------------------------------------------


def test_two_algorithms_on_the_bookkeeping_logs(cli: Any, books: Path, search_books: Any) -> None:
    said = {}
    for name in ("mcts", "best-of-n"):
        said[name] = cli(*search_books[:-2], "--name", name, "--algorithm", name, "--json", "-q").document
    task_of = {row["id"]: row["task_id"] for row in cli("ls", "--json").document["rows"]}
    done = cli("compare", "mcts", "best-of-n", "--force", "--json")
    document = done.document
    assert (done.code, done.err) == (0, "")
    assert set(document) == {"v", "runs", "pairs", "warnings"}
    assert [row["run"] for row in document["runs"]] == ["mcts", "best-of-n"]
    assert document["runs"][0]["transitions"] == said["mcts"]["totals"]["transitions"]
    (pair,) = document["pairs"]
    assert set(pair) == set(PAIR_KEYS.split())
    left, right = (means_by_task(report, task_of) for report in said.values())
    assert pair["tasks"] == len(left) == 3
    assert (pair["mean_a"], pair["mean_b"]) == (
        pytest.approx(fmean(left.values())),
        pytest.approx(fmean(right.values())),
    )
    assert pair["wins"] == sum(left[task] > right[task] for task in left)
    assert pair["losses"] == sum(left[task] < right[task] for task in left)
    assert pair["spend"]["equal"]
    assert "share 3 tasks that count: under 20" in document["warnings"][0]


def test_enough_tasks_are_compared_without_force(cli: Any, many: Path, report: Any) -> None:
    done = cli("compare", "deep", "wide", "--json")
    (pair,) = done.document["pairs"]
    assert (done.code, done.document["warnings"]) == (0, [])
    assert (pair["tasks"], pair["test"]) == (TASKS, "mcnemar")
    assert pair["mean_a"] != pair["mean_b"]
    for side, name in (("a", "deep"), ("b", "wide")):
        rows, spent = report(name)["trajectories"], report(name)["totals"]["transitions"]
        solved = sum(row["best"] == 1.0 for row in rows)
        assert pair[f"mean_{side}"] == solved / TASKS
        assert pair["spend"][side]["solved"] == solved
        assert pair["spend"][side]["per_solved"]["transitions"] == pytest.approx(spent / solved)
    shown = cli("compare", "deep", "wide")
    assert pair["sentence"] in shown.out
    assert "cost per solved task" in shown.out
    assert f"{pair['wins']}/{pair['ties']}/{pair['losses']}" in shown.out
    assert "\x1b" not in shown.out


def test_four_runs_are_six_pairs_and_say_holm(cli: Any, many: Path) -> None:
    pairs = cli("compare", "deep", "wide", "drawn", "greedy", "--force", "--json").document["pairs"]
    assert len(pairs) == 6
    assert all(pair["p"] <= pair["p_holm"] and "after Holm" in pair["sentence"] for pair in pairs)


# --- equal spend ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_cut_gives_what_the_smaller_budget_gave(cli: Any, many: Path, report: Any, name: str) -> None:
    """The guide judges, so each value at the cut is known: that of the same search with the smaller budget.

    A solved tree may have had a few asks more under way (`--width`), so the spend is equal only up to those.
    """
    small = report(name)["totals"]
    assert small["mean_best"] < report("large")["totals"]["mean_best"]
    document = cli("compare", name, "large", "--json").document
    (pair,) = document["pairs"]
    assert pair["spend"]["equal"]
    assert pair["spend"]["b"]["cut"] > 0
    assert pair["spend"]["a"]["transitions"] == small["transitions"]
    assert pair["spend"]["b"]["transitions"] == pytest.approx(small["transitions"], rel=0.02)
    assert (pair["wins"], pair["losses"], pair["mean_b"]) == (0, 0, small["mean_best"])
    assert pair["sentence"].endswith("the same in every task.")
    assert [warning for warning in document["warnings"] if "also judges" not in warning] == []
    assert len(document["warnings"]) == 2
    shown = cli("compare", name, "large").out
    assert f"large spent more: {pair['spend']['b']['cut']} of its trajectories" in shown


def test_a_cut_of_which_the_gate_saw_every_leaf_is_exact(cli: Any, many: Path) -> None:
    """This gate refuses all, so it looked at all: the baseline holds at every cut, whatever the guide says."""
    (pair,) = cli("compare", "refused-small", "refused-large", "--json").document["pairs"]
    assert pair["spend"]["equal"]
    assert pair["spend"]["b"]["cut"] == TASKS
    assert (pair["mean_a"], pair["mean_b"]) == (0.0, 0.0)


def test_a_cut_without_a_verdict_is_refused_and_forced_at_unequal_spend(cli: Any, many: Path, report: Any) -> None:
    refused = cli("compare", "shallow", "deep")
    assert (refused.code, refused.codes, refused.out) == (2, ["TTC-E100"], "")
    assert "not on record" in refused.err
    assert "hint: search again under another --name" in refused.err
    assert "--force" in refused.err
    document = cli("compare", "shallow", "deep", "--force", "--json").document
    (pair,) = document["pairs"]
    assert not pair["spend"]["equal"]
    shallow, deep = report("shallow")["totals"], report("deep")["totals"]
    assert (pair["mean_a"], pair["mean_b"]) == (shallow["mean_best"], deep["mean_best"])
    spent = [f"{totals['transitions'] / TASKS:.4g}" for totals in (shallow, deep)]
    assert f"at unequal spend (shallow {spent[0]}, deep {spent[1]} transitions per trajectory)" in pair["sentence"]
    assert any("not on record" in warning for warning in document["warnings"])


def test_a_cut_without_a_verdict_but_nearly_the_same_spend_is_let_pass_and_said(cli: Any, many: Path) -> None:
    rmtree(Path(f"{many}.runs") / "deeper")
    (pair,) = cli("compare", "deep", "deeper", "--json").document["pairs"]
    assert (pair["spend"]["equal"], pair["spend"]["b"]["cut"]) == (True, 0)
    assert pair["spend"]["b"]["near"] > 0
    said = f"deeper spent up to 5 % more in {pair['spend']['b']['near']} trajectories, which count as they ended"
    assert said in cli("compare", "deep", "deeper").out


def test_without_its_journal_a_run_cannot_be_cut(cli: Any, many: Path) -> None:
    assert cli("compare", "small", "large").code == 0
    rmtree(Path(f"{many}.runs") / "large")
    refused = cli("compare", "small", "large")
    assert refused.code == 2
    assert "not on record" in refused.err


def test_a_run_that_votes_cannot_be_cut(cli: Any, many: Path) -> None:
    """Even where the guide judges: the vote at the cut is not on record."""
    refused = cli("compare", "small", "voted")
    assert refused.code == 2
    assert "not on record" in refused.err


def test_the_cut_of_an_algorithm_that_plans_ahead_is_warned_of(cli: Any, many: Path) -> None:
    said = cli("compare", "small", "planned", "--json").document["warnings"]
    assert sum("gumbel plans ahead" in warning for warning in said) == 1
    said = cli("compare", "small", "large", "--json").document["warnings"]
    assert not any("plans ahead" in warning for warning in said)


@pytest.mark.parametrize(("unit", "column"), [("calls", "calls"), ("tokens", "tokens"), ("usd", "cost_usd")])
def test_paid_runs_are_compared_in_calls_tokens_and_money(
    cli: Any, many: Path, report: Any, unit: str, column: str
) -> None:
    few = report("few")["totals"]
    (pair,) = cli("compare", "few", "many", "--spend", unit, "--json").document["pairs"]
    assert (pair["spend"]["unit"], pair["spend"]["equal"]) == (unit, True)
    assert pair["spend"]["a"][column] == pytest.approx(few[column])
    assert pair["spend"]["b"][column] == pytest.approx(few[column], rel=0.02)
    assert pair["spend"]["b"]["cut"] > 0
    assert pair["mean_b"] == few["mean_best"]


# --- what it refuses ------------------------------------------------------------------------------------------------


def test_few_tasks_are_refused(cli: Any, toys: Path, search_toys: Any) -> None:
    for name in ("one", "two"):
        assert cli(*search_toys[:-1], name, "-q").code == 0
    refused = cli("compare", "one", "two")
    assert (refused.code, refused.codes, refused.out) == (2, ["TTC-E100"], "")
    assert "share 3 tasks that count: under 20" in refused.err
    assert "hint:" in refused.err
    assert cli("compare", "one", "two", "--force").code == 0


def test_two_judges_are_refused_and_forced_with_a_warning(cli: Any, many: Path) -> None:
    refused = cli("compare", "deep", "small")
    assert (refused.code, refused.codes) == (2, ["TTC-E100"])
    assert "deep is judged by" in refused.err
    said = cli("compare", "deep", "small", "--force", "--json").document["warnings"]
    assert any(warning.startswith("deep is judged by") for warning in said)
    assert sum(warning.startswith("small: the reward that selected also judges") for warning in said) == 1


def test_a_unit_that_nobody_spent_is_refused(cli: Any, many: Path) -> None:
    refused = cli("compare", "deep", "wide", "--spend", "usd")
    assert refused.code == 2
    assert "deep spent no usd (and 1 more objections)" in refused.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("first", "secnod"), "TTC-E103", "did you mean second?"),
        (("first", "x"), "TTC-E103", "runs here: first, second"),
        (("first",), "TTC-E100", "compared with nothing"),
        ((), "TTC-E100", "Missing argument"),
        (("first", "second", "first"), "TTC-E100", "first is given twice"),
        (("first", "second", "--spend", "euros"), "TTC-E100", "transitions, calls, tokens, usd"),
    ],
)
def test_wrong_words(cli: Any, toys: Path, words: tuple[str, ...], code: str, said: str) -> None:
    with Database.open(str(toys)) as database:
        for name in ("first", "second"):
            database.save_run(name, {}, status="done", algorithm="mcts", judge="gold")
    done = cli("compare", *words)
    assert (done.code, done.codes, done.out) == (2, [code], "")
    assert said in done.err


def test_runs_without_a_common_trajectory_have_nothing_to_show(cli: Any, toys: Path) -> None:
    with Database.open(str(toys)) as database:
        for name in ("first", "second"):
            database.save_run(name, {"accept": {"name": "gold"}}, status="done", algorithm="mcts", judge="gold")
    assert cli("compare", "first", "second").code == 2
    forced = cli("compare", "first", "second", "--force")
    assert (forced.code, forced.codes, forced.out) == (4, ["TTC-E601"], "")


def test_a_run_that_is_not_finished_is_warned_of(cli: Any, many: Path) -> None:
    with Database.open(str(many)) as database:
        row = database.run("wide")
        assert row is not None
        database.save_run("wide", row["configuration"], status="interrupted")
    assert cli("compare", "deep", "wide", "--json").document["warnings"] == [
        "wide is not finished (interrupted): the same search command goes on"
    ]
    assert "warning: wide is not finished" in cli("compare", "deep", "wide").out


def test_what_is_left_out_is_said(cli: Any, many: Path) -> None:
    done = cli("compare", "deep", "some", "--json").document
    assert done["pairs"][0]["left_out"] == {"trivial": 0, "unknown": 0, "only_a": 3, "only_b": 0}
    assert done["warnings"] == ["deep has 3 trajectories that some has not, some 0: only the shared ones count"]
    assert "3 only in deep, 0 only in some" in cli("compare", "deep", "some").out


@pytest.mark.parametrize(
    ("name", "options", "votes", "plans"),
    [
        ("self-consistency", {"answer": "./keys.py:total"}, True, False),
        ("gumbel", {"budget": 20}, False, True),
        ("gumbel", {}, False, True),
        ("mcts", {}, False, False),
    ],
)
def test_what_a_run_is_does_not_depend_on_how_its_options_were_given(
    name: str, options: dict[str, Any], votes: bool, plans: bool
) -> None:
    """An answer key is a text here, and a budget may be among the options."""
    from ttc_replay.cli.compare import _algorithm

    algorithm = _algorithm({"name": name, "options": options})
    assert algorithm is not None
    assert hasattr(algorithm, "vote") is votes
    assert (getattr(algorithm, "budget", None) is not None) is plans
