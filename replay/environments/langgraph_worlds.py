"""What the tools of a graph act on, and how it is put back: a world of one's own for each branch, or a shared one.

A *world* is any object of the user's. A function or class makes a new one for each run, and copies it by the first of:
`snapshot()` with `restore(snapshot)`, or what it declares or has (`forks`, `fork()`, see `replay.forking`). An object
that is there already (a module's global that tools act on directly) needs `snapshot()` and `restore(snapshot)`: before
each action it is put to where the branch stands, and one action runs at a time. `reset(task)` and `state()` are called
where a world has them.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...storage.errors import UsageError
from ...storage.records import Task
from ..forking import Capability, capability, duplicate

_HINT = 'snapshot() and restore(snapshot), fork(), or forks = "deepcopy"'


class OwnWorld:
    """A world that belongs to one branch."""

    def __init__(self, make: Callable[..., Any], task: Task):
        self._make = make
        self._task = task
        self.world = make(task) if _takes_task(make) else make()
        if callable(getattr(self.world, "reset", None)):
            self.world.reset(task)

    @contextmanager
    def standing(self) -> Iterator[Any]:
        """The world, at this branch's state."""
        yield self.world

    def fork(self) -> OwnWorld:
        """A branch of its own from here. Raises what copying raises."""
        twin = object.__new__(type(self))
        twin._make, twin._task = self._make, self._task
        if _restorable(self.world):
            twin.world = self._make(self._task) if _takes_task(self._make) else self._make()
            twin.world.restore(self.world.snapshot())
        else:
            twin.world = duplicate(self.world)
        return twin

    def close(self) -> None:
        """Close the world, where it has `close`."""
        method = getattr(self.world, "close", None)
        if callable(method):
            method()

    @property
    def forks(self) -> Capability:
        """`native` with snapshots; else what the world declares."""
        return "native" if _restorable(self.world) else capability(self.world)


@dataclass(slots=True)
class _Shared:
    """One object that all branches act on. `first`: its state before anything of ours."""

    world: Any
    first: Any
    turn: threading.RLock


_SHARED: dict[int, _Shared] = {}
_adding = threading.Lock()


class SharedWorld:
    """One branch's place in a world that all branches share."""

    forks: Capability = "native"

    def __init__(self, world: Any, task: Task):
        with _adding:
            known = _SHARED.get(id(world))
            if known is None:
                known = _SHARED[id(world)] = _Shared(world, world.snapshot(), threading.RLock())
        self._shared = known
        self.world = world
        with known.turn:
            world.restore(known.first)
            if callable(getattr(world, "reset", None)):
                world.reset(task)
            self._snapshot = world.snapshot()

    @contextmanager
    def standing(self) -> Iterator[Any]:
        """The world, put to this branch's state; nobody else's turn until the block ends. What it did is kept."""
        with self._shared.turn:
            self.world.restore(self._snapshot)
            yield self.world
            self._snapshot = self.world.snapshot()

    def close(self) -> None:
        """Put the object back to what it was before the first branch."""
        with self._shared.turn:
            self.world.restore(self._shared.first)

    def fork(self) -> SharedWorld:
        """Another branch from here: snapshots are never changed, so both may keep this one."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin


class NoWorld:
    """Tools that act on nothing that this side knows. `forks`: `native` where the user says that they change nothing
    beyond the graph's own state."""

    world: Any = None

    def __init__(self, forks: Capability):
        self.forks: Capability = forks

    @contextmanager
    def standing(self) -> Iterator[Any]:
        """Nothing to put back."""
        yield None

    def close(self) -> None:
        """Nothing is open."""

    def fork(self) -> NoWorld:
        """The same: there is nothing to copy."""
        return self


World = OwnWorld | SharedWorld | NoWorld


def check_world(given: Any) -> None:
    """Raises UsageError for an object that cannot be put back."""
    if given is not None and not callable(given) and not _restorable(given):
        raise UsageError(f"{type(given).__name__} is an object that nobody can put back", hint=f"it needs {_HINT}")


def world_for(given: Any, task: Task, forks: Capability) -> World:
    """The world of a new branch. `forks` is said of tools that act on no world."""
    if given is None:
        return NoWorld(forks)
    return OwnWorld(given, task) if callable(given) else SharedWorld(given, task)


def forks_of(given: Any, without: Capability) -> Capability:
    """How worlds will be copied, before one is made: what a class declares, or the class that a function says it
    returns; a function of nothing is asked for one. `without`: said where there is no world."""
    if given is None:
        return without
    if not callable(given):
        return SharedWorld.forks
    kind = given if inspect.isclass(given) else inspect.get_annotations(given, eval_str=True).get("return")
    if not inspect.isclass(kind):
        if _takes_task(given):
            return "reexecute"  # nobody knows before the first task
        kind = given()
    return "native" if _restorable(kind) else capability(kind)


def _restorable(world: Any) -> bool:
    return callable(getattr(world, "snapshot", None)) and callable(getattr(world, "restore", None))


def _takes_task(make: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(item.name == "task" or item.default is item.empty for item in parameters if item.kind not in (2, 4))
