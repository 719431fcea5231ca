"""Stochastic worlds: actions that are played again, what selection makes of their outcomes, and when it is over."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.search.algorithm import prior_scale
from ttc_replay.search.outcomes import SETTLED_AFTER, Outcomes


@dataclass(frozen=True, kw_only=True)
class Teller(search.TreeSearch):
    """What all algorithms do with what they are told, and nothing else: it asks for nothing."""

    def _next(self, tree: search.Tree) -> search.Ask | None:
        return None


def one(algorithm: search.Algorithm, tree: search.Tree) -> search.Ask:
    """The next ask."""
    (ask,) = algorithm.ask(tree, 1)
    return ask


def stochastic(**options: Any) -> search.Algorithm:
    """MCTS that plays actions again."""
    return search.create("mcts", **{"outcome_coefficient": 1.0, "widening_coefficient": 9.0, **options})


def again(tree: search.Tree, action: str, *children: Child, node: int = 0, **options: Any) -> list[int]:
    """The action is played again, with these outcomes."""
    tree.hold(node)
    return Teller().tell(tree, tree.open_ask(node, 1, action).id, children, **options)


def begun(*children: Child) -> search.Tree:
    """A tree whose root has these children, and no others."""
    tree = search.Tree(seed=1)
    tree.hold(0)
    Teller().tell(tree, tree.open_ask(0, len(children) + 1).id, children)
    return tree


def test_another_outcome_is_a_sibling_that_knows_its_action() -> None:
    tree = begun(Child("a", prior=0.75), Child("b", prior=0.25))
    assert again(tree, "a", Child("a~1", prior=0.5)) == [3]
    assert (tree.action, tree.key) == (["", "a", "b", "a"], ["", "a", "b", "a~1"])
    assert (tree.children(0), tree.parent[3], tree.samples[1:]) == ([1, 2, 3], 0, [1, 1, 1])
    assert (tree.prior_sum[0], tree.prior_count[0]) == (1.0, 2)


def test_a_known_outcome_is_merged_and_counted() -> None:
    tree = begun(Child("a"))
    for key in ("a", "a~1", "a~1", "a"):
        again(tree, "a", Child(key))
    assert (len(tree), tree.samples[1:]) == (3, [3, 2])
    assert tree.outcomes.draws(0, "a", 1) == {1: 3, 2: 2}
    again(tree, "a", Child("a~1", samples=4))
    assert tree.outcomes.draws(0, "a", 1) == {1: 3, 2: 6}


def test_proposals_of_an_action_are_no_draws_of_the_world() -> None:
    tree = begun(Child("a", samples=5))
    again(tree, "a", Child("a~1"))
    assert tree.outcomes.draws(0, "a", 1) == {1: 1, 2: 1}


@pytest.mark.parametrize("failed", [None, "timeout"])
def test_playing_an_action_in_vain_never_completes_the_node(failed: str | None) -> None:
    tree = begun(Child("a"))
    tree.complete[0] = False
    for _ in range(5):
        again(tree, "a", failed=failed)
    assert (tree.complete[0], tree.status[0], tree.failures[0], tree.fruitless[0]) == (False, "open", 0, 0)
    assert tree.reason[0] == failed
    assert tree.outcomes.settled(0, "a")


def test_only_draws_in_a_row_that_bring_nothing_new_settle_an_action() -> None:
    outcomes = Outcomes()
    for new in [False] * (SETTLED_AFTER - 1) + [True] + [False] * (SETTLED_AFTER - 1):
        outcomes.note(0, "a", new)
        assert not outcomes.settled(0, "a")
        assert outcomes.unsettled(0, 1)
    outcomes.note(0, "a", False)
    assert outcomes.settled(0, "a")
    assert not outcomes.unsettled(0, 1)
    assert outcomes.unsettled(0, 2)
    outcomes.note(0, "a", True)
    assert outcomes.unsettled(0, 1)


def test_off_by_default(toy: Any) -> None:
    world = toy.World(seed=3, outcomes=3, process=True)
    played = toy.play(search.create("mcts"), world, search.Tree(), width=4)
    assert {ask.action for ask in played.asks} == {None}
    assert not played.tree.outcomes.wanted


@pytest.mark.parametrize(("coefficient", "exponent"), [(1.0, 0.5), (2.0, 0.5), (0.5, 1.0), (3.0, 0.0)])
def test_an_action_is_played_as_often_as_double_progressive_widening_says(coefficient: float, exponent: float) -> None:
    tree = begun(Child("a", value=0.5))
    algorithm = stochastic(outcome_coefficient=coefficient, outcome_exponent=exponent)
    played = 1
    for _ in range(80):
        ask = one(algorithm, tree)
        visits = sum(tree.visits[child] for child in tree.children(0))
        limit = math.ceil(coefficient * visits**exponent)
        if ask.node == 0:
            assert (ask.action, ask.count) == ("a", 1)
            assert played < limit
            played += 1
            algorithm.tell(tree, ask.id, [Child(f"a~{ask.id}", value=0.5)])
        else:
            assert played >= limit
            algorithm.tell(tree, ask.id, [Child(f"n{ask.id}", value=0.5)], more=True)
    assert played == len(tree.children(0)) > 2


def test_a_play_that_is_open_counts() -> None:
    tree = begun(Child("a", value=0.5))
    tree.back_up(1, 0.5)  # two visits: two plays
    algorithm = stochastic(outcome_exponent=1.0, widening_coefficient=0.0)
    assert [(ask.node, ask.action) for ask in algorithm.ask(tree, 3)] == [(0, "a"), (1, None)]


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("draws", [(1, 1), (1, 5), (7, 1)])
def test_an_action_is_worth_the_mean_over_its_outcomes_by_how_often_they_were_drawn(
    weight: float, draws: tuple[int, int]
) -> None:
    values = {"a": [0.9, 0.7], "a~1": [0.1, 0.2, 0.3, 0.0], "b": [0.5], "c": [0.0], "d": [1.0]}
    for rival in (0.3, 0.45, 0.55, 0.7, 0.85):
        values["b"] = [rival]
        tree = begun(Child("a"), Child("b"), Child("c"), Child("d", terminal=True))
        for _ in range(draws[0] - 1):
            again(tree, "a", Child("a"))
        for _ in range(draws[1]):
            again(tree, "a", Child("a~1"))
        for _ in range(SETTLED_AFTER):
            again(tree, "d")
        for node in range(1, len(tree)):
            for value in values[tree.key[node]]:
                tree.back_up(node, value)
        summary = (lambda kept: sum(kept) / len(kept)) if weight == 0.0 else max
        whole = (draws[0] * summary(values["a"]) + draws[1] * summary(values["a~1"])) / sum(draws)
        algorithm = stochastic(selection="uct", exploration=0.0, max_weight=weight, outcome_coefficient=1e-9)
        ask = one(algorithm, tree)
        assert tree.action[ask.node] == ("a" if whole > rival else "b")


def test_visits_and_priors_of_an_action_are_those_of_all_its_outcomes() -> None:
    tree = begun(Child("a", prior=0.5), Child("b", prior=0.5))
    again(tree, "a", Child("a~1"))
    for node, visits in ((1, 3), (3, 4), (2, 5)):
        for _ in range(visits):
            tree.back_up(node, 0.5)
    tree.bounds.include(1.0)
    # PUCT: equal Q and P, so the fewer visits of b (5 against 3 + 4) decide; child by child a would be taken
    algorithm = stochastic(exploration=1.0, outcome_coefficient=1e-9)
    assert one(algorithm, tree).node == 2


def test_outcomes_are_gone_on_in_as_often_as_the_world_drew_them() -> None:
    went = Counter[int]()
    for seed in range(400):
        tree = search.Tree(seed=seed)
        tree.hold(0)
        Teller().tell(tree, tree.open_ask(0, 2).id, [Child("a", value=0.5)])
        for _ in range(3):
            again(tree, "a", Child("a~1", value=0.5))
        went[one(stochastic(outcome_coefficient=1e-9), tree).node] += 1
    assert set(went) == {1, 2}
    assert abs(went[2] / 400 - 0.75) < 0.07


def test_an_action_whose_only_outcome_has_ended_is_played_again_until_it_is_settled() -> None:
    tree = begun(Child("a", value=0.25, terminal=True))
    tree.outcomes.wanted = True
    assert tree.status[0] == "exhausted"  # it ended before anybody wanted more
    tree = search.Tree()
    algorithm = stochastic()
    algorithm.tell(tree, one(algorithm, tree).id, [Child("a", value=0.25, terminal=True)])
    algorithm.tell(tree, one(algorithm, tree).id, [])
    answers = [Child("a~1", value=1.0, terminal=True), *[Child("a", value=0.25, terminal=True)] * 9]
    for turn, child in enumerate(answers[: 1 + SETTLED_AFTER]):
        ask = one(algorithm, tree)
        assert (ask.node, ask.action, tree.status[0], turn) == (0, "a", "open", turn)
        assert algorithm.ask(tree, 4) == []  # one play at a time when there is nothing to go on in
        algorithm.tell(tree, ask.id, [child])
    assert (algorithm.ask(tree, 1), tree.status[0]) == ([], "exhausted")
    assert (tree.visits[0], tree.best()) == (2 + SETTLED_AFTER, 2)


def test_an_open_play_counts_as_a_visit_of_its_action() -> None:
    tree = begun(Child("a", value=0.5), Child("b", value=0.5))
    asks = stochastic(selection="uct", outcome_coefficient=2.0).ask(tree, 2)
    assert {ask.action for ask in asks} == {"a", "b"}


def test_an_end_counts_once_in_the_visits_of_its_action() -> None:
    tree = begun(Child("a", value=0.5))
    algorithm = stochastic(outcome_exponent=1.0)
    for _ in range(3):
        again(tree, "a", Child("a~1", value=0.5, terminal=True))
    assert (tree.visits[2], one(algorithm, tree).node) == (3, 1)


def test_outcomes_are_no_actions_for_widening_and_priors() -> None:
    tree = begun(Child("a", prior=0.5, value=0.5))
    tree.complete[0] = False
    for key in ("a~1", "a~2", "a~3"):
        again(tree, "a", Child(key, value=0.5))
    again(tree, "a", Child("a~3", prior=0.25))
    assert (prior_scale(tree, 0), tree.prior[4]) == ((0.5, 0.5), 0.25)
    algorithm = stochastic(widening_coefficient=1.0)  # four visits: two actions
    tree.open_ask(0, 1, "a")
    ask = one(algorithm, tree)
    assert (ask.node, ask.action) == (0, None)


def test_a_known_outcome_that_is_drawn_again_goes_on_below_it() -> None:
    tree = begun(Child("a"))
    algorithm = stochastic(outcome_coefficient=2.0)
    tree.back_up(1, 0.5)
    ask = one(algorithm, tree)
    assert (ask.node, ask.action) == (0, "a")
    algorithm.tell(tree, ask.id, [Child("a")])
    assert list(tree.tips) == [1]
    assert (one(algorithm, tree).node, tree.ended) == (1, 1)


@pytest.mark.parametrize("width", [1, 8])
def test_the_better_gamble_is_found_where_single_outcomes_deceive(width: int) -> None:
    """`safe` always ends with 0.6; `gamble` first answers with 1.0, and later with 0.0 in nine of ten plays."""
    right = {}
    for coefficient in (0.0, 2.0):
        right[coefficient] = 0
        for seed in range(20):
            tree = search.Tree(seed=seed)
            algorithm = search.create(
                "mcts", selection="uct", exploration=0.5, widening_coefficient=9.0, outcome_coefficient=coefficient
            )
            waiting: list[search.Ask] = []
            for _ in range(80):
                waiting += algorithm.ask(tree, width - len(waiting))
                if not waiting:
                    break
                ask = waiting.pop(0)
                if ask.node:
                    lucky = tree.key[tree.path(ask.node)[1]] == "gamble"
                    value = 0.6 if tree.key[tree.path(ask.node)[1]] == "safe" else float(lucky)
                    children = [Child(f"n{ask.id}", value=value)]
                elif ask.action == "gamble":
                    lost = tree.draw(0, 1000 + ask.id) < 0.9
                    children = [Child("gamble~lost" if lost else "gamble", value=float(not lost))]
                elif ask.action == "safe":
                    children = [Child("safe", value=0.6)]
                else:
                    children = [Child("gamble", value=1.0), Child("safe", value=0.6)][len(tree.children(0)) :][:1]
                algorithm.tell(tree, ask.id, children, more=ask.node != 0)
            visits = Counter[str]()
            for child in tree.children(0):
                visits[tree.action[child]] += tree.visits[child]
            right[coefficient] += visits["safe"] > visits["gamble"]
    assert right[0.0] == 0
    assert right[2.0] >= 18


def test_the_recorded_action_may_not_be_played_again_when_the_record_must_be_left() -> None:
    tree = search.Tree()
    tree.spine(["r", "end"], 0.5)
    tree.complete[0] = True
    tree.leave_spine = True
    assert stochastic(outcome_coefficient=5.0).ask(tree, 1) == []
    again(tree, "r", Child("r~1", value=0.5))
    assert stochastic(outcome_coefficient=5.0).ask(tree, 1) == []
    tree.leave_spine = False
    assert one(stochastic(outcome_coefficient=5.0), tree).action == "r"


def test_a_search_without_repeated_actions_ends_alike_whatever_the_world(toy: Any) -> None:
    trees = []
    for outcomes in (1, 3):
        played = toy.play(search.create("mcts"), toy.World(seed=4, outcomes=outcomes), search.Tree(), width=2)
        trees.append(toy.rows(played.tree))
    assert trees[0] == trees[1]


def test_every_outcome_of_a_small_world_is_found(toy: Any) -> None:
    world = toy.World(seed=7, outcomes=2, branching=2, max_depth=2, early_end=0.0)
    tree = search.Tree()
    toy.play(stochastic(outcome_exponent=1.0), world, tree)
    assert tree.status[0] == "exhausted"
    found = Counter((tree.parent[node], tree.action[node]) for node in range(1, len(tree)))
    assert max(found.values()) == 2
    assert sum(found.values()) > 1.5 * len(found)
