"""Runs plugin methods that may be `def` or `async def`, with or without an event loop."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from ..storage.errors import PluginFailed

Result = TypeVar("Result")


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
