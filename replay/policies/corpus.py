"""A policy without a model: it proposes what other recorded runs did in the same situation.

Situations are looked up from the most to the least alike; each is worth less than the one before it:

1. same task, same successful calls so far (in the same order, else in any): the next action of those runs;
2. same task, same last observation or same last action: the next action;
3. same task: any action of any run that this branch has not taken yet, the likelier the more of what preceded it
   there has been done here;
4. other tasks: the tool that followed the same last tool, its arguments bound from this context (`binding.py`).

Ids in recorded actions that came out otherwise in this branch are re-bound (`suffix.py`).

An action's score is the weight of the runs that took it times their smoothed success rate; the prior is the score's
share among all candidates of the situation, whether asked for now, before or never.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ...storage.codec import action_key
from ...storage.errors import PolicyFailed, UsageError
from ...storage.records import Message, Proposal, ProposalRequest, ToolCall, Trajectory
from ..naming import Names
from ..rebinding import bound
from .binding import resolve
from .corpus_index import CorpusIndex, Group, Notes, Occurrence, Situation, Tally, TaskKey, build_index, digest_of
from .suffix import names_here, twins_of

SAME_SEQUENCE, SAME_BAG, SAME_LAST, SAME_TASK, OTHER_TASK = 1.0, 0.7, 0.3, 0.1, 0.1
"""What one run counts at levels 1 (ordered, unordered), 2, 3 and 4."""
MAX_RUNS_OF_TASK = 32
"""Runs of the task that level 3 looks through, the best first."""
MAX_TEMPLATES = 40
"""Templates that level 4 tries to bind in one context, the most usual first."""


@dataclass(slots=True)
class Candidate:
    """One possible action: the best level it was found at, its score and prior, and the run it is taken from."""

    key: str
    action: Message
    level: int
    weight: float
    source: tuple[str, int] | None = None
    best: float = 0.0
    runs: dict[str, float] = field(default_factory=dict)
    habit: Tally = field(default_factory=Tally)
    score: float = 0.0
    prior: float = 0.0
    ordinal: int = 1
    """The n-th time that its run took this action."""
    rebound: int = 0
    """Places of its arguments that were re-bound to ids of this branch."""


class CorpusPolicy:
    """See the module. `success_weight`: exponent of the success rate (0: only how often counts); `same_task_only`: no
    level 4; `limit`: candidates that a situation has at most. Raises UsageError for options out of range.

    Deterministic: ties are broken by a hash of the request's seed and the action.
    """

    sampling = False
    inline = True

    def __init__(self, success_weight: float = 1.0, same_task_only: bool = False, limit: int = 32):
        if not (math.isfinite(success_weight) and success_weight >= 0):
            raise UsageError(f"success_weight is a number from 0 up, not {success_weight!r}")
        if limit < 1:
            raise UsageError(f"limit is a number of candidates from 1 up, not {limit!r}")
        self.success_weight = float(success_weight)
        self.same_task_only = same_task_only
        self.limit = limit
        self._notes = Notes()
        self._index: CorpusIndex | None = None

    def prepare(self, records: Iterable[Trajectory]) -> None:
        """Build the index from every recorded run. Replaces what was known before."""
        self._index = build_index(records, self._notes)

    def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        """At most `n` of each situation's candidates, the best first. Raises PolicyFailed before `prepare`."""
        return [self._one(request) for request in requests]

    def candidates(self, request: ProposalRequest) -> list[Candidate]:
        """All candidates of the request's situation, the best first, whatever it excludes; at most `limit`."""
        return self._ranked(request, Situation(self._notes).advance(request.messages))

    def _one(self, request: ProposalRequest) -> list[Proposal]:
        situation = Situation(self._notes).advance(request.messages)
        ranked = self._ranked(request, situation)
        wanted = [candidate for candidate in ranked if candidate.key not in request.exclude][: request.n]
        return [
            Proposal(
                action=_with_fresh_ids(candidate.action, situation.call_ids, request.step),
                logprob=math.log(candidate.prior),
                source=candidate.source,
                rebound=candidate.rebound,
            )
            for candidate in wanted
        ]

    def _ranked(self, request: ProposalRequest, situation: Situation) -> list[Candidate]:
        if self._index is None:
            raise PolicyFailed("the corpus policy has seen no records", hint="call prepare(records) first")
        groups = self._index.groups_of(request.task, request.trajectory_id)
        known = {str(tool.get("function", tool).get("name")) for tool in request.tools}
        found: dict[str, Candidate] = {}
        for _, group in groups:
            for weight, level, occurrence in _same_task(group, situation):
                if not known or occurrence.tools <= known:
                    _count(found, weight, level, occurrence)
        if not self.same_task_only:
            for action, tally, share in _bound(self._index, {key for key, _ in groups}, situation):
                if not known or action.tool_calls[0].name in known:
                    _count_bound(found, action, tally, share, situation.done)
        ranked = sorted(self._scored(found.values()), key=lambda item: _order(item, request.seed))[: self.limit]
        ranked = self._rebound(ranked, situation)
        total = math.fsum(candidate.score for candidate in ranked)
        for candidate in ranked:
            candidate.prior = candidate.score / total
        return ranked

    def _rebound(self, ranked: Sequence[Candidate], situation: Situation) -> list[Candidate]:
        """Recorded actions in the ids of this branch; of two that are one action then, the better one."""
        assert self._index is not None
        twins, names, kept = twins_of(situation.answers), dict[str, Names](), dict[str, Candidate]()
        for candidate in ranked:
            if candidate.source is not None and candidate.action.tool_calls:
                run = candidate.source[0]
                if run not in names:
                    names[run] = names_here(self._index.answers[run], twins, digest_of)
                candidate.action, candidate.rebound = bound(candidate.action, names[run])
            if candidate.rebound:
                candidate.key = action_key(candidate.action)
                if candidate.ordinal <= situation.done.get(candidate.key, 0):
                    continue
            kept.setdefault(candidate.key, candidate)
        return list(kept.values())

    def _scored(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        assert self._index is not None
        for candidate in candidates:
            tally = Tally(0, candidate.habit.judged, candidate.habit.successes)
            for run_id in candidate.runs:
                tally.add(self._index.success[run_id])
            rate = (tally.successes + 1) / (tally.judged + 2)
            candidate.score = candidate.weight * rate**self.success_weight
            yield candidate


def _same_task(group: Group, situation: Situation) -> Iterator[tuple[float, int, Occurrence]]:
    """(weight, level, occurrence) for levels 1 to 3; an occurrence may come at several levels."""
    for base, occurrences in (
        (SAME_SEQUENCE, group.by_sequence.get(situation.sequence, ())),
        (SAME_BAG, group.by_bag.get(situation.bag, ())),
    ):
        for occurrence in occurrences:
            if _is_new(occurrence, situation):
                yield base * _closeness(occurrence, situation), 1, occurrence
    for occurrences in (
        group.by_observation.get(situation.last_observation, ()),
        group.by_action.get(situation.last_action, ()),
    ):
        for occurrence in occurrences:
            if _is_new(occurrence, situation):
                yield SAME_LAST * _closeness(occurrence, situation), 2, occurrence
    for run in list(group.runs.values())[:MAX_RUNS_OF_TASK]:
        ahead = 0
        for occurrence in run:
            if _is_new(occurrence, situation):
                yield SAME_TASK / (1 + ahead), 3, occurrence
                ahead += 1


def _is_new(occurrence: Occurrence, situation: Situation) -> bool:
    """An action is repeated only as often as its own run repeated it."""
    return occurrence.ordinal > situation.done.get(occurrence.key, 0)


def _closeness(occurrence: Occurrence, situation: Situation) -> float:
    """1 after the same observation or action, less with every message that was spoken more or less than here."""
    if situation.last_action and occurrence.last_action == situation.last_action:
        return 1.0
    if situation.last_observation and occurrence.last_observation == situation.last_observation:
        return 1.0
    return 0.8 / (1 + abs(occurrence.spoken - situation.spoken))


def _count(found: dict[str, Candidate], weight: float, level: int, occurrence: Occurrence) -> None:
    """A run counts once for an action, at its best weight; the action is taken from the occurrence of most weight."""
    place = (occurrence.run_id, occurrence.step)
    candidate = found.get(occurrence.key)
    if candidate is None:
        candidate = found[occurrence.key] = Candidate(occurrence.key, occurrence.action, level, 0.0, place)
    before = candidate.runs.get(occurrence.run_id, 0.0)
    if weight > candidate.best:
        candidate.best, candidate.action, candidate.source = weight, occurrence.action, place
        candidate.ordinal = occurrence.ordinal
    if weight > before:
        candidate.runs[occurrence.run_id] = weight
        candidate.weight += weight - before
    candidate.level = min(candidate.level, level)


def _bound(index: CorpusIndex, own: set[TaskKey], situation: Situation) -> Iterator[tuple[Message, Tally, float]]:
    """Level 4: (bound call, tally of the other tasks' runs that made it, their share of all that followed the tool)."""
    habits = []
    for template, by_task in index.habits.get(situation.last_tool, ()):
        others = [tally for key, tally in by_task.items() if key not in own]
        if others:
            habits.append((template, _sum(others)))
    total = sum(tally.runs for _, tally in habits)
    for template, tally in habits[:MAX_TEMPLATES]:
        for arguments in resolve(template, situation.facts):
            yield (
                Message("assistant", tool_calls=(ToolCall(None, template.tool, arguments),)),
                tally,
                tally.runs / total,
            )


def _sum(tallies: Sequence[Tally]) -> Tally:
    return Tally(
        sum(tally.runs for tally in tallies),
        sum(tally.judged for tally in tallies),
        sum(tally.successes for tally in tallies),
    )


def _count_bound(
    found: dict[str, Candidate], action: Message, tally: Tally, share: float, done: Container[str]
) -> None:
    """Calls that two templates bind to alike are one candidate; what was called here before is none."""
    key = action_key(action)
    if key in done:
        return
    candidate = found.setdefault(key, Candidate(key, action, 4, 0.0))
    candidate.weight += OTHER_TASK * share
    if candidate.level == 4:
        candidate.habit = _sum([candidate.habit, tally])


def _order(candidate: Candidate, seed: int) -> tuple[float, bytes]:
    tie = hashlib.blake2b(f"{seed}:{candidate.key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (-round(candidate.score, 12), tie)


def _with_fresh_ids(action: Message, used: set[str], step: int) -> Message:
    """Calls of a stitched branch come from several runs: an id that is taken, or missing, gets a new one."""
    if all(call.id is not None and call.id not in used for call in action.tool_calls):
        return action
    calls = [
        replace(call, id=_fresh(call.id or f"call_{step}_{number}", used, step))
        for number, call in enumerate(action.tool_calls)
    ]
    return replace(action, tool_calls=tuple(calls))


def _fresh(call_id: str, used: set[str], step: int) -> str:
    fresh = f"{call_id}-{step}" if call_id in used else call_id
    while fresh in used:
        fresh += "x"
    return fresh
