"""The gate: what it judges, in which order, what it refuses, and what a counterfactual is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ttc_replay import Message, Score, Step, ToolCall, reward
from ttc_replay.replay.gate import environment_calls
from ttc_replay.storage.codec import action_key
from ttc_replay.storage.journal import read_journal


def run(engine: Any) -> Any:
    asyncio.run(engine.run())
    engine.journal.close()
    return engine


def gates(engine: Any) -> list[dict[str, Any]]:
    return [event for event in read_journal(engine.journal.path)[0] if event["event"] == "gate"]


@reward
def pleased(trajectory: Any) -> float:
    """A guide that likes high totals: the order of the gate follows it."""
    return float(trajectory.final_state["total"]) / 12


@reward
def only_nine(trajectory: Any) -> float:
    """A gate that needs a total of nine."""
    return float(trajectory.final_state["total"] == 9)


@reward
def nothing(trajectory: Any) -> Score:
    """A gate without a verdict."""
    return Score(abstain=True)


@reward
def broken(trajectory: Any) -> float:
    """A gate that raises."""
    raise ValueError("cannot judge")


# --- order and refusal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [1, 3, 60])
def test_leaves_are_judged_in_the_guides_order_until_one_passes(make_engine: Any, toy: Any, candidates: int) -> None:
    options = {"rewards": [("pleased", pleased)], "accept": only_nine, "success_at": 1.0, "budget": 500}
    engine = run(make_engine([toy.record(1, 1, 1, 1)], candidates=candidates, **options))
    tree, verdict, events = engine.groves[0].tree, engine.groves[0].verdict, gates(engine)
    values = [tree.tree.value[event["node"]] for event in events]
    assert values == sorted(values, reverse=True)
    assert [event["node"] for event in events] == tree.leaves()[: len(events)]
    assert [event["first"] for event in events] == [True] + [False] * (len(events) - 1)
    assert verdict.refused == sum(not event["passed"] for event in events)
    if candidates < 60:
        assert len(events) == candidates
        assert verdict.counterfactual is None
    else:
        assert [event["passed"] for event in events] == [False] * (len(events) - 1) + [True]
        assert verdict.node == events[-1]["node"]
        assert tree.finals[verdict.node]["total"] == 9


@pytest.mark.parametrize("gate", [nothing, broken])
def test_no_verdict_is_no_pass(make_engine: Any, toy: Any, gate: Any) -> None:
    engine = run(make_engine([toy.record(1, 1, 1, 1)], rewards=[("pleased", pleased)], accept=gate, budget=50))
    verdict = engine.groves[0].verdict
    assert (verdict.counterfactual, verdict.refused) == (None, 3)
    assert engine.groves[0].baseline.judged is None
    assert all(event["value"] is None for event in gates(engine))
    if gate is broken:
        errors = [event["scores"]["accept:gold"]["error"] for event in gates(engine)]
        assert all("cannot judge" in error for error in errors)


def test_without_a_gate_better_than_the_baseline_is_enough(make_engine: Any, toy: Any) -> None:
    engine = run(make_engine([toy.record(1, 1, 1, 1)], rewards=[("pleased", pleased)], budget=500))
    verdict = engine.groves[0].verdict
    assert engine.groves[0].baseline.judged == pytest.approx(4 / 12)
    assert verdict.value == 1.0
    assert engine.settings.judge == "pleased"
    best = run(make_engine([toy.record(3, 3, 3, 3)], rewards=[("pleased", pleased)], budget=20, folder="best"))
    assert best.groves[0].verdict.counterfactual is None, "nothing is better than the best"


def test_the_gate_needs_success_not_only_progress(make_engine: Any, toy: Any) -> None:
    """A leaf that is better than the baseline, yet below --success-at, is refused."""
    options = {"rewards": [("closeness", toy.closeness)], "accept": pleased, "budget": 100}
    engine = run(make_engine([toy.record(1, 1, 1, 1)], success_at=2.0, **options))
    assert engine.groves[0].verdict.counterfactual is None
    assert max(event["value"] for event in gates(engine)) > engine.groves[0].baseline.judged


def test_a_leaf_is_not_judged_twice(make_engine: Any, toy: Any) -> None:
    judged: list[Any] = []

    @reward
    def counting(trajectory: Any) -> float:
        judged.append(trajectory.id)
        return 0.0

    options = {"rewards": [("pleased", pleased)], "accept": counting, "budget": 40}
    first = run(make_engine([toy.record(1, 1, 1, 1)], **options))
    before = len(judged)
    again = run(make_engine([toy.record(1, 1, 1, 1)], **options))
    assert len(judged) == before
    assert again.groves[0].verdict.refused == first.groves[0].verdict.refused == 3
    assert gates(again) == gates(first)


def test_an_interrupted_gate_is_made_whole(make_engine: Any, toy: Any) -> None:
    """A kill between two gate events: the next session writes the whole set again, and the digest counts it once."""
    from ttc_replay.storage.journal import digest

    options = {"rewards": [("pleased", pleased)], "accept": only_nine, "budget": 40}
    engine = run(make_engine([toy.record(1, 1, 1, 1)], **options))
    path = engine.journal.path
    events = read_journal(path)[0]
    whole = digest(events)
    first = next(number for number, event in enumerate(events) if event["event"] == "gate")
    for kept in range(first, first + 3):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
        run(make_engine([toy.record(1, 1, 1, 1)], **options))
        assert digest(read_journal(path)[0]) == whole


# --- novel or copied ------------------------------------------------------------------------------------------------


def call(name: str, **arguments: Any) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall("c", name, arguments),))


def test_environment_calls_are_what_a_run_did_not_what_it_said() -> None:
    said = Step(0, Message("assistant", "hello"))
    did = [Step(1, call("add", by=1, to=2)), Step(2, call("close"))]
    with_text = Step(1, replace(did[0].action, content="I will now add", reasoning="hm"))
    reordered = Step(1, call("add", to=2, by=1))
    assert environment_calls([said, *did]) == environment_calls(did)
    assert environment_calls([with_text, did[1]]) == environment_calls(did)
    assert environment_calls([reordered, did[1]]) == environment_calls(did)
    assert environment_calls(did[::-1]) != environment_calls(did)
    assert environment_calls([]) == ()


@pytest.mark.parametrize("copied", [False, True])
def test_a_counterfactual_that_repeats_a_recorded_run_is_copied(make_engine: Any, toy: Any, copied: bool) -> None:
    failed = toy.record(1, 1, 1, 1)
    found = run(make_engine([failed], budget=200)).groves[0].verdict.counterfactual
    amounts = [step.action.tool_calls[0].arguments["by"] for step in found.steps]
    known = toy.record(*amounts, outcome=1.0, task="t1" if copied else "another task")
    engine = run(make_engine([failed], archive=[failed, known], budget=200, folder="second"))
    assert engine.groves[0].verdict.novel is not copied


# --- what a counterfactual is ---------------------------------------------------------------------------------------


def test_a_counterfactual_is_a_trajectory_with_its_history(make_engine: Any, toy: Any) -> None:
    record = toy.record(1, 1, 1, 1)
    engine = run(make_engine([record], accept=toy.gold, budget=200))
    tree, verdict = engine.groves[0].tree, engine.groves[0].verdict
    found = verdict.counterfactual
    assert (found.parent_id, found.run, found.fidelity) == (record.id, "run", "snapshot")
    assert [step.index for step in found.steps] == [0, 1, 2, 3]
    assert [action_key(step.action) for step in found.steps] == [
        tree.tree.key[n] for n in tree.tree.path(verdict.node)[1:]
    ]
    assert found.steps[: found.branch_step] == tuple(engine.groves[0].baseline.steps[: found.branch_step])
    assert (found.outcome.value, found.outcome.name) == (1.0, "gold")
    assert {"environment", "guide", "accept:gold"} <= set(found.scores)
    assert found.final_state == {"total": 9, "done": 4}
    assert found.tools == (toy.Counter().tools()[0],)
    assert found.source.extra == {"tools_from": "environment", "node": verdict.node}
    assert found.task == record.task, "gold included: it is for the archive"
    again = run(make_engine([record], accept=toy.gold, budget=200)).groves[0].verdict.counterfactual
    assert again.id == found.id, "the same run names it the same"
    other = run(make_engine([record], accept=toy.gold, budget=200, folder="other")).groves[0].verdict.counterfactual
    assert other.id != found.id
