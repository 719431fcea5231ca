"""Selection: its formulas against plain ones, and each option of them against its absence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child


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


STATISTICS = [
    ([0.9, 0.8], [0.2], [0.5, 0.5, 0.5]),
    ([0.1] * 8, [0.3], [0.2, 0.9]),
    ([-4.0, -2.0], [-3.5], [-9.0, 0.0]),
    ([700.0], [650.0] * 5, [800.0, 100.0]),
]


def plain_score(kind: str, c: float, values: list[float], open_here: int, around: dict[str, Any]) -> float:
    """The formulas as written in the papers, on lists of values."""
    low, high, alpha = around["low"], around["high"], around.get("alpha", 0.0)
    weight = around.get("w", 0.25)
    summary = weight * max(values) + (1.0 - weight) * sum(values) / len(values)
    quality = around["P"] ** alpha * max(0.0, (summary - low) / (high - low)) ** (1 - alpha)
    n, total = len(values) + open_here, around["N"]
    if kind == "uct":
        return float(quality + c * math.sqrt(math.log(total) / n))
    return float(quality + c * around["P"] * math.sqrt(total) / (1 + n))


@pytest.mark.parametrize("kind", ["uct", "puct"])
@pytest.mark.parametrize("c", [0.0, 0.3, 1.4, 5.0])
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("busy", [None, 1, 3])
def test_selection_is_the_formula(kind: str, c: float, statistics: tuple[list[float], ...], busy: int | None) -> None:
    shares = [0.5, 0.3, 0.2]
    algorithm = search.create("mcts", selection=kind, exploration=c)
    tree = grown(algorithm, [Child(key, prior=2 * share) for key, share in zip("abc", shares, strict=True)])
    for node, values in enumerate(statistics, start=1):
        visit(tree, node, values)
    if busy is not None:
        tree.hold(busy)
    every = [value for values in statistics for value in values]
    around = {"low": min(every), "high": max(every), "N": len(every) + (busy is not None)}
    scores = [
        plain_score(kind, c, values, busy == node, {**around, "P": shares[node - 1]})
        for node, values in enumerate(statistics, start=1)
    ]
    assert one(algorithm, tree).node == 1 + scores.index(max(scores))


@pytest.mark.parametrize("kind", ["uct", "puct"])
@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("shares", [[0.5, 0.3, 0.2], [0.05, 0.15, 0.8]])
def test_rewards_mixed_as_in_rap_are_the_formula(
    kind: str, weight: float, alpha: float, statistics: tuple[list[float], ...], shares: list[float]
) -> None:
    algorithm = search.create("mcts", selection=kind, exploration=0.2, max_weight=weight, prior_weight=alpha)
    tree = grown(algorithm, [Child(key, prior=3 * share) for key, share in zip("abc", shares, strict=True)])
    for node, values in enumerate(statistics, start=1):
        visit(tree, node, values)
    every = [value for values in statistics for value in values]
    around = {"low": min(every), "high": max(every), "N": len(every), "alpha": alpha, "w": weight}
    scores = [
        plain_score(kind, 0.2, values, 0, {**around, "P": shares[node - 1]})
        for node, values in enumerate(statistics, start=1)
    ]
    assert one(algorithm, tree).node == 1 + scores.index(max(scores))


def test_prior_weight_and_max_weight_change_what_is_chosen() -> None:
    picked = {}
    for weight in (0.0, 1.0):
        for alpha in (0.0, 0.9):
            algorithm = search.create("mcts", selection="uct", exploration=0.0, max_weight=weight, prior_weight=alpha)
            tree = grown(algorithm, [Child("steady", prior=0.1), Child("wild", prior=0.1), Child("likely", prior=0.8)])
            visit(tree, 1, [0.7, 0.7])
            visit(tree, 2, [1.0, 0.0])
            visit(tree, 3, [0.4, 0.4])
            picked[weight, alpha] = tree.key[one(algorithm, tree).node]
    assert picked == {
        (0.0, 0.0): "steady",
        (1.0, 0.0): "wild",
        (0.0, 0.9): "likely",
        (1.0, 0.9): "likely",
    }


def test_a_missing_prior_is_the_mean_of_the_known_ones_in_rap_too() -> None:
    algorithm = search.create("mcts", selection="uct", exploration=0.0, prior_weight=0.5)
    tree = grown(algorithm, [Child("a", prior=0.2), Child("b"), Child("c", prior=0.4), Child("d", prior=0.0)])
    for node, value in enumerate((0.81, 0.9, 0.3, 1.0), start=1):
        visit(tree, node, [value])
    tree.bounds.include(0.0)
    scores = [0.2 * 0.81, 0.2 * 0.9, 0.4 * 0.3, 0.0]
    assert one(algorithm, tree).node == 1 + scores.index(max(scores))


def test_virtual_loss_lowers_a_mixed_quality_too() -> None:
    picked = {}
    for loss in (0.0, 1.0):
        algorithm = search.create(
            "mcts", selection="uct", exploration=0.0, virtual_loss=loss, max_weight=0.5, prior_weight=0.5
        )
        tree = grown(algorithm, [Child("good"), Child("fair"), Child("poor")])
        for node, value in enumerate((1.0, 0.8, 0.0), start=1):
            visit(tree, node, [value])
        tree.hold(1)
        picked[loss] = one(algorithm, tree).node
    assert picked == {0.0: 1, 1.0: 2}


@pytest.mark.parametrize(("alpha", "picked"), [(0.0, 2), (0.5, 3)])
def test_the_quality_of_a_new_child_is_mixed_with_its_prior_too(alpha: float, picked: int) -> None:
    algorithm = search.create("mcts", exploration=0.0, prior_weight=alpha)
    tree = grown(
        algorithm,
        [Child("end", prior=0.1, value=1.0, terminal=True), Child("new", prior=0.1), Child("known", prior=0.8)],
    )
    visit(tree, 3, [0.2])
    visit(tree, 1, [0.0, 0.8])
    assert tree.mean(0) == pytest.approx(0.5)
    assert one(algorithm, tree).node == picked


def test_the_highest_value_of_a_node_is_the_highest_that_was_backed_up_through_it(toy: Any) -> None:
    world = toy.World(seed=6, process=True, max_depth=5, gaps=0.2, offset=-3.0, fewest=2)
    tree = search.Tree()
    toy.play(search.create("mcts", max_weight=1.0), world, tree, width=4, budget=120)
    for node in range(len(tree)):
        own = [tree.value[node]] if tree.ends[node] and tree.value[node] is not None else []
        below = [tree.value_max[child] for child in tree.children(node) if tree.visits[child]]
        known = [value for value in [*own, *below] if value is not None]
        if known and not any(tree.imputed):
            assert tree.value_max[node] == max(known)
        if tree.visits[node]:
            assert tree.value_max[node] >= tree.value_sum[node] / tree.visits[node] - 1e-9
        else:
            assert tree.value_max[node] == -math.inf


def test_virtual_loss_counts_open_rollouts_as_bad_ones() -> None:
    picked = {}
    for loss in (0.0, 1.0):
        algorithm = search.create("mcts", exploration=0.0, virtual_loss=loss)
        tree = grown(algorithm, [Child("good"), Child("fair"), Child("poor")])
        for node, value in enumerate((1.0, 0.8, 0.0), start=1):
            visit(tree, node, [value])
        tree.hold(1)
        picked[loss] = one(algorithm, tree).node
    assert picked == {0.0: 1, 1.0: 2}


@pytest.mark.parametrize(
    ("selection", "urgency", "picked"), [("uct", None, 2), ("uct", 0.1, 1), ("puct", 0.1, 1), ("puct", 2.0, 2)]
)
def test_first_play_urgency_decides_about_children_without_a_visit(
    selection: str, urgency: float | None, picked: int
) -> None:
    algorithm = search.create("mcts", selection=selection, exploration=0.0, first_play_urgency=urgency)
    tree = grown(algorithm, [Child("known"), Child("new"), Child("bad")])
    visit(tree, 1, [0.9])
    visit(tree, 3, [0.0])
    assert one(algorithm, tree).node == picked


def test_an_unvisited_child_counts_as_good_as_its_parent_under_puct() -> None:
    algorithm = search.create("mcts", selection="puct", exploration=0.0)
    tree = grown(algorithm, [Child("above"), Child("new"), Child("below")])
    visit(tree, 1, [0.6])
    visit(tree, 3, [0.0])
    assert one(algorithm, tree).node == 1
    tree = grown(algorithm, [Child("middle"), Child("new"), Child("end", value=1.0, terminal=True)])
    visit(tree, 1, [0.0])
    assert one(algorithm, tree).node == 2


def test_priors_steer_puct_and_missing_ones_are_uniform() -> None:
    def visits(priors: Sequence[float | None]) -> list[int]:
        algorithm = search.create("mcts", selection="puct", exploration=2.0)
        tree = grown(algorithm, [Child(key, prior=prior) for key, prior in zip("abc", priors, strict=True)])
        for _ in range(60):
            ask = one(algorithm, tree)
            algorithm.tell(tree, ask.id, [Child(f"n{ask.id}", value=0.5)], more=True)
        return [tree.visits[node] for node in (1, 2, 3)]

    few, many, middle = visits([0.1, 0.6, 0.3])
    assert few < middle < many
    assert visits([None, None, None]) == visits([0.2, 0.2, 0.2])
    assert max(visits([None, 0.4, None])) - min(visits([None, 0.4, None])) <= 1
    assert max(visits([1e-12, 1e-12, 1e-12])) - min(visits([1e-12, 1e-12, 1e-12])) <= 1


@pytest.mark.parametrize("selection", ["uct", "puct"])
def test_ties_are_broken_by_the_seed(selection: str) -> None:
    picked = set()
    for seed in range(30):
        tree = search.Tree(seed=seed)
        beam = search.create("beam", branching=3)
        beam.tell(tree, one(beam, tree).id, [Child("a"), Child("b"), Child("c")])
        tree.complete[0] = True
        picked.add(one(search.create("mcts", selection=selection), tree).node)
    assert picked == {1, 2, 3}
