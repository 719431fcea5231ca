"""OmegaPRM: the first wrong step of a recorded run, at the promised number of rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.search.omega_prm import first_wrong_step, mc, most_rollouts
from ttc_replay.storage.errors import UsageError


@dataclass(frozen=True)
class Fatal:
    """A record of `steps` steps whose step `fatal` loses the run for good.

    Until then a rollout that leaves the record ends well with the probability `chance`, at the step where the record
    ends, or `extra` steps later for every second one. `repeat`: how likely the policy proposes the recorded step.
    `unjudged`: the share of ends without a verdict; `stuck`: the states whose expansion fails; `needed`: only who has
    taken so many recorded steps can win; `good`: the value of that.
    """

    steps: int
    fatal: int
    chance: float = 1.0
    repeat: float = 0.0
    extra: int = 0
    seed: int = 0
    unjudged: float = 0.0
    stuck: tuple[int, ...] = ()
    needed: int = 0
    good: float = 1.0

    def number(self, what: str) -> float:
        return sha256(f"{self.seed}/{what}".encode()).digest()[0] / 256

    def tree(self, value: float | None = 0.0) -> search.Tree:
        tree = search.Tree(seed=self.seed)
        tree.spine([f"r{step}" for step in range(self.steps)], value)
        return tree

    def expand(self, path: tuple[str, ...], ask: search.Ask, known: list[str]) -> tuple[list[Child], dict[str, Any]]:
        recorded = sum(key == f"r{step}" for step, key in enumerate(path))
        if len(path) in self.stuck and recorded == len(path):
            return [], {"failed": "stuck"}
        follows = recorded == len(path) < self.steps and self.number(f"repeat{ask.id}") < self.repeat
        key = f"r{len(path)}" if follows else f"n{ask.id}"
        run = next((name for name in (*path, key) if name.startswith("n")), "")
        length = self.steps + (self.extra if self.number(run) < 0.5 else 0)
        if len(path) + 1 < length:
            return [Child(key)], {"more": True}
        saved = bool(run) and self.needed <= recorded <= self.fatal and self.number(f"{run} saved") < self.chance
        judged = not run or self.number(f"{run} judged") >= self.unjudged
        return [Child(key, value=saved * self.good if judged else None, terminal=True)], {"more": True}


def begun_at(played: Any, node: int) -> int:
    """How many rollouts began at the node: those asks there that no other ask had led to."""
    tree = played.tree
    told: list[int] = [child for ask in played.asks for child in tree.told[ask.id]]
    return [ask.node for ask in played.asks].count(node) - told.count(node)


@pytest.mark.parametrize("rollouts", [1, 4, 8])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 16, 33])
def test_the_fatal_step_is_found_within_k_log_m_rollouts(toy: Any, steps: int, rollouts: int) -> None:
    bound = rollouts * (1 + math.ceil(math.log2(steps)))
    assert most_rollouts(steps, rollouts) == bound
    for fatal in range(steps):
        tree = Fatal(steps, fatal).tree()
        algorithm = search.create("omega-prm", rollouts=rollouts, searches=1)
        played = toy.play(algorithm, Fatal(steps, fatal), tree, width=4)
        assert first_wrong_step(tree) == fatal
        assert tree.ended <= bound
        assert all(ask.count == 1 for ask in played.asks)
        spine = [0, *range(1, steps)]
        valued = [node for node in spine if mc(tree, node)[1]]
        assert [begun_at(played, node) for node in valued] == [rollouts] * len(valued)
        assert all(mc(tree, node) == (rollouts * (tree.depth[node] <= fatal), rollouts) for node in valued[1:])


@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("repeat", [0.0, 0.3])
def test_it_is_found_under_noise(toy: Any, width: int, repeat: float) -> None:
    """At most half of the rollouts from a good state fail: 8 of them all fail once in 256."""
    found = 0
    for seed in range(32):
        world = Fatal(16, seed % 16, chance=0.5 / (1 - repeat), repeat=repeat, seed=seed)
        tree = world.tree()
        toy.play(search.create("omega-prm", searches=1), world, tree, width=width)
        found += first_wrong_step(tree) == world.fatal
    assert found >= 30


def test_more_rollouts_see_through_more_noise(toy: Any) -> None:
    found = {}
    for rollouts in (2, 24):
        worlds = [Fatal(12, seed % 12, chance=0.2, seed=seed) for seed in range(40)]
        trees = [world.tree() for world in worlds]
        for world, tree in zip(worlds, trees, strict=True):
            toy.play(search.create("omega-prm", rollouts=rollouts, searches=1), world, tree, width=8)
        found[rollouts] = sum(first_wrong_step(tree) == world.fatal for world, tree in zip(worlds, trees, strict=True))
    assert found[2] < 20
    assert found[24] >= 36


def test_a_record_from_which_nothing_succeeds_is_blamed_on_no_step(toy: Any) -> None:
    world = Fatal(9, 5, chance=0.0)
    tree = world.tree()
    toy.play(search.create("omega-prm", rollouts=3), world, tree)
    assert first_wrong_step(tree) is None
    assert mc(tree, 0) == (0, 3)


def test_a_record_that_made_a_hard_task_easier_is_searched_all_the_same(toy: Any) -> None:
    world = Fatal(8, 5, needed=3)
    tree = world.tree()
    toy.play(search.create("omega-prm", rollouts=4, searches=1), world, tree)
    assert mc(tree, 0) == (0, 4)
    assert first_wrong_step(tree) == 5


@pytest.mark.parametrize("value", [None, 1.0])
def test_a_record_that_did_not_fail_is_not_searched(toy: Any, value: float | None) -> None:
    world = Fatal(8, 3)
    tree = world.tree(value)
    played = toy.play(search.create("omega-prm", rollouts=4), world, tree)
    assert first_wrong_step(tree) is None
    assert {ask.node for ask in played.asks if ask.node in range(9)} == {0}


def test_without_a_search_nothing_is_known() -> None:
    tree = Fatal(1, 0).tree()
    assert first_wrong_step(tree) is None
    assert mc(tree, 0) == (0, 0)
    assert tree.memory == {}


def test_states_that_others_pass_need_fewer_rollouts_of_their_own(toy: Any) -> None:
    world = Fatal(16, 12, chance=0.9, repeat=0.7, seed=1)
    tree = world.tree()
    toy.play(search.create("omega-prm", rollouts=8, searches=1), world, tree)
    own = dict.fromkeys(range(16), 0)
    for (state, _), times in tree.memory["omega-prm"].drawn.items():
        own[state] += times
    valued = [node for node in range(16) if own[node]]
    assert all(own[node] <= 8 <= mc(tree, node)[1] for node in valued)
    assert any(own[node] < 8 for node in valued)
    assert first_wrong_step(tree) == 12


def test_a_late_correct_rollout_reopens_the_search_of_the_record() -> None:
    """Serial and by hand: the state before step 2 is valued 0 by bad luck, then a rollout through it succeeds."""
    tree = search.Tree()
    tree.spine(["r0", "r1", "r2", "r3"], 0.0)
    algorithm = search.create("omega-prm", rollouts=1, searches=4)

    def answer(node: int, key: str, value: float | None) -> None:
        (ask,) = algorithm.ask(tree, 1)
        assert ask.node == node
        algorithm.tell(tree, ask.id, [Child(key, value=value, terminal=value is not None)], more=True)

    answer(0, "a", 1.0)
    answer(2, "b", 0.0)  # the middle: seems lost
    answer(1, "r1", None)  # the state before it: its rollout follows the record
    answer(2, "c", 1.0)  # and succeeds: the middle was not lost
    answer(3, "d", 0.0)
    assert algorithm.ask(tree, 1) == []
    assert [mc(tree, node) for node in range(4)] == [(1, 1), (1, 1), (1, 2), (0, 1)]
    assert first_wrong_step(tree) == 2


# The pool


def restated(algorithm: Any, tree: search.Tree, pool: list[tuple[int, int]], chosen: dict[int, int]) -> float:
    """The highest Q + U of the failed rollouts in the pool, from the paper's equations 1 to 3."""
    best = -1.0
    for state, end in pool:
        correct, total = mc(tree, state)
        value = tree.value[end]
        if not correct or value is None or value >= 1.0:
            continue
        length = len(tree.path(end)) - len(tree.path(state))
        quality = algorithm.alpha ** (1 - correct / total) * algorithm.beta ** (length / algorithm.length_scale)
        bonus = algorithm.exploration * math.sqrt(sum(chosen.values())) / (1 + chosen.get(state, 0))
        best = max(best, quality + bonus)
    return best


