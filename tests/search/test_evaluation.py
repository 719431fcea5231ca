"""Evaluation by value, rollout or both; and that no search stalls, whatever its options."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay import search
from ttc_replay.search import Child


def one(algorithm: search.Algorithm, tree: search.Tree) -> search.Ask:
    """The next ask."""
    (ask,) = algorithm.ask(tree, 1)
    return ask


@pytest.mark.parametrize(
    ("options", "visits", "total"),
    [
        ({"evaluation": "value"}, 4, 0.5 + 0.3 + 0.1 + 0.9),
        ({"evaluation": "rollout"}, 1, 0.9),
        ({"evaluation": "both"}, 1, 0.5 * 0.5 + 0.5 * 0.9),
        ({"evaluation": "both", "rollout_weight": 0.25}, 1, 0.75 * 0.5 + 0.25 * 0.9),
        ({"evaluation": "both", "rollout_weight": 0.0}, 1, 0.5),
    ],
)
def test_what_one_simulation_adds_under_each_evaluation(options: dict[str, Any], visits: int, total: float) -> None:
    """A chain of three states valued 0.5, 0.3 and 0.1, and an end valued 0.9."""
    tree = search.Tree()
    algorithm = search.create("mcts", widening_coefficient=0.0, **options)
    for value, terminal in ((0.5, False), (0.3, False), (0.1, False), (0.9, True)):
        ask = one(algorithm, tree)
        algorithm.tell(tree, ask.id, [Child(f"n{len(tree)}", value=value, terminal=terminal)], more=True)
    assert tree.visits[0] == visits
    assert tree.value_sum[0] == pytest.approx(total)
    if options["evaluation"] == "value":
        return
    assert tree.depth == [0, 1, 2, 3, 4]
    assert tree.visits == [1] * 5
    assert tree.value_sum == pytest.approx([total] * 5)
    assert tree.value == [None, 0.5, 0.3, 0.1, 0.9]
    assert (tree.ends, tree.best()) == ([0, 0, 0, 0, 1], 4)


def test_the_leaf_of_a_later_simulation_is_the_first_state_without_a_visit() -> None:
    tree = search.Tree()
    algorithm = search.create("mcts", evaluation="both", rollout_weight=0.25, widening_coefficient=0.0)

    def simulate(*steps: tuple[float | None, bool]) -> float:
        before = tree.value_sum[0]
        for value, terminal in steps:
            ask = one(algorithm, tree)
            algorithm.tell(tree, ask.id, [Child(f"n{len(tree)}", value=value, terminal=terminal)], more=True)
        return tree.value_sum[0] - before

    assert simulate((0.5, False), (0.9, True)) == pytest.approx(0.75 * 0.5 + 0.25 * 0.9)
    assert simulate((0.3, False), (0.7, False), (0.1, True)) == pytest.approx(0.75 * 0.3 + 0.25 * 0.1)
    assert simulate((None, False), (0.7, False), (0.1, True)) == pytest.approx(0.1)  # the leaf's value is unknown
    assert simulate((0.2, True)) == pytest.approx(0.2)  # the leaf is the end
    assert tree.ended == 4


def test_a_recorded_step_is_never_the_leaf() -> None:
    tree = search.Tree()
    tree.spine(["r", "end"], None)
    algorithm = search.create("mcts", evaluation="both", widening_coefficient=0.0)
    for child in (Child("r", value=0.5), Child("x", value=0.3), Child("e", value=0.9, terminal=True)):
        node = tree.tips.pop() if tree.tips else 0
        if not node:
            tree.hold(node)
        ask = tree.open_ask(node, 1)
        algorithm.tell(tree, ask.id, [child], more=True)
    assert tree.value_sum[0] == pytest.approx(0.5 * 0.3 + 0.5 * 0.9)


@pytest.mark.parametrize("width", [1, 8])
def test_both_with_a_rollout_weight_of_one_is_rollout(toy: Any, width: int) -> None:
    world = toy.World(seed=13, process=True, max_depth=6, fewest=2)
    kept = []
    every: list[dict[str, Any]] = [{"evaluation": "both", "rollout_weight": 1.0}, {"evaluation": "rollout"}]
    for options in every:
        tree = search.Tree(seed=2)
        toy.play(search.create("mcts", **options), world, tree, width=width, budget=150)
        kept.append(toy.rows(tree))
    assert kept[0] == kept[1]


def test_values_of_states_count_for_nothing_under_rollout(toy: Any) -> None:
    shapes = []
    for process in (True, False):
        world = toy.World(seed=14, process=process, max_depth=6, fewest=2)
        tree = search.Tree(seed=2)
        toy.play(search.create("mcts", evaluation="rollout"), world, tree, width=4, budget=150)
        shapes.append([tree.key, tree.parent, tree.visits, tree.value_sum])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("evaluation", ["rollout", "both"])
@pytest.mark.parametrize("how", ["no children", "failed", "pruned"])
def test_a_rollout_that_cannot_go_on_counts_with_the_value_it_came_to(evaluation: str, how: str) -> None:
    tree = search.Tree()
    tree.spine(["r"], -2.0)
    algorithm = search.create("mcts", evaluation=evaluation, prune_below=0.2 if how == "pruned" else None)
    algorithm.tell(tree, one(algorithm, tree).id, [Child("a", value=0.1)], more=True)
    if how != "pruned":
        ask = one(algorithm, tree)
        assert ask.node == 2
        algorithm.tell(tree, ask.id, [], failed="down" if how == "failed" else None)
    assert tree.status[2] == {"no children": "exhausted"}.get(how, how)
    assert (tree.visits[2], tree.value_sum[2], tree.imputed[2], tree.virtual[0]) == (1, 0.1, False, 0)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "selection": st.sampled_from(["uct", "puct"]),
        "exploration": st.sampled_from([0.0, 1.4]),
        "virtual_loss": st.sampled_from([0.0, 1.0]),
        "widening_coefficient": st.sampled_from([0.0, 0.5, 4.0]),
        "widening_exponent": st.sampled_from([0.0, 0.5, 1.0]),
        "expand": st.integers(1, 3),
        "first_play_urgency": st.sampled_from([-1.0, 1.0]),
        "max_weight": st.sampled_from([0.0, 0.5, 1.0]),
        "prior_weight": st.sampled_from([0.5, 1.0]),
        "evaluation": st.sampled_from(["value", "rollout", "both"]),
        "rollout_weight": st.sampled_from([0.0, 1.0]),
        "outcome_coefficient": st.sampled_from([0.5, 3.0]),
        "outcome_exponent": st.sampled_from([0.0, 1.0]),
        "prune_below": st.just(0.2),
        "prune_quantile": st.just(0.3),
        "prune_confidence": st.sampled_from([0.0, 0.9]),
    },
)
SMALL_WORLDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "branching": st.integers(1, 3),
        "max_depth": st.integers(1, 4),
        "process": st.booleans(),
        "sampling": st.booleans(),
        "states": st.booleans(),
        "gaps": st.sampled_from([0.0, 0.3]),
        "untold": st.sampled_from([0.0, 0.5]),
        "broken": st.sampled_from([0.0, 0.2]),
        "fewest": st.integers(0, 1),
        "outcomes": st.integers(1, 2),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPTIONS, SMALL_WORLDS, st.integers(1, 9), st.booleans(), st.booleans())
def test_no_search_stalls_while_a_state_is_left_to_expand(
    toy: Any, options: dict[str, Any], world: dict[str, Any], width: int, recorded: bool, merge_states: bool
) -> None:
    """Under every option: nothing is asked and nothing is open only when the whole tree has ended."""
    made = toy.World(**world)
    tree = search.Tree(seed=1, merge_states=merge_states)
    longest = max(made.leaves(), key=len, default=())
    if recorded and longest:
        toy.record(tree, made, longest)
    algorithm = search.create("mcts", **options)

    def stalled(tree: search.Tree) -> None:
        assert tree.asks or tree.status[0] != "open" or algorithm.ask(copy.deepcopy(tree), 1)

    played = toy.play(algorithm, made, tree, width=width, budget=600, check=stalled)
    if played.transitions < 600:
        assert tree.status[0] in ("exhausted", "failed")
        left = [node for node in range(len(tree)) if tree.status[node] == "open"]
        assert all("pruned" in {tree.status[step] for step in tree.path(node)} for node in left)
