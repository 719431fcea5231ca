"""Best-of-n: independent whole runs, n of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError


@pytest.mark.parametrize("width", [1, 4, 16])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_n_rollouts_are_begun_and_ended(toy: Any, width: int, n: int) -> None:
    world = toy.World(seed=1, branching=4, fewest=4, max_depth=5, sampling=True, early_end=0.1)
    tree = search.Tree()
    played = toy.play(search.create("best-of-n", n=n), world, tree, width=width)
    assert tree.memory["best-of-n"] == n
    assert tree.visits[0] == n
    assert sum(tree.ends[node] for node in range(len(tree)) if tree.terminal[node]) == n
    assert all(ask.count == 1 for ask in played.asks)
    finished = [tree.value[node] for node in range(len(tree)) if tree.terminal[node]]
    best = tree.best()
    assert best is not None
    assert tree.value[best] == max(value for value in finished if value is not None)


def test_without_n_it_goes_on_until_nothing_is_left(toy: Any) -> None:
    world = toy.World(seed=3, branching=3, max_depth=4)
    tree = search.Tree()
    toy.play(search.create("best-of-n"), world, tree, width=4)
    assert sum(tree.terminal) == len(list(world.leaves()))
    best = tree.best()
    assert best is not None
    assert tree.value[best] == world.optimum()


def test_values_of_states_do_not_end_a_rollout(toy: Any) -> None:
    world = toy.World(seed=5, branching=3, fewest=3, max_depth=4, early_end=0.0, process=True)
    tree = search.Tree()
    toy.play(search.create("best-of-n", n=3), world, tree)
    assert sum(tree.terminal) == 3
    assert tree.visits[0] == 3 * 4


def test_a_complete_node_draws_by_priors_and_seed() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(300):
        tree = search.Tree(seed=seed)
        beam = search.create("beam", branching=4)
        beam.tell(tree, beam.ask(tree, 1)[0].id, [Child("rare", 0.1), Child("often", 0.8), Child("x", 0.1)])
        (ask,) = search.create("best-of-n").ask(tree, 1)
        drawn[tree.key[ask.node]] += 1
    assert 200 < drawn["often"] < 280
    assert 10 < drawn["rare"] < 60


def test_complete_nodes_without_priors_draw_evenly() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(300):
        tree = search.Tree(seed=seed)
        beam = search.create("beam", branching=4)
        beam.tell(tree, beam.ask(tree, 1)[0].id, [Child("a", 0.9), Child("b"), Child("c")])
        (ask,) = search.create("best-of-n").ask(tree, 1)
        drawn[tree.key[ask.node]] += 1
    assert min(drawn.values()) > 70


def test_rollouts_begin_slowly_and_open_ones_go_on_first(toy: Any) -> None:
    world = toy.World(seed=7, branching=4, fewest=4, max_depth=6, sampling=True, early_end=0.0)
    algorithm, tree = search.create("best-of-n"), search.Tree()
    waiting: list[search.Ask] = []
    most_open = 0
    while tree.visits[0] < 40:
        before = len(waiting) + len(tree.tips)
        waiting += algorithm.ask(tree, 8 - len(waiting))
        now = len(waiting) + len(tree.tips)
        assert now <= max(before, min(8, 1 + tree.ended // 2))
        assert not tree.tips
        most_open = max(most_open, now)
        ask = waiting.pop(0)
        children, options = world.expand(toy.path_keys(tree, ask.node), ask, [])
        algorithm.tell(tree, ask.id, children, **options)
    assert most_open == 8


def test_a_short_budget_still_ends_with_finished_runs(toy: Any) -> None:
    world = toy.World(seed=9, branching=4, fewest=4, max_depth=12, sampling=True, early_end=0.0)
    tree = search.Tree()
    toy.play(search.create("best-of-n"), world, tree, width=8, budget=64)
    assert sum(tree.terminal) >= 3


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "8"])
def test_n_is_a_count(n: Any) -> None:
    with pytest.raises(UsageError, match="n must be a whole number"):
        search.create("best-of-n", n=n)


def test_a_rollout_that_meets_a_known_state_goes_on_below_it() -> None:
    tree, algorithm = search.Tree(), search.create("best-of-n")
    for told, more in (([Child("a")], True), ([Child("b")], False)):
        (ask,) = algorithm.ask(tree, 1)
        algorithm.tell(tree, ask.id, told, more=more)
    tree.complete[1] = True
    (ask,) = algorithm.ask(tree, 1)
    algorithm.tell(tree, ask.id, [Child("end", value=0.0, terminal=True)], more=True)
    (ask,) = algorithm.ask(tree, 1)
    assert (ask.node, algorithm.tell(tree, ask.id, [Child("a")], more=True)) == (0, [1])
    (ask,) = algorithm.ask(tree, 1)
    assert (tree.key[ask.node], tree.virtual) == ("b", [1, 1, 1, 0])
    algorithm.tell(tree, ask.id, [Child("other end", value=1.0, terminal=True)], more=True)
    assert not any(tree.virtual)


def test_a_rollout_that_leaves_the_record_does_not_draw_the_recorded_step() -> None:
    for seed in range(20):
        tree = search.Tree(seed=seed)
        tree.spine(["recorded", "end"], 1.0)
        beam = search.create("beam", branching=2)
        beam.tell(tree, beam.ask(tree, 1)[0].id, [Child("a")])
        tree.leave_spine = True
        (ask,) = search.create("best-of-n").ask(tree, 1)
        assert tree.key[ask.node] == "a"
