"""Each promise of the contracts is broken on purpose, and the check of that promise finds it."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ttc_replay import Message, Proposal, ProposalRequest, Score, Step, StepResult, Task, ToolCall, Trajectory, Usage
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.replay.contract_checks import (
    Check,
    check_algorithm,
    check_environment,
    check_policy,
    check_reader,
    check_reward,
)
from ttc_replay.replay.contract_checks_actions import Facts, sample
from ttc_replay.replay.environments.family import Recipe
from ttc_replay.replay.environments.tape import TapeEnvironment
from ttc_replay.replay.policies.scripted import ScriptedPolicy
from ttc_replay.search import Ask, Child, Tree, create
from ttc_replay.storage.errors import PolicyFailed

BY = {"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"]}


def tool(name: str = "add", parameters: Any = BY) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def failures(checks: Sequence[Check]) -> set[str]:
    return {check.name for check in checks if check.status == "fail"}


# -- environments ------------------------------------------------------------------------------------------------------


class Good:
    """Adds numbers to a list; right in all that is promised."""

    def __init__(self) -> None:
        self.items: list[int] = []

    def reset(self, task: Task) -> list[Message]:
        self.items = []
        return [Message("user", task.prompt)]

    def step(self, action: Message) -> StepResult:
        return StepResult([self.answer(call) for call in action.tool_calls], not action.tool_calls)

    def answer(self, call: ToolCall) -> Message:
        by = (call.arguments or {}).get("by")
        if call.name == "add" and isinstance(by, int):
            self.items.append(by)
            said: dict[str, Any] = {"total": sum(self.items)}
        else:
            said = {"error": "no"}
        return Message("tool", json.dumps(said), tool_call_id=call.id, name=call.name)

    def fork(self) -> Any:
        copy = type(self)()
        copy.items = list(self.items)
        return copy

    def tools(self) -> Any:
        return [tool()]

    def state(self) -> Any:
        return {"items": list(self.items)}

    def state_key(self) -> Any:
        return repr(self.items)

    def close(self) -> None:
        """Nothing to give back."""


class Unforkable:
    """The same world without copies, and without what is optional."""

    def __init__(self) -> None:
        self.world = Good()

    def reset(self, task: Task) -> list[Message]:
        return self.world.reset(task)

    def step(self, action: Message) -> StepResult:
        return self.world.step(action)


class Waiting(Good):
    """The same world, async throughout."""

    async def step(self, action: Message) -> StepResult:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().step(action)

    async def fork(self) -> Any:
        await asyncio.sleep(0)
        return super().fork()


class Chances(Good):
    """Draws what it adds, and says so: `reseed`."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = random.Random()

    def reseed(self, seed: int) -> None:
        self.chance.seed(seed)

    def answer(self, call: ToolCall) -> Message:
        drawn = replace(call, arguments={"by": self.chance.randrange(10**9)}) if call.name == "add" else call
        return super().answer(drawn)


class NoStep:
    def reset(self, task: Task) -> list[Message]:
        return []


class CannotStart(Good):
    def reset(self, task: Task) -> list[Message]:
        raise ValueError("no such task")


class Premature(Good):
    def reset(self, task: Task) -> list[Message]:
        return [Message("assistant", "", tool_calls=(ToolCall("a", "add", {"by": 1}),))]


class KeepsOnReset(Good):
    def reset(self, task: Task) -> list[Message]:
        return [Message("user", task.prompt)]


class TwiceNamed(Good):
    def tools(self) -> Any:
        return [tool(), tool()]


class RequiresNothing(Good):
    def tools(self) -> Any:
        return [tool(parameters={**BY, "required": ["by", "colour"]})]


class OddType(Good):
    def tools(self) -> Any:
        return [tool(parameters={"type": "object", "properties": {"by": {"type": "int"}}})]


class ForgetsIds(Good):
    def answer(self, call: ToolCall) -> Message:
        return replace(super().answer(call), tool_call_id=None)


class OddReward(Good):
    def step(self, action: Message) -> StepResult:
        return replace(super().step(action), reward=float("nan"))