def selections(toy: Any, world: Fatal, **options: Any) -> list[tuple[int, int]]:
    """Play serially and check each selection against the equations; the selected states and ends, in order."""
    algorithm: Any = search.create("omega-prm", rollouts=4, searches=12, **options)
    taken: list[tuple[int, int]] = []
    tree = world.tree()
    while asks := algorithm.ask(tree, 1):
        run = tree.memory["omega-prm"].runs[0]
        if sum(run.chosen.values()) == len(taken) + 1:  # not where several selections came at once
            state, end = run.path[0], run.path[-1]
            before = {**run.chosen, state: run.chosen[state] - 1}
            if not tree.spine[end]:
                best = restated(algorithm, tree, [*run.pool, (state, end)], before)
                assert restated(algorithm, tree, [(state, end)], before) == pytest.approx(best)
        if (new := sum(run.chosen.values()) - len(taken)) > 0:
            taken += [(run.path[0], run.path[-1])] * new
        children, more = world.expand(toy.path_keys(tree, asks[0].node), asks[0], [])
        algorithm.tell(tree, asks[0].id, children, **more)
    return taken


def test_selection_is_by_the_papers_equations_and_every_constant_counts(toy: Any) -> None:
    worlds = [Fatal(12, 7, chance=0.6, extra=6, seed=seed) for seed in range(6)]
    default = [selections(toy, world) for world in worlds]
    assert all(taken[0] == (0, 12) for taken in default)  # the record comes first
    assert sum(len(taken) for taken in default) > 20
    for options in ({"alpha": 1.0}, {"alpha": 0.01}, {"beta": 0.2}, {"length_scale": 1.0}, {"exploration": 3.0}):
        assert [selections(toy, world, **options) for world in worlds] != default, options


