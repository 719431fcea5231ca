"""Pairing at equal spend, the figures of a pair, what speaks against it, and the sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ttc_replay.replay.comparison import Pair, Searched, SearchedRun, compare, compare_pair, most_known
from ttc_replay.replay.comparison_report import cost_rows, document_of, sentence
from ttc_replay.replay.curve import Curve, Spend, Told
from ttc_replay.replay.objections import FEWEST_TASKS, objections, warnings_of

CONFIGURATION: dict[str, Any] = {
    "accept": {"name": "gold", "options": {}},
    "rewards": [[{"name": "guide", "options": {}}, 1.0]],
    "combine": "sum",
    "environment": {"name": "world", "options": {}},
    "success_at": 1.0,
    "candidates": 3,
}


def searched(
    best: float | None = 0.0,
    task: str = "t",
    *,
    spent: int = 64,
    stopped: str = "budget",
    baseline: float | None = 0.0,
    trivial: bool = False,
    calls: int = 0,
    tokens: int = 0,
    usd: float = 0.0,
) -> Searched:
    return Searched(task, trivial, baseline, best, stopped, Spend(spent, calls, tokens, usd))


def run(name: str, rows: Mapping[str, Searched], **more: Any) -> SearchedRun:
    plain: dict[str, Any] = {"status": "done", "algorithm": "mcts", "judge": "gold", "configuration": CONFIGURATION}
    return SearchedRun(name=name, rows=rows, **{**plain, **more})


def solving(name: str, solved: range, tasks: int = 40, **more: Any) -> SearchedRun:
    """One trajectory a task; those in `solved` succeed."""
    rows = {f"r{n}": searched(float(n in solved), f"t{n:02}", **more) for n in range(tasks)}
    return run(name, rows)


def climbing(value: float | None, at: int, of: int) -> Curve:
    """A curve whose only leaf is told at spend `at` of `of`; `value` None: nobody judged it."""
    told = Told()
    for spent in range(1, of + 1):
        told.take({"event": "tell", "nodes": [spent], "spent": 1})
    if value is not None:
        told.verdicts[at] = (value, value >= 1.0)
    return Curve(told, [at], 3, 0.0)


# --- the spend at which two are compared ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "most", "bound"),
    [
        ((64, "budget"), (64, "budget"), 64, True),
        ((64, "budget"), (20, "budget"), 20, True),
        ((64, "budget"), (20, "solved"), 64, True),  # B would not have spent more
        ((64, "budget"), (20, "exhausted"), 64, True),
        ((64, "solved"), (20, "budget"), 20, True),
        ((30, "solved"), (20, "solved"), 30, False),
        ((30, "error"), (60, "solved"), 30, True),  # what an error cut off is not known
    ],
)
def test_the_largest_spend_at_which_both_are_known(
    a: tuple[int, str], b: tuple[int, str], most: int, bound: bool
) -> None:
    left, right = (searched(spent=spent, stopped=stopped) for spent, stopped in (a, b))
    assert most_known(left, right, "transitions") == (most, bound)
    assert most_known(right, left, "transitions") == (most, bound)


def pair_of_one(a: Searched, b: Searched, curve: Curve | None = None, unit: str = "transitions") -> Pair:
    """Two runs of one trajectory; the curve is that of B."""
    return compare_pair(run("A", {"r": a}), run("B", {"r": b}, curve={"r": curve}.get), unit)


@pytest.mark.parametrize(
    ("curve", "value", "spent", "how"),
    [
        (climbing(1.0, 20, 128), 1.0, 64, "cut"),
        (climbing(1.0, 65, 128), 0.0, 64, "cut"),  # found later than A had time for
        (climbing(0.5, 20, 128), 0.0, 64, "cut"),  # refused
    ],
)
def test_the_run_that_spent_more_counts_as_it_stood_at_the_cut(
    curve: Curve, value: float, spent: int, how: str
) -> None:
    found = pair_of_one(searched(spent=64), searched(1.0, spent=128), curve).pairing
    assert found.equal
    assert (found.matches[0].b.value, found.matches[0].b.spend.transitions, found.matches[0].b.how) == (
        value,
        spent,
        how,
    )
    assert found.matches[0].a.how == "whole"
    assert (found.cuts("cut"), found.cuts("nearly")) == ((0, 1), (0, 0))


@pytest.mark.parametrize("curve", [None, climbing(None, 20, 128)])
def test_where_the_cut_has_no_verdict_all_count_as_they_ended_and_it_is_said(curve: Curve | None) -> None:
    rows = {"r": searched(spent=64), "s": searched(spent=64, task="u")}
    more = {"r": searched(1.0, spent=128), "s": searched(1.0, spent=128, task="u")}
    curves = {"r": curve, "s": climbing(1.0, 100, 128)}
    pair = compare_pair(run("A", rows), run("B", more, curve=curves.get))
    assert (pair.pairing.equal, pair.pairing.undecided) == (False, 1)
    assert [match.b.value for match in pair.pairing.matches] == [1.0, 1.0]
    (said,) = [item for item in objections(pair) if "not on record" in item.message]
    assert "A and B spent different transitions" in said.message
    assert "of 1 trajectories" in said.message
    assert "64" in said.hint
    assert "at unequal spend (A 64, B 128 transitions per trajectory)" in sentence(pair, pair.p)


def test_within_five_percent_a_value_without_verdict_counts_as_it_ended() -> None:
    near = pair_of_one(searched(tokens=1000, calls=1), searched(1.0, tokens=1050, calls=1), unit="tokens")
    assert near.pairing.equal
    assert near.pairing.cuts("nearly") == (0, 1)
    assert near.sides[1].mean == 1.0
    far = pair_of_one(searched(tokens=1000, calls=1), searched(1.0, tokens=1051, calls=1), unit="tokens")
    assert not far.pairing.equal
    cut = pair_of_one(searched(spent=100), searched(1.0, spent=105), climbing(1.0, 101, 105))
    assert cut.sides[1].mean == 0.0, "a known cut is taken, however near"


def test_a_tree_that_ended_by_itself_is_not_cut_and_needs_no_curve() -> None:
    pair = pair_of_one(searched(1.0, spent=10, stopped="solved"), searched(1.0, spent=60))
    assert pair.pairing.cuts("cut") == (0, 0)
    assert [side.spend.transitions for side in pair.sides] == [10, 60]


def test_budgets_that_move_between_trajectories_are_compared_on_average() -> None:
    moving = {**CONFIGURATION, "allocate": "adaptive"}
    even = {f"r{n}": searched(float(n < 3), f"t{n}", spent=50) for n in range(20)}
    moved = {name: replace(row, spend=Spend(97 if row.best else 40)) for name, row in even.items()}
    pair = compare_pair(run("A", even), run("B", moved, configuration=moving))
    assert (pair.pairing.equal, pair.pairing.on_average, pair.pairing.cuts("cut")) == (True, True, (0, 0))
    assert [side.spend.transitions for side in pair.sides] == [1000, 971]
    assert "at equal spend, on average 50 transitions per trajectory" in sentence(pair, pair.p)
    assert objections(pair) == []
    more = {name: replace(row, spend=Spend(53)) for name, row in even.items()}
    apart = compare_pair(run("A", more, configuration=moving), run("B", even))
    assert "A and B spent different transitions on average" in objections(apart)[0].message
    assert "at unequal spend (A 53, B 50 transitions per trajectory)" in sentence(apart, apart.p)
    uniform = {**CONFIGURATION, "allocate": "uniform"}
    assert not compare_pair(run("A", even), run("B", even, configuration=uniform)).pairing.on_average


# --- what is counted ------------------------------------------------------------------------------------------------


def test_trivial_tasks_unknown_values_and_strangers_are_left_out_and_counted() -> None:
    a = {
        "both": searched(1.0, "t0"),
        "trivial here": searched(1.0, "t1", trivial=True),
        "trivial there": searched(1.0, "t2"),
        "unknown": searched(1.0, "t3", baseline=None),
        "unjudged": searched(None, "t4"),
        "only a": searched(1.0, "t5"),
    }
    b = {name: replace(row, best=0.0, trivial=name == "trivial there") for name, row in a.items() if name != "only a"}
    b |= {"only b 1": searched(), "only b 2": searched()}
    pair = compare_pair(run("A", a), run("B", b))
    assert [match.item for match in pair.pairing.matches] == ["both"]
    assert pair.pairing.left_out == {"trivial": 2, "unknown": 2, "only_a": 1, "only_b": 2}


def test_a_task_is_the_mean_of_its_trajectories() -> None:
    """Task u has three trajectories and counts once."""
    a = {"r": searched(1.0, "t", spent=10), "s": searched(1.0, "u", spent=20)}
    a |= {"v": searched(0.0, "u", spent=20), "w": searched(0.0, "u", spent=50)}
    b = {name: replace(row, best=0.0) for name, row in a.items()}
    pair = compare_pair(run("A", a), run("B", b))
    left, right = pair.sides
    assert list(pair.differences) == [1.0, pytest.approx(1 / 3)]
    assert (pair.test, pair.p) == ("wilcoxon", 0.5)
    assert [left.mean, right.mean] == pytest.approx([2 / 3, 0.0])
    assert left.solved == pytest.approx(4 / 3)
    assert left.spend.transitions == 100
    assert left.per_solved["transitions"] == pytest.approx((10 + 30) / (4 / 3))
    assert set(right.per_solved.values()) == {None}, "nothing solved: no price"


def test_success_is_what_each_run_calls_so() -> None:
    rows = {"r": searched(0.5)}
    easy = run("A", rows, configuration={**CONFIGURATION, "success_at": 0.5})
    assert [side.solved for side in compare_pair(easy, run("B", rows)).sides] == [1.0, 0.0]


def test_costs_that_nobody_knows_are_no_zeros() -> None:
    rows = {"r": searched(1.0, calls=4, tokens=90), "s": searched(1.0, "u", calls=2, tokens=10)}
    costs = compare_pair(run("A", rows), run("B", rows)).sides[0].per_solved
    assert costs == {"transitions": 64, "calls": 3, "tokens": 50, "cost_usd": None}


def test_success_and_failure_go_to_mcnemar() -> None:
    pair = compare_pair(solving("A", range(10)), solving("B", range(8, 11)))
    assert (pair.test, pair.discordant) == ("mcnemar", (8, 1))
    assert pair.p == 2 * 10 / 512
    partial = compare_pair(solving("A", range(10)), run("B", {f"r{n}": searched(0.5, f"t{n:02}") for n in range(40)}))
    assert partial.test == "wilcoxon"


def test_the_interval_holds_the_difference() -> None:
    pair = compare_pair(solving("A", range(20)), solving("B", range(5)))
    low, high = pair.interval or (0.0, 0.0)
    assert 0.2 < low < 15 / 40 < high < 0.55


# --- what speaks against it -----------------------------------------------------------------------------------------


def said_of(a: SearchedRun, b: SearchedRun, unit: str = "transitions") -> list[str]:
    return [item.message for item in objections(compare_pair(a, b, unit))]


def test_few_tasks_are_an_objection() -> None:
    assert said_of(solving("A", range(5)), solving("B", range(6))) == []
    few = said_of(solving("A", range(5), FEWEST_TASKS - 1), solving("B", range(6), FEWEST_TASKS - 1))
    assert few == ["A and B share 19 tasks that count: under 20 chance decides"]
    assert said_of(solving("A", range(5), FEWEST_TASKS), solving("B", range(6), FEWEST_TASKS)) == []


@pytest.mark.parametrize(
    "other",
    [
        {"accept": {"name": "silver", "options": {}}},
        {"accept": {"name": "gold", "options": {"strict": True}}},
        {"accept": None},
    ],
)
def test_two_judges_are_an_objection(other: dict[str, Any]) -> None:
    a = solving("A", range(5))
    (said,) = said_of(a, replace(a, name="B", judge="other", configuration={**CONFIGURATION, **other}))
    assert said.startswith("A is judged by gold, B by other")


def test_without_a_gate_the_guide_is_the_judge() -> None:
    guided = {**CONFIGURATION, "accept": None}
    a = replace(solving("A", range(5)), configuration=guided)
    assert said_of(a, replace(a, name="B")) == []
    assert len(said_of(a, replace(a, name="B", configuration={**guided, "combine": "min"}))) == 1
    rewards = [[{"name": "guide", "options": {}}, 2.0]]
    assert len(said_of(a, replace(a, name="B", configuration={**guided, "rewards": rewards}))) == 1


def test_a_unit_that_says_nothing_is_an_objection() -> None:
    free, paid = solving("A", range(5)), solving("B", range(5), calls=2, usd=0.1)
    assert said_of(paid, replace(paid, name="C"), "usd") == []
    assert said_of(free, paid, "usd")[0] == "A spent no usd"
    assert said_of(paid, replace(paid, name="C"), "tokens") == [
        "the tokens of 40 trajectories of B are not known",
        "the tokens of 40 trajectories of C are not known",
    ]


def warned(a: SearchedRun, b: SearchedRun) -> list[str]:
    return warnings_of([a, b], [compare_pair(a, b)])


def test_nothing_to_warn_of() -> None:
    assert warned(solving("A", range(5)), solving("B", range(6))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accept": None}, "B: the reward that selected also judges (gold)"),
        ({"accept": {"name": "guide", "options": {}}}, "B: the reward that selected also judges (gold)"),
        ({"environment": {"name": "world", "options": {"hard": True}}}, "A and B have different environments"),
        ({"success_at": 0.5}, "A and B have different values of --success-at"),
        ({"confirm": 3}, "A and B have different values of --confirm"),
        ({"candidates": 9}, "A and B have different numbers of --candidates"),
    ],
)
def test_configurations_that_differ_are_warned_of(change: dict[str, Any], said: str) -> None:
    a = solving("A", range(5))
    (warning,) = warned(a, replace(a, name="B", configuration={**CONFIGURATION, **change}))
    assert warning.startswith(said)


def test_other_records_and_unfinished_runs_are_warned_of() -> None:
    a = solving("A", range(5))
    assert warned(a, solving("B", range(5), 38)) == [
        "A has 2 trajectories that B has not, B 0: only the shared ones count"
    ]
    assert warned(a, replace(a, name="B", status="interrupted")) == [
        "B is not finished (interrupted): the same search command goes on"
    ]


def test_a_cut_of_an_algorithm_that_plans_ahead_is_warned_of() -> None:
    a = run("A", {"r": searched(spent=64)})
    b = run("B", {"r": searched(1.0, spent=128)}, curve={"r": climbing(1.0, 5, 128)}.get, algorithm="gumbel")
    assert warned(a, b) == []
    (warning,) = warned(a, replace(b, plans_ahead=True))
    assert warning.startswith("B was cut, but gumbel plans ahead")
    assert warned(a, replace(b, plans_ahead=True, rows=a.rows)) == [], "nothing was cut"


# --- the sentence and the document ----------------------------------------------------------------------------------


def test_the_sentence_of_success_and_failure() -> None:
    pair = compare_pair(solving("A", range(10)), solving("B", range(3)))
    assert sentence(pair, 0.0156, 3) == (
        "A solved 7 more of 40 tasks than B at the same 64 transitions per trajectory; "
        "p = 0.016 after Holm: unlikely to be chance."
    )
    turned = compare_pair(solving("B", range(3)), solving("A", range(10)))
    assert sentence(turned, 0.0004) == (
        "A solved 7 more of 40 tasks than B at the same 64 transitions per trajectory; "
        "p < 0.001: unlikely to be chance."
    )
    assert sentence(pair, 0.05).endswith("p = 0.05: may be chance.")
    quick = compare_pair(pair.a, solving("B", range(3), spent=9, stopped="solved"))
    assert "within the same 64 transitions per trajectory" in sentence(quick, 0.05)
    alike = compare_pair(solving("A", range(3)), solving("B", range(3, 6)))
    assert sentence(alike, 1.0).startswith("A solved as many of 40 tasks as B at the same 64")
    assert sentence(compare_pair(alike.a, alike.a), 1.0).endswith("p = 1: the same in every task.")


def test_the_sentence_of_means_and_of_other_spends() -> None:
    better = run("A", {"r": searched(0.75, calls=1, usd=0.25), "s": searched(0.5, "u", calls=1, usd=0.5)})
    worse = run("B", {"r": searched(0.5, calls=1, usd=0.25), "s": searched(0.25, "u", calls=1, usd=0.5)})
    expected = "A has a mean value of 0.625 over 2 tasks, B of 0.375, at "
    assert sentence(compare_pair(better, worse), 0.5) == (
        f"{expected}the same 64 transitions per trajectory; p = 0.5: may be chance."
    )
    assert sentence(compare_pair(worse, better, "usd"), 0.5) == (
        f"{expected}equal spend, at most 0.5 USD per trajectory; p = 0.5: may be chance."
    )
    swapped = run("B", {"r": searched(0.5), "s": searched(0.75, "u")})
    assert sentence(compare_pair(better, swapped), 1.0).startswith(
        "A and B have the same mean value over 2 tasks (0.625)"
    )


def test_three_runs_are_three_pairs_after_holm() -> None:
    runs = [solving("A", range(10)), solving("B", range(3)), solving("C", range(9))]
    compared = compare(runs)
    assert [(pair.a.name, pair.b.name) for pair, _ in compared] == [("A", "B"), ("A", "C"), ("B", "C")]
    plain = [pair.p for pair, _ in compared]
    assert plain == [2 / 2**7, 1.0, 2 / 2**6]
    assert [p_holm for _, p_holm in compared] == [3 * 2 / 2**7, 1.0, 2 * 2 / 2**6]
    document = document_of(runs, compared)
    assert [row["p_holm"] for row in document["pairs"]] == [p_holm for _, p_holm in compared]
    assert "after Holm" in document["pairs"][0]["sentence"]


def test_the_document_has_the_figures_of_the_pair() -> None:
    a, b = solving("A", range(10), calls=2, usd=0.5, tokens=7), solving("B", range(8, 11), spent=32, stopped="solved")
    document = document_of([a, b], compare([a, b]))
    assert document["runs"][0] == {
        **{
            "run": "A",
            "algorithm": "mcts",
            "judge": "gold",
            "status": "done",
            "trajectories": 40,
            "environment_class": "unknown",
        },
        **{"transitions": 2560, "calls": 80, "tokens": 280, "cost_usd": 20.0},
    }
    (pair,) = document["pairs"]
    assert (pair["a"], pair["b"], pair["tasks"], pair["trajectories"]) == ("A", "B", 40, 40)
    assert (pair["wins"], pair["ties"], pair["losses"]) == (8, 31, 1)
    assert (pair["mean_a"], pair["mean_b"], pair["difference"]) == (0.25, 0.075, pytest.approx(0.175))
    assert (pair["spend"]["unit"], pair["spend"]["equal"], pair["spend"]["most"]) == ("transitions", True, 64)
    assert pair["spend"]["a"]["per_solved"]["cost_usd"] == 2.0
    assert pair["spend"]["b"] == {
        **{"transitions": 1280, "calls": 0, "tokens": 0, "cost_usd": 0.0, "solved": 3.0, "cut": 0, "near": 0},
        "per_solved": {"transitions": pytest.approx(1280 / 3), "calls": 0, "tokens": 0, "cost_usd": 0},
    }
    assert [row["transitions"] for row in cost_rows(document)] == [256.0, pytest.approx(1280 / 3)]


def test_runs_that_share_nothing_make_an_empty_pair() -> None:
    pair = compare_pair(run("A", {"r": searched()}), run("B", {"s": searched()}))
    assert (list(pair.differences), pair.p, pair.interval) == ([], 1.0, None)
    assert objections(pair)[0].message.startswith("A and B share 0 tasks")


def test_rows_come_as_they_are_stored() -> None:
    stored = {
        **{"trajectory_id": "r", "detail": {"task_id": "t"}, "trivial": False, "baseline": 0.25, "best": 1.0},
        **{"stopped": "solved", "transitions": 3, "calls": 2, "tokens": 1, "cost_usd": 0.5},
    }
    assert Searched.of_row(stored) == Searched("t", False, 0.25, 1.0, "solved", Spend(3, 2, 1, 0.5))
    assert Searched.of_row({**stored, "detail": None}).task == "r"
