"""Before a tree grows: the baseline (the record re-executed and re-scored) and the trivial-task test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..rewards.compose import Composed
from ..storage.codec import score_from, score_to_dict
from ..storage.errors import DivergedError, MissingExtra, TtcError
from ..storage.records import FIDELITY_ORDER, Fidelity, Score, Step, Trajectory
from .session import Keep, Session, StepMatch
from .trivial import Endings, play_trivial


@dataclass(slots=True)
class Baseline:
    """The record's own lane. `value` is the guide's verdict, `judged` that of the judge (accept, else guide)."""

    steps: list[Step] = field(default_factory=list)
    value: float | None = None
    judged: float | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    trivial: bool = False
    notes: list[str] = field(default_factory=list)
    final_state: Any = None
    truncated: bool = False
    rebound: int = 0
    """Places of the record's arguments that were re-bound to ids of this world."""
    error: str | None = None
    error_code: str | None = None


class Judge:
    """Scores lanes: by `accept` when there is one, which alone may see the task's gold, else by the guide."""

    def __init__(self, guide: Composed, accept: Composed | None):
        self.guide = guide
        self.accept = accept

    def guide_score(self, trajectory: Trajectory) -> tuple[float | None, Mapping[str, Score]]:
        """The guide's combined value and all parts."""
        public = replace(trajectory, task=replace(trajectory.task, private={}), outcome=None, scores={})
        verdict = self.guide.score_all([public], [True])[0]
        return verdict.combined.value, {**verdict.parts, "guide": verdict.combined}

    def lane(self, trajectory: Trajectory) -> tuple[float | None, Mapping[str, Score]]:
        """The lane's value, and every part of whoever judged."""
        if self.accept is None:
            return self.guide_score(trajectory)
        verdict = self.accept.score_all([replace(trajectory, outcome=None, scores={})], [True])[0]
        return verdict.combined.value, {f"accept:{name}": score for name, score in verdict.parts.items()}


async def take_baseline(
    session: Session,
    judge: Judge,
    success_at: float,
    endings: Endings,
    keep: Keep,
) -> Baseline:
    """Re-execute, re-score and test for triviality. Divergence and failures are in `error`.

    Raises MissingExtra: without its package the world works for no record.
    """
    done = await session.replay(keep=keep)
    if isinstance(done.error, MissingExtra):
        raise done.error
    base = Baseline(steps=done.steps, final_state=done.final_state, truncated=not done.done, rebound=done.rebound)
    base.error, base.error_code = _why(session.record, done.error, done.diverged)
    if base.error is not None:
        return base
    run = replace(
        session.record,
        prompt=session.prompt,
        steps=tuple(done.steps),
        final_state=done.final_state,
        truncated=base.truncated,
    )
    base.value, base.scores = judge.guide_score(run)
    base.judged, accepted = judge.lane(run)
    base.scores = {**base.scores, **accepted}
    await _test_trivial(base, session, judge, success_at, endings)
    return base


def _why(record: Trajectory, error: TtcError | None, diverged: StepMatch | None) -> tuple[str | None, str | None]:
    if diverged is not None:
        error = DivergedError(diverged.index, diverged.expected, diverged.got, place=f"trajectory {record.id[:12]}")
    return (None, None) if error is None else (error.message, error.error_code)


async def _test_trivial(base: Baseline, session: Session, judge: Judge, success_at: float, endings: Endings) -> None:
    try:
        branches = await play_trivial(session.record, endings, session.factory)
    except TtcError as error:
        base.notes.append(f"trivial-task test: {error.message}")
        return
    for branch in branches:
        name = str(branch.source.extra["branch"]) if branch.source else "?"
        gold = replace(branch, task=session.record.task)
        passed, _ = judge.lane(gold)
        if passed is not None and passed >= success_at:
            base.trivial = True
            base.notes.append(f"the {name} branch passes {'the gate' if judge.accept else 'the guide'}")
        elif (guided := judge.guide_score(branch)[0]) is not None and guided >= success_at and judge.accept:
            base.notes.append(f"the {name} branch passes the guide")


def baseline_event(position: int, base: Baseline) -> dict[str, Any]:
    """The journal's form of a baseline."""
    return {
        "event": "baseline",
        "t": position,
        "value": base.value,
        "judged": base.judged,
        "scores": {name: score_to_dict(score) for name, score in base.scores.items()},
        "steps": [[step.fidelity, _own_reward(step)] for step in base.steps],
        "trivial": base.trivial,
        "notes": base.notes,
        "final_state": base.final_state,
        "truncated": base.truncated,
        "error": base.error,
        "error_code": base.error_code,
        **({"rebound": base.rebound} if base.rebound else {}),
    }


def _own_reward(step: Step) -> float | None:
    score = step.scores.get("environment")
    return score.value if score else None


def baseline_from(event: Mapping[str, Any], record: Trajectory) -> Baseline:
    """The inverse of `baseline_event`."""
    steps = [
        _restored(step, fidelity, reward)
        for step, (fidelity, reward) in zip(record.steps, event["steps"], strict=False)
    ]
    return Baseline(
        steps=steps,
        value=event["value"],
        judged=event["judged"],
        scores={name: score_from(score) for name, score in event["scores"].items()},
        trivial=event["trivial"],
        notes=list(event["notes"]),
        final_state=event["final_state"],
        truncated=event["truncated"],
        rebound=event.get("rebound", 0),
        error=event["error"],
        error_code=event["error_code"],
    )


def _restored(step: Step, fidelity: str | None, reward: float | None) -> Step:
    known: Fidelity | None = next((item for item in FIDELITY_ORDER if item == fidelity), None)
    scores = step.scores if reward is None else {**step.scores, "environment": Score(reward)}
    return replace(step, fidelity=known, scores=scores)
