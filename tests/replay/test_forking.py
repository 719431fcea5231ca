"""How worlds are copied: by what they declare, never otherwise; the tree is the same whatever that is."""

from __future__ import annotations

import asyncio
import math
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Spec, Task, ToolCall, search
from ttc_replay.cli import plugins
from ttc_replay.replay import session
from ttc_replay.replay.costs import PROOFS, Costs, Durations
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.forking import capability, declared, duplicate
from ttc_replay.replay.report import report_of
from ttc_replay.replay.session import Session
from ttc_replay.replay.tree_search import TreeSearch
from ttc_replay.replay.worlds import Keeper, Worlds
from ttc_replay.storage.errors import EnvironmentFailed, UsageError
from ttc_replay.storage.journal import digest, read_journal

WORLDS = Path(__file__).with_name("forking_worlds.py")
TASK = Task("t", data={"target": 9})


@pytest.fixture(scope="module")
def worlds() -> Any:
    return plugins.find("environment", f"{WORLDS}:Tally.__init__").__globals__


def add(by: int) -> Message:
    return Message("assistant", tool_calls=(ToolCall("c", "add", {"by": by}),))


def run(engine: Any) -> str:
    asyncio.run(engine.run())
    engine.journal.close()
    assert engine.error is None
    return digest(read_journal(engine.journal.path)[0])


@pytest.mark.parametrize(
    ("name", "how", "kind"),
    [
        ("Tally", "reexecute", "re-executable"),
        ("Copyable", "reexecute", "re-executable"),
        ("Native", "native", "forkable"),
        ("Pickled", "pickle", "forkable"),
        ("Copied", "deepcopy", "forkable"),
        ("Declined", "reexecute", "re-executable"),
    ],
)
def test_what_a_world_declares(worlds: Any, name: str, how: str, kind: str) -> None:
    world = worlds[name]()
    assert (capability(world), declared(world), environment_class(world)) == (how, how, kind)


@pytest.mark.parametrize(("name", "text"), [("Wrong", "'cow'"), ("Claimed", "no fork()")])
def test_a_wrong_declaration_shows_before_anything_runs(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("(", r"\(").replace(")", r"\)")):
        plugins.environment(Spec(f"{WORLDS}:{name}"))


@pytest.mark.parametrize("name", ["Native", "Pickled", "Copied"])
def test_copies_are_independent(worlds: Any, name: str) -> None:
    world = worlds[name]()
    world.reset(TASK)
    world.step(add(1))
    twin = duplicate(world)
    twin.step(add(5))
    assert (world.state()["total"], twin.state()["total"]) == (1, 6)
    world.step(add(2))
    assert (world.state()["total"], twin.state()["total"]) == (3, 6)


@pytest.mark.parametrize(("name", "how"), [("Locked", "pickle"), ("LockedDeep", "deepcopy")])
def test_what_cannot_be_copied_says_what_else_there_is(worlds: Any, name: str, how: str) -> None:
    with pytest.raises(EnvironmentFailed, match=f"{name} cannot be copied by {how}") as failed:
        asyncio.run(session.fork(worlds[name]()))
    assert failed.value.hint is not None
    assert all(f'"{word}"' in failed.value.hint for word in ("native", "pickle", "deepcopy", "reexecute"))


def test_what_offers_no_copy_is_not_copied(worlds: Any) -> None:
    for name in ("Tally", "Declined"):
        with pytest.raises(EnvironmentFailed, match="declares no way"):
            duplicate(worlds[name]())


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_tree_is_the_same_however_worlds_are_copied(
    make_engine: Any, toy: Any, worlds: Any, concurrency: int
) -> None:
    digests, kinds = set(), []
    names = ("Native", "Pickled", "Copied", "Dear", "Chance")
    for name in names:
        engine = make_engine(
            [toy.record(1, 1, 1, 1, target=99)], world=worlds[name], folder=name, budget=24, concurrency=concurrency
        )
        digests.add(run(engine))
        kinds.append(engine.costs.report()["forks"])
    assert len(digests) == 1
    assert kinds == ["native", "pickle", "deepcopy", "native", "native"]


