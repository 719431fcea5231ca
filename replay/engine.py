"""The one loop: ask → propose → step → score → tell → journal; many trees at once.

Asks of all trees are gathered into policy batches; worlds step in worker threads (or on the event loop when they are
`inline` or async); concurrency and run-wide budgets are global, trees are committed in ask order each. Nothing here
decides what a tree looks like: that is `tree_search`, and it does not know the time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .. import search
from ..search.branching import AutoBranch
from ..storage.errors import ProviderError, TtcError, UsageError
from ..storage.journal import Journal, MemoryJournal
from ..storage.records import ProposalRequest, Trajectory
from .allocation import Adaptive, Standing
from .answering import Answering
from .answers import Answer, Job
from .askers import Askers
from .baseline import Baseline, Judge, baseline_event, baseline_from, take_baseline
from .calls import Lookup
from .confirm import Confirmer
from .costs import Costs
from .drive import rare_collections
from .gate import judge_tree
from .grove import Grove
from .plugins import Plugins, own_options
from .prefix_order import Place, take
from .purse import Purse
from .recalled import Recalled
from .session import Session, close
from .settings import Settings
from .tree_search import TreeSearch
from .trivial import Endings
from .worlds import Keeper, Worlds

__all__ = ["Engine", "Plugins"]

INLINE_BATCHES = 16
"""Batches of an inline policy and world between two looks at signals and other tasks."""
SYNC_SECONDS = 0.2
"""How often the journal of an unmetered policy waits for the disk; a metered one does after each batch."""


class Engine:
    """One search run over `records`, in the journal's frozen order."""

    def __init__(
        self,
        settings: Settings,
        run: str,
        records: Sequence[Trajectory],
        archive: Sequence[Trajectory],
        plugins: Plugins,
        journal: Journal | MemoryJournal,
        lookup: Lookup = lambda keys: {},
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ):
        self.settings = settings
        self.run_name = run
        self.plugins = plugins
        self.journal = journal
        self.judge = Judge(plugins.guide, plugins.accept)
        self.costs = Costs()
        self.askers = Askers(plugins, settings, self._emit, lookup)
        self.caller, self.user_side = self.askers.caller, self.askers.user_side
        self.purse = Purse(settings.limits, len(records))
        if hasattr(plugins.policy, "may_pay_again"):
            plugins.policy.may_pay_again = self._admit_again
        self.error: TtcError | None = None
        self.interrupted = False
        self._progress = progress
        self._runs: dict[str, dict[str, Trajectory]] = {}
        for record in archive:
            self._runs.setdefault(record.task.id, {})[record.id] = record
        self._endings = Endings.of(archive)
        self.groves = [self._grove(position, record) for position, record in enumerate(records)]
        worlds = [grove.worlds for grove in self.groves]
        self._answering = Answering(plugins, self.caller, worlds, self._spawn, self.user_side)
        self._waiting = deque(self.groves)
        self._ready: deque[Job] = deque()
        self._latest: Place | None = None
        """Where the last metered job was taken."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._wake = asyncio.Event()
        self._live: set[int] = set()
        """Positions of the trees that are open and have something to do."""
        self._flying = 0
        self._recalled = Recalled()
        self._adaptive = Adaptive(settings.budget, len(records)) if settings.allocate == "adaptive" else None
        self._synced = self._started = time.monotonic()
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def _grove(self, position: int, record: Trajectory) -> Grove:
        runs = self._runs.get(record.task.id, {record.id: record})
        session = Session(record, self.plugins.factory, runs, self.costs)
        if self.user_side is not None:
            session.user = self.user_side.of(record)
        return Grove(position, record, session, Worlds(session))

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> list[Grove]:
        """Search every trajectory. Raises nothing for a failing item; `error` holds what stopped the whole run."""
        self._recalled.read(self.journal.events, self.askers.recall)
        if self._recalled.planned is None:
            self._recalled.planned = self.settings.budget
            self._emit({"event": "plan", "budget": self.settings.budget})
        await self._answering.look()
        if self.user_side is not None:
            self.user_side.open()
        with self._answering.threads(self.settings.concurrency), rare_collections():
            try:
                await self._loop()
                if isinstance(self.error, ProviderError):
                    await self._keep_partial()
            finally:
                if self.user_side is not None:
                    self.user_side.close()
                await asyncio.sleep(0)  # tasks that never began would leave their coroutines unawaited
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                self.journal.sync()
        return self.groves

    @property
    def environment_class(self) -> str | None:
        """Forkable, re-executable or recorded only (known once the run has begun)."""
        return self._answering.environment_class

    @property
    def chances(self) -> bool:
        """Whether the worlds do not always answer alike (known once the run has begun)."""
        return self._answering.chances

    @property
    def repeated_calls(self) -> int:
        """Calls that were in flight at a kill and begun again."""
        return self.askers.repeated_calls

    async def _loop(self) -> None:
        inline = self._answering.mode == "inline" and bool(getattr(self.plugins.policy, "inline", False))
        worked = 0
        while True:
            self._open_trees()
            while self._ready and not self._halted and self._flying < self.settings.concurrency:
                batch = self._take()
                if inline:
                    await self._work(batch)
                    worked += 1
                    if worked % INLINE_BATCHES == 0:
                        await asyncio.sleep(0)
                else:
                    self._spawn(self._work(batch))
            if self._failed is not None:
                raise self._failed
            if self._tasks:
                await self._wake.wait()
                self._wake.clear()
            elif self._halted or not (self._ready or self._waiting):
                return

    @property
    def _halted(self) -> bool:
        return self.interrupted or self.error is not None

    def stop(self) -> None:
        """Finish what is in flight and stop; the same command resumes."""
        self.interrupted = True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()  # asked of every task: asyncio complains of those that nobody asks
            self._failed = self._failed or error
        self._wake.set()

    def _take(self) -> list[Job]:
        """The next jobs to travel together. A policy in memory gains nothing from a batch, and slow worlds would make
        all of it wait for its slowest member."""
        policy = self.plugins.policy
        alone = self._answering.mode != "inline" and bool(getattr(policy, "inline", False))
        batched = getattr(policy, "batched", True) and not alone
        room = self.settings.concurrency - self._flying
        count = min(room if batched else 1, len(self._ready))
        if self.caller.metered:
            jobs, self._latest = take(self._ready, count, self._latest)
        else:
            jobs = [self._ready.popleft() for _ in range(count)]
        self._flying += len(jobs)
        return jobs

    # -- opening a tree ----------------------------------------------------------------------------------------------

    def _open_trees(self) -> None:
        """Keep enough trees open to fill the workers; trees are opened in order."""
        while self._waiting and not self._halted and len(self._live) < max(4, self.settings.concurrency):
            grove = self._waiting.popleft()
            self._live.add(grove.position)
            self._spawn(self._open(grove))

    async def _open(self, grove: Grove) -> None:
        event = self._recalled.baselines.get(grove.position)
        if event is not None:
            grove.baseline = baseline_from(event, grove.record)
        else:
            keep = Keeper(grove.worlds, self._root_step(grove.record))
            taken = take_baseline(grove.session, self.judge, self.settings.success_at, self._endings, keep)
            grove.baseline = await self._answering.off(taken)
            await self._answering.off(keep.close())
            self._emit(baseline_event(grove.position, grove.baseline))
        if grove.baseline.error is not None:
            await self._close(grove, "error")
        elif not self._wanted(grove):
            await self._close(grove, "solved")
        else:
            await self._plant(grove, grove.baseline)

    def _wanted(self, grove: Grove) -> bool:
        """`--all` and explicit ids search everything; otherwise a baseline that already succeeds is left alone."""
        judged = grove.baseline.judged if grove.baseline else None
        chosen = dict(self.settings.selector).get("every", False)
        return bool(chosen) or judged is None or judged < self.settings.success_at

    def _root_step(self, record: Trajectory) -> int:
        step = self.settings.from_step
        return min(step, len(record.steps)) if isinstance(step, int) else 0

    async def _plant(self, grove: Grove, base: Baseline) -> None:
        record, settings = grove.record, self.settings
        if grove.session.tools()[1] == "unknown" or not grove.session.prompt:
            await self._answering.off(_look(grove.session))
        tree = TreeSearch(
            record,
            grove.position,
            self._algorithm(),
            root_step=self._root_step(record),
            seed=settings.seed,
            width=settings.width,
            budget=self._adaptive.first if self._adaptive else settings.budget,
            max_steps=settings.max_depth or max(1, 2 * len(record.steps)),
            sampling=self.caller.sampling,
            merge_states=settings.merge_states,
            success_at=settings.success_at,
            emit=None if self.journal.keeps_nothing else self._emit,
            settle=self._settle if self.askers.metered else None,
        )
        tree.prompt, tree.tools = grove.session.prompt, grove.session.tools()[0]
        tree.recall = self._recalled.tells.get(grove.position, {})
        tree.noted = self._recalled.noted.get(grove.position, {})
        tree.start(base.steps[tree.root_step :], base.value)
        grove.tree = tree
        self._launch(tree)
        self._pump(grove)

    def _algorithm(self) -> search.Algorithm:
        spec = self.settings.algorithm
        chosen = self.plugins.algorithm or spec.name
        algorithm = search.create(chosen, **{"budget": self._recalled.planned, **own_options(spec)})
        return AutoBranch(algorithm) if self.settings.from_step == "auto" else algorithm

    # -- asks and answers --------------------------------------------------------------------------------------------

    def _pump(self, grove: Grove) -> None:
        """Commit what is due and turn free width into jobs, one commit and one ask at a time."""
        tree = grove.tree
        if tree is None or grove.finished:
            return
        while (grown := self._commit_next(tree)) is not None:
            for node, world in grown:
                for fallen in grove.worlds.keep(node, world) if node >= 0 else (world,):
                    self._spawn(self._answering.off(close(fallen)))
            self._check_solved(tree)
            self._launch(tree)
        if tree.idle and tree.stopped is not None and not grove.parked:
            self._check_solved(tree)
            if self._adaptive and tree.stopped == "budget":
                self._park(grove, tree)
            else:
                self._finish(grove)

    def _commit_next(self, tree: TreeSearch) -> list[tuple[int, Any]] | None:
        if not self._halted:
            self._ready += tree.rest_jobs(self._admit if self.askers.metered else None)
        return tree.commit_next()

    # -- grants of an adaptive run -----------------------------------------------------------------------------------

    def _park(self, grove: Grove, tree: TreeSearch) -> None:
        grove.parked = True
        self._live.discard(grove.position)
        self._spawn(self._answering.off(grove.worlds.close()))
        self._grant()

    def _grant(self) -> None:
        """The next round, once every tree has spent its grant or ended; what gets nothing is finished."""
        if self._adaptive is None or self._halted or self._waiting:
            return
        parked = [grove for grove in self.groves if grove.parked]
        if not parked or not all(grove.parked or grove.finished for grove in self.groves):
            return
        grants = self._adaptive.grant(
            [Standing(grove.position, grove.improved()) for grove in parked],
            sum(grove.tree.budget if grove.parked else grove.tree.spent for grove in self.groves if grove.tree),
        )
        for grove in parked:
            grove.parked = False
        for grove in parked:
            if grove.tree is not None and grove.position in grants:
                self._live.add(grove.position)
                grove.tree.budget += grants[grove.position]
                grove.tree.stopped = None
                self._launch(grove.tree)
                self._pump(grove)
            else:
                self._finish(grove)

    def _launch(self, tree: TreeSearch) -> None:
        """Free width becomes jobs; asks that an earlier session answered are answered at once."""
        if self._halted:
            return
        try:
            jobs = self._next_jobs(tree)
            self._ready += tree.unanswered(jobs) if tree.recall else jobs
        except UsageError as error:  # the journal or the algorithm does not fit: the run stops, what is stored stays
            self.error = error

    def _next_jobs(self, tree: TreeSearch) -> list[Job]:
        seconds = self.settings.limits.seconds
        if seconds is not None and time.monotonic() - self._started > seconds and tree.stopped is None:
            tree.stopped = "budget"
        return tree.next_jobs(self._admit if self.askers.metered else None)

    def _admit(self, job: Job) -> bool:
        """Reserve the worst case of a call, and of what imagined worlds ask; one more outcome of a known action asks
        no policy."""
        calls, worst = self.askers.worst(job, self.groves[job.tree.position].session.user)
        return not calls or self.purse.reserve(job.tree.position, job.ask.id, worst, calls)

    def _settle(self, job: Job, answer: Answer) -> None:
        """Called at commit, in ask order: what a run may still spend must not depend on which answer came first."""
        seed = job.request.seed
        answer.calls = self.purse.settle(job.tree.position, job.ask.id, answer.calls, answer.usage, seed)

    def _admit_again(self, request: ProposalRequest) -> bool:
        position = next(grove.position for grove in self.groves if grove.record.id == request.trajectory_id)
        return self.purse.reserve_again(position, request.seed, self.caller.estimate(request))

    async def _work(self, jobs: Sequence[Job]) -> None:
        try:
            replies = await self._answering.replies(jobs)
            if self.caller.metered:
                self.journal.sync()
            await self._answering.answers(jobs, replies, self._deliver)
            if self.askers.metered:
                self.journal.sync()
        finally:
            self._flying -= len(jobs)
        self._sync()

    def _deliver(self, jobs: Sequence[Job], answers: Sequence[Answer | TtcError]) -> None:
        """Commit; an error of the provider stops the run, and the ask stays open for the session that resumes it."""
        due: dict[int, Grove] = {}
        for job, answer in zip(jobs, answers, strict=True):
            grove = self.groves[job.tree.position]
            if isinstance(answer, TtcError):
                self.error = self.error or answer
                job.tree.stopped = grove.stopped = "error"
            else:
                job.answer = answer
                due[grove.position] = grove
        for grove in due.values():
            self._pump(grove)
        if self._progress is not None:
            self._progress(self.status())

    def _check_solved(self, tree: TreeSearch) -> None:
        """Without a gate one leaf at `--success-at` is enough; with one, as many as the gate will look at.

        `--from-step auto` goes on within its budget: it looks for the last step at which the run could still be saved.
        So do algorithms with `estimates = True`: a mean does not end with the first good run.
        """
        if not tree.solved or getattr(tree.algorithm, "estimates", False):
            return
        needed = self.settings.candidates if self.judge.accept is not None else 1
        ended = tree.stopped in ("budget", "exhausted")
        going_on = tree.stopped is None and self.settings.from_step != "auto"
        if (ended or going_on) and tree.solved >= needed:
            tree.stopped = "solved"

    # -- closing a tree ----------------------------------------------------------------------------------------------

    def _finish(self, grove: Grove) -> None:
        if grove.finished or grove.tree is None or grove.baseline is None:
            return
        grove.finished = True
        self._live.discard(grove.position)
        self._grant()
        self._spawn(self._judge(grove, grove.tree, grove.baseline))

    async def _judge(self, grove: Grove, tree: TreeSearch, base: Baseline) -> None:
        events = await self._answering.off(self._judged(grove, tree, base))
        self._emit_all(tree, events)
        await self._answering.off(grove.worlds.close())
        self._closed(grove, tree.stopped or "exhausted")

    async def _judged(self, grove: Grove, tree: TreeSearch, base: Baseline) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        plays, seed = self.settings.confirm, self.settings.seed
        grove.verdict = await judge_tree(
            tree,
            base,
            self.judge,
            run=self.run_name,
            judge_name=self.settings.judge,
            candidates=self.settings.candidates,
            success_at=self.settings.success_at,
            recorded=list(self._runs.get(grove.record.task.id, {}).values()),
            earlier=self._recalled.gates.get(grove.position, {}),
            confirmer=Confirmer(grove.session, self.judge, seed, plays) if plays else None,
            chances=self.chances,
            emit=events.append,
        )
        return events

    async def _keep_partial(self) -> None:
        """Judge what open trees have found, without a word in the journal: the same command goes on with them."""
        for grove in self.groves:
            if grove.tree is not None and grove.baseline is not None and not grove.finished:
                grove.stopped, grove.partial = "error", True
                grove.tree.book_untold()
                await self._answering.off(self._judged(grove, grove.tree, grove.baseline))
                await self._answering.off(grove.worlds.close())

    def _emit_all(self, tree: TreeSearch, events: Sequence[dict[str, Any]]) -> None:
        """Journal the gate's events, unless these very ones are what the journal ends with."""
        if tree.grew or [event["node"] for event in events] != self._recalled.last_gates.get(tree.position, []):
            for event in events:
                self._emit(event)

    async def _close(self, grove: Grove, stopped: str) -> None:
        grove.finished = True
        self._live.discard(grove.position)
        await self._answering.off(grove.worlds.close())
        self._closed(grove, stopped)
        self._grant()

    def _closed(self, grove: Grove, stopped: str) -> None:
        grove.stopped = stopped
        self._emit({"event": "done", "t": grove.position, "stopped": stopped})
        if self._progress is not None:
            self._progress(self.status())

    # -- plumbing ----------------------------------------------------------------------------------------------------

    def _emit(self, event: Mapping[str, Any]) -> None:
        self.journal.append(event)

    def _sync(self) -> None:
        now = time.monotonic()
        if now - self._synced > SYNC_SECONDS:
            self._synced = now
            self.journal.sync()

    def status(self) -> dict[str, Any]:
        """Where the run stands, for a progress line."""
        trees = [grove.tree for grove in self.groves if grove.tree is not None]
        return {
            "done": sum(grove.finished for grove in self.groves),
            "total": len(self.groves),
            "transitions": sum(tree.spent for tree in trees),
            "calls": sum(tree.calls for tree in trees),
            "cost_usd": self.purse.spent_cost_usd,
            "improved": sum(grove.verdict.node is not None for grove in self.groves),
            "seconds": time.monotonic() - self._started,
        }


async def _look(session: Session) -> None:
    """Open one world to learn its tools and prompt (a resumed tree has not opened any yet)."""
    await close(await session.fresh())
