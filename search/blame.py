"""Blame: rollouts from the states of a failed record, allotted so as to find the step that lost it.

V(k) is the mean value of rollouts from the state before step k; the step's drop is V(k) - V(k + 1), and V of the last
state is the record's own value. `blame_plan.py` says which state is valued next; here are the rollouts. They are drawn
as the policy draws them (SampledRuns), `batch` at a time, those of one state side by side, those of two states never,
so that the choice of the next state does not depend on which rollout was the fastest. Their states are nodes of the
record's tree. A rollout counts at each recorded state that it passes: one that repeats the recorded action went on from
the next state as the policy goes on from there. The record itself counts in no V, since the policy did not draw it.

A rollout without a verdict counts nowhere. A state from which nothing can be played is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..storage.errors import UsageError
from .algorithm import check_count, check_number
from .beliefs import Belief, Scale
from .blame_plan import UNDECIDED, UNJUDGED, Plan
from .omega_prm import spine_path
from .sampled_runs import SETTLED, SampledRuns
from .tree import Ask, Tree

NAME = "blame"
SETTLING_DRAWS = 24
"""Draws in a row without a new action after which a state's further actions are drawn from the known ones, at no cost.
Fewer save calls of a policy that hardly varies, and fix its chances by the few draws that were seen: every rollout that
passes the state then inherits their luck, and more rollouts make no value truer."""
Evidence = Mapping[str, Mapping[str, Sequence[float]]]
"""By the seed of the tree, then by the number of the state: the sum and number of values of rollouts made elsewhere."""


@dataclass(slots=True)
class Ledger:
    """What the rollouts in one tree showed, by node id: of the recorded states and, in `count` and `total`, of the
    actions that left the record there."""

    count: dict[int, int] = field(default_factory=dict)
    total: dict[int, float] = field(default_factory=dict)
    begun: dict[int, int] = field(default_factory=dict)
    reused: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    """The state whose rollouts each ask belongs to: what it cost is the cost of that state's value."""
    stuck: set[int] = field(default_factory=set)
    least: int = 1
    """Values from which on a state that was never chosen counts as valued: a few, from rollouts that passed it, would
    open gaps that take more rollouts to close than they are worth."""
    low: float = 0.0
    high: float = 1.0
    state: int = -1
    left: int = 0
    scan: bool = False
    probes: int = 0
    shown: bool = False
    """The decided step had a batch of rollouts in this very tree, to see what can be done instead."""
    ended: str | None = None


