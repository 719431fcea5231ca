"""Pruning by confidence: the bounds against a plain re-statement, what is dropped and what never is."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.search.elimination import eliminate, interval
from ttc_replay.storage.errors import UsageError


def grown(values: dict[str, list[float]], terminal: tuple[str, ...] = ()) -> search.Tree:
    """A root whose children have had visits with these values."""
    tree = search.Tree()
    beam = search.create("beam", branching=len(values))
    (ask,) = beam.ask(tree, 1)
    beam.tell(tree, ask.id, [Child(key, terminal=key in terminal) for key in values], more=True)
    for node, backed_up in enumerate(values.values(), start=1):
        for value in backed_up:
            tree.back_up(node, value)
    return tree


def plain_interval(values: list[float], every: list[float], siblings: int, confidence: float) -> tuple[float, float]:
    low, high = min(every), max(every)
    mean = sum((value - low) / (high - low) for value in values) / len(values)
    n, delta = len(values), 1 - confidence
    radius = math.sqrt(math.log(4 * siblings * n**2 / delta) / (2 * n))
    return mean - radius, mean + radius


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (100.0, -700.0), (0.001, 3.0)])
@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.95])
def test_the_bounds_are_hoeffdings_on_the_trees_range(scale: float, offset: float, confidence: float) -> None:
    values = {
        key: [offset + scale * value for value in kept]
        for key, kept in {"a": [0.9, 0.7, 0.8], "b": [0.0, 0.1], "c": [1.0] * 40}.items()
    }
    tree = grown(values)
    every = [value for kept in values.values() for value in kept]
    for node, kept in enumerate(values.values(), start=1):
        expected = plain_interval(kept, every, 3, confidence)
        assert interval(tree, node, 3, confidence) == pytest.approx(expected)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("visits", [1, 2, 5, 12, 20, 50])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (100.0, -700.0)])
def test_a_node_is_dropped_exactly_when_its_upper_bound_is_below_the_best_lower_one(
    confidence: float, visits: int, scale: float, offset: float
) -> None:
    values = {key: [offset + scale * value] * visits for key, value in {"bad": 0.0, "fair": 0.45, "good": 1.0}.items()}
    tree = grown(values)
    every = [value for kept in values.values() for value in kept]
    bounds = {key: plain_interval(kept, every, 3, confidence) for key, kept in values.items()}
    floor = max(low for low, _ in bounds.values())
    expected = ["pruned" if visits >= 2 and high < floor else "open" for _, high in bounds.values()]
    eliminate(tree, 0, confidence)
    assert tree.status[1:] == expected
    assert (visits < 50) or expected == ["pruned", "open", "open"]
    assert (visits > 2) or expected == ["open", "open", "open"]
    for node in (1, 2, 3):
        assert (tree.reason[node] is not None) == (tree.status[node] == "pruned")


def test_the_reason_names_the_bounds_and_the_confidence() -> None:
    tree = grown({"bad": [0.0] * 60, "good": [1.0] * 60})
    eliminate(tree, 0, 0.9)
    (low, _), (_, high) = interval(tree, 2, 2, 0.9), interval(tree, 1, 2, 0.9)
    reason = f"upper bound {high:.3g} is below a sibling's lower bound {low:.3g} (confidence 0.9)"
    assert tree.reason[1] == reason


@pytest.mark.parametrize("spared", ["spine", "busy", "busy below", "end", "one visit", "outcomes", "equal values"])
def test_some_nodes_are_never_dropped(spared: str) -> None:
    low = 1.0 if spared == "equal values" else 0.0
    visits = 1 if spared == "one visit" else 80
    tree = grown({"bad": [low] * visits, "good": [1.0] * 80}, terminal=("bad",) if spared == "end" else ())
    if spared == "spine":
        tree.spine[1] = True
    elif spared == "busy":
        tree.open_ask(1, 1)
    elif spared == "busy below":
        tree.hold(tree.add(1, Child("below")))
    elif spared == "outcomes":
        tree.outcomes.told(0, "good", 2, tree.add(0, Child("good~1"), "good"), 1, new=True)
    eliminate(tree, 0, 0.5)
    assert tree.status[1] == ("closed" if spared == "end" else "open")
    control = grown({"bad": [0.0] * 80, "good": [1.0] * 80})
    eliminate(control, 0, 0.5)
    assert control.status[1] == "pruned"


def test_ends_are_what_others_are_measured_by() -> None:
    tree = grown({"bad": [0.0] * 80, "good": [1.0] * 80}, terminal=("good",))
    eliminate(tree, 0, 0.5)
    assert tree.status[1:] == ["pruned", "closed"]


def test_every_level_of_the_path_is_looked_at() -> None:
    tree = grown({"bad": [0.0] * 80, "good": [1.0] * 80})
    below = [tree.add(2, Child("left")), tree.add(2, Child("right"))]
    for _ in range(80):
        tree.back_up(below[0], 0.2)
        tree.back_up(below[1], 1.0)
    eliminate(tree, below[1], 0.5)
    assert [tree.status[node] for node in (1, 2, *below)] == ["pruned", "open", "pruned", "open"]


@pytest.mark.parametrize("confidence", [None, 0.5])
def test_a_search_spends_nothing_more_on_what_was_dropped(confidence: float | None) -> None:
    tree = search.Tree()
    algorithm = search.create("mcts", selection="uct", exploration=3.0, expand=2, prune_confidence=confidence)
    dropped_at = None
    for turn in range(300):
        (ask,) = algorithm.ask(tree, 1)
        if ask.node == 0:
            children = [Child("bad", value=0.0), Child("good", value=1.0)][len(tree.children(0)) : 2]
        else:
            top = tree.key[tree.path(ask.node)[1]]
            children = [Child(f"n{ask.id}", value=float(top == "good"))]
        algorithm.tell(tree, ask.id, children, more=ask.node != 0)
        if dropped_at is None and tree.status[1] == "pruned":
            dropped_at = (turn, tree.visits[1])
    if confidence is None:
        assert dropped_at is None
        assert tree.status[1] == "open"
    else:
        assert dropped_at is not None
        assert dropped_at[0] < 200
        assert tree.visits[1] == dropped_at[1]


def test_the_best_arm_is_hardly_ever_dropped() -> None:
    wrong = 0
    for seed in range(200):
        draw = random.Random(seed)
        tree = grown({"a": [0.0], "b": [1.0]})
        for _ in range(150):
            for node, chance in ((1, 0.55), (2, 0.45)):
                if tree.status[node] == "open":
                    tree.back_up(node, float(draw.random() < chance))
            eliminate(tree, 0, 0.9)
        wrong += tree.status[1] == "pruned"
    assert wrong <= 20


def test_dropping_the_last_open_child_ends_its_parent() -> None:
    tree = grown({"bad": [0.0] * 80, "good": [1.0] * 80}, terminal=("good",))
    tree.complete[0] = True
    eliminate(tree, 0, 0.5)
    assert tree.status[0] == "exhausted"


@pytest.mark.parametrize("confidence", [1.0, -0.1, 1.5, "0.9", True])
def test_confidence_is_a_number_from_0_to_below_1(confidence: Any) -> None:
    with pytest.raises(UsageError, match="prune_confidence"):
        search.create("mcts", prune_confidence=confidence)