class OddDone(Good):
    def step(self, action: Message) -> StepResult:
        return replace(super().step(action), done="yes")  # type: ignore[arg-type]


class RaisesOnUnknown(Unforkable):
    def step(self, action: Message) -> StepResult:
        if any(call.name != "add" for call in action.tool_calls):
            raise KeyError("which tool?")
        return super().step(action)


class RaisesOnBad(Good):
    def answer(self, call: ToolCall) -> Message:
        assert call.arguments is not None
        return super().answer(replace(call, arguments={"by": int(call.arguments["by"])}))


class Moody(Good):
    def answer(self, call: ToolCall) -> Message:
        return replace(super().answer(call), content=str(random.random()))


class SecretlyMoody(Chances):
    def reseed(self, seed: int) -> None:
        """Promised, not kept."""


class Sharing(Good):
    """One list for all worlds; each reset empties it."""

    common: ClassVar[list[int]] = []

    def reset(self, task: Task) -> list[Message]:
        type(self).common.clear()
        self.items = type(self).common
        return [Message("user", task.prompt)]

    def fork(self) -> Any:
        return super().fork()


class ShallowFork(Good):
    def fork(self) -> Any:
        copy = type(self)()
        copy.items = self.items
        return copy


class EmptyFork(Good):
    def fork(self) -> Any:
        return type(self)()


class SelfFork(Good):
    def fork(self) -> Any:
        return self


class HiddenFork(Good):
    """What the copy loses is not in its state: it answers otherwise later."""

    def __init__(self) -> None:
        super().__init__()
        self.bonus = 0

    def reset(self, task: Task) -> list[Message]:
        self.bonus = 1
        return super().reset(task)

    def answer(self, call: ToolCall) -> Message:
        said = super().answer(call)
        return replace(said, content=f"{said.content}{self.bonus}")


class OddState(Good):
    def state(self) -> Any:
        return {"items": object()}


class CountingState(Good):
    asked = 0

    def state(self) -> Any:
        self.asked += 1
        return {"asked": self.asked}


class NumberKey(Good):
    def state_key(self) -> Any:
        return len(self.items)


class CoarseKey(Good):
    def state_key(self) -> Any:
        return "any"


class RandomKey(Good):
    def state_key(self) -> Any:
        return str(random.random())


class HashKey(Good):
    def state_key(self) -> Any:
        return str(hash(repr(self.items)))


class SetOrder(Good):
    def answer(self, call: ToolCall) -> Message:
        said = super().answer(call)
        return replace(said, content=" ".join({"red", "green", "blue", "white", "black", "pink", "grey"}))


class SleepyInline(Good):
    inline = True

    def step(self, action: Message) -> StepResult:
        time.sleep(0.003)
        return super().step(action)


class AsyncInline(Waiting):
    inline = True


class ClosesOnce(Good):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed twice")
        self.closed = True


class SharedHandle(Good):
    """Copies share a handle that the first to go closes."""

    def __init__(self) -> None:
        super().__init__()
        self.handle = {"open": True}

    def fork(self) -> Any:
        copy = super().fork()
        copy.handle = self.handle
        return copy

    def close(self) -> None:
        self.handle["open"] = False

    def answer(self, call: ToolCall) -> Message:
        return super().answer(call) if self.handle["open"] else replace(super().answer(call), content="closed")


class OneDesk(Good):
    """All worlds write on one desk, and look away while they do."""

    desk: ClassVar[dict[str, Any]] = {}

    def answer(self, call: ToolCall) -> Message:
        self.desk["call"] = self
        time.sleep(0.001)
        said = super().answer(call)
        return said if self.desk["call"] is self else replace(said, content="somebody else's")


@pytest.mark.parametrize("world", [Good, Unforkable, Waiting, Chances])
def test_good_worlds_pass(world: Any) -> None:
    checks = check_environment(world)
    assert failures(checks) == set()
    assert {"pass", "skip"} == {check.status for check in checks}


