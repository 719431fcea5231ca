"""Re-binding: a record holds in a world that gives other ids, and only there where ids are all that differs."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, Outcome, ProposalRequest, Source, Step, StepResult, Task, ToolCall, Trajectory
from ttc_replay.replay.contract import Configured, Contract
from ttc_replay.replay.drive import run_inline
from ttc_replay.replay.naming import Names, Pair, aligned
from ttc_replay.replay.policies.corpus import CorpusPolicy
from ttc_replay.replay.replaying import replay_all
from ttc_replay.replay.report import report_of
from ttc_replay.replay.session import Session, fork


def call(name: str, number: int, **arguments: Any) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall(f"c{number}", name, arguments),))


class Bookings:
    """`book(seat)`, `cancel(booking_id)`, `look(booking_id)`, `run(command)`; ends on a message without calls.

    Ids are new at every reset. `cancel` of an unknown booking is an error text.
    """

    inline = True
    copies = 0

    def __init__(self) -> None:
        self.bookings: dict[str, dict[str, Any]] = {}

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def reset(self, task: Task) -> list[Message]:
        self.bookings = {}
        return [Message("user", "book and cancel")]

    def step(self, action: Message) -> StepResult:
        answers = [
            Message("tool", self.answer(item.name, dict(item.arguments or {})), tool_call_id=item.id, name=item.name)
            for item in action.tool_calls
        ]
        done = not action.tool_calls
        return StepResult(answers, done, float(self.open_seats() == ["1A"]) if done else None)

    def open_seats(self) -> list[str]:
        return sorted(item["seat"] for item in self.bookings.values() if item["open"])

    def answer(self, name: str, given: dict[str, Any]) -> str:
        if name == "book":
            new = self.new_id()
            self.bookings[new] = {"seat": given["seat"], "open": True}
            return json.dumps({"booking_id": new, "seat": given["seat"], "fare": given.get("fare", 100000)})
        if name == "run":
            words = given["command"].split()
            return self.answer(words[0], {"booking_id": words[1]})
        found = self.bookings.get(str(given["booking_id"]))
        if found is None:
            return f"Error: there is no booking {given['booking_id']}"
        if name == "cancel":
            found["open"] = False
            return f"Booking {given['booking_id']} of seat {found['seat']} is cancelled."
        return json.dumps({given["booking_id"]: found})

    def state(self) -> dict[str, Any]:
        return {"bookings": self.bookings}


class Forked(Bookings):
    """The same, forkable."""

    def fork(self) -> Forked:
        twin = type(self)()
        twin.bookings = {key: dict(item) for key, item in self.bookings.items()}
        return twin


class Counted(Bookings):
    """Ids are a function of how many bookings were made before (`Random(141053)` in one simulated travel API)."""

    first = 3_426_812

    def new_id(self) -> str:
        return str(self.first + 7 * len(self.bookings))


def recorded(world: Any, *actions: Message, task: str = "t", outcome: float = 0.0, run: str = "r") -> Trajectory:
    """What these actions did in this world."""
    job = Task(task)
    prompt = tuple(world.reset(job))
    steps: list[Step] = []
    for index, action in enumerate(actions):
        named = resolved(action, [item for step in steps for item in step.observations])
        result = world.step(named)
        steps.append(Step(index, named, tuple(result.observations)))
    state = world.state()
    source = Source("test", f"{run}.jsonl", 1, "bookings")
    return Trajectory(run, job, None, prompt, tuple(steps), Outcome(outcome), final_state=state, source=source)


def resolved(action: Message, seen: list[Message]) -> Message:
    """`$1` in an argument is the id that the second booking of the run got."""
    ids = [json.loads(item.text)["booking_id"] for item in seen if item.name == "book"]
    calls = []
    for item in action.tool_calls:
        text = json.dumps(item.arguments)
        for number, known in enumerate(ids):
            text = text.replace(f"${number}", known)
        calls.append(ToolCall(item.id, item.name, json.loads(text)))
    return Message("assistant", action.content, tool_calls=tuple(calls))


END = Message("assistant", "Done.")
BOOK_AND_CANCEL = (
    call("book", 0, seat="1A"),
    call("book", 1, seat="2B"),
    call("cancel", 2, booking_id="$0"),
    call("run", 3, command="look $1"),
    END,
)


def row(record: Trajectory, world: Any, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = replay_all([record], Configured(world, Contract(**options)))["trajectories"][0]
    return found


def texts(record: Trajectory, *changes: tuple[int, str, str]) -> Trajectory:
    """The record with one text of a step's observation exchanged."""
    steps = list(record.steps)
    for index, old, new in changes:
        seen = steps[index].observations[0]
        steps[index] = replace(steps[index], observations=(replace(seen, content=seen.text.replace(old, new)),))
    return replace(record, steps=tuple(steps))


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [Bookings, Forked])
def test_a_record_holds_in_a_world_with_other_ids(world: Any) -> None:
    found = row(recorded(world(), *BOOK_AND_CANCEL), world)
    assert (found["matched"], found["first_divergence"]) == (5, None)
    assert found["rebound"] == 2, "one argument, and one word of a command"
    assert (found["level"], found["rules"]) == ("normalised", ["rebind ids"])
    assert found["baseline"] == 0.0, "the verdict of the world that stands where the record's stood"
    assert found["final_state_agrees"] is True, "the state is seen in the record's ids"


