"""Self-consistency: votes over whole runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.search.self_consistency import confidence
from ttc_replay.storage.errors import UsageError


def one(algorithm: search.Algorithm, tree: search.Tree) -> search.Ask:
    (ask,) = algorithm.ask(tree, 1)
    return ask


def poll(ends: list[Child], **options: Any) -> search.Tree:
    """A tree in which so many one-step runs have ended."""
    algorithm, tree = search.create("self-consistency", **options), search.Tree()
    for end in ends:
        algorithm.tell(tree, one(algorithm, tree).id, [end], more=True)
    return tree


def end(key: str, value: float | None = 0.0, state: str | None = None, samples: int = 1) -> Child:
    return Child(key, value=value, terminal=True, state_key=state, samples=samples)


def asked_until_decided(answers: list[str], **options: Any) -> int:
    """How many runs with these answers are drawn, in this order, one at a time, before there are no more asks."""
    algorithm, tree = search.create("self-consistency", **options), search.Tree()
    for count, answer in enumerate(answers):
        if not (asks := algorithm.ask(tree, 1)):
            return count
        algorithm.tell(tree, asks[0].id, [end(f"run {count}", state=answer)], more=True)
    return len(answers) if algorithm.ask(tree, 1) else -len(answers)


# Votes


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_run_of_the_most_frequent_answer_wins(toy: Any, seed: int, width: int) -> None:
    world = toy.World(seed=seed, branching=6, fewest=5, max_depth=5, early_end=0.0, sampling=True)
    tree = search.Tree(seed=seed)
    toy.play(search.create("self-consistency", n=40), world, tree, width=width)
    ends = [node for node in range(len(tree)) if tree.terminal[node]]
    counted: Counter[str] = Counter()
    for node in ends:
        counted[tree.key[node]] += tree.ends[node]
    assert tree.votes == counted
    assert tree.ended == 40
    most = max(counted.values())
    winners = [node for node in ends if counted[tree.key[node]] == most]
    best = tree.best()
    assert best in winners
    assert tree.value[best] == max(tree.value[node] or 0.0 for node in winners)


def test_the_majority_may_be_worth_less_than_one_lucky_run() -> None:
    tree = poll([end("lucky", 9.0), end("a", 0.2, "x"), end("b", 0.3, "x")])
    assert tree.votes == {"lucky": 1.0, "x": 2.0}
    assert tree.best() == 3
    best_of_n = search.Tree()
    algorithm = search.create("best-of-n")
    for child in (end("lucky", 9.0), end("a", 0.2, "x"), end("b", 0.3, "x")):
        algorithm.tell(best_of_n, one(algorithm, best_of_n).id, [child], more=True)
    assert (best_of_n.votes, best_of_n.best()) == ({}, 1)


def test_equal_votes_are_decided_by_value() -> None:
    assert poll([end("a", 0.1), end("b", 0.4), end("c", 0.2)]).best() == 2


def test_every_sample_is_a_vote() -> None:
    tree = poll([end("a", 1.0), end("b", 0.0, samples=2), end("a", 1.0), end("b", 0.0, samples=3)])
    assert tree.votes == {"a": 2.0, "b": 5.0}
    assert tree.best() == 2


def test_the_record_does_not_vote_but_a_run_that_repeats_it_does() -> None:
    algorithm, tree = search.create("self-consistency"), search.Tree()
    tree.spine(["recorded"], 0.0)
    algorithm.tell(tree, one(algorithm, tree).id, [end("a", 1.0)], more=True)
    assert tree.votes == {"a": 1.0}
    algorithm.tell(tree, one(algorithm, tree).id, [end("recorded")], more=True)
    assert tree.votes == {"a": 1.0, "recorded": 1.0}


def test_weighted_votes_are_values() -> None:
    ends = [end("a", 0.3), end("a", 0.3), end("b", 0.75), end("c", None)]
    assert poll(ends).votes == {"a": 2.0, "b": 1.0, "c": 1.0}
    weighted = poll(ends, vote="weighted")
    assert weighted.votes == {"a": 0.6, "b": 0.75}
    assert weighted.best() == 2


def test_negative_values_are_shifted_by_the_lowest_one_whenever_it_came() -> None:
    ends = [end("a", 1.0), end("b", -2.0), end("a", 1.0), end("c", 4.0), end("d", -4.0)]
    expected = {"a": 10.0, "b": 2.0, "c": 8.0, "d": 0.0}
    for order in (ends, ends[::-1]):
        assert poll(order, vote="weighted").votes == expected


def test_a_verdict_that_comes_late_makes_a_vote() -> None:
    tree = poll([end("a", None), end("b", 0.5), end("a", 0.25)], vote="weighted")
    assert tree.votes == {"a": 0.5, "b": 0.5}


# Answers


def test_an_end_answers_with_its_state_else_with_its_last_action() -> None:
    tree = poll([end("a", state="same"), end("b", state="same"), end("c")])
    assert tree.votes == {"same": 2.0, "c": 1.0}
    assert [tree.answer(node) for node in (1, 2, 3)] == ["same", "same", "c"]


def test_an_answer_of_ones_own_and_abstentions() -> None:
    calls: list[int] = []

    def parity(tree: search.Tree, node: int) -> str | None:
        calls.append(node)
        number = tree.key[node]
        return {"x": None, "y": ""}.get(number, "odd" if number in "13579" else "even")

    ends = [end("x", 9.0), end("2", 0.1), end("3", 0.9), end("4", 0.2), end("x", 9.0), end("y", 9.0), end("x", 9.0)]
    tree = poll(ends, answer=parity)
    assert tree.votes == {"even": 2.0, "odd": 1.0}
    assert [tree.standing(node) for node in range(1, 6)] == [0.0, 2.0, 1.0, 2.0, 0.0]
    assert tree.best() == 4
    assert calls == [1, 2, 3, 4, 5]
    assert poll(ends).best() == 1


def test_where_all_abstain_the_best_value_wins() -> None:
    tree = poll([end("a", 0.1), end("b", 0.8)], answer=lambda tree, node: None)
    assert (tree.votes, tree.best()) == ({}, 2)


# Stopping early


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (4, 0), (3, 3), (7, 2), (12, 11), (40, 25)])
def test_the_confidence_is_the_integral_of_the_paper(first: int, second: int) -> None:
    def integral(low: float, high: float, cells: int = 4000) -> float:
        width = (high - low) / cells
        middles = [low + (cell + 0.5) * width for cell in range(cells)]
        return width * sum(p**first * (1 - p) ** second for p in middles)

    assert confidence(first, second) == pytest.approx(integral(0.5, 1.0) / integral(0.0, 1.0), abs=1e-6)


def test_some_confidences_exactly() -> None:
    assert [confidence(count, 0) for count in range(5)] == [0.5, 0.75, 0.875, 0.9375, 0.96875]
    assert confidence(5000, 5000) == 0.5


@pytest.mark.parametrize(
    ("answers", "options", "drawn"),
    [
        ("aaaaaaaa", {"stop_early": 0.95}, 4),
        ("aaaaaaaa", {"stop_early": 0.9}, 3),
        ("aaaaaaaa", {"stop_early": 0.9375}, 3),
        ("baaaaaaa", {"stop_early": 0.95}, 7),
        ("abababab", {"stop_early": 0.95}, 8),
        ("aaaaaaaa", {}, 8),
        # 1.0: as soon as nobody can reach the leader, and not before
        ("aaaaaaaaa", {"stop_early": 1.0, "n": 9}, 5),
        ("aaabaabbb", {"stop_early": 1.0, "n": 9}, 6),
        ("ababababa", {"stop_early": 1.0, "n": 9}, -9),
        ("aabb", {"stop_early": 1.0, "n": 4}, -4),
        ("aaaaaaaaa", {"stop_early": 1.0}, 9),
        ("aaaaaaaaa", {"stop_early": 0.95, "n": 5}, 3),
        # weights may still change with the range of values
        ("aaaaaaaaa", {"stop_early": 1.0, "n": 9, "vote": "weighted"}, -9),
        ("aaaaaaaaa", {"stop_early": 0.95, "n": 9, "vote": "weighted"}, 4),
    ],
)
def test_when_it_stops(answers: str, options: dict[str, Any], drawn: int) -> None:
    assert asked_until_decided(list(answers), **options) == drawn


def test_abstentions_decide_nothing() -> None:
    assert asked_until_decided(["a"] * 8, stop_early=0.95, answer=lambda tree, node: None) == 8


@pytest.mark.parametrize("width", [1, 8])
def test_stopping_at_certainty_never_changes_the_answer_and_saves(toy: Any, width: int) -> None:
    saved = 0
    for seed in range(12):
        world = toy.World(seed=seed, branching=3, fewest=2, max_depth=4, sampling=True, gaps=0.2)
        answers, margins, spent = [], [], []
        for stop_early in (None, 1.0):
            tree = search.Tree(seed=seed)
            algorithm = search.create("self-consistency", n=15, stop_early=stop_early)
            played = toy.play(algorithm, world, tree, width=width)
            ranked = sorted(tree.votes.values(), reverse=True)
            margins.append(ranked[0] - (ranked[1] if len(ranked) > 1 else 0.0))
            spent.append(len(played.asks))
            best = tree.best()
            assert best is not None
            answers.append(tree.answer(best))
            assert not tree.tips
            assert not any(tree.virtual)
            assert not tree.asks
        if margins[0]:
            assert answers[0] == answers[1]
        assert spent[1] <= spent[0]
        saved += spent[1] < spent[0]
    assert saved > 3


def test_runs_under_way_are_given_up_when_it_is_decided() -> None:
    algorithm, tree = search.create("self-consistency", stop_early=0.8), search.Tree()
    for name in ("a", "b", "c"):
        tree.back_up(0, 0.0)  # the first rollouts have ended: several may be open
        asks = algorithm.ask(tree, 1)
        algorithm.tell(tree, asks[0].id, [Child(name)], more=True)
    tree.back_up(0, 0.0)
    (first, second) = algorithm.ask(tree, 2)
    algorithm.tell(tree, first.id, [end("x")], more=True)
    algorithm.tell(tree, second.id, [end("x")], more=True)
    assert algorithm.ask(tree, 8) == []
    assert not tree.tips
    assert not any(tree.virtual)


@pytest.mark.parametrize("at_a_tip", [False, True])
def test_runs_under_way_may_still_reach_the_leader(at_a_tip: bool) -> None:
    algorithm, tree = search.create("self-consistency", stop_early=1.0, n=4), search.Tree()
    algorithm.tell(tree, one(algorithm, tree).id, [end("x", state="a")], more=True)
    for _ in range(4):
        tree.back_up(0, 0.0)  # rollouts have ended: several may be open
    first, second = algorithm.ask(tree, 2)
    if at_a_tip:
        algorithm.tell(tree, second.id, [Child("y")], more=True)
    algorithm.tell(tree, first.id, [end("z", state="a")], more=True)
    assert algorithm.ask(tree, 8)  # two to nothing, one run under way and one to come


def test_branching_off_the_record_goes_on_until_it_is_decided(toy: Any) -> None:
    world = toy.World(seed=2, branching=4, fewest=4, max_depth=5, early_end=0.0, sampling=True)
    drawn = {}
    for stop_early in (None, 0.9):
        tree = search.Tree(seed=2)
        toy.record(tree, world, ("a",) * 5)
        algorithm = search.AutoBranch(search.create("self-consistency", n=30, stop_early=stop_early))
        toy.play(algorithm, world, tree, width=4)
        drawn[stop_early] = sum(tree.votes.values())
        best = tree.best()
        assert best is not None
        assert tree.standing(best) == max(tree.votes.values())
    assert drawn[None] == 30
    assert drawn[0.9] < 30


@pytest.mark.parametrize(
    "options",
    [
        {"vote": "borda"},
        {"stop_early": 0.4},
        {"stop_early": 1.5},
        {"stop_early": "early"},
        {"answer": "last line"},
        {"n": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("self-consistency", **options)
