"""Tree: the whole state of one search, and what tells do to it. `columns.py` says what the columns mean.

A node is exhausted when it is complete, no child is open, no ask is open at it and no action of it is to be sampled
again (see `outcomes.py`); that goes upwards at once. Nothing is ever copied or removed; one tell costs O(depth).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from ..storage.errors import UsageError
from .columns import CLOSED, EXHAUSTED, FAILED, OPEN, PRUNED, Ask, Child, Columns, mix
from .outcomes import Outcomes
from .values import Bounds

__all__ = ["CLOSED", "EXHAUSTED", "FAILED", "OPEN", "PRUNED", "Ask", "Child", "Tree", "mix"]


class Tree(Columns):
    """One search tree. Algorithms write it; everyone may read its columns by node id.

    `merge_states`: a child told without a value takes that of an earlier node with the same state key, if both are
    ends or neither is (the outcome of a run that was cut says nothing about going on). The evaluation is shared, paths
    and visits are not.
    """

    def __init__(self, seed: int = 0, merge_states: bool = False):
        super().__init__(seed)
        self.merge_states = merge_states
        self.start = 0
        """Where algorithms begin to descend."""
        self.leave_spine = False
        """True: a descent that begins at `start` may not follow the spine from there."""
        self.memory: dict[str, Any] = {}
        """What an algorithm must remember between calls, by its own name."""
        self.bounds = Bounds()
        self.ended = 0
        """Visits so far, the spine's left out."""
        self.opened = 0
        """Asks opened so far: the id of the next one."""
        self.asks: dict[int, Ask] = {}
        """The open asks by id, in ask order."""
        self.told: dict[int, tuple[int, ...]] = {}
        """The node ids that each finished ask brought."""
        self.tips: deque[int] = deque()
        """Where open rollouts wait for their next ask, oldest first."""
        self.outcomes = Outcomes()
        """What is known of actions that were asked for more than one outcome."""
        self.watched: dict[int, set[int]] = {}
        """By node, for those who want to know: the children whose visits or virtual visits have changed, or whose prior
        became known, since the set was cleared."""
        self.votes: dict[str, float] = {}
        """The weight of each answer; filled by algorithms that vote, and by no others."""
        self._best = -1
        self._spine_leaf = -1
        self._values: dict[tuple[str, bool], float] = {}
        self._append(-1, Child(key=""))

    # Reading

    def best(self) -> int | None:
        """The finished node whose answer has the most votes (where anybody votes: see `standing`), then the highest
        told value, then the fewest steps, then the lowest id.

        Without votes only ends with a value count. The record's own end only when the search has finished nothing that
        counts; None when there is no record either.
        """
        if self.votes and (voted := self._elected()) is not None:
            return voted
        if self._best >= 0:
            return self._best
        return self._spine_leaf if self._spine_leaf >= 0 else None

    def standing(self, node: int) -> float:
        """The votes for the node's answer; 0.0 when nobody votes."""
        return self.votes.get(self.answer(node), 0.0) if self.votes else 0.0

    def _elected(self) -> int | None:
        best = None
        for node in self.finished:
            if self.spine[node]:
                continue
            value = self.value[node]
            rank = (self.standing(node), value is not None, value or 0.0, -self.depth[node], -node)
            if best is None or rank > best[0]:
                best = (rank, node)
        return None if best is None else best[1]

    def shared_value(self, child: Child) -> float | None:
        """What `merge_states` makes of a child that was told without a value; None when nobody knows its state."""
        if not self.merge_states or child.state_key is None:
            return None
        return self._values.get((child.state_key, child.terminal))

    # Telling

    def tell_spine(self, keys: Sequence[str], value: float | None, terminal: bool = True) -> list[int]:
        """What `tree.spine(...)` does."""
        if len(self) > 1:
            raise UsageError("the record is told before anything else: this tree has nodes already")
        ids: list[int] = []
        for key in keys:
            last = terminal and len(ids) == len(keys) - 1
            ids.append(self._append(ids[-1] if ids else 0, Child(key, terminal=last)))
            self.spine[-1] = True
        if ids:
            self._spine_leaf = ids[-1]
            if value is not None:
                self.value[ids[-1]] = value
                self.back_up(ids[-1], value)
                self.ended -= 1
        return ids

    def open_ask(self, node: int, count: int, action: str | None = None) -> Ask:
        """Open an ask. Virtual visits are the caller's business: see `hold`."""
        ask = Ask(self.opened, node, count, action)
        self.opened += 1
        self.asks[ask.id] = ask
        self.pending[node] += 1
        if action is not None:
            self.outcomes.ask(node, action)
        return ask

    def close_ask(self, ask: Ask, told: Sequence[int]) -> None:
        """End an open ask with the ids it brought, after all of them have their place; its node may end by it."""
        del self.asks[ask.id]
        self.told[ask.id] = tuple(told)
        self.pending[ask.node] -= 1
        if ask.action is not None:
            self.outcomes.close(ask.node, ask.action)
        self.settle(ask.node)

    def add(self, parent: int, child: Child, action: str | None = None) -> int:
        """Append a new child; a terminal one is closed. `action`: it is one more outcome of that known action. The
        caller has made sure that the key is new."""
        return self._append(parent, child, action)

    def merge(self, node: int, child: Child) -> None:
        """Count a duplicate of a known node; its prior and state key are kept, or taken when there was none."""
        self.samples[node] += child.samples
        if self.state_key[node] is None and child.state_key is not None:
            self._name_state(node, child.state_key)
        if self.prior[node] is None and child.prior is not None:
            self.prior[node] = child.prior
            self._note_change(node, self.parent[node])
            if self.action[node] == self.key[node]:
                self._sum_prior(self.parent[node], child.prior)

    def judge(self, node: int, value: float) -> None:
        """Set the verdict on a node's state (None until now) and, if it ends a run, compare it with the best."""
        self.value[node] = value
        self.imputed[node] = False
        state = self.state_key[node]
        if self.merge_states and state is not None:
            self._values.setdefault((state, self.terminal[node]), value)
        if self.terminal[node] and not self.spine[node] and self._better(node, value):
            self._best = node

    def _better(self, node: int, value: float) -> bool:
        best = self._best
        if best < 0:
            return True
        best_value = self.value[best]
        if best_value is None or value != best_value:
            return best_value is None or value > best_value
        return (self.depth[node], node) < (self.depth[best], best)

    def back_up(self, node: int, value: float) -> None:
        """One visit that ends at `node`, and its value, on every node up to the root."""
        self.bounds.include(value)
        self._visit(node, value)

    def impute(self, node: int, reason: str) -> None:
        """One visit that ends at `node` without a verdict: it backs up the lowest value of the tree so far (0.0 before
        the first), is marked, and neither moves the range of values nor can become the best."""
        self.imputed[node] = self.value[node] is None
        self.reason[node] = self.reason[node] or reason
        self._visit(node, self.bounds.low)

    def _visit(self, node: int, value: float) -> None:
        visits, value_sum, parent = self.visits, self.value_sum, self.parent
        self.ends[node] += 1
        self.ended += 1
        if self.watched:
            self._note_change(node, -1)
        above, value_max = node, self.value_max
        while node >= 0:
            visits[node] += 1
            value_sum[node] += value
            node = parent[node]
        while above >= 0 and value > value_max[above]:  # nobody above has less than the highest below it
            value_max[above] = value
            above = parent[above]

    def hold(self, node: int, above: int = -1) -> None:
        """Count something open at `node`: one virtual visit on it and its ancestors, up to below `above`."""
        if self.watched:
            self._note_change(node, above)
        virtual, parent = self.virtual, self.parent
        while node != above:
            virtual[node] += 1
            node = parent[node]

    def release(self, node: int) -> None:
        """Take one virtual visit off every node from `node` up to the root."""
        if self.watched:
            self._note_change(node, -1)
        virtual, parent = self.virtual, self.parent
        while node >= 0:
            virtual[node] -= 1
            node = parent[node]

    def _note_change(self, node: int, above: int) -> None:
        """Tell those who watch that the nodes from `node` up to below `above` have changed."""
        watched, parent = self.watched, self.parent
        while node != above:
            if (changed := watched.get(parent[node])) is not None:
                changed.add(node)
            node = parent[node]

    def close(self, node: int, status: str, reason: str | None) -> None:
        """End a node: it is never asked nor descended to again. Ancestors that thereby end are exhausted."""
        self.status[node] = status
        self.reason[node] = reason
        parent = self.parent[node]
        if parent >= 0 and node in self.open_ids[parent]:
            self.open_ids[parent].remove(node)
            self.settle(parent)

    def settle(self, node: int) -> None:
        """Close the node if nothing below it is left: complete, no open child, no ask open at it, no action to sample.

        An unvisited node without children ends its rollout: with its own value when it has one (an algorithm that did
        not count it when it was told), else imputed.
        """
        if self.complete[node] and not self.open_ids[node] and not self.pending[node] and self.status[node] == OPEN:
            if self.outcomes.wanted and self.outcomes.unsettled(node, len(self.child_ids[node])):
                return
            failed = self.failures[node] > 0 and not self.child_ids[node]
            if not self.child_ids[node] and not self.visits[node] and node > 0 and not self.spine[node]:
                value = self.value[node]
                self.impute(node, "no children") if value is None else self.back_up(node, value)
            self.close(node, FAILED if failed else EXHAUSTED, self.reason[node] or "all children are closed")