def test_the_searched_rollout_saves_none_and_the_record_is_no_rollout_to_search(toy: Any) -> None:
    for repeat in (0.0, 0.8):
        world = Fatal(12, 7, chance=0.6, repeat=repeat, seed=1)
        tree = world.tree()
        toy.play(search.create("omega-prm", rollouts=4), world, tree)
        tally = tree.memory["omega-prm"]
        off = [node for node in tally.valued if node and not tree.spine[node]]
        own = [sum(times for (state, _), times in tally.drawn.items() if state == node) for node in off]
        assert off
        assert own == [4] * len(off)
        assert all(mc(tree, node)[1] > 4 for node in off)
        assert all(not tree.spine[end] for _, end in tally.runs[0].seen)


def test_without_a_record_failed_rollouts_are_searched_until_none_is_left(toy: Any) -> None:
    world = toy.World(seed=5, branching=6, fewest=4, max_depth=6, early_end=0.0, sampling=True)
    tree = search.Tree(seed=5)
    toy.play(search.create("omega-prm", rollouts=4, success_at=0.7), world, tree, width=4, budget=3000)
    tally = tree.memory["omega-prm"]
    assert len(tally.runs[0].chosen) > 3
    assert first_wrong_step(tree) is None
    assert sum(tally.drawn.values()) == tree.ended
    for node in range(len(tree)):
        through = [
            (end, times)
            for (state, end), times in tally.drawn.items()
            if node in tree.path(end) and state in tree.path(node)
        ]
        correct = sum(times for end, times in through if (tree.value[end] or 0.0) >= 0.7)
        assert mc(tree, node) == (correct, sum(times for _, times in through))


def test_searches_and_n_limit_the_work(toy: Any) -> None:
    world = Fatal(12, 7, chance=0.6, seed=3)
    ended = {}
    for name, options in {"all": {}, "three": {"searches": 3}, "one": {"searches": 1}, "ten": {"n": 10}}.items():
        tree = world.tree()
        toy.play(search.create("omega-prm", rollouts=4, **options), world, tree)
        ended[name] = tree.ended
        chosen = sum(tree.memory["omega-prm"].runs[0].chosen.values())
        assert chosen == options.get("searches", chosen)
    assert ended["all"] > ended["three"] > ended["one"] > ended["ten"] == 10


