"""A steady pace: at most so many requests a minute, retries included, in all and of each trajectory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Sleep = Callable[[float], Awaitable[None]]
REMEMBERED = 1024
"""Trajectories that are remembered before those that would not wait are forgotten."""


def seconds_apart(requests_per_minute: float | None) -> float:
    """How far apart the beginnings of two requests are; 0 without a limit."""
    return 0.0 if requests_per_minute is None else 60.0 / requests_per_minute


class Pace:
    """Spaces requests evenly, so that no window of a minute ever holds more than the limit.

    A provider that counts by the second would refuse a burst of a minute's worth. Each caller takes the next free
    moment at once and then waits for it, so that many may wait side by side.
    """

    def __init__(self, requests_per_minute: float | None, sleep: Sleep = asyncio.sleep):
        self._seconds = seconds_apart(requests_per_minute)
        self._sleep = sleep
        self._free = 0.0

    async def wait(self, earliest: float = 0.0) -> float:
        """Return when one more request may begin, at `earliest` or later: the moment by the event loop's clock."""
        now = asyncio.get_running_loop().time()
        if not self._seconds:
            return max(now, earliest)
        begin = max(now, earliest, self._free)
        self._free = begin + self._seconds
        if begin > now:
            await self._sleep(begin - now)
        return begin


@dataclass(slots=True)
class _Turn:
    """One trajectory: who is next, and from when on."""

    free: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TrajectoryPace:
    """The pace of each trajectory, within the one that all share. For one event loop.

    The requests of a trajectory queue up, and only the first of them takes a moment of all: a trajectory that waits for
    its own sake takes nothing from the others. Trajectories that would not wait are forgotten, so that memory is
    bounded by what a minute may hold.
    """

    def __init__(self, requests_per_minute: float | None, shared: Pace, sleep: Sleep = asyncio.sleep):
        self._seconds = seconds_apart(requests_per_minute)
        self._shared = shared
        self._sleep = sleep
        self._turns: dict[str, _Turn] = {}

    async def wait(self, trajectory_id: str) -> None:
        """Return when one more request of this trajectory may begin."""
        if not self._seconds:
            await self._shared.wait()
            return
        turn = self._turn(trajectory_id)
        async with turn.lock:
            now = asyncio.get_running_loop().time()
            if turn.free > now:
                await self._sleep(turn.free - now)
            turn.free = await self._shared.wait(turn.free) + self._seconds

    def _turn(self, trajectory_id: str) -> _Turn:
        if trajectory_id not in self._turns and len(self._turns) >= REMEMBERED:
            now = asyncio.get_running_loop().time()
            busy = {name: turn for name, turn in self._turns.items() if turn.free > now or turn.lock.locked()}
            self._turns = busy
        return self._turns.setdefault(trajectory_id, _Turn())
