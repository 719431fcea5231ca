"""Beam search, level by level.

The classical beam (Lowerre 1976) over agent steps, as used for LLM reasoning by Xie et al. 2023 (arXiv 2305.00633,
section 3.1): all nodes of a level are expanded, the `beam_width` best unfinished children make the next level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log
from typing import ClassVar

from .algorithm import TreeSearch, check_count, prior_scale
from .tree import OPEN, Ask, Child, Tree


@dataclass(slots=True)
class Level:
    """The level a beam stands at: nodes still to ask, asks still open, children told, log priors from the start."""

    waiting: list[int]
    asks: set[int] = field(default_factory=set)
    told: list[int] = field(default_factory=list)
    log_prior: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Beam(TreeSearch):
    """From `tree.start`: ask each node of the beam for `branching` children, keep the `beam_width` best unfinished
    ones.

    - Best: by value; children without one come after those with, by the sum of log priors since the start (a missing
      prior counts as uniform), then by seeded hash.
    - Finished runs never compete with unfinished ones for a place and are never dropped; `tree.best()` picks among
      them.
    - Of several children with the same `state_key` only the best enters the beam, so it does not collapse onto copies.
    - Recorded steps enter the beam only when the policy proposes them.
    - A node whose expansion failed or brought nothing is asked again until it is closed (see TreeSearch).
    - The search ends when a level has no unfinished child, whatever budget is left: `ask` returns []. What was dropped
      stays open in the tree.

    `tree.memory["beam"]` holds one Level for each start.
    """

    synchronous: ClassVar[bool] = True

    beam_width: int = 4
    branching: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("beam_width", self.beam_width)
        check_count("branching", self.branching)

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """As every algorithm; the children wait for the end of their level."""
        ids = super().tell(tree, ask_id, children, more=more, failed=failed)
        for level in self._levels(tree).values():
            if ask_id in level.asks:
                level.asks.remove(ask_id)
                level.told.extend(node for node in ids if node not in level.told)
        return ids

    def _levels(self, tree: Tree) -> dict[int, Level]:
        levels: dict[int, Level] = tree.memory.setdefault("beam", {})
        return levels

    def _after(self, tree: Tree, ask: Ask, ids: Sequence[int], ended: bool) -> None:
        super()._after(tree, ask, ids, ended)
        if not ids and not tree.complete[ask.node]:
            for level in self._levels(tree).values():
                if ask.id in level.asks:
                    level.waiting.append(ask.node)

    def _next(self, tree: Tree) -> Ask | None:
        level = self._levels(tree).setdefault(tree.start, Level([tree.start], log_prior={tree.start: 0.0}))
        while True:
            while level.waiting:
                node = level.waiting.pop(0)
                if tree.status[node] == OPEN and not tree.complete[node]:
                    return self._open(tree, level, node)
                level.told.extend(_known(tree, node))
            if level.asks or not level.told:
                return None
            self._advance(tree, level)

    def _open(self, tree: Tree, level: Level, node: int) -> Ask:
        tree.hold(node)
        ask = tree.open_ask(node, self.branching)
        level.asks.add(ask.id)
        return ask

    def _advance(self, tree: Tree, level: Level) -> None:
        log_prior = _log_priors(tree, level)
        ranked = sorted(
            (node for node in level.told if tree.status[node] == OPEN),
            key=lambda node: (_value(tree, node), log_prior[node], -tree.order[node]),
            reverse=True,
        )
        seen: set[str] = set()
        level.waiting, level.told = [], []
        for node in ranked:
            state = tree.state_key[node]
            if state is not None and state in seen:
                continue
            if state is not None:
                seen.add(state)
            level.waiting.append(node)
            if len(level.waiting) == self.beam_width:
                break
        level.log_prior = {node: log_prior[node] for node in level.waiting}


def _known(tree: Tree, node: int) -> list[int]:
    """The children of a node that has no others, the recorded one left out."""
    return [child for child in tree.open_ids[node] if not tree.spine[child]]


def _value(tree: Tree, node: int) -> float:
    value = tree.value[node]
    return -inf if value is None else value


def _log_priors(tree: Tree, level: Level) -> dict[int, float]:
    """The log priors of the told children, summed from the beam's start; normalised over siblings."""
    sums: dict[int, float] = {}
    for node in level.told:
        parent, prior = tree.parent[node], tree.prior[node]
        fill, total = prior_scale(tree, parent)
        share = (fill if prior is None else prior) / total
        sums[node] = level.log_prior[parent] + (log(share) if share > 0.0 else -inf)
    return sums
