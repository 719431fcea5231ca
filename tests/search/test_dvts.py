"""DVTS: greedy sub-trees from different first steps."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError


def first_told(algorithm: search.Algorithm, tree: search.Tree, children: list[Child], more: bool = True) -> list[str]:
    """Tell the first ask; the keys of the nodes that are asked next."""
    algorithm.tell(tree, algorithm.ask(tree, 8)[0].id, children, more=more)
    return [tree.key[ask.node] for ask in algorithm.ask(tree, 8)]


@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize(("trees", "branching"), [(1, 3), (2, 2), (3, 1), (4, 3)])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_greedy_in_every_sub_tree(toy: Any, seed: int, trees: int, branching: int, width: int) -> None:
    world = toy.World(seed=seed, process=True, fewest=12, branching=12, max_depth=4, early_end=0.1)
    tree = search.Tree(seed=seed)
    played = toy.play(search.create("dvts", trees=trees, branching=branching), world, tree, width=width)
    first = world.actions(())[: trees * branching]
    expected = set()
    for index in range(trees):
        path: tuple[str, ...] = max(((key,) for key in first[index::trees]), key=world.value)
        while not world.ends(path):
            expected.add(path)
            path = max(((*path, key) for key in world.actions(path)[:branching]), key=world.value)
    assert played.asks[0].count == trees * branching
    assert {toy.path_keys(tree, ask.node) for ask in played.asks[1:]} == expected
    assert len(played.asks) == 1 + len(expected)
    assert {ask.count for ask in played.asks[1:]} <= {branching}


def test_a_sub_tree_keeps_the_best_of_its_own_children_however_good_the_others_are() -> None:
    values = {"a": 0.9, "b": 0.1, "c": 0.8, "d": 0.2}
    children = [Child(key, value=value) for key, value in values.items()]
    assert first_told(search.create("dvts", trees=2, branching=2), search.Tree(), children) == ["a", "d"]
    assert first_told(search.create("dvts", trees=1, branching=4), search.Tree(), children) == ["a"]


def test_the_start_is_asked_again_until_the_sub_trees_can_differ() -> None:
    tree, algorithm = search.Tree(), search.create("dvts", trees=3, branching=2)
    (first,) = algorithm.ask(tree, 8)
    algorithm.tell(tree, first.id, [Child("a"), Child("b")], more=True)
    (second,) = algorithm.ask(tree, 8)
    assert (second.node, second.count) == (0, 4)
    algorithm.tell(tree, second.id, [Child("b"), Child("c")], more=True)
    assert sorted(tree.key[ask.node] for ask in algorithm.ask(tree, 8)) == ["a", "b", "c"]


def test_a_policy_with_few_actions_gives_few_sub_trees() -> None:
    children = [Child("a"), Child("b")]
    assert sorted(first_told(search.create("dvts", trees=5), search.Tree(), children, more=False)) == ["a", "b"]


def test_sub_trees_start_in_different_states() -> None:
    children = [Child("a", state_key="same"), Child("b", state_key="same"), Child("c", state_key="other")]
    tree, algorithm = search.Tree(), search.create("dvts", trees=2, branching=2)
    assert sorted(first_told(algorithm, tree, children)) == ["a", "c"]


def test_a_sub_tree_ends_with_its_first_run_and_the_search_with_the_last_sub_tree() -> None:
    tree, algorithm = search.Tree(), search.create("dvts", trees=2, branching=1)
    assert first_told(algorithm, tree, [Child("end", value=0.5, terminal=True), Child("a", value=0.1)]) == ["a"]
    (ask,) = tree.asks.values()
    algorithm.tell(tree, ask.id, [Child("x", value=0.9, terminal=True)], more=True)
    assert algorithm.ask(tree, 8) == []
    best = tree.best()
    assert best is not None
    assert tree.key[best] == "x"


def test_a_sub_tree_that_has_failed_goes_on_in_its_next_child_but_never_in_anothers() -> None:
    tree, algorithm = search.Tree(), search.create("dvts", trees=2, branching=2)
    children = [Child(key, value=value) for key, value in zip("abcd", (0.9, 0.8, 0.7, 0.6), strict=True)]
    assert first_told(algorithm, tree, children) == ["a", "b"]
    for ask in list(tree.asks.values()):
        algorithm.tell(tree, ask.id, [])
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["c", "d"]
    for ask in list(tree.asks.values()):
        algorithm.tell(tree, ask.id, [])
    assert algorithm.ask(tree, 8) == []


def test_without_values_the_prior_decides() -> None:
    children = [Child("a", 0.1), Child("b", 0.2), Child("c", 0.3), Child("d", 0.4)]
    assert first_told(search.create("dvts", trees=2, branching=2), search.Tree(), children) == ["c", "d"]


def test_sub_trees_that_meet_in_one_state_take_turns_and_merged_ones_part() -> None:
    for merge in (False, True):
        tree, algorithm = search.Tree(merge_states=merge), search.create("dvts", trees=2, branching=2)
        first_told(algorithm, tree, [Child("a", value=0.5), Child("b", value=0.4)], more=False)
        for ask in list(tree.asks.values()):
            met = Child("met", value=0.9, state_key="met")
            algorithm.tell(tree, ask.id, [met, Child("own", value=0.1, state_key=f"own {ask.node}")])
        asks = algorithm.ask(tree, 8)
        assert [tree.key[ask.node] for ask in asks] == (["met", "own"] if merge else ["met"])
        algorithm.tell(tree, asks[0].id, [Child("x", value=1.0, terminal=True)])
        assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ([] if merge else ["met"])


@pytest.mark.parametrize("trees", [0, 1.5, None])
def test_trees_is_a_count(trees: Any) -> None:
    with pytest.raises(UsageError, match="trees"):
        search.create("dvts", trees=trees)
