"""The generator: tasks rebuild from their id, the gold passes every verifier, no task is trivial."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay import Message, Task, ToolCall, Trajectory
from ttc_replay.examples.bookkeeping.agents import call_for
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.expectations import expectations
from ttc_replay.examples.bookkeeping.ledger import balances
from ttc_replay.examples.bookkeeping.mistakes import BLIND_EVERY, blind_spot
from ttc_replay.examples.bookkeeping.money import ZERO, parse_money, vat_in
from ttc_replay.examples.bookkeeping.verifiers import gold, identity, policy, progress
from ttc_replay.examples.bookkeeping.world import DIFFICULTIES, Month, request_text, task, tasks, world, world_of

ALL = tasks()


def action(*calls: tuple[str, dict[str, object]]) -> Message:
    return Message("assistant", "", tool_calls=tuple(ToolCall(f"c{i}", *call) for i, call in enumerate(calls)))


def ended(chosen: Task, environment: BookkeepingEnvironment) -> Trajectory:
    return Trajectory(id="t", task=chosen, final_state=environment.state())


def test_seventy_two_tasks_in_three_difficulties_of_growing_length() -> None:
    assert len({item.id for item in ALL}) == len(ALL) == 72
    lengths = [[len(world_of(item).lines) for item in tasks(name)] for name in DIFFICULTIES]
    assert [min(item) for item in lengths] == sorted({min(item) for item in lengths})
    assert [max(item) for item in lengths] == sorted({max(item) for item in lengths})


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.id)
def test_the_id_alone_rebuilds_the_task_and_its_world(item: Task) -> None:
    assert task(item.id) == item
    assert item.private == {}
    assert world_of(Task(item.id)) is world_of(item)
    assert item.prompt == request_text(world_of(item))


def test_another_seed_under_the_same_id_is_another_month() -> None:
    chosen = ALL[0]
    other = world_of(replace(chosen, seed=4711))
    assert other is world("easy", 4711)
    assert other.lines != world_of(chosen).lines


@pytest.mark.parametrize(
    "task_id", ["", "7", "bookkeeping/easy", "bookkeeping/nasty/000", "bookkeeping/easy/0x1", "/a"]
)
def test_an_unknown_task_id_is_named(task_id: str) -> None:
    with pytest.raises(ValueError, match="is not a bookkeeping task"):
        task(task_id)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.id)
def test_the_gold_booked_through_the_tools_satisfies_every_verifier(item: Task) -> None:
    made, environment = world_of(item), BookkeepingEnvironment()
    environment.reset(item)
    for line_id, booking in made.gold.items():
        result = environment.step(action(call_for(made.line[line_id], booking)))
        assert "error" not in result.observations[0].text
    result = environment.step(action(("close_month", {"month": made.month.label})))
    assert (result.done, result.reward) == (True, 1.0)
    scores = {model.name: model.score([ended(item, environment)])[0] for model in (identity, policy, progress, gold)}
    assert {name: score.value for name, score in scores.items()} == dict.fromkeys(scores, 1.0), scores


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.id)
def test_no_task_is_trivial(item: Task) -> None:
    closes = action(("close_month", {"month": world_of(item).month.label}))
    for first in (None, Message("assistant", "I cannot help with this."), closes):
        environment = BookkeepingEnvironment()
        environment.reset(item)
        if first is not None:
            assert environment.step(first).reward == 0.0
        for model in (identity, gold, progress):
            assert model.score([ended(item, environment)])[0].value == 0.0


def test_policy_expectations_do_not_need_the_gold() -> None:
    for item in ALL:
        made = world_of(item)
        assert expectations(replace(made, gold={})) == expectations(made)


def test_the_rules_leave_some_lines_to_a_reader_and_their_gold_is_one_of_the_choices() -> None:
    open_choices = 0
    for item in ALL:
        made = world_of(item)
        for line, expected in expectations(made).items():
            open_choices += len(expected.allowed) > 1
            assert made.gold[line].canonical() in expected.allowed
    assert open_choices >= 60


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.id)
def test_worlds_are_sound(item: Task) -> None:
    made = world_of(item)
    assert sum(made.opening.values(), ZERO) == 0
    assert all(made.gold[line.id].bank_amount == line.amount for line in made.lines)
    assert sum(balances(made.opening, {key: (value,) for key, value in made.gold.items()}).values(), ZERO) == 0
    assert [line.date for line in made.lines] == sorted(line.date for line in made.lines)
    assert all(line.date.startswith(made.month.label) for line in made.lines)


def test_every_fourth_task_has_a_blind_spot_that_is_wrong() -> None:
    for item in ALL:
        made = world_of(item)
        spots = blind_spot(made)
        assert bool(spots) == (made.seed % BLIND_EVERY == 2)
        assert all(wrong.canonical() != made.gold[line].canonical() for line, wrong in spots.items())


def test_worlds_do_not_depend_on_the_process() -> None:
    code = (
        "from ttc_replay.examples.bookkeeping.world import tasks, world_of;"
        "print([(w.lines, w.rules, w.gold, w.invoices, w.opening) for w in map(world_of, tasks())])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = [(w.lines, w.rules, w.gold, w.invoices, w.opening) for w in map(world_of, ALL)]
    assert printed == {f"{here}\n"}


@pytest.mark.parametrize(
    ("gross", "rate", "vat"),
    [
        ("120.00", "20", "20.00"),
        ("100.23", "20", "16.71"),  # 16.705: half a cent goes up
        ("-100.23", "20", "-16.71"),  # and away from zero
        ("110.00", "10", "10.00"),
        ("0.05", "10", "0.00"),
        ("-50.00", "0", "0.00"),
    ],
)
def test_vat_is_contained_and_rounded_half_up(gross: str, rate: str, vat: str) -> None:
    assert str(vat_in(Decimal(gross), Decimal(rate))) == vat


@given(st.integers(min_value=0, max_value=10**9), st.sampled_from(["0", "10", "20"]))
def test_vat_is_odd_and_within_half_a_cent(cents: int, rate: str) -> None:
    gross = Decimal(cents).scaleb(-2)
    vat = vat_in(gross, Decimal(rate))
    assert vat_in(-gross, Decimal(rate)) == -vat
    assert abs(vat * (100 + Decimal(rate)) - gross * Decimal(rate)) <= Decimal("0.005") * (100 + Decimal(rate))


@pytest.mark.parametrize(
    ("given", "text"), [("12", "12.00"), ("-0.00", "0.00"), ("1.5", "1.50"), (7, "7.00"), (-1.25, "-1.25")]
)
def test_money_arguments_that_are_read(given: object, text: str) -> None:
    assert str(parse_money(given)) == text


@pytest.mark.parametrize(
    "given",
    [
        "",
        " 1",
        "1,000.00",
        "1e3",
        "1.234",
        "NaN",
        "Infinity",
        "٣",
        "12345678901",
        float("nan"),
        1e300,
        0.001,
        True,
        None,
        [],
    ],
)
def test_money_arguments_that_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="must be a text"):
        parse_money(given)


@given(st.integers(1990, 2090), st.integers(1, 12), st.integers(-500, 500))
def test_months_shift_back_and_forth(year: int, number: int, months: int) -> None:
    month = Month(year, number)
    there = month.shifted(months)
    assert 1 <= there.number <= 12
    assert there.shifted(-months) == month
    assert (there > month) == (months > 0)
