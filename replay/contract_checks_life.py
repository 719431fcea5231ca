"""How a world lives: whether it waits, whether it can be closed twice and played in threads, and what it costs."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from ..storage.records import StepResult
from .contract_checks_base import WAITING_SECONDS, Checking, Said, failed, in_thread, passed, skipped, waited_seconds
from .contract_checks_world import METHODS, Bench
from .drive import is_async, run_inline
from .session import close, fork

REPEATS = 5
"""Times that an inline world is timed: it waits when it waits each time."""
WORLDS = 4
"""Worlds that are played at one time, in threads."""


async def _inline(bench: Bench) -> Said:
    if not getattr(bench.factory(), "inline", False):
        return skipped("not declared: it works in threads")
    hint = "inline = True is for worlds in memory; leave it out, and steps run in threads"
    waited = [await in_thread(lambda: waited_seconds(lambda: run_inline(_whole(bench)))) for _ in range(REPEATS)]
    if min(waited) > WAITING_SECONDS:
        return failed(f"it waits {1000 * min(waited):.0f} ms for something in each walk", hint)
    return passed("no wait")


async def _whole(bench: Bench) -> list[StepResult]:
    """The walk from the beginning."""
    return await bench.play(await bench.session.fresh())


async def _close(bench: Bench) -> Said:
    world = await bench.fresh(min(1, len(bench.moves)))
    if not callable(getattr(world, "close", None)):
        return skipped("no close()")
    await close(world)
    await close(world)
    return passed("twice is harmless")


async def _threads(bench: Bench) -> Said:
    world = await bench.session.fresh()
    if getattr(world, "inline", False):
        return skipped("inline: never in two threads")
    with ThreadPoolExecutor(WORLDS) as pool:
        waiting = [pool.submit(_played, bench) for _ in range(WORLDS)]
        found = [item.result() for item in waiting]
    different = next((said for played in found if (said := bench.difference(world, played)) is not None), None)
    if different is not None:
        return failed(f"{WORLDS} worlds in threads: {different}", "worlds share something that changes")
    return passed(f"{WORLDS} worlds at one time")


def _played(bench: Bench) -> list[StepResult]:
    return asyncio.run(_whole(bench)) if is_async(bench.factory(), *METHODS) else run_inline(_whole(bench))


async def _times(bench: Bench) -> Said:
    began = time.perf_counter()
    world = await bench.session.fresh()
    reset = time.perf_counter() - began
    began = time.perf_counter()
    await bench.play(world)
    step = (time.perf_counter() - began) / max(1, len(bench.moves))
    said = f"reset {1000 * reset:.2f} ms, step {1000 * step:.2f} ms"
    if bench.kind != "forkable":
        return passed(said)
    began = time.perf_counter()
    await fork(world)
    copy = time.perf_counter() - began
    said += f", fork {1000 * copy:.2f} ms"
    again = reset + step * len(bench.moves)
    dear = f"; executing these {len(bench.moves)} steps again costs {1000 * again:.2f} ms" if copy > again else ""
    return passed(said + dear)


LIFE: tuple[tuple[str, Checking], ...] = (
    ("inline", _inline),
    ("close", _close),
    ("threads", _threads),
    ("times", _times),
)