def test_re_binding_can_be_switched_off() -> None:
    found = row(recorded(Bookings(), *BOOK_AND_CANCEL), Bookings, rebind=False)
    assert (found["first_divergence"]["step"], found["rebound"]) == (0, 0)


def test_a_world_may_refuse_it_itself() -> None:
    class Strict(Bookings):
        rebind = False

    assert row(recorded(Bookings(), *BOOK_AND_CANCEL), Strict)["first_divergence"]["step"] == 0


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ((0, '"fare": 100000', '"fare": 200000'), 0),
        ((2, "seat 1A", "seat 1B"), 2),
    ],
    ids=["an amount of six digits", "a text beside the id"],
)
def test_what_differs_beside_the_ids_is_a_divergence(change: tuple[int, str, str], step: int) -> None:
    found = row(texts(recorded(Bookings(), *BOOK_AND_CANCEL), change), Bookings)
    assert found["first_divergence"]["step"] == step


def test_two_ids_that_changed_places_are_a_divergence() -> None:
    record = recorded(Counted(), *BOOK_AND_CANCEL)
    first, second = (json.loads(record.steps[index].observations[0].text)["booking_id"] for index in (0, 1))
    swapped = texts(record, (0, first, second), (1, second, first))
    assert row(record, Counted)["level"] == "exact"
    assert row(swapped, Counted)["first_divergence"]["step"] == 1


def test_an_id_that_no_later_action_uses_is_not_excused() -> None:
    record = recorded(Bookings(), call("book", 0, seat="1A"), END)
    assert row(record, Bookings)["first_divergence"]["step"] == 0
    declared = row(record, Bookings, normalise={"presets": ["ids"]})
    assert (declared["matched"], declared["rules"]) == (2, ["preset *: ids"])


def test_ids_that_are_a_function_of_the_calls_are_chained_without_a_mistake() -> None:
    class Later(Counted):
        first = Counted.first + 7

    found = row(recorded(Counted(), *BOOK_AND_CANCEL), Later)
    assert (found["matched"], found["rebound"]) == (5, 2)


# --- the search's worlds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [Bookings, Forked])
def test_a_branch_acts_in_the_records_ids(world: Any) -> None:
    record = recorded(world(), *BOOK_AND_CANCEL)
    known = record.steps[2].action.tool_calls[0].arguments
    session = Session(record, world)
    at = run_inline(session.at(record.steps[:2]))
    twin = run_inline(fork(at)) if world is Forked else at
    answer = twin.step(call("cancel", 9, **dict(known or {}))).observations[0]
    assert answer.text == record.steps[2].observations[0].text


class Scripted:
    """Cancels the second booking, in the ids that it is shown, and ends."""

    inline = True
    sampling = False

    def propose(self, requests: Any) -> list[list[Message]]:
        return [[self.one(request)] for request in requests]

    def one(self, request: ProposalRequest) -> Message:
        made = [json.loads(item.text)["booking_id"] for item in request.messages if item.name == "book"]
        return [*BOOK_AND_CANCEL[:2], call("cancel", 2, booking_id=made[-1] if made else ""), END][min(request.step, 3)]


@pytest.mark.parametrize("world", [Bookings, Forked])
def test_a_search_goes_on_from_any_step_of_a_world_with_new_ids(make_engine: Any, world: Any) -> None:
    record = recorded(world(), *BOOK_AND_CANCEL)
    engine = make_engine([record], policy=Scripted(), world=world, from_step=2, budget=6)
    asyncio.run(engine.run())
    found = engine.groves[0].verdict.counterfactual
    assert found is not None
    assert "is cancelled" in found.steps[2].observations[0].text
    assert found.outcome.value == 1.0


# --- suffixes of recorded runs ----------------------------------------------------------------------------------------


