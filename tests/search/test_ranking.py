"""Rankings choose what a scan of all siblings chooses, and note every change that matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay import search
from ttc_replay.search import Child, selection
from ttc_replay.search.ranking import MANY

OPTIONS = st.fixed_dictionaries(
    {"selection": st.sampled_from(["uct", "puct"])},
    optional={
        "exploration": st.sampled_from([0.0, 0.5, 3.0]),
        "expand": st.sampled_from([3, 20]),
        "widening_coefficient": st.sampled_from([1.0, 10.0, 100.0]),
        "first_play_urgency": st.sampled_from([0.0, 0.6, 2.0]),
        "virtual_loss": st.just(1.0),
        "max_weight": st.sampled_from([0.0, 1.0]),
        "evaluation": st.sampled_from(["rollout", "both"]),
        "prune_below": st.just(0.2),
        "prune_confidence": st.just(0.5),
    },
)
WORLDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "branching": st.integers(20, 60),
        "fewest": st.just(20),
        "max_depth": st.integers(1, 4),
        "process": st.booleans(),
        "priors": st.booleans(),
        "sampling": st.booleans(),
        "gaps": st.sampled_from([0.0, 0.3]),
        "broken": st.sampled_from([0.0, 0.1]),
        "scale": st.sampled_from([0.0, 1.0, 40.0]),
        "offset": st.sampled_from([0.0, -5.0]),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPTIONS, WORLDS, st.integers(1, 16), st.sampled_from(["root", "record", "auto"]))
def test_the_tree_is_that_of_a_scan(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int, begins: str
) -> None:
    made, searches = toy.World(**world), []
    for many in (2, MANY, 10**9):
        tree, algorithm = search.Tree(seed=made.seed), search.create("mcts", **options)
        if begins != "root":
            toy.record(tree, made, next(made.leaves()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selection, "MANY", many)
            played = toy.play(search.AutoBranch(algorithm) if begins == "auto" else algorithm, made, tree, width, 250)
        searches.append((played.asks, toy.rows(tree)))
    assert searches[0] == searches[1] == searches[2]


def wide(kind: str, priors: Sequence[float | None]) -> tuple[search.Algorithm, search.Tree]:
    """A root with one visited child for each prior, all of equal value, and a ranking of them."""
    tree, algorithm = search.Tree(seed=1), search.create("mcts", selection=kind, exploration=0.1)
    tree.hold(0)
    children = [Child(f"n{index}", prior, 0.5) for index, prior in enumerate(priors)]
    algorithm.tell(tree, tree.open_ask(0, len(children)).id, children)
    tree.complete[0] = True
    tree.bounds.include(0.0)
    tree.bounds.include(1.0)
    algorithm.ask(tree, 1)
    assert 0 in tree.watched
    return algorithm, tree


@pytest.mark.parametrize("kind", ["uct", "puct"])
def test_a_visit_moves_a_child_up_wherever_it_came_from(kind: str) -> None:
    algorithm, tree = wide(kind, [0.5] * 40)
    tree.back_up(17, 1.0)
    tree.back_up(17, 1.0)
    assert algorithm.ask(tree, 1)[0].node == 17
    tree.bounds.include(-1000.0)  # now all values are alike: the bonus alone decides
    assert algorithm.ask(tree, 1)[0].node != 17


def test_a_prior_that_becomes_known_counts() -> None:
    algorithm, tree = wide("puct", [0.5] * 20 + [None] * 20)
    tree.merge(33, Child("n32", prior=9.0))
    assert algorithm.ask(tree, 1)[0].node == 33
    again, another = wide("puct", [None] * 40)
    another.merge(33, Child("n32", prior=0.0))  # what the unknown ones count as stays 1
    assert 33 not in {ask.node for ask in again.ask(another, 30)}


def test_a_closed_child_is_never_chosen() -> None:
    algorithm, tree = wide("puct", [0.5] * 39 + [9.0])
    tree.release(algorithm.ask(tree, 1)[0].node)
    tree.close(40, "pruned", "for the test")
    assert 40 not in {ask.node for ask in algorithm.ask(tree, 30)}
