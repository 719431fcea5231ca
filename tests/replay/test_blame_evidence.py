"""What blame takes over from earlier trees: first rollouts, weighted as the policy drew them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ttc_replay.replay.blame_evidence import comparable, first_rollouts
from ttc_replay.storage.records import Node


def node(identity: int, parent: int, depth: int, **more: Any) -> Node:
    values: dict[str, Any] = {
        "run": "r",
        "trajectory_id": "t",
        "visits": 0,
        "value_sum": 0.0,
        "prior": None,
        "key": f"k{identity}",
        "value": None,
        "terminal": False,
        "truncated": False,
        "spine": False,
        "imputed": False,
        "samples": 1,
        "status": "open",
        "reason": None,
        "fidelity": None,
        "call_key": None,
        "step": None,
        **more,
    }
    return Node(node=identity, parent=parent, depth=depth, **values)


SPINE = [node(0, -1, 0), node(1, 0, 1, spine=True), node(2, 1, 2, spine=True, terminal=True, value=0.0)]
CASES: dict[str, tuple[list[Node], dict[int, tuple[float, int]]]] = {
    "the record alone says nothing": ([], {}),
    "an end next to the record": ([node(3, 0, 1, terminal=True, value=1.0)], {0: (1.0, 1)}),
    "only the first rollout through a child": (
        [
            node(3, 1, 2),
            node(4, 3, 3, terminal=True, value=0.0),
            node(5, 3, 3, terminal=True, value=1.0),
        ],
        {1: (0.0, 1)},
    ),
    "as often as its action was drawn": (
        [node(3, 0, 1, terminal=True, value=1.0, samples=3), node(4, 0, 1, terminal=True, value=0.0)],
        {0: (3.0, 4)},
    ),
    "no unfinished one": ([node(3, 0, 1), node(4, 3, 2)], {}),
    "none without a verdict": ([node(3, 0, 1, terminal=True, imputed=True)], {}),
}


@pytest.mark.parametrize(("searched", "expected"), CASES.values(), ids=CASES)
def test_what_counts(searched: list[Node], expected: dict[int, tuple[float, int]]) -> None:
    assert first_rollouts([*searched, *SPINE]) == expected


def test_repeating_the_record_is_worth_the_next_state() -> None:
    spine = [SPINE[0], node(1, 0, 1, spine=True, samples=4), SPINE[2]]
    won = [node(3 + turn, 1, 2, terminal=True, value=1.0) for turn in range(3)]
    lost = [node(9, 0, 1, terminal=True, value=0.0)]
    assert first_rollouts([*spine, *won, *lost]) == {0: (3.0, 4), 1: (3.0, 3)}
    # nobody knows what came of three repetitions: the one known draw would be a biased sample
    assert first_rollouts([*spine, *lost]) == {}
    assert first_rollouts([*spine, won[0], *lost]) == {0: (0.75, 1), 1: (1.0, 1)}


def test_the_mean_is_that_of_the_policy() -> None:
    """A policy that repeats the record with 0.7 and wins 0.9 of its runs there, but only 0.2 of those that leave it."""
    draw, sums = random.Random(3), [0.0, 0.0]
    for _ in range(300):
        repeats = sum(draw.random() < 0.7 for _ in range(10))
        spine = [SPINE[0], node(1, 0, 1, spine=True, samples=1 + repeats), SPINE[2]]
        left = [node(3 + t, 0, 1, terminal=True, value=float(draw.random() < 0.2)) for t in range(10 - repeats)]
        stayed = [node(30 + t, 1, 2, terminal=True, value=float(draw.random() < 0.9)) for t in range(repeats)]
        total, count = first_rollouts([*spine, *left, *stayed])[0]
        sums[0] += total
        sums[1] += count
    assert sums[0] / sums[1] == pytest.approx(0.7 * 0.9 + 0.3 * 0.2, abs=0.02)


OWN = {"environment": 1, "policy": 2, "rewards": 3, "combine": "sum", "max_depth": None, "seed": 1}


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"seed": 2, "algorithm": "mcts"}, True),
        ({}, False),
        ({"seed": 2, "policy": 3}, False),
        ({"seed": 2, "rewards": 4}, False),
        ({"seed": 2, "max_depth": 9}, False),
        ({"seed": 2, "merge_states": True}, False),
    ],
)
def test_which_runs_count(change: dict[str, Any], counts: bool) -> None:
    assert comparable(OWN, {**OWN, **change}) is counts
