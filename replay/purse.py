"""Run-wide hard limits on paid calls, granted to trees in fixed slices in trajectory order.

A slice does not depend on who is faster, so the trees do not either; what a tree leaves over is not given to others.
"""

from __future__ import annotations

from ..search.budget import slices
from ..storage.records import Usage
from .settings import Limits

Amount = tuple[float, float, float]
"""Calls, tokens, USD."""
NOTHING: Amount = (0, 0, 0.0)


class Purse:
    """Reserves the worst case of a call before it is made and settles with what it really cost."""

    def __init__(self, limits: Limits, trees: int):
        count = max(1, trees)
        self._slices = list(
            zip(
                _sliced(limits.calls, count),
                _sliced(limits.tokens, count),
                _sliced(limits.cost_usd, count),
                strict=True,
            )
        )
        self._spent: dict[int, Amount] = {}
        self._reserved: dict[tuple[int, int], Amount] = {}
        self.spent_cost_usd = 0.0

    def reserve(self, tree: int, ask: int, worst: Usage, calls: int = 1) -> bool:
        """Whether the calls may be made: spent + reserved + their worst case stay within the tree's slice."""
        amount: Amount = (calls, _tokens(worst), worst.cost_usd or 0.0)
        held = [value for (owner, _), value in self._reserved.items() if owner == tree]
        held.append(self._spent.get(tree, NOTHING))
        for index, limit in enumerate(self._slices[tree]):
            if limit is not None and sum(value[index] for value in held) + amount[index] > limit + 1e-12:
                return False
        self._reserved[tree, ask] = amount
        return True

    def reserve_again(self, tree: int, seed: int, worst: Usage) -> bool:
        """As `reserve`, for one more attempt of the call with this seed, whose first reply was paid for in vain."""
        return self.reserve(tree, -1 - seed, worst)

    def settle(self, tree: int, ask: int, calls: int, usage: Usage, seed: int = 0) -> int:
        """Replace the reservations of a call by what was really used; how often it was paid for. What a call does not
        tell of its use is its worst case: unknown is not nothing."""
        reserved = self._reserved.pop((tree, ask), NOTHING)
        if self._reserved.pop((tree, -1 - seed), None) is not None:
            calls += 1
        worst = reserved if calls else NOTHING
        before = self._spent.get(tree, NOTHING)
        untold = usage.prompt_tokens is None and usage.completion_tokens is None
        tokens = worst[1] if untold else _tokens(usage)
        cost = worst[2] if usage.cost_usd is None else usage.cost_usd
        self._spent[tree] = (before[0] + calls, before[1] + tokens, before[2] + cost)
        self.spent_cost_usd += cost
        return calls


def _tokens(usage: Usage) -> int:
    return (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)


def _sliced(limit: float | None, count: int) -> list[float | None]:
    return [None] * count if limit is None else list(slices(limit, count))
