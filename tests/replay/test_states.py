"""States that are merged, ends that vote, actions that are played again: what the engine adds to the pure search."""

from __future__ import annotations

import asyncio
import json
from collections import Counter as Counts
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest

from ttc_replay import Message, Proposal, ProposalRequest, Score, Spec, StepResult, Task, Trajectory, reward
from ttc_replay.storage.journal import digest, read_journal


def run(engine: Any) -> tuple[Any, str]:
    asyncio.run(engine.run())
    engine.journal.close()
    return engine, digest(read_journal(engine.journal.path)[0])


# -- merged states ----------------------------------------------------------------------------------------------------


@pytest.fixture
def keyed(toy: Any) -> Any:
    """The toy world with a state key: how far it has come, by whatever way."""

    class Keyed(toy.Counter):  # type: ignore[misc]
        inline = False

        def state_key(self) -> str:
            return json.dumps([self.done, self.total])

    return Keyed


@pytest.fixture
def judged(toy: Any) -> tuple[Any, Counts[str]]:
    """A process reward that counts how often it was asked about each state."""
    seen: Counts[str] = Counts()

    @reward(process=True)
    def closeness(trajectory: Trajectory) -> Score:
        state = trajectory.final_state
        if 0 < state["done"] < 4:  # the trivial-task test judges the state before step 0
            seen[json.dumps([state["done"], state["total"]])] += 1
        return toy.closeness(trajectory)  # type: ignore[no-any-return]

    return closeness, seen


def test_merged_states_are_judged_once(make_engine: Any, toy: Any, keyed: Any, judged: Any) -> None:
    closeness, seen = judged
    counts = {}
    for merge in (False, True):
        seen.clear()
        engine, _ = run(
            make_engine(
                [toy.record(1, 1, 1, 1, target=99)],
                folder=f"merge-{merge}",
                world=keyed,
                rewards=[("closeness", closeness)],
                merge_states=merge,
                width=1,
                budget=60,
            )
        )
        counts[merge] = dict(seen)
        tree = engine.groves[0].tree.tree
        by_state: dict[str, set[float | None]] = {}
        for node in range(1, len(tree)):
            if tree.state_key[node] is not None and not tree.terminal[node]:
                by_state.setdefault(tree.state_key[node], set()).add(tree.value[node])
        assert all(len(values) == 1 and None not in values for values in by_state.values())
    assert max(counts[False].values()) > 1
    assert set(counts[True].values()) == {1}, "no state is paid for twice"


def test_merged_states_give_one_tree_at_any_concurrency(make_engine: Any, toy: Any, keyed: Any, judged: Any) -> None:
    digests = {
        run(
            make_engine(
                [toy.record(1, 1, 1, 1, target=99)],
                folder=f"workers-{workers}",
                world=keyed,
                rewards=[("closeness", judged[0])],
                merge_states=True,
                width=8,
                budget=60,
                concurrency=workers,
            )
        )[1]
        for workers in (1, 8)
    }
    assert len(digests) == 1


def test_merging_is_part_of_what_a_run_is(make_engine: Any, toy: Any) -> None:
    plain = make_engine([toy.record(1)], folder="a").settings.configuration()
    assert make_engine([toy.record(1)], folder="b", merge_states=True).settings.configuration() != plain


# -- votes ------------------------------------------------------------------------------------------------------------


class Crowd:
    """Draws with replacement: mostly small steps, seldom the one that ends on 12."""

    sampling = True
    inline = True

    def __init__(self, add: Any) -> None:
        self.add = add

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return [[Proposal(self.add(self._one(request, n))) for n in range(request.n)] for request in requests]

    def _one(self, request: ProposalRequest, index: int) -> int:
        return 3 if (request.seed + index) % 10 < 2 else 1


