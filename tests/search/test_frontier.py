"""What holds for all searches that keep their own frontier: states, recorded steps, and how each of them may end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.storage.errors import UsageError

NAMES = ["beam", "best-first", "dvts", "greedy", "tot-bfs", "tot-dfs"]
WORLDS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    **{name: st.booleans() for name in ("process", "priors", "sampling")},
    **{name: st.sampled_from(shares) for name, shares in {"gaps": [0.0, 0.3], "broken": [0.0, 0.2]}.items()},
    seed=st.integers(0, 10_000),
    branching=st.integers(1, 4),
    max_depth=st.integers(1, 5),
    fewest=st.integers(0, 1),
)
SEARCHES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def with_states(toy: Any, world: dict[str, Any], states: int) -> Any:
    """The world, its unfinished states of one depth folded into so many that look alike."""

    class Folded(toy.World):  # type: ignore[misc]  # the module is loaded by path
        def child(self, path: tuple[str, ...]) -> Child:
            child: Child = super().child(path)
            state = f"{len(path)}/{int(self.number(path, 'state') * states)}"
            return child if child.terminal else replace(child, state_key=state)

    return Folded(**world)


def run(toy: Any, name: str, world: Any, tree: search.Tree, width: int) -> dict[str, set[int]]:
    """Play to the end of the search; the nodes that each state was asked at. No two may be open at once."""
    algorithm = search.create(name)
    asked_at: dict[str, set[int]] = {}

    def ask(tree: search.Tree, k: int) -> list[search.Ask]:
        asks = algorithm.ask(tree, k)
        for item in asks:
            state = tree.state_key[item.node]
            if state is not None:
                asked_at.setdefault(state, set()).add(item.node)
        states = [tree.state_key[item.node] for item in tree.asks.values()]
        held = [state for state in states if state is not None]
        assert len(set(held)) == len(held)
        return asks

    class Watched:
        synchronous = True

    watched: Any = Watched()
    watched.ask, watched.tell = ask, algorithm.tell
    toy.play(search.AutoBranch(watched), world, tree, width=width, budget=400)
    return asked_at


@SEARCHES
@given(st.sampled_from(NAMES), WORLDS, st.integers(1, 16), st.integers(1, 3), st.booleans(), st.booleans())
def test_one_state_is_asked_at_one_node_at_a_time_and_merged_states_at_one_node_ever(
    toy: Any, name: str, world: dict[str, Any], width: int, states: int, merge: bool, recorded: bool
) -> None:
    tree, folded = search.Tree(seed=world["seed"], merge_states=merge), with_states(toy, world, states)
    paths = list(folded.leaves())
    if recorded and paths and max(paths, key=len):
        toy.record(tree, folded, max(paths, key=len))
    asked_at = run(toy, name, folded, tree, width)
    if merge:
        assert all(len(nodes) == 1 for nodes in asked_at.values())
    assert not any(tree.virtual)


def test_without_merging_a_state_may_be_expanded_again_later() -> None:
    for merge, expected in ((False, ["", "a", "b"]), (True, ["", "a"])):
        tree, algorithm = search.Tree(merge_states=merge), search.create("tot-dfs", branching=2, max_steps=3)
        keys: list[str] = []
        told = {"": [Child("a", value=0.9, state_key="A"), Child("c", value=0.5, state_key="C", terminal=True)]}
        told["a"] = [Child("b", value=0.4, state_key="A")]
        while asks := algorithm.ask(tree, 1):
            keys.append(tree.key[asks[0].node])
            algorithm.tell(tree, asks[0].id, told.get(keys[-1], []))
        assert keys == expected


def test_a_recorded_state_that_was_expanded_before_it_had_a_key_is_not_expanded_again() -> None:
    tree = search.Tree(merge_states=True)
    spine = tree.spine(["r", "end"], 1.0)
    algorithm = search.create("greedy")
    tree.start = spine[0]
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, [Child("x", value=0.1, terminal=True)])
    assert algorithm.ask(tree, 1) == []
    tree.start = 0
    told = [Child("r", state_key="R"), Child("a", value=0.9, state_key="R"), Child("b", value=0.5, state_key="B")]
    algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, told)
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 1)] == ["b"]


@SEARCHES
@given(st.sampled_from(["best-first", "tot-dfs"]), WORLDS, st.integers(1, 8))
def test_nothing_that_was_proposed_is_left_unasked_by_searches_that_drop_nothing(
    toy: Any, name: str, world: dict[str, Any], width: int
) -> None:
    made, tree = toy.World(**{**world, "sampling": False, "max_depth": 4}), search.Tree(seed=world["seed"])
    played = toy.play(search.create(name, branching=4), made, tree, width=width)
    assert {ask.node for ask in played.asks} >= {node for node in range(len(tree)) if tree.status[node] == "open"}
    if not made.broken:
        assert sum(tree.terminal) == len(list(made.leaves()))


@SEARCHES
@given(WORLDS, st.integers(1, 8), st.sampled_from([None, 0.4]))
def test_greedy_ends_at_a_finished_run_or_with_the_tree(
    toy: Any, world: dict[str, Any], width: int, prune_below: float | None
) -> None:
    made, tree = toy.World(**world), search.Tree(seed=world["seed"])
    played = toy.play(search.create("greedy", branching=2, prune_below=prune_below), made, tree, width=width)
    last = [tree.status[node] for node in tree.told[played.asks[-1].id]]
    assert tree.status[0] != "open" or "closed" in last or any(tree.terminal)
    if not any(tree.terminal):
        assert tree.status[0] != "open"


@SEARCHES
@given(WORLDS, st.integers(1, 8), st.integers(1, 4))
def test_every_sub_tree_of_dvts_ends_at_a_finished_run_or_with_all_it_had(
    toy: Any, world: dict[str, Any], width: int, trees: int
) -> None:
    made, tree = toy.World(**world), search.Tree(seed=world["seed"])
    toy.play(search.create("dvts", branching=2, trees=trees), made, tree, width=width)
    walks = tree.memory["dvts"][0].walks
    tops = [child for walk in walks for child in walk.offered[0]]
    assert len(tops) == len(set(tops))
    for walk in walks:
        assert walk.ended
        assert tree.terminal[walk.at] or all(tree.status[child] != "open" for child in walk.offered[0])


@pytest.mark.parametrize("name", NAMES)
def test_recorded_steps_are_followed_only_when_proposed(name: str) -> None:
    for proposed in (False, True):
        tree, algorithm = search.Tree(), search.create(name, branching=1)
        tree.spine(["r", "end"], 1.0)
        told = [Child("r", value=0.5) if proposed else Child("a", value=0.5)]
        algorithm.tell(tree, algorithm.ask(tree, 1)[0].id, told, more=True)
        (ask, *_) = algorithm.ask(tree, 8)
        assert tree.key[ask.node] in ({"r", ""} if proposed else {"a", ""})
        assert (1 in [item.node for item in tree.asks.values()]) == (proposed and name != "dvts")


@pytest.mark.parametrize("name", NAMES)
def test_at_a_branch_point_the_record_is_left(name: str) -> None:
    tree, algorithm = search.Tree(), search.AutoBranch(search.create(name, branching=2))
    tree.spine(["r", "end"], 1.0)
    (ask,) = algorithm.ask(tree, 8)
    assert ask.node == 0
    algorithm.tell(tree, ask.id, [Child("r", value=0.9), Child("a", value=0.1)])
    asked = [ask.node for ask in algorithm.ask(tree, 1)]
    assert [tree.key[node] for node in asked] == ["a"]


@pytest.mark.parametrize("name", NAMES)
def test_with_auto_it_runs_at_every_step_of_the_record_and_whole(toy: Any, name: str) -> None:
    world = toy.World(seed=4, branching=3, fewest=3, max_depth=5, early_end=0.0, process=True)
    tree = search.Tree(seed=4)
    spine = toy.record(tree, world, ("a",) * 5)
    played = toy.play(search.AutoBranch(search.create(name, branching=2)), world, tree, width=4)
    asked = [ask.node for ask in played.asks]
    starts = [node for node in dict.fromkeys(asked) if node in (0, *spine)]
    assert starts[:2] == [0, spine[3]]
    assert sorted(starts) == [0, *spine[:4]]
    assert all(0 in tree.path(node) and spine[0] not in tree.path(node) for node in asked[: asked.index(spine[3])])
    finished = {tree.path(node)[1] for node in range(len(tree)) if tree.terminal[node] and not tree.spine[node]}
    assert len(finished) > 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("auto", [False, True])
def test_what_a_start_knows_already_is_not_asked_for_again(name: str, auto: bool) -> None:
    tree, first = search.Tree(), search.create("best-of-n", n=1)
    tree.spine(["recorded", "end"], 0.0)
    first.tell(tree, first.ask(tree, 1)[0].id, [Child("a")])
    tree.complete[0] = True
    algorithm: search.Algorithm = search.create(name)
    algorithm = search.AutoBranch(algorithm) if auto else algorithm
    assert [tree.key[ask.node] for ask in algorithm.ask(tree, 4)] == ["a"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outcome", [{"failed": "busy"}, {"more": True}])
def test_an_expansion_that_brought_nothing_is_asked_again_three_times(name: str, outcome: dict[str, Any]) -> None:
    tree, algorithm = search.Tree(), search.create(name)
    for _ in range(3):
        (ask,) = algorithm.ask(tree, 4)
        assert ask.node == 0
        algorithm.tell(tree, ask.id, [], **outcome)
    assert algorithm.ask(tree, 4) == []


@pytest.mark.parametrize("name", NAMES)
def test_asks_want_branching_children(name: str) -> None:
    tree = search.Tree()
    (ask,) = search.create(name, branching=3, **({"trees": 1} if name == "dvts" else {})).ask(tree, 8)
    assert ask.count == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("branching", [0, "4", None, True])
def test_branching_is_a_count(name: str, branching: Any) -> None:
    with pytest.raises(UsageError, match="branching"):
        search.create(name, branching=branching)
