"""Three deceptive traps of four bits (Deb & Goldberg 1993, "Analyzing deception in trap functions"), 4,096 leaves.

A block of four bits is worth 4 with four ones, else 3 minus its ones: every step towards the optimum looks wrong until
the last. Which letter is the one of a bit depends on the seed. The optimum is 1.0 at exactly one leaf; following the
guide ends at 0.75.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..world import Path, hashed

SIZE, BLOCKS = 4, 3


@dataclass(frozen=True)
class Traps:
    """Bits are chosen from left to right. A block that is not full is valued as the trap's slope promises."""

    seed: int
    depth: int = SIZE * BLOCKS

    def root(self) -> Path:
        return ()

    def actions(self, state: Path) -> list[str]:
        return ["x", "y"]

    def step(self, state: Path, action: str, draw: float) -> Path:
        return (*state, action)

    def ended(self, state: Path) -> bool:
        return len(state) == self.depth

    def value(self, state: Path, path: Path) -> float | None:
        ones = self.ones(state)
        total = 0.0
        for start in range(0, self.depth, SIZE):
            block = ones[start : start + SIZE]
            if len(block) == SIZE:
                total += SIZE if all(block) else SIZE - 1 - sum(block)
            else:
                share = len(block) / SIZE
                total += (SIZE - 1) * (block.count(False) / SIZE + (1 - share) / 2)
        return total / self.depth

    def state_key(self, state: Path) -> str | None:
        return None

    def solved(self, state: Path, path: Path) -> bool:
        return len(state) == self.depth and all(self.ones(state))

    def ones(self, state: Path) -> list[bool]:
        """Which bits are the ones of this seed."""
        return [(letter == "x") == (hashed(self.seed, f"one {index}") < 0.5) for index, letter in enumerate(state)]


def traps(seed: int) -> Traps:
    """Values lead away from the optimum."""
    return Traps(seed)
