"""Beam search, level by level.

The classical beam (Lowerre 1976) over agent steps, as used for LLM reasoning by Xie et al. 2023 (Self-Evaluation Guided
Beam Search, arXiv 2305.00633, section 2.1): all nodes of a level are expanded, the `beam_width` best unfinished
children make the next level. With `score="self-evaluation"` and `temperature` it is theirs, where a path of steps s has

    E = product over its steps of P(s)^lambda * C(s)^(1 - lambda)          (eq. 3)
    chance to be kept, without replacement, proportional to exp(E / tau)   (eq. 4); tau becomes alpha * tau at each step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

from ..storage.errors import UsageError
from .algorithm import check_count, check_number
from .frontier import distinct, goes_on, log_probability, log_share, ranked, safe_log, steps_since
from .levels import Level, LevelSearch
from .tree import Tree

GUMBEL_TURN = 0x5EB5
"""Keeps the draws of the beam apart from others at the same node."""


@dataclass(frozen=True, kw_only=True)
class Beam(LevelSearch):
    """From `tree.start`: ask each node of the beam for `branching` children, keep the `beam_width` best unfinished
    ones.

    - `score`: "value" (by value; children without one come after those with, by the sum of log priors since the start,
      in which a missing prior counts as the mean of its siblings'; then by seeded hash) or "self-evaluation" (by E).
      There P is the prior normalised over the siblings and C the value; a missing one counts as the mean of its
      siblings', as 1 when none has any. While all values of the tree lie in [0, 1], C is the value as it is; else it is
      normalised to the tree's range at the time of ranking, and a range without extent counts as 1.
    - `prior_weight`: lambda in [0, 1]; 1 is the plain probability of the path, 0 the plain product of confidences.
    - `temperature`: tau. None or 0: the best are kept. Above 0: the kept ones are drawn without replacement (by Gumbel
      top-k, Kool et al. 2019, arXiv 1903.06059, with the tree's seed) from eq. 4. With `score="value"` E is the
      child's own C; without a value it is 0, or the path's probability where no child of the level has one.
      `temperature_decay`: alpha in [0, 1].
    - Finished runs never compete with unfinished ones for a place and are never dropped; `tree.best()` picks among
      them.
    - Of several children with the same `state_key` only the best enters the beam, so it does not collapse onto copies.
    - The search ends when a level has no unfinished child; what was dropped stays open in the tree. It does not look at
      the budget: a larger one continues it, and one below about `beam_width * branching * steps` transitions ends it
      before any run has. Then take a narrower beam.
    """

    beam_width: int = 4
    score: str = "value"
    prior_weight: float = 0.5
    temperature: float | None = None
    temperature_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("beam_width", self.beam_width)
        check_number("prior_weight", self.prior_weight, low=0.0, high=1.0)
        check_number("temperature", self.temperature, low=0.0)
        check_number("temperature_decay", self.temperature_decay, low=0.0, high=1.0)
        if self.score not in ("value", "self-evaluation"):
            raise UsageError(f"score must be value or self-evaluation, not {self.score!r}")

    def _choose(self, tree: Tree, level: Level, told: Sequence[int]) -> list[int]:
        start, open_nodes = tree.start, [node for node in told if goes_on(tree, node)]
        order = self._order(tree, start, open_nodes)
        tau = (self.temperature or 0.0) * self.temperature_decay ** (level.number - 1)
        if tau > 0.0:
            scores = self._scores(tree, start, open_nodes)
            lots = {node: scores[node] / tau + _gumbel(tree, node) for node in open_nodes}
            order.sort(key=lambda node: lots[node], reverse=True)
        return distinct(tree, order)[: self.beam_width]

    def _order(self, tree: Tree, start: int, nodes: list[int]) -> list[int]:
        """From the best to the worst, without chance."""
        if self.score == "value":
            return ranked(tree, start, nodes)
        merit = {
            node: (self._log_score(tree, start, node), log_probability(tree, start, node), -tree.order[node])
            for node in nodes
        }
        return sorted(nodes, key=lambda node: merit[node], reverse=True)

    def _scores(self, tree: Tree, start: int, nodes: list[int]) -> dict[int, float]:
        """E of eq. 4 for each node."""
        if self.score == "self-evaluation":
            return {node: exp(self._log_score(tree, start, node)) for node in nodes}
        values = {node: tree.value[node] for node in nodes}
        if all(value is None for value in values.values()):
            return {node: exp(log_probability(tree, start, node)) for node in nodes}
        return {node: 0.0 if value is None else _confidence(tree, value) for node, value in values.items()}

    def _log_score(self, tree: Tree, start: int, node: int) -> float:
        """The logarithm of E (eq. 3)."""
        weight, total = self.prior_weight, 0.0
        for step in steps_since(tree, start, node):
            if weight > 0.0:
                total += weight * log_share(tree, step)
            if weight < 1.0:
                total += (1.0 - weight) * safe_log(_step_confidence(tree, step))
        return total


def _step_confidence(tree: Tree, node: int) -> float:
    """C of the step that ends in the node."""
    value = tree.value[node]
    if value is not None:
        return _confidence(tree, value)
    values = [tree.value[sibling] for sibling in tree.child_ids[tree.parent[node]]]
    known = [_confidence(tree, value) for value in values if value is not None]
    return sum(known) / len(known) if known else 1.0


def _confidence(tree: Tree, value: float) -> float:
    """A value as a number in [0, 1]."""
    bounds = tree.bounds
    if bounds.low >= 0.0 and bounds.high <= 1.0:
        return value
    return bounds.normalise(value) if bounds.scale > 0.0 else 1.0


def _gumbel(tree: Tree, node: int) -> float:
    """A draw from the standard Gumbel distribution."""
    uniform = tree.draw(node, GUMBEL_TURN + tree.start)
    return -log(-log(uniform)) if 0.0 < uniform < 1.0 else -inf
