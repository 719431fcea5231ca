"""The trivial-task test: what a run that does nothing earns, in real little worlds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ttc_replay.replay.trivial import IDLE_TEXT, Endings, trivial_branches
from ttc_replay.rewards.environment import environment as environment_reward
from ttc_replay.storage.errors import EnvironmentFailed, OffTapeError, PluginFailed
from ttc_replay.storage.records import Message, Outcome, Score, Step, StepResult, Task, ToolCall, Trajectory

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("add", "finish", "hand_over", "submit")]


class Counter:
    """A world with a number: `add` changes it, `finish`, `hand_over` and `submit` end the run. Paid when it ends with
    the task's target, or when the submitted answer is the target."""

    opened: list[Counter]

    def __init__(self) -> None:
        self.total, self.closed = 0, False
        type(self).opened.append(self)

    def reset(self, task: Task) -> list[Message]:
        """Start at zero."""
        self.target = task.private["target"]
        return [Message("user", f"Reach {self.target}.")]

    def step(self, action: Message) -> StepResult:
        """Execute the calls."""
        observations, done, reward = [], False, None
        for call in action.tool_calls:
            arguments = call.arguments or {}
            if call.name == "add":
                self.total += arguments["by"]
            else:
                done = True
                reached = arguments["answer"] if call.name == "submit" else self.total
                reward = float(reached == self.target)
            observations.append(Message("tool", str(self.total), tool_call_id=call.id, name=call.name))
        return StepResult(observations, done, reward)

    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The four tools."""
        return TOOLS

    def state(self) -> dict[str, int]:
        """The number."""
        return {"total": self.total}

    def close(self) -> None:
        """Remembered, so that the test can ask."""
        self.closed = True


class Listening(Counter):
    """A counter that ends when the user says STOP."""

    def hear(self, reply: Message) -> StepResult:
        """Paid as on `finish`."""
        over = "STOP" in reply.text
        return StepResult((), over, float(self.total == self.target) if over else None)


class Tape(Counter):
    """A recorded world that has no answer to anything new."""

    recorded_only = True

    def step(self, action: Message) -> StepResult:
        """Not on the tape."""
        raise OffTapeError("no recorded answer")


class Waiting(Counter):
    """A world that really waits for I/O."""

    async def reset(self, task: Task) -> list[Message]:  # type: ignore[override]
        """Suspends once."""
        await asyncio.sleep(0)
        return super().reset(task)


@pytest.fixture(autouse=True)
def _no_open_worlds() -> None:
    Counter.opened = []


def call(name: str, **arguments: Any) -> Message:
    """An action with one call."""
    return Message("assistant", tool_calls=(ToolCall("c", name, arguments),))


def record(
    name: str, task: str, outcome: float | None, *turns: tuple[Message, str | None], target: int = 2, **fields: Any
) -> Trajectory:
    """A recorded run; a turn's second part is the user's reply to it."""
    steps = tuple(
        Step(number, action, (Message("user", reply),) if reply is not None else (Message("tool", "0"),))
        for number, (action, reply) in enumerate(turns)
    )
    outcome_record = None if outcome is None else Outcome(outcome)
    secret = Task(task, private={"target": target})
    return Trajectory(name, secret, prompt=(Message("user", "go"),), steps=steps, outcome=outcome_record, **fields)


def play(item: Trajectory, records: Sequence[Trajectory], world: Callable[[], Any] = Counter) -> dict[str, Trajectory]:
    """The trivial branches by kind."""
    branches = trivial_branches(item, records, world)
    assert all(opened.closed for opened in Counter.opened)
    return {str(branch.source.extra["branch"]): branch for branch in branches if branch.source is not None}


def earned(branches: Mapping[str, Trajectory]) -> dict[str, float | None]:
    """What the environment paid for each."""
    return {kind: environment_reward.score([branch])[0].value for kind, branch in branches.items()}


FINISHED = record("finished", "t", 0.0, (call("add", by=1), None), (call("finish"), None))


@pytest.mark.parametrize(("target", "paid"), [(0, 1.0), (2, 0.0)])
def test_a_task_that_idling_solves_is_seen(target: int, paid: float) -> None:
    branches = play(record("r", "t", 0.0, (call("finish"), None), target=target), [FINISHED])
    assert earned(branches) == {"empty": None, "idle": None, "ending:finish": paid}


def test_the_empty_branch_is_a_reset_and_nothing_else() -> None:
    branch = play(FINISHED, [FINISHED])["empty"]
    assert (branch.steps, branch.final_state, branch.truncated) == ((), {"total": 0}, False)
    assert (branch.parent_id, branch.branch_step, branch.prompt) == ("finished", 0, FINISHED.prompt)


def test_branches_are_whole_trajectories_without_gold() -> None:
    branches = play(FINISHED, [FINISHED])
    assert len({branch.id for branch in branches.values()}) == len(branches)
    for branch in branches.values():
        assert branch.task.private == {}
        assert branch.tools == tuple(TOOLS)
        assert branch.final_state == {"total": 0}
        assert branch.fidelity == "reexecuted"
    assert branches["idle"].last.action.text == IDLE_TEXT
    assert branches["ending:finish"].last.scores == {"environment": Score(0.0)}
    assert [branch.id for branch in play(FINISHED, [FINISHED]).values()] == [item.id for item in branches.values()]


def test_a_world_that_listens_hears_the_farewell() -> None:
    polite = record(
        "polite", "t", 0.0, (Message("assistant", "Hi"), "Add 2"), (Message("assistant", "Done"), "STOP"), target=0
    )
    branches = play(polite, [polite], Listening)
    assert earned(branches) == {"empty": None, "idle": 1.0}
    assert [message.text for message in branches["idle"].last.observations] == ["STOP"]
    assert earned(play(polite, [polite], Counter)) == {"empty": None, "idle": None}


@pytest.mark.parametrize(
    ("others", "heard"),
    [
        ([("same", "t", "same STOP"), ("else", "u", "other STOP")], ["same STOP"]),
        ([("else", "u", "other STOP")], ["other STOP"]),
        ([], []),
    ],
)
def test_a_run_without_a_farewell_borrows_one(others: list[tuple[str, str, str]], heard: list[str]) -> None:
    known = [record(name, task, 1.0, (Message("assistant", "x"), reply)) for name, task, reply in others]
    idle = play(FINISHED, [FINISHED, *known], Listening)["idle"]
    assert [message.text for message in idle.last.observations] == heard


@pytest.mark.parametrize(
    ("records", "arguments"),
    [
        ([record("a", "t", 0.0, (call("submit", answer=5), None))], {"answer": 5}),
        ([record("a", "t", 1.0, (call("submit", answer=2), None))], None),
        ([record("a", "t", None, (call("submit", answer=2), None))], None),
        ([record("a", "other", 0.0, (call("submit", answer=5), None))], None),
        ([record("a", "other", 1.0, (call("submit", answer="it is two"), None))], {"answer": IDLE_TEXT}),
        ([record("a", "t", 0.0, (call("submit", answer=5), None), truncated=True)], None),
        ([record("a", "t", 0.0, (call("submit", answer=5), None), (Message("assistant", "bye"), None))], None),
        ([record("a", "t", 0.0)], None),
    ],
)
def test_an_answer_is_not_idle(records: list[Trajectory], arguments: dict[str, Any] | None) -> None:
    item = record("r", "t", 0.0, (Message("assistant", "hm"), None))
    branch = play(item, records).get("ending:submit")
    assert (None if branch is None else branch.last.action.tool_calls[0].arguments) == arguments
    assert branch is None or environment_reward.score([branch])[0].value == 0.0


def test_an_action_that_does_not_end_the_world_is_no_ending() -> None:
    cut = record("cut", "t", 0.0, (call("add", by=2), None))
    assert Endings.of([cut]).actions("t").keys() == {"add"}
    assert play(cut, [cut]).keys() == {"empty", "idle"}


def test_handing_over_is_tried_with_idle_words() -> None:
    handed = record("handed", "other", 1.0, (call("hand_over", summary="The user wants two."), None))
    branch = play(FINISHED, [handed])["ending:hand_over"]
    assert branch.last.action.tool_calls[0].arguments == {"summary": IDLE_TEXT}


def test_a_recorded_world_answers_only_the_empty_branch() -> None:
    branches = play(FINISHED, [FINISHED], Tape)
    assert branches.keys() == {"empty"}
    assert branches["empty"].fidelity == "recorded"


def test_a_world_that_waits_needs_an_event_loop() -> None:
    with pytest.raises(PluginFailed):
        trivial_branches(FINISHED, [FINISHED], Waiting)
    branches = trivial_branches(FINISHED, [FINISHED], Waiting, run=asyncio.run)
    assert [branch.final_state for branch in branches] == [{"total": 0}] * 3


def test_a_world_that_breaks_is_a_typed_error() -> None:
    broken = record("broken", "t", 0.0, target=0)
    unset = Trajectory("unset", Task("t"), prompt=broken.prompt)
    with pytest.raises(EnvironmentFailed, match="KeyError"):
        trivial_branches(unset, [broken], Counter)
