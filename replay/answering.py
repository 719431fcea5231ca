"""Answering: jobs become answers. The policy is asked, worlds step, rewards score, each where its code belongs.

Worlds run on the event loop when they are `inline` or async, else in worker threads; so does a policy. A reward scores
where the step ran, unless it wants large batches: see `scoring`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ..storage.errors import EnvironmentFailed, ProviderError, TtcError, UsageError, boundary
from ..storage.records import ProposalRequest
from .answers import Answer, Job
from .calls import Caller, Reply
from .drive import is_async, run_inline
from .plugins import Plugins
from .scoring import Scorer, Spawn
from .session import close
from .worker import Worker, Worlds

Result = TypeVar("Result")
Deliver = Callable[[Sequence[Job], Sequence[Answer | TtcError]], None]


class Answering:
    """The plugins of one run at work. `mode` is of its worlds: thread, async or inline."""

    def __init__(self, plugins: Plugins, caller: Caller, worlds: Sequence[Worlds], spawn: Spawn):
        self.mode = "thread"
        self._plugins = plugins
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
        with suppress(TtcError):  # a world that cannot be closed shows when it is used
            await close(probe)
        self.mode = "async" if awaited else "inline" if inline else "thread"

    async def off(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run world code where it belongs: here when inline or async, else in a worker thread."""
        return await work if self.mode != "thread" else await self._in_thread(work)

    async def _in_thread(self, work: Coroutine[Any, Any, Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, run_inline, work)

    async def replies(self, jobs: Sequence[Job]) -> list[Reply]:
        """What to execute for each job: what the policy proposes or, for one more outcome, the known action."""
        asked = [job.request for job in jobs if job.again is None]
        proposed = iter(await self._propose(asked) if asked else ())
        return [next(proposed) if job.again is None else Reply([job.again]) for job in jobs]

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
        return await self._worker.answer(job, reply, self._worlds[job.tree.position])

    async def _judge(self, job: Job, answer: Answer | TtcError) -> None:
        """Let the rewards that want large batches score what waits for them."""
        if isinstance(answer, Answer) and answer.unjudged is not None:
            await self._scorer.score(answer.unjudged)
            self._worker.judge(answer, answer.unjudged)
            answer.unjudged = None