@pytest.mark.parametrize("name", ["Tally", "Declined"])
def test_a_search_copies_nothing_that_did_not_offer_it(make_engine: Any, toy: Any, worlds: Any, name: str) -> None:
    engine = make_engine([toy.record(1, 1, 1, 1)], world=worlds[name], budget=200)
    run(engine)
    row = report_of(engine, 0.0)["trajectories"][0]
    assert (row["best"], row["fidelity"]) == (1.0, "reexecuted")
    report = engine.costs.report()
    assert (report["forks"], report["forked"]) == ("reexecute", 0)
    assert report["reexecuted_steps"] > 0


def test_a_world_in_another_process_is_copied_there_as_it_declares() -> None:
    _, probe = plugins.environment(Spec(f"{WORLDS}:AwayPickled"))
    assert (capability(probe), declared(probe), environment_class(probe)) == ("native", "pickle", "forkable")
    probe.reset(TASK)
    probe.step(add(1))
    twin = asyncio.run(session.fork(probe))
    twin.step(add(5))
    assert (probe.state()["total"], twin.state()["total"]) == (1, 6)
    probe.close()
    twin.close()


# --- the cheaper way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 31, 40, 200])
def test_a_median_is_over_the_last_durations(count: int) -> None:
    known = [((index * 37) % 101) / 100 for index in range(count)]
    durations = Durations()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(durations.add, [0.5] * 50))
    assert (durations.count, durations.median) == (50, 0.5)
    durations = Durations()
    for index, seconds in enumerate(known, 1):
        durations.add(seconds)
        if index <= 31 or index % 31 == 0:
            last = known[max(0, index - 31) : index]
            assert durations.median == statistics.median_high(last)
            assert durations.mean == pytest.approx(statistics.fmean(last))


def costs_of(fork: float, reset: float, step: float) -> Costs:
    costs = Costs()
    for durations, seconds in ((costs.fork, fork), (costs.reset, reset), (costs.step, step)):
        durations.add(seconds)
    return costs


@pytest.mark.parametrize(
    ("fork", "reset", "step", "pays_from", "interval"),
    [
        (0.197, 0.018, 0.006, 30, 8),  # a text game: re-executing 25 steps is cheaper (environments-rewards.md)
        (0.018, 0.00014, 0.00014, 128, 16),
        (0.014, 0.0003, 0.00003, 457, 31),
        (0.001, 0.5, 0.1, 0, 1),
        (0.1, 0.01, 10.0, 1, 1),
        (0.00001, 0.0, 0.0, 0, 1),  # too cheap to think about
    ],
)
def test_a_copy_pays_when_it_is_cheaper(fork: float, reset: float, step: float, pays_from: int, interval: int) -> None:
    costs = costs_of(fork, reset, step)
    assert next(steps for steps in range(1000) if costs.fork_pays(steps)) == pays_from
    assert costs.interval == interval
    assert Costs().fork_pays(0)  # nobody knows yet


def test_dear_copies_give_way_to_re_execution(make_engine: Any, toy: Any, worlds: Any) -> None:
    reports = {}
    for name in ("Native", "Dear"):
        engine = make_engine([toy.record(1, 1, 1, 1, target=99)], world=worlds[name], folder=name, budget=60)
        run(engine)
        reports[name] = engine.costs.report()
    assert reports["Native"]["forked"] > 40
    assert reports["Native"]["reexecuted_steps"] == 0
    assert reports["Dear"]["fork_ms"] >= 4
    assert reports["Dear"]["forked"] < 5
    assert reports["Dear"]["reexecuted_steps"] > 40
    best = math.sqrt(2 * reports["Dear"]["fork_ms"] / reports["Dear"]["step_ms"])
    assert reports["Dear"]["snapshot_every"] == pytest.approx(best, abs=0.51)
    assert best > 1, "a copy is dearer than a step"


def test_a_world_with_chances_is_copied_however_dear(make_engine: Any, toy: Any, worlds: Any) -> None:
    engine = make_engine([toy.record(1, 1, 1, 1, target=99)], world=worlds["Chance"], budget=24)
    run(engine)
    assert engine.costs.report()["reexecuted_steps"] == 0


