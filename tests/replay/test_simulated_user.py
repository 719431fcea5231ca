"""The user's side played by a policy: what it sees, what its replies are worth and cost, and a run that resumes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ttc_replay import Message, Proposal, ProposalRequest, Spec, Step, StepResult, Task, ToolCall, Trajectory, Usage
from ttc_replay.replay.engine import Engine, Plugins
from ttc_replay.replay.policies.scripted import ScriptedPolicy
from ttc_replay.replay.report import report_of
from ttc_replay.replay.settings import Limits, Settings
from ttc_replay.replay.simulated_user import STOP, scenario_of, swapped
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.rewards.environment import environment as environment_reward
from ttc_replay.storage.journal import Journal, digest, read_journal
from ttc_replay.storage.records import Outcome

CODE = "4711"


class Door:
    """`unlock(code)` ends the run; only the user knows the code, which depends on the task. No user is listened to."""

    inline = True

    def __init__(self) -> None:
        self.tries = 0

    def reset(self, task: Task) -> list[Message]:
        self.tries = 0
        return [Message("system", "You open doors."), Message("user", "Open the door, please.")]

    def step(self, action: Message) -> StepResult:
        if not action.tool_calls:
            return StepResult()
        self.tries += 1
        call = action.tool_calls[0]
        good = (call.arguments or {}).get("code") == CODE
        return StepResult([Message("tool", str(good), tool_call_id=call.id, name=call.name)], True, float(good))

    def fork(self) -> Door:
        twin = type(self)()
        twin.tries = self.tries
        return twin


class Threaded(Door):
    """The same, in worker threads."""

    inline = False


def unlock(code: str) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall("c1", "unlock", {"code": code}),))


def asks(request: ProposalRequest) -> list[Message | str]:
    """The agent: asks until it hears a code."""
    heard = [word for message in request.messages if message.role == "user" for word in message.text.split()]
    code = next((word for word in heard if word.isdigit()), None)
    return [unlock(code)] if code else ["What is the code?", unlock("0000")]


def record(outcome: float = 0.0) -> Trajectory:
    scenario = {"instructions": {"task": f"The code is {CODE}. Give it only when asked."}}
    task = Task("door", data={"user_scenario": scenario}, private={"gold": "do not tell"})
    wrong = Step(0, unlock("0000"), (Message("tool", "False", tool_call_id="c1", name="unlock"),))
    return Trajectory("r1", task, prompt=tuple(Door().reset(task)), steps=(wrong,), outcome=Outcome(outcome))


class Paid:
    """A user behind a meter: says the code of its scenario, or ends. `asked`: the requests it was paid for."""

    metered = True
    sampling = True

    def __init__(self) -> None:
        self.asked: list[ProposalRequest] = []

    def identity(self) -> dict[str, Any]:
        return {"policy": "paid-user"}

    def estimate(self, request: ProposalRequest) -> Usage:
        return Usage(100, 20, None, 0.001)

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        return [[self.one(request)] for request in requests]

    def one(self, request: ProposalRequest) -> Proposal:
        self.asked.append(request)
        text = f"It is {CODE} ." if CODE in request.messages[0].text else STOP
        return Proposal(Message("assistant", text), usage=Usage(50, 5, None, 0.0005))


class Waiting(Paid):
    """The same, over a network as it were."""

    async def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().propose(requests)


Run = Callable[..., Engine]


@pytest.fixture
def run(tmp_path: Any) -> Run:
    def searched(user: Any, world: Any = Door, folder: str = "run", lookup: Any = None, **options: Any) -> Engine:
        agent = ScriptedPolicy(script=asks)
        spec = Spec("user") if user is not None else None
        settings = Settings(
            Spec("door"), Spec("scripted"), ((Spec("environment"), 1.0),), budget=12, user_policy=spec, **options
        )
        plugins = Plugins(agent, world, compose([Weighted("environment", environment_reward)]), user_policy=user)
        journal = Journal.open(tmp_path / folder, settings.configuration(), ["r1"])
        engine = Engine(settings, folder, [record()], [record()], plugins, journal, lookup or (lambda keys: {}))
        asyncio.run(engine.run())
        journal.close()
        return engine

    return searched


# --- what the user sees -----------------------------------------------------------------------------------------------


def test_roles_are_swapped_and_tools_are_left_out() -> None:
    said = (
        Message("system", "rules for the agent"),
        Message("user", "Hello."),
        Message("assistant", "One moment.", tool_calls=(ToolCall("c", "look", {}),)),
        Message("tool", "secret", tool_call_id="c"),
        Message("assistant", "Which one?"),
    )
    system, *rest = swapped(said, "You want a door.")
    assert system.role == "system"
    assert "You want a door." in system.text
    assert [(message.role, message.text) for message in rest] == [
        ("assistant", "Hello."),
        ("user", "One moment.\n\nWhich one?"),
    ]


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (Task("t", "the prompt"), "the prompt"),
        (Task("t", "p", {"instruction": "You are Mia."}), "You are Mia."),
        (Task("t", "p", {"user_scenario": {"persona": "Mia"}}), '{\n  "persona": "Mia"\n}'),
    ],
)
def test_the_scenario_is_the_tasks(task: Task, wanted: str) -> None:
    assert scenario_of(task) == wanted


# --- a search with a simulated user -----------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [Door, Threaded])
@pytest.mark.parametrize("user", [Paid, Waiting])
def test_the_user_answers_the_branch_and_is_paid_for(run: Run, world: Any, user: Any) -> None:
    played = user()
    engine = run(played, world)
    found = engine.groves[0].verdict.counterfactual
    assert found is not None
    assert [step.fidelity for step in found.steps] == ["simulated", "snapshot"]
    assert found.steps[0].observations == (Message("user", f"It is {CODE} ."),)
    assert found.fidelity == "simulated", "not exported unless asked for"
    request = played.asked[0]
    assert request.task.private == {}
    assert "do not tell" not in str(request.messages)
    assert request.messages[-1].text == "What is the code?"
    report = report_of(engine, 0.0)
    assert report["user_policy"] == {"name": "user"}
    totals = report["totals"]
    assert (totals["calls"], totals["tokens"]) == (len(played.asked), 55 * len(played.asked))
    assert totals["cost_usd"] == pytest.approx(0.0005 * len(played.asked))


def test_without_one_the_record_has_no_user_and_a_message_ends_the_run(run: Run) -> None:
    engine = run(None)
    assert engine.groves[0].verdict.counterfactual is None


def test_a_scripted_user_goes_by_its_own_replies(run: Run) -> None:
    script = {"1": ["Which code?"], "2": [f"Ah, {CODE} !"], "3": ["?"]}
    engine = run(ScriptedPolicy(script=script), max_depth=6)
    found = engine.groves[0].verdict.counterfactual
    assert found is not None
    said = [message.text for step in found.steps for message in step.observations if message.role == "user"]
    assert said == ["Which code?", f"Ah, {CODE} !"]


@pytest.mark.parametrize(("reply", "cut"), [(STOP, False), ([], True)])
def test_a_user_may_end_the_run_or_have_nothing_to_say(run: Run, reply: Any, cut: bool) -> None:
    engine = run(ScriptedPolicy(script={"1": reply}))
    tree = engine.groves[0].tree
    assert tree is not None
    spoke = [node for node in range(1, len(tree.steps)) if (step := tree.steps[node]) and not step.action.tool_calls]
    assert spoke
    assert all(tree.tree.terminal[node] and tree.truncated[node] is cut for node in spoke)


def test_it_is_part_of_the_runs_identity() -> None:
    def name(user: Spec | None) -> str:
        return Settings(Spec("door"), Spec("scripted"), (), user_policy=user).run_name()

    assert len({name(None), name(Spec("a")), name(Spec("b")), name(Spec("a", {"model": "x"}))}) == 4


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_budget_of_calls_holds_for_the_user_too(run: Run) -> None:
    for most in range(3):
        played = Paid()
        engine = run(played, folder=f"most{most}", limits=Limits(calls=most), width=1)
        assert len(played.asked) <= most
        assert report_of(engine, 0.0)["totals"]["calls"] == len(played.asked)


def test_a_reply_that_was_paid_is_never_paid_again(run: Run, tmp_path: Any) -> None:
    first = Paid()
    whole = run(first, folder="a")
    path = tmp_path / "a" / "journal.jsonl"
    events = read_journal(path)[0]
    paid = [event for event in events if event["event"] == "result"]
    assert len(paid) == len(first.asked) > 0
    assert {event["by"] for event in paid} == {"user"}
    lines = path.read_bytes().splitlines(keepends=True)
    after_result = next(index for index, event in enumerate(events) if event["event"] == "result") + 1
    path.write_bytes(b"".join(lines[:after_result]))  # killed after a reply
    assert read_journal(path)[0][-1]["event"] == "result"
    second = Paid()
    again = run(second, folder="a")
    assert len(second.asked) == len(first.asked) - 1
    assert digest(read_journal(path)[0]) == digest(events)
    assert report_of(again, 0.0)["totals"] == {**report_of(whole, 0.0)["totals"], "repeated_calls": 0}


def test_another_run_takes_replies_from_the_cache(run: Run, tmp_path: Any) -> None:
    first = Paid()
    run(first, folder="a")
    rows = {
        event["key"]: event for event in read_journal(tmp_path / "a" / "journal.jsonl")[0] if event["event"] == "result"
    }

    def lookup(keys: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return {key: rows[key] for key in keys if key in rows}

    second = Paid()
    run(second, folder="b", lookup=lookup)
    assert second.asked == []
