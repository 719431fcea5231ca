"""One tree: the search of one trajectory, as a state machine without I/O.

`start` tells the recorded spine; `next_jobs` turns asks into jobs; whoever works on a job sets its `answer`, and
`commit_next` commits answers strictly in ask order, one at a time, so that the tree does not depend on timing
(design.md section 4). What is committed is handed to `emit` as journal events; `recall` holds the tells of an earlier
session, which answer their asks for free, and `noted` the kinds of events that the journal has by node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import search
from ..search.tree import mix
from ..storage.canonical import seed_from
from ..storage.codec import action_key, score_to_dict
from ..storage.errors import RunConflict, UsageError
from ..storage.records import (
    Fidelity,
    Message,
    Node,
    Proposal,
    ProposalRequest,
    Score,
    Step,
    ToolSchema,
    Trajectory,
    Usage,
    lowest_fidelity,
)
from .answers import NO_KEYS, Answer, Grown, Job, answer_from, joined, tell_event

Emit = Callable[[dict[str, Any]], None]
Context = tuple[tuple[Step, ...], tuple[Message, ...]]
CONTEXTS = 512
"""Conversations that a tree remembers by node: a rollout asks at the child of the node it asked at before."""
REQUESTS = 0x5851F42D4C957F2D
"""Parts the seeds of requests from the tree's own draws, which hash the same node order."""
FRUITLESS_TELLS = 3
"""Tells of a sampling policy that brought nothing new, after which a node is closed."""


