"""The order of calls: depth-first where all are known, and always the one that shares most with the one before."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.replay.prefix_order import Place, place_of, shared, take


def job(position: int, path: tuple[int, ...], ask: int) -> Any:
    """What `take` reads of a job."""
    return SimpleNamespace(tree=SimpleNamespace(position=position), path=list(path), ask=SimpleNamespace(id=ask))


def paths(parents: list[int]) -> list[tuple[int, ...]]:
    """The paths of a tree's nodes; node k + 1 is a child of `parents[k]`, modulo those that are there."""
    found: list[tuple[int, ...]] = [(0,)]
    for node, parent in enumerate(parents, start=1):
        found.append((*found[parent % node], node))
    return found


jobs_of_some_trees = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), max_size=9)),
    min_size=1,
    max_size=3,
    unique_by=lambda t: t[0],
).map(
    lambda trees: [
        job(position, path, ask)
        for position, parents in trees
        for ask, path in enumerate(sorted(paths(parents), key=lambda path: path[-1]))
    ]
)


@given(jobs_of_some_trees, st.randoms(use_true_random=False))
def test_all_at_once_is_depth_first(jobs: list[Any], random: Any) -> None:
    random.shuffle(jobs)
    ready = deque(jobs)
    taken, latest = take(ready, len(jobs), None)
    assert not ready
    assert sorted(map(id, taken)) == sorted(map(id, jobs))
    places = [place_of(item) for item in taken]
    assert latest == places[-1]
    switches = sum(a[0] != b[0] for a, b in pairwise(places))
    assert switches == len({place[0] for place in places}) - 1, "one tree after the other"
    for number, place in enumerate(places[1:], start=1):
        best = max(shared(places[number - 1], other) for other in places[number:])
        assert shared(places[number - 1], place) == best


@given(jobs_of_some_trees, st.integers(0, 5), st.integers(0, 2))
def test_what_is_left_keeps_its_order_and_what_is_taken_is_nearest(jobs: list[Any], count: int, at: int) -> None:
    latest: Place = (at, (0,))
    ready = deque(jobs)
    taken, _ = take(ready, count, latest)
    assert len(taken) == min(count, len(jobs))
    assert list(ready) == [item for item in jobs if not any(item is other for other in taken)]
    if taken:
        assert shared(latest, place_of(taken[0])) == max(shared(latest, place_of(item)) for item in jobs)


def test_one_node_is_asked_in_ask_order() -> None:
    jobs = [job(0, (0, 3), ask) for ask in (7, 2, 5)]
    taken, _ = take(deque(jobs), 3, None)
    assert [item.ask.id for item in taken] == [2, 5, 7]


def test_siblings_then_cousins_then_other_trees() -> None:
    waiting = {
        "other tree": job(1, (0,), 0),
        "cousin": job(0, (0, 2, 8), 1),
        "sibling": job(0, (0, 1, 5), 2),
        "nephew": job(0, (0, 1, 4, 9), 3),
    }
    taken, _ = take(deque(waiting.values()), 4, (0, (0, 1, 5)))
    assert taken == [waiting[name] for name in ("sibling", "nephew", "cousin", "other tree")]
