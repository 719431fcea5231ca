"""The numbers of a run: rows, totals and the paired interval."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay import Spec
from ttc_replay.replay.report import ROW_KEYS, empty_report, paired_interval, report_of, row_of, totals_of
from ttc_replay.replay.settings import Settings


def row(
    identity: str = "r", *, baseline: float | None = 0.0, best: float | None = 0.0, trivial: bool = False, **more: Any
) -> dict[str, Any]:
    """A row as `row_of` makes it."""
    found = f"cf-{identity}" if best is not None and best != baseline else None
    plain: dict[str, Any] = dict.fromkeys(ROW_KEYS)
    plain |= {"id": identity, "observed": 0.0, "baseline": baseline, "best": best, "trivial": trivial}
    plain |= {"counterfactual_id": found, "novel": found is not None, "refused": 0}
    plain |= {"transitions": 10, "calls": 1, "tokens": 5, "cost_usd": 0.25}
    return {**plain, **more}


def tasks(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Every row a task of its own."""
    return {item["id"]: f"task {item['id']}" for item in rows}


# --- the interval ---------------------------------------------------------------------------------------------------

DEGENERATE: dict[str, tuple[list[dict[str, Any]], tuple[float, float] | None]] = {
    "no rows": ([], None),
    "one task": ([row("a", best=1.0)], None),
    "nothing gained": ([row("a"), row("b"), row("c")], (0.0, 0.0)),
    "all gained": ([row(name, best=1.0) for name in "abc"], (1.0, 1.0)),
    "trivial tasks do not count": (
        [row("a", best=1.0), row("b", best=1.0), row("c", trivial=True), row("d", trivial=True)],
        (1.0, 1.0),
    ),
    "unknown baselines do not count": (
        [row("a", best=1.0), row("b", best=1.0), row("c", baseline=None, best=None)],
        (1.0, 1.0),
    ),
    "one task besides those": ([row("a", best=1.0), row("c", trivial=True), row("d", baseline=None)], None),
}


@pytest.mark.parametrize("what", DEGENERATE)
def test_the_interval_in_degenerate_cases(what: str) -> None:
    rows, expected = DEGENERATE[what]
    assert paired_interval(rows, tasks(rows)) == expected


def test_runs_of_one_task_are_drawn_together() -> None:
    """Ten runs of one task are one observation: the interval of two tasks spans both, however many runs they have."""
    rows = [row(f"a{n}", best=1.0) for n in range(10)] + [row(f"b{n}") for n in range(10)]
    assert paired_interval(rows, tasks(rows)) != (0.0, 1.0)
    by_task = {item["id"]: item["id"][0] for item in rows}
    assert paired_interval(rows, by_task) == (0.0, 1.0)


def test_the_interval_is_that_of_the_mean() -> None:
    """Against the normal approximation on 400 tasks, within two thirds of a standard error."""
    rows = [row(f"r{n}", best=1.0 if n % 4 == 0 else 0.0) for n in range(400)]
    found = paired_interval(rows, tasks(rows))
    assert found is not None
    error = statistics.stdev(item["best"] for item in rows) / 20
    assert found[0] == pytest.approx(0.25 - 1.96 * error, abs=error / 1.5)
    assert found[1] == pytest.approx(0.25 + 1.96 * error, abs=error / 1.5)


gains = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([-0.5, 0.0, 0.25, 1.0])), min_size=2, max_size=12)


@given(gains, st.integers(0, 3))
def test_the_interval_is_reproducible_and_within_the_gains(drawn: list[tuple[str, float]], seed: int) -> None:
    rows = [row(f"{task}{n}", baseline=0.0, best=gain) for n, (task, gain) in enumerate(drawn)]
    by_task = {item["id"]: item["id"][0] for item in rows}
    found = paired_interval(rows, by_task, seed, resamples=100)
    assert (found is None) == (len({task for task, _ in drawn}) < 2)
    if found is not None:
        assert min(gain for _, gain in drawn) <= found[0] <= found[1] <= max(gain for _, gain in drawn)
        assert paired_interval(rows[::-1], by_task, seed, resamples=100) == pytest.approx(found)


# --- totals ---------------------------------------------------------------------------------------------------------


def test_totals_headline_without_trivial_tasks_spend_with_them() -> None:
    rows = [
        row("a", best=1.0),
        row("b", baseline=0.5, best=0.75, novel=False),
        row("c", refused=3),
        row("d", best=1.0, trivial=True, observed=1.0),
        row("e", baseline=None, best=None, observed=None),
    ]
    totals = totals_of(rows, 2, 1.23456)
    assert totals["trajectories"] == 5
    assert (totals["improved"], totals["novel"], totals["trivial"]) == (2, 1, 1)
    assert totals["mean_observed"] == 0.0
    assert totals["mean_baseline"] == pytest.approx(0.5 / 3)
    assert totals["mean_best"] == pytest.approx(1.75 / 3)
    assert (totals["transitions"], totals["calls"], totals["tokens"], totals["cost_usd"]) == (50, 5, 25, 1.25)
    assert totals["gate"] == {"accepted": 3, "refused": 3}
    assert (totals["repeated_calls"], totals["seconds"]) == (2, 1.235)


def test_an_empty_report_has_every_key(make_engine: Any, toy: Any) -> None:
    settings = Settings(Spec("x"), Spec("y"), ((Spec("a"), 1.0), (Spec("b"), 2.0)))
    empty = empty_report(settings, "name")
    engine = make_engine([toy.record(1, 1, 1, 1)], budget=5)
    asyncio.run(engine.run())
    full = report_of(engine, 0.0)
    assert list(empty) == list(full)
    assert list(empty["totals"]) == list(full["totals"])
    assert empty["judge"] == "a+b"
    assert empty["totals"]["mean_best"] is None, "nothing is known about nothing"


# --- rows -----------------------------------------------------------------------------------------------------------


def rows_of(engine: Any) -> list[dict[str, Any]]:
    asyncio.run(engine.run())
    return [row_of(grove) for grove in engine.groves]


def test_a_row_where_nothing_was_accepted_keeps_the_baseline(make_engine: Any, toy: Any) -> None:
    (found,) = rows_of(make_engine([toy.record(1, 1, 1, 1, target=99)], budget=20))
    assert found["best"] == found["baseline"] == found["observed"] == 0.0
    assert (found["counterfactual_id"], found["branch_step"], found["fidelity"]) == (None, None, None)
    assert (found["novel"], found["stopped"], found["transitions"]) == (False, "budget", 20)


def test_a_row_of_a_run_that_diverged_says_why(make_engine: Any, toy: Any) -> None:
    from dataclasses import replace

    from ttc_replay import Message, Step

    good = toy.record(1, 1, 1, 1)
    wrong = Step(1, good.steps[1].action, (Message("tool", '{"total": 9}', tool_call_id="call_1", name="add"),))
    (found,) = rows_of(make_engine([replace(good, steps=(good.steps[0], wrong))]))
    assert (found["stopped"], found["baseline"], found["best"], found["transitions"]) == ("error", None, None, 0)
    assert found["notes"][0].startswith("TTC-E301: step 1: observation differs")


def test_a_baseline_that_succeeds_is_left_alone(make_engine: Any, toy: Any) -> None:
    (found,) = rows_of(make_engine([toy.record(3, 3, 2, 1, outcome=0.0)]))
    assert (found["observed"], found["baseline"], found["best"]) == (0.0, 1.0, 1.0)
    assert (found["stopped"], found["transitions"]) == ("solved", 0)
