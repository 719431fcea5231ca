"""Runs plugin methods that may be `def` or `async def`, with or without an event loop."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..storage.errors import PluginFailed

Result = TypeVar("Result")
COLLECT_EVERY = 50_000
"""New objects between two searches for reference cycles while trees grow (Python's default is 700)."""


async def finish(value: Awaitable[Result] | Result) -> Result:
    """Await `value` if it is awaitable, else return it as it is (no suspension)."""
    waiting: Any = value
    if hasattr(value, "__await__"):  # inspect.isawaitable costs more than a whole step of a small world
        waiting = await waiting
    result: Result = waiting
    return result


def run_inline(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that never really suspends, without an event loop (about 1 µs).

    Raises PluginFailed when it does suspend: something declared synchronous or `inline` awaited real I/O.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    coroutine.close()
    raise PluginFailed("a plugin that is not async waited for I/O", hint="make the method `async def` throughout")


def is_async(plugin: Any, *methods: str) -> bool:
    """Whether any of the methods is declared `async def`."""
    return any(inspect.iscoroutinefunction(getattr(plugin, name, None)) for name in methods)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Search for reference cycles seldom: a tree makes many objects that stay and hardly any cycle, and looking at all
    of them again and again takes 6 % of a search in memory. Memory is freed by reference counts as always."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], COLLECT_EVERY) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
