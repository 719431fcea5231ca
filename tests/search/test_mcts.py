"""MCTS: answers against brute force, widening, rollouts. Formulas: test_selection.py; leaves: test_evaluation.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError


def one(algorithm: search.Algorithm, tree: search.Tree) -> search.Ask:
    """The next ask."""
    (ask,) = algorithm.ask(tree, 1)
    return ask


def grown(algorithm: search.Algorithm, children: Sequence[Child]) -> search.Tree:
    """A tree whose root has these children, all of them."""
    tree = search.Tree(seed=1)
    beam = search.create("beam", branching=len(children))
    beam.tell(tree, one(beam, tree).id, children)
    tree.complete[0] = True
    return tree


def visit(tree: search.Tree, node: int, values: Sequence[float]) -> None:
    """Give a node some more visits."""
    for value in values:
        tree.back_up(node, value)


@pytest.mark.parametrize(("coefficient", "exponent"), [(1.0, 0.5), (2.0, 0.5), (1.0, 1.0), (3.0, 0.0), (0.0, 0.5)])
def test_a_node_has_as_many_children_as_progressive_widening_says(coefficient: float, exponent: float) -> None:
    tree = search.Tree()
    algorithm = search.create("mcts", widening_coefficient=coefficient, widening_exponent=exponent, exploration=1.0)
    for _ in range(120):
        ask = one(algorithm, tree)
        before = tree.visits[ask.node]
        had = len(tree.children(ask.node))
        assert had == 0 or had < math.ceil(coefficient * before**exponent)
        algorithm.tell(tree, ask.id, [Child(f"n{ask.id}", value=0.5)], more=True)
        limit = max(1, math.ceil(coefficient * tree.visits[0] ** exponent))
        assert len(tree.children(0)) <= limit
    assert len(tree.children(0)) >= max(1, math.ceil(coefficient * (tree.visits[0] - 1) ** exponent)) - 1


def test_expand_asks_for_several_and_follows_the_likeliest() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts", expand=3)
    ask = one(algorithm, tree)
    assert ask.count == 3
    algorithm.tell(tree, ask.id, [Child("a", 0.2), Child("b", 0.5), Child("c", 0.3)])
    following = one(algorithm, tree)
    assert (following.node, following.count) == (2, 1)


def test_a_rollout_is_a_chain_that_counts_once_at_its_end() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts")
    for depth in range(3):
        (ask,) = algorithm.ask(tree, 8)
        assert tree.depth[ask.node] == depth
        assert tree.virtual == [1] * (depth + 1)
        algorithm.tell(tree, ask.id, [Child("x")], more=True)
        assert (tree.visits, tree.virtual) == ([0] * (depth + 2), [1] * (depth + 2))
    (ask,) = algorithm.ask(tree, 8)
    algorithm.tell(tree, ask.id, [Child("end", value=-0.5, terminal=True)], more=True)
    assert (tree.visits, tree.value_sum, tree.virtual) == ([1] * 5, [-0.5] * 5, [0] * 5)


def test_terminals_are_never_asked_and_every_leaf_of_a_small_world_is_paid_once(toy: Any) -> None:
    world = toy.World(seed=11, branching=3, max_depth=5)
    played = toy.play(search.create("mcts"), world, search.Tree(), width=4)
    asked = [ask.node for ask in played.asks]
    assert not any(played.tree.terminal[node] for node in asked)
    states = [toy.path_keys(played.tree, node) for node in range(len(played.tree))]
    assert len(set(states)) == len(states) == played.transitions + 1
    assert {path for path in states if world.ends(path)} == set(world.leaves())


@pytest.mark.parametrize("selection", ["uct", "puct"])
@pytest.mark.parametrize("seed", range(6))
def test_the_most_visited_action_is_the_best_one(toy: Any, selection: str, seed: int) -> None:
    world = toy.World(seed=seed, branching=3, fewest=3, max_depth=12, early_end=0.0)

    class Tilted:
        """One first action is worth more, whatever follows."""

        def expand(
            self, path: tuple[str, ...], ask: search.Ask, known: list[str]
        ) -> tuple[list[Child], dict[str, Any]]:
            children, options = world.expand(path, ask, known)
            good = path[:1] == ("b",)
            return [
                replace(child, value=None if child.value is None else child.value + good) for child in children
            ], options

    tree = search.Tree(seed=seed)
    algorithm = search.create("mcts", selection=selection, widening_coefficient=9)
    toy.play(algorithm, Tilted(), tree, width=8, budget=3000)
    favourite = max(tree.children(0), key=lambda node: tree.visits[node])
    assert tree.key[favourite] == "b"
    assert tree.visits[favourite] > 0.6 * tree.visits[0]


@pytest.mark.parametrize("selection", ["uct", "puct"])
@pytest.mark.parametrize(("scale", "offset"), [(1024.0, 0.0), (2.0**-10, -4.0), (4.0, -512.0)])
def test_the_scale_of_the_rewards_does_not_matter(toy: Any, selection: str, scale: float, offset: float) -> None:
    shapes = []
    for options in ({}, {"scale": scale, "offset": offset}):
        world = toy.World(seed=21, branching=4, fewest=2, max_depth=7, early_end=0.1, **options)
        tree = search.Tree(seed=3)
        toy.play(search.create("mcts", selection=selection), world, tree, width=4, budget=400)
        shapes.append([tree.parent, tree.key, tree.visits, tree.status])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("width", [1, 8, 32])
def test_a_noisy_guide_finds_the_needle_in_256_transitions_at_any_width(toy: Any, width: int) -> None:
    class Needle:
        """4,096 leaves, one of them right; every state's value is how much of it is matched, +- 0.3."""

        def __init__(self, seed: int):
            self.hash = toy.World(seed=seed)
            self.target = ["abcd"[int(4 * self.hash.number((str(step),), "target"))] for step in range(6)]

        def child(self, path: tuple[str, ...]) -> Child:
            matched = next((i for i, key in enumerate(path) if key != self.target[i]), len(path))
            if matched == 6:
                return Child(path[-1], value=2.0, terminal=True)
            noise = 0.6 * (self.hash.number(path, "noise") - 0.5)
            return Child(path[-1], value=matched / 6 + noise, terminal=len(path) == 6)

        def expand(
            self, path: tuple[str, ...], ask: search.Ask, known: list[str]
        ) -> tuple[list[Child], dict[str, Any]]:
            order = sorted("abcd", key=lambda key: self.hash.number((*path, key), "order"))
            return [self.child((*path, key)) for key in order if key not in known][: ask.count], {}

    found = 0
    for seed in range(20):
        tree = search.Tree(seed=seed)
        toy.play(search.create("mcts"), Needle(seed), tree, width=width, budget=256)
        best = tree.best()
        found += best is not None and tree.value[best] == 2.0
    assert found == 20


