"""The tree alone: what tells do to its columns."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError


def ask_root(tree: search.Tree, algorithm: search.Algorithm) -> search.Ask:
    """One ask, which must be at the root."""
    (ask,) = algorithm.ask(tree, 1)
    assert ask.node == 0
    return ask


def test_a_new_tree_is_its_root() -> None:
    tree = search.Tree(seed=5)
    assert len(tree) == 1
    assert (tree.parent, tree.depth, tree.visits, tree.value_sum) == ([-1], [0], [0], [0.0])
    assert (tree.status[0], tree.best(), tree.mean(0), tree.path(0)) == ("open", None, None, [0])


def test_the_spine_counts_once_on_its_path_and_costs_no_visit_of_the_search() -> None:
    tree = search.Tree()
    ids = tree.spine(["a", "b", "c"], 0.25)
    assert ids == [1, 2, 3]
    assert tree.visits == [1, 1, 1, 1]
    assert tree.value_sum == [0.25] * 4
    assert list(tree.spine) == [False, True, True, True]
    assert [tree.terminal[node] for node in ids] == [False, False, True]
    assert [tree.status[node] for node in ids] == ["open", "open", "closed"]
    assert (tree.value[3], tree.best(), tree.ended) == (0.25, 3, 0)
    assert (tree.bounds.low, tree.bounds.high) == (0.25, 0.25)


def test_a_spine_of_unknown_value_has_no_visit() -> None:
    tree = search.Tree()
    leaf = tree.spine(["a", "b"], None)[-1]
    assert tree.visits == [0, 0, 0]
    assert (tree.value[leaf], tree.imputed[leaf], tree.best()) == (None, False, leaf)


def test_a_spine_may_end_unfinished_and_may_be_empty() -> None:
    tree = search.Tree()
    leaf = tree.spine(["a", "b"], 1.0, terminal=False)[-1]
    assert (tree.terminal[leaf], tree.status[leaf], tree.visits[0]) == (False, "open", 1)
    assert search.Tree().spine([], 1.0) == []


def test_the_spine_comes_first_and_once() -> None:
    tree = search.Tree()
    tree.spine(["a"], 1.0)
    with pytest.raises(UsageError, match="before anything else"):
        tree.spine(["a"], 1.0)


def test_best_prefers_value_then_depth_then_id_and_never_the_record() -> None:
    tree = search.Tree()
    tree.spine(["r", "end"], 0.9)
    algorithm = search.create("beam", branching=4, beam_width=1)
    told = algorithm.tell(
        tree,
        ask_root(tree, algorithm).id,
        [
            Child("deep", 0.9),
            Child("x", value=0.5, terminal=True),
            Child("y", value=0.5, terminal=True),
            Child("z", 0.1),
        ],
    )
    assert tree.best() == told[1]
    (ask,) = algorithm.ask(tree, 1)
    assert ask.node == told[0]
    same, better = algorithm.tell(
        tree, ask.id, [Child("same", value=0.5, terminal=True), Child("better", value=0.6, terminal=True)]
    )
    assert tree.best() == better
    assert (tree.depth[same], tree.depth[better]) == (2, 2)


def test_of_equal_ends_the_shorter_run_is_best_even_when_it_comes_later() -> None:
    tree = search.Tree()
    algorithm = search.create("best-of-n")
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a")], more=True)
    (ask,) = algorithm.ask(tree, 1)
    (deep,) = algorithm.tell(tree, ask.id, [Child("end", value=0.5, terminal=True)], more=True)
    assert tree.best() == deep
    (shallow,) = algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("b", value=0.5, terminal=True)], more=True)
    assert tree.best() == shallow


def test_children_of_one_key_are_merged() -> None:
    tree = search.Tree()
    algorithm = search.create("beam", branching=3)
    first, second, third = algorithm.tell(
        tree, ask_root(tree, algorithm).id, [Child("a", samples=2), Child("a", prior=0.4), Child("b", prior=0.1)]
    )
    assert (first, second, third) == (1, 1, 2)
    assert (tree.samples[1], tree.prior[1], len(tree)) == (3, 0.4, 3)
    assert tree.children(0) == [1, 2]


def test_children_returns_a_copy() -> None:
    tree = search.Tree()
    tree.spine(["a"], 1.0)
    tree.children(0).clear()
    assert tree.children(0) == [1]


def test_a_known_end_that_is_told_again_is_a_vote() -> None:
    tree = search.Tree()
    algorithm = search.create("best-of-n")
    for _ in range(2):
        algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a", value=0.5, terminal=True)], more=True)
    assert (tree.visits[1], tree.ends[1], tree.value_sum[1], tree.samples[1]) == (2, 2, 1.0, 2)


def test_a_known_state_that_is_told_again_is_evaluated_once() -> None:
    tree = search.Tree()
    beam = search.create("beam", branching=2)
    beam.tell(tree, ask_root(tree, beam).id, [Child("a", value=0.5), Child("a", value=0.75)])
    assert (tree.visits[1], tree.value[1]) == (1, 0.5)


def test_a_recorded_state_that_gets_a_value_backs_it_up() -> None:
    tree = search.Tree()
    tree.spine(["a", "b"], 0.0)
    beam = search.create("beam", branching=1)
    assert beam.tell(tree, ask_root(tree, beam).id, [Child("a", value=0.5)]) == [1]
    assert (tree.value[1], tree.visits[1], tree.value_sum[1]) == (0.5, 2, 0.5)


@pytest.mark.parametrize(("earlier", "expected"), [([], 0.0), ([0.75, 0.5], 0.5), ([-3.0], -3.0)])
def test_an_end_without_a_verdict_backs_up_the_lowest_value(earlier: list[float], expected: float) -> None:
    tree = search.Tree()
    algorithm = search.create("beam", branching=8)
    children = [Child(f"v{value}", value=value, terminal=True) for value in earlier]
    *_, last = algorithm.tell(tree, ask_root(tree, algorithm).id, [*children, Child("none", terminal=True)])
    assert (tree.imputed[last], tree.value[last], tree.value_sum[last]) == (True, None, expected)
    assert (tree.visits[last], tree.status[last], tree.reason[last]) == (1, "closed", "no verdict")
    assert tree.best() != last
    assert tree.bounds.known is bool(earlier)


def test_an_end_whose_verdict_comes_later_is_no_longer_imputed() -> None:
    tree = search.Tree()
    algorithm = search.create("best-of-n")
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a", terminal=True)], more=True)
    assert (tree.imputed[1], tree.best()) == (True, None)
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a", value=1.0, terminal=True)], more=True)
    assert (tree.imputed[1], tree.best(), tree.visits[1], tree.value_sum[1]) == (False, 1, 2, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_unknown_and_says_so(value: float) -> None:
    tree = search.Tree()
    algorithm = search.create("beam", branching=2)
    end, state = algorithm.tell(
        tree, ask_root(tree, algorithm).id, [Child("end", value=value, terminal=True), Child("state", value=value)]
    )
    assert (tree.imputed[end], tree.value[end], tree.visits[state]) == (True, None, 0)
    assert "not finite" in str(tree.reason[end])
    assert "not finite" in str(tree.reason[state])


@pytest.mark.parametrize("prior", [math.nan, math.inf, -0.5])
def test_a_prior_that_is_no_probability_is_unknown(prior: float) -> None:
    tree = search.Tree()
    algorithm = search.create("mcts")
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a", prior=prior)])
    assert tree.prior[1] is None


def test_telling_twice_changes_nothing_and_an_unknown_ask_is_refused() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts")
    ask = ask_root(tree, algorithm)
    told = algorithm.tell(tree, ask.id, [Child("a", value=0.5)])
    assert algorithm.tell(tree, ask.id, [Child("b", value=0.9, terminal=True)]) == told
    assert (len(tree), tree.visits[0]) == (2, 1)
    with pytest.raises(UsageError, match="no ask 7"):
        algorithm.tell(tree, 7, [])


def test_fewer_children_than_asked_end_the_node_unless_there_may_be_more() -> None:
    for more, expected in ((False, "exhausted"), (True, "open")):
        tree = search.Tree()
        algorithm = search.create("beam", branching=3)
        algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a", value=1.0, terminal=True)], more=more)
        assert tree.status[0] == expected


def test_exhaustion_goes_upwards() -> None:
    tree = search.Tree()
    algorithm = search.create("beam", branching=2)
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a")])
    (ask,) = algorithm.ask(tree, 1)
    assert tree.status[:2] == ["open", "open"]
    algorithm.tell(tree, ask.id, [Child("b", value=0.0, terminal=True)])
    assert tree.status == ["exhausted", "exhausted", "closed"]
    assert algorithm.ask(tree, 1) == []


@pytest.mark.parametrize("name", ["best-of-n", "beam", "mcts"])
def test_a_state_without_actions_backs_up_the_lowest_value(name: str) -> None:
    tree = search.Tree()
    algorithm = search.create(name)
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a")], more=True)
    (ask,) = (ask for ask in algorithm.ask(tree, 1) if ask.node == 1)
    algorithm.tell(tree, ask.id, [])
    assert (tree.status[1], tree.imputed[1], tree.visits[:2]) == ("exhausted", True, [1, 1])
    assert tree.reason[1] == "no children"


@pytest.mark.parametrize("name", ["best-of-n", "beam", "mcts"])
def test_a_node_that_brings_nothing_new_is_asked_three_times(name: str) -> None:
    tree = search.Tree()
    algorithm = search.create(name)
    asked = 0
    while asks := algorithm.ask(tree, 1):
        asked += 1
        algorithm.tell(tree, asks[0].id, [], more=True)
    assert (asked, tree.status[0]) == (3, "exhausted")


def test_one_failure_ends_an_unvisited_rollout_tip() -> None:
    tree = search.Tree()
    tree.spine(["r"], -2.0)
    algorithm = search.create("mcts")
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a")], more=True)
    (ask,) = algorithm.ask(tree, 1)
    assert (ask.node, tree.virtual[2]) == (2, 1)
    assert algorithm.tell(tree, ask.id, [], failed="timeout") == []
    assert (tree.status[2], tree.reason[2], tree.imputed[2]) == ("failed", "timeout", True)
    assert (tree.value_sum[2], tree.visits[0], tree.virtual[0]) == (-2.0, 2, 0)


@pytest.mark.parametrize("name", ["best-of-n", "beam", "mcts"])
def test_three_failures_end_the_root(name: str) -> None:
    tree = search.Tree()
    algorithm = search.create(name)
    for turn in range(3):
        assert tree.status[0] == "open"
        algorithm.tell(tree, ask_root(tree, algorithm).id, [], failed=f"down {turn}")
    assert (tree.status[0], tree.reason[0], tree.failures[0], tree.visits[0]) == ("failed", "down 2", 3, 0)
    assert algorithm.ask(tree, 1) == []


def test_failures_at_a_node_with_children_keep_what_it_has() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts", widening_coefficient=9)
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a", value=0.5)], more=True)
    for _ in range(3):
        algorithm.tell(tree, ask_root(tree, algorithm).id, [], failed="down")
    assert (tree.status[0], tree.complete[0], tree.reason[0]) == ("open", True, "down")
    (ask,) = algorithm.ask(tree, 1)
    assert ask.node == 1


def test_pruning_closes_a_state_with_its_reason_and_keeps_its_visit() -> None:
    tree = search.Tree()
    algorithm = search.create("beam", branching=3, prune_below=0.3)
    low, high, end = algorithm.tell(
        tree,
        ask_root(tree, algorithm).id,
        [Child("low", value=0.25), Child("high", value=0.3), Child("end", value=0.1, terminal=True)],
    )
    assert [tree.status[node] for node in (low, high, end)] == ["pruned", "open", "closed"]
    assert (tree.reason[low], tree.visits[0]) == ("value 0.25 is below 0.3", 3)
    assert [ask.node for ask in algorithm.ask(tree, 8)] == [high]


def test_pruning_by_quantile_needs_values_to_compare_with() -> None:
    tree = search.Tree()
    algorithm = search.create("beam", branching=12, prune_quantile=0.5)
    values = [0.0, *(0.1 * index for index in range(1, 10)), 0.05, 0.95]
    ids = algorithm.tell(
        tree, ask_root(tree, algorithm).id, [Child(f"c{index}", value=value) for index, value in enumerate(values)]
    )
    assert [tree.status[node] for node in ids] == ["open"] * 10 + ["pruned", "open"]
    assert tree.reason[ids[10]] == "value 0.05 is below the 0.5 quantile of 10"


def test_pruned_children_let_their_parent_end() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts", prune_below=0.5, expand=2)
    algorithm.tell(tree, ask_root(tree, algorithm).id, [Child("a", value=0.1)])
    assert (tree.status, algorithm.ask(tree, 4)) == (["exhausted", "pruned"], [])


def test_the_order_of_ties_depends_on_seed_and_path_only(toy: Any) -> None:
    def order(seed: int, keys: list[str]) -> dict[str, int]:
        tree = search.Tree(seed=seed)
        algorithm = search.create("beam", branching=len(keys))
        algorithm.tell(tree, ask_root(tree, algorithm).id, [Child(key) for key in keys])
        return {tree.key[node]: tree.order[node] for node in tree.children(0)}

    assert order(1, ["a", "b", "c"]) == order(1, ["c", "a", "b"])
    ranks = {tuple(sorted("abcd", key=order(seed, list("abcd")).__getitem__)) for seed in range(40)}
    assert len(ranks) > 10


def test_draws_are_spread_over_the_unit_interval() -> None:
    tree = search.Tree(seed=3)
    draws = [tree.draw(0, turn) for turn in range(2000)]
    assert len(set(draws)) == 2000
    assert 0.0 <= min(draws) < 0.01
    assert 0.99 < max(draws) < 1.0
    assert abs(sum(draws) / 2000 - 0.5) < 0.03
