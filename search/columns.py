"""Columns: what a search tree keeps of each node, append-only, one list per property, ids instead of objects.

What the columns mean (node 0 is the root, its parent is -1):

    parent, depth, key, order                the shape; `order` is the seeded hash that breaks ties
    action                                   the action that the node is an outcome of: its key, but for the second and
                                             further outcomes of one action (see `Ask.action`)
    state_key, twin                          as told; the first node told with the same state key, -1: none, or itself
    prior, value, samples                    as told; value None: no verdict on this state; samples: merged duplicates
    prior_sum, prior_count                   over the actions at the node whose prior is known
    ends, visits, value_sum, value_max       visits = ends + the children's visits; `ends` are visits that ended here
    virtual                                  open asks and open rollouts at or below the node
    terminal, spine, imputed                 a finished run / a recorded step / backed up the tree's minimum
    status, reason                           "open", "closed" (finished), "exhausted", "failed" or "pruned", and why
    complete, pending, failures, fruitless   no more actions exist / asks open at this very node / told in vain
    child_ids, open_ids                      the children in the order told / those of status "open"
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from zlib import crc32

OPEN, CLOSED, EXHAUSTED, FAILED, PRUNED = "open", "closed", "exhausted", "failed", "pruned"
GOLDEN, OFFSET, _MASK = 0x9E3779B97F4A7C15, 0x632BE59BD9B4E019, (1 << 64) - 1


# Ask and Child are not frozen: a frozen dataclass takes five times as long to build, and a search builds one of each
# for every transition. Nobody changes them.


@dataclass(slots=True)
class Ask:
    """`count` children of `node` are wanted. `action` set: another outcome of the known child with that key."""

    id: int
    node: int
    count: int
    action: str | None = None


@dataclass(slots=True)
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
    return finalise(left * GOLDEN + right + OFFSET)


def finalise(word: int) -> int:
    """The finaliser alone; `mix` makes its word of two integers."""
    word &= _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


class SpineColumn(list[bool]):
    """The column `tree.spine[node]`; called, `tree.spine(keys, value)` tells the recorded steps."""

    def __init__(self, columns: Columns):
        super().__init__()
        self._columns = columns

    def __call__(self, keys: Sequence[str], value: float | None, terminal: bool = True) -> list[int]:
        """Tell the record as a chain from the root, before the search and at no budget cost; returns its node ids.

        The last node ends the record with `value`: one visit with it on every node of the path, none when it is None
        (unknown). Raises UsageError when the tree has other nodes already.
        """
        return self._columns.tell_spine(keys, value, terminal)


class Columns(ABC):
    """The columns and what can be read off them; `Tree` writes them."""

    def __init__(self, seed: int):
        self.seed = seed
        self.parent: list[int] = []
        self.depth: list[int] = []
        self.key: list[str] = []
        self.action: list[str] = []
        self.state_key: list[str | None] = []
        self.twin: list[int] = []
        self.order: list[int] = []
        self.prior: list[float | None] = []
        self.prior_sum: list[float] = []
        self.prior_count: list[int] = []
        self.value: list[float | None] = []
        self.samples: list[int] = []
        self.ends: list[int] = []
        self.visits: list[int] = []
        self.value_sum: list[float] = []
        self.value_max: list[float] = []
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
        self.finished: list[int] = []
        """The ids of all ends, recorded ones too."""
        self.answers: dict[int, str] = {}
        """What an algorithm that votes took an end to say, "" for nothing; see `answer`."""
        self._by_key: dict[tuple[int, str], int] = {}
        self._by_state: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.parent)

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

    def find(self, parent: int, key: str) -> int | None:
        """The child of `parent` with that key."""
        return self._by_key.get((parent, key))

    def spine_child(self, node: int) -> int | None:
        """The recorded child of a recorded node (the root is one); None elsewhere and at the record's end."""
        children = self.child_ids[node]
        return children[0] if children and self.spine[children[0]] else None

    def answer(self, node: int) -> str:
        """What an end says, for votes: what an algorithm took it to say, else its state key, else its key."""
        if node in self.answers:
            return self.answers[node]
        state = self.state_key[node]
        return self.key[node] if state is None else state

    def draw(self, node: int, turn: int) -> float:
        """A number in [0, 1) that depends on the seed, the node's path and `turn`, and on nothing else."""
        return (mix(self.order[node], turn) >> 11) / 2.0**53

    @abstractmethod
    def tell_spine(self, keys: Sequence[str], value: float | None, terminal: bool = True) -> list[int]:
        """What `tree.spine(...)` does."""

    def _append(self, parent: int, child: Child, action: str | None = None) -> int:
        """Append a node. `action`: it is one more outcome of that known action, not a new action."""
        node = len(self.parent)
        root = parent < 0
        self.parent.append(parent)
        self.depth.append(0 if root else self.depth[parent] + 1)
        self.key.append(child.key)
        self.action.append(child.key if action is None else action)
        self.state_key.append(None)
        self.twin.append(-1)
        if child.state_key is not None:
            self._name_state(node, child.state_key)
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
        self.value_max.append(-inf)
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
            if child.prior is not None and action is None:
                self._sum_prior(parent, child.prior)
            self.child_ids[parent].append(node)
            if child.terminal:
                self.finished.append(node)
            else:
                self.open_ids[parent].append(node)
        return node

    def _name_state(self, node: int, state: str) -> None:
        self.state_key[node] = state
        first = self._by_state.setdefault(state, node)
        self.twin[node] = -1 if first == node else first

    def _sum_prior(self, parent: int, prior: float) -> None:
        self.prior_sum[parent] += prior
        self.prior_count[parent] += 1
