"""The loop: what it finds, what it counts, and that neither timing nor a restart changes the tree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ttc_replay.replay.report import report_of
from ttc_replay.storage.journal import digest, read_journal


def run(engine: Any) -> Any:
    asyncio.run(engine.run())
    engine.journal.close()
    return engine


def digest_of(engine: Any) -> str:
    return digest(read_journal(engine.journal.path)[0])


@pytest.mark.parametrize("algorithm", ["mcts", "beam", "best-of-n"])
def test_a_failed_run_is_fixed(make_engine: Any, toy: Any, algorithm: str) -> None:
    from ttc_replay import Spec

    engine = run(make_engine([toy.record(1, 1, 1, 1)], algorithm=Spec(algorithm), budget=200))
    report = report_of(engine, 0.0)
    row = report["trajectories"][0]
    assert row["stopped"] == "solved"
    assert (row["baseline"], row["best"]) == (0.0, 1.0)
    assert row["novel"]
    assert row["fidelity"] == "snapshot"
    found = engine.groves[0].verdict.counterfactual
    assert sum(step.action.tool_calls[0].arguments["by"] for step in found.steps) == 9
    assert found.branch_step == row["branch_step"]
    shared = found.branch_step
    assert [s.action for s in found.steps[:shared]] == [s.action for s in engine.groves[0].record.steps[:shared]]
    assert found.steps[shared].action != engine.groves[0].record.steps[shared].action


def test_budget_is_hard_and_counts_transitions(make_engine: Any, toy: Any) -> None:
    engine = make_engine([toy.record(1, 1, 1, 1, target=99)], budget=7)
    before = toy.Counter.steps_made
    run(engine)
    row = report_of(engine, 0.0)["trajectories"][0]
    assert row["stopped"] == "budget"
    assert row["transitions"] == 7
    # four for the baseline, one for the idle branch (an action without calls), seven for the search
    assert toy.Counter.steps_made - before == 4 + 1 + 7 + 1


def test_everything_is_exhausted_when_the_budget_allows(make_engine: Any, toy: Any) -> None:
    row = report_of(run(make_engine([toy.record(1, 1, 1, 1, target=99)], budget=10_000)), 0.0)["trajectories"][0]
    assert row["stopped"] == "exhausted"
    assert row["transitions"] == 3 + 9 + 27 + 81 - 4  # the full tree less the recorded spine
    assert row["best"] == row["baseline"] == 0.0
    assert row["counterfactual_id"] is None


@pytest.mark.parametrize("world", ["Counter", "ReExecutable", "AsyncCounter"])
@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_the_tree_does_not_depend_on_concurrency_or_workers(
    make_engine: Any, toy: Any, world: str, concurrency: int
) -> None:
    records = [toy.record(1, 1, 1, 1, task="a", target=11), toy.record(3, 1, 1, 2, task="b", target=11)]
    digests = []
    for folder, workers in (("one", 1), ("many", concurrency)):
        engine = make_engine(records, world=getattr(toy, world), folder=folder, concurrency=workers, budget=40)
        digests.append(digest_of(run(engine)).encode())
    assert digests[0] == digests[1]


def test_fidelity_is_the_class_of_the_world(make_engine: Any, toy: Any) -> None:
    row = report_of(run(make_engine([toy.record(1, 1, 1, 1)], world=toy.ReExecutable, budget=100)), 0.0)
    assert row["trajectories"][0]["fidelity"] == "reexecuted"


def test_a_second_session_asks_nobody_again(make_engine: Any, toy: Any) -> None:
    records = [toy.record(1, 1, 1, 1, target=99)]
    first = run(make_engine(records, budget=30))
    asked = toy.Digits.asked
    steps = toy.Counter.steps_made
    again = run(make_engine(records, budget=30))
    assert (toy.Digits.asked, toy.Counter.steps_made) == (asked, steps)
    assert digest_of(first) == digest_of(again)
    assert report_of(again, 0.0) == report_of(first, 0.0)


def test_a_larger_budget_continues_to_the_same_tree(make_engine: Any, toy: Any) -> None:
    records = [toy.record(1, 1, 1, 1, target=99)]
    run(make_engine(records, budget=10))
    run(make_engine(records, budget=23))
    continued = run(make_engine(records, budget=60))
    direct = run(make_engine(records, budget=60, folder="direct"))
    assert digest_of(continued) == digest_of(direct)


@pytest.mark.parametrize("algorithm", ["mcts", "beam", "best-of-n"])
@pytest.mark.parametrize("from_step", [None, "auto"])
@pytest.mark.parametrize("small", [1, 5, 17, 31])
def test_a_smaller_budget_is_a_prefix_of_a_larger_one(
    make_engine: Any, toy: Any, algorithm: str, from_step: Any, small: int
) -> None:
    """Else a continued run would answer asks from the journal that it never asked."""
    from ttc_replay import Spec

    options = {"algorithm": Spec(algorithm), "from_step": from_step}
    records = [toy.record(1, 1, 1, 1, target=99)]
    tells = []
    for budget in (small, 64):
        engine = run(make_engine(records, folder=f"b{budget}", budget=budget, **options))
        events = read_journal(engine.journal.path)[0]
        tells.append([event for event in events if event["event"] in ("tell", "score")])
    assert tells[1][: len(tells[0])] == tells[0]
    run(make_engine(records, folder=f"b{small}", budget=64, **options))
    continued = read_journal(engine.journal.path.parent.parent / f"b{small}" / "journal.jsonl")[0]
    assert [event for event in continued if event["event"] in ("tell", "score")] == tells[1]


def test_a_paid_budget_gives_the_same_tree_at_any_concurrency(make_engine: Any, toy: Any) -> None:
    """Reservations are settled in ask order; answers come back in any order."""
    import random
    import time

    from ttc_replay.replay.settings import Limits
    from ttc_replay.storage.records import Usage

    class Paid(toy.Digits):  # type: ignore[misc]
        metered, inline, batched, sampling = True, False, False, False

        def estimate(self, request: Any) -> Any:
            return Usage(prompt_tokens=10)

        def propose(self, requests: Any) -> Any:
            time.sleep(random.uniform(0, 0.004))
            from dataclasses import replace

            answers = super().propose(requests)
            return [
                [replace(p, usage=Usage(prompt_tokens=3)) if not i else p for i, p in enumerate(a)] for a in answers
            ]

    digests = set()
    for workers in (1, 3, 8):
        engine = make_engine(
            [toy.record(1, 1, 1, 1, target=99)],
            policy=Paid(),
            folder=f"w{workers}",
            concurrency=workers,
            budget=500,
            limits=Limits(tokens=70),
        )
        run(engine)
        assert engine.groves[0].tree.calls * 3 <= 70
        digests.add(digest_of(engine))
    assert len(digests) == 1


def test_the_gate_sees_gold_and_its_verdicts_do_not_steer(make_engine: Any, toy: Any) -> None:
    from ttc_replay import reward

    seen = []

    @reward
    def pleased(trajectory: Any) -> float:
        seen.append(dict(trajectory.task.private))
        return 1.0

    records = [toy.record(1, 1, 1, 1)]
    engine = run(make_engine(records, rewards=[("pleased", pleased)], accept=toy.gold, budget=60))
    totals = report_of(engine, 0.0)["totals"]
    assert not any(seen), "the guide saw gold"
    assert totals["gate"]["refused"] >= 1
    assert report_of(engine, 0.0)["judge"] == "gold"


def test_process_rewards_prune_and_say_why(make_engine: Any, toy: Any) -> None:
    from ttc_replay import Spec

    engine = run(
        make_engine(
            [toy.record(1, 1, 1, 1, target=12)],
            rewards=[("closeness", toy.closeness)],
            accept=toy.gold,
            algorithm=Spec("mcts", {"prune_below": 0.5}),
            budget=200,
        )
    )
    events, _ = read_journal(engine.journal.path)
    reasons = [event["reason"] for event in events if event["event"] == "prune"]
    assert reasons
    assert all("0.5" in reason for reason in reasons)
    assert report_of(engine, 0.0)["trajectories"][0]["best"] == 1.0


def test_divergence_is_an_error_of_that_run_only(make_engine: Any, toy: Any) -> None:
    from dataclasses import replace

    from ttc_replay import Message

    good = toy.record(1, 1, 1, 1, task="good")
    bad = toy.record(1, 1, 1, 1, task="bad")
    wrong = replace(bad.steps[2], observations=(Message("tool", '{"total": 77}', tool_call_id="call_1"),))
    bad = replace(bad, steps=(*bad.steps[:2], wrong, *bad.steps[3:]))
    engine = run(make_engine([bad, good], budget=100))
    rows = report_of(engine, 0.0)["trajectories"]
    assert [row["stopped"] for row in rows] == ["error", "solved"]
    assert engine.groves[0].baseline.error_code == "TTC-E301"
    assert "step 2" in engine.groves[0].baseline.error


def test_a_world_that_raises_is_data(make_engine: Any, toy: Any) -> None:
    from ttc_replay.replay.policies.scripted import ScriptedPolicy

    policy = ScriptedPolicy(lambda request: [toy.add(13), toy.add(3)])
    engine = run(make_engine([toy.record(1, 1, 1, 1, target=12)], policy=policy, budget=60))
    assert report_of(engine, 0.0)["trajectories"][0]["stopped"] in ("solved", "exhausted")
    assert engine.groves[0].tree.failures


def test_a_policy_that_raises_is_data(make_engine: Any, toy: Any) -> None:
    from ttc_replay.replay.policies.scripted import ScriptedPolicy

    def broken(request: Any) -> list[Any]:
        raise ValueError("no idea")

    engine = run(make_engine([toy.record(1, 1, 1, 1)], policy=ScriptedPolicy(broken), budget=60))
    row = report_of(engine, 0.0)["trajectories"][0]
    assert row["stopped"] == "exhausted"
    assert "no idea" in engine.groves[0].tree.failures[0]


def test_a_reward_that_raises_is_an_error_score_never_zero(make_engine: Any, toy: Any) -> None:
    from ttc_replay import reward

    @reward
    def broken(trajectory: Any) -> float:
        raise ValueError("cannot judge")

    engine = run(make_engine([toy.record(1, 1, 1, 1)], rewards=[("broken", broken)], budget=30))
    tree = engine.groves[0].tree
    assert all(tree.tree.value[node] is None for node in range(len(tree.tree)))
    assert any(tree.tree.imputed)
    assert any("cannot judge" in str(score.error) for scores in tree.scores.values() for score in scores.values())
    assert report_of(engine, 0.0)["trajectories"][0]["counterfactual_id"] is None


def test_from_step_k_starts_there(make_engine: Any, toy: Any) -> None:
    engine = run(make_engine([toy.record(1, 3, 1, 1, target=8)], from_step=2, budget=50))
    found = engine.groves[0].verdict.counterfactual
    assert found.branch_step >= 2
    assert engine.groves[0].tree.tree.depth[-1] <= 2


@pytest.mark.parametrize("algorithm", ["mcts", "best-of-n", "beam"])
def test_from_step_auto_branches_at_several_steps(make_engine: Any, toy: Any, algorithm: str) -> None:
    from ttc_replay import Spec

    engine = make_engine(
        [toy.record(1, 1, 1, 1, target=99)], from_step="auto", algorithm=Spec(algorithm), budget=60, width=1
    )
    tree = run(engine).groves[0].tree
    branched = {tree.branch_step(node) for node in range(1, len(tree.tree)) if not tree.tree.spine[node]}
    assert len(branched) >= 3


def test_max_depth_truncates_and_scores(make_engine: Any, toy: Any) -> None:
    from ttc_replay.replay.policies.scripted import ScriptedPolicy

    policy = ScriptedPolicy(lambda request: [toy.add(2), toy.add(3)])
    engine = run(
        make_engine(
            [toy.record(1, 1)],
            world=lambda: toy.Counter(length=50),
            policy=policy,
            rewards=[("closeness", toy.closeness)],
            max_depth=3,
            budget=100,
        )
    )
    tree = engine.groves[0].tree
    cut = [node for node in range(len(tree.tree)) if tree.truncated[node]]
    assert cut
    assert all(tree.tree.terminal[node] and tree.tree.depth[node] == 3 for node in cut)
