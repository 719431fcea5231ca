"""One tree: the search of one trajectory, as a state machine without I/O.

`start` tells the recorded spine; `next_jobs` turns asks into jobs; `deliver` takes an answer, `commit_next` commits
answers strictly in ask order, one at a time, so that the tree does not depend on timing (design.md section 4). What is
committed is handed to `emit` as journal events; `recall` holds the tells of an earlier session, which answer their asks
for free, and `noted` the kinds of events that the journal has by node.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from .. import search
from ..search.tree import mix
from ..storage.canonical import seed_from
from ..storage.codec import (
    action_key,
    score_from,
    score_to_dict,
    usage_from,
    usage_to_dict,
)
from ..storage.exact_json import step_from_json, step_to_json
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

Emit = Callable[[dict[str, Any]], None]
FRUITLESS_TELLS = 3
"""Tells of a sampling policy that brought nothing new, after which a node is closed."""


NO_USAGE = Usage()


@dataclass(slots=True)
class Grown:
    """One child as the search engine got it: a new state, or a duplicate of a known key (`step` None)."""

    key: str
    prior: float | None
    samples: int = 1
    step: Step | None = None
    terminal: bool = False
    truncated: bool = False
    value: float | None = None
    state_key: str | None = None
    final_state: Any = None
    scores: Mapping[str, Score] | None = None
    call_key: str | None = None
    environment: Any = None


@dataclass(slots=True)
class Answer:
    """What became of one ask. `spent` counts transitions paid for; `recalled`: an earlier session journalled it.

    `failures`: every error, coded; `failed`: why there is no child at all; `dead`: keys of actions that the world could
    not execute, which are not asked for again.
    """

    children: list[Grown] = field(default_factory=list)
    more: bool = True
    failed: str | None = None
    failures: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    spent: int = 0
    calls: int = 0
    usage: Usage = NO_USAGE
    recalled: bool = False


@dataclass(slots=True)
class Job:
    """One ask to be worked on: the request for the policy, and how many of its first proposals belong to others.

    `path` are the nodes from the root to the asked one, `steps` all steps from step 0 to it.
    """

    tree: TreeSearch
    ask: search.Ask
    count: int
    skip: int
    request: ProposalRequest
    path: list[int]
    steps: list[Step]
    dead: frozenset[str] = frozenset()


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
        emit: Emit | None,
        settle: Callable[[Job, Answer], None] = lambda job, answer: None,
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
        self.tree = search.Tree(seed=seed_from(seed, record.id))
        self.prompt: tuple[Message, ...] = record.prompt
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
        self.grew = False
        self._solved = 0
        self._looked_at = 1
        self.recall: dict[int, Mapping[str, Any]] = {}
        self.noted: Mapping[int, Collection[str]] = {}
        self._emit = emit
        self._settled = settle
        self._open: dict[int, Job] = {}
        self._held: deque[Job] = deque()
        self._reserved = 0
        self._wanted: dict[int, int] = {}
        self._seeds = [seed_from(seed, record.id)]
        self._answers: dict[int, Answer] = {}
        self._asked: dict[int, int] = {}
        self._fruitless: dict[int, int] = {}
        self._dead: dict[int, frozenset[str]] = {}

    # -- growing -----------------------------------------------------------------------------------------------------

    def start(self, steps: Sequence[Step], value: float | None) -> None:
        """Tell the recorded steps from the root on, as a spine, at no budget cost; `value` is the baseline's score."""
        told = self.tree.spine([action_key(step.action) for step in steps], value)
        for node, step in zip(told, steps, strict=True):
            self._put(node, step, False)

    def next_jobs(self, admit: Callable[[Job], bool]) -> list[Job]:
        """New jobs, up to the width and within the budget. `admit` reserves a call; both budgets are hard.

        Asks are always taken to the full width; one that does not fit is held with all after it until a commit frees
        budget. So a run with a larger budget asks the same from the beginning, and can continue a smaller one.
        """
        if self.stopped is None:
            for ask in self.algorithm.ask(self.tree, self.width - len(self._open) - len(self._held)):
                self._held.append(self._job(ask))
        jobs: list[Job] = []
        while self._held and self.stopped is None and self._fits(self._held[0], admit):
            job = self._held.popleft()
            self._open[job.ask.id] = job
            self._reserved += job.count
            jobs.append(job)
        if self.stopped is None and not self._open:
            self.stopped = "budget" if self._held else "exhausted"
        return jobs

    def _fits(self, job: Job, admit: Callable[[Job], bool]) -> bool:
        return self.spent + self._reserved + job.count <= self.budget and admit(job)

    def _job(self, ask: search.Ask) -> Job:
        count = ask.count
        first = self._asked.get(ask.node, 0)
        self._asked[ask.node] = first + count
        key = self.tree.key
        dead = self._dead.get(ask.node, frozenset())
        exclude = dead.union([key[child] for child in self.tree.children(ask.node)])
        skip = 0 if self.sampling else self._wanted.get(ask.node, 0)
        self._wanted[ask.node] = self._wanted.get(ask.node, 0) + count
        path = self.tree.path(ask.node)
        steps = self._along(path)
        request = ProposalRequest(
            task=self.public_task,
            trajectory_id=self.record.id,
            step=len(steps),
            node=str(ask.node),
            messages=self._conversation(steps),
            tools=self.tools,
            n=count + skip,
            seed=self.request_seed(ask.node, first),
            sampling={"first_sample": first},
            exclude=exclude,
        )
        return Job(self, ask, count, skip, request, path, steps, dead)

    def request_seed(self, node: int, first: int) -> int:
        """hash(run seed, trajectory, node path, first sample): widening later asks for something new."""
        return mix(self._seeds[node], first) >> 1

    @property
    def idle(self) -> bool:
        """Whether no ask is open."""
        return not self._open

    # -- committing --------------------------------------------------------------------------------------------------

    def deliver(self, ask_id: int, answer: Answer) -> None:
        """Take one answer; it waits until all earlier asks are answered."""
        self._answers[ask_id] = answer

    def commit_next(self) -> list[tuple[int, Any]] | None:
        """Commit the oldest open ask if its answer is there: (node, world) for each new live state, else None.

        One at a time: the caller asks again after each commit, so that asks do not depend on what arrived together.
        """
        if not self._open or (first := next(iter(self._open))) not in self._answers:
            return None
        job = self._open.pop(first)
        self._reserved -= job.count
        self._wanted[job.ask.node] -= job.count
        return self._commit(job, self._answers.pop(first))

    def answered(self, ask_id: int) -> Answer | None:
        """The answer an earlier session journalled for this ask."""
        event = self.recall.pop(ask_id, None)
        return answer_from(event) if event is not None else None

    def _commit(self, job: Job, answer: Answer) -> list[tuple[int, Any]]:
        ask, known = job.ask, len(self.tree.key)
        more = self._more(ask.node, answer)
        children = [
            search.Child(child.key, child.prior, child.value, child.terminal, child.state_key, child.samples)
            for child in answer.children
        ]
        nodes = self.algorithm.tell(self.tree, ask.id, children, more=more, failed=answer.failed)
        self._settled(job, answer)
        self.spent += answer.spent
        self.calls += answer.calls
        if answer.calls:
            self.usage.append(answer.usage)
        self.failures.extend(answer.failures)
        if answer.dead:
            self._dead[ask.node] = self._dead.get(ask.node, frozenset()).union(answer.dead)
        self.grew = self.grew or not answer.recalled
        if self._emit is not None and not answer.recalled:
            self._emit(self._tell_event(job, answer, more, nodes))
        grown = []
        for node, child in zip(nodes, answer.children, strict=True):
            if node >= known and child.step is not None and node >= len(self.steps):
                self._put(node, child.step, child.truncated)
                self._settle(node, child)
                if child.environment is not None:
                    grown.append((node, child.environment))
        return grown

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
        self.truncated.append(truncated)
        tree = self.tree
        self._seeds.append(mix(self._seeds[tree.parent[node]], key_hash(tree.key[node])))

    def _settle(self, node: int, child: Grown) -> None:
        """Keep what is known of a new node. Its events follow its tell in the journal, unless they are there already:
        a kill may have come between a tell and them."""
        if child.call_key is not None:
            self.call_keys[node] = child.call_key
        if child.terminal:
            self.finals[node] = child.final_state
        if child.scores:
            self.scores[node] = child.scores
        emit, noted = self._emit, self.noted.get(node, ())
        if emit is None:
            return
        if child.scores and "score" not in noted:
            scores = {name: score_to_dict(score) for name, score in child.scores.items()}
            emit({"event": "score", "t": self.position, "node": node, "scores": scores})
        if self.tree.status[node] == "pruned" and "prune" not in noted:
            emit({"event": "prune", "t": self.position, "node": node, "reason": self.tree.reason[node]})

    def _tell_event(self, job: Job, answer: Answer, more: bool, nodes: Sequence[int]) -> dict[str, Any]:
        event: dict[str, Any] = {
            "event": "tell",
            "t": self.position,
            "ask": job.ask.id,
            "node": job.ask.node,
            "nodes": list(nodes),
            "more": more,
            "spent": answer.spent,
            "children": [child_to_dict(child) for child in answer.children],
        }
        if answer.failed:
            event["failed"] = answer.failed
        if answer.failures:
            event["failures"] = answer.failures
        if answer.dead:
            event["dead"] = answer.dead
        if answer.calls:
            event["calls"] = answer.calls
            event["usage"] = usage_to_dict(answer.usage)
        return event

    # -- reading -----------------------------------------------------------------------------------------------------

    def prefix(self, node: int) -> list[Step]:
        """All steps from step 0 to `node`: the record's before the root, then the tree's."""
        return self._along(self.tree.path(node))

    def _along(self, path: Sequence[int]) -> list[Step]:
        own = [step for node in path[1:] if (step := self.steps[node]) is not None]
        return [*self.record.steps[: self.root_step], *own] if self.root_step else own

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
        """Finished searched leaves with a verdict, best guide value first; of equal ones those that keep most of the
        record, then the shallower, then the older."""
        tree = self.tree
        found = [
            node
            for node in range(1, len(tree.key))
            if tree.terminal[node] and not tree.spine[node] and not tree.imputed[node]
        ]
        return sorted(found, key=lambda n: (-(tree.value[n] or 0.0), -self.branch_step(n), tree.depth[n], n))

    def solved_leaves(self, success_at: float) -> int:
        """Searched leaves whose every speaking reward is at least `success_at` (in a sum one may make up for another).

        Looks only at nodes that are new since the last call.
        """
        for node in range(self._looked_at, len(self.steps)):
            if not self.tree.terminal[node] or self.tree.spine[node]:
                continue
            parts = [score for name, score in self.scores.get(node, {}).items() if name != "guide"]
            self._solved += _all_at(parts, success_at)
        self._looked_at = len(self.steps)
        return self._solved

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


