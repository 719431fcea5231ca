"""A root world and its forks, all in one child process; put back into a new one when that process is gone.

A world remembers what it was told. When its process died under another fork of the family, or was put to rest because
too many were open, the next call starts a new process, tells it the same again and compares the answers. So whether a
fork survives does not depend on which thread was quicker.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...storage.errors import DivergedError, EnvironmentFailed, TtcError, boundary, classified
from ...storage.records import Message, StepResult
from ..compare import compare, normalisers_from
from .child import Child, Gone
from .wire import arguments_to_json, encode, error_from_json, messages_from_json, result_from_json

CHANGING = ("reset", "step", "load", "hear", "reseed")
"""Methods after which a world is another one than before."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a child process builds a world: it calls `loader` ("module:function") with `arguments` (JSON) as keywords."""

    loader: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Past:
    """What a world was told and said, last first; forks share what they have in common."""

    method: str
    arguments: Sequence[Any]
    said: Any
    steps: int
    before: Past | None


@dataclass(slots=True, eq=False)
class Place:
    """One world of a family: its handle in the child process of that `generation`; -1: in none yet."""

    handle: int
    generation: int = -1
    past: Past | None = None
    tools: list[Any] | None = None
    failed: EnvironmentFailed | None = None
    closed: bool = False

    @property
    def steps(self) -> int:
        """Steps executed since the last `reset`."""
        return self.past.steps if self.past else 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What the worlds of one factory are: class name, methods, and attributes that are no methods."""

    name: str = "environment"
    methods: frozenset[str] = frozenset()
    values: Mapping[str, Any] = field(default_factory=dict)


class Hosting:
    """What all families of one factory share: the recipe, the limits, what is offered, and which processes run."""

    def __init__(self, recipe: Recipe, seconds: float, processes: int):
        self.recipe = recipe
        self.seconds = seconds
        self.processes = processes
        self.offer: Offer | None = None
        self.normalise: Mapping[str, Any] | None = None
        """Rules for putting a world back, in place of its own."""
        self._running: OrderedDict[Family, None] = OrderedDict()
        self._lock = threading.RLock()  # the garbage collector may end a family in the midst of a change here

    def used(self, family: Family) -> None:
        """The family's process is in use: the last to be put to rest."""
        with self._lock:
            self._running[family] = None
            self._running.move_to_end(family)

    def ended(self, family: Family) -> None:
        """The family has no process any more."""
        with self._lock:
            self._running.pop(family, None)

    def make_room(self) -> None:
        """Put the processes that were idle longest to rest, so that one more is not too many. Busy ones stay."""
        with self._lock:
            oldest = list(self._running)
        surplus = len(oldest) + 1 - self.processes
        for family in oldest:
            if surplus <= 0:
                return
            surplus -= family.rest()


