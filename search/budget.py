"""Hard budgets: what may be spent, what was, and a ledger that says no before a call, not after it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ..storage.errors import UsageError
from .algorithm import check_number

ROUNDING = 1e-9
"""Sums of prices in floats may miss the limit by this much (relative to it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What something costs, has cost or may cost at most."""

    transitions: int = 0
    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in QUANTITIES})

    def __sub__(self, other: Spent) -> Spent:
        return Spent(**{name: getattr(self, name) - getattr(other, name) for name in QUANTITIES})


QUANTITIES = tuple(item.name for item in fields(Spent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits; None is unlimited. `depth` bounds the steps of one run and is never summed. Raises UsageError below 0."""

    transitions: int | None = None
    calls: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            check_number(item.name, getattr(self, item.name), low=0.0)

    def exceeded(self, total: Spent) -> str | None:
        """The first quantity of which `total` is more than the limit; None when it fits."""
        for name in QUANTITIES:
            limit = getattr(self, name)
            if limit is not None and getattr(total, name) > limit + ROUNDING * limit:
                return name
        return None


class Ledger:
    """Spending under one Budget: reserve the worst case before a call, settle what it was after it.

    `spent` is what was settled, `reserved` what calls in flight may cost at most. As long as no settled amount exceeds
    its reservation, `spent` never exceeds the budget.
    """

    def __init__(self, budget: Budget, spent: Spent | None = None):
        self.budget = budget
        self.spent = spent or Spent()
        self.reserved = Spent()
        self.refused: str | None = None
        """The quantity that refused the last reservation; None when it was granted."""

    def reserve(self, estimate: Spent) -> bool:
        """True, and `estimate` is reserved, when all of it fits every limit; else nothing changes."""
        self.refused = self.budget.exceeded(self.spent + self.reserved + estimate)
        if self.refused is not None:
            return False
        self.reserved += estimate
        return True

    def settle(self, reserved: Spent, actual: Spent) -> None:
        """Give a reservation back and book what was really spent (all zero for a call that was never made)."""
        if Budget(**{name: max(0, getattr(self.reserved, name)) for name in QUANTITIES}).exceeded(reserved):
            raise UsageError("more was settled than is reserved")
        self.reserved -= reserved
        self.spent += actual

    def remaining(self) -> Budget:
        """What may still be reserved; never below 0."""
        used = self.spent + self.reserved
        left = {
            name: max(type(limit)(0), limit - getattr(used, name))
            for name in QUANTITIES
            if (limit := getattr(self.budget, name)) is not None
        }
        return replace(self.budget, **left)


def slices(limit: float | None, count: int) -> list[float | None]:
    """A run-wide limit as `count` fixed equal shares in trajectory order; of whole numbers the first get the remainder.

    They do not depend on who finishes first, so that the result does not either. None (unlimited) gives None to all.
    """
    if count < 0:
        raise UsageError(f"the number of shares must be at least 0, not {count}")
    if limit is None:
        return [None] * count
    if not isinstance(limit, int):
        return [limit / count] * count
    return [limit // count + (index < limit % count) for index in range(count)]