@pytest.mark.parametrize(
    ("world", "found"),
    [
        (NoStep, "builds"),
        (CannotStart, "reset"),
        (Premature, "reset"),
        (KeepsOnReset, "reset-again"),
        (TwiceNamed, "tools"),
        (RequiresNothing, "tools"),
        (OddType, "tools"),
        (ForgetsIds, "step"),
        (OddReward, "step"),
        (OddDone, "step"),
        (RaisesOnUnknown, "unknown-tool"),
        (RaisesOnBad, "bad-arguments"),
        (Moody, "deterministic"),
        (SecretlyMoody, "deterministic"),
        (Sharing, "new-worlds"),
        (ShallowFork, "fork-independent"),
        (EmptyFork, "fork-equal"),
        (SelfFork, "fork-equal"),
        (HiddenFork, "fork-equal"),
        (OddState, "state"),
        (CountingState, "state"),
        (NumberKey, "state-key"),
        (CoarseKey, "state-key"),
        (RandomKey, "state-key"),
        (SleepyInline, "inline"),
        (AsyncInline, "inline"),
        (ClosesOnce, "close"),
        (SharedHandle, "fork-close"),
        (OneDesk, "threads"),
        (OneDesk, "fork-threads"),
    ],
)
def test_what_a_world_breaks_is_found(world: Any, found: str) -> None:
    checks = check_environment(world)
    assert found in failures(checks)
    assert next(check for check in checks if check.name == found).detail


def test_failures_are_where_the_fault_is() -> None:
    """One fault, one failure, as far as one promise can be broken alone."""
    alone = (TwiceNamed, RequiresNothing, OddType, RaisesOnUnknown, RaisesOnBad, OddState, SharedHandle, SleepyInline)
    assert [len(failures(check_environment(world))) for world in alone] == [1] * len(alone)


@pytest.mark.parametrize("world", [HashKey, SetOrder])
def test_what_depends_on_the_process_is_found(world: Any) -> None:
    recipe = Recipe("ttc_replay.cli.plugins:in_process", {"name": f"{__file__}:{world.__name__}", "options": {}})
    assert failures(check_environment(world, recipe=recipe)) == {"other-process"}


def recorded(*amounts: int, shift: int = 0) -> Trajectory:
    """A run in the good world; `shift`: what its answers are off by."""
    world, steps, total = Good(), [], 0
    task = Task("t1", "Count.")
    for at, by in enumerate(amounts):
        total += by
        call = ToolCall(f"call_{at}", "add", {"by": by})
        answer = Message("tool", json.dumps({"total": total + shift}), tool_call_id=call.id, name="add")
        steps.append(Step(at, Message("assistant", "", tool_calls=(call,)), (answer,)))
    steps.append(Step(len(steps), Message("assistant", "Done.")))
    return Trajectory("run-1", task, tuple(world.tools()), (Message("user", "Count."),), tuple(steps))


def test_a_record_is_walked_and_replayed() -> None:
    checks = {check.name: check for check in check_environment(Good, record=recorded(1, 2, 3))}
    assert failures(list(checks.values())) == set()
    assert checks["replays"].detail == "4 steps exact"
    assert checks["step"].detail == "4 actions of the record, 3 of them changed the state"
    other = check_environment(Good, record=recorded(1, 2, shift=1))
    assert failures(other) == {"replays"}


def test_a_tape_is_checked_as_far_as_it_goes() -> None:
    record = recorded(1, 2)
    checks = check_environment(TapeEnvironment, record=record, runs={record.id: record})
    assert failures(checks) == set()
    assert "recorded only" in next(check.detail for check in checks if check.name == "class")


def test_names_that_the_world_shows_are_used() -> None:
    """Bookkeeping books only lines that are there: the made-up walk finds their names in the feed."""
    checks = check_environment(BookkeepingEnvironment, Task("bookkeeping/easy/001"))
    assert failures(checks) == set()
    told = next(check.detail for check in checks if check.name == "step")
    assert int(told.split(", ")[1].split()[0]) > 1, told


def test_tau2_passes() -> None:
    pytest.importorskip("tau2")
    from ttc_replay.replay.environments.tau2 import Tau2Environment

    assert failures(check_environment(lambda: Tau2Environment(domain="mock"))) == set()