class TreeSearch:
    """The search of one trajectory. `position` is its place in the run's frozen list."""

    def __init__(
        self,
        record: Trajectory,
        position: int,
        algorithm: search.Algorithm,
        *,
        root_step: int,
        seed: int,
        width: int,
        budget: int,
        max_steps: int,
        sampling: bool,
        merge_states: bool = False,
        success_at: float,
        emit: Emit | None,
        settle: Callable[[Job, Answer], None] | None = None,
    ):
        self.record = record
        self.position = position
        self.algorithm = algorithm
        self.root_step = root_step
        self.seed = seed
        self.width = width
        self.budget = budget
        self.max_steps = max_steps
        self.sampling = sampling
        self.success_at = success_at
        self.tree = search.Tree(seed=seed_from(seed, record.id), merge_states=merge_states)
        self.prompt: tuple[Message, ...] = tuple(record.prompt)
        self.tools: tuple[ToolSchema, ...] = record.tools or ()
        self.public_task = replace(record.task, private={})
        self.steps: list[Step | None] = [None]
        self.truncated: list[bool] = [False]
        self.scores: dict[int, Mapping[str, Score]] = {}
        self.finals: dict[int, Any] = {}
        self.call_keys: dict[int, str] = {}
        self.spent = 0
        self.calls = 0
        self.usage: list[Usage] = []
        self.failures: list[str] = []
        self.stopped: str | None = None
        self.measured = any(step.tokens is not None for step in record.steps)
        """Some step has the tokens that a local model sampled."""
        self.grew = False
        self.rebound = 0
        """Places of recorded arguments that were re-bound in searched steps."""
        self.solved = 0
        """Searched leaves that are solved."""
        self.recall: dict[int, Mapping[str, Any]] = {}
        self.noted: Mapping[int, Collection[str]] = {}
        self._emit = emit
        self._settled = settle
        self._open: deque[Job] = deque()
        self._held: deque[Job] = deque()
        self._reserved = 0  # transitions spent, and those that open asks may still cost
        self._wanted: dict[int, int] = {}
        self._contexts: dict[int, Context] = {}
        self._asked: dict[int, int] = {}
        self._fruitless: dict[int, int] = {}
        self._dead: dict[int, frozenset[str]] = {}

    # -- growing -----------------------------------------------------------------------------------------------------

    def start(self, steps: Sequence[Step], value: float | None) -> None:
        """Tell the recorded steps from the root on, as a spine, at no budget cost; `value` is the baseline's score."""
        told = self.tree.spine([action_key(step.action) for step in steps], value)
        for node, step in zip(told, steps, strict=True):
            self._put(node, step, False)

    def next_jobs(self, admit: Callable[[Job], bool] | None) -> list[Job]:
        """New jobs, up to the width and within the budget. `admit` reserves a call (None: all are free); both budgets
        are hard.

        Asks are always taken to the full width; one that does not fit is held with all after it until a commit frees
        budget. So a run with a larger budget asks the same from the beginning, and can continue a smaller one.
        """
        if self.stopped is not None:
            return []
        held, opened = self._held, self._open
        for ask in self.algorithm.ask(self.tree, self.width - len(opened) - len(held)):
            held.append(self._job(ask))
        jobs: list[Job] = []
        while held and self._reserved + held[0].count <= self.budget and (admit is None or admit(held[0])):
            job = held.popleft()
            self._reserved += job.count
            opened.append(job)
            jobs.append(job)
        if not opened:
            self.stopped = "budget" if held else "exhausted"
        return jobs

    def _job(self, ask: search.Ask) -> Job:
        node, count = ask.node, ask.count
        first = self._asked.get(node, 0)
        self._asked[node] = first + count
        skip = 0
        if not self.sampling:
            skip = self._wanted.get(node, 0)
            self._wanted[node] = skip + count
        dead = self._dead.get(node, NO_KEYS)
        steps, messages = self._context(node)
        request = ProposalRequest(
            self.public_task,
            self.record.id,
            len(steps),
            str(node),
            messages,
            self.tools,
            count + skip,
            self.request_seed(node, first),
            {"first_sample": first},
            self._known_keys(node, dead),
            tokens=tuple([step.tokens for step in steps]) if self.measured else (),
        )
        job = Job(self, ask, count, skip, request, steps, dead)
        if ask.action is not None:
            job.again = self._known_action(node, ask.action)
        return job

    def _known_action(self, node: int, key: str) -> Proposal:
        child = self.tree.find(node, key)
        step = self.steps[child] if child is not None else None
        if step is None:
            raise UsageError(f"the algorithm asked for another outcome of {key!r}, which node {node} does not have")
        return Proposal(step.action, step.logprob, tokens=step.tokens)

    def known_state(self, state_key: str | None, terminal: bool) -> bool:
        """Whether `--merge-states` is on and a committed state with this key has a value already."""
        if not self.tree.merge_states:
            return False
        return self.tree.shared_value(search.Child("", terminal=terminal, state_key=state_key)) is not None

    def _known_keys(self, node: int, dead: frozenset[str]) -> frozenset[str]:
        known = self.tree.child_ids[node]
        if not known:
            return dead
        key = self.tree.key
        return dead.union([key[child] for child in known])

    def request_seed(self, node: int, first: int) -> int:
        """hash(run seed, trajectory, node path, first sample): widening later asks for something new."""
        return mix(self.tree.order[node] ^ REQUESTS, first) >> 1

    @property
    def idle(self) -> bool:
        """Whether no ask is open."""
        return not self._open

    # -- committing --------------------------------------------------------------------------------------------------

    def commit_next(self) -> list[tuple[int, Any]] | None:
        """Commit the oldest open ask if its answer is there: (node, world) for each live state, else None. Node -1: the
        state is known already, its world is to be closed.

        One at a time: the caller asks again after each commit, so that asks do not depend on what arrived together.
        """
        if not self._open or (answer := self._open[0].answer) is None or answer.short:
            return None
        job = self._open.popleft()
        if not self.sampling:
            self._wanted[job.ask.node] -= job.count
        self._book(job, answer)
        answer = joined(job.earlier, answer) if job.earlier is not None else answer
        self._reserved += answer.spent - job.ask.count
        return self._commit(job, answer)

    def rest_jobs(self, admit: Callable[[Job], bool] | None) -> list[Job]:
        """The job for what the oldest open ask still lacks, if its answer came short: a server or provider that gives
        one proposal at a time is asked again, under another seed, before the ask is committed. A call of its own: where
        `admit` refuses it, what there is is all."""
        job = self._open[0] if self._open else None
        if job is None or job.answer is None or not job.answer.short:
            return []
        rest = self._rest(job, job.answer)
        job.answer.short = 0
        if self.stopped is not None:
            return []
        self._book(job, job.answer)  # before more is reserved: what it did not use is free again
        if admit is not None and not admit(rest):
            return []
        self._open[0] = rest
        return [rest]

    def _rest(self, job: Job, answer: Answer) -> Job:
        first = job.request.sampling["first_sample"] + job.count - answer.short
        request = replace(
            job.request,
            n=answer.short,
            seed=self.request_seed(job.ask.node, first),
            sampling={"first_sample": first},
            exclude=job.request.exclude.union([child.key for child in answer.children], answer.dead),
        )
        earlier = joined(job.earlier, answer) if job.earlier is not None else answer
        dead = job.dead.union(answer.dead)
        return replace(job, count=answer.short, request=request, dead=dead, answer=None, earlier=earlier)

    def unanswered(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs that no earlier session has answered; the others have their answers now. Raises RunConflict."""
        for job in jobs:
            job.answer = self._recalled(job.ask)
        return [job for job in jobs if job.answer is None]

    def _recalled(self, ask: search.Ask) -> Answer | None:
        """The answer an earlier session journalled for this ask. Raises RunConflict when that was another ask."""
        event = self.recall.pop(ask.id, None)
        if event is not None and event["node"] != ask.node:
            raise RunConflict(
                f"ask {ask.id} of {self.record.id[:12]} was of node {event['node']}, now it is of node {ask.node}",
                hint="the run was made by another version of the algorithm or its plugin: start another --name",
            )
        return answer_from(event) if event is not None else None

    def _commit(self, job: Job, answer: Answer) -> list[tuple[int, Any]]:
        ask, children, tree = job.ask, answer.children, self.tree
        known, more = len(tree.key), self._more(ask.node, answer)
        if tree.merge_states:
            self._share(children)
        nodes = self.algorithm.tell(tree, ask.id, children, more=more, failed=answer.failed)
        if not answer.recalled:
            self.grew = True
            if self._emit is not None:
                self._emit(tell_event(job, answer, more, nodes))
        grown = []
        for node, child in zip(nodes, children, strict=True):
            new = node >= known and child.step is not None and node >= len(self.steps)
            if new and child.step is not None:
                self._put(node, child.step, child.truncated)
                self._settle(node, child)
                self.rebound += child.rebound
            if child.environment is not None:
                grown.append((node if new else -1, child.environment))
        return grown

    def _share(self, children: Sequence[Grown]) -> None:
        """Under `--merge-states` the first committed evaluation of a state counts, whoever was faster: a later one
        (both were in flight) is dropped, and the tree gives the child the value that it has."""
        for child in children:
            if child.scores and not child.terminal and self.known_state(child.state_key, False):
                child.value = child.scores = None

    def _book(self, job: Job, answer: Answer) -> None:
        if answer.booked:
            return
        answer.booked = True
        self.spent += answer.spent
        if self._settled is not None:
            self._settled(job, answer)
        if answer.calls:
            self.calls += answer.calls
            self.usage.append(answer.usage)
        if answer.failures:
            self.failures.extend(answer.failures)
        if answer.dead:
            self._dead[job.ask.node] = job.dead.union(self._dead.get(job.ask.node, NO_KEYS), answer.dead)

    def book_untold(self) -> None:
        """Count what open asks have cost whose answers came and cannot be told any more: an earlier one is missing."""
        for job in self._open:
            if job.answer is not None:
                self._book(job, job.answer)

    def _more(self, node: int, answer: Answer) -> bool:
        """Whether the node may have more children; counted for recalled answers, too, whose verdict is final."""
        if not answer.more or answer.failed:
            return answer.more
        for child in answer.children:
            if self.tree.find(node, child.key) is None:
                self._fruitless[node] = 0
                return True
        self._fruitless[node] = self._fruitless.get(node, 0) + 1
        return answer.recalled or self._fruitless[node] < FRUITLESS_TELLS

    def _put(self, node: int, step: Step, truncated: bool) -> None:
        if node != len(self.steps):
            raise AssertionError(f"node {node} told out of order")
        self.steps.append(step)
        self.measured = self.measured or step.tokens is not None
        self.truncated.append(truncated)

    def _settle(self, node: int, child: Grown) -> None:
        """Keep what is known of a new node. Its events follow its tell in the journal, unless they are there already:
        a kill may have come between a tell and them."""
        if child.call_key is not None:
            self.call_keys[node] = child.call_key
        if child.scores:
            self.scores[node] = child.scores
        if child.terminal:
            self.finals[node] = child.final_state
            self.solved += self._solves(node)
        emit = self._emit
        if emit is None:
            return
        noted = self.noted.get(node, ())
        if child.scores and "score" not in noted:
            scores = {name: score_to_dict(score) for name, score in child.scores.items()}
            emit({"event": "score", "t": self.position, "node": node, "scores": scores})
        if self.tree.status[node] == "pruned" and "prune" not in noted:
            emit({"event": "prune", "t": self.position, "node": node, "reason": self.tree.reason[node]})

    # -- reading -----------------------------------------------------------------------------------------------------

    def prefix(self, node: int) -> list[Step]:
        """All steps from step 0 to `node`: the record's before the root, then the tree's."""
        return self._along(self.tree.path(node))

    def _along(self, path: Sequence[int]) -> list[Step]:
        own = [step for node in path[1:] if (step := self.steps[node]) is not None]
        return [*self.record.steps[: self.root_step], *own] if self.root_step else own

    def _context(self, node: int) -> Context:
        """The steps from step 0 to `node` and the conversation up to there."""
        known = self._contexts.get(node)
        if known is not None:
            return known
        above = self._contexts.get(self.tree.parent[node])
        step = self.steps[node]
        if above is not None and step is not None:
            context = ((*above[0], step), (*above[1], step.action, *step.observations))
        else:
            steps = tuple(self._along(self.tree.path(node)))
            context = (steps, self._conversation(steps))
        if len(self._contexts) >= CONTEXTS:
            self._contexts.clear()
        self._contexts[node] = context
        return context

    def _conversation(self, steps: Sequence[Step]) -> tuple[Message, ...]:
        messages = list(self.prompt)
        for step in steps:
            messages.append(step.action)
            messages += step.observations
        return tuple(messages)

    def branch_step(self, node: int) -> int:
        """The step at which the path to `node` leaves the record."""
        spine = sum(self.tree.spine[n] for n in self.tree.path(node)[1:])
        return self.root_step + spine

    def fidelity(self, node: int) -> Fidelity | None:
        """The lowest class after the branch point of the path to `node`."""
        own = [n for n in self.tree.path(node)[1:] if not self.tree.spine[n]]
        return lowest_fidelity([step.fidelity for n in own if (step := self.steps[n]) is not None])

    def leaves(self) -> list[int]:
        """Finished searched leaves with a verdict: those whose answer has most votes (if the algorithm votes), of these
        the best guide value first; of equal ones those that keep most of the record, then the shallower, the older."""
        tree = self.tree
        found = [
            node
            for node in range(1, len(tree.key))
            if tree.terminal[node] and not tree.spine[node] and not tree.imputed[node]
        ]
        return sorted(found, key=self._rank)

    def _rank(self, node: int) -> tuple[float, float, int, int, int]:
        tree = self.tree
        return -tree.standing(node), -(tree.value[node] or 0.0), -self.branch_step(node), tree.depth[node], node

    def _solves(self, node: int) -> bool:
        """Whether every speaking reward is at least `success_at` (in a sum one may make up for another)."""
        scores = [score for name, score in self.scores.get(node, {}).items() if name != "guide"]
        values = [score.value for score in scores if score.value is not None]
        return bool(values) and min(values) >= self.success_at and all(score.error is None for score in scores)

    def rows(self, run: str) -> list[Node]:
        """The tree as records."""
        return [self._row(run, node) for node in range(len(self.tree.key))]

    def _row(self, run: str, node: int) -> Node:
        tree, step = self.tree, self.steps[node]
        return Node(
            run=run,
            trajectory_id=self.record.id,
            node=node,
            parent=tree.parent[node],
            depth=tree.depth[node],
            visits=tree.visits[node],
            value_sum=tree.value_sum[node],
            prior=tree.prior[node],
            key=tree.key[node] or "",
            value=tree.value[node],
            terminal=tree.terminal[node],
            truncated=self.truncated[node],
            spine=tree.spine[node],
            imputed=tree.imputed[node],
            samples=tree.samples[node],
            status=tree.status[node],
            reason=tree.reason[node],
            fidelity=step.fidelity if step else None,
            call_key=self.call_keys.get(node),
            step=step,
        )
