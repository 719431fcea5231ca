"""The pace of requests: evenly spaced, shared by all who wait, and off unless asked for."""

from __future__ import annotations

import asyncio

import pytest

from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.replay.policies.pace import Pace
from ttc_replay.storage.errors import UsageError


def waits(requests_per_minute: float | None, callers: int) -> list[float]:
    """How long each of some callers who come at once is sent to sleep."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def run() -> None:
        pace = Pace(requests_per_minute, sleep)
        await asyncio.gather(*(pace.wait() for _ in range(callers)))

    asyncio.run(run())
    return slept


def test_callers_that_come_together_leave_one_by_one() -> None:
    assert waits(6, 4) == pytest.approx([10, 20, 30], abs=1.0)


def test_without_a_limit_nobody_waits() -> None:
    assert waits(None, 5) == []


def test_who_comes_late_does_not_wait_for_moments_that_passed() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def run() -> None:
        pace = Pace(6000, sleep)
        await pace.wait()
        await asyncio.sleep(0.05)  # five moments pass unused
        await pace.wait()
        await pace.wait()

    asyncio.run(run())
    assert len(slept) == 1
    assert slept[0] <= 0.01, "unused moments are not saved up, and none is waited for"


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), True, "ten"])
def test_a_limit_that_cannot_be_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match="requests_per_minute"):
        LiteLLMPolicy(model="openai/x", requests_per_minute=wrong)  # type: ignore[arg-type]
