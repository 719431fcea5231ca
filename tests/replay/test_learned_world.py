"""A learned world: trained on made-up runs, measured on tasks apart, refused when it is no better than counting."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Outcome, Proposal, Spec, Step, StepResult, Task, ToolCall, Trajectory
from ttc_replay.replay.environments.learned_store import beside, load, read_report, save
from ttc_replay.replay.environments.learned_world import LearnedWorld
from ttc_replay.replay.report import report_of
from ttc_replay.storage.errors import UsageError, WorldUnsure

pytest.importorskip("torch")
pytest.importorskip("safetensors")


def call(name: str, order: str) -> Message:
    return Message("assistant", tool_calls=(ToolCall("c", name, {"order": order}),))


class Desk:
    """An order's status is open until it was refunded; `close` ends the run, which is won if something was refunded."""

    def __init__(self) -> None:
        self.refunded: set[str] = set()

    def answer(self, name: str, order: str) -> str:
        if name == "refund":
            self.refunded.add(order)
            return json.dumps({"refunded": order})
        return json.dumps({"order": order, "status": "refunded" if order in self.refunded else "open"})


def desk_run(task: int, trial: int) -> Trajectory:
    draw, desk, steps = random.Random(f"{task}/{trial}"), Desk(), []
    orders = [f"W-{task}{number}" for number in range(2)]
    names = ["refund", "status"] if draw.random() < 0.65 else ["status"]
    plan = [(draw.choice(names), draw.choice(orders)) for _ in range(6)]
    for index, (name, order) in enumerate([*plan, ("close", orders[0])]):
        text = "closed" if name == "close" else desk.answer(name, order)
        steps.append(Step(index, call(name, order), (Message("tool", text, tool_call_id="c"),)))
    prompt = (Message("user", f"look after {' '.join(orders)}"),)
    won = float(bool(desk.refunded))
    return Trajectory(f"r{task}-{trial}", Task(f"t{task}"), prompt=prompt, steps=tuple(steps), outcome=Outcome(won))


RUNS = [desk_run(task, trial) for task in range(16) for trial in range(3)]


@pytest.fixture(scope="module")
def trained() -> Any:
    from ttc_replay.replay.environments.learned_events import run_of
    from ttc_replay.replay.environments.learned_training import train

    return train([run_of(run) for run in RUNS], epochs=16, seed=1, held_out=0.4)


