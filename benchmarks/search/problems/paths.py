"""One right path among 4^6 = 4,096: with a noisy value of every state, or with values of ends only.

The optimum is 1.0 at exactly one leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..world import Path, hashed

ACTIONS = "abcd"
DEPTH = 6
NOISE = 0.3
"""Half the width of the noise, in units of a whole matched path."""


@dataclass(frozen=True)
class Paths:
    """`process`: every state is valued by how much of the right path it has, +- NOISE; the needle stands out by 1.

    Without it only ends have a value, the share of the path that is matched from its beginning: three of four have 0.
    """

    seed: int
    process: bool
    depth: int = DEPTH

    def root(self) -> Path:
        return ()

    def actions(self, state: Path) -> list[str]:
        return list(ACTIONS)

    def step(self, state: Path, action: str, draw: float) -> Path:
        return (*state, action)

    def ended(self, state: Path) -> bool:
        return len(state) == DEPTH

    def value(self, state: Path, path: Path) -> float | None:
        matched = self.matched(state)
        if not self.process:
            return matched / DEPTH if self.ended(state) else None
        if matched == DEPTH:
            return 1.0
        noise = 2 * NOISE * (hashed(self.seed, f"noise {'/'.join(state)}") - 0.5)
        return (matched / DEPTH + noise + NOISE) / (2 + NOISE)  # the needle would be 2: all lie in [0, 1]

    def state_key(self, state: Path) -> str | None:
        return None

    def solved(self, state: Path, path: Path) -> bool:
        return self.matched(state) == DEPTH

    def matched(self, state: Path) -> int:
        """How many actions are right before the first wrong one."""
        for index, action in enumerate(state):
            if action != ACTIONS[int(4 * hashed(self.seed, f"right {index}"))]:
                return index
        return len(state)


def needle(seed: int) -> Paths:
    """A noisy guide all the way."""
    return Paths(seed, process=True)


def sparse(seed: int) -> Paths:
    """No values until the end."""
    return Paths(seed, process=False)