@pytest.mark.parametrize("concurrency", [1, 6])
def test_a_world_that_does_not_repeat_is_copied_after_all(
    make_engine: Any, toy: Any, worlds: Any, concurrency: int
) -> None:
    """The tree must be the one that copies alone would have given: re-execution was only the cheaper way."""

    class Cheap(worlds["Moody"]):  # type: ignore[misc,name-defined]
        fork = worlds["Native"].fork

    digests = []
    for folder, kind in (("cheap", Cheap), ("dear", worlds["Moody"])):
        world = partial(kind, seen=set())
        engine = make_engine(
            [toy.record(1, 1, 1, 1, target=99)], world=world, folder=folder, budget=60, concurrency=concurrency
        )
        digests.append(run(engine))
        assert not engine.groves[0].tree.failures
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("name", "root", "attributes", "kept"),
    [
        ("Slow", 0, {}, [0, 1, 2, 3, 4]),
        ("Slow", 0, {"snapshot_every": 2}, [0, 2, 4]),
        ("Slow", 0, {"snapshot_every": 3}, [0, 3]),
        ("Slow", 2, {}, [2, 3, 4]),  # none that lies before the tree
        ("Tally", 0, {}, []),
        ("Dear", 0, {}, [0]),  # the first one is how it is known
        ("Chance", 0, {}, [0, 1, 2, 3, 4]),
    ],
)
def test_which_states_of_a_record_are_kept(
    worlds: Any, toy: Any, name: str, root: int, attributes: dict[str, Any], kept: list[int]
) -> None:
    live = Worlds(Session(toy.record(1, 1, 1, 1), type("Kind", (worlds[name],), attributes)))
    asyncio.run(live.session.replay(keep=Keeper(live, root)))
    assert [done for done in range(root, 5) if live.has(done - root)] == kept
    asyncio.run(live.close())
    assert not any(live.has(node) for node in range(5))


@pytest.mark.parametrize("value", [0, -1, True, "2", 1.5])
def test_a_wrong_interval_is_named(worlds: Any, toy: Any, value: Any) -> None:
    kind = type("Kind", (worlds["Native"],), {"snapshot_every": value})
    done = asyncio.run(Session(toy.record(1), kind).replay())
    assert isinstance(done.error, UsageError)


def test_after_a_resume_states_are_brought_back_once(make_engine: Any, toy: Any, worlds: Any) -> None:
    """Nothing is alive then: the first way to a state leaves copies behind, and the next ones start there."""
    records = [toy.record(1, 1, 1, 1, target=99)]
    first = make_engine(records, world=worlds["Native"], budget=30)
    run(first)
    again = make_engine(records, world=worlds["Native"], budget=60)
    run(again)
    report = again.costs.report()
    assert 0 < report["reexecuted_steps"] <= len(again.groves[0].tree.steps)


def test_a_world_that_is_being_copied_is_not_given_away(toy: Any, worlds: Any) -> None:
    """The costs turn while one thread copies: the other one must not get, and move, what is being copied."""
    copying, go_on = threading.Semaphore(0), threading.Event()

    class Gated(worlds["Native"]):  # type: ignore[misc,name-defined]
        def fork(self) -> Any:
            copying.release()
            assert go_on.wait(10)
            return super().fork()

    record = toy.record(1, 1, 1, 1)
    tree = TreeSearch(
        record,
        0,
        search.create("greedy"),
        root_step=0,
        seed=0,
        width=1,
        budget=9,
        max_steps=8,
        sampling=False,
        success_at=1.0,
        emit=None,
    )
    tree.start(record.steps, 0.0)
    (job,) = tree.next_jobs(None)
    live = Worlds(Session(record, Gated))
    world = asyncio.run(live.session.at(job.steps))
    live.keep(job.ask.node, world)
    costs = live.session.costs
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: asyncio.run(live.at(job)))
        assert copying.acquire(timeout=10)
        for _ in range(PROOFS):
            costs.reexecuted(1, searched=True)
        costs.step.add(0.001)
        for _ in range(5):
            costs.fork.add(1.0)
        assert costs.proven
        assert not costs.fork_pays(len(job.steps))
        second = pool.submit(lambda: asyncio.run(live.at(job)))
        assert copying.acquire(timeout=10)  # it is copied, too
        go_on.set()
        assert first.result() is not world
        assert second.result() is not world
    assert asyncio.run(live.at(job)) is world  # nobody copies it now, and a copy is dear: it is given away
    assert not live.has(job.ask.node)
