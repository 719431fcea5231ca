"""OmegaPRM: divide-and-conquer Monte Carlo search for the first wrong step of a failed run.

Luo et al. 2024 (arXiv 2406.06592), sections 3.2 and 3.3. With MC(s) the share of correct rollouts from state s:

    MC(s)   = correct rollouts from s / rollouts from s                      (equation 1)
    Q(s, r) = alpha^(1 - MC(s)) * beta^(len(r) / L)                          (equation 2)
    U(s)    = c_puct * sqrt(sum_i N(s_i)) / (1 + N(s))                       (equation 3)

A pool holds pairs of a state s with MC(s) > 0 and a failed rollout r from it. Select: take the pair with the highest
Q + U out of the pool; N(s) grows by one. Binary search: value the state in the middle of what is left of r by
`rollouts` rollouts of its own; with MC = 0 the error lies left of it, else right. Maintain: the failed rollouts met on
the way join the pool. A run of M steps costs at most `rollouts` * ceil(log2 M) rollouts.

What differs from the paper:

- The recorded run is searched first, whatever its Q + U and even when MC of its start is 0: what it did well may have
  brought it to a better state. It counts in no MC, since the policy did not draw it.
- Steps are the tree's, not paragraphs; L counts steps. The paper's L of 500 tokens is about 10 of its solution steps.
- A rollout counts at every state that it passes, not only where it began, and a state that others have passed already
  needs fewer of its own: nothing is paid twice. The rollout that is being searched does not save one, as it was chosen
  for having failed.
- A search stands between the last state of r with a correct rollout and the first one after it that was valued and has
  none. So a late correct rollout through a state mends a MC = 0 that was bad luck, and the record is searched again.
- Where everything is known already, a rollout is drawn from what is known and costs nothing (see SampledRuns).
- A rollout without a verdict counts in no MC; a state with such only ends the search of its rollout, undecided.

A wrong step that can still be mended has MC > 0 and is not "wrong" here; a good state from which the policy succeeds
with probability p is missed with probability (1 - p)^rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, pow, sqrt
from typing import ClassVar

from .algorithm import check_count, check_number
from .sampled_runs import SampledRuns
from .tree import Ask, Tree

NAME = "omega-prm"


@dataclass(slots=True)
class Run:
    """The search from one start: the state being valued, the rollout being searched, and the pool."""

    state: int = -1
    left: int = 0
    """Rollouts that the state still wants."""
    found: list[int] = field(default_factory=list)
    """Ends of the state's own rollouts."""
    path: list[int] = field(default_factory=list)
    pool: list[tuple[int, int]] = field(default_factory=list)
    """State and end of each rollout not searched yet."""
    seen: set[tuple[int, int]] = field(default_factory=set)
    chosen: dict[int, int] = field(default_factory=dict)
    """N(s): how many of the state's rollouts were searched."""