def key_hash(key: str) -> int:
    """64 bits of BLAKE2b: equal on every platform."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _all_at(parts: Sequence[Score], success_at: float) -> bool:
    values = [score.value for score in parts if score.value is not None]
    return bool(values) and all(score.error is None for score in parts) and min(values) >= success_at


def prior_of(proposal: Proposal) -> float | None:
    """The policy's probability of a proposal."""
    return None if proposal.logprob is None else math.exp(min(0.0, proposal.logprob))


def child_to_dict(child: Grown) -> dict[str, Any]:
    """What a tell event keeps of a child: enough to grow the tree again without policy, world or reward."""
    row: dict[str, Any] = {"key": child.key, "prior": child.prior, "samples": child.samples}
    if child.step is None:
        return row
    row["step"] = step_to_json(child.step)
    row["value"] = child.value
    if child.terminal:
        row["terminal"], row["truncated"], row["final_state"] = True, child.truncated, child.final_state
    if child.state_key is not None:
        row["state_key"] = child.state_key
    if child.call_key is not None:
        row["call_key"] = child.call_key
    if child.scores:
        row["scores"] = {name: score_to_dict(score) for name, score in child.scores.items()}
    return row


def answer_from(event: Mapping[str, Any]) -> Answer:
    """The inverse of a tell event."""
    children = [
        Grown(
            key=row["key"],
            prior=row["prior"],
            samples=row["samples"],
            step=step_from_json(row["step"]) if "step" in row else None,
            terminal=row.get("terminal", False),
            truncated=row.get("truncated", False),
            value=row.get("value"),
            state_key=row.get("state_key"),
            final_state=row.get("final_state"),
            scores={name: score_from(score) for name, score in row.get("scores", {}).items()},
            call_key=row.get("call_key"),
        )
        for row in event["children"]
    ]
    usage = usage_from(event.get("usage")) or Usage()
    more, failed, spent, calls = event["more"], event.get("failed"), event["spent"], event.get("calls", 0)
    failures, dead = list(event.get("failures", ())), list(event.get("dead", ()))
    return Answer(children, more, failed, failures, dead, spent, calls, usage, recalled=True)
