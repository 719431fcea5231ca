"""Tree: the whole state of one search as append-only columns, one entry per node, ids instead of objects.

What the columns mean (node 0 is the root, its parent is -1):

    parent, depth, key, state_key, order     the shape; `order` is the seeded hash that breaks ties
    prior, value, samples                    as told; value None: no verdict on this state; samples: merged duplicates
    prior_sum, prior_count                   over the children whose prior is known
    ends, visits, value_sum                  visits = ends + the children's visits; `ends` are visits that ended here
    virtual                                  open asks and open rollouts at or below the node
    terminal, spine, imputed                 a finished run / a recorded step / backed up the tree's minimum
    status, reason                           "open", "closed" (finished), "exhausted", "failed" or "pruned", and why
    complete, pending, failures, fruitless   no more children exist / asks open at this very node / told in vain

A node is exhausted when it is complete, no child is open and no ask is open at it; that goes upwards at once. Nothing
is ever copied or removed; one tell costs O(depth).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from ..storage.errors import UsageError
from .values import Bounds

OPEN, CLOSED, EXHAUSTED, FAILED, PRUNED = "open", "closed", "exhausted", "failed", "pruned"
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Ask:
    """`count` children of `node` are wanted. `action` set: another outcome of the known child with that key."""

    id: int
    node: int
    count: int
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Child:
    """One told child. `value` is the score of its state, None when unknown; `samples` proposals were merged into it."""

    key: str
    prior: float | None = None
    value: float | None = None
    terminal: bool = False
    state_key: str | None = None
    samples: int = 1


def mix(left: int, right: int) -> int:
    """A 64-bit hash of two integers (the finaliser of splitmix64, Steele et al. 2014): equal on every platform."""
    word = (left * 0x9E3779B97F4A7C15 + right + 0x632BE59BD9B4E019) & _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


class SpineColumn(list[bool]):
    """The column `tree.spine[node]`; called, `tree.spine(keys, value)` tells the recorded steps."""

    def __init__(self, tree: Tree):
        super().__init__()
        self._tree = tree

    def __call__(self, keys: Sequence[str], value: float | None, terminal: bool = True) -> list[int]:
        """Tell the record as a chain from the root, before the search and at no budget cost; returns its node ids.

        The last node ends the record with `value`: one visit with it on every node of the path, none when it is None
        (unknown). Raises UsageError when the tree has other nodes already.
        """
        return self._tree.tell_spine(keys, value, terminal)


class Tree:
    """One search tree. Algorithms write it; everyone may read its columns by node id."""

    def __init__(self, seed: int = 0):
        self.seed = seed
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
        self._by_key: dict[tuple[int, str], int] = {}
        self._best = -1
        self._spine_leaf = -1
        self._columns()
        self._append(-1, Child(key=""))

    def _columns(self) -> None:
        self.parent: list[int] = []
        self.depth: list[int] = []
        self.key: list[str] = []
        self.state_key: list[str | None] = []
        self.order: list[int] = []
        self.prior: list[float | None] = []
        self.prior_sum: list[float] = []
        self.prior_count: list[int] = []
        self.value: list[float | None] = []
        self.samples: list[int] = []
        self.ends: list[int] = []
        self.visits: list[int] = []
        self.value_sum: list[float] = []
        self.virtual: list[int] = []
        self.terminal: list[bool] = []
        self.spine = SpineColumn(self)
        self.imputed: list[bool] = []
        self.status: list[str] = []
        self.reason: list[str | None] = []
        self.complete: list[bool] = []
        self.pending: list[int] = []
        self.failures: list[int] = []
        self.fruitless: list[int] = []
        self.child_ids: list[list[int]] = []
        self.open_ids: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.parent)

    # Reading

    def children(self, node: int) -> list[int]:
        """The ids of the node's children in the order they were told."""
        return list(self.child_ids[node])

    def path(self, node: int) -> list[int]:
        """The ids from the root to the node, both included."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.parent[node]
        return path[::-1]

    def mean(self, node: int) -> float | None:
        """The mean of the values backed up through the node; None without a visit."""
        return self.value_sum[node] / self.visits[node] if self.visits[node] else None

    def best(self) -> int | None:
        """The finished node with the highest told value, then the fewest steps, then the lowest id.

        The record's own end only when the search has finished nothing with a value; None when there is no record
        either.
        """
        if self._best >= 0:
            return self._best
        return self._spine_leaf if self._spine_leaf >= 0 else None

    def find(self, parent: int, key: str) -> int | None:
        """The child of `parent` with that key."""
        return self._by_key.get((parent, key))

    def spine_child(self, node: int) -> int | None:
        """The recorded child of a recorded node (the root is one); None elsewhere and at the record's end."""
        children = self.child_ids[node]
        return children[0] if children and self.spine[children[0]] else None

    def draw(self, node: int, turn: int) -> float:
        """A number in [0, 1) that depends on the seed, the node's path and `turn`, and on nothing else."""
        return mix(self.order[node], turn) / 2.0**64

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
        return ask

    def close_ask(self, ask: Ask, told: Sequence[int]) -> None:
        """End an open ask with the ids it brought, after all of them have their place; its node may end by it."""
        del self.asks[ask.id]
        self.told[ask.id] = tuple(told)
        self.pending[ask.node] -= 1
        self.settle(ask.node)

    def add(self, parent: int, child: Child) -> int:
        """Append a new child; a terminal one is closed. The caller has made sure that the key is new."""
        return self._append(parent, child)

    def merge(self, node: int, child: Child) -> None:
        """Count a duplicate of a known node; its prior is kept, or taken when there was none."""
        self.samples[node] += child.samples
        if self.prior[node] is None and child.prior is not None:
            self.prior[node] = child.prior
            self._sum_prior(self.parent[node], child.prior)

    def _sum_prior(self, parent: int, prior: float) -> None:
        self.prior_sum[parent] += prior
        self.prior_count[parent] += 1

    def judge(self, node: int, value: float) -> None:
        """Set the verdict on a node's state (None until now) and, if it ends a run, compare it with the best."""
        self.value[node] = value
        self.imputed[node] = False
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
        while node >= 0:
            visits[node] += 1
            value_sum[node] += value
            node = parent[node]

    def hold(self, node: int, above: int = -1) -> None:
        """Count something open at `node`: one virtual visit on it and its ancestors, up to below `above`."""
        virtual, parent = self.virtual, self.parent
        while node != above:
            virtual[node] += 1
            node = parent[node]

    def release(self, node: int) -> None:
        """Take one virtual visit off every node from `node` up to the root."""
        virtual, parent = self.virtual, self.parent
        while node >= 0:
            virtual[node] -= 1
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
        """Close the node if nothing below it is left: complete, no open child, no ask open at it."""
        if self.complete[node] and not self.open_ids[node] and not self.pending[node] and self.status[node] == OPEN:
            failed = self.failures[node] > 0 and not self.child_ids[node]
            if not self.child_ids[node] and not self.visits[node] and node > 0 and not self.spine[node]:
                self.impute(node, "no children")
            self.close(node, FAILED if failed else EXHAUSTED, self.reason[node] or "all children are closed")

    def _append(self, parent: int, child: Child) -> int:
        node = len(self.parent)
        root = parent < 0
        self.parent.append(parent)
        self.depth.append(0 if root else self.depth[parent] + 1)
        self.key.append(child.key)
        self.state_key.append(child.state_key)
        salt = self.seed & _MASK if root else self.order[parent]
        self.order.append(mix(salt, crc32(child.key.encode("utf-8", "surrogatepass"))))
        self.prior.append(child.prior)
        self.prior_sum.append(0.0)
        self.prior_count.append(0)
        self.value.append(None)
        self.samples.append(child.samples)
        self.ends.append(0)
        self.visits.append(0)
        self.value_sum.append(0.0)
        self.virtual.append(0)
        self.terminal.append(child.terminal)
        self.spine.append(False)
        self.imputed.append(False)
        self.status.append(CLOSED if child.terminal else OPEN)
        self.reason.append(None)
        self.complete.append(child.terminal)
        self.pending.append(0)
        self.failures.append(0)
        self.fruitless.append(0)
        self.child_ids.append([])
        self.open_ids.append([])
        if not root:
            self._by_key[parent, child.key] = node
            if child.prior is not None:
                self._sum_prior(parent, child.prior)
            self.child_ids[parent].append(node)
            if not child.terminal:
                self.open_ids[parent].append(node)
        return node
