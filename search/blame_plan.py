"""Where the next rollouts go, to find the recorded step with the largest drop in value with the fewest of them.

States are numbered 0 (before step 0) to n (the record's end, whose value is known); a *gap* lies between two
neighbouring states that have been valued, and its drop is what the steps in it lost together.

1. Bisect. The gap with the largest drop is halved: the state in its middle is valued (Luo et al. 2024, arXiv
   2406.06592, section 3.2, with drops instead of "no rollout is correct"). Where values only fall along the record a
   gap loses at least what any step in it loses, so the other gaps need not be opened.
2. Compare. Once the largest drop is that of one step, rollouts go to the ends of that gap and of its strongest
   challenger, which is the one most likely to have lost more, to the end that makes the comparison least certain (the
   two arms of LUCB: Kalyanakrishnan et al. 2012; Kaufmann & Kalyanakrishnan 2013). Over as soon as, by the union
   bound, the chance that any other gap lost more is at most 1 - confidence, and so is the chance that nothing was lost.
3. Verify. Values need not fall: a record can do better than its policy mostly does. Before it is over, states in the
   middle of the widest unopened gaps are valued (`probes`). A credible rise between any two states, or no drop at all
   after all rollouts from the start, refutes the assumption: then every state is valued (scan), coarse to fine, and 2
   decides. Where no state so valued was worth more than what came of it, it is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from .beliefs import Belief, chance_below_zero

DECIDED, UNDECIDED, NO_DROP, UNJUDGED = "decided", "undecided", "no-drop", "unjudged"


class Gap(NamedTuple):
    """The steps `first` to `last` - 1, between the valued states `first` and `last`."""

    first: int
    last: int


class Choice(NamedTuple):
    """Value state `state` next; None: it is over, and `why`. `scan`: values were found not to fall only. `pivotal`: the
    step that is decided on."""

    state: int | None
    why: str
    scan: bool
    probe: bool = False
    pivotal: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known: `beliefs` of valued states by number, the record's end included; `room`: how many more rollouts a
    state may have (0 too for those from which nothing can be played); `probes` that are left."""

    beliefs: Mapping[int, Belief]
    room: Sequence[int]
    confidence: float
    scan: bool = False
    probes: int = 1

    def choose(self) -> Choice:
        """The next state to value, or why there is none."""
        gaps = self.gaps()
        if 0 not in self.beliefs and self.room[0]:
            return Choice(0, "start", self.scan)
        if not gaps:
            return Choice(None, UNDECIDED, self.scan)
        scan = self.scan or self.rises()
        if scan and (middle := self._widest(gaps, 2)) is not None:
            return Choice(middle, "scan", scan)
        return self._compare(gaps, scan)

    def gaps(self) -> list[Gap]:
        """Neighbouring valued states, from the start on."""
        known = sorted(self.beliefs)
        return [Gap(first, last) for first, last in pairwise(known)]

    def rises(self) -> bool:
        """Whether the value of some state is credibly higher than that of one before it, as many pairs as there are."""
        known = sorted(self.beliefs)
        pairs = [(earlier, later) for place, later in enumerate(known) for earlier in known[:place]]
        doubt = (1.0 - self.confidence) / max(1, len(pairs))
        return any(chance_below_zero({later: 1.0, earlier: -1.0}, self.beliefs) < doubt for earlier, later in pairs)

    def drop(self, gap: Gap) -> float:
        """The observed drop, in [-1, 1]."""
        return self.beliefs[gap.first].observed - self.beliefs[gap.last].observed

    def _compare(self, gaps: Sequence[Gap], scan: bool) -> Choice:
        best = max(gaps, key=lambda gap: (self.drop(gap), gap.first - gap.last, -gap.first))
        if self.drop(best) <= 0.0:
            return self._look_for_a_drop(gaps, scan)
        if (middle := self._middle(best)) is not None:
            return Choice(middle, "bisect", scan)
        others = sorted((gap for gap in gaps if gap != best), key=lambda gap: -self._loses_more(gap, best))
        doubt = sum(self._loses_more(gap, best) for gap in others)
        nothing = chance_below_zero(_weights(best), self.beliefs)
        if max(doubt, nothing) <= 1.0 - self.confidence:
            probe = self._widest(gaps, 3) if self.probes and not scan else None
            return Choice(probe, DECIDED, scan, probe is not None, best.first)
        return self._doubtful(best, others, doubt >= nothing, scan)

    def _doubtful(self, best: Gap, others: Sequence[Gap], rivals: bool, scan: bool) -> Choice:
        """More rollouts where the comparison is least certain; where none are left, open a rival gap, then all."""
        for other in others[:1] if rivals else ():
            if (state := self._least_certain(_contrast(best, other))) is not None:
                return Choice(state, "compare", scan)
        if (state := self._least_certain(_weights(best))) is not None:
            return Choice(state, "compare", scan)
        for other in others:
            if self._loses_more(other, best) > (1.0 - self.confidence) / len(others):
                if (middle := self._middle(other)) is not None:
                    return Choice(middle, "open a rival", scan)
                if (state := self._least_certain(_weights(other))) is not None:
                    return Choice(state, "compare", scan)
        return Choice(None, UNDECIDED, scan)

    def _look_for_a_drop(self, gaps: Sequence[Gap], scan: bool) -> Choice:
        """No valued state is better than what came of it: ask the start to the full, then every state once."""
        if self._room(0):
            return Choice(0, "compare", scan)
        middle = self._widest(gaps, 2)
        return Choice(middle, NO_DROP if middle is None else "scan", scan or middle is not None)

    def _loses_more(self, gap: Gap, best: Gap) -> float:
        return chance_below_zero(_contrast(best, gap), self.beliefs)

    def _least_certain(self, weights: Mapping[int, float]) -> int | None:
        """The state whose next rollout narrows the weighted sum most; None when none may have more."""
        open_states = [state for state in weights if self._room(state)]
        gains = {
            state: weights[state] ** 2 * self.beliefs[state].variance / (self.beliefs[state].count + 2)
            for state in open_states
        }
        return max(open_states, key=lambda state: (gains[state], -state)) if open_states else None

    def _middle(self, gap: Gap) -> int | None:
        """The state nearest to the gap's middle that can be valued."""
        inside = [state for state in range(gap.first + 1, gap.last) if self._room(state)]
        return min(inside, key=lambda state: (abs(2 * state - gap.first - gap.last), state)) if inside else None

    def _widest(self, gaps: Sequence[Gap], least: int) -> int | None:
        """The middle of the widest gap of at least so many steps that has one."""
        wide = [gap for gap in gaps if gap.last - gap.first >= least and self._middle(gap) is not None]
        return self._middle(max(wide, key=lambda gap: (gap.last - gap.first, -gap.first))) if wide else None

    def _room(self, state: int) -> int:
        return self.room[state] if state < len(self.room) else 0


def _weights(gap: Gap) -> dict[int, float]:
    return {gap.first: 1.0, gap.last: -1.0}


def _contrast(best: Gap, other: Gap) -> dict[int, float]:
    """The weights of (drop of `best` - drop of `other`); the gaps may share a state."""
    weights = _weights(best)
    for state, weight in _weights(other).items():
        weights[state] = weights.get(state, 0.0) - weight
    return weights
