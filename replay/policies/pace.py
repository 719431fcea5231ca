"""A steady pace: at most so many requests a minute, retries included, whoever makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Pace:
    """Spaces requests evenly, so that no window of a minute ever holds more than the limit.

    A provider that counts by the second would refuse a burst of a minute's worth. Each caller takes the next free
    moment at once and then waits for it, so that many may wait side by side.
    """

    def __init__(self, requests_per_minute: float | None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep):
        self._seconds = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._sleep = sleep
        self._free = 0.0

    async def wait(self) -> None:
        """Return when one more request may begin."""
        if not self._seconds:
            return
        now = asyncio.get_running_loop().time()
        begin = max(now, self._free)
        self._free = begin + self._seconds
        if begin > now:
            await self._sleep(begin - now)
