"""Who may spend how many transitions: the same for every tree, or more for those that are still improving.

Both rules look at trees only when all of them have stopped, never at the clock, so that what a tree is granted does not
depend on which tree was faster (design.md section 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROUNDS = 4
"""Grants of an adaptive run. The first is the same for every tree."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One tree that has spent its grant. `improved`: its best finished run became better since the grant before."""

    position: int
    improved: bool


class Adaptive:
    """`budget` transitions for each of `trees` trees on average, granted in ROUNDS rounds.

    A round's transitions are what is left divided by the rounds left, so those that solved or exhausted trees did not
    need go to the others. Half of them are shared by all trees that could go on, half by those that improved in the
    round before (all by all, when none did): the first half keeps a tree in the race that needs long before its first
    find. Of a remainder the first trees get one each.
    """

    def __init__(self, budget: int, trees: int):
        self.total = budget * trees
        self.rounds_left = ROUNDS - 1
        self.first = -(-budget // ROUNDS)
        """The first grant of each tree."""

    def grant(self, standings: Sequence[Standing], spent: int) -> Mapping[int, int]:
        """The next round: transitions by position. `spent`: what all trees have spent so far, or still hold of their
        grants (an ask of several children did not fit). Empty: no more rounds."""
        left = self.total - spent
        if not standings or left <= 0 or self.rounds_left <= 0:
            return {}
        amount = left if self.rounds_left == 1 else left // self.rounds_left
        self.rounds_left -= 1
        everyone = [standing.position for standing in standings]
        improving = [standing.position for standing in standings if standing.improved] or everyone
        shares = _split(amount - amount // 2, everyone)
        for position, more in _split(amount // 2, improving).items():
            shares[position] += more
        return {position: share for position, share in shares.items() if share > 0}


def _split(amount: int, positions: Sequence[int]) -> dict[int, int]:
    whole, rest = divmod(amount, len(positions))
    return {position: whole + (index < rest) for index, position in enumerate(sorted(positions))}