# Verdicts


def test_success_at_says_what_is_correct(toy: Any) -> None:
    # the range is -2.0 to 0.6: in its upper half is everything but the record
    steps = {}
    for success_at in (1.0, 0.6, None):
        tree = Fatal(8, 3).tree(value=-2.0)
        algorithm = search.create("omega-prm", rollouts=2, success_at=success_at, searches=1)
        toy.play(algorithm, Fatal(8, 3, good=0.6), tree)
        steps[success_at] = (first_wrong_step(tree), mc(tree, 0))
    assert steps == {1.0: (None, (0, 2)), 0.6: (3, (2, 2)), None: (7, (2, 2))}


def test_the_middle_of_the_range_moves_with_the_range() -> None:
    tree = search.Tree()
    algorithm = search.create("omega-prm", rollouts=4, success_at=None)
    seen = []
    for value in (2.0, 2.0, 4.0, 16.0):
        (ask,) = algorithm.ask(tree, 1)
        algorithm.tell(tree, ask.id, [Child(f"n{ask.id}", value=value, terminal=True)], more=True)
        seen.append(mc(tree, 0))
    assert seen == [(0, 1), (0, 2), (1, 3), (1, 4)]


def test_rollouts_without_a_verdict_count_for_nothing(toy: Any) -> None:
    world = Fatal(8, 3, unjudged=0.3, seed=2)
    tree = world.tree()
    played = toy.play(search.create("omega-prm", rollouts=6, searches=1), world, tree)
    assert first_wrong_step(tree) == 3
    assert mc(tree, 0)[1] < begun_at(played, 0) == 6
    unknown = Fatal(8, 3, unjudged=1.0)
    tree = unknown.tree()
    toy.play(search.create("omega-prm", rollouts=6), unknown, tree)
    assert mc(tree, 0) == (0, 0)
    assert first_wrong_step(tree) is None


def test_a_state_where_nothing_can_be_played_leaves_the_answer_open(toy: Any) -> None:
    world = Fatal(8, 4, stuck=(4,))
    tree = world.tree()
    toy.play(search.create("omega-prm", rollouts=6), world, tree, width=4)
    assert mc(tree, 4) == (0, 0)
    assert first_wrong_step(tree) is None


# With others


def test_the_order_of_tells_changes_no_count_where_luck_has_no_part(toy: Any) -> None:
    results = []
    for last in (0, -1):
        world, algorithm = Fatal(12, 5), search.create("omega-prm", rollouts=4)
        tree, waiting = world.tree(), list[search.Ask]()
        while (waiting := waiting + algorithm.ask(tree, 8 - len(waiting))) != []:
            ask = waiting.pop(last)
            children, more = world.expand(toy.path_keys(tree, ask.node), ask, [])
            algorithm.tell(tree, ask.id, children, **more)
        results.append([first_wrong_step(tree), *(mc(tree, node) for node in range(12))])
    assert results[0] == results[1]


@pytest.mark.parametrize("width", [1, 8])
def test_with_auto_branching_every_recorded_state_is_valued(toy: Any, width: int) -> None:
    world = Fatal(10, 6)
    tree = world.tree()
    algorithm = search.AutoBranch(search.create("omega-prm", rollouts=3))
    toy.play(algorithm, world, tree, width=width)
    assert first_wrong_step(tree) == 6
    assert all(mc(tree, node)[1] >= 3 for node in range(10))
    assert [node for node in range(10) if mc(tree, node)[0]] == list(range(7))
    assert not tree.asks
    assert not tree.tips


WRONG = {"rollouts": 0, "searches": 0, "success_at": "1", "alpha": 1.1, "beta": -0.1, "length_scale": 0.5}


@pytest.mark.parametrize(("option", "value"), [*WRONG.items(), ("exploration", -1), ("n", 0)])
def test_options_that_make_no_sense_are_refused(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=option):
        search.create("omega-prm", **{option: value})
