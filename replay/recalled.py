"""What an earlier session of the same run left in its journal, by trajectory, ready for the loop that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]


class Recalled:
    """Events by the position of their trajectory; what is of no tree (intents and results of calls) goes to `other`."""

    def __init__(self) -> None:
        self.baselines: dict[int, Event] = {}
        self.tells: dict[int, dict[int, Event]] = {}
        """By trajectory and ask."""
        self.gates: dict[int, dict[int, Event]] = {}
        """By trajectory and node: a leaf is not judged twice."""
        self.last_gates: dict[int, list[int]] = {}
        """The nodes of the gate events that a trajectory's events end with."""
        self.noted: dict[int, dict[int, list[str]]] = {}
        """The kinds of events (score, prune) that the journal has of a node."""
        self.planned: int | None = None
        """The budget that the run began with: what algorithms that plan ahead go on planning for."""

    def read(self, events: Sequence[Event], other: Callable[[Event], None]) -> None:
        """Sort the events of a journal in their order."""
        for event in events:
            kind = event["event"]
            if kind == "baseline":
                self.baselines[event["t"]] = event
            elif kind == "tell":
                self.tells.setdefault(event["t"], {})[event["ask"]] = event
                self.last_gates.pop(event["t"], None)
            elif kind == "gate":
                self._gate(event)
            elif kind == "plan":
                self.planned = event["budget"]
            elif kind in ("score", "prune"):
                self.noted.setdefault(event["t"], {}).setdefault(event["node"], []).append(kind)
            else:
                other(event)

    def _gate(self, event: Event) -> None:
        position = event["t"]
        self.gates.setdefault(position, {})[event["node"]] = event
        before = [] if event["first"] else self.last_gates.get(position, [])
        self.last_gates[position] = [*before, event["node"]]
