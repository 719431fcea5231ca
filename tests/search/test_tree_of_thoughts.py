"""Tree of Thoughts, against plain restatements of algorithms 1 and 2 of the paper."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError

Path = tuple[str, ...]


def grown(world: Any, path: Path, branching: int) -> list[Path]:
    return [(*path, key) for key in world.actions(path)[:branching]]


def breadth_first(world: Any, branching: int, breadth: int, max_steps: int | None) -> list[tuple[Path, int]]:
    """The paths that algorithm 1 generates from, level by level, with the number of children wanted."""
    asked: list[tuple[Path, int]] = []
    states: list[Path] = [()]
    step = 0
    while states and step != max_steps:
        step += 1
        open_states = [path for path in states if not world.ends(path)]
        asked += [(path, branching) for path in open_states]
        proposed = [child for path in open_states for child in grown(world, path, branching)]
        states = sorted(proposed, key=world.value, reverse=True)[:breadth]
    if states and not world.ends(states[0]):
        asked.append((states[0], 1))
    return asked


def depth_first(world: Any, path: Path, branching: int, threshold: float, max_steps: int) -> list[tuple[Path, int]]:
    """The paths that algorithm 2 generates from, in order, with the number of children wanted."""
    if len(path) == max_steps:
        return [(path, 1)]
    asked = [(path, branching)]
    for child in sorted(grown(world, path, branching), key=world.value, reverse=True):
        if not world.ends(child) and world.value(child) > threshold:
            asked += depth_first(world, child, branching, threshold, max_steps)
    return asked


def paths_of(toy: Any, played: Any) -> list[tuple[Path, int]]:
    return [(toy.path_keys(played.tree, ask.node), ask.count) for ask in played.asks]


def wide(toy: Any, seed: int) -> Any:
    return toy.World(seed=seed, process=True, branching=5, fewest=4, max_depth=6, early_end=0.15)


@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize(("branching", "breadth", "max_steps"), [(4, 2, None), (3, 3, 3), (2, 1, 1), (4, 5, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_breadth_first_is_algorithm_1(
    toy: Any, seed: int, branching: int, breadth: int, max_steps: int | None, width: int
) -> None:
    algorithm = search.create("tot-bfs", branching=branching, breadth=breadth, max_steps=max_steps)
    played = toy.play(algorithm, wide(toy, seed), search.Tree(seed=seed), width=width)
    expected = breadth_first(wide(toy, seed), branching, breadth, max_steps)
    assert paths_of(toy, played) == expected
    assert algorithm.ask(played.tree, 8) == []


@pytest.mark.parametrize(("branching", "threshold", "max_steps"), [(4, 0.5, 6), (2, -1.0, 6), (3, 0.2, 3), (3, 0.0, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_depth_first_is_algorithm_2(toy: Any, seed: int, branching: int, threshold: float, max_steps: int) -> None:
    algorithm = search.create("tot-dfs", branching=branching, value_threshold=threshold, max_steps=max_steps)
    played = toy.play(algorithm, wide(toy, seed), search.Tree(seed=seed), width=8)
    assert paths_of(toy, played) == depth_first(wide(toy, seed), (), branching, threshold, max_steps)


def one_level(name: str, children: list[Child], **options: Any) -> tuple[search.Tree, list[str]]:
    """Tell the first ask; the tree, and the keys of the nodes that are asked next."""
    tree, algorithm = search.Tree(), search.create(name, **options)
    algorithm.tell(tree, algorithm.ask(tree, 8)[0].id, children)
    return tree, [tree.key[ask.node] for ask in algorithm.ask(tree, 8)]


def test_ends_compete_for_places_in_breadth_first_and_not_in_a_beam() -> None:
    children = [Child("end", value=0.9, terminal=True), Child("a", value=0.5), Child("b", value=0.4)]
    assert one_level("tot-bfs", children, breadth=2)[1] == ["a"]
    assert one_level("beam", children, beam_width=2)[1] == ["a", "b"]
    assert one_level("tot-bfs", children, breadth=1)[1] == []


def test_after_the_last_step_only_the_best_state_is_asked_for_the_output() -> None:
    tree, algorithm = search.Tree(), search.create("tot-bfs", branching=2, breadth=2, max_steps=1)
    algorithm.tell(tree, algorithm.ask(tree, 8)[0].id, [Child("a", value=0.1), Child("b", value=0.2)])
    (output,) = algorithm.ask(tree, 8)
    assert (tree.key[output.node], output.count) == ("b", 1)
    algorithm.tell(tree, output.id, [Child("answer", value=0.5)], more=True)
    assert algorithm.ask(tree, 8) == []
    end = [Child("a", value=0.1), Child("end", value=0.2, terminal=True)]
    assert one_level("tot-bfs", end, breadth=2, max_steps=1)[1] == []


def test_without_values_breadth_first_goes_by_priors_however_well_a_run_has_ended() -> None:
    children = [Child("end", 0.1, 0.9, terminal=True), Child("a", 0.5), Child("b", 0.4)]
    assert one_level("tot-bfs", children, breadth=2)[1] == ["a", "b"]


def test_copies_of_one_state_take_one_place() -> None:
    children = [Child(key, value=0.5, state_key="same") for key in "abc"] + [Child("d", value=0.1, state_key="other")]
    assert len(one_level("tot-bfs", children, breadth=2)[1]) == 2
    tree, asked = one_level("tot-dfs", children)
    assert (len(asked), tree.key.index("d") in tree.memory["tot-dfs"][0]) == (1, True)
    assert len(tree.memory["tot-dfs"][0]) == 1


def test_children_at_or_below_the_threshold_are_pruned_with_the_reason() -> None:
    children = [Child("low", value=0.2), Child("at", value=0.5), Child("above", value=0.6), Child("unknown")]
    tree, asked = one_level("tot-dfs", children, value_threshold=0.5)
    assert asked == ["above"]
    assert [tree.status[node] for node in (1, 2, 3, 4)] == ["pruned", "pruned", "open", "open"]
    assert tree.reason[1] == "value 0.2 is not above 0.5"
    assert [tree.key[node] for node in tree.memory["tot-dfs"][0]] == ["unknown"]
    kept, _ = one_level("tot-dfs", children)
    assert [kept.status[node] for node in (1, 2, 3, 4)] == ["open"] * 4


def test_depth_first_has_one_ask_open_and_backtracks_after_an_end() -> None:
    tree, algorithm = search.Tree(), search.create("tot-dfs", branching=2)
    (ask,) = algorithm.ask(tree, 8)
    assert algorithm.ask(tree, 8) == []
    algorithm.tell(tree, ask.id, [Child("a", value=0.2), Child("b", value=0.7)])
    (ask,) = algorithm.ask(tree, 8)
    assert tree.key[ask.node] == "b"
    algorithm.tell(tree, ask.id, [Child("end", value=0.1, terminal=True)])
    (ask,) = algorithm.ask(tree, 8)
    assert tree.key[ask.node] == "a"


def test_a_recorded_step_below_the_threshold_is_left_out_but_never_closed() -> None:
    tree, algorithm = search.Tree(), search.create("tot-dfs", branching=2, value_threshold=0.5)
    tree.spine(["r", "end"], 1.0)
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [Child("r", value=0.1)])
    assert (algorithm.ask(tree, 1), tree.status[1]) == ([], "open")


@pytest.mark.parametrize("name", ["tot-bfs", "tot-dfs"])
def test_steps_are_counted_from_where_the_search_begins(toy: Any, name: str) -> None:
    world = toy.World(seed=4, branching=3, fewest=3, max_depth=6, early_end=0.0, process=True)
    tree = search.Tree(seed=4)
    spine = toy.record(tree, world, ("a",) * 6)
    tree.start = spine[1]
    toy.play(search.create(name, max_steps=2), world, tree)
    assert max(tree.depth[node] for node in range(len(tree)) if not tree.spine[node]) == 2 + 2 + 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tot-bfs", {"breadth": 0}),
        ("tot-bfs", {"max_steps": 0}),
        ("tot-dfs", {"max_steps": "3"}),
        ("tot-dfs", {"value_threshold": "high"}),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        search.create(name, **options)
