"""The imagined world: records first, then what a policy predicts, with its class, its confidence and its price."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from ttc_replay import Message, Proposal, ProposalRequest, Score, Spec, StepResult, ToolCall, Trajectory, Usage, reward
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.environments.tape import TapeEnvironment
from ttc_replay.replay.environments.world_model import WorldModel, WorldModels
from ttc_replay.replay.policies.scripted import ScriptedPolicy
from ttc_replay.replay.report import report_of, row_of
from ttc_replay.replay.session import Session
from ttc_replay.replay.settings import Limits
from ttc_replay.storage.errors import OffTapeError, ProviderUnavailable, TtcError, UsageError, WorldUnsure
from ttc_replay.storage.journal import digest, read_journal

Result = TypeVar("Result")
COST = Usage(20, 5, None, 0.25)


def wait(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def predicted(messages: Sequence[Message], index: int) -> str:
    """What the toy's tool would say: the last total of this run plus the amount asked for; sample 0 is wrong at 3."""
    text = messages[-1].text
    so_far = text.partition("This run so far:")[2]
    totals = re.findall(r'"total": (\d+)', so_far)
    by = int(re.findall(r'add\({"by":(\d+)}\)\nResult:', text)[0])
    total = int(totals[-1] if totals else 0) + by
    return f'{{"total": {total + (by == 3 and index == 0)}}}'


class Oracle:
    """A paid model that plays the toy's tool. `one_each`: a server that gives one sample a call."""

    metered = True
    sampling = True
    inline = True

    def __init__(self, *, one_each: bool = False, fails_at: int | None = None) -> None:
        self.asked: list[ProposalRequest] = []
        self.one_each, self.fails_at = one_each, fails_at

    def identity(self) -> dict[str, str]:
        return {"policy": "oracle"}

    def estimate(self, request: ProposalRequest) -> Usage:
        return Usage(100, 10 * request.n, None, 1.0)

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        self.asked += requests
        if self.fails_at is not None and len(self.asked) == self.fails_at:
            raise ProviderUnavailable("the server is down")
        return [self._one(request) for request in requests]

    def _one(self, request: ProposalRequest) -> list[Proposal]:
        count = 1 if self.one_each else request.n
        texts = [predicted(request.messages, index + 3 - request.n) for index in range(count)]
        return [Proposal(Message("assistant", text), usage=None if at else COST) for at, text in enumerate(texts)]


class FreeOracle(Oracle):
    """The same model for nothing."""

    metered = False


class AsyncOracle(Oracle):
    """The same paid model, behind real waiting."""

    inline = False

    async def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:  # type: ignore[override]
        await asyncio.sleep(0.001)
        return super().propose(requests)


def shared(policy: Any, *runs: Trajectory, **options: Any) -> WorldModels:
    worlds = WorldModel.shared(policy=policy, **options)
    worlds.prepare(runs)
    return worlds


def opened(worlds: WorldModels, record: Trajectory, *others: Trajectory) -> WorldModel:
    world = worlds()
    world.load(record, {item.id: item for item in (record, *others)})
    world.reset(record.task)
    return world


def walked(world: Any, *actions: Message) -> list[StepResult]:
    async def go() -> list[StepResult]:
        return [await world.step(action) for action in actions]

    return wait(go())


def told(results: Sequence[StepResult]) -> list[tuple[str, str]]:
    return [(result.observations[0].text, result.info["fidelity"]) for result in results]


def test_records_answer_first_then_the_model_and_each_answer_says_which(toy: Any) -> None:
    record, other = toy.record(1, 1, 1, 1), toy.record(1, 2, 1, 1)
    world = opened(shared(FreeOracle(), record, other), record, other)
    results = walked(world, toy.add(1), toy.add(2), toy.add(3), toy.add(1))
    recorded, simulated = "recorded", "simulated"
    assert told(results) == [
        ('{"total": 1}', recorded), ('{"total": 3}', recorded), ('{"total": 6}', simulated), ('{"total": 7}', simulated)
    ]  # fmt: skip
    assert [result.info.get("world", {}).get("confidence") for result in results] == [None, None, 2 / 3, 1.0]
    assert [row["fidelity"] for row in world.state()["calls"]] == [recorded, recorded, simulated, simulated]
    assert environment_class(world) == "forkable"


def test_a_copy_goes_its_own_way(toy: Any) -> None:
    record = toy.record(1, 1, 1, 1)
    world = opened(shared(FreeOracle(), record), record)
    walked(world, toy.add(1), toy.add(2))
    twin = world.fork()
    assert twin.state_key() == world.state_key()
    assert told(walked(twin, toy.add(1))) == [('{"total": 4}', "simulated")]
    assert told(walked(world, toy.add(2))) == [('{"total": 5}', "simulated")]
    assert twin.state_key() != world.state_key()


