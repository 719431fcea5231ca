"""Rewards in large batches: asks of all trees share a call, and neither batches nor their failures show in a tree."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay import Score, Trajectory, reward
from ttc_replay.storage.errors import MissingExtra
from ttc_replay.storage.journal import digest, read_journal

WORLDS = ["Counter", "AsyncCounter", "ReExecutable"]


class Learned:
    """A process reward that remembers its calls: like a model on a device it takes its time and likes company."""

    process = True

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, int]]] = []

    def score(self, items: Sequence[Trajectory]) -> list[Score]:
        self.calls.append([(item.task.id, item.final_state["total"]) for item in items])
        time.sleep(0.002)
        return [self.one(item) for item in items]

    def one(self, item: Trajectory) -> Score:
        return Score(item.final_state["total"] / 16)

    @property
    def mixed(self) -> list[int]:
        """The sizes of the calls that more than one tree shared."""
        return [len(call) for call in self.calls if len({task for task, _ in call}) > 1]


class Fussy(Learned):
    """Raises for a whole call when one item has the total 5."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[int] = []

    def score(self, items: Sequence[Trajectory]) -> list[Score]:
        scores = super().score(items)
        if any(item.final_state["total"] == 5 for item in items):
            self.failed.append(len(items))
            raise ValueError("five cannot be judged")
        return scores


def run(engine: Any) -> Any:
    asyncio.run(engine.run())
    engine.journal.close()
    return engine


def digest_of(engine: Any) -> str:
    return digest(read_journal(engine.journal.path)[0])


def records(toy: Any) -> list[Trajectory]:
    return [toy.record(1, 1, 1, 1, task="a", target=99), toy.record(3, 1, 1, 2, task="b", target=99)]


@pytest.mark.parametrize("world", WORLDS)
def test_asks_of_all_trees_share_a_call(make_engine: Any, toy: Any, world: str) -> None:
    learned = Learned()
    rewards = [("learned", learned)]
    engine = run(make_engine(records(toy), world=getattr(toy, world), rewards=rewards, concurrency=8, budget=60))
    spent = [grove.tree.spent for grove in engine.groves]
    assert spent == [60, 60]
    assert max(learned.mixed) > 2  # an ask of this search wants one child, and each tree is in it
    assert len(learned.calls) < sum(spent)


@pytest.mark.parametrize("kind", [Learned, Fussy])
def test_batches_do_not_show_in_the_tree(make_engine: Any, toy: Any, kind: type[Learned]) -> None:
    """Beside a plain function, which is scored where the step ran: the parts keep their order, too."""
    kept = set()
    for world in WORLDS[:2]:
        for workers in (1, 2, 8):
            rewards = [("learned", kind()), ("closeness", toy.closeness)]
            options = {"world": getattr(toy, world), "rewards": rewards, "concurrency": workers, "budget": 50}
            engine = run(make_engine(records(toy), folder=f"{world}{workers}", **options))
            scores = [event for event in read_journal(engine.journal.path)[0] if event["event"] == "score"]
            assert {tuple(event["scores"]) for event in scores} == {("learned", "closeness", "guide")}
            kept.add(digest_of(engine))
    assert len(kept) == 1


@pytest.mark.parametrize("world", WORLDS)
def test_an_item_that_fails_a_call_fails_only_itself(make_engine: Any, toy: Any, world: str) -> None:
    fussy = Fussy()
    engine = make_engine(records(toy), world=getattr(toy, world), rewards=[("fussy", fussy)], concurrency=8, budget=60)
    run(engine)
    assert max(fussy.failed) > 1, "no call of many items failed"
    seen = set()
    for grove in engine.groves:
        for node, scores in grove.tree.scores.items():
            total = sum(step.action.tool_calls[0].arguments["by"] for step in grove.tree.prefix(node))
            score = scores["fussy"]
            seen.add(score.error is None)
            assert score == Score(total / 16) if total != 5 else "five cannot be judged" in score.error
            assert (grove.tree.tree.value[node] is None) == (total == 5)
    assert seen == {True, False}


def test_a_larger_budget_continues_to_the_same_tree(make_engine: Any, toy: Any) -> None:
    """What an earlier session scored is answered from the journal."""
    first, second, whole = Learned(), Learned(), Learned()
    run(make_engine(records(toy), rewards=[("learned", first)], budget=20))
    continued = run(make_engine(records(toy), rewards=[("learned", second)], budget=60))
    direct = run(make_engine(records(toy), rewards=[("learned", whole)], budget=60, folder="direct"))
    assert digest_of(continued) == digest_of(direct)
    items = [sum(map(len, learned.calls)) for learned in (first, second, whole)]
    assert items[1] < items[2] < sum(items[:2])  # the gate judges once more


@pytest.mark.parametrize("world", WORLDS)
def test_a_reward_that_works_for_no_item_stops_the_run(make_engine: Any, toy: Any, world: str) -> None:
    class Gone(Learned):
        def score(self, items: Sequence[Trajectory]) -> list[Score]:
            if len(items) > 1:  # the baselines come one by one
                raise MissingExtra("torch is not installed", hint="pip install torch")
            return super().score(items)

    engine = make_engine(records(toy), world=getattr(toy, world), rewards=[("gone", Gone())], concurrency=8, budget=60)
    with pytest.raises(MissingExtra, match="torch"):
        asyncio.run(engine.run())
    engine.journal.close()


def test_a_plain_function_is_scored_where_the_step_ran(make_engine: Any, toy: Any) -> None:
    """So slow functions run side by side, and quick ones pay for no thread."""

    class Somewhere(toy.ReExecutable):  # type: ignore[misc]
        def state(self) -> dict[str, int]:
            return {**super().state(), "thread": threading.get_ident()}

    threads, elsewhere = set(), []

    @reward(process=True)
    def here(trajectory: Trajectory) -> float:
        threads.add(threading.get_ident())
        elsewhere.append(trajectory.final_state["thread"] != threading.get_ident())
        return 0.5

    options = {"world": Somewhere, "rewards": [("here", here)], "accept": toy.gold}
    run(make_engine(records(toy), concurrency=4, budget=40, **options))
    assert len(elsewhere) >= 80
    assert not any(elsewhere)
    assert threading.get_ident() not in threads
