"""The curve of a trajectory: what a smaller spend would have given, from the journal and the tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay.replay.curve import UNITS, Spend, Told, curve, guide_order, told_by_trajectory


def tell(*nodes: int, t: int = 0, spent: int = 1, **more: Any) -> dict[str, Any]:
    """A tell event, less what a curve does not read."""
    return {"event": "tell", "t": t, "nodes": list(nodes), "spent": spent, **more}


def gate(node: int, value: float | None, *, passed: bool, first: bool = False, t: int = 0) -> dict[str, Any]:
    return {"event": "gate", "t": t, "node": node, "value": value, "passed": passed, "first": first}


def node(number: int, value: float | None = None, *, parent: int = 0, depth: int = 1, **more: bool) -> dict[str, Any]:
    """A row of `v_nodes`: a finished leaf unless told otherwise."""
    plain = {"terminal": True, "spine": False, "imputed": False}
    return {"node": number, "parent": parent, "depth": depth, "value": value, **plain, **more}


ROOT = node(0, parent=-1, depth=0, terminal=False)
EVENTS: list[dict[str, Any]] = [
    {"event": "config", "trajectories": ["x", "y"]},
    {"event": "baseline", "t": 0, "judged": 0.25},
    tell(1, spent=1, calls=1, usage={"prompt_tokens": 10, "completion_tokens": 2, "cost_usd": 0.5}),
    tell(9, t=1, spent=7),
    tell(2, 3, spent=2, calls=1, usage={"prompt_tokens": 20, "cost_usd": None}),
    tell(2, spent=0),
    tell(4, spent=3, calls=2, usage=None),
    gate(4, 0.0, passed=False, first=True),
    gate(2, 1.0, passed=True),
]
"""Two trajectories; the leaves of the first are 1, 2, 3 and 4."""
NODES = [ROOT, node(1, 0.1), node(2, 0.8), node(3, 0.2), node(4, 0.9)]


def made(
    events: Sequence[dict[str, Any]] = EVENTS, rows: Sequence[dict[str, Any]] = NODES, candidates: int = 2, **more: Any
) -> Any:
    told = told_by_trajectory(events)["x"]
    return curve(told, rows, candidates=candidates, baseline=0.25, **{"gate": True, **more})


def test_the_journal_is_read_by_trajectory_with_running_spend() -> None:
    told = told_by_trajectory(EVENTS)
    assert [spend for spend, _ in told["x"].marks] == [
        Spend(1, 1, 12, 0.5),
        Spend(3, 2, 32, 0.5),
        Spend(3, 2, 32, 0.5),
        Spend(6, 4, 32, 0.5),
    ]
    assert told["x"].gated == [4, 2]
    assert told["x"].verdicts == {4: (0.0, False), 2: (1.0, True)}
    assert told["y"].marks == [(Spend(7), [9])]
    assert told_by_trajectory([]) == {}


def test_a_later_gate_replaces_the_order_and_keeps_the_verdicts() -> None:
    told = told_by_trajectory([*EVENTS, tell(5), gate(5, 1.0, passed=True, first=True)])["x"]
    assert told.gated == [5]
    assert set(told.verdicts) == {2, 4, 5}


@pytest.mark.parametrize(
    ("unit", "most", "transitions", "value"),
    [
        ("transitions", 0, 0, 0.25),  # nothing told: the baseline
        ("transitions", 1, 1, None),  # leaf 1 was never looked at
        ("transitions", 2, 1, None),  # an ask that does not fit is not in it
        ("transitions", 3, 3, 1.0),  # of 2, 3, 1 the guide puts 2 first, and it passes
        ("transitions", 5.9, 3, 1.0),
        ("transitions", 6, 6, 1.0),  # 4 is refused, 2 passes
        ("calls", 1, 1, None),
        ("calls", 3, 3, 1.0),
        ("tokens", 31, 1, None),
        ("tokens", 32, 6, 1.0),
        ("usd", 0.49, 0, 0.25),
        ("usd", 0.5, 6, 1.0),
    ],
)
def test_the_gate_is_played_again_at_a_cut(unit: str, most: float, transitions: int, value: float | None) -> None:
    spend, found = made().at(unit, most)
    assert (spend.transitions, found) == (transitions, value)


def test_a_confirmed_leaf_has_the_mean_of_its_plays() -> None:
    confirmed = [*EVENTS[:-1], {**gate(2, 1.0, passed=True), "confirmed": [0.75, 0.5, 4]}]
    assert made(confirmed).at("transitions", 6)[1] == 0.75


def test_what_had_to_be_confirmed_passes_by_the_record_only() -> None:
    events = [event for event in EVENTS if event["event"] != "gate"]
    plays = [*events, {**gate(4, 0.9, passed=True, first=True), "confirmed": [0.75, 0.5, 4]}]
    found = made(plays, gate=False, confirm=True)
    assert [found.at("transitions", most)[1] for most in (0, 1, 3, 6)] == [0.25, 0.25, None, 0.75]


def test_the_baseline_of_a_cut_is_the_verdict_on_the_record_not_the_mean_that_the_report_has() -> None:
    told = told_by_trajectory(EVENTS)["x"]
    assert curve(told, NODES, candidates=2, baseline=0.5, gate=True).at("transitions", 0)[1] == 0.25
    told.baselines.clear()
    assert curve(told, NODES, candidates=2, baseline=0.5, gate=True).at("transitions", 0)[1] == 0.5


def test_only_so_many_candidates_are_looked_at() -> None:
    refused = [*EVENTS[:-1], gate(2, 0.0, passed=False)]
    assert made(refused).at("transitions", 6)[1] == 0.25, "two refusals: the baseline stays"
    assert made(refused, candidates=3).at("transitions", 6)[1] is None, "the third was never judged"


def test_without_a_gate_the_guides_value_is_the_verdict() -> None:
    events = [event for event in EVENTS if event["event"] != "gate"]
    found = made(events, gate=False)
    assert [found.at("transitions", most)[1] for most in (0, 1, 3, 6)] == [0.25, 0.25, 0.8, 0.9]
    rows = [ROOT, node(1, None), node(2, 0.25), node(3, 0.2), node(4, 0.9)]
    assert made(events, rows, gate=False).at("transitions", 3)[1] == 0.25, "no better than the baseline"
    judged = [*events, gate(4, 0.7, passed=True, first=True)]
    assert made(judged, gate=False).at("transitions", 6)[1] == 0.7, "what was said of a leaf when it was judged holds"


def test_a_gate_that_went_another_way_leaves_every_cut_unknown() -> None:
    voted = [*EVENTS[:-2], gate(2, 1.0, passed=True, first=True)]
    assert made(voted).at("transitions", 3) == (Spend(3, 2, 32, 0.5), None)


def test_usd_sums_in_another_order_are_the_same_spend() -> None:
    told = Told()
    for _ in range(3):
        told.take(tell(1, calls=1, usage={"cost_usd": 0.1}))
    found = curve(told, NODES, candidates=1, baseline=0.0, gate=True)
    assert 0.1 + 0.1 + 0.1 > 0.3
    assert found.at("usd", 0.3)[0].transitions == 3


def test_the_guides_order_is_that_of_the_tree() -> None:
    """Best value first; then what keeps most of the record, the shallower, the older; no spine, nothing imputed."""
    spine = {"terminal": False, "spine": True}
    rows = [
        ROOT,
        node(1, **spine),
        node(2, 1.0, parent=1, depth=2, terminal=True, spine=True),
        node(3, 0.5, parent=0, depth=1),
        node(4, 0.5, parent=1, depth=2),
        node(5, None, parent=0, depth=1, terminal=False),
        node(6, 0.5, parent=5, depth=2),
        node(7, 0.5, parent=0, depth=1),
        node(8, 0.9, parent=0, depth=1, imputed=True),
        node(9, 0.75, parent=5, depth=2),
        node(10, -0.5, parent=0, depth=1),
        node(11, None, parent=0, depth=1),
    ]
    assert guide_order(rows[::-1]) == [9, 4, 3, 7, 6, 11, 10]


def test_every_unit_is_a_field_of_spend() -> None:
    spend = Spend(1, 2, 3, 4.0)
    assert [spend.of(unit) for unit in UNITS] == [1, 2, 3, 4.0]
    assert Spend.of_row({"transitions": 1, "calls": 2, "tokens": 3, "cost_usd": 4.0}) == spend
