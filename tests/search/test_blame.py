"""Blame: rollouts go where they tell which recorded step lost the run."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.search import Child
from ttc_replay.search.blame import Blame, Ledger, beliefs
from ttc_replay.storage.errors import UsageError


@dataclass(frozen=True)
class Run:
    """A record of `steps` steps that ends with `value`; a rollout that leaves it after k of them wins with chance
    `wins[k]`. `repeat`: how likely the policy proposes the recorded step; `stuck`: states whose expansion fails;
    `unjudged`: the share of ends without a verdict; `good`: what a win is worth.
    """

    wins: tuple[float, ...]
    repeat: float = 0.0
    seed: int = 0
    stuck: tuple[int, ...] = ()
    unjudged: float = 0.0
    good: float = 1.0

    def number(self, what: str) -> float:
        return int.from_bytes(sha256(f"{self.seed}/{what}".encode()).digest()[:2], "big") / 65536

    def tree(self, value: float | None = 0.0) -> search.Tree:
        tree = search.Tree(seed=self.seed)
        tree.spine([f"r{step}" for step in range(len(self.wins))], value)
        return tree

    def expand(self, path: tuple[str, ...], ask: search.Ask, known: list[str]) -> tuple[list[Child], dict[str, Any]]:
        steps = len(self.wins)
        followed = next((step for step, key in enumerate(path) if key != f"r{step}"), len(path))
        if followed == len(path):
            if followed in self.stuck:
                return [], {"failed": "stuck"}
            if followed < steps and self.number(f"repeat{ask.id}") < self.repeat:
                return [Child(f"r{followed}", value=0.0 if followed + 1 == steps else None, terminal=False)], {
                    "more": True
                }
        key = f"n{ask.id}"
        if len(path) + 1 < steps:
            return [Child(key)], {"more": True}
        left = next((name for name in (*path, key) if name.startswith("n")), key)
        won = self.number(f"{left} won") < self.wins[min(followed, steps - 1)]
        judged = self.number(f"{left} judged") >= self.unjudged
        return [Child(key, value=won * self.good if judged else None, terminal=True)], {"more": True}


def lost_at(step: int, steps: int, before: float = 1.0, after: float = 0.0) -> tuple[float, ...]:
    """Chances of a record whose step `step` loses: `before` up to it, `after` behind it."""
    return (before,) * (step + 1) + (after,) * (steps - step - 1)


def ledger(tree: search.Tree) -> Ledger:
    found: Ledger = tree.memory["blame"]
    return found


def answer(tree: search.Tree) -> int | None:
    """The step with the largest observed drop, if its two states were valued."""
    found = beliefs(tree)
    known = sorted(found)
    gaps = [(found[a].observed - found[b].observed, a, b) for a, b in pairwise(known)]
    _, first, last = max(gaps)
    return first if last == first + 1 else None


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 33])
def test_a_certain_loss_is_found_by_halving(toy: Any, steps: int) -> None:
    for step in range(0, steps, max(1, steps // 6)):
        run = Run(lost_at(step, steps))
        tree = run.tree()
        toy.play(Blame(), run, tree, width=4)
        assert answer(tree) == step
        assert ledger(tree).ended == "decided"
        # two ends and a batch a halving; the comparison asks for a few more, a probe for one batch
        assert tree.ended <= 4 * (steps.bit_length() + 5)


@pytest.mark.parametrize("width", [1, 16])
def test_it_is_found_under_noise(toy: Any, width: int) -> None:
    found = spent = 0
    for seed in range(12):
        run = Run(lost_at(seed % 16, 16, before=0.8), seed=seed)
        tree = run.tree()
        toy.play(Blame(), run, tree, width=width)
        found += answer(tree) == seed % 16
        spent += tree.ended
    assert found >= 11
    assert spent / 12 < 16 * 16 / 3  # far from all rollouts that 16 states may have


def test_a_partial_loss_needs_more_rollouts_than_a_certain_one(toy: Any) -> None:
    spent = {}
    for after in (0.0, 0.4):
        runs = [Run(lost_at(3, 6, after=after), seed=seed) for seed in range(4)]
        trees = [run.tree(value=after) for run in runs]
        for run, tree in zip(runs, trees, strict=True):
            toy.play(Blame(rollouts=48), run, tree, width=4)
        assert all(answer(tree) == 3 for tree in trees)
        spent[after] = sum(tree.ended for tree in trees)
    assert spent[0.4] > spent[0.0]


def test_values_that_rise_are_noticed_and_every_state_is_valued(toy: Any) -> None:
    """Three steps made a task that the policy never solves a sure thing, then the record lost it: halving from the
    start would see no drop at all."""
    run = Run((0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    tree = run.tree()
    toy.play(Blame(), run, tree, width=4)
    assert ledger(tree).scan
    assert answer(tree) == 5
    assert sorted(beliefs(tree)) == list(range(13))


def test_a_rise_that_halving_meets_reopens_the_record(toy: Any) -> None:
    """The drop at step 1 is hidden between two good states; the one before the end is real but smaller."""
    run = Run((1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.5, 0.5, 0.5))
    tree = run.tree(value=0.5)
    toy.play(Blame(rollouts=32), run, tree, width=4)
    assert ledger(tree).scan
    assert answer(tree) == 1


def test_where_nothing_could_be_won_nothing_is_blamed(toy: Any) -> None:
    run = Run((0.0,) * 9)
    tree = run.tree()
    toy.play(Blame(rollouts=8), run, tree)
    assert ledger(tree).ended == "no-drop"
    assert all(belief.observed == 0.0 for belief in beliefs(tree).values())
    assert ledger(tree).begun[0] == 8


def test_a_record_that_won_lost_nothing(toy: Any) -> None:
    run = Run((1.0,) * 5)
    tree = run.tree(value=1.0)
    toy.play(Blame(rollouts=8), run, tree)
    assert ledger(tree).ended == "no-drop"


@pytest.mark.parametrize("steps", [0, 4])
def test_without_a_verdict_on_the_record_nothing_is_asked(toy: Any, steps: int) -> None:
    run = Run((1.0,) * steps)
    tree = run.tree(value=None)
    algorithm = Blame()
    assert toy.play(algorithm, run, tree).asks == []
    assert algorithm.plan_ended(tree) == ledger(tree).ended == "unjudged"


def test_a_state_where_nothing_can_be_played_is_passed_over(toy: Any) -> None:
    run = Run(lost_at(6, 9), stuck=(4,))
    tree = run.tree()
    toy.play(Blame(), run, tree)
    assert answer(tree) == 6
    assert 4 not in beliefs(tree)
    stuck = Run(lost_at(6, 9), stuck=tuple(range(9)))
    tree = stuck.tree()
    toy.play(Blame(), stuck, tree)
    assert list(beliefs(tree)) == [9]


def test_rollouts_count_at_every_recorded_state_they_pass_and_nowhere_else(toy: Any) -> None:
    run = Run(lost_at(5, 8, before=0.9), repeat=0.6, unjudged=0.2, seed=3)
    tree = run.tree()
    played = toy.play(Blame(rollouts=12), run, tree, width=4)
    told, kept = ledger(tree), beliefs(tree)
    assert set(told.asks) == {ask.id for ask in played.asks}
    assert any(told.count.get(node, 0) > told.begun.get(node, 0) for node in range(8))
    for node in range(8):
        # rollouts begun further along cannot have come through
        assert told.count.get(node, 0) <= sum(count for start, count in told.begun.items() if start <= node)
        assert 0.0 <= told.total.get(node, 0.0) <= told.count.get(node, 0)
    assert sum(told.begun.values()) >= tree.ended > sum(1 for node in kept if node < 8)


def test_no_state_gets_more_than_its_rollouts(toy: Any) -> None:
    for seed in range(3):
        run = Run((0.5,) * 7, seed=seed)
        tree = run.tree()
        toy.play(Blame(rollouts=6, confidence=0.99), run, tree, width=8)
        assert max(ledger(tree).begun.values()) <= 6


def test_uniform_gives_every_state_all_its_rollouts(toy: Any) -> None:
    run = Run(lost_at(3, 6))
    tree = run.tree()
    toy.play(Blame(rollouts=5, uniform=True), run, tree, width=8)
    assert [ledger(tree).begun[node] for node in range(6)] == [5] * 6
    assert ledger(tree).ended == "undecided"


def test_what_is_known_from_elsewhere_is_not_asked_again(toy: Any) -> None:
    run = Run(lost_at(3, 6), seed=9)
    known = {"9": {str(state): [16.0 if state < 4 else 0.0, 16] for state in range(6)}, "8": {"0": [0.0, 16]}}
    tree = run.tree()
    played = toy.play(Blame(known=known), run, tree)
    assert {tree.path(ask.node)[min(3, tree.depth[ask.node])] for ask in played.asks} == {3}, (
        "to see what else there was"
    )
    assert ledger(tree).begun == {3: 4}
    assert ledger(tree).ended == "decided"
    assert answer(tree) == 3
    assert sum(ledger(tree).reused.values()) == 96


def test_graded_values_keep_their_scale(toy: Any) -> None:
    run = Run(lost_at(2, 5), good=40.0)
    tree = run.tree(value=-10.0)
    toy.play(Blame(success_at=40.0), run, tree)
    assert (ledger(tree).low, ledger(tree).high) == (-10.0, 40.0)
    assert answer(tree) == 2
    assert all(0.0 <= belief.observed <= 1.0 for belief in beliefs(tree).values())


def test_the_same_tells_give_the_same_asks(toy: Any) -> None:
    run, asks = Run(lost_at(4, 9, before=0.7), repeat=0.3, seed=2), []
    for _ in range(2):
        tree = run.tree()
        asks.append([(ask.id, ask.node) for ask in toy.play(Blame(), run, tree, width=8).asks])
    assert asks[0] == asks[1]


def test_a_larger_budget_continues_the_same_search(toy: Any) -> None:
    run = Run(lost_at(4, 9, before=0.7), seed=5)
    asks = [
        [(ask.id, ask.node) for ask in toy.play(Blame(), run, run.tree(), width=4, budget=budget).asks]
        for budget in (20, 60)
    ]
    assert asks[1][: len(asks[0])] == asks[0]


WRONG = {"rollouts": 0, "batch": 0, "confidence": 1.0, "success_at": "1"}


@pytest.mark.parametrize(("option", "value"), WRONG.items())
def test_options_that_make_no_sense_are_refused(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=option):
        Blame(**{option: value})
