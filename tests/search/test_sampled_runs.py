"""Runs as the policy draws them: what is known goes on counting, and costs nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.search.omega_prm import mc
from ttc_replay.search.sampled_runs import FREE_LIMIT


def one(algorithm: search.Algorithm, tree: search.Tree) -> search.Ask:
    (ask,) = algorithm.ask(tree, 1)
    return ask


def end(key: str, value: float | None = 0.0, state: str | None = None) -> Child:
    return Child(key, value=value, terminal=True, state_key=state)


class Skewed:
    """Six runs in ten take the one road to "common"; the others each take a road of their own to "rare"."""

    def __init__(self, toy: Any, seed: int):
        self.hash = toy.World(seed=seed)

    def expand(self, path: tuple[str, ...], ask: search.Ask, known: list[str]) -> tuple[list[Child], dict[str, Any]]:
        if path:
            common = path[0] == "road"
            return [end("end", float(not common), state="common" if common else "rare")], {"more": True}
        common = self.hash.number((str(ask.id),), "draw") < 0.6
        return [Child("road" if common else f"path {ask.id}")], {"more": True}


@pytest.mark.parametrize("width", [1, 8])
def test_a_run_that_is_known_by_heart_keeps_its_votes(toy: Any, width: int) -> None:
    """Its road has nothing new after four runs: it would have four votes, and the rare roads the rest."""
    for seed in range(5):
        tree = search.Tree(seed=seed)
        played = toy.play(search.create("self-consistency", n=100), Skewed(toy, seed), tree, width=width)
        assert sum(tree.votes.values()) == 100
        assert 50 <= tree.votes["common"] <= 72
        assert tree.answer(tree.best() or 0) == "common"
        assert len(played.asks) < 170
        keys = [toy.path_keys(tree, node) for node in range(len(tree))]
        assert len(set(keys)) == len(keys) == played.transitions + 1


def test_an_exhausted_world_votes_on_for_nothing_when_n_says_so(toy: Any) -> None:
    world = toy.World(seed=1, branching=2, fewest=2, max_depth=2, early_end=0.0, priors=False)
    spent = {}
    for n in (None, 400):
        tree = search.Tree(seed=1)
        played = toy.play(search.create("self-consistency", n=n), world, tree)
        assert tree.status[0] == "exhausted"
        spent[n] = (len(played.asks), played.transitions)
        if n:
            assert sum(tree.votes.values()) == n
            assert all(170 < votes < 230 for votes in tree.votes.values())
    assert spent[None] == spent[400]


def test_known_actions_are_drawn_by_their_priors() -> None:
    algorithm, tree = search.create("self-consistency", n=500), search.Tree()
    first = one(algorithm, tree)
    algorithm.tell(tree, first.id, [Child("a", prior=0.8), Child("b", prior=0.2)])
    tree.complete[0] = True
    while asks := algorithm.ask(tree, 1):
        key = tree.key[asks[0].node]
        algorithm.tell(tree, asks[0].id, [end(f"{key} end")])
        tree.complete[asks[0].node] = True
        tree.settle(asks[0].node)
    assert sum(tree.votes.values()) == 500
    assert 370 < tree.votes["a end"] < 430


def test_known_runs_do_not_keep_the_search_from_new_ones() -> None:
    """The one open action has next to no chance; after FREE_LIMIT known runs it is played all the same."""
    algorithm, tree = search.create("self-consistency"), search.Tree()
    algorithm.tell(
        tree, one(algorithm, tree).id, [Child("a", prior=1.0, value=1.0, terminal=True), Child("b", prior=0.0)]
    )
    tree.complete[0] = True
    tree.tips.clear()
    tree.virtual[:] = [0] * len(tree)
    ask = one(algorithm, tree)
    assert tree.key[ask.node] == "b"
    assert tree.votes == {"a": 1.0 + FREE_LIMIT}


def test_rollouts_into_what_is_exhausted_are_drawn_from_what_is_known() -> None:
    """A policy that proposes the same two runs again and again: three ends in vain close a state."""
    tree = search.Tree()
    algorithm = search.create("omega-prm", rollouts=10)
    told = 0
    while asks := algorithm.ask(tree, 1):
        (ask,) = asks
        if ask.node == 0:
            algorithm.tell(tree, ask.id, [Child("even" if told % 2 else "odd")], more=True)
            told += 1
        else:
            value = float(tree.key[ask.node] == "even")
            algorithm.tell(tree, ask.id, [Child("end", value=value, terminal=True)], more=True)
    tally = tree.memory["omega-prm"]
    correct, total = mc(tree, 0)
    assert tree.status[0] == "exhausted"
    assert tree.ended < total == 10
    assert 0 < correct < 10
    assert sum(times for (state, _), times in tally.drawn.items() if state == 0) == 10


def test_values_of_states_do_not_end_a_rollout(toy: Any) -> None:
    world = toy.World(seed=5, branching=3, fewest=3, max_depth=4, early_end=0.0, process=True, sampling=True)
    tree = search.Tree()
    toy.play(search.create("omega-prm", rollouts=5, searches=1), world, tree, budget=20)
    assert mc(tree, 0)[1] == 5
    assert all(tree.depth[node] == 4 for node in range(len(tree)) if tree.terminal[node])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["self-consistency", "omega-prm"])
def test_any_order_of_tells_finishes_every_run(toy: Any, name: str, last: bool) -> None:
    algorithm: Any = search.create(name, n=8)
    tree = search.Tree()
    waiting: list[search.Ask] = []
    while (waiting := waiting + algorithm.ask(tree, 8 - len(waiting))) != []:
        ask = waiting.pop() if last else waiting.pop(0)
        if tree.depth[ask.node] < 2:
            algorithm.tell(tree, ask.id, [Child(f"{ask.id}")], more=True)
        else:
            first = toy.path_keys(tree, ask.node)[0]
            algorithm.tell(
                tree, ask.id, [end(f"{ask.id}", float(int(first) % 2), state=f"{int(first) % 2}")], more=True
            )
    assert tree.ended == 8
    assert mc(tree, 0)[1] == (8 if name == "omega-prm" else 0)
    assert sum(tree.votes.values()) == (8 if name == "self-consistency" else 0)
    assert not tree.tips
    assert not any(tree.virtual)


def test_a_run_that_leaves_the_record_does_not_draw_the_recorded_step() -> None:
    for seed in range(20):
        tree = search.Tree(seed=seed)
        tree.spine(["recorded", "end"], 1.0)
        beam = search.create("beam", branching=2)
        beam.tell(tree, beam.ask(tree, 1)[0].id, [Child("a")])
        tree.leave_spine = True
        ask = one(search.create("self-consistency"), tree)
        assert tree.key[ask.node] == "a"


def test_a_run_does_not_go_on_below_a_pruned_state() -> None:
    for seed in range(20):
        tree = search.Tree(seed=seed)
        beam = search.create("beam", branching=3)
        beam.tell(tree, one(beam, tree).id, [Child("pruned"), Child("open")])
        for ask in beam.ask(tree, 2):
            beam.tell(tree, ask.id, [Child(f"below {tree.key[ask.node]}")])
        tree.close(1, "pruned", "by hand")
        ask = one(search.create("self-consistency"), tree)
        assert tree.key[ask.node] == "below open"