def test_the_search_branches_off_the_record_by_itself(toy: Any) -> None:
    world = toy.World(seed=31, branching=3, fewest=3, max_depth=6, early_end=0.0)
    tree = search.Tree(seed=2)
    spine = toy.record(tree, world, ("a",) * 6)
    toy.play(search.create("mcts", exploration=2.0), world, tree, width=4, budget=300)
    left = [node for node in (0, *spine[:-1]) if any(not tree.spine[child] for child in tree.children(node))]
    assert left[0] == 0
    assert len(left) > 3
    best = tree.best()
    assert best is not None
    assert not tree.spine[best]


def test_a_node_is_asked_by_several_at_once_only_when_nothing_else_is_left() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts", widening_coefficient=0.0)
    visit(tree, 0, [0.5] * 20)
    assert [ask.node for ask in algorithm.ask(tree, 3)] == [0, 0, 0]
    algorithm.tell(tree, 0, [Child("a", value=0.5)], more=True)
    assert [ask.node for ask in algorithm.ask(tree, 1)] == [1]


def test_one_node_that_is_all_there_is() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts")
    algorithm.tell(tree, one(algorithm, tree).id, [])
    assert (algorithm.ask(tree, 8), tree.best(), tree.status[0]) == ([], None, "exhausted")


@pytest.mark.parametrize(
    "options",
    [
        {"selection": "ucb"},
        {"evaluation": "rollouts"},
        {"max_weight": 1.1},
        {"prior_weight": 1.1},
        {"rollout_weight": -0.1},
        {"outcome_coefficient": -1.0},
        {"outcome_exponent": 2},
        {"exploration": -1},
        {"exploration": "1.4"},
        {"exploration": math.nan},
        {"virtual_loss": -1},
        {"widening_coefficient": -0.1},
        {"widening_exponent": 1.5},
        {"expand": 0},
        {"expand": 1.5},
        {"first_play_urgency": "x"},
        {"prune_below": True},
        {"prune_quantile": 1.1},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("mcts", **options)
