"""Beam: level by level, the best unfinished children go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError


def level(
    algorithm: search.Algorithm, tree: search.Tree, told: Mapping[str, Sequence[Child]], width: int = 16
) -> list[str]:
    """Play one level: the keys of the asked nodes in order; `told` maps them to children."""
    asks = algorithm.ask(tree, width)
    for ask in asks:
        algorithm.tell(tree, ask.id, told.get(tree.key[ask.node], []), more=True)
    return [tree.key[ask.node] for ask in asks]


def test_the_best_by_value_go_on() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=4)
    children = [Child(key, value=value) for key, value in zip("abcd", (0.1, 0.7, 0.9, 0.3), strict=True)]
    assert level(algorithm, tree, {"": children}) == [""]
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["c", "b"]


def test_every_ask_wants_branching_children_and_the_level_is_waited_for() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=3, branching=2)
    (ask,) = algorithm.ask(tree, 8)
    assert (ask.count, algorithm.ask(tree, 8)) == (2, [])
    algorithm.tell(tree, ask.id, [Child("a", value=1.0), Child("b", value=0.5)])
    first, second = algorithm.ask(tree, 8)
    algorithm.tell(tree, second.id, [Child("x", value=9.0)])
    assert algorithm.ask(tree, 8) == []
    algorithm.tell(tree, first.id, [Child("y", value=1.0)])
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["x", "y"]


def test_without_values_the_sum_of_log_priors_decides() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=3)
    level(algorithm, tree, {"": [Child("a", 0.6), Child("b", 0.3), Child("c", 0.1)]})
    told = {"a": [Child("aa", 0.5), Child("ab", 0.5)], "b": [Child("ba", 0.9), Child("bb", 0.1)]}
    assert level(algorithm, tree, told) == ["a", "b"]
    assert sorted(tree.key[ask.node] for ask in algorithm.ask(tree, 8)) == ["aa", "ab"]


def test_values_come_before_priors_and_missing_priors_are_uniform() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=3, branching=4)
    level(algorithm, tree, {"": [Child("likely", 0.9), Child("rare", 0.01), Child("valued", 0.01, value=-3.0)]})
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["valued", "likely", "rare"]
    tree = search.Tree()
    level(algorithm, tree, {"": [Child("low", 0.2), Child("none"), Child("high", 0.4)]})
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["high", "none", "low"]


def test_copies_of_one_state_take_one_place() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=4)
    children = [
        Child("a", value=0.9, state_key="same"),
        Child("b", value=0.8, state_key="same"),
        Child("c", value=0.7, state_key="same"),
        Child("d", value=0.1, state_key="other"),
    ]
    level(algorithm, tree, {"": children})
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 8)] == ["a", "d"]


def test_finished_runs_are_kept_and_take_no_place() -> None:
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=4)
    children = [Child("end", value=0.5, terminal=True), Child("a", value=0.4), Child("b", value=0.3)]
    level(algorithm, tree, {"": children})
    assert level(algorithm, tree, {"a": [Child("worse", value=0.1, terminal=True)], "b": []}) == ["a", "b"]
    best = tree.best()
    assert best is not None
    assert tree.key[best] == "end"


def test_recorded_steps_are_not_in_the_beam_unless_proposed() -> None:
    for proposed in (False, True):
        tree, algorithm = search.Tree(), search.create("beam", beam_width=4, branching=2)
        tree.spine(["r", "end"], 1.0)
        level(algorithm, tree, {"": [Child("a"), Child("r")] if proposed else [Child("a"), Child("b")]})
        assert sorted(tree.key[ask.node] for ask in algorithm.ask(tree, 8)) == (["a", "r"] if proposed else ["a", "b"])


def test_a_beam_that_has_ended_asks_no_more(toy: Any) -> None:
    world = toy.World(seed=2, branching=4, fewest=4, max_depth=3, early_end=0.0)
    tree, algorithm = search.Tree(), search.create("beam", beam_width=2, branching=3)
    played = toy.play(algorithm, world, tree, width=3)
    assert [len([ask for ask in played.asks if tree.depth[ask.node] == depth]) for depth in range(4)] == [1, 2, 2, 0]
    assert played.transitions == 3 + 6 + 6
    assert algorithm.ask(tree, 8) == []
    assert tree.status[0] == "open"


def test_a_node_whose_expansion_failed_is_asked_again() -> None:
    tree, algorithm = search.Tree(), search.create("beam")
    tree.spine(["r"], 0.0)
    (first,) = algorithm.ask(tree, 1)
    algorithm.tell(tree, first.id, [], failed="busy")
    (again,) = algorithm.ask(tree, 1)
    assert (again.node, again.id) == (0, 1)


def test_a_complete_node_gives_its_known_children_to_the_beam() -> None:
    tree, first = search.Tree(), search.create("best-of-n", n=1)
    tree.spine(["recorded", "end"], 0.0)
    first.tell(tree, first.ask(tree, 1)[0].id, [Child("a")])
    tree.complete[0] = True
    assert [tree.key[ask.node] for ask in search.create("beam").ask(tree, 4)] == ["a"]


def test_the_levels_of_a_beam_do_not_depend_on_the_width(toy: Any) -> None:
    trees = []
    for width in (1, 3, 16):
        world = toy.World(seed=6, branching=4, fewest=3, max_depth=6, process=True)
        tree = search.Tree(seed=6)
        toy.play(search.create("beam"), world, tree, width=width)
        trees.append(toy.rows(tree))
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("options", [{"beam_width": 0}, {"branching": 0}, {"beam_width": "4"}, {"branching": None}])
def test_widths_are_counts(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("beam", **options)
