"""Works on asks: policy, worlds, rewards. Everything here may run in a worker thread; nothing here touches a tree."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ..rewards.compose import Composed
from ..storage.codec import action_key
from ..storage.errors import PolicyFailed, TtcError, boundary
from ..storage.records import Message, Proposal, Step, Trajectory
from .calls import Reply
from .environments.base import environment_class
from .failures import coded
from .session import Session, close, fork
from .transition import play, state_of
from .tree_search import Answer, Grown, Job, TreeSearch, prior_of


class Worlds:
    """The live worlds of one tree, by node, least recently used first out. Evicted ones are re-executed when needed."""

    def __init__(self, session: Session, limit: int = 1024):
        self.session = session
        self._limit = limit
        self._live: OrderedDict[int, Any] = OrderedDict()
        self._forkable = False
        self._lock = threading.Lock()

    def keep(self, node: int, environment: Any) -> list[Any]:
        """Remember the world at `node`; returns the worlds that fell out, to be closed by the caller."""
        if not self._live:
            self._forkable = environment_class(environment) == "forkable"
        with self._lock:
            self._live[node] = environment
            self._live.move_to_end(node)
            if len(self._live) <= self._limit:
                return []
            return [self._live.popitem(last=False)[1] for _ in range(len(self._live) - self._limit)]

    async def at(self, path: Sequence[int], steps: Sequence[Step]) -> Any:
        """A world of the caller's own that stands at the last node of `path`, whose actions are `steps` from step 0.

        The nearest live ancestor is forked (or taken, where worlds cannot fork and it is the node itself), the rest is
        re-executed and compared. Raises DivergedError, EnvironmentFailed.
        """
        if self._forkable and (here := self._take(path[-1], own=True)) is not None:
            return await fork(here)
        for above in range(len(path)):
            found = self._take(path[-1 - above], own=above == 0)
            if found is not None:
                live = await fork(found) if self._forkable else found
                return live if above == 0 else await self.session.at(steps, (len(steps) - above, live))
        return await self.session.at(steps)

    def _take(self, node: int, *, own: bool) -> Any:
        with self._lock:
            found = self._live.get(node)
            if found is None:
                return None
            if self._forkable:
                self._live.move_to_end(node)
                return found
            return self._live.pop(node) if own else None

    async def close(self) -> None:
        """Close every live world."""
        while self._live:
            await close(self._live.popitem()[1])


class Worker:
    """Turns replies into answers for one run: transitions, then rewards in one batch per ask."""

    def __init__(self, guide: Composed, *, sampling: bool):
        self.guide = guide
        self.sampling = sampling
        self.process = guide.process
        self._keys = Keys()

    async def answer(self, job: Job, reply: Reply, worlds: Worlds) -> Answer:
        """The answer to one ask. Failures of the policy's plugin, the world or a reward are data in it."""
        if reply.error is not None:
            said = coded(reply.error)
            return Answer(failed=said, failures=[said], more=True)
        paid = 0 if reply.key is None else 1
        proposals = reply.proposals[job.skip : job.skip + job.count]
        try:
            with boundary(PolicyFailed, "the policy proposed what is not JSON"):
                pairs = merged(proposals, reply.key, self._keys)
        except PolicyFailed as error:
            return Answer(failed=coded(error), failures=[coded(error)], calls=paid, usage=reply.usage)
        more = self.sampling or len(proposals) >= job.count
        answer = Answer(more=more, calls=paid, usage=reply.usage)
        for child, proposal in pairs:
            if child.key not in job.request.exclude:
                await self._pay(answer, child, proposal, job, worlds)
            elif child.key not in job.dead:
                answer.children.append(child)
        self._score(job, answer.children)
        if answer.failures and not answer.children:
            answer.failed = "; ".join(answer.failures)
        return answer

    async def _pay(self, answer: Answer, child: Grown, proposal: Proposal, job: Job, worlds: Worlds) -> None:
        """One transition; a world that fails is data."""
        answer.spent += 1
        try:
            await self._grow(child, proposal, job, worlds)
        except TtcError as error:
            answer.failures.append(coded(error))
            answer.dead.append(child.key)
        else:
            answer.children.append(child)

    async def _grow(self, child: Grown, proposal: Proposal, job: Job, worlds: Worlds) -> None:
        environment = await worlds.at(job.path, job.steps)
        index = len(job.steps)
        try:
            done = await play(environment, proposal, index, job.request.messages, worlds.session.user)
        except TtcError:
            await close(environment)
            raise
        terminal = done.terminal or index + 1 >= job.tree.max_steps
        child.step, child.terminal = done.step, terminal
        child.truncated = done.truncated or (terminal and not done.terminal)
        child.state_key = done.state_key
        if terminal or self.process:
            child.final_state = await state_of(environment)
        if terminal:
            await close(environment)
        else:
            child.environment = environment

    def _score(self, job: Job, children: list[Grown]) -> None:
        judged = [child for child in children if child.step is not None and (child.terminal or self.process)]
        if not judged:
            return
        items = [prefix(job.tree, [*job.steps, child.step], child) for child in judged if child.step is not None]
        for child, verdict in zip(judged, self.guide.score_all(items, [c.terminal for c in judged]), strict=True):
            child.scores = {**verdict.parts, "guide": verdict.combined}
            child.value = verdict.combined.value


def prefix(tree: TreeSearch, steps: Sequence[Step], child: Grown) -> Trajectory:
    """What a guide sees: the run up to this step, no gold, no outcome of the log."""
    record = tree.record
    return Trajectory(
        id=record.id,
        task=tree.public_task,
        tools=tree.tools,
        prompt=tree.prompt,
        steps=tuple(steps),
        final_state=child.final_state,
        truncated=child.truncated,
        parent_id=record.parent_id,
    )


class Keys:
    """Action keys of messages that policies propose again and again (a corpus, a script), remembered by identity.

    A remembered message is held, so its id stays its own; the memory is emptied when it is full.
    """

    LIMIT = 4096

    def __init__(self) -> None:
        self._known: dict[int, tuple[Message, str]] = {}

    def of(self, action: Message) -> str:
        """`action_key(action)`."""
        known = self._known.get(id(action))
        if known is not None:
            return known[1]
        key = action_key(action)
        if len(self._known) >= self.LIMIT:
            self._known = {}
        self._known[id(action)] = (action, key)
        return key


def merged(proposals: Sequence[Proposal], call_key: str | None, keys: Keys) -> list[tuple[Grown, Proposal]]:
    """Children by action key, in the order of first sight: duplicates are merged before they are paid for."""
    by_key: dict[str, tuple[Grown, Proposal]] = {}
    for proposal in proposals:
        key = keys.of(proposal.action)
        if key in by_key:
            by_key[key][0].samples += 1
        else:
            by_key[key] = Grown(key, prior_of(proposal), call_key=call_key), proposal
    return list(by_key.values())
