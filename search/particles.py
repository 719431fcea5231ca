"""Particle filtering: a population of runs that is resampled after each step by how good its states look.

Algorithm 1 of Puri, Sudalairaj, Xu, Xu & Srivastava 2025 (arXiv 2502.01618): every particle takes one step drawn from
the policy, then N particles are drawn with replacement from

    theta_i = exp(w_i / T) / sum over j of exp(w_j / T)

and so on until all have ended. The paper's w is the process reward of the whole partial run, on a logit scale (its
figure 3); the authors' code takes the log odds of a reward in [0, 1]. So it is here: w = ln(v / (1 - v)) of the state's
value v, limited to +-ln 999. While all values of the tree lie in [0, 1] they are taken as they are, else they are
normalised to the tree's range (see values.py). T = 1 is the paper's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, log

from ..storage.errors import UsageError
from .algorithm import TreeSearch, check_count, check_number, prior_scale
from .tree import OPEN, PRUNED, Ask, Child, Tree, mix

MARGIN = 1e-3
"""Values are kept this far from 0 and 1 before the logit is taken."""
DEAD = -1


@dataclass(slots=True)
class Generation:
    """One population: where its particles are (node ids, DEAD for none), and the step it is taking."""

    number: int
    start: int
    at: list[int]
    steps: int = 0
    moving: bool = False
    waiting: list[int] = field(default_factory=list)
    """Nodes to ask in this step."""
    asks: dict[int, int] = field(default_factory=dict)
    """Their open asks, and what they told: a node id for each proposal."""
    told: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Filter:
    """Generations begun so far, at each start too, and the one that runs."""

    number: int = 0
    begun: Counter[int] = field(default_factory=Counter)
    current: Generation | None = None


@dataclass(frozen=True, kw_only=True)
class Particles(TreeSearch):
    """Particle filtering from `tree.start`.

    - `particles`: N. Particles at one node are one ask for as many children.
    - `temperature`: T, above 0.
    - `resampling`: "multinomial" (the paper's) or "systematic" (Kitagawa 1996: one draw, evenly spaced).
    - `resample_below`: resample when the effective sample size, 1 / sum of theta_i^2, is below this share of N. 1 is
      always, but for equal weights, which have nothing to choose by; 0 is never.
    - `generations`: how many populations are run at each start; None: one after the other until nothing is left or the
      budget is spent. 1 is the paper's algorithm.

    A finished run is absorbing: its particle keeps its weight, takes part in the resampling and is never asked for
    more. Without a verdict it weighs as the tree's lowest value. An unfinished state without a value weighs as the mean
    of the others' weights; while no unfinished one has a value, all weights are equal, since ends cannot be compared
    with them: with outcome rewards only this is best-of-n, N runs at a time.

    Where an ask brings fewer children than particles, the others draw from those it brought, by their priors; at a
    complete node all draw from its open children. A particle whose ask failed or brought nothing stays and tries again.
    One whose node was closed (pruned, failed, exhausted) is dead: its weight is 0. Particles in states with one key go
    on from the node of the first; with `merge_states` a state that an earlier node has is closed, and its particles go
    on from that one, unless they have gone in a circle.

    `tree.memory["particles"]` holds the Filter. Raises UsageError for options that make no sense.
    """

    particles: int = 8
    temperature: float = 1.0
    resampling: str = "multinomial"
    resample_below: float = 1.0
    generations: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("particles", self.particles)
        check_number("temperature", self.temperature, low=1e-6)
        check_number("resample_below", self.resample_below, low=0.0, high=1.0)
        check_count("generations", self.generations, optional=True)
        if self.resampling not in ("multinomial", "systematic"):
            raise UsageError(f"resampling must be multinomial or systematic, not {self.resampling!r}")

    def may_begin(self, tree: Tree) -> bool:
        """True while no generation is running."""
        return filter_of(tree).current is None

    def go_on(self, tree: Tree) -> Ask | None:
        """The next ask of the running generation; None when it has ended, or waits for its open asks."""
        state = filter_of(tree)
        while (running := state.current) is not None:
            if running.waiting:
                node = running.waiting.pop(0)
                tree.hold(node)
                ask = tree.open_ask(node, running.at.count(node))
                running.asks[ask.id] = node
                return ask
            if running.asks:
                return None
            if running.moving:
                self._move(tree, running)
            if not self._step(tree, running):
                state.current = None
        return None

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """As every algorithm; the particles move when all asks of their step are told."""
        ids = super().tell(tree, ask_id, children, more=more, failed=failed)
        running = filter_of(tree).current
        if running is not None and ask_id in running.asks:
            node = running.asks.pop(ask_id)
            barred = _barred(tree, running, node)
            drawn = [told for told, child in zip(ids, children, strict=True) for _ in range(child.samples)]
            running.told[node] = [told for told in drawn if told != barred]
            for told in ids:
                _close_if_known(tree, told)
        return ids

    def _next(self, tree: Tree) -> Ask | None:
        ask = self.go_on(tree)
        if ask is None and self.may_begin(tree) and self._begin(tree):
            ask = self.go_on(tree)
        return ask

    def plan_ended(self, tree: Tree) -> str | None:
        """Once as many `generations` have ended at the start."""
        state, most = filter_of(tree), self.generations
        over = most is not None and state.begun[tree.start] >= most and state.current is None
        return f"its {most} generations have ended" if over else None

    def _begin(self, tree: Tree) -> bool:
        state, start = filter_of(tree), tree.start
        if self.generations is not None and state.begun[start] >= self.generations:
            return False
        if tree.status[start] != OPEN:
            return False
        running = Generation(state.number, start, [start] * self.particles)
        if tree.complete[start] and not _open_children(tree, running, start):
            return False
        state.current = running
        state.number += 1
        state.begun[start] += 1
        return True

    def _step(self, tree: Tree, running: Generation) -> bool:
        """Resample, and say which nodes to ask; False when all particles have ended."""
        at = [node if _lives(tree, node) else DEAD for node in running.at]
        if running.steps and any(_unfinished(tree, node) for node in at):
            at = self._resampled(tree, running, at)
        running.at = _together(tree, at)
        going = [node for node in dict.fromkeys(running.at) if _unfinished(tree, node)]
        running.waiting = [node for node in going if not tree.complete[node]]
        running.told = {}
        running.moving = True
        running.steps += 1
        return bool(going)

    def _resampled(self, tree: Tree, running: Generation, at: Sequence[int]) -> list[int]:
        weights = self.weights(tree, at)
        if 1.0 / sum(weight * weight for weight in weights) >= self.resample_below * len(at) - 1e-9:
            return list(at)
        turn = mix(running.number, running.steps)
        draws = [tree.draw(running.start, mix(turn, index)) for index in range(len(at))]
        if self.resampling == "systematic":
            draws = [(index + draws[0]) / len(at) for index in range(len(at))]
        return [at[picked(weights, draw)] for draw in draws]

    def weights(self, tree: Tree, at: Sequence[int]) -> list[float]:
        """theta of each particle; they add up to 1."""
        logits = {node: _logit(tree, node) for node in at if node != DEAD}
        going = [node for node in logits if not tree.terminal[node]]
        if going and all(logits[node] is None for node in going):
            logits = dict.fromkeys(logits)
        highest = max((logit for logit in logits.values() if logit is not None), default=0.0)
        powers = {
            node: exp((logit - highest) / self.temperature) for node, logit in logits.items() if logit is not None
        }
        known = [powers[node] for node in at if node in powers]
        unknown = sum(known) / len(known) if known else 1.0
        weights = [0.0 if node == DEAD else powers.get(node, unknown) for node in at]
        total = sum(weights)
        return [weight / total for weight in weights]

    def _move(self, tree: Tree, running: Generation) -> None:
        running.moving = False
        turn = mix(running.number, running.steps)
        proposals = {node: iter(told) for node, told in running.told.items()}
        for index, node in enumerate(running.at):
            if node == DEAD or tree.terminal[node]:
                continue
            child = next(proposals.get(node, iter(())), None)
            if child is None:
                brought = list(dict.fromkeys(running.told.get(node, [])))
                if not brought and tree.complete[node]:
                    brought = _open_children(tree, running, node)
                child = _drawn(tree, node, brought, tree.draw(node, mix(turn, index)))
            if child is not None:
                running.at[index] = _same_state(tree, child)
            elif tree.complete[node]:
                running.at[index] = DEAD


def picked(weights: Sequence[float], draw: float) -> int:
    """The index that a number in [0, 1) falls on when indexes have these shares."""
    total = 0.0
    for index, weight in enumerate(weights):
        total += weight
        if draw < total:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0.0)


def _drawn(tree: Tree, parent: int, nodes: Sequence[int], draw: float) -> int | None:
    """One of the parent's children, with the chances of their priors; None of none."""
    if not nodes:
        return None
    fill, _ = prior_scale(tree, parent)
    priors = [tree.prior[node] for node in nodes]
    weights = [fill if prior is None else prior for prior in priors]
    total = sum(weights)
    shares = [weight / total for weight in weights] if total > 0.0 else [1.0 / len(nodes)] * len(nodes)
    return nodes[picked(shares, draw)]


def _logit(tree: Tree, node: int) -> float | None:
    """The log odds of a state's value; None for an unfinished state without one."""
    value, bounds = tree.value[node], tree.bounds
    if value is None:
        if not tree.terminal[node]:
            return None
        value = bounds.low
    if bounds.low < 0.0 or bounds.high > 1.0:
        value = bounds.normalise(value)
    value = min(max(value, MARGIN), 1.0 - MARGIN)
    return log(value / (1.0 - value))


def _lives(tree: Tree, node: int) -> bool:
    return node != DEAD and (tree.terminal[node] or tree.status[node] == OPEN)


def _unfinished(tree: Tree, node: int) -> bool:
    return node != DEAD and not tree.terminal[node]


def _together(tree: Tree, at: Sequence[int]) -> list[int]:
    """The particles with those in one state at one node, the first one's."""
    first: dict[str, int] = {}
    together: list[int] = []
    for node in at:
        key = tree.state_key[node] if _unfinished(tree, node) else None
        together.append(node if key is None else first.setdefault(key, node))
    return together


def _close_if_known(tree: Tree, node: int) -> None:
    """Close a new state that an earlier node has, when states merge: it is expanded there."""
    touched = tree.spine[node] or tree.child_ids[node] or tree.pending[node]
    if tree.merge_states and tree.twin[node] >= 0 and tree.status[node] == OPEN and not touched:
        tree.close(node, PRUNED, f"its state is that of node {tree.twin[node]}")


def _same_state(tree: Tree, node: int) -> int:
    """Where a particle that reached the node goes on."""
    twin = tree.twin[node]
    if not tree.merge_states or twin < 0 or tree.status[node] == OPEN or tree.terminal[node]:
        return node
    return twin if _lives(tree, twin) and twin not in tree.path(node) else DEAD


def _barred(tree: Tree, running: Generation, node: int) -> int | None:
    """The recorded step where a generation has to leave the record."""
    return tree.spine_child(node) if tree.leave_spine and node == running.start else None


def _open_children(tree: Tree, running: Generation, node: int) -> list[int]:
    barred = _barred(tree, running, node)
    return [child for child in tree.open_ids[node] if child != barred]


def filter_of(tree: Tree) -> Filter:
    """The tree's Filter; a new one when it has none."""
    state: Filter = tree.memory.setdefault("particles", Filter())
    return state
