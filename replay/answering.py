"""Answering: jobs become answers. The policy is asked, worlds step, rewards score, each where its code belongs.

Worlds run on the event loop when they are `inline` or async, else in worker threads; so does a policy. A reward scores
where the step ran, unless it wants large batches: see `scoring`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from ..storage.errors import EnvironmentFailed, ProviderError, TtcError, UsageError, boundary
from ..storage.records import ProposalRequest
from .answers import Answer, Job
from .calls import Caller, Reply
from .drive import is_async, run_inline
from .environments.base import environment_class, has_chances
from .plugins import Plugins
from .scoring import Scorer, Spawn
from .session import close
from .simulated_user import UserSide
from .worker import Worker
from .worlds import Worlds

Result = TypeVar("Result")
Deliver = Callable[[Sequence[Job], Sequence[Answer | TtcError]], None]


class Answering:
    """The plugins of one run at work. `mode` is of its worlds: thread, async or inline."""

    def __init__(
        self,
        plugins: Plugins,
        caller: Caller,
        worlds: Sequence[Worlds],
        spawn: Spawn,
        user: UserSide | None = None,
    ):
        self.mode = "thread"
        self.environment_class: str | None = None
        self.chances = False
        """Whether the worlds do not always answer alike."""
        self._plugins = plugins
        self._user = user
        self._caller = caller
        self._worlds = worlds
        self._worker = Worker(plugins.guide, sampling=caller.sampling, answer=plugins.answer)
        self._scorer = Scorer(plugins.guide, spawn)
        self._pool: ThreadPoolExecutor | None = None
        policy = plugins.policy
        self._asks_here = bool(getattr(policy, "inline", False)) or is_async(policy, "propose")

    @contextmanager
    def threads(self, workers: int) -> Iterator[None]:
        """The threads that worlds, policies and rewards run in, started when they are needed."""
        with ThreadPoolExecutor(workers) as self._pool, ThreadPoolExecutor(1) as self._scorer.thread:
            yield

    async def look(self) -> None:
        """Learn the mode from a world. Raises EnvironmentFailed."""
        with boundary(EnvironmentFailed, "the environment could not be built"):
            probe = self._plugins.factory()
        awaited = is_async(probe, "reset", "step", "fork", "hear", "state")
        inline = bool(getattr(probe, "inline", False))
        self.environment_class, self.chances = environment_class(probe), has_chances(probe)
        with suppress(TtcError):  # a world that cannot be closed shows when it is used
            await close(probe)
        slow_user = self._user is not None and self._user.waits
        self.mode = "async" if awaited or (inline and slow_user) else "inline" if inline else "thread"

    async def off(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run world code where it belongs: here when inline or async, else in a worker thread."""
        return await work if self.mode != "thread" else await self._in_thread(work)

    async def _in_thread(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, run_inline, work)
        finally:
            if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:  # cancelled before a thread was free
                work.close()

    async def replies(self, jobs: Sequence[Job]) -> list[Reply]:
        """What to execute for each job: what the policy proposes or, for one more outcome, the known action."""
        asked = [job for job in jobs if job.again is None]
        ask = self._shown if getattr(self._plugins.policy, "wants_environment", False) else self._asked
        proposed = iter(await ask(asked) if asked else ())
        return [next(proposed) if job.again is None else Reply([job.again]) for job in jobs]

    async def _asked(self, jobs: Sequence[Job]) -> list[Reply]:
        return await self._propose([job.request for job in jobs])

    async def _shown(self, jobs: Sequence[Job]) -> list[Reply]:
        """As `_asked`, by a policy that reads the world where it asks. A world that cannot be shown is the reply."""
        worlds = await asyncio.gather(*(self._look(job) for job in jobs))
        pairs = list(zip(jobs, worlds, strict=True))
        seen = [(job, world) for job, world in pairs if not isinstance(world, TtcError)]
        replied = iter(await self._propose([replace(job.request, environment=world) for job, world in seen]))
        for _, world in seen:
            with suppress(TtcError):
                await self.off(close(world))
        return [Reply(error=world) if isinstance(world, TtcError) else next(replied) for _, world in pairs]

    async def _look(self, job: Job) -> Any:
        try:
            return await self.off(self._worlds[job.tree.position].look(job))
        except TtcError as error:
            return error

    async def _propose(self, requests: Sequence[ProposalRequest]) -> list[Reply]:
        work = self._caller.propose(requests)
        return await work if self._asks_here else await self._in_thread(work)

    async def answers(self, jobs: Sequence[Job], replies: Sequence[Reply], deliver: Deliver) -> None:
        """Hand every job its answer: all at once where nothing waits, else each as soon as it is there. A TtcError in
        an answer's place stops the run."""
        pairs = zip(jobs, replies, strict=True)
        if self.mode == "inline":
            answers = [await self._answer(job, reply) for job, reply in pairs]
            if self._plugins.guide.batched:
                await asyncio.gather(*map(self._judge, jobs, answers))
            deliver(jobs, answers)
        elif len(jobs) == 1:
            await self._later(jobs[0], replies[0], deliver)
        else:
            await asyncio.gather(*(self._later(job, reply, deliver) for job, reply in pairs))

    async def _later(self, job: Job, reply: Reply, deliver: Deliver) -> None:
        answer = await self.off(self._answer(job, reply))
        await self._judge(job, answer)
        deliver([job], [answer])

    async def _answer(self, job: Job, reply: Reply) -> Answer | TtcError:
        if isinstance(reply.error, (ProviderError, UsageError)):
            return reply.error
        try:
            return await self._worker.answer(job, reply, self._worlds[job.tree.position])
        except ProviderError as error:
            return error

    async def _judge(self, job: Job, answer: Answer | TtcError) -> None:
        """Let the rewards that want large batches score what waits for them."""
        if isinstance(answer, Answer) and answer.unjudged is not None:
            await self._scorer.score(answer.unjudged)
            self._worker.judge(answer, answer.unjudged)
            answer.unjudged = None
