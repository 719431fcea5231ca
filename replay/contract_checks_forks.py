"""What a copy of a world must be: equal to the original, independent of it in both directions, closed by itself."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ..storage.records import StepResult
from .contract_checks_base import Checking, Said, brief, failed, passed, skipped
from .contract_checks_world import Bench, standing
from .drive import is_async, run_inline
from .session import close, fork

COPIES = 4
"""Copies of one world that are made and played at one time, in threads."""
SWITCH_SECONDS = 1e-5
"""Between two switches of threads while copies are played: races show that are seldom otherwise."""
_HINT = "copy what changes: lists, dictionaries and objects that a step changes in place are shared else"


def _points(bench: Bench) -> list[int]:
    """Where to copy: at the start, in the middle, before the last move."""
    last = max(0, len(bench.moves) - 1)
    return sorted({0, last // 2, last})


def _forkable(check: Callable[[Bench], Awaitable[Said]]) -> Checking:
    async def checked(bench: Bench) -> Said:
        if bench.kind != "forkable":
            return skipped(f"{bench.kind}: no copies")
        return await check(bench)

    return checked


async def _equal(bench: Bench) -> Said:
    for at in _points(bench):
        world = await bench.fresh(at)
        copy = await fork(await fork(world))
        if copy is world:
            return failed("fork gave the world itself", "an independent copy")
        if not callable(getattr(copy, "step", None)):
            return failed(f"fork gave {brief(copy)}, which has no step", "an independent copy")
        here, there = await standing(world), await standing(copy)
        if here != there:
            shown = f"{brief(here.state or here.key)}, its copy {brief(there.state or there.key)}"
            return failed(f"after {at} steps the original is {shown}", "everything that state() shows is copied")
        different = bench.difference(copy, await bench.play(copy, at), at)
        if different is not None:
            return failed(f"a copy made after {at} steps goes another way: {different}", "everything is copied")
    return passed("copies of copies go on as the original does")


async def _independent(bench: Bench) -> Said:
    for at in _points(bench):
        for first_copy in (True, False):
            world = await bench.fresh(at)
            copy = await fork(world)
            actor, other = (copy, world) if first_copy else (world, copy)
            before = await standing(other)
            await bench.play(actor, at)
            acted = "acting on the copy" if first_copy else "acting on the original"
            kept = "the original" if first_copy else "the copy"
            if (after := await standing(other)) != before:
                shown = f"{brief(before.state or before.key)} to {brief(after.state or after.key)}"
                return failed(f"{acted} after {at} steps changed {kept}: {shown}", _HINT)
            different = bench.difference(other, await bench.play(other, at), at)
            if different is not None:
                return failed(f"{acted} after {at} steps changed {kept}: {different}", _HINT)
    moved = len(set(bench.standings)) > 1 or bench.standings[0].state is bench.standings[0].key is None
    weak = "" if moved else "; but no action changed the state, so this shows little: --from ID has better ones"
    return passed(f"in both directions, at {len(_points(bench))} points{weak}")


async def _closed(bench: Bench) -> Said:
    world = await bench.fresh()
    if not callable(getattr(world, "close", None)):
        return skipped("no close()")
    copy, spare = await fork(world), await fork(world)
    for ended, other in ((spare, world), (world, copy)):
        await close(ended)
        different = bench.difference(other, await bench.play(other))
        if different is not None:
            return failed(f"one is closed, another goes wrong: {different}", "a copy owns what it closes")
    return passed("closing one leaves the others")


async def _parallel(bench: Bench) -> Said:
    at = len(bench.moves) // 2
    world = await bench.fresh(at)
    if getattr(world, "inline", False):
        return skipped("inline: never in two threads")
    with _often_switched(), ThreadPoolExecutor(COPIES) as pool:
        waiting = [pool.submit(_copied, bench, world, at) for _ in range(COPIES)]
        found = [item.result() for item in waiting]
    different = next((said for played in found if (said := bench.difference(world, played, at)) is not None), None)
    if different is not None:
        return failed(f"{COPIES} copies in threads: {different}", _HINT)
    return passed(f"{COPIES} copies made and played at one time")


def _copied(bench: Bench, world: Any, at: int) -> list[StepResult]:
    import asyncio

    async def play() -> list[StepResult]:
        return await bench.play(await fork(world), at)

    return asyncio.run(play()) if is_async(world, "step", "fork", "hear", "reseed") else run_inline(play())


@contextmanager
def _often_switched() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


FORKS: tuple[tuple[str, Checking], ...] = (
    ("fork-equal", _forkable(_equal)),
    ("fork-independent", _forkable(_independent)),
    ("fork-close", _forkable(_closed)),
    ("fork-threads", _forkable(_parallel)),
)