@pytest.fixture(scope="module")
def model(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "desk.safetensors"
    save(trained, path)
    return path


def test_it_learns_what_no_count_knows_and_says_so_on_tasks_apart(trained: Any) -> None:
    report = trained.report
    assert report.tasks == 6
    assert report.accuracy > max(0.9, report.baseline + 0.05)
    assert report.baseline > report.text_baseline
    assert report.trusted
    assert report.end_accuracy == 1.0 > report.end_baseline


def opened(model: Path, record: Trajectory, **options: Any) -> LearnedWorld:
    world = LearnedWorld.shared(model=str(model), **options)()
    world.load(record, {record.id: record})
    world.reset(record.task)
    return world


def walked(world: LearnedWorld, *actions: Message) -> list[StepResult]:
    async def go() -> list[StepResult]:
        return [await world.step(action) for action in actions]

    return asyncio.run(go())


def test_it_plays_orders_that_it_has_never_seen(model: Path) -> None:
    record = replace(RUNS[0], id="new", prompt=(Message("user", "look after X-901"),), steps=())
    results = walked(opened(model, record), *[call(name, "X-901") for name in ("status", "refund", "status", "close")])
    texts = [result.observations[0].text for result in results]
    assert [json.loads(text).get("status") for text in texts[:3]] == ["open", None, "refunded"]
    assert [result.done for result in results] == [False, False, False, True]
    assert results[-1].reward is not None
    assert results[-1].reward > 0.5
    assert {result.info["fidelity"] for result in results} == {"simulated"}
    assert all(0.25 <= result.info["world"]["confidence"] <= 1 for result in results)


def test_the_record_answers_first_and_a_copy_goes_its_own_way(model: Path) -> None:
    record = RUNS[0]
    world = opened(model, record)
    first = walked(world, record.steps[0].action)[0]
    assert first.info["fidelity"] == "recorded"
    assert first.observations[0].text == record.steps[0].observations[0].text
    twin = world.fork()
    (other,) = walked(twin, call("refund", "W-99"))
    assert other.info["fidelity"] == "simulated"
    assert len(twin.state()["calls"]) == 2
    assert len(world.state()["calls"]) == 1
    assert walked(world, record.steps[1].action)[0].info["fidelity"] == "recorded"


def test_what_it_does_not_know_fails_the_branch(model: Path, tmp_path: Path) -> None:
    with pytest.raises(WorldUnsure, match="nothing was learned of fly"):
        walked(opened(model, RUNS[0]), call("fly", "W-1"))
    from ttc_replay.replay.environments.learned_events import run_of
    from ttc_replay.replay.environments.learned_training import train

    hasty = tmp_path / "hasty.safetensors"
    save(train([run_of(run) for run in RUNS], epochs=1), hasty)
    with pytest.raises(WorldUnsure, match=r"the likeliest result of status has probability 0\.\d\d"):
        walked(opened(hasty, RUNS[0], min_confidence=0.999, trust=True), call("status", "W-99"))


def test_a_search_plans_in_what_was_learned(model: Path, make_engine: Any) -> None:
    class Agent:
        sampling = False
        inline = True

        def propose(self, requests: Any) -> Any:
            return [[Proposal(call(name, "W-70")) for name in ("status", "close", "refund")] for _ in requests]

    lost = replace(next(run for run in RUNS if not (run.outcome and run.outcome.value)), outcome=Outcome(0.0))
    worlds = LearnedWorld.shared(model=str(model))
    engine = make_engine(
        [lost], policy=Agent(), world=worlds, budget=30, max_depth=3, algorithm=Spec("mcts"), success_at=0.6
    )
    asyncio.run(engine.run())
    report = report_of(engine, 0.0)
    (row,) = report["trajectories"]
    assert row["fidelity"] == "simulated"
    assert report["world"]["held_out"]["trusted"] is True
    found = engine.groves[0].verdict.counterfactual
    names = [step.action.tool_calls[0].name for step in found.steps]
    assert names[-1] == "close"
    assert "refund" in names


def test_a_model_without_figures_or_without_a_gain_is_refused_unless_told_to_trust_it(
    trained: Any, tmp_path: Path
) -> None:
    poor = replace(trained.report, accuracy=0.4, baseline=0.4, gain_interval=(-0.1, 0.1))
    path = tmp_path / "poor.safetensors"
    save(replace(trained, report=poor), path)
    with pytest.raises(UsageError, match=r"accuracy 0.400, frequency baseline 0.400 .*not above it") as refused:
        LearnedWorld.shared(model=str(path))
    assert "trust=true" in str(refused.value.hint)
    assert LearnedWorld.shared(model=str(path), trust=True).report()["held_out"]["accuracy"] == 0.4
    document = json.loads(beside(path).read_text())
    beside(path).write_text(json.dumps({**document, "report": {}}))
    with pytest.raises(UsageError, match="no held-out report"):
        LearnedWorld.shared(model=str(path))


def test_files_are_whole_private_and_belong_together(model: Path, trained: Any, tmp_path: Path) -> None:
    assert read_report(model)["report"]["trusted"] is True
    assert (model.stat().st_mode & 0o777, beside(model).stat().st_mode & 0o777) == (0o600, 0o600)
    with pytest.raises(UsageError, match="cannot be written"):
        save(trained, tmp_path / "nowhere" / "model")
    torn = tmp_path / "torn.safetensors"
    weights, document = model.read_bytes(), json.loads(beside(model).read_text())
    wrong: dict[str, tuple[bytes, Any]] = {
        "other weights": (weights[:-1], document),
        "another version": (weights, {**document, "v": 99}),
        "not JSON": (weights, None),
        "fewer templates": (weights, {**document, "templates": document["templates"][:1]}),
        "no list": (weights, {**document, "templates": 7}),
    }
    for data, told in wrong.values():
        torn.write_bytes(data)
        beside(torn).write_text("{" if told is None else json.dumps(told))
        with pytest.raises(UsageError):
            load(torn)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "nothing")


def test_too_few_tasks_are_said(trained: Any) -> None:
    from ttc_replay.replay.environments.learned_events import run_of
    from ttc_replay.replay.environments.learned_training import train

    with pytest.raises(UsageError, match="too few"):
        train([run_of(run) for run in RUNS[:3]])
