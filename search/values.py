"""Values are unscaled: selection sees them through the range that this tree has met so far."""

from __future__ import annotations

import math


class Bounds:
    """The running range of backed-up values (MuZero, Schrittwieser et al. 2020, appendix B eq. 5).

    MuZero takes the extremes of the mean values in the tree; here they are the extremes of what was backed up. Every
    mean lies between them, so the normalised mean lies in [0, 1], and one tell updates them in O(1).
    """

    __slots__ = ("high", "known", "low", "scale")

    def __init__(self) -> None:
        self.known = False
        self.low = 0.0
        """The lowest value so far; 0.0 before the first."""
        self.high = 0.0
        self.scale = 0.0
        """1 / (high - low), or 0.0 while all values are equal (or their range is beyond a float)."""

    def include(self, value: float) -> None:
        """Widen the range to `value`."""
        if not self.known:
            self.low = self.high = value
            self.known = True
        elif self.low <= value <= self.high:
            return
        else:
            self.low, self.high = min(self.low, value), max(self.high, value)
            scale = 1.0 / (self.high - self.low)
            self.scale = scale if math.isfinite(scale) else 0.0

    def normalise(self, value: float) -> float:
        """0.0 for the lowest value of the tree, 1.0 for the highest, 0.0 for all while they are equal."""
        return (value - self.low) * self.scale
