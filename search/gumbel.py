"""Gumbel search: sequential halving over sampled actions at the start, an improved policy below.

Full Gumbel AlphaZero (Danihelka, Guez, Schrittwieser & Silver 2022, "Policy improvement by planning with Gumbel",
ICLR). Equation numbers are the paper's; g is Gumbel noise, logits are log priors normalised over the siblings:

    start   the m children with the highest g + logits, then sequential halving (Karnin et al. 2013) over them by
            g + logits + sigma(q)                       algorithm 2
    sigma   (c_visit + max N) * c_scale * q             eq. 8
    below   argmax of pi' - N / (1 + sum of N)          eq. 14, pi' = softmax(logits + sigma(completed q)), eq. 11
    completed q: q of a visited child; else v_mix, which is (v + sum of N * the prior-weighted mean of the known q)
            / (1 + sum of N)                            eq. 10 and 33

q is the child's mean on the tree's own range (see values.py), v the told value of the state, else its mean. Open asks
and rollouts count in N, not in q. Ended children are left out of all sums: they cannot be chosen.

The paper knows all actions beforehand. Here an action costs a transition: the start is asked for m children at once,
other nodes are widened as in progressive widening (Couetoux et al. 2011; see mcts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, exp, inf, log, pow

from .algorithm import check_count, check_number, prior_scale
from .rollouts import RolloutSearch
from .tree import OPEN, Ask, Child, Tree

ROUND = 64
"""Transitions of the first round of a search without a budget."""
SMALLEST_SHARE = 4
"""A round considers at most its transitions divided by this."""
_NOISE = 0x6E01
_TINY = 1e-300


@dataclass(slots=True)
class Plan:
    """Where sequential halving stands at one start."""

    size: int
    """Transitions of the current round."""
    listed: bool = False
    """Whether the start was asked for the children that this round lacked."""
    listing: int | None = None
    """The ask that lists them, while it is open."""
    phases: int = 0
    """Of the current round; 0 before it has arms."""
    phase: int = 0
    arms: list[int] = field(default_factory=list)
    """The children still in the race."""
    base: dict[int, int] = field(default_factory=dict)
    """Visits of the start's children when the phase began, or before they were listed."""
    spent: int = 0
    """Transitions below the start, and the visits they brought."""
    ended: int = 0


