"""Ranking: the child with the highest score, found without a look at all siblings.

A score is a bonus, which grows with what all siblings share (the parent's visits: here `pace`), plus a quality of the
child's own. So the siblings stand in a list sorted by the score that each would have at a somewhat higher pace. That is
an upper bound on what it has now, and who cannot reach the best score found so far ends the look from the top down.
Visits and open asks change the few children on their paths, which the tree notes in `tree.watched`; only these are
placed anew. All are placed anew when the pace leaves the bounds' reach or the tree's range of values moves.

Scores are computed by the same operations in the same order as in a scan of all, and bounds by monotone ones, so what
is chosen is the same to the last bit.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf
from typing import TYPE_CHECKING

from .tree import OPEN, Tree

if TYPE_CHECKING:
    from .selection import Formula

MANY = 16
"""Open children from which on a ranking is cheaper than a scan."""
REACH = 1.1
"""Bounds hold up to this much more than the pace they were made at."""
LOOSE = 0.8
"""They are made anew, too, once the pace is less than this share of what they hold for."""

Entry = tuple[float, int, int, float, int, float]
"""Bound (for a newcomer: its weight), minus the seeded hash, child, weight, visits and open asks, quality."""


class Ranking:
    """The open children of one node, as one formula sees them."""

    __slots__ = ("_at", "_bounds", "_entries", "_fill", "_fresh", "_high", "_seen", "_stale", "_unknown", "formula")

    def __init__(self, formula: Formula, stale: set[int]):
        self.formula = formula
        self._stale = stale
        """Children that have changed since they were placed."""
        self._entries: list[Entry] = []
        self._fresh: list[Entry] = []
        """Children without a visit or an open ask: of these only the weights differ."""
        self._at: dict[int, Entry] = {}
        self._unknown: set[int] = set()
        """Children whose prior is unknown: their weight is `_fill`."""
        self._seen = 0
        self._high, self._fill = -inf, 0.0
        self._bounds = (0.0, 0.0)

    def best(self, tree: Tree, node: int, blocked: set[int]) -> int:
        """The open child with the highest score that is not blocked, ties by seeded hash; -1 when there is none."""
        formula = self.formula
        pace, fill = formula.pace(tree, node)
        self._place_changed(tree, node, pace, fill)
        status, score_of = tree.status, formula.score
        chosen, highest, lowest_hash = self._newcomer(tree, node, blocked, pace)
        for bound, tie, child, weight, count, quality in reversed(self._entries):
            if bound < highest:
                break
            if status[child] != OPEN:
                self._stale.add(child)
            elif child not in blocked:
                score = score_of(pace, weight, count, quality)
                if score > highest or (score == highest and tie > lowest_hash):
                    chosen, highest, lowest_hash = child, score, tie
        return chosen

    def _newcomer(self, tree: Tree, node: int, blocked: set[int], pace: float) -> tuple[int, float, int]:
        """The best child without a visit, its score and minus its hash."""
        best, highest, lowest_hash, end = -1, -inf, 0, len(self._fresh)
        while end:
            weight, tie, child, _, _, _ = self._fresh[end - 1]
            if tree.status[child] != OPEN:
                self._stale.add(child)
            elif child not in blocked:
                score = self.formula.newcomer(tree, node, pace, weight)
                if score < highest:
                    break
                if score > highest or tie > lowest_hash:
                    best, highest, lowest_hash = child, score, tie
                end = bisect_left(self._fresh, (weight,), 0, end) + 1  # the others of this weight have higher hashes
            end -= 1
        return best, highest, lowest_hash

    def _place_changed(self, tree: Tree, node: int, pace: float, fill: float) -> None:
        stale, children, bounds = self._stale, tree.child_ids[node], (tree.bounds.low, tree.bounds.scale)
        if not LOOSE * self._high <= pace <= self._high or bounds != self._bounds:
            self._high, self._bounds, self._seen = pace * REACH, bounds, 0
            self._entries, self._fresh, self._at = [], [], {}
        if self._seen < len(children):
            stale.update(children[self._seen :])
            self._seen = len(children)
        if fill != self._fill:
            self._fill = fill
            stale |= self._unknown
        for child in stale:
            self._place(tree, child)
        stale.clear()

    def _place(self, tree: Tree, child: int) -> None:
        old = self._at.pop(child, None)
        if old is not None:
            entries = self._entries if old[4] else self._fresh
            del entries[bisect_left(entries, old)]
        if tree.status[child] != OPEN:
            return
        formula, tie = self.formula, -tree.order[child]
        if tree.prior[child] is None:
            self._unknown.add(child)
        weight, real = formula.weight(tree, child, self._fill), tree.visits[child]
        if count := real + tree.virtual[child]:
            quality = formula.quality(tree, child) if real else 0.0
            entry = (formula.score(self._high, weight, count, quality), tie, child, weight, count, quality)
            insort(self._entries, entry)
        else:
            entry = (weight, tie, child, weight, 0, 0.0)
            insort(self._fresh, entry)
        self._at[child] = entry


def ranking_of(tree: Tree, node: int, formula: Formula) -> Ranking:
    """The ranking of the node's children; `tree.memory["rankings"]` keeps it."""
    rankings: dict[int, Ranking] = tree.memory.setdefault("rankings", {})
    ranking = rankings.get(node)
    if ranking is None or ranking.formula is not formula:
        stale = tree.watched[node] = set()
        ranking = rankings[node] = Ranking(formula, stale)
    return ranking
