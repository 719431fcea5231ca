"""Classes of plain functions for the tests of `tools`, used as plugins by file."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
from typing import Annotated, Any, Literal

import msgspec

from ttc_replay import Task


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Item:
    name: str
    price: float = 1.0


class Place(msgspec.Struct):
    street: str
    number: int


class Shop:
    """One of everything that a tool may take and give."""

    inline = True
    limit = 3
    _secret = 1

    def __init__(self, stock: int = 5) -> None:
        self.stock = stock
        self.sold: set[str] = set()
        self.log: list[str] = []
        self.done = False
        self._private = "never shown"
        self.notes = object()

    def reset(self, task: Task) -> list[dict[str, str]] | None:
        self.stock = task.data.get("stock", self.stock)
        greeting = task.data.get("greeting")
        return [{"role": "system", "content": greeting}] if greeting else None

    def buy(self, item: str, count: int = 1, *, gift: bool = False) -> dict[str, Any]:
        """Buy something.

        It is taken from the stock at once.

        Args:
            item: what it is
                called
            count (int): how many of it
        """
        if count > self.stock:
            raise ValueError(f"only {self.stock} left")
        self.stock -= count
        self.sold.add(item)
        self.log.append(f"{item} x {count}{' wrapped' * gift}")
        return {"stock": self.stock, "sold": self.sold}

    def describe(  # type: ignore[no-untyped-def]
        self,
        item: Item,
        colour: Colour,
        size: Literal["S", "L"],
        on: datetime.date,
        rate: Annotated[int, msgspec.Meta(ge=1, le=5)],
        where: Place | None = None,
        tags: list[str] = [],  # noqa: B006  what users write
        anything=None,
    ) -> dict[str, Any]:
        types = [type(value).__name__ for value in (item, colour, size, on, rate, where, tags, anything)]
        return {"types": types, "year": on.year, "where": where, "item": item, "colour": colour, "on": on}

    def keep(self, things: list) -> int:  # type: ignore[type-arg]
        """:param things: to be kept"""
        things.append("more")
        things[0].append("deeper")
        return len(things)

    def give(self, kind: str) -> Any:
        """Give a result of some kind.

        Parameters
        ----------
        kind : str
            which
        """
        return {
            "text": "as it is",
            "none": None,
            "number": 1.5,
            "set": {"b", "a", "c"},
            "numbers": {10, 9, 2},
            "mixed": {"b", 1},
            "dataclass": Item("x"),
            "struct": Place("Main St", 1),
            "date": datetime.date(2024, 1, 2),
            "decimal": decimal.Decimal("1.10"),
            "tuple": (1, "é"),
            "object": object(),
        }[kind]

    def fail(self, how: str) -> None:
        if how == "exit":
            raise SystemExit(3)
        if how == "bare":
            raise RuntimeError
        raise KeyError(how)

    def leave(self) -> str:
        """End the run."""
        self.done = True
        return "bye"

    def _hidden(self) -> None:
        raise AssertionError

    @property
    def shelf(self) -> int:
        return 1

    @staticmethod
    def add(left: int, right: int, /) -> int:
        return left + right


class Chosen(Shop):
    """Only these two, in this order."""

    tools = ("leave", "buy")
    forks = "deepcopy"


class Slotted:
    """State in slots, an end by function, hooks of its own."""

    __slots__ = ("closed", "count", "odds")
    forks = "native"

    def __init__(self) -> None:
        self.count, self.closed, self.odds = 0, False, 0

    def up(self) -> int:
        self.count += 1
        return self.count

    def done(self) -> bool:
        return self.count >= 2

    def fork(self) -> Slotted:
        twin = Slotted()
        twin.count = self.count
        return twin

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "of": {2, 1}}

    def state_key(self) -> str:
        return str(self.count)

    def reseed(self, seed: int) -> None:
        self.odds = seed

    def close(self) -> None:
        self.closed = True


class Waiting:
    """Everything waits."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def reset(self, task: Task) -> str:
        await asyncio.sleep(0)
        return f"do {task.id}"

    async def slow(self, name: str) -> str:
        for _ in range(3 - len(self.steps)):
            await asyncio.sleep(0)
        self.steps.append(name)
        return name

    async def fork(self) -> Waiting:
        await asyncio.sleep(0)
        twin = Waiting()
        twin.steps = list(self.steps)
        return twin

    async def state(self) -> dict[str, Any]:
        return {"steps": tuple(self.steps)}


class Unfit:
    """No state that is JSON."""

    def state(self) -> Any:
        return object()

    def one(self) -> int:
        return 1


class Away(Shop):
    """In a process of its own."""

    isolation = "process"
    forks = "pickle"


class Stars:
    def any(self, *names: str) -> None: ...


class Named:
    def any(self, **names: str) -> None: ...


class Odd:
    def take(self, it: Shop) -> None: ...


class Unresolved:
    def take(self, it: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Hooked:
    """`close` is a hook: a tool cannot have that name."""

    def close(self, ticket: str) -> None: ...

    def one(self) -> int:
        return 1


class Nothing:
    def _only(self) -> None: ...


class Misnamed(Shop):
    tools = ("buy", "sell")


def make(stock: int) -> Shop:
    """A function that gives an instance."""
    return Shop(stock)
