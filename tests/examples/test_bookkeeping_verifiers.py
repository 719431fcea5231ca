"""The verifiers: every mistake is possible on some line, and the right verifier catches it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ttc_replay import Message, Score, Task, ToolCall, Trajectory
from ttc_replay.examples.bookkeeping.agents import call_for
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.ledger import Booking
from ttc_replay.examples.bookkeeping.mistakes import MISTAKES
from ttc_replay.examples.bookkeeping.verifiers import gold, identity, policy, progress
from ttc_replay.examples.bookkeeping.world import task, tasks, world_of

MODELS = {model.name: model for model in (identity, policy, progress, gold)}
MEDIUM = task("bookkeeping/medium/000")


def call(environment: BookkeepingEnvironment, name: str, arguments: Mapping[str, Any]) -> str:
    result = environment.step(Message("assistant", "", tool_calls=(ToolCall("c", name, arguments),)))
    return result.observations[0].text


def judged(chosen: Task, environment: BookkeepingEnvironment) -> dict[str, Score]:
    item = Trajectory(id="t", task=Task(chosen.id), final_state=environment.state())
    return {name: model.score([item])[0] for name, model in MODELS.items()}


def booked(chosen: Task, changes: Mapping[str, Booking | None]) -> BookkeepingEnvironment:
    """The gold with some lines booked otherwise, or not at all; nothing may be refused. Not closed."""
    environment, made = BookkeepingEnvironment(), world_of(chosen)
    environment.reset(chosen)
    for line, right in made.gold.items():
        booking = changes.get(line, right)
        if booking is not None:
            assert "error" not in call(environment, *call_for(made.line[line], booking))
    return environment


def closed(chosen: Task, environment: BookkeepingEnvironment) -> dict[str, Score]:
    call(environment, "close_month", {"month": world_of(chosen).month.label})
    return judged(chosen, environment)


def every(mistake: str) -> Iterator[tuple[Task, str, Booking]]:
    """Each line of each task on which the mistake can be made and is not refused by the tools."""
    for chosen in tasks():
        made = world_of(chosen)
        for line in made.lines:
            wrong = MISTAKES[mistake](made, line, made.gold[line.id])
            over = (
                wrong is not None and wrong.invoice and abs(wrong.settled) > made.invoices[wrong.invoice].booked_value
            )
            if wrong is not None and not over:
                yield chosen, line.id, wrong


@pytest.mark.parametrize(
    ("mistake", "identity_failed", "policy_failed"),
    [
        ("sign_flip", ["bank"], {"account", "cut_off"}),
        ("wrong_account", [], {"account"}),
        ("wrong_vat_code", [], {"vat_code"}),
        ("vat_rounding", [], {"vat_amount"}),
        ("misread", [], set()),
        ("cut_off_ignored", [], {"cut_off"}),
        ("fee_netted", [], {"fee", "loan"}),
        ("invoice_left_open", [], {"invoice"}),
        ("exchange_rounding", [], {"invoice"}),
        ("suspense", ["balanced"], {"account", "cut_off", "fee", "loan", "invoice"}),
    ],
)
def test_each_mistake_is_possible_and_caught_where_it_should_be(
    mistake: str, identity_failed: list[str], policy_failed: set[str]
) -> None:
    seen, cases = set(), 0
    for chosen, line, wrong in every(mistake):
        cases += 1
        scores = closed(chosen, booked(chosen, {line: wrong}))
        assert scores["identity"].detail["failed"] == identity_failed
        failed = scores["policy"].detail["failed"]
        assert set(failed) <= {line}
        if policy_failed:
            assert policy_failed & set(failed[line])
            assert scores["policy"].value is not None
            assert 0.5 < scores["policy"].value < 1.0
        else:
            assert (scores["policy"].value, failed) == (1.0, {})
        seen.update(failed.get(line, ()))
        assert scores["gold"].value == 0.0
        assert scores["gold"].detail["wrong"] == [line]
    assert cases >= 3
    assert policy_failed <= seen


def test_a_duplicate_is_the_banks_business() -> None:
    environment = booked(MEDIUM, {})
    made = world_of(MEDIUM)
    line = next(key for key, right in made.gold.items() if right.invoice is None)
    call(environment, *call_for(made.line[line], made.gold[line]))
    scores = closed(MEDIUM, environment)
    assert scores["identity"].detail["failed"] == ["lines_linked_once", "bank"]
    assert (scores["policy"].value, scores["gold"].detail["wrong"]) == (1.0, [line])


def test_a_skipped_line_fails_everything() -> None:
    scores = closed(MEDIUM, booked(MEDIUM, {"L02": None}))
    assert scores["identity"].detail["failed"] == ["lines_linked_once", "bank"]
    assert list(scores["policy"].detail["failed"]) == ["L02"]
    assert scores["gold"].detail["wrong"] == ["L02"]


def test_right_books_that_stay_open_are_not_done() -> None:
    scores = judged(MEDIUM, booked(MEDIUM, {}))
    assert scores["identity"].detail["failed"] == ["closed"]
    assert (scores["policy"].value, scores["gold"].value) == (1.0, 0.0)
    assert scores["gold"].detail == {"wrong": [], "closed": False}


def test_parts_in_another_order_are_the_same_booking() -> None:
    chosen, line = next(
        (item, key) for item in tasks() for key, right in world_of(item).gold.items() if len(right.parts) == 2
    )
    right = world_of(chosen).gold[line]
    turned = Booking(line, right.parts[::-1])
    assert closed(chosen, booked(chosen, {line: turned}))["gold"].value == 1.0


@pytest.mark.parametrize("chosen", tasks()[::5], ids=lambda item: item.id)
def test_progress_rises_with_every_right_line_and_only_a_clean_close_reaches_one(chosen: Task) -> None:
    environment, made = BookkeepingEnvironment(), world_of(chosen)
    environment.reset(chosen)
    values = [judged(chosen, environment)["progress"].value or 0.0]
    for line, right in made.gold.items():
        call(environment, *call_for(made.line[line], right))
        values.append(judged(chosen, environment)["progress"].value or 0.0)
    assert values == sorted(set(values))
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(0.9)
    assert closed(chosen, environment)["progress"].value == 1.0


def test_progress_falls_with_visible_errors_and_rises_when_they_are_undone() -> None:
    chosen, line, wrong = next(every("wrong_account"))
    environment, made = booked(chosen, {line: None}), world_of(chosen)
    before = judged(chosen, environment)["progress"].value
    call(environment, *call_for(made.line[line], wrong))
    spoilt = judged(chosen, environment)["progress"].value
    early = closed(chosen, environment.fork())["progress"].value
    call(environment, "undo", {"line": line})
    assert judged(chosen, environment)["progress"].value == before
    assert before is not None
    assert spoilt is not None
    assert early is not None
    assert before > spoilt > early >= 0.0


def test_only_progress_judges_prefixes() -> None:
    assert {name: model.process for name, model in MODELS.items()} == {
        "identity": False,
        "policy": False,
        "progress": True,
        "gold": False,
    }


@pytest.mark.parametrize("name", MODELS)
def test_without_a_final_state_there_is_no_verdict(name: str) -> None:
    assert MODELS[name].score([Trajectory(id="t", task=MEDIUM)])[0] == Score(abstain=True)


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_judged_is_an_error_not_a_zero(name: str) -> None:
    state = booked(MEDIUM, {}).state()
    for item in (
        Trajectory(id="t", task=Task("airline/3"), final_state=state),
        Trajectory(id="t", task=MEDIUM, final_state={"closed": True}),
    ):
        score = MODELS[name].score([item])[0]
        assert score.value is None
        assert score.error is not None