SCALARS = st.one_of(
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-9, 9),
        st.integers(0, 9),
    ),
    st.builds(lambda values: {"enum": values}, st.lists(st.text(max_size=3) | st.integers(), min_size=1, max_size=3)),
    st.sampled_from(
        [{"type": "string", "minLength": 3, "maxLength": 5}, {"type": "boolean"}, {"type": ["null", "number"]}]
    ),
    st.sampled_from(
        [
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            {"type": "integer", "maximum": -3},
            {"type": "integer", "exclusiveMaximum": 1, "multipleOf": 4},
        ]
    ),
    st.just({"anyOf": [{"type": "string"}, {"type": "integer", "exclusiveMinimum": 4, "multipleOf": 5}]}),
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), SCALARS, max_size=3).map(
    lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)[:1]}
)


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    schema=OBJECTS | SCALARS | OBJECTS.map(lambda inner: {"type": "array", "items": inner, "minItems": 2}),
    turn=st.integers(0, 5),
)
def test_made_up_arguments_fit_their_schema(schema: Any, turn: int) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for every in (False, True):
        jsonschema.validate(sample(schema, Facts(), turn, every=every), schema)


# -- policies ----------------------------------------------------------------------------------------------------------


def acting(by: Any, identity: str | None = "a") -> Message:
    return Message("assistant", "", tool_calls=(ToolCall(identity, "add", {"by": by}),))


class GoodPolicy:
    """Proposes 1, 2, 3, ...; right in all that is promised."""

    def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        return [self.answer(request) for request in requests]

    def answer(self, request: ProposalRequest) -> Any:
        found = [acting(by) for by in range(1, 9) if f'call:add({{"by":{by}}})' not in request.exclude]
        return [self.proposal(item, request) for item in found[: request.n]]

    def proposal(self, action: Message, request: ProposalRequest) -> Any:
        return Proposal(action, logprob=-1.0, usage=Usage(3, 2))


class AsyncPolicy(GoodPolicy):
    async def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        await asyncio.sleep(0)
        return super().propose(requests)


class Sampled(GoodPolicy):
    sampling = True

    def answer(self, request: ProposalRequest) -> Any:
        return [acting(random.randrange(10**9))]


class Flat(GoodPolicy):
    def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        return [acting(1)] * len(requests)


class Short(GoodPolicy):
    def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        return super().propose(requests)[:1]


class Failing(GoodPolicy):
    def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        return [PolicyFailed("away") for _ in requests]


class Generous(GoodPolicy):
    def answer(self, request: ProposalRequest) -> Any:
        return super().answer(replace(request, n=request.n + 1))


class Stubborn(GoodPolicy):
    def answer(self, request: ProposalRequest) -> Any:
        return super().answer(replace(request, exclude=frozenset()))


class Undeclared(GoodPolicy):
    def answer(self, request: ProposalRequest) -> Any:
        return [acting(random.randrange(10**9)) for _ in range(request.n)]


class Sociable(GoodPolicy):
    """What it says depends on who else asks."""

    def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        return [[acting(len(requests))] for _ in requests]


class NotJson(GoodPolicy):
    def answer(self, request: ProposalRequest) -> Any:
        return [acting(float("nan"))]


class WrongRole(GoodPolicy):
    def answer(self, request: ProposalRequest) -> Any:
        return [Message("user", "do it yourself")]


class Optimist(GoodPolicy):
    def proposal(self, action: Message, request: ProposalRequest) -> Any:
        return Proposal(action, logprob=0.5)


class Debtor(GoodPolicy):
    def proposal(self, action: Message, request: ProposalRequest) -> Any:
        return Proposal(action, usage=Usage(1, 1, cost_usd=-1.0))


class Scribbler(GoodPolicy):
    def answer(self, request: ProposalRequest) -> Any:
        request.sampling["seen"] = True  # type: ignore[index]
        return super().answer(request)


class SleepyPolicy(GoodPolicy):
    inline = True

    def propose(self, requests: Sequence[ProposalRequest]) -> Any:
        time.sleep(0.003)
        return super().propose(requests)


class NewName(GoodPolicy):
    count = itertools.count()

    def identity(self) -> Any:
        return {"name": next(self.count)}


