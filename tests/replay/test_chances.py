"""Worlds with chances: the recorded seed is replayed, a frozen seed finds luck, fresh seeds keep it out of exports."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ttc_replay import Message, Proposal, ProposalRequest, Step, StepResult, Task, ToolCall, Trajectory, reward
from ttc_replay.replay.fold import _stored
from ttc_replay.replay.replaying import replay_all
from ttc_replay.replay.report import report_of, row_of
from ttc_replay.storage.exporters.options import ExportOptions
from ttc_replay.storage.exporters.selection import refusal
from ttc_replay.storage.records import Outcome, Source

SIDE, STEPS, ASTRAY = 3, 6, 0.4
TURNS = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}


class Slippery:
    """3 x 3 cells from one corner to the other in six steps; two steps of five go anywhere. Forkable, with its
    chances in the state: what a branch meets is frozen by the task's seed until somebody reseeds."""

    inline = True

    def __init__(self) -> None:
        self.cell, self.done, self.chances = (0, 0), 0, random.Random(0)

    def reset(self, task: Task) -> list[Message]:
        self.cell, self.done, self.chances = (0, 0), 0, random.Random(task.seed)
        return [Message("user", "to the other corner")]

    def reseed(self, seed: int) -> None:
        self.chances = random.Random(seed)

    def step(self, action: Message) -> StepResult:
        turn = str((action.tool_calls[0].arguments or {})["turn"])
        if self.chances.random() < ASTRAY:
            turn = self.chances.choice(sorted(TURNS))
        x, y = self.cell[0] + TURNS[turn][0], self.cell[1] + TURNS[turn][1]
        self.cell = (x, y) if 0 <= x < SIDE and 0 <= y < SIDE else self.cell
        self.done += 1
        return StepResult([Message("tool", f"{self.cell}", tool_call_id=action.tool_calls[0].id)], self.done == STEPS)

    def fork(self) -> Slippery:
        twin = type(self)()
        twin.cell, twin.done = self.cell, self.done
        twin.chances.setstate(self.chances.getstate())
        return twin

    def state(self) -> dict[str, Any]:
        return {"cell": list(self.cell)}


class Declared(Slippery):
    """Says that it has chances, but cannot be given fresh ones."""

    stochastic = True
    reseed: Any = None


@reward
def arrived(trajectory: Trajectory) -> float:
    return float(trajectory.final_state["cell"] == [SIDE - 1, SIDE - 1])


class Walks:
    """Every turn, at every step."""

    inline = True
    sampling = False

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return [[Proposal(go(turn)) for turn in sorted(TURNS)][: request.n] for request in requests]


def go(turn: str) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall(f"c-{turn}", "go", {"turn": turn}),))


def walked(seed: int, world: Any = Slippery, turn: str = "left") -> Trajectory:
    """A recorded run that only ran against the wall."""
    environment, task = world(), Task(f"grid{seed}", seed=seed)
    prompt = tuple(environment.reset(task))
    steps = [Step(index, go(turn), tuple(environment.step(go(turn)).observations)) for index in range(STEPS)]
    outcome, source = Outcome(float(environment.cell == (2, 2))), Source("test", "grid.jsonl", seed, "grid")
    return Trajectory(f"run{seed}", task, prompt=prompt, steps=tuple(steps), outcome=outcome, source=source)


RECORDS = [record for seed in range(14) if (record := walked(seed)).outcome and not record.outcome.value]


def searched(make_engine: Any, records: Sequence[Trajectory], world: Any = Slippery, **options: Any) -> Any:
    engine = make_engine(
        records, policy=Walks(), world=world, rewards=(("arrived", arrived),), budget=300, candidates=20, **options
    )
    asyncio.run(engine.run())
    engine.journal.close()
    return engine


def fresh_success(found: Trajectory, plays: int = 200) -> float:
    """How often the found actions arrive under seeds that nobody has searched on."""
    world, arrivals = Slippery(), 0
    for seed in range(plays):
        world.reset(replace(found.task, seed=1_000_000 + seed))
        for step in found.steps:
            world.step(step.action)
        arrivals += world.cell == (2, 2)
    return arrivals / plays


def test_the_recorded_seed_is_replayed() -> None:
    assert replay_all(RECORDS, Slippery)["totals"]["matched"] == STEPS * len(RECORDS)
    elsewhere = [replace(record, task=replace(record.task, seed=99)) for record in RECORDS]
    assert replay_all(elsewhere, Slippery)["totals"]["diverged"] > 0


def test_a_search_on_a_frozen_seed_finds_luck_and_fresh_seeds_keep_it_out(make_engine: Any) -> None:
    frozen = searched(make_engine, RECORDS, folder="frozen")
    lucky = [found for grove in frozen.groves if (found := grove.verdict.counterfactual) is not None]
    assert len(lucky) >= 4
    assert {found.outcome.value for found in lucky if found.outcome} == {1.0}, "sure to arrive, on the seed searched on"
    worth = {found.parent_id: fresh_success(found) for found in lucky}
    assert max(worth.values()) < 0.5, "and more often than not it fails on others"
    confirmed = searched(make_engine, RECORDS, folder="fresh", confirm=5)
    kept = [found for grove in confirmed.groves if (found := grove.verdict.counterfactual) is not None]
    assert 0 < len(kept) < len(lucky), "luck was refused"
    assert all(found.outcome.value < 1.0 for found in kept if found.outcome), "means over fresh seeds"
    assert min(worth, key=lambda name: worth[str(name)]) not in {found.parent_id for found in kept}


@pytest.mark.parametrize(
    ("world", "confirm", "unconfirmed"),
    [(Slippery, 0, True), (Slippery, 5, False), (Declared, 0, True), (Declared, 5, True)],
)
def test_what_was_not_confirmed_is_said_and_not_exported(
    make_engine: Any, tmp_path: Any, world: Any, confirm: int, unconfirmed: bool
) -> None:
    engine = searched(make_engine, RECORDS, world, confirm=confirm)
    report = report_of(engine, 0.0)
    assert report["stochastic"] is True
    assert any("may be luck" in text for text in report["warnings"]) is unconfirmed
    found = [grove for grove in engine.groves if grove.verdict.counterfactual is not None]
    assert found
    for grove in found:
        row = next(item for item in report["trajectories"] if item["id"] == grove.record.id)
        assert (row["confirmed"] is None) is unconfirmed
        stored = {**_stored(row_of(grove), 0), "trivial": False, "novel": True}
        options = ExportOptions("trl-sft", tmp_path)
        assert refusal(stored, options) == ("unconfirmed" if unconfirmed else None)
        assert refusal(stored, replace(options, keep_unconfirmed=True)) is None


def test_a_world_that_always_answers_alike_needs_no_confirmation(make_engine: Any, toy: Any) -> None:
    engine = make_engine([toy.record(1, 1, 1, 1)], budget=60)
    asyncio.run(engine.run())
    report = report_of(engine, 0.0)
    assert (report["stochastic"], report["warnings"]) == (False, [])
    assert engine.groves[0].verdict.counterfactual is not None
    assert not engine.groves[0].verdict.unconfirmed
