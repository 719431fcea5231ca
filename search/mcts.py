"""Monte-Carlo tree search for action sets that are known, or open.

Selection, with N visits of the parent, n of the child, and Q the child's worth normalised to the tree's own range (see
`values.py`):

    uct    Q + c * sqrt(ln N / n)             UCT (Kocsis & Szepesvari 2006) on UCB1 (Auer et al. 2002, theorem 1:
                                              c = sqrt 2 for rewards in [0, 1])
    puct   Q + c * P * sqrt(N) / (1 + n)      AlphaZero (Silver et al. 2018, "Search"), P normalised over the siblings

Open asks and rollouts count in N and n. In Q they do not, as in WU-UCT (Liu et al. 2020, arXiv 1810.11755), unless
`virtual_loss` says so: a loss of 1 is the classic one (Chaslot et al. 2008), and costs much quality at width.

Expansion by progressive widening (Couetoux et al. 2011): a node may have ceil(C * N^alpha) children. Evaluation by the
value a child was told with, by a rollout to an end, or by both. Backup adds to sums and counts; means are never stored.

Q = (1 - w) * mean + w * max of what was backed up through the child, w being `max_weight`: the mixed backup of
Jacobsen, Greve & Togelius 2014 ("Monte Mario", "MixMax rewards"). UCT and AlphaZero have w = 0. The mean alone lets a
good line drown among the bad siblings that were tried on the way; the maximum alone believes every stroke of luck. The
default was measured: docs/benchmarks.md.

Rewards mixed as in RAP (Hao et al. 2023, arXiv 2305.14992, section 3.2 for the rewards, 3.3 for the planning): the
probability of an action and the evaluation of what it leads to make one reward r = p^alpha * v^(1 - alpha), and Q is
the mean reward along the best rollout. Here `prior_weight` is alpha, p the prior normalised over the siblings and v the
normalised Q; `max_weight=1` takes the best rollout. What differs: RAP mixes at every step and averages the rewards of
all later steps; this takes the mean once, at selection, of a step's own p and of the value that a rollout ended with.

Mixed leaf evaluation as in AlphaGo (Silver et al. 2016, "Mastering the game of Go with deep neural networks and tree
search", "Searching with policy and value networks"): V(s_L) = (1 - lambda) * v(s_L) + lambda * z, with v the told value
of the leaf, z that of the end its rollout comes to, and lambda `rollout_weight`. One simulation is one visit, which
ends at the rollout's end and has the value V on its whole path.

Worlds that answer differently each time, as in double progressive widening (Couetoux et al. 2011, "Continuous upper
confidence trees"): an action that was visited n times may have been played ceil(C' * n^alpha') times. Couetoux counts
its distinct outcomes; here every draw counts, and in n an outcome that is an end counts once, so a world with few
outcomes is not paid for without end. An outcome to go on in is drawn in proportion to how often the world drew it, as
there, among those that have something left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, pow

from ..storage.errors import UsageError
from .algorithm import check_count, check_number
from .rollouts import Rollouts
from .selection import FORMULAS, Formula, actions, aggregate, is_open
from .tree import OPEN, Ask, Tree

EXPLORATION = {"uct": 0.3, "puct": 0.7}
"""Chosen with `max_weight` on six problems at 64, 256 and 1,024 transitions: see docs/benchmarks.md."""


@dataclass(frozen=True, kw_only=True)
class MCTS(Rollouts):
    """UCT or PUCT with progressive widening, over actions with one outcome or several.

    - `selection`: "uct" or "puct"; `exploration`: the constant c, None for 0.3 (uct) or 0.7 (puct).
    - `virtual_loss`: how many visits with the tree's lowest value an open ask or rollout counts as in Q. What has open
      ones only has Q = 0.
    - `widening_coefficient`, `widening_exponent`: C from 0 and alpha in [0, 1]. A large C lists every known action
      first.
    - `expand`: children wanted when a node is widened; several may exceed the widening limit by `expand` - 1. The
      rollout goes on in the likeliest; the others wait for a visit.
    - `first_play_urgency`: the score of a child without any visit, on the normalised scale. None: such children come
      first ("uct"), or count as good as their parent ("puct").
    - `max_weight`: w from 0 to 1 in Q = (1 - w) * mean + w * max of the values backed up through the child. The Q of
      what was never visited is a mean all the same.
    - `prior_weight`: alpha from 0 to 1, how much of the prior is mixed into Q; 0 is none of it.
    - `evaluation`: "value" (a told value ends the rollout; without one it goes to an end), "rollout" (values of
      unfinished states are kept, for pruning and for people, but not backed up) or "both" (one visit with the mixed
      value at the rollout's end; the leaf is the first state on its path that had no visit, and z alone counts where
      the leaf's value is unknown). Under the latter two a state that is pruned, fails or turns out to have no children
      ends its rollout with its own value when it has one.
    - `rollout_weight`: lambda from 0 to 1; "both" only.
    - `outcome_coefficient`, `outcome_exponent`: C' from 0 and alpha' in [0, 1]. 0: every action is played once. With
      more, an action none of whose outcomes is open is played again until `outcomes.SETTLED_AFTER` draws in a row
      brought nothing new; only then is it exhausted.

    A node without an open child is asked even beyond its limit, so no search stalls while something is left. Nodes of
    the record are nodes like all others: the descent follows the spine and may widen at any of its states.
    """

    selection: str = "puct"
    exploration: float | None = None
    virtual_loss: float = 0.0
    widening_coefficient: float = 2.0
    widening_exponent: float = 0.5
    expand: int = 1
    first_play_urgency: float | None = None
    max_weight: float = 0.25
    prior_weight: float = 0.0
    evaluation: str = "value"
    rollout_weight: float = 0.5
    outcome_coefficient: float = 0.0
    outcome_exponent: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("exploration", self.exploration, low=0.0)
        for name in ("virtual_loss", "widening_coefficient", "outcome_coefficient"):
            check_number(name, getattr(self, name), low=0.0)
        for name in ("widening_exponent", "outcome_exponent", "max_weight", "prior_weight", "rollout_weight"):
            check_number(name, getattr(self, name), low=0.0, high=1.0)
        check_number("first_play_urgency", self.first_play_urgency)
        check_count("expand", self.expand)
        _check_choice("selection", self.selection, "uct", "puct")
        _check_choice("evaluation", self.evaluation, "value", "rollout", "both")

    def ask(self, tree: Tree, k: int) -> list[Ask]:
        """At most `k` asks; each holds one virtual visit on its path until it is told."""
        if self.outcome_coefficient:
            tree.outcomes.wanted = True
        return super().ask(tree, k)

    def _count(self) -> int:
        return self.expand

    def _counts_values(self) -> bool:
        return self.evaluation == "value"

    def _backed_up(self, tree: Tree, node: int, verdict: float) -> float:
        if self.evaluation != "both":
            return verdict
        value = tree.value[_leaf(tree, node)]
        return verdict if value is None else (1.0 - self.rollout_weight) * value + self.rollout_weight * verdict

    def _choose(self, tree: Tree, top: int, leave_spine: bool = False) -> tuple[int, str | None] | None:
        recorded = tree.spine_child(top) if leave_spine else None
        spot = self._walk(tree, top, recorded, crowd=False)
        return spot if spot is not None else self._walk(tree, top, recorded, crowd=True)

    def _walk(self, tree: Tree, top: int, recorded: int | None, crowd: bool) -> tuple[int, str | None] | None:
        """Descend to the node to ask. `crowd`: a node without an open child may be asked by several at once."""
        node, stochastic, formula = top, self.outcome_coefficient > 0.0, self._formula
        blocked = set() if recorded is None else {recorded}
        while not self._may_widen(tree, node):
            if stochastic:
                child, action = self._play(tree, node, recorded, blocked)
                if action is not None:
                    return node, action
            else:
                child = formula.child(tree, node, blocked)
            if child >= 0:
                node = child
            elif not tree.complete[node] and (crowd or not tree.pending[node]):
                break
            elif node == top:
                return None
            else:  # all it has is being asked: look elsewhere
                blocked.add(node)
                node = top
        return node, None

    def _may_widen(self, tree: Tree, node: int) -> bool:
        if tree.complete[node]:
            return False
        visits, limits = tree.visits[node] + tree.virtual[node], self._limits
        while len(limits) <= visits:
            limits.append(max(1, ceil(self.widening_coefficient * pow(len(limits), self.widening_exponent))))
        have = len(tree.child_ids[node]) + tree.pending[node]
        if self.outcome_coefficient:
            have = tree.outcomes.actions(node, have) - tree.outcomes.pending_at(node)
        return have < limits[visits]

    @cached_property
    def _limits(self) -> list[int]:
        """How many children a node with so many visits may have, as far as anybody has asked."""
        return []

    @cached_property
    def _formula(self) -> Formula:
        constant = EXPLORATION[self.selection] if self.exploration is None else self.exploration
        return FORMULAS[self.selection](
            exploration=constant,
            loss=self.virtual_loss,
            urgency=self.first_play_urgency,
            prior_weight=self.prior_weight,
            max_weight=self.max_weight,
        )

    def _play(self, tree: Tree, node: int, recorded: int | None, blocked: set[int]) -> tuple[int, str | None]:
        """The action with the highest score: an outcome of it to go on in, or -1 and its key, to be played again.

        -1 and None when there is none.
        """
        grouped = {
            first: outcomes
            for first, outcomes in actions(tree, node).items()
            if first != recorded and _may_play(tree, node, first, outcomes, blocked)
        }
        arms = aggregate(tree, node, grouped)
        first = self._formula.select(arms, tree, node, list(grouped))
        if first < 0:
            return -1, None
        going_on = is_open(tree, grouped[first], blocked)
        if not going_on or self._may_draw(tree, node, first, grouped[first]):
            return -1, tree.key[first]
        return _drawn(tree, node, first, going_on), None

    def _may_draw(self, tree: Tree, node: int, first: int, outcomes: list[int]) -> bool:
        # an end counts once however often it was drawn: else a world that answers with it always would be asked forever
        visits = sum(1 if tree.terminal[one] else tree.visits[one] + tree.virtual[one] for one in outcomes)
        return tree.outcomes.played(node, tree.key[first]) < ceil(
            self.outcome_coefficient * pow(visits, self.outcome_exponent)
        )


def _leaf(tree: Tree, node: int) -> int:
    """The first node on the path of a new end that had no visit before; recorded steps and the root are no leaves."""
    parent = tree.parent[node]
    while parent > 0 and not tree.visits[parent] and not tree.spine[parent]:
        node, parent = parent, tree.parent[parent]
    return node


def _may_play(tree: Tree, node: int, first: int, outcomes: list[int], blocked: set[int]) -> bool:
    """True when the action has an outcome to go on in, or none that is open and it may be played again."""
    if is_open(tree, outcomes, blocked):
        return True
    if any(tree.status[outcome] == OPEN for outcome in outcomes):
        return False
    action = tree.key[first]
    return not tree.outcomes.settled(node, action) and not tree.outcomes.pending.get((node, action))


def _drawn(tree: Tree, node: int, first: int, outcomes: list[int]) -> int:
    """One of the outcomes, with the chances that the world has shown."""
    times = tree.outcomes.draws(node, tree.key[first], first)
    left = tree.draw(first, tree.opened) * sum(times[outcome] for outcome in outcomes)
    for outcome in outcomes:
        left -= times[outcome]
        if left < 0.0:
            return outcome
    return outcomes[-1]


def _check_choice(name: str, value: str, *known: str) -> None:
    if value not in known:
        raise UsageError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}")
