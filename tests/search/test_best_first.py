"""Best-first: the lowest f of all open nodes, against plain restatements and breadth-first search for shortest runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError

Path = tuple[str, ...]
Heuristic = Callable[[search.Tree, int], float | None]
SEARCHES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def restated(
    world: Any, tree: search.Tree, cost: str, weight: float, heuristic: Callable[[Path], float] | None
) -> list[Path]:
    """The order in which plain best-first search expands, every f computed anew before every choice."""
    g: dict[Path, float] = {(): 0.0}
    surprise: dict[Path, float] = {(): 0.0}
    told: list[float] = []
    frontier: list[Path] = [()]
    order: list[Path] = []
    hashes = {path_of(tree, node): tree.order[node] for node in range(len(tree))}

    def h(path: Path) -> float:
        if heuristic is not None:
            return heuristic(path)
        if not path:
            return 1.0
        span = max(told) - min(told)
        return 1.0 - ((world.value(path) - min(told)) / span if span else 0.0)

    def f(path: Path) -> tuple[float, int, float, int]:
        ties = (-len(path), surprise[path], hashes[path])
        if cost == "none" and heuristic is None and weight:
            return (-world.value(path) if path else 0.0, *ties)
        return (round(g[path] + weight * h(path), 9), *ties)

    while frontier:
        path = min(frontier, key=f)
        frontier.remove(path)
        order.append(path)
        children = [(*path, key) for key in world.actions(path)]
        told += [world.value(child) for child in children]
        total = sum((1 + world.number(child, "prior")) / 4 for child in children)
        for child in children:
            surprise[child] = -log((1 + world.number(child, "prior")) / 4 / total)
            g[child] = g[path] + {"none": 0.0, "depth": 1.0, "prior": surprise[child]}[cost]
        frontier += [child for child in children if not world.ends(child)]
    return order


def path_of(tree: search.Tree, node: int) -> Path:
    return tuple(tree.key[step] for step in tree.path(node)[1:])


def distance(tree: search.Tree, node: int) -> float:
    """Some heuristic that knows nothing of the world."""
    return float(len(set(path_of(tree, node))))


@pytest.mark.parametrize("heuristic", [None, distance])
@pytest.mark.parametrize("weight", [0.0, 0.7, 4.0])
@pytest.mark.parametrize("cost", ["none", "depth", "prior"])
@pytest.mark.parametrize("seed", range(3))
def test_the_lowest_f_is_expanded_next_whatever_the_range_was_when_it_was_told(
    toy: Any, seed: int, cost: str, weight: float, heuristic: Heuristic | None
) -> None:
    world = toy.World(seed=seed, process=True, branching=3, fewest=1, max_depth=5, scale=10.0, offset=-6.0)
    algorithm = search.create("best-first", cost=cost, weight=weight, heuristic=heuristic)
    tree = search.Tree(seed=seed)
    played = toy.play(algorithm, world, tree)
    plain = None if heuristic is None else lambda path: float(len(set(path)))
    assert [toy.path_keys(tree, ask.node) for ask in played.asks] == restated(world, tree, cost, weight, plain)


# A* on a grid


@dataclass(frozen=True)
class Grid:
    """A square with walls; a run begins at (0, 0), steps to a free neighbour and ends at the far corner."""

    size: int
    walls: frozenset[tuple[int, int]]

    def place(self, path: Path) -> tuple[int, int]:
        x = y = 0
        for key in path:
            x, y = x + {"E": 1, "W": -1}.get(key, 0), y + {"S": 1, "N": -1}.get(key, 0)
        return x, y

    def actions(self, path: Path) -> list[str]:
        return [key for key in "ENSW" if self.is_free(self.place((*path, key)))]

    def is_free(self, place: tuple[int, int]) -> bool:
        return all(0 <= axis < self.size for axis in place) and place not in self.walls

    def ends(self, place: tuple[int, int]) -> bool:
        return place == (self.size - 1, self.size - 1)

    def left(self, path: Path) -> int:
        """Steps to the goal if there were no walls: admissible and consistent."""
        return sum(self.size - 1 - axis for axis in self.place(path))

    def shortest(self) -> int | None:
        """By breadth-first search."""
        reached, front, steps = {(0, 0)}, [(0, 0)], 0
        while front:
            if any(self.ends(place) for place in front):
                return steps
            steps += 1
            around = {(x + dx, y + dy) for x, y in front for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))}
            front = [place for place in around if self.is_free(place) and place not in reached]
            reached.update(front)
        return None


GRIDS = st.builds(
    lambda size, walls: Grid(size, frozenset(walls) - {(0, 0), (size - 1, size - 1)}),
    st.integers(2, 5),
    st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8),
)


def solve(grid: Grid, width: int, merge: bool = True, limit: int = 3000, **options: Any) -> search.Tree:
    tree = search.Tree(merge_states=merge)

    def heuristic(tree: search.Tree, node: int) -> float:
        return float(grid.left(path_of(tree, node)))

    given = {"cost": "depth", "solutions": 1, "heuristic": heuristic, **options}
    algorithm = search.create("best-first", **given)
    waiting: list[search.Ask] = []
    while len(tree) < limit and ((asks := algorithm.ask(tree, width - len(waiting))) or waiting):
        waiting += asks
        ask = waiting.pop(0)
        path = path_of(tree, ask.node)
        children = []
        for key in grid.actions(path):
            place = grid.place((*path, key))
            ended = grid.ends(place)
            children.append(Child(key, value=1.0 if ended else None, terminal=ended, state_key=str(place)))
        algorithm.tell(tree, ask.id, children)
    return tree


def first_taken(tree: search.Tree) -> int | None:
    taken = tree.memory["best-first"][0].taken
    return tree.depth[taken[0]] if taken else None


@SEARCHES
@given(GRIDS, st.integers(1, 8), st.booleans())
def test_with_an_admissible_heuristic_the_first_solution_is_a_shortest_one(grid: Grid, width: int, merge: bool) -> None:
    shortest = grid.shortest()
    if shortest is not None and (merge or shortest <= 6):
        assert first_taken(solve(grid, width, merge)) == shortest
    elif merge:
        assert first_taken(solve(grid, width)) is None


@SEARCHES
@given(GRIDS, st.integers(1, 8))
def test_graph_search_expands_every_state_once_and_none_that_is_too_far(grid: Grid, width: int) -> None:
    tree, shortest = solve(grid, width), grid.shortest()
    expanded = [node for node in range(1, len(tree)) if tree.children(node)]  # the root has no state key
    places = [grid.place(path_of(tree, node)) for node in expanded]
    assert len(set(places)) == len(places)
    if shortest is not None and width == 1:
        assert all(tree.depth[node] + grid.left(path_of(tree, node)) <= shortest for node in expanded)


@SEARCHES
@given(GRIDS, st.sampled_from([1.5, 3.0]))
def test_weighted_it_is_at_most_that_many_times_longer(grid: Grid, weight: float) -> None:
    shortest, found = grid.shortest(), first_taken(solve(grid, 1, weight=weight))
    assert (shortest is None) == (found is None)
    if shortest is not None and found is not None:
        assert shortest <= found <= weight * shortest


def test_the_heuristic_saves_expansions_and_what_it_does_not_know_counts_as_0() -> None:
    grid = Grid(5, frozenset({(3, 3)}))
    informed, blind = solve(grid, 1), solve(grid, 1, heuristic=lambda tree, node: None)
    assert len(informed) < len(blind)
    assert first_taken(blind) == first_taken(informed) == 8
    assert path_keys(blind) == path_keys(solve(grid, 1, heuristic=lambda tree, node: float("nan")))
    assert path_keys(blind) == path_keys(solve(grid, 1, heuristic=lambda tree, node: 0.0))


def path_keys(tree: search.Tree) -> list[Path]:
    return [path_of(tree, node) for node in range(len(tree))]


def test_a_state_that_the_heuristic_does_not_know_counts_as_near() -> None:
    near = {"a": 0.5, "b": None, "c": 0.7}
    tree, algorithm = search.Tree(), search.create("best-first", heuristic=lambda tree, node: near.get(tree.key[node]))
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [Child("a"), Child("b"), Child("c")])
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 3)] == ["b", "a", "c"]


# The queue


def test_a_state_that_is_being_asked_elsewhere_waits_and_keeps_its_place() -> None:
    tree, algorithm = search.Tree(), search.create("best-first")
    same = [Child(key, value=0.5, state_key="same") for key in "ab"]
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [*same, Child("c", value=0.1)])
    first, other = algorithm.ask(tree, 3)
    assert tree.key[other.node] == "c"
    algorithm.tell(tree, first.id, [])
    (second,) = algorithm.ask(tree, 3)
    assert {tree.key[first.node], tree.key[second.node]} == {"a", "b"}


def tell(algorithm: search.Algorithm, tree: search.Tree, ask: search.Ask, children: list[Child]) -> None:
    algorithm.tell(tree, ask.id, children, more=True)


def test_an_end_waits_for_asks_that_may_bring_a_better_one() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", solutions=1)
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [Child("a", value=0.9), Child("b", value=0.8)])
    first, second = algorithm.ask(tree, 2)
    algorithm.tell(tree, second.id, [Child("end", value=0.7, terminal=True), Child("c", value=0.1)])
    assert algorithm.ask(tree, 8) == []
    algorithm.tell(tree, first.id, [Child("better", value=0.75, terminal=True)])
    assert [ask.node for ask in algorithm.ask(tree, 1)] == []
    taken = tree.memory["best-first"][0].taken
    assert [tree.key[node] for node in taken] == ["better"]


@pytest.mark.parametrize("solutions", [None, 1, 2])
def test_the_search_ends_after_so_many_solutions(toy: Any, solutions: int | None) -> None:
    world, tree = toy.World(seed=4, process=True, fewest=2), search.Tree()
    toy.play(search.create("best-first", solutions=solutions), world, tree)
    assert len(tree.memory["best-first"][0].taken) == (solutions or 0)
    assert (tree.status[0] == "exhausted") == (solutions is None)


def test_an_end_without_a_verdict_is_no_solution() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", solutions=1)
    (ask,) = algorithm.ask(tree, 1)
    algorithm.tell(tree, ask.id, [Child("unknown", terminal=True), Child("a", value=0.1)])
    (rest,) = algorithm.ask(tree, 8)
    assert tree.key[rest.node] == "a"
    algorithm.tell(tree, rest.id, [])
    assert (algorithm.ask(tree, 8), tree.memory["best-first"][0].taken) == ([], [])


def test_of_equals_the_likelier_goes_first() -> None:
    tree, algorithm = search.Tree(), search.create("best-first")
    children = [Child(f"{prior}", prior, value=0.5) for prior in (0.2, 0.5, 0.3)]
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, children)
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 3)] == ["0.5", "0.3", "0.2"]


def test_a_node_with_more_waits_behind_at_the_mean_of_its_children() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", branching=2)
    tell(algorithm, tree, algorithm.ask(tree, 1)[0], [Child("top", value=0.9)])
    (ask,) = algorithm.ask(tree, 1)
    tell(algorithm, tree, ask, [Child("good", value=0.6), Child("poor", value=0.2)])  # top again at 0.4
    order = [tree.key[ask.node] for ask in algorithm.ask(tree, 4)]
    assert order == ["", "good", "top", "poor"]  # the root again at 0.9, the value of its only child


def test_a_node_is_never_asked_again_before_its_own_value_says_so() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", branching=1)
    tell(algorithm, tree, algorithm.ask(tree, 1)[0], [Child("a", value=0.5)])
    tell(algorithm, tree, next(ask for ask in algorithm.ask(tree, 1) if ask.node == 1), [Child("aa", value=0.95)])
    entries = {tree.key[entry[-1]]: entry[0] for entry in tree.memory["best-first"][0].heap}
    assert entries["a"] == -0.5
    assert entries["aa"] == -0.95


def test_nor_before_its_own_estimate_says_so() -> None:
    near = {"": 9.0, "a": 5.0, "aa": 1.0}
    tree, algorithm = search.Tree(), search.create("best-first", heuristic=lambda tree, node: near[tree.key[node]])
    tell(algorithm, tree, algorithm.ask(tree, 1)[0], [Child("a")])
    tell(algorithm, tree, algorithm.ask(tree, 1)[0], [Child("aa")])
    entries = {tree.key[entry[-1]]: entry[0] for entry in tree.memory["best-first"][0].heap}
    assert entries == {"": 9.0, "a": 5.0, "aa": 1.0}


def test_of_equals_the_one_that_was_not_asked_goes_first() -> None:
    tree, algorithm = search.Tree(), search.create("best-first")
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [Child("a", 0.9, 0.5), Child("b", 0.1, 0.5)])
    tell(algorithm, tree, algorithm.ask(tree, 1)[0], [Child("end", value=0.5, terminal=True)])
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 2)] == ["b", "a"]


def test_with_a_cost_a_state_without_a_value_counts_as_the_lowest() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", cost="depth", weight=2.0, branching=8)
    children = [Child("unknown", 0.9), Child("low", 0.01, -1.0), Child("mid", 0.01, 0.0), Child("high", 0.01, 1.0)]
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, children)
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 4)] == ["high", "mid", "unknown", "low"]


def test_without_any_value_it_goes_deeper_first() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", branching=2)
    depths = []
    for turn in range(5):
        (ask,) = algorithm.ask(tree, 1)
        depths.append(tree.depth[ask.node])
        tell(algorithm, tree, ask, [Child(f"{turn}a"), Child(f"{turn}b")])
    assert depths == [0, 1, 2, 3, 4]


def test_the_value_of_an_end_does_not_draw_the_search_back_while_no_state_has_one() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", branching=2)
    keys = []
    for turn in range(4):
        (ask,) = algorithm.ask(tree, 1)
        keys.append(tree.key[ask.node])
        tell(algorithm, tree, ask, [Child(f"end {turn}", value=0.9, terminal=True), Child(f"on {turn}")])
    assert keys == ["", "on 0", "on 1", "on 2"]


def test_without_any_value_a_width_does_not_make_it_broad() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", branching=2)
    for turn in range(3):
        (ask,) = algorithm.ask(tree, 8)
        assert tree.depth[ask.node] == turn
        tell(algorithm, tree, ask, [Child("a"), Child("b")])
    (ask,) = algorithm.ask(tree, 8)
    tell(algorithm, tree, ask, [Child("end", value=0.1, terminal=True), Child("other end", value=0.2, terminal=True)])
    assert len(algorithm.ask(tree, 8)) == 2
    guided = search.create("best-first", heuristic=lambda tree, node: 1.0)
    tree = search.Tree()
    tell(guided, tree, guided.ask(tree, 8)[0], [Child("a"), Child("b")])
    assert len(guided.ask(tree, 8)) == 3


def test_states_without_a_value_come_last() -> None:
    tree, algorithm = search.Tree(), search.create("best-first", branching=2)
    tell(algorithm, tree, algorithm.ask(tree, 1)[0], [Child("unknown"), Child("bad", value=-9.0)])
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 2)] == ["bad", ""]


def test_ties_are_broken_by_the_seed() -> None:
    picks = set()
    for seed in range(20):
        tree, algorithm = search.Tree(seed=seed), search.create("best-first")
        (ask,) = algorithm.ask(tree, 1)
        algorithm.tell(tree, ask.id, [Child("a", value=1.0), Child("b", value=1.0)])
        picks.add(tree.key[algorithm.ask(tree, 1)[0].node])
    assert picks == {"a", "b"}


@pytest.mark.parametrize(
    "options", [{"cost": "steps"}, {"weight": -1.0}, {"weight": "x"}, {"heuristic": "h"}, {"solutions": 0}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create("best-first", **options)
