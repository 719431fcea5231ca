"""The `replay` command's work: levels of a match, the first divergence, tolerance, and what a world's failure is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from ttc_replay import Message, Outcome, Step, StepResult, Task, ToolCall, Trajectory
from ttc_replay.replay.environments.tape import TapeEnvironment
from ttc_replay.replay.replaying import replay_all
from ttc_replay.storage.errors import MissingExtra


def changed(record: Trajectory, *answers: tuple[int, str]) -> Trajectory:
    """The record with other answers at some steps."""
    steps = list(record.steps)
    for index, text in answers:
        old = steps[index].observations[0]
        steps[index] = replace(steps[index], observations=(replace(old, content=text),))
    return replace(record, steps=tuple(steps))


def one(record: Trajectory, world: Callable[[], Any], **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row and the totals of one record."""
    report = replay_all([record], world, **options)
    (row,) = report["trajectories"]
    return row, report["totals"]


# --- levels ---------------------------------------------------------------------------------------------------------


def normalising(toy: Any) -> Any:
    """The toy world, with a declared rename of a key."""

    class Renamed(toy.Counter):  # type: ignore[misc]
        normalise: ClassVar = {"rename": {"add": {"sum": "total"}}}

    return Renamed


LEVELS = {
    "exact": (),
    "json": ((1, '{ "total" : 2 }'),),
    "normalised": ((1, '{ "total" : 2 }'), (2, '{"sum": 3}')),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_run_has_the_weakest_level_of_its_steps(toy: Any, level: str) -> None:
    record = changed(toy.record(1, 1, 1, 1), *LEVELS[level])
    row, totals = one(record, normalising(toy))
    assert (row["level"], row["matched"], row["first_divergence"]) == (level, 4, None)
    assert totals["levels"] == {name: int(name == level) for name in LEVELS}
    assert totals["diverged"] == totals["failed"] == 0


def test_a_rename_that_is_not_declared_is_a_divergence(toy: Any) -> None:
    row, totals = one(changed(toy.record(1, 1, 1, 1), (2, '{"sum": 3}')), toy.Counter)
    assert row["first_divergence"]["step"] == 2
    assert totals["diverged"] == 1


@pytest.mark.parametrize(
    ("world", "fidelity"), [("Counter", "reexecuted"), ("ReExecutable", "reexecuted"), ("tape", "recorded")]
)
def test_the_class_of_what_was_replayed(toy: Any, world: str, fidelity: str) -> None:
    row, _ = one(toy.record(1, 1, 1, 1), TapeEnvironment if world == "tape" else getattr(toy, world))
    assert row["fidelity"] == fidelity


def test_a_world_may_be_async(toy: Any) -> None:
    row, _ = one(toy.record(1, 1, 1, 1), toy.AsyncCounter, drive=asyncio.run)
    assert (row["matched"], row["baseline"]) == (4, 0.0)


# --- divergence -----------------------------------------------------------------------------------------------------


def test_the_first_difference_is_told_and_the_replay_stops(toy: Any) -> None:
    record = changed(toy.record(1, 1, 1, 1), (1, '{"total": 77}'), (2, '{"total": 88}'))
    row, totals = one(record, toy.Counter)
    assert row["matched"] == 1
    first = row["first_divergence"]
    assert first["step"] == 1
    assert "77" in first["expected"]
    assert '{"total": 2}' in first["got"]
    assert row["baseline"] is None, "nobody knows how it would have ended"
    assert (totals["matched"], totals["steps"], totals["diverged"]) == (1, 4, 1)


def test_tolerant_goes_on_and_still_calls_it_diverged(toy: Any) -> None:
    record = changed(toy.record(1, 1, 1, 1), (1, '{"total": 77}'), (2, '{"total": 88}'))
    row, totals = one(record, toy.Counter, tolerant=True)
    assert (row["matched"], row["first_divergence"]["step"], row["baseline"]) == (2, 1, None)
    assert (totals["matched"], totals["diverged"]) == (2, 1)


def test_a_tool_that_the_world_lacks(toy: Any) -> None:
    record = toy.record(1, 1, 1, 1)
    action = Message("assistant", "", tool_calls=(ToolCall("c", "multiply", {"by": 2}),))
    answer = Message("tool", "2", tool_call_id="c")
    row, totals = one(replace(record, steps=(Step(0, action, (answer,)),)), strict_world(toy))
    assert (row["first_divergence"]["step"], totals["diverged"], totals["failed"]) == (0, 1, 0)
    assert "lacks the tool" in row["first_divergence"]["got"]


def strict_world(toy: Any) -> Any:
    """The toy world, which raises on a tool that it does not have."""

    class Strict(toy.Counter):  # type: ignore[misc]
        def step(self, action: Message) -> StepResult:
            if action.tool_calls[0].name != "add":
                raise KeyError(action.tool_calls[0].name)
            result: StepResult = super().step(action)
            return result

    return Strict


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_world_that_raises_failed_it_did_not_diverge(toy: Any) -> None:
    bad = replace(toy.record(1, 1), id="bad", steps=(*toy.record(1, 1).steps, Step(2, toy.add(13))))
    report = replay_all([bad, toy.record(1, 1, 1, 1)], toy.Counter)
    row, good = report["trajectories"]
    assert row["first_divergence"]["step"] == 2
    assert row["first_divergence"]["expected"] is None
    assert row["first_divergence"]["got"].startswith("error[TTC-E401]: Counter, step 2: ")
    assert (row["matched"], good["matched"]) == (2, 4), "one failure does not stop the others"
    assert (report["totals"]["failed"], report["totals"]["diverged"]) == (1, 0)


def test_a_divergence_before_a_failure_is_a_divergence(toy: Any) -> None:
    bad = changed(toy.record(1, 1), (0, '{"total": 77}'))
    bad = replace(bad, steps=(*bad.steps, Step(2, toy.add(13))))
    row, totals = one(bad, toy.Counter, tolerant=True)
    assert row["first_divergence"]["step"] == 0
    assert (totals["failed"], totals["diverged"]) == (0, 1)


def test_a_world_that_cannot_start_is_a_failure_of_each_record(toy: Any) -> None:
    record = toy.record(1, 1)
    row, totals = one(replace(record, task=Task("t1")), toy.Counter)
    assert (row["matched"], row["fidelity"], totals["failed"]) == (0, None, 1)
    assert "KeyError" in row["first_divergence"]["got"]


def test_a_missing_package_stops_it_all(toy: Any) -> None:
    class Lacking(toy.Counter):  # type: ignore[misc]
        def reset(self, task: Task) -> list[Any]:
            raise MissingExtra("needs a package", hint="install it")

    with pytest.raises(MissingExtra, match="needs a package"):
        replay_all([toy.record(1, 1)], Lacking)


# --- totals ---------------------------------------------------------------------------------------------------------


def test_agreement_is_counted_where_both_sides_have_a_verdict(toy: Any) -> None:
    records = [
        toy.record(1, 1, 1, 1, outcome=0.0),
        toy.record(3, 3, 2, 1, outcome=1.0),
        toy.record(3, 3, 1, 1, outcome=1.0),  # the log says success, the world does not
        replace(toy.record(3, 3, 3, 3), outcome=None),
        replace(toy.record(2, 2, 2, 2), outcome=Outcome(None)),
        toy.record(1, 1, outcome=0.0),  # unfinished: the world gives no verdict
    ]
    seen: list[tuple[int, int]] = []
    report = replay_all(records, toy.Counter, progress=lambda done, total: seen.append((done, total)))
    assert [row["baseline"] for row in report["trajectories"]] == [0.0, 1.0, 0.0, 0.0, 0.0, None]
    totals = report["totals"]
    assert (totals["trajectories"], totals["compared"], totals["agreed"]) == (6, 3, 2)
    assert seen == [(number, 6) for number in range(1, 7)]


def test_nothing_to_replay() -> None:
    report = replay_all([], lambda: pytest.fail("no world is needed"))
    assert report["trajectories"] == []
    assert report["totals"]["trajectories"] == report["totals"]["steps"] == report["totals"]["diverged"] == 0
