"""The pace of requests: evenly spaced, shared by all who wait, kept by each trajectory, and off unless asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest

from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.replay.policies.pace import REMEMBERED, Pace, TrajectoryPace
from ttc_replay.storage.errors import UsageError


class Hurried(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        look = selector.select

        def jump(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return look(0)

        selector.select = jump

    def time(self) -> float:
        return self.now


def hurried(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Hurried) as runner:
        runner.run(work)


def begun(each: float | None, in_all: float | None, callers: str) -> dict[str, list[float]]:
    """When the requests of some trajectories (one letter each) begin that all come at once."""
    found: dict[str, list[float]] = {}

    async def one(pace: TrajectoryPace, name: str) -> None:
        await pace.wait(name)
        found.setdefault(name, []).append(round(asyncio.get_running_loop().time(), 6))

    async def run() -> None:
        pace = TrajectoryPace(each, Pace(in_all))
        await asyncio.gather(*(one(pace, name) for name in callers))

    hurried(run())
    return found


def waits(requests_per_minute: float | None, callers: int) -> list[float]:
    """How long each of some callers who come at once is sent to sleep."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def run() -> None:
        pace = Pace(requests_per_minute, sleep)
        await asyncio.gather(*(pace.wait() for _ in range(callers)))

    hurried(run())
    return slept


def test_callers_that_come_together_leave_one_by_one() -> None:
    assert waits(6, 4) == [10, 20, 30]


def test_without_a_limit_nobody_waits() -> None:
    assert waits(None, 5) == []
    assert begun(None, None, "aab") == {"a": [0, 0], "b": [0]}


def test_who_comes_late_does_not_wait_for_moments_that_passed() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def run() -> None:
        pace = Pace(6000, sleep)
        await pace.wait()
        await asyncio.sleep(0.055)  # five moments pass unused
        await pace.wait()
        await pace.wait()

    hurried(run())
    assert slept == [pytest.approx(0.01)], "unused moments are not saved up, and none is waited for"


def test_each_trajectory_keeps_its_own_pace() -> None:
    assert begun(6, None, "aaabb") == {"a": [0, 10, 20], "b": [0, 10]}


def test_a_trajectory_that_waits_for_its_own_sake_holds_up_no_other() -> None:
    assert begun(1, 60, "aaabcd") == {"a": [0, 60, 120], "b": [1], "c": [2], "d": [3]}


def test_both_paces_are_kept_at_once() -> None:
    """What all share delays a request; the next of its trajectory counts from when it really began."""
    found = begun(6, 30, "aabbccdd")
    every = sorted(moment for moments in found.values() for moment in moments)
    assert all(second - first >= 10 for first, second in found.values())
    assert all(later - earlier >= 2 for earlier, later in pairwise(every))
    assert every[-1] <= 18, "and nobody waits longer than that"


def test_trajectories_that_would_not_wait_are_forgotten() -> None:
    async def run() -> None:
        pace = TrajectoryPace(60, Pace(None))
        for number in range(20 * REMEMBERED):
            await pace.wait(str(number))
            await asyncio.sleep(0.01)
        assert len(pace._turns) <= REMEMBERED
        before = asyncio.get_running_loop().time()
        await pace.wait(str(20 * REMEMBERED - 1))
        assert asyncio.get_running_loop().time() - before == pytest.approx(0.99), "the last one is remembered"

    hurried(run())


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), True, "ten"])
@pytest.mark.parametrize("option", ["requests_per_minute", "trajectory_requests_per_minute"])
def test_a_limit_that_cannot_be_is_refused(option: str, wrong: object) -> None:
    with pytest.raises(UsageError, match=option):
        LiteLLMPolicy(model="openai/x", **{option: wrong})  # type: ignore[arg-type]
