"""Confirmation over fresh seeds: luck is refused, a real gain is kept, and the lanes are means over the plays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from ttc_replay import Message, StepResult, Task, Trajectory, reward
from ttc_replay.replay.report import row_of
from ttc_replay.storage.journal import digest, read_journal

PLAYS = 40


class Coins:
    """Two throws. Adding 2 wins each throw three times in four, anything else once in four; both must win.

    The world that a run was recorded in loses (`seed` None); a fork throws anew, as chance would have it.
    """

    inline = True
    copies = 0

    def __init__(self) -> None:
        self.seed: int | None = None
        self.won: list[bool] = []
        self.done = 0

    def reset(self, task: Task) -> list[dict[str, Any]]:
        self.seed, self.won, self.done = None, [], 0
        return [{"role": "user", "content": "throw twice"}]

    def step(self, action: Message) -> StepResult:
        good = (action.tool_calls[0].arguments or {})["by"] == 2
        self.done += 1
        if self.seed is None:
            won = self.lucky()
        else:
            chance = (self.seed * 2654435761 + self.done * 40503) % 1000 / 1000
            won = chance < (0.75 if good else 0.25)
        self.won.append(won)
        answer = Message("tool", "won" if won else "lost", tool_call_id=action.tool_calls[0].id, name="add")
        return StepResult([answer], self.done == 2, float(all(self.won)) if self.done == 2 else None)

    def lucky(self) -> bool:
        return self.copies > 0

    def fork(self) -> Coins:
        other = type(self)()
        other.seed, other.won, other.done = self.seed, list(self.won), self.done
        other.copies = self.copies + 1
        return other

    def state(self) -> dict[str, Any]:
        return {"won": self.won}


class Seeded(Coins):
    """The same, and it can be given a seed."""

    def reseed(self, seed: int) -> None:
        self.seed = seed % 999_983


@reward
def both(trajectory: Trajectory) -> float:
    return float(trajectory.final_state["won"] == [True, True])


def lost(toy: Any, by: int) -> Trajectory:
    """A recorded run that lost both throws with this action."""
    base: Trajectory = toy.record(by, by, task=f"coins{by}", target=9)
    seen = (Message("tool", "lost", tool_call_id=f"call_{by}", name="add"),)
    steps = tuple(replace(step, observations=seen) for step in base.steps)
    return replace(base, prompt=(Message("user", "throw twice"),), steps=steps)


def search(make_engine: Any, record: Trajectory, world: Any, **options: Any) -> Any:
    engine = make_engine([record], world=world, accept=both, budget=30, **options)
    asyncio.run(engine.run())
    engine.journal.close()
    return engine


def test_without_confirmation_luck_passes(make_engine: Any, toy: Any) -> None:
    engine = search(make_engine, lost(toy, 2), Seeded)
    assert engine.groves[0].verdict.counterfactual is not None


def test_a_lucky_run_that_is_no_better_than_the_record_is_refused(make_engine: Any, toy: Any) -> None:
    engine = search(make_engine, lost(toy, 2), Seeded, confirm=PLAYS)
    verdict = engine.groves[0].verdict
    assert verdict.counterfactual is None
    assert verdict.refused > 0
    events = [event for event in read_journal(engine.journal.path)[0] if event["event"] == "gate"]
    assert any("confirmed" in event and not event["passed"] and event["value"] == 1.0 for event in events)


def test_a_real_gain_is_kept_and_the_lanes_are_means_over_the_same_seeds(make_engine: Any, toy: Any) -> None:
    engine = search(make_engine, lost(toy, 1), Seeded, confirm=PLAYS, candidates=60, success_at=1.0)
    grove = engine.groves[0]
    row = row_of(grove)
    assert grove.verdict.confirmed.plays == PLAYS
    assert row["best"] > row["baseline"]
    assert 0.0 < row["best"] < 1.0, "a mean over seeds, not the one lucky run"
    assert any("fresh seeds" in note for note in row["notes"])


def test_a_world_without_reseed_is_taken_at_its_word(make_engine: Any, toy: Any) -> None:
    engine = search(make_engine, lost(toy, 2), Coins, confirm=PLAYS)
    assert engine.groves[0].verdict.confirmed is None
    assert engine.groves[0].verdict.counterfactual is not None


def test_plays_without_a_verdict_confirm_nothing_and_are_no_zeros(make_engine: Any, toy: Any) -> None:
    class Unseeded(Seeded):
        """A world that cannot take the seed that it asks for."""

        def reseed(self, seed: int) -> None:
            raise OSError("no seed today")

    engine = search(make_engine, lost(toy, 1), Unseeded, confirm=2, candidates=60)
    grove = engine.groves[0]
    gates = [event for event in read_journal(engine.journal.path)[0] if event["event"] == "gate"]
    confirmed = [event["confirmed"] for event in gates if "confirmed" in event]
    assert confirmed
    assert all(means == [None, None, 0] for means in confirmed)
    assert grove.verdict.counterfactual is None
    assert grove.verdict.refused == len(gates)


def test_confirmed_gates_are_recalled(make_engine: Any, toy: Any) -> None:
    engine = search(make_engine, lost(toy, 1), Seeded, confirm=8, candidates=60)
    whole = digest(read_journal(engine.journal.path)[0])
    lines = engine.journal.path.read_bytes().splitlines(keepends=True)
    engine.journal.path.write_bytes(b"".join(lines[:-2]))
    again = search(make_engine, lost(toy, 1), Seeded, confirm=8, candidates=60)
    assert digest(read_journal(again.journal.path)[0]) == whole
    assert row_of(again.groves[0]) == row_of(engine.groves[0])
