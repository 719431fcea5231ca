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
    `offset` move values; `fewest`: the least number of actions; `outcomes`: how many an action has when it is played
    again; `states`: paths of the same actions in any order are one state; `untold`: the share of paths whose value is
    not told, whatever their state.
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
    outcomes: int = 1
    states: bool = False
    untold: float = 0.0

    def number(self, path: Path, what: str, by_state: bool = True) -> float:
        """A multiple of 1/256 in [0, 1)."""
        path = tuple(sorted(path)) if self.states and by_state else path
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
        known = known and self.number(path, "untold", by_state=False) >= self.untold
        prior = (1 + self.number(path, "prior")) / 4 if self.priors else None
        state = "".join(sorted(path)) if self.states else None
        return search.Child(path[-1], prior, self.value(path) if known else None, ended, state)

    def expand(self, path: Path, ask: search.Ask, known: list[str]) -> tuple[list[search.Child], dict[str, Any]]:
        if self.number(path, "broken") < self.broken:
            return [], {"failed": "the world is broken here"}
        actions = self.actions(path)
        if ask.action is not None:
            outcome = int(self.number((*path, ask.action), f"outcome{ask.id}") * self.outcomes)
            return [self.child((*path, f"{ask.action}~{outcome}" if outcome else ask.action))], {}
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
    "gumbel": {
        "algorithm": "gumbel",
        "options": {"considered": 4, "c_visit": 5.0, "prune_below": 0.05},
        "world": {"seed": 21, "process": True, "max_depth": 7, "early_end": 0.1, "fewest": 3, "branching": 6},
    },
    "auto-gumbel": {
        "algorithm": "gumbel",
        "options": {"considered": 2, "c_scale": 0.1},
        "world": {"seed": 22, "max_depth": 6, "early_end": 0.05, "fewest": 2},
        "record": True,
        "auto": True,
    },
    "ab-mcts": {
        "algorithm": "ab-mcts",
        "options": {},
        "world": {"seed": 23, "process": True, "max_depth": 7, "fewest": 2, "scale": 4.0, "offset": -2.0},
        "record": True,
    },
    "ab-mcts-beta": {
        "algorithm": "ab-mcts",
        "options": {"prior_model": "beta"},
        "world": {"seed": 24, "max_depth": 6, "early_end": 0.1, "sampling": True, "branching": 6, "gaps": 0.1},
    },
    "particles": {
        "algorithm": "particles",
        "options": {"particles": 5, "temperature": 0.7},
        "world": {"seed": 25, "process": True, "max_depth": 6, "early_end": 0.1, "sampling": True, "branching": 5},
    },
    "auto-particles": {
        "algorithm": "particles",
        "options": {"particles": 4, "resampling": "systematic", "resample_below": 0.9},
        "world": {"seed": 26, "process": True, "max_depth": 6, "early_end": 0.05, "fewest": 2, "broken": 0.05},
        "record": True,
        "auto": True,
    },
    "self-consistency": {
        "algorithm": "self-consistency",
        "options": {"vote": "weighted", "n": 16},
        "world": {"seed": 10, "sampling": True, "fewest": 2, "branching": 3, "offset": -0.25, "gaps": 0.1},
    },
    "omega-prm": {
        "algorithm": "omega-prm",
        "options": {"rollouts": 3, "success_at": 0.6},
        "world": {"seed": 9, "max_depth": 7, "early_end": 0.05, "fewest": 3, "branching": 5, "sampling": True},
        "record": True,
    },
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
    "beam-self-evaluation": {
        "algorithm": "beam",
        "options": {"score": "self-evaluation", "temperature": 0.2, "temperature_decay": 0.5, "branching": 3},
        "world": {"seed": 11, "process": True, "max_depth": 6, "early_end": 0.1, "fewest": 2},
    },
    "greedy": {
        "algorithm": "greedy",
        "options": {"branching": 3, "prune_below": 0.3},
        "world": {"seed": 12, "process": True, "max_depth": 8, "early_end": 0.1, "broken": 0.1},
    },
    "dvts": {
        "algorithm": "dvts",
        "options": {"trees": 3, "branching": 2},
        "world": {"seed": 13, "process": True, "max_depth": 6, "early_end": 0.1, "sampling": True, "branching": 5},
    },
    "tot-bfs": {
        "algorithm": "tot-bfs",
        "options": {"breadth": 3, "branching": 3, "max_steps": 4},
        "world": {"seed": 14, "process": True, "max_depth": 7, "fewest": 2},
    },
    "tot-dfs": {
        "algorithm": "tot-dfs",
        "options": {"branching": 2, "value_threshold": 0.25},
        "world": {"seed": 15, "process": True, "max_depth": 6, "early_end": 0.1, "gaps": 0.1},
    },
    "best-first": {
        "algorithm": "best-first",
        "options": {"branching": 2, "cost": "depth", "weight": 3.0},
        "world": {"seed": 16, "process": True, "max_depth": 6, "early_end": 0.1, "fewest": 2},
    },
    "auto-dvts": {
        "algorithm": "dvts",
        "options": {"trees": 2, "branching": 2},
        "world": {"seed": 17, "process": True, "max_depth": 6, "early_end": 0.05, "fewest": 2},
        "record": True,
        "auto": True,
    },
    "mcts-rap": {
        "algorithm": "mcts",
        "options": {"selection": "uct", "prior_weight": 0.5, "max_weight": 1.0},
        "world": {"seed": 21, "max_depth": 6, "process": True, "early_end": 0.1, "fewest": 2},
    },
    "mcts-mixed": {
        "algorithm": "mcts",
        "options": {"evaluation": "both", "rollout_weight": 0.25, "prune_below": 0.1},
        "world": {"seed": 22, "max_depth": 6, "process": True, "gaps": 0.1, "broken": 0.05, "fewest": 2},
        "record": True,
    },
    "mcts-outcomes": {
        "algorithm": "mcts",
        "options": {"outcome_coefficient": 1.0, "outcome_exponent": 0.5},
        "world": {"seed": 23, "max_depth": 5, "process": True, "outcomes": 3, "early_end": 0.3, "branching": 2},
    },
    "mcts-merged": {
        "algorithm": "mcts",
        "options": {"selection": "uct"},
        "world": {"seed": 24, "max_depth": 6, "process": True, "states": True, "untold": 0.5, "early_end": 0.05},
        "merge_states": True,
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
    tree = search.Tree(seed=world.seed, merge_states=scenario.get("merge_states", False))
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