@dataclass(frozen=True, kw_only=True)
class Blame(SampledRuns):
    """Values recorded states until one step's drop is credibly the largest, or no rollout is left that could tell.

    - `rollouts`: at most so many for a state; `batch`: so many at a time.
    - `confidence`: how sure to be of the largest drop.
    - `success_at`: the value of a success; with 0 it spans the range of values unless values leave it.
    - `probes`: states valued only to see whether values fall along the record.
    - `uniform`: every state gets all its rollouts, from the start on; for comparison.
    - `known`: values of rollouts of the same policy that were made elsewhere, see Evidence.

    `tree.memory["blame"]` holds the Ledger; `beliefs` and `scale` read it.
    """

    synchronous: ClassVar[bool] = True
    estimates: ClassVar[bool] = True
    """A run that succeeds does not end the search."""

    rollouts: int = 16
    batch: int = 4
    confidence: float = 0.95
    success_at: float = 1.0
    probes: int = 1
    uniform: bool = False
    known: Evidence = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("rollouts", self.rollouts)
        check_count("batch", self.batch)
        check_number("success_at", self.success_at)
        check_number("confidence", self.confidence, low=0.5, high=1.0)
        if self.confidence == 1.0:
            raise UsageError("confidence must be below 1: nothing is certain")

    def may_begin(self, tree: Tree) -> bool:
        """As BestOfN, while the state that is being valued wants more rollouts."""
        return self._ledger(tree).left > 0 and super().may_begin(tree)

    def plan_ended(self, tree: Tree) -> str | None:
        """Why no more rollouts are made: decided, undecided (each state had all it may have), or no drop."""
        return self._ledger(tree).ended or super().plan_ended(tree)

    def _next(self, tree: Tree) -> Ask | None:
        ledger = self._ledger(tree)
        while ledger.ended is None:
            ask = self.go_on(tree) or self._begin(tree)
            if ask is not None:
                ledger.asks[ask.id] = ledger.state
                return ask
            limited = ledger.left > 0 and not self.may_begin(tree)
            if limited or tree.asks or tree.tips or not self._advance(tree, ledger):
                return None
        return None

    def _note_supply(self, tree: Tree, node: int, new: bool) -> None:
        tree.fruitless[node] = 0 if new else tree.fruitless[node] + 1
        if tree.fruitless[node] >= SETTLING_DRAWS:
            tree.complete[node] = True
            tree.memory.setdefault(SETTLED, set()).add(node)

    def _origin(self, tree: Tree) -> int:
        return self._ledger(tree).state

    def _begun(self, tree: Tree) -> None:
        super()._begun(tree)
        ledger = self._ledger(tree)
        ledger.left -= 1
        ledger.begun[ledger.state] = ledger.begun.get(ledger.state, 0) + 1

    def _finish(self, tree: Tree, end: int, runs: int) -> None:
        value, ledger = tree.value[end], self._ledger(tree)
        if not tree.terminal[end] or value is None:
            return
        ledger.low, ledger.high = min(ledger.low, value), max(ledger.high, value)
        node, above = end, tree.parent[ledger.state]
        while node != above:
            # the ends and what lies between them and the record need no counts
            if tree.spine[node] or node == 0 or tree.spine[tree.parent[node]] or tree.parent[node] == 0:
                ledger.count[node] = ledger.count.get(node, 0) + runs
                ledger.total[node] = ledger.total.get(node, 0.0) + runs * value
            node = tree.parent[node]

    def _advance(self, tree: Tree, ledger: Ledger) -> bool:
        """Conclude the batch and choose the next state; False when it is over."""
        if ledger.state >= 0 and not ledger.count.get(ledger.state):
            ledger.stuck.add(ledger.state)
        ledger.state, ledger.left = -1, 0
        path = spine_path(tree, tree.start)
        room = [self._room(ledger, node) for node in path[:-1]]
        found = beliefs(tree)
        if len(path) < 2 or len(path) - 1 not in found:
            ledger.ended = UNJUDGED  # nothing is recorded, or nobody knows what it was worth
            return False
        if self.uniform:
            state = next((number for number, left in enumerate(room) if left), None)
            ledger.ended = UNDECIDED if state is None else None
        else:
            chosen = Plan(found, room, self.confidence, ledger.scan, self.probes - ledger.probes).choose()
            state, ledger.scan = chosen.state, chosen.scan
            ledger.probes += chosen.probe
            if state is None and chosen.pivotal is not None and not self._shown(tree, ledger, path[chosen.pivotal]):
                ledger.shown, state = True, chosen.pivotal
            ledger.ended = chosen.why if state is None else None
        if state is None:
            return False
        node = path[state]
        has = ledger.count.get(node, 0)
        lacking = self.batch - has if has < self.batch and not ledger.begun.get(node) else self.batch
        ledger.state, ledger.left = node, min(lacking, room[state]) or self.batch
        return True

    def _shown(self, tree: Tree, ledger: Ledger, node: int) -> bool:
        """Whether this tree has something that the policy did instead at the decided step (values may be known from
        elsewhere), or it was looked for."""
        left = (child for child in tree.children(node) if not tree.spine[child])
        return ledger.shown or node in ledger.stuck or any(ledger.count.get(child) for child in left)

    def _room(self, ledger: Ledger, node: int) -> int:
        if node in ledger.stuck:
            return 0
        return max(0, self.rollouts - max(ledger.count.get(node, 0), ledger.begun.get(node, 0)))

    def _ledger(self, tree: Tree) -> Ledger:
        ledger: Ledger | None = tree.memory.get(NAME)
        if ledger is None:
            ledger = tree.memory[NAME] = self._opened(tree)
        return ledger

    def _opened(self, tree: Tree) -> Ledger:
        """A ledger with what is known from elsewhere."""
        ledger, path = Ledger(least=self.batch, high=max(self.success_at, 0.0) or 1.0), spine_path(tree, tree.start)
        for number, (total, count) in self.known.get(str(tree.seed), {}).items():
            if int(number) < len(path) - 1:
                node = path[int(number)]
                ledger.total[node], ledger.count[node] = float(total), int(count)
                ledger.reused[node] = int(count)
        if (value := tree.value[path[-1]]) is not None:
            ledger.low, ledger.high = min(ledger.low, value), max(ledger.high, value)
        return ledger


def scale(tree: Tree) -> Scale:
    """The range of values: from 0 to a success, wider where values are."""
    ledger: Ledger = tree.memory.get(NAME) or Ledger()
    return Scale(ledger.low, ledger.high)


def beliefs(tree: Tree) -> dict[int, Belief]:
    """What is believed of the value of each valued state, by its number along the record; the last is the record's own
    value, known where the record has a verdict."""
    ledger: Ledger = tree.memory.get(NAME) or Ledger()
    span, path = scale(tree), spine_path(tree, tree.start)
    found = {
        number: span.belief(ledger.total[node], count)
        for number, node in enumerate(path[:-1])
        if (count := ledger.count.get(node, 0)) and (count >= ledger.least or ledger.begun.get(node))
    }
    value = tree.value[path[-1]]
    if len(path) > 1 and value is not None:
        found[len(path) - 1] = span.known(value)
    return found
