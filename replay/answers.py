"""What becomes of an ask: the job that goes out, the answer that comes back, and the answer's form in the journal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import search
from ..storage.codec import score_from, score_to_dict, usage_from, usage_to_dict
from ..storage.exact_json import step_from_json, step_to_json
from ..storage.records import Proposal, ProposalRequest, Score, Step, Trajectory, Usage
from .calls import add_usage

if TYPE_CHECKING:
    from .tree_search import TreeSearch

NO_USAGE = Usage()
NO_KEYS: frozenset[str] = frozenset()


@dataclass(slots=True)
class Grown(search.Child):
    """One child as the search engine got it: a new state, or a duplicate of a known key (`step` None)."""

    step: Step | None = None
    truncated: bool = False
    final_state: Any = None
    scores: Mapping[str, Score] | None = None
    call_key: str | None = None
    environment: Any = None
    measured: bool = False
    """The prior is a local model's measurement, which batches of another size round differently."""
    rebound: int = 0
    """Places of a recorded action's arguments that were re-bound to ids of this branch."""


@dataclass(slots=True)
class Unjudged:
    """Children of one ask whose verdict waits for rewards that take large batches; `scores`: what others said."""

    children: list[Grown]
    items: list[Trajectory]
    scores: list[dict[str, Score]]


@dataclass(slots=True)
class Answer:
    """What became of one ask. `spent` counts transitions paid for; `recalled`: an earlier session journalled it.

    `failures`: every error, coded; `failed`: why there is no child at all; `dead`: keys of actions that the world could
    not execute, which are not asked for again. `short`: how many proposals of a sampling policy are still wanted.
    `booked`: what it cost is counted already.
    """

    children: list[Grown] = field(default_factory=list)
    more: bool = True
    failed: str | None = None
    failures: Sequence[str] = ()
    dead: Sequence[str] = ()
    spent: int = 0
    calls: int = 0
    usage: Usage = NO_USAGE
    recalled: bool = False
    unjudged: Unjudged | None = None
    short: int = 0
    booked: bool = False


@dataclass(slots=True)
class Job:
    """One ask to be worked on: the request for the policy, and how many of its first proposals belong to others.

    `steps` are all steps from step 0 to the asked node.
    """

    tree: TreeSearch
    ask: search.Ask
    count: int
    skip: int
    request: ProposalRequest
    steps: tuple[Step, ...]
    dead: frozenset[str] = NO_KEYS
    answer: Answer | None = None
    again: Proposal | None = None
    """The known action of which one more outcome is wanted: no policy is asked."""
    earlier: Answer | None = None
    """What came before of the same ask, which gave fewer proposals than were wanted."""

    @property
    def path(self) -> list[int]:
        """The nodes from the root to the asked one (ancestors never change: safe in a worker thread)."""
        return self.tree.tree.path(self.ask.node)


def joined(earlier: Answer, rest: Answer) -> Answer:
    """Two answers to one ask as one."""
    children = [*earlier.children, *rest.children]
    return Answer(
        children,
        rest.more,
        None if children else rest.failed or earlier.failed,
        [*earlier.failures, *rest.failures],
        [*earlier.dead, *rest.dead],
        earlier.spent + rest.spent,
        earlier.calls + rest.calls,
        add_usage([earlier.usage, rest.usage]),
    )


def prior_of(proposal: Proposal) -> float | None:
    """The policy's probability of a proposal."""
    return None if proposal.logprob is None else math.exp(min(0.0, proposal.logprob))


def child_to_dict(child: Grown) -> dict[str, Any]:
    """What a tell event keeps of a child: enough to grow the tree again without policy, world or reward."""
    row: dict[str, Any] = {"key": child.key, "prior": child.prior, "samples": child.samples}
    if child.measured:
        row["measured"] = True
    if child.rebound:
        row["rebound"] = child.rebound
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
            measured=row.get("measured", False),
            rebound=row.get("rebound", 0),
        )
        for row in event["children"]
    ]
    usage = usage_from(event.get("usage")) or Usage()
    more, failed, spent, calls = event["more"], event.get("failed"), event["spent"], event.get("calls", 0)
    failures, dead = list(event.get("failures", ())), list(event.get("dead", ()))
    return Answer(children, more, failed, failures, dead, spent, calls, usage, recalled=True)


def tell_event(job: Job, answer: Answer, more: bool, nodes: Sequence[int]) -> dict[str, Any]:
    """What the journal keeps of a committed ask."""
    event: dict[str, Any] = {
        "event": "tell",
        "t": job.tree.position,
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
        event["failures"] = list(answer.failures)
    if answer.dead:
        event["dead"] = list(answer.dead)
    if answer.calls:
        event["calls"] = answer.calls
        event["usage"] = usage_to_dict(answer.usage)
    return event