def total_of(trajectory: Trajectory) -> str | None:
    return str(trajectory.final_state["total"] // 2)


def test_a_user_given_answer_key_decides_what_is_voted_on(make_engine: Any, toy: Any) -> None:
    engine, _ = run(
        make_engine(
            [toy.record(1, 1, 1, 2, target=12)],
            policy=Crowd(toy.add),
            algorithm=Spec("self-consistency", {"answer": "./keys.py:total_of"}),
            answer=total_of,
            from_step=0,
            budget=60,
        )
    )
    tree = engine.groves[0].tree
    ends = [node for node in tree.tree.finished if not tree.tree.spine[node]]
    assert {tree.tree.state_key[node] for node in ends} == {total_of(_end(tree, node)) for node in ends}
    winner = max(tree.tree.votes, key=lambda answer: tree.tree.votes[answer])
    assert len(tree.tree.votes) > 1
    assert tree.tree.answer(tree.leaves()[0]) == winner, "the gate looks at the winning answer first"
    assert tree.tree.answer(tree.tree.best()) == winner


def _end(tree: Any, node: int) -> Trajectory:
    return Trajectory("x", Task("x"), steps=tuple(tree.prefix(node)), final_state=tree.finals[node])


def test_an_answer_key_that_raises_is_data(make_engine: Any, toy: Any) -> None:
    def broken(trajectory: Trajectory) -> str:
        raise ValueError("no answer in it")

    engine, _ = run(
        make_engine(
            [toy.record(1, 1, 1, 2, target=12)],
            policy=Crowd(toy.add),
            algorithm=Spec("self-consistency"),
            answer=broken,
        )
    )
    assert any("the answer key: ValueError: no answer in it" in said for said in engine.groves[0].tree.failures)
    assert engine.groves[0].stopped in ("budget", "exhausted", "solved")


# -- several outcomes of one action -----------------------------------------------------------------------------------


class Dice:
    """Every step adds 0 or 1, by the seed that the world was given last; what it does is then a function of that."""

    inline = True

    def __init__(self) -> None:
        self.total = self.done = self.seed = 0

    def reset(self, task: Task) -> list[dict[str, Any]]:
        self.total = self.done = self.seed = 0
        return [{"role": "user", "content": "throw"}]

    def step(self, action: Message) -> StepResult:
        self.total += self.seed % 2
        self.done += 1
        answer = Message("tool", str(self.total), tool_call_id=action.tool_calls[0].id, name="add")
        return StepResult([answer], self.done >= 2, float(self.total) if self.done >= 2 else None)

    def fork(self) -> Dice:
        other = Dice()
        other.total, other.done, other.seed = self.total, self.done, self.seed
        return other

    def reseed(self, seed: int) -> None:
        self.seed = seed

    def state(self) -> dict[str, int]:
        return {"total": self.total}


def dice_record(toy: Any) -> Trajectory:
    world, steps = Dice(), []
    world.reset(Task("dice"))
    for index in range(2):
        result = world.step(toy.add(1))
        steps.append((index, result.observations))
    base: Trajectory = toy.record(1, 1, task="dice", target=9)
    from dataclasses import replace

    played = tuple(replace(step, observations=tuple(seen)) for step, (_, seen) in zip(base.steps, steps, strict=True))
    return replace(base, prompt=(Message("user", "throw"),), steps=played)


def test_an_action_is_played_again_under_fresh_seeds(make_engine: Any, toy: Any) -> None:
    trees = {}
    for coefficient in (0.0, 4.0):
        engine, _ = run(
            make_engine(
                [dice_record(toy)],
                folder=f"dice-{coefficient}",
                world=Dice,
                algorithm=Spec("mcts", {"outcome_coefficient": coefficient, "outcome_exponent": 0.5}),
                success_at=5.0,
                budget=60,
            )
        )
        assert not engine.groves[0].tree.failures
        trees[coefficient] = engine.groves[0].tree
    tree = trees[4.0].tree
    again = [node for node in range(1, len(tree)) if tree.action[node] != tree.key[node]]
    assert again, "the same action had another outcome"
    assert all(tree.find(tree.parent[node], tree.action[node]) is not None for node in again)
    for node in again:
        first = tree.find(tree.parent[node], tree.action[node])
        assert trees[4.0].steps[node].observations != trees[4.0].steps[first].observations
    plain = trees[0.0].tree
    assert all(plain.action[node] == plain.key[node] for node in range(1, len(plain)))


def test_outcomes_are_recalled(make_engine: Any, toy: Any) -> None:
    options = {"world": Dice, "success_at": 5.0, "budget": 40}
    algorithm = Spec("mcts", {"outcome_coefficient": 4.0, "outcome_exponent": 0.5})
    engine, whole = run(make_engine([dice_record(toy)], folder="w", algorithm=algorithm, **options))
    lines = engine.journal.path.read_bytes().splitlines(keepends=True)
    for kept in (3, len(lines) // 2, len(lines) - 1):
        engine.journal.path.write_bytes(b"".join(lines[:kept]))
        assert run(make_engine([dice_record(toy)], folder="w", algorithm=algorithm, **options))[1] == whole


# -- batches ----------------------------------------------------------------------------------------------------------


class Recorder:
    """A paid policy that notes what it was asked for together."""

    sampling = False
    metered = True
    inline = True

    def __init__(self, add: Any) -> None:
        self.add = add
        self.batches: list[list[tuple[str, tuple[Message, ...]]]] = []

    def identity(self) -> dict[str, str]:
        return {"policy": "recorder"}

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        self.batches.append([(request.trajectory_id, request.messages) for request in requests])
        return [[Proposal(self.add(by)) for by in (1, 2, 3)][: request.n] for request in requests]


def test_siblings_and_shared_prefixes_are_asked_for_side_by_side(make_engine: Any, toy: Any) -> None:
    policy = Recorder(toy.add)
    records = [toy.record(1, 1, 1, 1, task=f"t{n}", target=99) for n in range(3)]
    run(make_engine(records, policy=policy, algorithm=Spec("beam"), width=4, concurrency=16, budget=60))
    large = [batch for batch in policy.batches if len(batch) > 3]
    assert large
    for batch in large:
        owners = [owner for owner, _ in batch]
        assert len(list(groupby(owners))) == len(set(owners)), "trees side by side"
