"""Who plays: our algorithms by `search.names()`, plain baselines, and peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from ttc_replay import search

from .world import Meter, Place, Problem, Reading, hashed

OURS, PEER, PLAIN = "ours", "peer", "plain"
RANDOM = "random rollouts"
BEAM_WIDTH = 4
PEER_CALLS = 2
"""Calls a peer may make per transition: those for states that it has made, or for children of ends, are free until
then."""


@dataclass(frozen=True)
class Contestant:
    """`play` gives one reading for each limit. `absent`: why it cannot play. `slow`: needs seconds a run beyond 256."""

    name: str
    group: str
    play: Callable[[Problem, Sequence[int]], list[Reading]]
    absent: str | None = None
    slow: bool = False


def ours(name: str | Callable[..., search.Algorithm], width: int = 1) -> Contestant:
    """One of our algorithms, by name or class, with its default options.

    Played by `search.run`, one run for each limit, for some plan ahead.
    """

    def play(problem: Problem, limits: Sequence[int]) -> list[Reading]:
        return [play_ours(name, problem, limit, width) for limit in limits]

    return Contestant(name if isinstance(name, str) else name.__name__, OURS, play)


def play_ours(name: str | Callable[..., search.Algorithm], problem: Problem, limit: int, width: int) -> Reading:
    """One search; its answer is `tree.best()`."""
    meter = Meter(problem, [limit], answers=True)

    def expand(place: Place, count: int, exclude: tuple[str, ...]) -> list[tuple[object, ...]]:
        if place.ended:
            meter.expand_end()
        keys = [key for key in meter.actions(place) if key not in exclude][:count]
        made = [meter.step(place, key) for key in keys]
        return [(key, p, p.value, p.ended, None, problem.state_key(p.state)) for key, p in zip(keys, made, strict=True)]

    algorithm = search.create(name, budget=limit)
    found = search.run(algorithm, meter.root, expand, budget=limit, concurrency=1, width=width, seed=problem.seed)
    meter.done = search.plan_ended(algorithm, found) is not None
    best = found.best()
    meter.read(None if best is None else found.states[best])
    (reading,) = meter.readings()
    return reading


def metered(name: str, group: str, play: Callable[[Meter], None], slow: bool = False) -> Contestant:
    """A contestant whose answer at any time is the best end it has met, in one run over all limits.

    When `play` returns by itself, its plan has ended.
    """

    def readings(problem: Problem, limits: Sequence[int]) -> list[Reading]:
        meter = Meter(problem, limits, calls=PEER_CALLS if group == PEER else inf)
        with suppress(StopIteration):
            play(meter)
            meter.done = True
        return meter.readings()

    return Contestant(name, group, readings, slow=slow)


def random_rollouts(meter: Meter) -> None:
    """Uniform actions from the root to an end, again and again."""
    turn = 0
    while True:
        place = meter.root
        while keys := meter.actions(place):
            turn += 1
            place = meter.step(place, keys[int(len(keys) * hashed(meter.problem.seed, f"roll {turn}"))])


def best_first(meter: Meter) -> None:
    """Expand the unfinished state with the highest value, wholly; the first made of equal ones."""
    queue: list[tuple[float, int, Place]] = [(0.0, 0, meter.root)]
    while queue:
        _, _, place = heappop(queue)
        for key in meter.actions(place):
            made = meter.step(place, key)
            if not made.ended:
                heappush(queue, (-(made.value or 0.0), meter.transitions, made))


def beam(meter: Meter) -> None:
    """Expand all states of a level wholly, keep the best four unfinished ones."""
    level = [meter.root]
    while level:
        made = [meter.step(place, key) for place in level for key in meter.actions(place)]
        level = sorted((place for place in made if not place.ended), key=lambda place: -(place.value or 0.0))
        level = level[:BEAM_WIDTH]


def everybody(width: int = 1) -> list[Contestant]:
    """All of them, ours first; peers that are not installed say so."""
    from .peers import peers

    plain = {RANDOM: random_rollouts, "plain best-first": best_first, "plain beam": beam}
    return [
        *(ours(name, width) for name in search.names()),
        *peers(),
        *(metered(name, PLAIN, play) for name, play in plain.items()),
    ]