class Split:
    """A model whose samples never agree, or that says nothing at all."""

    sampling = True
    inline = True

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Message]]:
        return [[Message("assistant", text) for text in self.texts] for _ in requests]


def test_a_model_that_disagrees_with_itself_or_knows_no_example_fails_the_branch_with_a_code(toy: Any) -> None:
    record = toy.record(1, 1, 1, 1)
    refusals = [
        (shared(Split("abc"), record), "1 of 3 samples agree"),
        (shared(Split(["", " "]), record), "gave no result"),
        (shared(Split("aaa")), "0 recorded examples of add"),
    ]
    for worlds, why in refusals:
        world = opened(worlds, record)
        with pytest.raises(WorldUnsure, match=why) as refused:
            walked(world, toy.add(2))
        assert refused.value.error_code == "TTC-E408"
        assert worlds.report()["unsure"] == 1
    lenient = opened(shared(Split("abc"), record, min_confidence=0.3), record)
    assert walked(lenient, toy.add(2))[0].info["world"]["confidence"] == 1 / 3


def test_a_script_may_play_the_world_and_its_confidence_is_unknown(toy: Any) -> None:
    record = toy.record(1, 1, 1, 1)
    world = opened(shared(ScriptedPolicy(default='{"total": 77}'), record), record)
    (result,) = walked(world, toy.add(3))
    assert told([result]) == [('{"total": 77}', "simulated")]
    assert result.info["world"]["confidence"] is None


def test_calls_that_no_tool_can_take_are_refused_without_asking_the_model(toy: Any) -> None:
    record = replace(toy.record(1, 1, 1, 1), tools=(toy.Counter().tools()[0],))
    policy = FreeOracle()
    world = opened(shared(policy, record), record)
    asks = [ToolCall("a", "subtract", {"by": 1}), ToolCall("b", "add", None, "{by")]
    for call, why in zip(asks, ("there is no tool subtract", "not a JSON object"), strict=True):
        (result,) = walked(world, Message("assistant", tool_calls=(call,)))
        assert why in result.observations[0].text
        assert result.info["fidelity"] == "simulated"
    assert not policy.asked


def test_what_a_model_wrote_stays_simulated_when_the_run_is_replayed(toy: Any) -> None:
    record = toy.record(1, 1, 1, 1)
    steps = (record.steps[0], replace(record.steps[1], fidelity="simulated"), *record.steps[2:])
    found = replace(record, id="cf", run="r", parent_id=record.id, steps=steps)
    expected = ["recorded", "simulated", "recorded", "recorded"]
    for factory in (TapeEnvironment, shared(FreeOracle(), record)):
        replayed = wait(Session(found, factory).replay())
        assert replayed.error is None
        assert [step.fidelity for step in replayed.steps] == expected
    assert len(shared(FreeOracle(), found).archive.tools["add"].examples) == 3


def test_nothing_is_imagined_where_only_records_count_and_nothing_paid_without_a_journal(toy: Any) -> None:
    record = toy.record(1, 1, 1, 1)
    policy = Oracle()
    world = opened(shared(policy, record), record)
    with pytest.raises(UsageError, match="in a search only"):
        walked(world, toy.add(2))
    kept = opened(shared(policy, record), record)
    kept.keep_to_records()
    with pytest.raises(OffTapeError):
        walked(kept, toy.add(2))
    assert not policy.asked


WRONG: Mapping[str, dict[str, Any]] = {
    "no policy": {"policy": "gpt"},
    "one sample and a threshold": {"samples": 1},
    "no samples": {"samples": 0},
    "a share above one": {"min_confidence": 1.5},
    "no room": {"prompt_bytes": 10},
}


@pytest.mark.parametrize("what", WRONG)
def test_options_that_cannot_be_are_refused(what: str) -> None:
    with pytest.raises(UsageError):
        WorldModel.shared(**{"policy": FreeOracle(), **WRONG[what]})


# -- under search ------------------------------------------------------------------------------------------------------


@reward
def sums_up(trajectory: Trajectory) -> Score:
    """Whether the amounts of all calls are the target: can be read off the calls alone."""
    total = sum(row["arguments"]["by"] for row in trajectory.final_state["calls"])
    return Score(float(total == trajectory.task.data["target"]))


def engine_of(
    make_engine: Any, toy: Any, policy: Any, folder: str = "run", *, targets: tuple[int, int] = (5, 6), **options: Any
) -> Any:
    records = [toy.record(1, 1, 1, 1, target=targets[0]), toy.record(1, 1, 1, 2, target=targets[1], task="t2")]
    worlds = shared(policy, *records)
    settings = {"budget": 20, "max_depth": 4, "width": 4, "algorithm": Spec("mcts"), **options}
    return make_engine(records, world=worlds, rewards=[("sums_up", sums_up)], folder=folder, **settings)


