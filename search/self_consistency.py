"""Self-consistency: whole runs side by side, and a vote over what they end with.

Majority vote (Wang et al. 2022, arXiv 2203.11171, section 2): of m runs drawn from the policy, run i with the answer
a_i, the answer is argmax_a sum_i [a_i = a]. Weighted vote: each run votes with what a verifier gives it, argmax_a
sum_i [a_i = a] * f(run i) (Li et al. 2023, DIVERSE, arXiv 2206.02336, "voting verifier").

Stopping early (Aggarwal et al. 2023, Adaptive-Consistency, arXiv 2305.11860, the Beta criterion): with a runs for the
leading answer and b for the next, a uniform prior over the leader's share p of the two makes p Beta(a + 1, b + 1);
stop when P(p > 1/2) reaches a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ..storage.errors import UsageError
from .algorithm import check_number
from .sampled_runs import SampledRuns
from .tree import OPEN, Ask, Tree


@dataclass(slots=True)
class Poll:
    """Who has voted: runs by end and by answer. What an end answers is in `tree.answers`."""

    runs: dict[int, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unjudged: dict[int, int] = field(default_factory=dict)
    """Runs that cannot vote until their end has a value."""
    shift: float = 0.0
    """What is added to every weight, so that none is negative."""
    lead: tuple[int, int] = (0, 0)
    """The runs of the leading answer, and of the one after it."""
    stopped: bool = False


@dataclass(frozen=True, kw_only=True)
class SelfConsistency(SampledRuns):
    """Draws `n` runs (None: as many as the budget allows) and fills `tree.votes`, so that `tree.best()` is the best run
    of the answer with the most votes; answers with equally many compete by their best runs' values.

    - `vote`: "majority" (each run has one vote) or "weighted" (its value; as soon as the tree has met a negative value,
      its value minus the lowest one). A run without a value does not vote where votes are weighted.
    - `answer`: what an end answers, None or "" to abstain; called once an end. Without it `tree.answer(node)`: the
      state key of the end, else the key of the last action.
    - `stop_early`: no run begins, and none that is open goes on, once P(p > 1/2) of the module's docstring is at least
      that (the paper: 0.95), or, with `n` and majority vote, once no other answer can reach the leading one. 1.0: only
      the latter, which never changes the answer. p counts runs, weighted or not.

    Runs that come to the same end vote each, merged duplicates (`samples`) too, and so do those that are drawn from
    what is known (see SampledRuns). The record does not vote. Without `n` the search ends when nothing is left to play.
    """

    vote: str = "majority"
    answer: Callable[[Tree, int], str | None] | None = None
    stop_early: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("stop_early", self.stop_early, low=0.5, high=1.0)
        if self.vote not in ("majority", "weighted"):
            raise UsageError(f"vote must be majority or weighted, not {self.vote!r}")
        if self.answer is not None and not callable(self.answer):
            raise UsageError(f"answer must be a function of the tree and a node, not {self.answer!r}")

    def may_begin(self, tree: Tree) -> bool:
        """As BestOfN, until the vote is decided."""
        return not self._decided(tree) and super().may_begin(tree)

    def _begin(self, tree: Tree) -> Ask | None:
        if self.n is None and tree.status[tree.start] != OPEN:
            return None  # known runs could be drawn forever
        return super()._begin(tree)

    def plan_ended(self, tree: Tree) -> str | None:
        """Once the vote is decided, or `n` runs have ended."""
        decided = _poll(tree).stopped and not tree.asks
        return "the vote is decided" if decided else super().plan_ended(tree)

    def go_on(self, tree: Tree) -> Ask | None:
        """As every rollout; once the vote is decided, those under way are given up."""
        if not self._decided(tree):
            return super().go_on(tree)
        while tree.tips:
            tree.release(tree.tips.popleft())
        return None

    def _after(self, tree: Tree, ask: Ask, ids: Sequence[int], ended: bool) -> None:
        poll = _poll(tree)
        if self.vote == "weighted" and poll.shift != (shift := max(0.0, -tree.bounds.low)):
            poll.shift = shift
            tree.votes.clear()
            for node, runs in poll.runs.items():
                self._add(tree, poll, tree.answers[node], node, runs)
        super()._after(tree, ask, ids, ended)

    def _finish(self, tree: Tree, end: int, runs: int) -> None:
        if not tree.terminal[end]:
            return
        poll = _poll(tree)
        runs += poll.unjudged.pop(end, 0)
        if self.vote == "weighted" and tree.value[end] is None:
            poll.unjudged[end] = runs
            return
        if end not in tree.answers:
            tree.answers[end] = tree.answer(end) if self.answer is None else self.answer(tree, end) or ""
        if answer := tree.answers[end]:
            poll.runs[end] = poll.runs.get(end, 0) + runs
            poll.counts[answer] = poll.counts.get(answer, 0) + runs
            self._add(tree, poll, answer, end, runs)
            poll.lead = _lead(tree, poll)

    def _add(self, tree: Tree, poll: Poll, answer: str, node: int, runs: int) -> None:
        value = tree.value[node]
        weight = 1.0 if self.vote == "majority" or value is None else value + poll.shift
        tree.votes[answer] = tree.votes.get(answer, 0.0) + runs * weight

    def _decided(self, tree: Tree) -> bool:
        poll = _poll(tree)
        first, second = poll.lead
        if self.stop_early is None or poll.stopped or not first:
            return poll.stopped
        poll.stopped = confidence(first, second) >= self.stop_early
        if self.n is not None and self.vote == "majority":
            to_come = self.n - tree.memory.get("best-of-n", 0) + len(tree.asks) + len(tree.tips)
            poll.stopped = poll.stopped or first - second > to_come
        return poll.stopped


@lru_cache(maxsize=1024)
def confidence(first: int, second: int) -> float:
    """P(p > 1/2) for p distributed as Beta(first + 1, second + 1), exact but for the last rounding.

    Beta's distribution function at whole-number parameters is a binomial tail: it is the chance of at most `first`
    heads in first + second + 1 tosses of a fair coin.
    """
    tosses = first + second + 1
    ways = total = 1
    for heads in range(first):
        ways = ways * (tosses - heads) // (heads + 1)
        total += ways
    return total / (1 << tosses)


def _lead(tree: Tree, poll: Poll) -> tuple[int, int]:
    """How many runs gave the answer with the most votes, and how many the most frequent other one."""
    leader = max(tree.votes, key=lambda answer: (tree.votes[answer], poll.counts[answer], answer), default=None)
    others = (count for answer, count in poll.counts.items() if answer != leader)
    return (0 if leader is None else poll.counts[leader]), max(others, default=0)


def _poll(tree: Tree) -> Poll:
    poll: Poll = tree.memory.setdefault("self-consistency", Poll())
    return poll
