"""Works on asks: worlds, and rewards. Everything here may run in a worker thread; nothing here touches a tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..rewards.compose import Composed
from ..storage.codec import action_key
from ..storage.errors import PolicyFailed, ProviderError, RewardFailed, TtcError, boundary, classified
from ..storage.records import Message, Proposal, Step, Trajectory, Usage
from .answers import Answer, Grown, Job, Unjudged, prior_of
from .calls import NO_USAGE, Reply, add_usage
from .drive import finish
from .failures import coded
from .outcomes import name_outcome, reseed
from .session import close
from .simulated_user import SimulatedUser
from .transition import play, state_of
from .tree_search import TreeSearch
from .worlds import Worlds


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
        answer.calls = 0 if reply.key is None else reply.calls
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
        user = worlds.session.user
        user = user.for_one() if isinstance(user, SimulatedUser) else user
        index = len(job.steps)
        try:
            environment = await worlds.at(job)
            await spent(environment)  # what its way to here cost was counted where it was first gone
            if job.again is not None:
                await reseed(environment, job.request.seed)
            step, over, cut = await play(environment, proposal, index, job.request.messages, user)
            await book(answer, environment)
            book_user(answer, user)
            child.step = step
            child.state_key = await worlds.session.state_key(environment)
            child.terminal = over or index + 1 >= job.tree.max_steps
            child.truncated = cut or (not over and child.terminal)
            if child.terminal or self.process:
                child.final_state = await state_of(environment)
            if child.terminal:
                await close(environment)
            else:
                child.environment = environment
            answer.children.append(child)
        except ProviderError:  # of a world that asks a model: the run stops, the ask stays open
            with suppress(TtcError):
                await close(environment)
            raise
        except TtcError as error:
            answer.failures = [*answer.failures, coded(error)]
            await book(answer, environment)
            book_user(answer, user)
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


def book_user(answer: Answer, user: Any) -> None:
    """Add what the user's side has cost."""
    if isinstance(user, SimulatedUser) and user.calls:
        answer.calls += user.calls
        answer.usage = add_usage([answer.usage, user.usage])


async def spent(environment: Any) -> tuple[int, Usage]:
    """Calls and use of a world that pays for answers since this was last asked; nothing for all others."""
    method = getattr(environment, "spent", None)
    return (0, NO_USAGE) if method is None else await finish(method())


async def book(answer: Answer, environment: Any) -> None:
    """Add what the world has paid to what the answer cost."""
    calls, usage = await spent(environment)
    if calls:
        answer.calls += calls
        answer.usage = add_usage([answer.usage, usage])


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
            measured, rebound = proposal.tokens is not None, proposal.rebound
            grown = Grown(key, prior_of(proposal), call_key=call_key, measured=measured, rebound=rebound)
            by_key[key] = grown, proposal
    return list(by_key.values())
