"""Worlds in processes of their own: `isolated(factory)` gives a factory of proxies, used like any world.

A world asks for it with `isolation = "process"`. It may then crash, hang, print or keep the interpreter busy: the job
goes on, and a step that ended its process is a failed step (EnvironmentFailed).
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

from ...storage.errors import UsageError
from ...storage.records import Message, StepResult, Task
from .family import Family, Hosting, Offer, Place, Recipe
from .wire import ATTRIBUTES, METHODS, encode

TIMEOUT_SECONDS = 300.0
"""How long one call may take before its process is killed: `isolation_timeout_seconds`."""
PROCESSES = 32
"""How many processes a factory keeps when they are idle: `isolation_processes`."""
_HINT = "put it at the top level of a module that can be imported, or give isolated() a Recipe"


class World:
    """A world that lives in a child process. It has the optional methods that the world itself has, no others."""

    inline = False

    def __init__(self, hosting: Hosting, family: Family, place: Place):
        self._hosting = hosting
        self._family = family
        self._place = place
        self._forgotten = weakref.finalize(self, family.leave, place)

    def reset(self, task: Task) -> Sequence[Message]:
        """As the world's own; so are all others."""
        prompt: Sequence[Message] = self._family.call(self._place, "reset", task)
        return prompt

    def step(self, action: Message) -> StepResult:
        """Raises EnvironmentFailed, also when the process died or did not answer in time."""
        result: StepResult = self._family.call(self._place, "step", action)
        return result

    def close(self) -> None:
        """Close the world; the process ends with the last open world in it. Harmless when closed already."""
        if self._forgotten.detach() is not None:
            self._family.close(self._place)

    def __getattr__(self, name: str) -> Any:
        if name in METHODS and name in self._offer().methods:
            own = {"fork": self._fork, "tools": self._tools}
            return own.get(name) or partial(self._call, name)
        if name in ATTRIBUTES and name in self._offer().values:
            return self._offer().values[name]
        raise AttributeError(f"this world has no {name}")

    def _offer(self) -> Offer:
        return self._hosting.offer or Offer()

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._family.call(self._place, method, *arguments)

    def _fork(self) -> World:
        return World(self._hosting, self._family, self._family.fork(self._place))

    def _tools(self) -> Sequence[Any]:
        """Of a closed world those that it had: the house asks for them later."""
        if self._place.closed and self._place.tools is not None:
            return self._place.tools
        tools: Sequence[Any] = self._family.call(self._place, "tools")
        return tools


class IsolatedFactory:
    """Builds worlds, each in a child process of its own. The first is built at once, so that errors show early and
    what its class offers is known; every later process starts with the first call of its world."""

    def __init__(self, hosting: Hosting):
        self._hosting = hosting

    def normalise(self, rules: Mapping[str, Any] | None) -> None:
        """Rules, in place of the world's own, for worlds that are put back into a new process."""
        self._hosting.normalise = rules

    def __call__(self) -> World:
        """A new world. The first call raises what the constructor raised, or EnvironmentFailed."""
        family = Family(self._hosting)
        place = family.root()
        world = World(self._hosting, family, place)
        if self._hosting.offer is None:
            try:
                family.build(place)
            except BaseException:
                world.close()
                raise
        return world


def isolated(factory: Callable[..., Any], recipe: Recipe | None = None) -> Callable[[], Any]:
    """`factory`, or one that builds its worlds in child processes when it has `isolation = "process"`.

    `recipe` says how a child builds one; without it `factory` is a class or function at the top level of a module, or a
    `functools.partial` of one with keywords that are JSON. Raises UsageError for what a child process could not build.
    """
    if isinstance(factory, IsolatedFactory):
        return factory
    declared = factory.func if isinstance(factory, partial) else factory
    asked = getattr(declared, "isolation", None)
    if asked is None:
        return factory
    if asked != "process":
        raise UsageError(f"isolation = {asked!r}", hint='an environment may ask for isolation = "process"')
    seconds = _positive(declared, "isolation_timeout_seconds", TIMEOUT_SECONDS)
    processes = _positive(declared, "isolation_processes", PROCESSES)
    return IsolatedFactory(Hosting(recipe or _recipe(factory), seconds, int(processes)))


def _positive(declared: Any, name: str, default: float) -> float:
    value = getattr(declared, name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UsageError(f"{name} = {value!r} is not a positive number")
    return value


def _recipe(factory: Any) -> Recipe:
    """Where a child process finds the factory. Raises UsageError."""
    if isinstance(factory, partial):
        inner = _recipe(factory.func)
        if factory.args:
            raise UsageError("an isolated factory takes keywords only", hint=_HINT)
        try:
            encode(factory.keywords)
        except (TypeError, ValueError) as cause:
            raise UsageError(f"an isolated factory takes JSON only: {cause}") from cause
        return Recipe(inner.loader, factory.keywords)
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    try:
        found = reduce(getattr, name.split("."), sys.modules[str(module)])
    except (KeyError, AttributeError):
        found = None
    if found is not factory or module == "__main__":
        raise UsageError(f"a child process cannot import {name or factory!r}", hint=_HINT)
    return Recipe(f"{module}:{name}")
