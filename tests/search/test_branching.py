"""AutoBranch: step 0, the last step, then where values differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.search.branching import branch_points, choose


def recorded(length: int, value: float = 0.0) -> search.Tree:
    """A tree with a record of so many steps."""
    tree = search.Tree()
    tree.spine([f"r{step}" for step in range(length)], value)
    return tree


def probe(tree: search.Tree, algorithm: search.Algorithm, values: Sequence[float], rounds: int) -> list[int]:
    """Serial one-step rollouts whose end has the value of its branch point; the points in order."""
    order = []
    for turn in range(rounds):
        (ask,) = algorithm.ask(tree, 1)
        point = branch_points(tree).index(ask.node)
        order.append(point)
        algorithm.tell(tree, ask.id, [Child(f"new{turn}", value=values[point], terminal=True)], more=True)
    return order


@pytest.mark.parametrize("name", ["best-of-n", "mcts"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # the drop lies between 4 and 5: a binary search finds it, and then the promising points race
        ([1, 1, 1, 1, 1, 0, 0, 0, 0], [0, 8, 4, 6, 5, 0]),
        # nothing differs: the widest interval first, then the earliest
        ([0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 8, 4, 2, 6, 1, 3, 5, 7]),
        # the larger difference first
        ([1.0, 1.0, 0.7, 0.7, 0.7, 0.7, 0.0, 0.0, 0.0], [0, 8, 4, 6, 5, 2, 1]),
    ],
)
def test_the_order_of_the_probes(name: str, values: list[float], expected: list[int]) -> None:
    tree = recorded(9)
    algorithm = search.AutoBranch(search.create(name))
    assert probe(tree, algorithm, values, len(expected)) == expected


def test_after_the_probes_the_promising_points_get_the_rest() -> None:
    tree = recorded(9)
    values = [0.1, 0.1, 0.1, 0.1, 1.0, 0.1, 0.1, 0.1, 0.1]
    order = probe(tree, search.AutoBranch(search.create("best-of-n")), values, 200)
    assert set(order[:5]) == {0, 8, 4, 2, 6}
    assert order.count(4) > 0.5 * len(order)
    assert all(order.count(point) >= 2 for point in (0, 8))


def test_points_with_nothing_left_are_skipped() -> None:
    tree = recorded(5)
    algorithm = search.AutoBranch(search.create("best-of-n"))
    (ask,) = algorithm.ask(tree, 1)
    algorithm.tell(tree, ask.id, [])  # nothing but the recorded action at step 0
    order = []
    while asks := algorithm.ask(tree, 1):
        order.append(branch_points(tree).index(asks[0].node))
        algorithm.tell(tree, asks[0].id, [])
    assert (ask.node, sorted(order)) == (0, [1, 2, 3, 4])
    assert order[:2] == [4, 2]
    assert tree.status[0] == "exhausted"


def test_open_probes_count_as_probed(toy: Any) -> None:
    tree = recorded(9)
    for node in range(1, 9):
        tree.back_up(node, 0.0)  # the first rollouts have ended: many may be open
    algorithm = search.AutoBranch(search.create("best-of-n"))
    asks = algorithm.ask(tree, 5)
    assert [branch_points(tree).index(ask.node) for ask in asks] == [0, 8, 4, 2, 6]


def test_a_beam_runs_whole_at_each_point(toy: Any) -> None:
    world = toy.World(seed=4, branching=3, fewest=3, max_depth=5, early_end=0.0)
    tree = search.Tree(seed=4)
    spine = toy.record(tree, world, ("a",) * 5)
    played = toy.play(search.AutoBranch(search.create("beam", beam_width=2, branching=2)), world, tree, width=4)
    starts = [ask.node for ask in played.asks if ask.node in (0, *spine)]
    assert starts[:2] == [0, spine[3]]
    assert sorted(starts) == [0, *spine[:4]]
    nodes_in_order = [ask.node for ask in played.asks]
    second = nodes_in_order.index(spine[3])
    assert all(tree.path(node)[1:2] != [spine[0]] for node in nodes_in_order[1:second])


def test_without_a_record_it_is_the_algorithm_itself(toy: Any) -> None:
    world = toy.World(seed=8, branching=3, max_depth=5)
    trees = []
    for algorithm in (search.create("mcts"), search.AutoBranch(search.create("mcts"))):
        tree = search.Tree(seed=1)
        toy.play(algorithm, world, tree, width=4, budget=100)
        trees.append(toy.rows(tree))
    assert trees[0] == trees[1]


def test_it_takes_any_algorithm(toy: Any) -> None:
    class Widest:
        """A plugin: two children of the start, again and again."""

        def ask(self, tree: search.Tree, k: int) -> list[search.Ask]:
            return [tree.open_ask(tree.start, 2) for _ in range(min(k, 2 - len(tree.asks)))]

        def tell(
            self,
            tree: search.Tree,
            ask_id: int,
            children: Sequence[Child],
            *,
            more: bool = False,
            failed: str | None = None,
        ) -> list[int]:
            ask = tree.asks[ask_id]
            ids = [tree.add(ask.node, child) for child in children]
            for node in ids:
                tree.back_up(node, 0.5)
            tree.close_ask(ask, ids)
            return ids

    tree = recorded(6)
    algorithm = search.AutoBranch(Widest())
    assert isinstance(algorithm, search.Algorithm)
    asked = []
    for turn in range(6):
        for ask in algorithm.ask(tree, 1):
            asked.append(branch_points(tree).index(ask.node))
            algorithm.tell(tree, ask.id, [Child(f"x{turn}", terminal=True), Child(f"y{turn}", terminal=True)])
    assert asked[:4] == [0, 5, 2, 3]


def test_branch_points_are_the_states_before_the_recorded_steps() -> None:
    assert branch_points(recorded(4)) == [0, 1, 2, 3]
    assert branch_points(search.Tree()) == [0]
    assert choose(recorded(3), {0, 1, 2}) is None


def test_every_step_is_left_and_the_record_is_not_followed(toy: Any) -> None:
    world = toy.World(seed=12, branching=3, fewest=3, max_depth=6, early_end=0.0)
    tree = search.Tree(seed=12)
    spine = toy.record(tree, world, ("b",) * 6)
    toy.play(search.AutoBranch(search.create("mcts")), world, tree, width=4, budget=200)
    for node in (0, *spine[:-1]):
        assert any(not tree.spine[child] for child in tree.children(node))


def test_a_vote_goes_on_at_the_other_points_when_one_is_exhausted(toy: Any) -> None:
    """One action a state: the first and the last point are exhausted by their first ask, the middle one is not."""
    world, tree = toy.World(branching=1, max_depth=3, early_end=0.0), search.Tree()
    toy.record(tree, world, ("a", "a", "a"))
    played = toy.play(search.AutoBranch(search.create("self-consistency")), world, tree)
    assert sorted(ask.node for ask in played.asks) == [0, 1, 2]
    assert tree.status[0] == "exhausted"


def test_another_outcome_of_the_recorded_action_does_not_leave_the_record() -> None:
    tree = recorded(1)
    algorithm = search.AutoBranch(search.create("mcts", outcome_coefficient=1.0))
    tree.hold(0)
    algorithm.tell(tree, tree.open_ask(0, 1, "r0").id, [Child("r0~1", value=0.5)])
    tree.complete[0] = True
    assert algorithm.ask(tree, 1) == []
    assert search.plan_ended(algorithm, tree) == "no branch point is left"


def test_it_has_ended_when_its_algorithm_has_at_every_point(toy: Any) -> None:
    world, tree = toy.World(seed=4, branching=3, fewest=3, max_depth=5, early_end=0.0), search.Tree()
    toy.record(tree, world, ("a",) * 5)
    algorithm = search.AutoBranch(search.create("greedy", branching=2))
    ended = []
    toy.play(algorithm, world, tree, check=lambda tree: ended.append(search.plan_ended(algorithm, tree)))
    assert set(ended[:-1]) == {None}
    assert search.plan_ended(algorithm, tree) == "its run has come to an end"
    assert tree.status[0] == "open"
    assert tree.start == branch_points(tree)[-2]  # the last one that was probed; the question has not moved it