class Unprepared(GoodPolicy):
    def prepare(self, records: Any) -> None:
        raise ValueError("no records")


@pytest.mark.parametrize("policy", [GoodPolicy(), AsyncPolicy(), Sampled(), ScriptedPolicy(default=["a", "b"])])
@pytest.mark.parametrize("record", [None, recorded(1, 2, 3)])
def test_good_policies_pass(policy: Any, record: Trajectory | None) -> None:
    assert failures(check_policy(policy, record=record)) == set()


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (Unprepared, "prepares"),
        (Flat, "answers"),
        (Short, "answers"),
        (Failing, "answers"),
        (NotJson, "actions"),
        (WrongRole, "actions"),
        (Generous, "n"),
        (Stubborn, "exclude"),
        (Undeclared, "deterministic"),
        (Sociable, "batch"),
        (Optimist, "usage"),
        (Debtor, "usage"),
        (Scribbler, "no-mutation"),
        (SleepyPolicy, "inline"),
        (NewName, "identity"),
    ],
)
def test_what_a_policy_breaks_is_found(policy: Any, found: str) -> None:
    assert found in failures(check_policy(policy()))


def test_a_policy_sees_no_gold() -> None:
    seen: list[Any] = []

    class Spy(GoodPolicy):
        def prepare(self, records: Sequence[Trajectory]) -> None:
            seen.extend((record.task.private, record.outcome) for record in records)

        def answer(self, request: ProposalRequest) -> Any:
            seen.append((request.task.private, None))
            return super().answer(request)

    record = recorded(1)
    check_policy(Spy(), record=replace(record, task=replace(record.task, private={"gold": 1})))
    assert seen
    assert all(item == ({}, None) for item in seen)


# -- rewards -----------------------------------------------------------------------------------------------------------


class GoodReward:
    """The share of the steps that called a tool."""

    def score(self, items: Sequence[Trajectory]) -> Any:
        return [self.one(item) for item in items]

    def one(self, item: Trajectory) -> Any:
        return Score(sum(bool(step.action.tool_calls) for step in item.steps) / (len(item.steps) + 1))


class FinalState(GoodReward):
    def one(self, item: Trajectory) -> Any:
        return Score(float(item.final_state["items"] == [1, 2])) if item.final_state else Score(abstain=True)


class ProcessReward(GoodReward):
    process = True


class Lucky(GoodReward):
    def one(self, item: Trajectory) -> Any:
        return Score(random.random() / 2)


class Ranking(GoodReward):
    def score(self, items: Sequence[Trajectory]) -> Any:
        order = sorted(range(len(items)), key=lambda at: len(items[at].steps))
        return [Score(order.index(at) / (len(items) + 1)) for at in range(len(items))]


class Positional(GoodReward):
    def score(self, items: Sequence[Trajectory]) -> Any:
        return [Score(at / 100) for at in range(len(items))]


class Infinite(GoodReward):
    def one(self, item: Trajectory) -> Any:
        return Score(float("inf"))


class Both(GoodReward):
    def one(self, item: Trajectory) -> Any:
        return Score(0.0, error="broken")


class OneForAll(GoodReward):
    def score(self, items: Sequence[Trajectory]) -> Any:
        return [Score(0.0)]


class Raising(GoodReward):
    def one(self, item: Trajectory) -> Any:
        raise KeyError("total")


class Editor(GoodReward):
    def one(self, item: Trajectory) -> Any:
        item.task.data["seen"] = True  # type: ignore[index]
        return super().one(item)


class NeedsGold(GoodReward):
    def one(self, item: Trajectory) -> Any:
        return Score(0.5 if item.task.private.get("gold") else 0.0)


class GateOnly(GoodReward):
    def one(self, item: Trajectory) -> Any:
        return Score(0.5) if item.task.private.get("gold") else Score(abstain=True)


class Easy(GoodReward):
    def one(self, item: Trajectory) -> Any:
        return Score(1.0 if len(item.steps) <= 1 else 0.0)


