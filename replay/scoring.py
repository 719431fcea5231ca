"""Scoring in large batches: what asks of all trees want scored at one time travels in one call for each reward.

Nobody waits for company: a call goes out as soon as none is running, and what arrives meanwhile shares the next one.
Scores are told in ask order by whoever waits for them, so batches do not show in a tree.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

from ..rewards.compose import Composed
from ..storage.errors import TtcError
from .answers import Unjudged

Spawn = Callable[[Coroutine[Any, Any, None]], None]
Waiting = tuple[Unjudged, asyncio.Future[None]]
ITEMS = 256
"""Items of one call, unless one ask alone has more: what is in flight with `--concurrency` 64 and asks of four."""


class Scorer:
    """Calls the rewards of `guide` that gain from batches, one call at a time, in a thread of their own."""

    def __init__(self, guide: Composed, spawn: Spawn):
        self.thread: Executor | None = None
        self._guide = guide
        self._spawn = spawn
        self._waiting: deque[Waiting] = deque()
        self._serving = False

    async def score(self, unjudged: Unjudged) -> None:
        """Add the scores of the gathered parts to `unjudged.scores`. What a part raises is an error score; raises
        TtcError where that says that the part works for no item (MissingExtra)."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((unjudged, done))
        if not self._serving:
            self._serving = True
            self._spawn(self._serve())
        await done

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._next()
                try:
                    await loop.run_in_executor(self.thread, self._call, [unjudged for unjudged, _ in batch])
                except BaseException as error:
                    _end(batch, error)
                    if not isinstance(error, TtcError):
                        raise
                else:
                    _end(batch, None)
        finally:
            self._serving = False

    def _next(self) -> list[Waiting]:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0].items)
        while self._waiting and (size := size + len(self._waiting[0][0].items)) <= ITEMS:
            batch.append(self._waiting.popleft())
        return batch

    def _call(self, batch: Sequence[Unjudged]) -> None:
        items = [item for unjudged in batch for item in unjudged.items]
        terminal = [child.terminal for unjudged in batch for child in unjudged.children]
        said = iter(self._guide.ask(self._guide.gathered, items, terminal))
        for unjudged in batch:
            for scores in unjudged.scores:
                scores.update(next(said))


def _end(batch: Sequence[Waiting], error: BaseException | None) -> None:
    for _, done in batch:
        if done.done():  # whoever waited was cancelled
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
