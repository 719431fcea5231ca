"""The problems by name. Each is a function from a seed to an instance whose optimum is known."""

from __future__ import annotations

from ..world import Maker
from .blocksworld import blocksworld
from .game24 import game24
from .grid import slippery_grid
from .paths import needle, sparse
from .traps import traps

PROBLEMS: dict[str, Maker] = {
    "needle": needle,
    "sparse": sparse,
    "deceptive": traps,
    "game24": game24,
    "blocksworld": blocksworld,
    "slippery-grid": slippery_grid,
}
