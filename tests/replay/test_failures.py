"""Nothing that a plugin raised is dropped silently, and what the world cannot execute is not tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ttc_replay import Message, ToolCall, reward
from ttc_replay.replay.failures import Failure, coded, failures
from ttc_replay.replay.policies.scripted import ScriptedPolicy
from ttc_replay.storage.errors import EnvironmentFailed
from ttc_replay.storage.journal import digest, read_journal


def run(engine: Any) -> list[dict[str, Any]]:
    """Run an engine; its journal's events."""
    asyncio.run(engine.run())
    engine.journal.close()
    return read_journal(engine.journal.path)[0]


def test_a_coded_text_is_read_back() -> None:
    text = coded(EnvironmentFailed("it broke", place="World, step 3"))
    assert text == "TTC-E401: World, step 3: it broke"
    events = [{"event": "tell", "failures": [text, "TTC-E402: no: idea"]}, {"event": "tell", "failures": [text]}]
    assert failures(events) == [
        Failure("TTC-E401", "World, step 3: it broke", 2),
        Failure("TTC-E402", "no: idea", 1),
    ]


@pytest.mark.parametrize("width", [1, 8])
def test_an_action_that_the_world_cannot_execute_does_not_keep_others_out(
    make_engine: Any, toy: Any, width: int
) -> None:
    """The policy would propose 13 first at each recorded state; it is tried once there, then comes the other one."""
    ones = ['call:add({"by":1})'] * 4
    recorded = {" > ".join(ones[:done]): [toy.add(13), toy.add(3)] for done in range(4)}
    policy = ScriptedPolicy(recorded, default=[toy.add(3), toy.add(1)])
    engine = make_engine([toy.record(1, 1, 1, 1, target=12)], policy=policy, budget=400, width=width)
    events = run(engine)
    tree = engine.groves[0].tree
    assert engine.groves[0].verdict.counterfactual is not None
    dead = [event["node"] for event in events if event["event"] == "tell" and event.get("dead")]
    assert len(dead) == len(set(dead)) == len(tree.failures) > 0
    assert failures(events) == [Failure("TTC-E401", tree.failures[0].removeprefix("TTC-E401: "), len(dead))]


def test_a_failure_beside_a_success_is_kept_and_resumes_the_same(make_engine: Any, toy: Any) -> None:
    """An ask for several children of which one fails; a second session continues it like one that was not stopped."""
    from ttc_replay import Spec

    def engine(folder: str, budget: int) -> Any:
        policy = ScriptedPolicy(default=[toy.add(13), toy.add(3), toy.add(2)])
        options = {"algorithm": Spec("beam"), "folder": folder, "budget": budget}
        return make_engine([toy.record(1, 1, 1, 1, target=99)], policy=policy, **options)

    whole = run(engine("whole", 60))
    told = [event for event in whole if event["event"] == "tell" and event.get("failures")]
    assert any(event["children"] and not event.get("failed") for event in told)
    run(engine("parts", 60))
    journal = engine("parts", 60).journal
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        journal.path.write_bytes(b"".join(lines[:kept]))
        assert digest(run(engine("parts", 60))) == digest(whole)


def test_a_policy_that_proposes_what_is_not_json(make_engine: Any, toy: Any) -> None:
    odd = Message("assistant", "", tool_calls=(ToolCall("c", "add", {"by": object()}),))

    class Odd:
        sampling = False
        inline = True

        def propose(self, requests: Any) -> Any:
            return [[odd] for _ in requests]

    engine = make_engine([toy.record(1, 1, 1, 1)], policy=Odd(), budget=20)
    (failure,) = failures(run(engine))
    assert failure.code == "TTC-E402"
    assert "not JSON" in failure.message


def test_a_state_that_is_not_json_is_the_worlds_failure(make_engine: Any, toy: Any) -> None:
    class Opaque(toy.Counter):  # type: ignore[misc]
        def state(self) -> dict[str, Any]:
            return {"total": object()}

    engine = make_engine([toy.record(1, 1, 1, 1)], world=Opaque, budget=20)
    (failure,) = failures(run(engine))
    assert (failure.code, failure.times) == ("TTC-E401", 1)
    assert "Opaque.state" in failure.message
    assert engine.groves[0].stopped == "error"


def test_a_reward_sees_the_state_as_it_was(make_engine: Any, toy: Any) -> None:
    """A world that hands out its live state cannot change what was scored, and tuples are the lists of the journal."""
    seen: list[Any] = []

    class Leaky(toy.Counter):  # type: ignore[misc]
        def reset(self, task: Any) -> Any:
            self.live: dict[str, Any] = {"total": 0, "by": ()}
            return super().reset(task)

        def step(self, action: Message) -> Any:
            result = super().step(action)
            self.live["total"] = self.total
            self.live["by"] = (*self.live["by"], self.total)
            return result

        def fork(self) -> Any:
            other = super().fork()
            other.live = self.live  # shared: a mistake of the world
            return other

        def state(self) -> Any:
            return self.live

    @reward(process=True)
    def watching(trajectory: Any) -> float:
        seen.append((trajectory.final_state, trajectory.final_state["total"]))
        return 0.0

    run(make_engine([toy.record(1, 1, 1, 1)], world=Leaky, rewards=[("watching", watching)], budget=30))
    assert len(seen) > 10
    assert all(state["total"] == total and isinstance(state["by"], list) for state, total in seen)


def test_every_reward_that_raises_is_counted_once(make_engine: Any, toy: Any) -> None:
    @reward
    def broken(trajectory: Any) -> float:
        raise ValueError("cannot judge")

    events = run(make_engine([toy.record(1, 1, 1, 1)], rewards=[("broken", broken)], budget=30))
    (failure,) = failures(events)
    scores = [event for event in events if event["event"] == "score"]
    assert (failure.code, failure.times) == ("TTC-E403", len(scores) + 1), "the leaves and the baseline"
    assert "cannot judge" in failure.message
