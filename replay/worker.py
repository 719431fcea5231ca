"""Works on asks: worlds, and rewards. Everything here may run in a worker thread; nothing here touches a tree."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..rewards.compose import Composed
from ..storage.codec import action_key
from ..storage.errors import PolicyFailed, RewardFailed, TtcError, boundary, classified
from ..storage.records import Message, Proposal, Step, Trajectory
from .answers import Answer, Grown, Job, Unjudged, prior_of
from .calls import Reply
from .environments.base import environment_class
from .failures import coded
from .outcomes import name_outcome, reseed
from .session import Session, close, fork
from .transition import play, state_key, state_of
from .tree_search import TreeSearch


class Worlds:
    """The live worlds of one tree, by node, least recently used first out. Evicted ones are re-executed when needed."""

    def __init__(self, session: Session, limit: int = 1024):
        self.session = session
        self._limit = limit
        self._live: OrderedDict[int, Any] = OrderedDict()
        self._forkable = False
        self._lock = threading.Lock()

    def keep(self, node: int, environment: Any) -> Sequence[Any]:
        """Remember the world at `node`; returns the worlds that fell out, to be closed by the caller."""
        if not self._live:
            self._forkable = environment_class(environment) == "forkable"
        with self._lock:
            self._live[node] = environment
            if len(self._live) <= self._limit:
                return ()
            return [self._live.popitem(last=False)[1] for _ in range(len(self._live) - self._limit)]

    async def at(self, job: Job) -> Any:
        """A world of the caller's own that stands at the node that `job` asks at.

        The nearest live ancestor is forked (or taken, where worlds cannot fork and it is the node itself), the rest is
        re-executed and compared. Raises DivergedError, EnvironmentFailed.
        """
        if self._forkable and (here := self._take(job.ask.node, own=True)) is not None:
            return await fork(here)
        path, steps = job.path, job.steps
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
    """Turns replies into answers for one run: transitions, then rewards in one batch per ask.

    Rewards that want larger batches have not spoken yet in an answer that is `unjudged`.
    """

    def __init__(self, guide: Composed, *, sampling: bool, answer: Callable[[Trajectory], str | None] | None = None):
        self.guide = guide
        self.sampling = sampling
        self.says = answer
        self.process = guide.process
        self._keys = Keys()

    async def answer(self, job: Job, reply: Reply, worlds: Worlds) -> Answer:
        """The answer to one ask. Failures of the policy's plugin, the world or a reward are data in it."""
        if reply.error is not None:
            said = coded(reply.error)
            return Answer(failed=said, failures=[said], more=True)
        proposals = reply.proposals[job.skip : job.skip + job.count]
        answer = Answer(more=self.sampling or len(proposals) >= job.count, usage=reply.usage)
        answer.calls = 0 if reply.key is None else 1
        if self.sampling and proposals and job.again is None:
            answer.short = job.count - len(proposals)
        try:
            pairs = merged(proposals, reply.key, self._keys)
        except PolicyFailed as error:
            answer.failed, answer.failures = coded(error), [coded(error)]
            return answer
        for child, proposal in pairs:
            if job.again is not None:
                await self._pay(answer, child, proposal, job, worlds)
                name_outcome(child, job)
            elif child.key not in job.request.exclude:
                await self._pay(answer, child, proposal, job, worlds)
            elif child.key not in job.dead:
                answer.children.append(child)
        self._score(job, answer)
        if answer.failures and not answer.children:
            answer.failed = "; ".join(answer.failures)
        return answer

    async def _pay(self, answer: Answer, child: Grown, proposal: Proposal, job: Job, worlds: Worlds) -> None:
        """One transition; a world that fails is data."""
        answer.spent += 1
        environment: Any = None
        index = len(job.steps)
        try:
            environment = await worlds.at(job)
            if job.again is not None:
                await reseed(environment, job.request.seed)
            step, over, cut = await play(environment, proposal, index, job.request.messages, worlds.session.user)
            child.step = step
            child.state_key = state_key(environment)
            child.terminal = over or index + 1 >= job.tree.max_steps
            child.truncated = cut or (not over and child.terminal)
            if child.terminal or self.process:
                child.final_state = await state_of(environment)
            if child.terminal:
                await close(environment)
            else:
                child.environment = environment
            answer.children.append(child)
        except TtcError as error:
            answer.failures = [*answer.failures, coded(error)]
            if job.again is None:
                answer.dead = [*answer.dead, child.key]
            with suppress(TtcError):  # that it cannot be closed either adds nothing
                await close(environment)

    def _score(self, job: Job, answer: Answer) -> None:
        judged = [child for child in answer.children if self._judges(child, job)]
        if not judged:
            return
        items = [prefix(job.tree, (*job.steps, child.step), child) for child in judged if child.step is not None]
        said = self.guide.ask(self.guide.alone, items, [child.terminal for child in judged])
        unjudged = Unjudged(judged, items, said)
        if self.guide.batched:
            answer.unjudged = unjudged
        else:
            self.judge(answer, unjudged)

    def _judges(self, child: Grown, job: Job) -> bool:
        """Ends always; other states when a process reward is there and nobody has judged that state (merged states)."""
        if child.terminal or not self.process or child.step is None:
            return child.terminal
        return not job.tree.known_state(child.state_key, False)

    def judge(self, answer: Answer, unjudged: Unjudged) -> None:
        """Combine what all rewards said of an answer's children."""
        for child, item, said in zip(unjudged.children, unjudged.items, unjudged.scores, strict=True):
            verdict = self.guide.judged(said)
            child.scores = {**verdict.parts, "guide": verdict.combined}
            child.value = verdict.combined.value
            if self.says is not None and child.terminal:
                child.state_key = self._answer_of(item, answer)

    def _answer_of(self, item: Trajectory, answer: Answer) -> str | None:
        try:
            with boundary(RewardFailed, "the answer key"):
                said = self.says(item) if self.says is not None else None
                return None if said is None else str(said)
        except RewardFailed as error:
            answer.failures = [*answer.failures, coded(error)]
            return None


def prefix(tree: TreeSearch, steps: tuple[Step, ...], child: Grown) -> Trajectory:
    """What a guide sees: the run up to this step, no gold, no outcome of the log."""
    record = tree.record
    return Trajectory(
        id=record.id,
        task=tree.public_task,
        tools=tree.tools,
        prompt=tree.prompt,
        steps=steps,
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
        """`action_key(action)`. Raises PolicyFailed for arguments that are not JSON."""
        known = self._known.get(id(action))
        if known is not None:
            return known[1]
        try:
            key = action_key(action)
        except Exception as cause:
            raise classified(cause, PolicyFailed, "the policy proposed what is not JSON") from cause
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
            grown = Grown(key, prior_of(proposal), call_key=call_key, measured=proposal.tokens is not None)
            by_key[key] = grown, proposal
    return list(by_key.values())
