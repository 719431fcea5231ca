"""A depot with side effects: stock goes down, reservations and shipments are numbered, nothing is taken back by itself.

The class is three things at once: the world that the LangGraph agent's tools act on, an environment by itself
(`--env ./depot.py:Depot`), and what a recorded run was made in. The verdict reads what was shipped from the answers
themselves, so that it also judges a tape.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from ttc_replay import Task, Trajectory, reward

STOCK = {"tea": 9, "cups": 6, "pots": 2}
_LINE = re.compile(r"(\d+) (\w+)")


class Depot:
    """What is there, what is reserved, what has left."""

    forks = "deepcopy"
    tools = ("look", "reserve", "ship")

    def __init__(self) -> None:
        self.stock = dict(STOCK)
        self.reserved: dict[str, tuple[str, int]] = {}
        self.shipped: list[tuple[str, int]] = []
        self.numbers = 0

    def reset(self, task: Task) -> None:
        """Nothing of the task is set up here: every order meets the same depot."""

    def look(self, item: str) -> dict[str, Any]:
        """How many of an item are free.

        Args:
            item: The item's name.
        """
        return {"item": item, "free": self.stock.get(item, 0)}

    def reserve(self, item: str, count: int) -> dict[str, Any]:
        """Set some of an item aside.

        Args:
            item: The item's name.
            count: How many.
        """
        free = self.stock.get(item, 0)
        if not 0 < count <= free:
            return {"error": f"{count} {item}: {free} are free"}
        self.numbers += 1
        self.stock[item] = free - count
        self.reserved[f"R-{self.numbers}"] = (item, count)
        return {"reservation": f"R-{self.numbers}", "free": self.stock[item]}

    def ship(self, reservation: str) -> dict[str, Any]:
        """Send off what was set aside.

        Args:
            reservation: The number that `reserve` gave.
        """
        if reservation not in self.reserved:
            return {"error": f"no reservation {reservation}"}
        item, count = self.reserved.pop(reservation)
        self.shipped.append((item, count))
        return {"shipment": len(self.shipped), "item": item, "count": count}

    def state(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {"stock": self.stock, "reserved": self.reserved, "shipped": self.shipped, "numbers": self.numbers}


class LiveDepot(Depot):
    """The same as one object for the whole process, as a service has it: it can be put back by whoever holds it."""

    def snapshot(self) -> str:
        """All of it, as text."""
        return json.dumps(self.state())

    def restore(self, snapshot: str) -> None:
        """As it was."""
        was = json.loads(snapshot)
        self.stock, self.numbers = was["stock"], was["numbers"]
        self.reserved = {name: (item, count) for name, (item, count) in was["reserved"].items()}
        self.shipped = [(item, count) for item, count in was["shipped"]]


def order_of(text: str) -> dict[str, int]:
    """`Ship 4 tea and 2 cups.` as `{"tea": 4, "cups": 2}`."""
    return {item: int(count) for count, item in _LINE.findall(text)}


@reward
def shipped_right(trajectory: Trajectory) -> float:
    """1.0 when what was shipped is what was ordered, nothing more and nothing less."""
    left: Counter[str] = Counter()
    for message in trajectory.messages:
        if message.role == "tool" and message.name == "ship" and "shipment" in (said := json.loads(message.text)):
            left[said["item"]] += said["count"]
    return float(left == Counter(order_of(trajectory.task.prompt)))
