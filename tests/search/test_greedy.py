"""Greedy: one run, always on in the best child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child

Told = Mapping[str, Sequence[Child]]


def walk(algorithm: search.Algorithm, tree: search.Tree, told: Told, more: bool = False) -> list[str]:
    """Play to the end, or until 20 asks; `told` maps the key of an asked node to what it has. The keys asked."""
    keys: list[str] = []
    while len(keys) < 20 and (asks := algorithm.ask(tree, 8)):
        keys.append(tree.key[asks[0].node])
        algorithm.tell(tree, asks[0].id, told.get(keys[-1], []), more=more)
    return keys


def end(key: str, value: float | None = None, prior: float | None = None) -> Child:
    return Child(key, prior, value, terminal=True)


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("seed", range(20))
def test_it_is_hill_climbing_by_value(toy: Any, seed: int, width: int) -> None:
    world = toy.World(seed=seed, process=True, fewest=2, branching=4, max_depth=7, early_end=0.1)
    tree = search.Tree(seed=seed)
    played = toy.play(search.create("greedy"), world, tree, width=width)
    path: tuple[str, ...] = ()
    while not world.ends(path):
        path = max(((*path, key) for key in world.actions(path)), key=world.value)
    assert toy.path_keys(tree, played.asks[-1].node) == path[: len(path) - 1]
    assert [toy.path_keys(tree, ask.node) for ask in played.asks] == [path[:depth] for depth in range(len(path))]
    assert tree.find(played.asks[-1].node, path[len(path) - 1]) is not None


def test_with_one_child_it_follows_the_policy(toy: Any) -> None:
    world, tree = toy.World(seed=3, sampling=True, fewest=3, process=True, max_depth=5, early_end=0.0), search.Tree()
    played = toy.play(search.create("greedy", branching=1), world, tree)
    assert [ask.count for ask in played.asks] == [1] * 5
    assert [tree.depth[ask.node] for ask in played.asks] == [0, 1, 2, 3, 4]
    assert len(tree) == 6


def test_without_values_the_prior_decides_and_ends_are_no_better_for_theirs() -> None:
    told = {"": [Child("a", 0.6), Child("b", 0.1), end("gave up", 0.9, prior=0.3)], "a": [end("x", 0.2, prior=1.0)]}
    tree = search.Tree()
    assert walk(search.create("greedy"), tree, told) == ["", "a"]
    assert sum(tree.terminal) == 2
    likely = {"": [Child("a", 0.3), end("done", 0.1, prior=0.7)]}
    assert walk(search.create("greedy"), search.Tree(), likely) == [""]


def test_the_search_is_over_when_the_best_child_is_an_end_and_only_then() -> None:
    told = {"": [end("early", 0.4), Child("a", value=0.5)], "a": [Child("b", value=0.1), end("late", 0.2)]}
    tree, algorithm = search.Tree(), search.create("greedy")
    assert walk(algorithm, tree, told) == ["", "a"]
    assert tree.status[0] == "open"
    assert algorithm.ask(tree, 8) == []
    best = tree.best()
    assert best is not None
    assert tree.key[best] == "early"


def test_an_end_without_a_verdict_is_no_better_than_any_child() -> None:
    told = {"": [end("unknown"), Child("a", value=-3.0)], "a": [end("known", -5.0)]}
    assert walk(search.create("greedy"), search.Tree(), told) == ["", "a"]


def test_from_a_dead_end_it_steps_back_to_the_next_best() -> None:
    told = {
        "": [Child("a", value=0.9), Child("b", value=0.2), Child("c", value=0.4)],
        "a": [Child("aa", value=0.5)],
        "c": [end("x", 1.0)],
    }
    assert walk(search.create("greedy"), search.Tree(), told) == ["", "a", "aa", "c"]


def test_a_node_that_may_have_more_is_asked_again_before_stepping_back() -> None:
    tree, algorithm = search.Tree(), search.create("greedy", prune_below=0.3)
    told = {"": [Child("a", value=0.9), Child("b", value=0.8)], "a": [Child("bad", value=0.1)]}
    assert walk(algorithm, tree, told, more=True)[:3] == ["", "a", "a"]
    assert walk(search.create("greedy", prune_below=0.3), search.Tree(), told, more=False) == ["", "a", "b"]


def test_a_failure_in_mid_run_ends_the_node_and_the_walk_goes_round_it() -> None:
    tree, algorithm = search.Tree(), search.create("greedy", branching=2)
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [Child("a"), Child("b")])
    (first,) = algorithm.ask(tree, 8)
    algorithm.tell(tree, first.id, [], failed="broken")
    (second,) = algorithm.ask(tree, 8)
    assert {tree.key[first.node], tree.key[second.node]} == {"a", "b"}
    assert tree.status[first.node] == "failed"


def test_ties_are_broken_by_the_seed() -> None:
    picks = set()
    for seed in range(20):
        tree, algorithm = search.Tree(seed=seed), search.create("greedy")
        algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [Child("a", value=1.0), Child("b", value=1.0)])
        picks.add(tree.key[algorithm.ask(tree, 1)[0].node])
    assert picks == {"a", "b"}
