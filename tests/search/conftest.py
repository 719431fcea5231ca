"""A world whose states are paths and whose every property is a hash of the path, and the loop that plays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest

from ttc_replay import search

Path = tuple[str, ...]


@dataclass(frozen=True)
class World:
    """Actions `a`, `b`, ...; ends at `max_depth` or earlier by chance. `process`: every state has a value.

    `sampling`: a policy that draws from the actions with replacement and never says that there are no more.
    `gaps`: the share of ends without a verdict; `broken`: the share of states whose expansion fails; `scale` and
    `offset` move values; `fewest`: the least number of actions.
    """

    seed: int = 0
    branching: int = 3
    max_depth: int = 4
    early_end: float = 0.2
    process: bool = False
    priors: bool = True
    sampling: bool = False
    gaps: float = 0.0
    broken: float = 0.0
    scale: float = 1.0
    offset: float = 0.0
    fewest: int = 1

    def number(self, path: Path, what: str) -> float:
        """A multiple of 1/256 in [0, 1)."""
        return sha256(f"{self.seed}/{what}/{'/'.join(path)}".encode()).digest()[0] / 256

    def actions(self, path: Path) -> list[str]:
        if self.ends(path):
            return []
        span = self.branching - self.fewest + 1
        return [chr(97 + index) for index in range(self.fewest + int(self.number(path, "actions") * span))]

    def ends(self, path: Path) -> bool:
        return len(path) >= self.max_depth or (bool(path) and self.number(path, "end") < self.early_end)

    def value(self, path: Path) -> float:
        return self.offset + self.scale * self.number(path, "value")

    def child(self, path: Path) -> search.Child:
        ended = self.ends(path)
        known = self.number(path, "gap") >= self.gaps if ended else self.process
        prior = (1 + self.number(path, "prior")) / 4 if self.priors else None
        return search.Child(path[-1], prior, self.value(path) if known else None, ended)

    def expand(self, path: Path, ask: search.Ask, known: list[str]) -> tuple[list[search.Child], dict[str, Any]]:
        if self.number(path, "broken") < self.broken:
            return [], {"failed": "the world is broken here"}
        actions = self.actions(path)
        if self.sampling:
            draws = [self.number(path, f"draw{ask.id}.{turn}") for turn in range(ask.count)]
            drawn = [actions[int(draw * len(actions))] for draw in draws] if actions else []
            return [self.child((*path, key)) for key in drawn], {"more": True}
        fresh = [key for key in actions if key not in known][: ask.count]
        return [self.child((*path, key)) for key in fresh], {}

    def leaves(self, path: Path = ()) -> Iterator[Path]:
        if self.ends(path):
            yield path
        for key in self.actions(path):
            yield from self.leaves((*path, key))

    def optimum(self) -> float:
        return max(self.value(path) for path in self.leaves())


@dataclass
class Played:
    """What one search did."""

    tree: search.Tree
    asks: list[search.Ask] = field(default_factory=list)
    transitions: int = 0


def path_keys(tree: search.Tree, node: int) -> Path:
    return tuple(tree.key[step] for step in tree.path(node)[1:])


def play(
    algorithm: search.Algorithm,
    world: World,
    tree: search.Tree,
    width: int = 1,
    budget: int = 1_000_000,
    check: Callable[[search.Tree], None] | None = None,
) -> Played:
    """The engine's loop: `width` asks open, told in ask order, until the budget is spent or nothing is left."""
    played = Played(tree)
    waiting: list[search.Ask] = []
    while True:
        if played.transitions < budget:
            asks = algorithm.ask(tree, width - len(waiting))
            assert len(asks) <= width - len(waiting)
            played.asks += asks
            waiting += asks
        if not waiting:
            return played
        ask = waiting.pop(0)
        assert tree.status[ask.node] == "open"
        known = [tree.key[child] for child in tree.children(ask.node)]
        children, options = world.expand(path_keys(tree, ask.node), ask, known)
        before = len(tree)
        told = algorithm.tell(tree, ask.id, children, **options)
        assert [tree.key[node] for node in told] == [child.key for child in children]
        assert algorithm.tell(tree, ask.id, children, **options) == told
        played.transitions += len(tree) - before
        if check is not None:
            check(tree)


def record(tree: search.Tree, world: World, keys: Path, value: float | None = None) -> list[int]:
    """Tell the path `keys` as the recorded run; `value` None takes the world's."""
    return tree.spine(list(keys), world.value(keys) if value is None else value)


def rows(tree: search.Tree) -> list[list[Any]]:
    """Everything a golden file keeps of a tree, one list per node."""
    columns = (
        tree.parent,
        tree.key,
        tree.visits,
        tree.value_sum,
        tree.prior,
        tree.value,
        tree.samples,
        tree.status,
        tree.imputed,
        tree.reason,
    )
    return [list(row) for row in zip(*columns, strict=True)]


GOLDEN: dict[str, dict[str, Any]] = {
    "best-of-n": {
        "algorithm": "best-of-n",
        "options": {"n": 12},
        "world": {"seed": 1, "sampling": True, "fewest": 2, "branching": 4},
    },
    "beam": {
        "algorithm": "beam",
        "options": {"beam_width": 2, "branching": 3},
        "world": {"seed": 2, "process": True, "max_depth": 6, "fewest": 2},
    },
    "beam-priors": {
        "algorithm": "beam",
        "options": {"beam_width": 3, "branching": 2},
        "world": {"seed": 3, "max_depth": 6, "early_end": 0.1, "fewest": 2},
    },
    "mcts-uct": {
        "algorithm": "mcts",
        "options": {},
        "world": {"seed": 4, "max_depth": 6, "gaps": 0.1, "broken": 0.05},
        "record": True,
    },
    "mcts-puct": {
        "algorithm": "mcts",
        "options": {"selection": "puct", "expand": 2, "prune_below": 0.1},
        "world": {"seed": 8, "max_depth": 6, "process": True, "fewest": 2},
    },
    "auto-mcts": {
        "algorithm": "mcts",
        "options": {"widening_coefficient": 1.5},
        "world": {"seed": 6, "max_depth": 8, "early_end": 0.05, "fewest": 2},
        "record": True,
        "auto": True,
    },
    "auto-beam": {
        "algorithm": "beam",
        "options": {"beam_width": 2, "branching": 2},
        "world": {"seed": 7, "max_depth": 6, "early_end": 0.05},
        "record": True,
        "auto": True,
    },
}


def golden_run(name: str, width: int) -> dict[str, Any]:
    """Play one scenario; what it returns is what its file holds."""
    scenario = GOLDEN[name]
    world = World(**scenario["world"])
    tree = search.Tree(seed=world.seed)
    algorithm = search.create(scenario["algorithm"], **scenario["options"])
    if scenario.get("record"):
        record(tree, world, max(world.leaves(), key=lambda path: (len(path), path)))
    if scenario.get("auto"):
        algorithm = search.AutoBranch(algorithm)
    played = play(algorithm, world, tree, width=width, budget=80)
    return {"asks": [[ask.node, ask.count] for ask in played.asks], "nodes": rows(tree), "best": tree.best()}


@pytest.fixture
def toy() -> Any:
    """This module: World, play, record, path_keys, rows, GOLDEN, golden_run."""
    import sys

    return sys.modules[__name__]