def test_a_search_in_an_imagined_world_is_simulated_and_accounted_for(make_engine: Any, toy: Any) -> None:
    policy = AsyncOracle()
    engine = engine_of(make_engine, toy, policy)
    assert engine.plugins.imagination is engine.plugins.factory
    wait(engine.run())
    report = report_of(engine, 0.0)
    assert report["totals"]["improved"] == 2
    assert {row["fidelity"] for row in report["trajectories"]} == {"simulated"}
    assert report["world"]["simulated"] > 0
    found = engine.groves[0].verdict.counterfactual
    scores = [step.scores["world"] for step in found.steps if step.fidelity == "simulated"]
    assert scores
    assert all(score.value in (2 / 3, 1.0) and score.detail["calls"][0]["samples"] == 3 for score in scores)
    assert len({request.seed for request in policy.asked}) == len(policy.asked)  # no question twice
    # what every branch used, whoever paid first: at least what was paid
    assert report["totals"]["calls"] >= len(policy.asked)
    assert report["totals"]["tokens"] == 25 * report["totals"]["calls"]


def test_a_run_resumes_from_every_line_and_pays_no_answer_twice(make_engine: Any, toy: Any) -> None:
    whole = Oracle()
    engine = engine_of(make_engine, toy, whole)
    wait(engine.run())
    engine.journal.close()
    path = engine.journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    events, _ = read_journal(path)
    rows = [row_of(grove) for grove in engine.groves]
    for kept in range(2, len(lines), 7):
        path.write_bytes(b"".join(lines[:kept]))
        later = Oracle()
        resumed = engine_of(make_engine, toy, later)
        wait(resumed.run())
        resumed.journal.close()
        paid = {event["key"] for event in events[:kept] if event["event"] == "result"}
        begun = [event["key"] for event in read_journal(path)[0] if event["event"] == "intent"]
        assert digest(read_journal(path)[0]) == digest(events)
        assert [row_of(grove) for grove in resumed.groves] == rows
        assert len(paid) + len(later.asked) == len(whole.asked)
        assert resumed.repeated_calls == len(begun) - len(set(begun)) <= 1


def test_another_run_takes_finished_answers_from_the_cache(make_engine: Any, toy: Any) -> None:
    first = engine_of(make_engine, toy, Oracle())
    wait(first.run())
    events, _ = read_journal(first.journal.path)
    cache = {event["key"]: event for event in events if event["event"] == "result"}
    assert all(event["by"] == "world" for event in cache.values())
    policy = Oracle()
    lookup = lambda keys: {key: cache[key] for key in keys if key in cache}  # noqa: E731
    second = engine_of(make_engine, toy, policy, "other", lookup=lookup)
    wait(second.run())
    assert not policy.asked
    rows = [[{**row_of(grove), "counterfactual_id": None} for grove in run.groves] for run in (first, second)]
    assert rows[0] == rows[1]
    assert rows[0][0]["calls"] > 0


@pytest.mark.parametrize(("limits", "key"), [(Limits(calls=40), "calls"), (Limits(cost_usd=30.0), "cost_usd")])
def test_budgets_bind_what_worlds_ask(make_engine: Any, toy: Any, limits: Limits, key: str) -> None:
    engine = engine_of(make_engine, toy, Oracle(one_each=True), limits=limits, width=1, targets=(99, 99))
    wait(engine.run())
    rows = [row_of(grove) for grove in engine.groves]
    assert all(row["stopped"] == "budget" for row in rows)
    spent, limit = sum(row[key] for row in rows), limits.calls or limits.cost_usd
    assert limit is not None
    assert 0 < spent <= limit


def test_a_provider_that_fails_stops_the_run_and_the_same_run_goes_on(make_engine: Any, toy: Any) -> None:
    engine = engine_of(make_engine, toy, Oracle(fails_at=5))
    wait(engine.run())
    assert isinstance(engine.error, ProviderUnavailable)
    engine.journal.close()
    resumed = engine_of(make_engine, toy, later := Oracle())
    wait(resumed.run())
    whole = engine_of(make_engine, toy, alone := Oracle(), "whole")
    wait(whole.run())
    assert resumed.error is None
    assert digest(read_journal(resumed.journal.path)[0]) == digest(read_journal(whole.journal.path)[0])
    assert len(later.asked) == len(alone.asked) - 4


def test_a_policy_whose_calls_cannot_be_told_apart_may_not_cost() -> None:
    class Nameless(Oracle):
        identity = None  # type: ignore[assignment]

    with pytest.raises(TtcError, match="identity"):
        WorldModel.shared(policy=Nameless())
