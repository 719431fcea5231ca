"""Outcomes: several samples of one action in a world that answers differently each time.

The first child of an action has the action as its key. An ask with `Ask.action` set plays the action again: a new
outcome becomes a sibling with a key of its own and `tree.action[node]` says whose outcome it is, a known one is merged.
Each outcome counts how often the world drew it, so an action's value is the mean over its outcomes weighted by that.

Everything here is sparse: a search that never asks for a second outcome pays nothing.
"""

from __future__ import annotations

SETTLED_AFTER = 3
"""Draws in a row without a new outcome after which an action none of whose outcomes is open is played no more."""

Action = tuple[int, str]


class Outcomes:
    """What is known of repeated actions, by (node, action)."""

    def __init__(self) -> None:
        self.wanted = False
        """True: the search wants several outcomes, so a node is not exhausted before its actions are settled."""
        self.times: dict[Action, dict[int, int]] = {}
        """How often each outcome (a node id) was drawn; only actions that were played again."""
        self.extra: dict[int, int] = {}
        """By node: its children that are second and further outcomes, thus no actions of their own."""
        self.pending: dict[Action, int] = {}
        self._asked: dict[Action, int] = {}
        self._pending_at: dict[int, int] = {}
        self._fruitless: dict[Action, int] = {}
        self._settled: dict[int, int] = {}

    def draws(self, node: int, action: str, first: int) -> dict[int, int]:
        """How often each outcome of the action was drawn; `first` is its first one."""
        return self.times.get((node, action)) or {first: 1}

    def actions(self, node: int, children: int) -> int:
        """How many actions the node's `children` children are."""
        return children - self.extra.get(node, 0)

    def played(self, node: int, action: str) -> int:
        """How often the action was played or is about to be, also in vain."""
        return 1 + self._asked.get((node, action), 0)

    def pending_at(self, node: int) -> int:
        """How many of the asks open at the node are for known actions."""
        return self._pending_at.get(node, 0)

    def settled(self, node: int, action: str) -> bool:
        """True when the last draws brought nothing new."""
        return self._fruitless.get((node, action), 0) >= SETTLED_AFTER

    def unsettled(self, node: int, children: int) -> bool:
        """True when an action of the node may still have an unknown outcome."""
        return self._settled.get(node, 0) < self.actions(node, children)

    def ask(self, node: int, action: str) -> None:
        """Another outcome is asked for."""
        self._asked[node, action] = self._asked.get((node, action), 0) + 1
        self.pending[node, action] = self.pending.get((node, action), 0) + 1
        self._pending_at[node] = self.pending_at(node) + 1

    def close(self, node: int, action: str) -> None:
        """An ask for another outcome has ended."""
        self.pending[node, action] -= 1
        self._pending_at[node] -= 1

    def told(self, node: int, action: str, first: int, outcome: int, samples: int, new: bool) -> None:
        """An outcome was drawn `samples` times; `new`: it is a new child."""
        times = self.times.setdefault((node, action), {first: 1})
        times[outcome] = times.get(outcome, 0) + samples
        if new:
            self.extra[node] = self.extra.get(node, 0) + 1

    def note(self, node: int, action: str, new: bool) -> None:
        """An ask ended, with something new or (also by failure) in vain."""
        was = self.settled(node, action)
        self._fruitless[node, action] = 0 if new else self._fruitless.get((node, action), 0) + 1
        self._settled[node] = self._settled.get(node, 0) + self.settled(node, action) - was