class Scratch(GoodReward):
    """Keeps what it judges in itself while it does: harmless alone."""

    batched = False

    def one(self, item: Trajectory) -> Any:
        self.item = item
        self.owner = asyncio.current_task()
        time.sleep(0.001)
        return Score(0.25 if self.owner is asyncio.current_task() else 0.75)


GOLDEN = replace(recorded(1, 2), task=Task("t1", "Count.", private={"gold": 3}))


@pytest.mark.parametrize("reward", [GoodReward(), FinalState(), ProcessReward()])
@pytest.mark.parametrize("record", [recorded(1, 2), GOLDEN])
def test_good_rewards_pass(reward: Any, record: Trajectory) -> None:
    assert failures(check_reward(reward, record=record, factory=Good)) == set()


@pytest.mark.parametrize(
    ("reward", "found"),
    [
        (Lucky, "pure"),
        (Ranking, "batch"),
        (Positional, "order"),
        (Infinite, "finite"),
        (Both, "score"),
        (OneForAll, "score"),
        (Raising, "score"),
        (Editor, "no-mutation"),
        (NeedsGold, "gold"),
        (Easy, "trivial"),
        (Easy, "honest"),
        (Scratch, "threads"),
    ],
)
def test_what_a_reward_breaks_is_found(reward: Any, found: str) -> None:
    record = replace(GOLDEN, task=replace(GOLDEN.task, data={}))
    assert found in failures(check_reward(reward(), record=record, factory=Good))


def test_a_gate_that_reads_gold_is_told_apart_from_a_guide() -> None:
    checks = {check.name: check for check in check_reward(GateOnly(), record=GOLDEN, factory=Good)}
    assert checks["gold"].status == "skip"
    assert "--accept" in checks["gold"].detail


def test_a_reward_of_states_asks_for_a_world() -> None:
    class Total(GoodReward):
        def one(self, item: Trajectory) -> Any:
            return Score(error="no state") if item.final_state is None else Score(0.5)

    checks = check_reward(Total())
    assert failures(checks) == {"score"}
    assert "--env" in str(next(check.hint for check in checks if check.name == "score"))


# -- algorithms and readers --------------------------------------------------------------------------------------------


class Forgetful:
    """Tells twice what it was told once."""

    def __init__(self) -> None:
        self.inner = create("greedy")

    def ask(self, tree: Tree, k: int) -> list[Ask]:
        return self.inner.ask(tree, k)

    def tell(self, tree: Tree, ask_id: int, children: Sequence[Child], **more: Any) -> list[int]:
        tree.told.pop(ask_id, None)
        return self.inner.tell(tree, ask_id, children, **more)


class Eager(Forgetful):
    def ask(self, tree: Tree, k: int) -> list[Ask]:
        return self.inner.ask(tree, k + 1)


class Remembering:
    """Searches every other tree in another way."""

    def __init__(self) -> None:
        self.trees: list[Tree] = []

    def inner(self, tree: Tree) -> Any:
        self.trees += [] if any(tree is known for known in self.trees) else [tree]
        return create(("greedy", "mcts")[next(at for at, known in enumerate(self.trees) if known is tree) % 2])

    def ask(self, tree: Tree, k: int) -> list[Ask]:
        found: list[Ask] = self.inner(tree).ask(tree, k)
        return found

    def tell(self, tree: Tree, ask_id: int, children: Sequence[Child], **more: Any) -> list[int]:
        told: list[int] = self.inner(tree).tell(tree, ask_id, children, **more)
        return told


@pytest.mark.parametrize(
    ("algorithm", "found"), [(Forgetful, "tell-twice"), (Eager, "asks"), (Remembering, "deterministic")]
)
def test_what_an_algorithm_breaks_is_found(algorithm: Any, found: str) -> None:
    assert found in failures(check_algorithm(algorithm()))


class Claiming:
    name = "claiming"

    def detect(self, head: Any) -> float:
        return 1.0

    def read(self, stream: Any, source: Any) -> Any:
        yield {"not": "a trajectory"}


def test_what_a_reader_breaks_is_found() -> None:
    assert failures(check_reader(Claiming(), b"{}\n")) >= {"detect", "foreign", "reads"}