def proposals(policy: CorpusPolicy, record: Trajectory, messages: tuple[Message, ...], step: int) -> list[Any]:
    request = ProposalRequest(Task("t"), record.id, step, "0", messages, (), 8, 0)
    return policy.propose([request])[0]


def suffix(*before: Message) -> tuple[CorpusPolicy, Trajectory, tuple[Message, ...]]:
    """The corpus policy in a branch that began with other actions than its record did."""
    record = recorded(Counted(), *BOOK_AND_CANCEL)
    policy = CorpusPolicy(same_task_only=True)
    policy.prepare([record])
    return policy, record, recorded(Counted(), *before).messages


def test_an_extra_call_shifts_ids_and_the_recorded_suffix_follows() -> None:
    policy, record, messages = suffix(call("book", 7, seat="9Z"), *BOOK_AND_CANCEL[:2])
    made = {json.loads(m.text)["seat"]: json.loads(m.text)["booking_id"] for m in messages if m.name == "book"}
    stale = json.loads(record.steps[0].observations[0].text)["booking_id"]
    assert stale == made["9Z"] != made["1A"], "the recorded id names another booking here"
    found = {
        item.action.tool_calls[0].name: item
        for item in proposals(policy, record, messages, 3)
        if item.action.tool_calls
    }
    assert found["cancel"].action.tool_calls[0].arguments == {"booking_id": made["1A"]}
    assert found["run"].action.tool_calls[0].arguments == {"command": f"look {made['2B']}"}
    assert (found["cancel"].rebound, found["run"].rebound) == (1, 1)
    assert found["cancel"].source == ("r", 2)


def test_without_a_shift_a_recorded_suffix_is_left_alone() -> None:
    policy, record, messages = suffix(*BOOK_AND_CANCEL[:2])
    cancel = next(item for item in proposals(policy, record, messages, 2) if item.source == ("r", 2))
    assert cancel.action is record.steps[2].action
    assert cancel.rebound == 0


def test_a_rebound_action_is_proposed_once() -> None:
    policy, record, messages = suffix(call("book", 7, seat="9Z"), *BOOK_AND_CANCEL[:2])
    cancel = next(item for item in proposals(policy, record, messages, 3) if item.source == ("r", 2))
    answer = Message("tool", "cancelled", tool_call_id=cancel.action.tool_calls[0].id, name="cancel")
    after = proposals(policy, record, (*messages, cancel.action, answer), 4)
    assert ("r", 2) not in [item.source for item in after]


def test_rebound_arguments_are_counted_in_the_search_report(make_engine: Any) -> None:
    record = recorded(Counted(), *BOOK_AND_CANCEL)
    extra = recorded(Counted(), call("book", 7, seat="9Z"), *BOOK_AND_CANCEL, run="s")
    policy = CorpusPolicy(same_task_only=True)
    policy.prepare([record, extra])
    engine = make_engine([record], policy=policy, world=Counted, archive=[record, extra], budget=60, max_depth=8)
    asyncio.run(engine.run())
    assert report_of(engine, 0.0)["totals"]["rebound"] == engine.groves[0].tree.rebound > 0


# --- the bijection ----------------------------------------------------------------------------------------------------

IDS = st.uuids().map(str)


@settings(max_examples=30)
@given(st.lists(IDS, min_size=1, max_size=6, unique=True), st.data())
def test_a_renaming_is_found_and_undone(ids: list[str], data: st.DataObject) -> None:
    other = data.draw(
        st.lists(IDS.filter(lambda item: item not in ids), min_size=len(ids), max_size=len(ids), unique=True)
    )
    left = {"rows": [{"id": item, "text": f"see {item}."} for item in ids]}
    right = json.loads(json.dumps(left).translate({}))
    for old, new in zip(ids, other, strict=True):
        right = json.loads(json.dumps(right).replace(old, new))
    names = Names()
    assert all(names.add(pair) for pair in aligned(left, right))
    assert names.in_record(right) == left
    assert names.in_world(left) == (right, 2 * len(ids))


def test_a_circle_of_ids_is_refused() -> None:
    names = Names()
    assert names.add(Pair("a1", "b1", "id"))
    assert names.add(Pair("b1", "c1", "id"))
    assert not names.add(Pair("c1", "a1", "id"))
    assert not names.add(Pair("x1", "b1", "id")), "two of the record, one of the world"
    assert not names.add(Pair("a1", "z1", "id")), "one of the record, two of the world"


def test_a_new_id_that_means_another_thing_in_the_record_is_told_apart() -> None:
    names = Names({"111111": "222222"})
    assert names.in_record("111111 and 222222") == "111111~ and 111111"
    assert names.in_world("111111 and 111111~")[0] == "222222 and 111111"