@dataclass(slots=True)
class Tally:
    """What all rollouts in a tree showed: counts by node, and which states were valued."""

    drawn: dict[tuple[int, int], int] = field(default_factory=dict)
    """Rollouts with a verdict, by the state where they began and the node where they ended."""
    correct: dict[int, int] = field(default_factory=dict)
    total: dict[int, int] = field(default_factory=dict)
    threshold: float = inf
    valued: dict[int, bool] = field(default_factory=dict)
    """States that had their rollouts; False: none of these had a verdict."""
    runs: dict[int, Run] = field(default_factory=dict)

    def count(self, tree: Tree, state: int, end: int, times: int) -> None:
        """Count rollouts on all nodes that they passed, from the state where they began to their end."""
        value = tree.value[end]
        correct = times if value is not None and value >= self.threshold else 0
        node, above = end, tree.parent[state]
        while node != above:
            self.total[node] = self.total.get(node, 0) + times
            self.correct[node] = self.correct.get(node, 0) + correct
            node = tree.parent[node]

    def judge_by(self, tree: Tree, threshold: float) -> None:
        """Count anew when what counts as correct has changed."""
        if threshold != self.threshold:
            self.threshold = threshold
            self.correct, self.total = {}, {}
            for (state, end), times in self.drawn.items():
                self.count(tree, state, end, times)

    def failed(self, tree: Tree, end: int) -> bool:
        """True when the run that ends there is known to be incorrect."""
        value = tree.value[end]
        return value is not None and value < self.threshold

    def bracket(self, path: Sequence[int]) -> tuple[int, int]:
        """The index of the last state on the path with a correct rollout (0 without any), and that of the first one
        after it that is known to have none; the path's end is taken to have none."""
        last = len(path) - 1
        low = max((index for index in range(last) if self.correct.get(path[index])), default=0)
        dead = (index for index in range(low + 1, last) if self.valued.get(path[index]))
        return low, next(dead, last)

    def middle(self, path: Sequence[int]) -> int | None:
        """The state that the binary search values next; None when it is over or cannot be decided."""
        if not path:
            return None
        low, high = self.bracket(path)
        node = path[(low + high) // 2]
        return node if high - low > 1 and node not in self.valued else None


@dataclass(frozen=True, kw_only=True)
class OmegaPRM(SampledRuns):
    """Values `tree.start` by rollouts, then searches the recorded run if it failed, then the pool, until it is empty.

    Rollouts are drawn as in BestOfN, whose `n` limits them here too; each ask is for one child. The rollouts of one
    state are open side by side, those of two states never: with a width beyond `rollouts` some asks stay unused.

    - `rollouts`: the paper's k, rollouts a state.
    - `searches`: how many rollouts are searched at most, the record included (the paper: 100). 1: only the record.
    - `success_at`: a rollout is correct when its end's value is at least that; None: the middle of the tree's range of
      values, and nothing is correct while all are equal.
    - `alpha`, `beta`, `length_scale` (L, in steps), `exploration` (c_puct): see the equations.

    `first_wrong_step(tree)` and `mc(tree, node)` read the result; `tree.memory["omega-prm"]` holds it, a Tally.
    """

    synchronous: ClassVar[bool] = True

    rollouts: int = 8
    searches: int | None = None
    success_at: float | None = 1.0
    alpha: float = 0.5
    beta: float = 0.9
    length_scale: float = 10.0
    exploration: float = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("rollouts", self.rollouts)
        check_count("searches", self.searches, optional=True)
        check_number("success_at", self.success_at)
        check_number("alpha", self.alpha, low=0.0, high=1.0)
        check_number("beta", self.beta, low=0.0, high=1.0)
        check_number("length_scale", self.length_scale, low=1.0)
        check_number("exploration", self.exploration, low=0.0)

    def _next(self, tree: Tree) -> Ask | None:
        if (ask := self.go_on(tree)) is not None:
            return ask
        tally, run = _tally(tree), _run(tree)
        while True:
            if (ask := self._begin(tree)) is not None:
                return ask
            limited = run.left > 0 and not self.may_begin(tree)
            if limited or tree.asks or tree.tips or not self._advance(tree, tally, run):
                return None

    def may_begin(self, tree: Tree) -> bool:
        """As BestOfN, while the state that is being valued wants more rollouts."""
        return _run(tree).left > 0 and super().may_begin(tree)

    def plan_ended(self, tree: Tree) -> str | None:
        """Once no failed run is left to search, or no search, or `n` rollouts have ended."""
        tally, run = _tally(tree), _run(tree)
        concluded = tree.start in tally.valued and run.state < 0 and tally.middle(run.path) is None
        if concluded and not self._failed_runs(tree, tally, run):
            return "no failed run is left to search"
        return super().plan_ended(tree)

    def _origin(self, tree: Tree) -> int:
        return _run(tree).state

    def _begun(self, tree: Tree) -> None:
        super()._begun(tree)
        _run(tree).left -= 1

    def _finish(self, tree: Tree, end: int, runs: int) -> None:
        if not tree.terminal[end] or tree.value[end] is None:
            return
        tally, run = _tally(tree), _run(tree)
        tally.judge_by(tree, self._threshold(tree))
        pair = (run.state, end)
        tally.drawn[pair] = tally.drawn.get(pair, 0) + runs
        tally.count(tree, *pair, runs)
        run.found.append(end)

    def _threshold(self, tree: Tree) -> float:
        if self.success_at is not None:
            return self.success_at
        return (tree.bounds.low + tree.bounds.high) / 2 if tree.bounds.scale else inf

    def _advance(self, tree: Tree, tally: Tally, run: Run) -> bool:
        """Conclude the state whose rollouts have ended and set the next one; False when nothing is left to search."""
        tally.judge_by(tree, self._threshold(tree))
        while True:
            self._conclude(tree, tally, run)
            node = tree.start if tree.start not in tally.valued else tally.middle(run.path)
            while node is None:
                if not self._select(tree, tally, run):
                    return False
                node = tally.middle(run.path)
            run.state, run.left = node, self.rollouts - _drawn_through(tree, tally, run, node)
            if run.left > 0:
                return True

    def _conclude(self, tree: Tree, tally: Tally, run: Run) -> None:
        if run.state < 0:
            return
        tally.valued[run.state] = _drawn_through(tree, tally, run, run.state) > 0
        for end in run.found:
            pair = (run.state, end)
            if not tree.spine[end] and pair not in run.seen:
                run.seen.add(pair)
                run.pool.append(pair)
        run.state, run.left, run.found = -1, 0, []

    def _select(self, tree: Tree, tally: Tally, run: Run) -> bool:
        """Take the next rollout to search; False when there is none, or no search is left."""
        pairs = self._failed_runs(tree, tally, run)
        if not pairs:
            return False
        state, end = pairs[0]
        if not tree.spine[end]:
            state, end = max(pairs, key=lambda pair: (self._score(tree, tally, run, *pair), -tree.order[pair[1]], pair))
            run.pool.remove((state, end))
        run.path = tree.path(end)[tree.depth[state] :]
        run.chosen[run.path[0]] = run.chosen.get(run.path[0], 0) + 1
        return True

    def _failed_runs(self, tree: Tree, tally: Tally, run: Run) -> list[tuple[int, int]]:
        """State and end of each run that may be searched next: the record's alone, else those of the pool."""
        if self.searches is not None and sum(run.chosen.values()) >= self.searches:
            return []
        spine = spine_path(tree, tree.start)
        if tally.failed(tree, spine[-1]) and tally.middle(spine) is not None:
            return [(spine[0], spine[-1])]
        return [(s, end) for s, end in run.pool if tally.correct.get(s) and tally.failed(tree, end)]

    def _score(self, tree: Tree, tally: Tally, run: Run, state: int, end: int) -> float:
        """Q(s, r) + U(s)."""
        share = tally.correct[state] / tally.total[state]
        length = tree.depth[end] - tree.depth[state]
        quality = pow(self.alpha, 1.0 - share) * pow(self.beta, length / self.length_scale)
        return quality + self.exploration * sqrt(sum(run.chosen.values())) / (1 + run.chosen.get(state, 0))


def mc(tree: Tree, node: int) -> tuple[int, int]:
    """How many of the finished rollouts through `node` were correct, and how many there were (equation 1's two halves).

    The recorded run and rollouts without a verdict are not counted. (0, 0) in a tree that OmegaPRM did not search.
    """
    tally = tree.memory.get(NAME, Tally())
    return tally.correct.get(node, 0), tally.total.get(node, 0)


def first_wrong_step(tree: Tree) -> int | None:
    """The recorded step, counted from the root, after which no rollout was correct although one before it was.

    None: the record did not fail, has no verdict, or the search has not narrowed it down to one step, which includes
    that no rollout was correct at all. The step is the first wrong one in the paper's sense (section 3.2): up to the
    chance of missing every correct rollout, see the module's docstring.
    """
    tally, path = tree.memory.get(NAME, Tally()), spine_path(tree, 0)
    if len(path) < 2 or not tally.failed(tree, path[-1]):
        return None
    low, high = tally.bracket(path)
    return low if high == low + 1 and tally.correct.get(path[low]) else None


def most_rollouts(steps: int, rollouts: int) -> int:
    """The most rollouts that finding the first wrong one of so many recorded steps takes (section 3.2: O(k log M)).

    `rollouts` at the start and at each state of a binary search, as long as no late rollout re-opens it.
    """
    return rollouts * (1 + (steps - 1).bit_length())


def spine_path(tree: Tree, start: int) -> list[int]:
    """The recorded states from `start` on, itself included."""
    path = [start]
    while (child := tree.spine_child(path[-1])) is not None:
        path.append(child)
    return path


def _tally(tree: Tree) -> Tally:
    tally: Tally = tree.memory.setdefault(NAME, Tally())
    return tally


def _run(tree: Tree) -> Run:
    return _tally(tree).runs.setdefault(tree.start, Run())


def _drawn_through(tree: Tree, tally: Tally, run: Run, node: int) -> int:
    """Rollouts with a verdict through a state, without the one that is being searched."""
    searched = bool(run.path) and not tree.spine[run.path[-1]]
    return tally.total.get(node, 0) - searched
