"""Peers, played through the same meter. They are optional; docs/benchmarks.md says how to install them.

How their contracts are met, as kindly as possible:

- treequest (0.3): one generate function, which draws the actions of a state without replacement. It has no notion of an
  end, an exhausted state or an unknown score: an end is its own child (free, counted), a spent state gives its actions
  again (free, counted), an unknown score is 0.
- llm-reasoners (1.0): `reward` is the guide's value of the new state, 0 where there is none; `fast_reward` is 0, for
  there is no policy. Its MCTS gets as many iterations as there are transitions; each makes up to a whole run of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from .contestants import PEER, Contestant, metered
from .world import Meter, Path, Place, Problem, Reading

TREEQUEST = {
    "treequest AB-MCTS-A": ("treequest", "ABMCTSA"),
    "treequest StandardMCTS": ("treequest", "StandardMCTS"),
    "treequest ToT-BFS": ("treequest", "TreeOfThoughtsBFSAlgo"),
    "treequest best-first": ("treequest.algos.best_first_search", "BestFirstSearchAlgo"),
}
"""MultiArmedBanditUCB is left out: it only ever expands the root, which is no run of more than one step."""
SLOW = "treequest AB-MCTS-A"
REASONERS_BEAM = 4


def peers() -> list[Contestant]:
    """Those that are installed, and a row for each that is not."""
    made = [_treequest(name, *where) for name, where in TREEQUEST.items()]
    return [
        *made,
        _optional("llm-reasoners MCTS", "reasoners.algorithm", "MCTS", _reasoners_mcts),
        _optional("llm-reasoners beam", "reasoners.algorithm", "BeamSearch", _reasoners_beam),
    ]


def _optional(name: str, module: str, attribute: str, play: Callable[[Any, Meter], None]) -> Contestant:
    try:
        peer = getattr(import_module(module), attribute)
    except Exception as cause:  # noqa: BLE001 - whatever a peer's import raises, it is absent
        return Contestant(name, PEER, _nothing, absent=f"{type(cause).__name__}: {cause}")

    def seeded(meter: Meter) -> None:
        _seed(meter.problem.seed)
        play(peer, meter)

    return metered(name, PEER, seeded, slow=name == SLOW)


def _nothing(problem: Problem, limits: Sequence[int]) -> list[Reading]:
    return []


def _seed(seed: int) -> None:
    """Peers draw from the global generators."""
    random.seed(seed)
    import_module("numpy").random.seed(seed)


def _treequest(name: str, module: str, attribute: str) -> Contestant:
    def play(peer: Any, meter: Meter) -> None:
        algorithm = peer()
        state, tried = algorithm.init_tree(), dict[Path, int]()
        while True:
            state, trial = algorithm.ask(state, ["next"])
            place = _generate(meter, trial.parent_state or meter.root, tried)
            state = algorithm.tell(state, trial.trial_id, (place, place.value or 0.0))

    return _optional(name, module, attribute, play)


def _generate(meter: Meter, place: Place, tried: dict[Path, int]) -> Place:
    keys = meter.actions(place)
    if not keys:
        meter.expand_end()
        return place
    turn = tried.get(place.path, 0)
    tried[place.path] = turn + 1
    return meter.step(place, keys[turn % len(keys)])


class _World:
    """World model and search configuration of llm-reasoners in one."""

    def __init__(self, meter: Meter):
        self.meter = meter

    def init_state(self) -> Place:
        return self.meter.root

    def step(self, place: Place, action: str) -> tuple[Place, dict[str, float]]:
        made = self.meter.step(place, action)
        return made, {"value": made.value or 0.0}

    def is_terminal(self, place: Place) -> bool:
        return place.ended

    def get_actions(self, place: Place) -> list[str]:
        return self.meter.actions(place)

    def fast_reward(self, place: Place, action: str) -> tuple[float, dict[str, float]]:
        return 0.0, {}

    def reward(self, place: Place, action: str, value: float) -> tuple[float, dict[str, float]]:
        return value, {}


def _reasoners_mcts(peer: Any, meter: Meter) -> None:
    world = _World(meter)
    peer(n_iters=meter.limits[-1], depth_limit=meter.problem.depth + 1, disable_tqdm=True)(world, world)


def _reasoners_beam(peer: Any, meter: Meter) -> None:
    world = _World(meter)
    peer(beam_size=REASONERS_BEAM, max_depth=meter.problem.depth)(world, world)
