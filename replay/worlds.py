"""The live worlds of one tree. Which way a world comes to a state is a matter of time, never of what is found there."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..storage.errors import EnvironmentFailed, ReplayError
from .answers import Job
from .session import Session, close


@dataclass(slots=True)
class Keeper:
    """Keeps copies of the states that a replay passes: those of the record, or of the path `nodes` of a tree.

    `root`: the step at which the tree's root stands. `target`: a state whose copy is wanted wherever it pays.
    """

    worlds: Worlds
    root: int
    nodes: Sequence[int] | None = None
    target: int | None = None
    fallen: list[Any] = field(default_factory=list)
    """Worlds that found no room, to be closed."""

    def _node(self, done: int) -> int:
        at = done - self.root
        return at if self.nodes is None or at < 0 else self.nodes[at]

    def wants(self, done: int) -> bool:
        """Whether a copy of the state after `done` steps is wanted."""
        costs = self.worlds.session.costs
        keeps = costs.fork_pays(done) if done == self.target else costs.keeps(done)
        return keeps and done >= self.root and not self.worlds.has(self._node(done))

    def __call__(self, done: int, world: Any) -> None:
        """Keep the copy."""
        self.fallen += self.worlds.keep(self._node(done), world)

    async def close(self) -> None:
        """Close the copies that found no room."""
        while self.fallen:
            await close(self.fallen.pop())


class Worlds:
    """The live worlds of one tree, by node, least recently used first out. Evicted ones are re-executed when needed."""

    def __init__(self, session: Session, limit: int = 1024):
        self.session = session
        self._limit = limit
        self._live: OrderedDict[int, Any] = OrderedDict()
        self._copied: Counter[int] = Counter()
        """Nodes whose worlds are being copied: they must neither move nor be closed meanwhile."""
        self._lock = threading.Lock()

    def keep(self, node: int, environment: Any) -> Sequence[Any]:
        """Remember the world at `node`; returns the worlds that fell out, to be closed by the caller."""
        with self._lock:
            if node in self._live:
                return (environment,)
            self._live[node] = environment
            surplus = len(self._live) - self._limit
            if surplus <= 0:
                return ()
            oldest = [known for known in self._live if known not in self._copied][:surplus]
            return [self._live.pop(known) for known in oldest]

    def has(self, node: int) -> bool:
        """Whether a live world stands there."""
        return node in self._live

    async def at(self, job: Job) -> Any:
        """A world of the caller's own that stands at the node that `job` asks at. Raises DivergedError,
        EnvironmentFailed.

        The live world of the node is copied where that is cheaper than re-execution, else given away. Where there is
        none, the nearest live ancestor that is worth a copy is copied, and the rest is re-executed and compared.
        """
        node = job.ask.node
        with self._lock:
            here = self._live.get(node)
            own = here is not None and self._give_away(node, job)
            if own:
                del self._live[node]
            elif here is not None and self._copying(node, job):
                self._copied[node] += 1
                self._live.move_to_end(node)
            else:
                here = None
        if here is not None:
            return here if own else await self._copy(node, here)
        return await self._reexecuted(job)

    async def look(self, job: Job) -> Any:
        """A world at the node that `job` asks at, of the caller's own, for a policy to read: the live worlds stay where
        they are. Raises DivergedError, EnvironmentFailed."""
        node = job.ask.node
        with self._lock:
            here = self._live.get(node) if self.session.forkable else None
            if here is not None:
                self._copied[node] += 1
        return await self._copy(node, here) if here is not None else await self.session.at(job.steps)

    def _give_away(self, node: int, job: Job) -> bool:
        costs = self.session.costs
        if not self.session.forkable:
            return True
        return node not in self._copied and costs.proven and not costs.fork_pays(len(job.steps))

    def _copying(self, node: int, job: Job) -> bool:
        return node in self._copied or self.session.costs.fork_pays(len(job.steps))

    async def _copy(self, node: int, world: Any) -> Any:
        """A copy of a world that is marked in `_copied`."""
        try:
            return await self.session.fork(world)
        finally:
            with self._lock:
                self._copied[node] -= 1
                if not self._copied[node]:
                    del self._copied[node]

    async def _reexecuted(self, job: Job) -> Any:
        path, steps = job.path, job.steps
        keeper = Keeper(self, len(steps) - len(path) + 1, path, len(steps))
        start = await self._start(job) if self.session.forkable else None
        begun = 0 if start is None else start[0]
        try:
            world = await self.session.at(steps, start, keeper)
        except (ReplayError, EnvironmentFailed):
            if (copied := await self._copied_after_all(job)) is None:
                raise
            return copied
        finally:
            await keeper.close()
        searched = any(not job.tree.tree.spine[node] for node in path[max(1, begun - keeper.root + 1) :])
        self.session.costs.reexecuted(len(steps) - begun, searched=searched)
        return world

    async def _start(self, job: Job) -> tuple[int, Any] | None:
        """A copy of the nearest live ancestor, and the steps done there; None when a fresh world is cheaper."""
        path, steps = job.path, len(job.steps)
        for above in range(1, len(path)):
            node, done = path[-1 - above], steps - above
            with self._lock:
                found = self._live.get(node)
                if found is None:
                    continue
                if not self.session.costs.fork_pays(done):
                    return None  # those above it are cheaper still to bring about
                self._copied[node] += 1
                self._live.move_to_end(node)
            return done, await self._copy(node, found)
        return None

    async def _copied_after_all(self, job: Job) -> Any:
        """A copy of the node's live world, which was not copied at once because re-execution is cheaper; it does not
        repeat. None when there is no such world."""
        node = job.ask.node
        with self._lock:
            here = self._live.get(node) if self.session.forkable else None
            if here is None:
                return None
            self._copied[node] += 1
        self.session.costs.not_the_same()
        return await self._copy(node, here)

    async def close(self) -> None:
        """Close every live world."""
        while self._live:
            await close(self._live.popitem()[1])