@dataclass(frozen=True, kw_only=True)
class Gumbel(RolloutSearch):
    """Gumbel planning from `tree.start`.

    - `considered`: m, the children of the start that are compared; at most a quarter of a round's transitions.
    - `c_visit`, `c_scale`: the scale of sigma. A larger one trusts values more and priors less.
    - `widening_coefficient`, `widening_exponent`: a node below the start may have ceil(C * N^alpha) children.
    - `budget`: planned transitions, which `search.create` passes. The first round has the next power of two of it (64
      without one), each later round twice its predecessor's, over the open children of the start anew.

    A round has ceil(log2 m) phases with equal shares of its transitions. In a phase all survivors get equally many new
    visits: the share divided by the survivors and by what a visit has cost so far, at least one (appendix F, where a
    visit costs one). Visits that came with the listing count. Then the better half stays, of an odd number the larger
    half. A phase waits for its open rollouts.

    This algorithm looks at its budget: budgets with the same next power of two continue each other, others are other
    searches. `budget=None` always continues.

    `tree.memory["gumbel"]` holds one Plan for each start.
    """

    considered: int = 16
    c_visit: float = 50.0
    c_scale: float = 1.0
    widening_coefficient: float = 2.0
    widening_exponent: float = 0.5
    budget: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("considered", self.considered)
        check_number("c_visit", self.c_visit, low=0.0)
        check_number("c_scale", self.c_scale, low=0.0)
        check_number("widening_coefficient", self.widening_coefficient, low=0.0)
        check_number("widening_exponent", self.widening_exponent, low=0.0, high=1.0)
        check_count("budget", self.budget, optional=True)

    @property
    def planned(self) -> int:
        """Transitions of the first round: all that the search sees of its budget."""
        return ROUND if self.budget is None else 1 << (self.budget - 1).bit_length()

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """As every algorithm; counts what the plan of the nearest start above has spent."""
        ask, size, ended = tree.asks.get(ask_id), len(tree), tree.ended
        ids = super().tell(tree, ask_id, children, more=more, failed=failed)
        if ask is not None and (plan := _plan_above(tree, ask.node)) is not None:
            plan.spent += len(tree) - size
            plan.ended += tree.ended - ended
            if plan.listing == ask_id:
                plan.listing = None
        return ids

    # At the start

    def _begin(self, tree: Tree) -> Ask | None:
        if tree.status[tree.start] != OPEN:
            return None
        plan = _plans(tree).setdefault(tree.start, Plan(self.planned))
        while plan.listing is None:
            if not plan.listed and (ask := self._list(tree, plan)) is not None:
                return ask
            if not plan.phases and not self._begin_round(tree, plan):
                if tree.complete[tree.start]:
                    return None
                continue
            if (ask := self._visit(tree, plan)) is not None:
                return ask
            if any(tree.virtual[arm] for arm in plan.arms):
                return None  # a phase ends when its rollouts have ended
            self._end_phase(tree, plan)
        return None

    def _list(self, tree: Tree, plan: Plan) -> Ask | None:
        """Ask the start for the children that a round lacks; None when it lacks none, or no more exist."""
        arms = _open_children(tree)
        plan.base = {arm: tree.visits[arm] for arm in arms}
        plan.listed = True
        wanted = min(self.considered, max(2, plan.size // SMALLEST_SHARE)) - len(arms)
        if wanted < 1 or tree.complete[tree.start]:
            return None
        tree.hold(tree.start)
        ask = tree.open_ask(tree.start, wanted)
        plan.listing = ask.id
        return ask

    def _begin_round(self, tree: Tree, plan: Plan) -> bool:
        """Choose the arms by g + logits (Gumbel-top-k); False when the start has none: it has to be asked again."""
        children = _open_children(tree)
        if not children:
            plan.listed = False
            return False
        logits = log_priors(tree, tree.start, children)
        keys = {
            child: (noise(tree, child) + logit, -tree.order[child])
            for child, logit in zip(children, logits, strict=True)
        }
        considered = min(self.considered, max(2, plan.size // SMALLEST_SHARE))
        plan.arms = sorted(children, key=keys.__getitem__, reverse=True)[:considered]
        plan.base = {arm: plan.base.get(arm, 0) for arm in plan.arms}
        plan.phases, plan.phase = max(1, (len(plan.arms) - 1).bit_length()), 0
        return True

    def _visit(self, tree: Tree, plan: Plan) -> Ask | None:
        """Begin a rollout in the least visited arm, of equals the best, that has visits left in this phase."""
        cost = max(1.0, plan.spent / plan.ended) if plan.ended else 1.0
        quota = max(1, int(plan.size / (plan.phases * len(plan.arms) * cost)))
        new = {arm: tree.visits[arm] + tree.virtual[arm] - plan.base[arm] for arm in plan.arms}
        ranked = [arm for arm in self._ranked(tree, plan.arms) if new[arm] < quota]
        ranked.sort(key=new.__getitem__)
        for crowd in (False, True):
            for arm in ranked:
                if (node := self._walk(tree, arm, crowd)) is not None:
                    tree.hold(node)
                    return tree.open_ask(node, 1)
        return None

    def _end_phase(self, tree: Tree, plan: Plan) -> None:
        ranked = self._ranked(tree, plan.arms)
        plan.arms = ranked[: (len(plan.arms) + 1) // 2]
        plan.base = {arm: tree.visits[arm] for arm in plan.arms}
        plan.phase += 1
        if plan.phase == plan.phases or len(plan.arms) < 2:
            plan.size, plan.phases, plan.listed = 2 * plan.size, 0, False

    def _ranked(self, tree: Tree, arms: Sequence[int]) -> list[int]:
        """Those arms that are open, best first by g + logits + sigma(q), ties by seeded hash."""
        arms = [arm for arm in arms if tree.status[arm] == OPEN]
        scores = self.scores(tree, tree.start, arms)
        keys = {arm: (-noise(tree, arm) - score, tree.order[arm]) for arm, score in zip(arms, scores, strict=True)}
        return sorted(arms, key=keys.__getitem__)

    # Below it

    def _descend(self, tree: Tree, top: int, leave_spine: bool = False) -> int | None:
        node = self._walk(tree, top, crowd=False)
        return node if node is not None else self._walk(tree, top, crowd=True)

    def _walk(self, tree: Tree, top: int, crowd: bool) -> int | None:
        """Descend to the node to ask. `crowd`: a node without an open child may be asked by several at once."""
        node, blocked = top, set[int]()
        while not self._may_widen(tree, node):
            children = [child for child in tree.open_ids[node] if child not in blocked]
            if children:
                node = self.choose(tree, node, children)
            elif not tree.complete[node] and (crowd or not tree.pending[node]):
                break
            elif node == top:
                return None
            else:  # all it has is being asked: look elsewhere
                blocked.add(node)
                node = top
        return node

    def _may_widen(self, tree: Tree, node: int) -> bool:
        if tree.complete[node]:
            return False
        limit = ceil(self.widening_coefficient * pow(tree.visits[node] + tree.virtual[node], self.widening_exponent))
        return len(tree.child_ids[node]) + tree.pending[node] < max(1, limit)

    def choose(self, tree: Tree, node: int, children: Sequence[int]) -> int:
        """The child that equation 14 selects, ties by seeded hash."""
        if len(children) < 2:
            return children[0]
        scores, counts = self._judged(tree, node, children)
        highest, visits, order = max(scores), 1 + sum(counts), tree.order
        weights = [exp(score - highest) for score in scores]
        total = sum(weights)
        best, best_key = -1, -inf
        for child, weight, count in zip(children, weights, counts, strict=True):
            key = weight / total - count / visits
            if key > best_key or (key == best_key and order[child] < order[best]):
                best, best_key = child, key
        return best

    def scores(self, tree: Tree, node: int, children: Sequence[int]) -> list[float]:
        """logits + sigma(completed q) of each of the node's children."""
        return self._judged(tree, node, children)[0]

    def _judged(self, tree: Tree, node: int, children: Sequence[int]) -> tuple[list[float], list[int]]:
        """Their scores, and their visits with open asks."""
        policy, visits, virtual, value_sum = policy_of(tree, node), tree.visits, tree.virtual, tree.value_sum
        low, range_scale = tree.bounds.low, tree.bounds.scale
        known: list[float | None] = []
        counts = [visits[child] + virtual[child] for child in children]
        weight = total = 0.0
        for child in children:
            if real := visits[child]:
                quality = (value_sum[child] / real - low) * range_scale
                share = policy[child][1]
                weight += share
                total += share * quality
                known.append(quality)
            else:
                known.append(None)
        scale = (self.c_visit + max(counts, default=0)) * self.c_scale
        missing = 0.0
        if None in known:
            missing = mixed_value(tree, node, sum(visits[child] for child in children), weight, total)
        completed = [missing if quality is None else quality for quality in known]
        return [policy[child][0] + scale * quality for child, quality in zip(children, completed, strict=True)], counts


def noise(tree: Tree, node: int) -> float:
    """The Gumbel variate of a node: it depends on the seed and the node's path only."""
    known: dict[int, float] = tree.memory.setdefault("gumbel noise", {})
    if node not in known:
        uniform = min(max(tree.draw(node, _NOISE), 2.0**-64), 1.0 - 2.0**-53)
        known[node] = -log(-log(uniform))
    return known[node]


def log_priors(tree: Tree, node: int, children: Sequence[int]) -> list[float]:
    """The children's log priors, normalised over all siblings; a missing prior counts as the mean of the known."""
    logits = policy_of(tree, node)
    return [logits[child][0] for child in children]


class Policy(dict[int, tuple[float, float]]):
    """The log prior of each child of one node, and its exponential, made when they are first asked for."""

    def __init__(self, tree: Tree, fill: float, total: float):
        super().__init__()
        self.sums = fill, total
        self._prior = tree.prior

    def __missing__(self, child: int) -> tuple[float, float]:
        (fill, total), prior = self.sums, self._prior[child]
        logit = log(max((fill if prior is None else prior) / total, _TINY))
        self[child] = logit, exp(logit)
        return self[child]


def policy_of(tree: Tree, node: int) -> Policy:
    """The policy at a node as it is now; a new prior among the children changes it for all."""
    policies: dict[int, tuple[int, Policy]] = tree.memory.setdefault("gumbel policies", {})
    known = policies.get(node)
    sums = prior_scale(tree, node)
    if known is None or known[1].sums != sums or known[0] != tree.prior_count[node]:
        known = policies[node] = (tree.prior_count[node], Policy(tree, *sums))
    return known[1]


def mixed_value(tree: Tree, node: int, visits: int, weight: float, total: float) -> float:
    """v_mix of equation 33, on the tree's own range; the sums are those over the visited children: visits, priors, and
    priors times q."""
    told = tree.value[node]
    value = told if told is not None else tree.mean(node)
    own = 0.0 if value is None else tree.bounds.normalise(value)
    if not weight:
        return own
    return (own + visits * total / weight) / (1 + visits)


def _plans(tree: Tree) -> dict[int, Plan]:
    plans: dict[int, Plan] = tree.memory.setdefault("gumbel", {})
    return plans


def _plan_above(tree: Tree, node: int) -> Plan | None:
    plans = _plans(tree)
    while node >= 0 and node not in plans:
        node = tree.parent[node]
    return plans.get(node)


def _open_children(tree: Tree) -> list[int]:
    """The start's open children, without the recorded one where a rollout has to leave the record."""
    barred = tree.spine_child(tree.start) if tree.leave_spine else None
    return [child for child in tree.open_ids[tree.start] if child != barred]