class Family:
    """Calls of its worlds run one after another: one process, one lock."""

    def __init__(self, hosting: Hosting):
        self.hosting = hosting
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._generation = 0
        self._handles = itertools.count()
        self._open = 0
        self._left: deque[Place] = deque()
        self._drop: list[int] = []

    def root(self) -> Place:
        """A new world; built in a process by its first call."""
        self._open += 1
        return Place(next(self._handles))

    def call(self, place: Place, method: str, *arguments: Any) -> Any:
        """Let the world do it. Raises EnvironmentFailed and whatever error of the house the world raised."""
        with self._lock:
            return self._call(place, method, arguments)

    def fork(self, place: Place) -> Place:
        """A twin of the world, in the same process."""
        with self._lock:
            twin = Place(next(self._handles))
            self._call(place, "fork", (twin.handle,))
            twin.generation, twin.past, twin.tools = place.generation, place.past, place.tools
            self._open += 1
            return twin

    def build(self, place: Place) -> None:
        """Start the process and build the world now. Raises what the constructor raised, or EnvironmentFailed."""
        with self._lock:
            self._put_back(place, "build")

    def close(self, place: Place) -> None:
        """Close the world; the process ends with the last one. Raises what the world's own `close` raised."""
        try:
            here = place.generation == self._generation and self._child is not None
            if here and self.hosting.offer and "close" in self.hosting.offer.methods:
                self.call(place, "close")
        finally:
            place.closed = True
            self.leave(place, gently=True)

    def leave(self, place: Place, *, gently: bool = False) -> None:
        """The world is not needed any more. Never waits for the lock: the garbage collector calls this anywhere."""
        self._left.append(place)
        while self._left and self._lock.acquire(blocking=False):
            try:
                self._sweep()
                if self._open == 0:
                    self._end(gently=gently)
            finally:
                self._lock.release()

    def rest(self) -> bool:
        """End the process unless it is busy; a call that comes later starts another. Whether it was ended."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._end(gently=True)
            return True
        finally:
            self._lock.release()

    # -- with the lock held ------------------------------------------------------------------------------------------

    def _call(self, place: Place, method: str, arguments: Sequence[Any]) -> Any:
        if place.failed is not None:
            raise EnvironmentFailed(place.failed.message, place=place.failed.place)
        if place.closed:
            raise EnvironmentFailed(f"{self._what(method)}: the world is closed")
        self._sweep()
        self._put_back(place, method)
        try:
            return self._ask(place, method, arguments)
        except Gone as gone:
            error = EnvironmentFailed(f"{self._what(method)}: {gone}", place=self._where(place, method))
            if method in CHANGING:  # nobody knows what it was left like
                place.failed = EnvironmentFailed(error.message, place=error.place)  # never raised: no frames hang on it
            raise error from None

    def _sweep(self) -> None:
        while self._left:
            place = self._left.popleft()
            self._open -= 1
            if place.generation == self._generation:
                self._drop.append(place.handle)

    def _end(self, *, gently: bool) -> None:
        child, self._child = self._child, None
        if child is not None:
            self._generation += 1
            self._drop = []
            self.hosting.ended(self)
            if gently:
                child.end()
            else:
                child.kill()

    def _put_back(self, place: Place, method: str) -> None:
        """See that the world is in a living process, as it was. Raises DivergedError when it is not the same again."""
        if place.generation == self._generation and self._child is not None:
            return
        try:
            self._start()
            self._ask(place, "build", ())
            past: list[Past] = []
            at = place.past
            while at is not None:
                past.append(at)
                at = at.before
            for told in reversed(past):
                self._tell_again(place, told)
        except Gone as gone:
            raise EnvironmentFailed(f"{self._what(method)}: {gone}", place=self._where(place, method)) from None
        except TtcError:
            self._drop.append(place.handle)
            raise
        place.generation = self._generation

    def _start(self) -> None:
        if self._child is not None:
            return
        self.hosting.make_room()
        recipe = self.hosting.recipe
        try:
            self._child = Child({"loader": recipe.loader, "arguments": recipe.arguments}, self.hosting.seconds)
        except OSError as cause:  # no memory, or too many processes
            raise classified(cause, EnvironmentFailed, self._what("build")) from cause
        self.hosting.used(self)
        if "error" in self._child.answer:
            error = error_from_json(self._child.answer["error"])
            self._end(gently=True)
            raise error

    def _ask(self, place: Place, method: str, arguments: Sequence[Any]) -> Any:
        """Raises Gone, after which there is no process."""
        assert self._child is not None
        request = {"world": place.handle, "method": method, "drop": self._drop}
        with boundary(EnvironmentFailed, self._what(method)):
            line = encode({**request, "arguments": arguments_to_json(method, arguments)})
        self._drop = []
        self.hosting.used(self)
        try:
            answer = self._child.ask(line, self.hosting.seconds)
        except BaseException:  # also an interrupt, whose answer would be taken for that of the next call
            self._end(gently=False)
            raise
        return self._heard(place, method, arguments, answer)

    def _heard(self, place: Place, method: str, arguments: Sequence[Any], answer: Mapping[str, Any]) -> Any:
        error = error_from_json(answer["error"]) if "error" in answer else None
        said: Any = answer.get("said")
        if error is not None:
            error.place = error.place or self._where(place, method)
            said = error.message
        elif method in ("step", "hear"):
            said = result_from_json(said)
        elif method == "reset":
            place.tools = said.get("tools")
            said = messages_from_json(said["prompt"])
        elif method == "tools":
            place.tools = said
        elif method == "build":
            self.hosting.offer = Offer(said["name"], frozenset(said["methods"]), said["values"])
        if method in CHANGING:
            steps = 0 if method == "reset" else place.steps + (method == "step")
            place.past = Past(method, arguments, said, steps, place.past)
        if error is not None:
            raise error
        return said

    def _tell_again(self, place: Place, told: Past) -> None:
        """Raises DivergedError when the answer is not the one it gave before."""
        now = Place(place.handle)
        try:
            said = self._ask(now, told.method, told.arguments)
        except TtcError as error:
            said = error.message
        if not self._same(told.said, said):
            raise DivergedError(max(told.steps - 1, 0), _text(told.said), _text(said))

    def _same(self, before: Any, now: Any) -> bool:
        if isinstance(before, StepResult) and isinstance(now, StepResult) and before.done == now.done:
            own = self.hosting.offer.values.get("normalise") if self.hosting.offer else None
            rules = normalisers_from(own if self.hosting.normalise is None else self.hosting.normalise)
            return compare(before.observations, now.observations, rules).level is not None
        return bool(before == now)

    def _what(self, method: str) -> str:
        if method in ("step", "fork"):
            return f"environment.{method}"
        if method == "build":
            return "the environment could not be built"
        name = self.hosting.offer.name if self.hosting.offer else "environment"
        return f"{name}.{'reset' if method == 'load' else method}"

    def _where(self, place: Place, method: str) -> str | None:
        name = self.hosting.offer.name if self.hosting.offer else "environment"
        return f"{name}, step {place.steps}" if method == "step" else None


def _text(said: Any) -> Any:
    """What an answer says, for an error message."""
    messages: Sequence[Message] = said.observations if isinstance(said, StepResult) else said
    return said if isinstance(said, str) or said is None else "\n".join(message.text for message in messages)
