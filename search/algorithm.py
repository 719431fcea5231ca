"""Algorithm: what every search is to the engine (ask and tell), and what all of ours have in common.

    ask(tree, k)   at most k asks; each holds virtual loss on its path until it is told; [] when nothing is left to
                   expand, or when everything that could be is open
    tell(tree, id, children, more=, failed=)   the children's node ids; the same id again changes nothing
    plan_ended(tree)   optional: why an algorithm whose plan has an end asks no more although something is left; see
                   `plan_ended` below

An algorithm is a frozen object made of options: all state is in the Tree, all randomness is a hash of the tree's seed
and of what is asked. So a search that is run again with the same seed and the same tells gives the same tree.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

from ..storage.errors import UsageError
from .elimination import eliminate
from .tree import PRUNED, Ask, Child, Tree

FAILURE_LIMIT = 3
"""Failed expansions after which a visited node is asked for no more children."""
FRUITLESS_LIMIT = 3
"""Tells in a row without a new child after which a node is asked for no more (design.md section 4)."""
QUANTILE_SAMPLES = 10
"""Process values that `prune_quantile` waits for before it prunes."""


@runtime_checkable
class Algorithm(Protocol):
    """One search algorithm. Plugins need these two methods and nothing else."""

    def ask(self, tree: Tree, k: int) -> list[Ask]:
        """At most `k` asks, now open in the tree."""
        ...

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """The node ids of `children`, in their order."""
        ...


@dataclass(frozen=True, kw_only=True)
class TreeSearch(ABC):
    """The common half of our algorithms: places told children, counts visits, ends nodes. Subclasses choose asks.

    - A terminal child with a value, and a nonterminal one with a value (process reward or value model), adds one visit
      and its value to every node on its path. A nonterminal one without a value adds none.
    - A terminal child without a value (the score abstained or failed) backs up the tree's lowest value and is
      `imputed`.
    - A known key is merged: `samples` grow; a known end adds one more visit (a vote).
    - Fewer children than asked and `more` False: the node is complete. So is one after FRUITLESS_LIMIT tells in a row
      that brought nothing new. `failed`: an unvisited node of a rollout ends at once and backs up the tree's lowest
      value, imputed; elsewhere FAILURE_LIMIT failures complete the node, and what it has stays in the search.
    - `prune_below`: a nonterminal child whose value is below it is closed as "pruned", with the reason; its visit
      counts.
    - `prune_quantile` (0 to 1): the same below that quantile of the process values told so far in this tree.
    - `prune_confidence` (0 to below 1): a nonterminal node is closed as "pruned", with the reason, once it is worse
      than a sibling with that confidence (see `elimination.py`).
    - An ask for another outcome of a known action never completes the node, told in vain or failed; see `outcomes.py`.
    - With `tree.merge_states` a child told without a value takes the value of its state (see `Tree`).

    Raises UsageError for options that make no sense.
    """

    synchronous: ClassVar[bool] = False
    """True: one start is searched to its end before another may begin."""

    prune_below: float | None = None
    prune_quantile: float | None = None
    prune_confidence: float | None = None

    def __post_init__(self) -> None:
        check_number("prune_below", self.prune_below)
        check_number("prune_quantile", self.prune_quantile, low=0.0, high=1.0)
        check_number("prune_confidence", self.prune_confidence, low=0.0, high=1.0)
        if self.prune_confidence == 1.0:
            raise UsageError("prune_confidence must be below 1: nothing is certain")

    def ask(self, tree: Tree, k: int) -> list[Ask]:
        """At most `k` asks; each holds one virtual visit on its path until it is told."""
        asks: list[Ask] = []
        while len(asks) < k and (ask := self._next(tree)) is not None:
            asks.append(ask)
        return asks

    def tell(
        self, tree: Tree, ask_id: int, children: Sequence[Child], *, more: bool = False, failed: str | None = None
    ) -> list[int]:
        """Place the children under the asked node; returns their ids. Raises UsageError for an unknown ask."""
        if (told := tree.told.get(ask_id)) is not None:
            return list(told)
        ask = tree.asks.get(ask_id)
        if ask is None:
            raise UsageError(f"there is no ask {ask_id} in this tree")
        size, ended = len(tree), tree.ended
        ids = [self._place(tree, ask.node, child, ask.action) for child in children]
        if ask.action is not None:
            tree.outcomes.note(ask.node, ask.action, len(tree) > size)
            tree.reason[ask.node] = failed or tree.reason[ask.node]
        elif failed is None:
            if len(children) < ask.count and not more:
                tree.complete[ask.node] = True
            self._note_supply(tree, ask.node, len(tree) > size)
        else:
            self._note_failure(tree, ask.node, failed)
        self._after(tree, ask, ids, tree.ended > ended)
        tree.close_ask(ask, ids)
        if self.prune_confidence is not None:
            eliminate(tree, ask.node, self.prune_confidence)
        return ids

    @abstractmethod
    def _next(self, tree: Tree) -> Ask | None:
        """Open the next ask; None when there is none now."""

    def plan_ended(self, tree: Tree) -> str | None:
        """Why the search from `tree.start` is over although something is left to expand; None: it is not over.

        To be asked when `ask` has returned [] with nothing open. Only algorithms whose plan has an end ever say so.
        """
        return None

    def _after(self, tree: Tree, ask: Ask, ids: Sequence[int], ended: bool) -> None:
        """What a tell means to the algorithm; `ended`: it brought a visit. Gives the ask's virtual visits back."""
        tree.release(ask.node)

    def _place(self, tree: Tree, parent: int, child: Child, action: str | None = None) -> int:
        if child.prior is not None and not 0.0 <= child.prior < math.inf:
            child = replace(child, prior=None)
        value = child.value
        if value is None and tree.merge_states:
            value = tree.shared_value(child)
        known = tree.find(parent, child.key)
        if known is None:
            node = tree.add(parent, child, action)
        else:
            node = known
            tree.merge(node, child)
        if action is not None and (first := tree.find(parent, action)) is not None:
            tree.outcomes.told(parent, action, first, node, child.samples, new=known is None)
        if value is not None and not math.isfinite(value):
            tree.reason[node] = f"the value {value} is not finite"
            value = None
        if tree.terminal[node]:
            self._end(tree, node, value)
        elif value is not None:
            self._evaluate(tree, node, value, vote=child.terminal)
        return node

    def _end(self, tree: Tree, node: int, value: float | None) -> None:
        if value is not None and tree.value[node] is None:
            tree.judge(node, value)
        verdict = value if value is not None else tree.value[node]
        if verdict is None:
            tree.impute(node, "no verdict")
        else:
            tree.back_up(node, self._backed_up(tree, node, verdict))

    def _backed_up(self, tree: Tree, node: int, verdict: float) -> float:
        """What the verdict on an end adds to its path."""
        return verdict

    def _counts_values(self) -> bool:
        """True: the value of an unfinished state is a visit, backed up as soon as it is told."""
        return True

    def _evaluate(self, tree: Tree, node: int, value: float, vote: bool) -> None:
        if tree.value[node] is None:
            tree.judge(node, value)
        elif not vote:
            return  # a state that is reached again was evaluated and counted the first time
        counted = vote or self._counts_values()
        if counted:
            tree.back_up(node, value)
        untouched = not (tree.spine[node] or tree.child_ids[node] or tree.pending[node])
        if untouched and (reason := self._prune_reason(tree, value)) is not None:
            if not counted:  # it ends its rollout, so its value is all that will be known
                tree.back_up(node, value)
            tree.close(node, PRUNED, reason)

    def _prune_reason(self, tree: Tree, value: float) -> str | None:
        if self.prune_below is not None and value < self.prune_below:
            return f"value {value:g} is below {self.prune_below:g}"
        if self.prune_quantile is None:
            return None
        seen: list[float] = tree.memory.setdefault("process values", [])
        rank = bisect_left(seen, value)
        below = len(seen) >= QUANTILE_SAMPLES and rank < self.prune_quantile * len(seen)
        insort(seen, value)
        return f"value {value:g} is below the {self.prune_quantile:g} quantile of {len(seen) - 1}" if below else None

    def _note_supply(self, tree: Tree, node: int, new: bool) -> None:
        tree.fruitless[node] = 0 if new else tree.fruitless[node] + 1
        if tree.fruitless[node] >= FRUITLESS_LIMIT:
            tree.complete[node] = True

    def _note_failure(self, tree: Tree, node: int, reason: str) -> None:
        tree.failures[node] += 1
        tree.reason[node] = reason
        in_rollout = node not in (0, tree.start) and not tree.spine[node]
        untouched = not tree.visits[node] and not tree.child_ids[node] and tree.pending[node] == 1
        if tree.failures[node] >= FAILURE_LIMIT or (in_rollout and untouched):
            tree.complete[node] = True


def plan_ended(algorithm: Algorithm, tree: Tree) -> str | None:
    """Why the algorithm is done with an unfinished tree, when it says so by a method `plan_ended`; else None.

    An `ask` that returns [] while nothing is open, although the tree is not exhausted and this is None, is a stall.
    """
    said = getattr(algorithm, "plan_ended", None)
    reason: str | None = None if said is None else said(tree)
    return reason


def prior_scale(tree: Tree, node: int) -> tuple[float, float]:
    """What a missing prior among the node's children counts as (the mean of the known ones), and the sum of all."""
    known, count = tree.prior_sum[node], len(tree.child_ids[node])
    if tree.outcomes.extra:
        count = tree.outcomes.actions(node, count)
    if known <= 0.0:
        return 1.0, float(count)
    fill = known / tree.prior_count[node]
    return fill, fill * count


def check_number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise UsageError unless `value` is None or a finite number in [low, high]."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high:
        raise UsageError(f"{name} must be in [{low:g}, {high:g}], not {value!r}")


def check_count(name: str, value: object, *, optional: bool = False) -> None:
    """Raise UsageError unless `value` is an integer of at least 1 (or None, where that is allowed)."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be a whole number from 1, not {value!r}")
