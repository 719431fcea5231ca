"""Adaptive allocation: rounds, shares, and a run whose hard trees get what easy ones leave over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay import Spec
from ttc_replay.replay.allocation import ROUNDS, Adaptive, Standing
from ttc_replay.storage.journal import digest, read_journal


def test_the_first_grant_is_a_quarter_and_half_of_each_round_goes_to_those_that_improve() -> None:
    plan = Adaptive(budget=64, trees=3)
    assert plan.first == 16
    standings = [Standing(0, False), Standing(1, True), Standing(2, False)]
    grants = plan.grant(standings, spent=48)  # 144 are left for three rounds: 48 now, 24 for all and 24 for tree 1
    assert grants == {0: 8, 1: 32, 2: 8}


def test_nobody_improving_means_equal_shares_and_the_last_round_gives_all_that_is_left() -> None:
    plan = Adaptive(budget=8, trees=2)
    none = [Standing(0, False), Standing(1, False)]
    spent = 2 * plan.first
    for _ in range(ROUNDS - 1):
        grants = plan.grant(none, spent)
        spent += sum(grants.values())
        assert max(grants.values()) - min(grants.values()) <= 1
    assert spent == 16
    assert plan.grant(none, spent) == {}


@given(
    st.integers(0, 200),
    st.integers(1, 12),
    st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=12, max_size=12), min_size=4, max_size=4),
)
def test_grants_never_exceed_what_is_left(budget: int, trees: int, rounds: list[list[tuple[bool, bool]]]) -> None:
    plan = Adaptive(budget, trees)
    spent = min(plan.first * trees, plan.total)
    for facts in rounds:
        standings = [Standing(n, improved) for n, (improved, ended) in enumerate(facts[:trees]) if not ended]
        grants = plan.grant(standings, spent)
        assert set(grants) <= {standing.position for standing in standings}
        spent += sum(grants.values())
        assert spent <= plan.total


@pytest.mark.parametrize("concurrency", [1, 7])
def test_what_solved_trees_leave_over_goes_to_the_others(make_engine: Any, toy: Any, concurrency: int) -> None:
    easy = [toy.record(1, 1, 1, 1, task=f"easy{n}", target=8) for n in range(3)]
    hard = toy.record(1, 1, 1, 1, task="hard", target=99)
    spent = {}
    for allocate in ("uniform", "adaptive"):
        folder = f"{allocate}-{concurrency}"
        engine = make_engine(
            [hard, *easy], folder=folder, allocate=allocate, budget=40, concurrency=concurrency, algorithm=Spec("mcts")
        )
        asyncio.run(engine.run())
        engine.journal.close()
        assert [grove.stopped for grove in engine.groves] == ["budget", "solved", "solved", "solved"]
        spent[allocate] = [grove.tree.spent for grove in engine.groves]
    assert spent["uniform"][0] == 40
    assert spent["adaptive"][0] > 40
    assert sum(spent["adaptive"]) <= 160
    assert all(paid <= 40 for paid in spent["adaptive"][1:]), "those that are solved need no second helping"


def test_an_adaptive_run_is_the_same_at_any_concurrency_and_resumes(make_engine: Any, toy: Any) -> None:
    records = [toy.record(1, 1, 1, n, task=f"t{n}", target=target) for n, target in ((1, 99), (2, 11), (3, 7), (1, 98))]

    def run(folder: str, concurrency: int) -> tuple[str, list[int]]:
        engine = make_engine(
            records, folder=folder, allocate="adaptive", budget=24, concurrency=concurrency, world=toy.ReExecutable
        )
        asyncio.run(engine.run())
        engine.journal.close()
        return digest(read_journal(engine.journal.path)[0]), [grove.tree.spent for grove in engine.groves]

    whole = run("one", 1)
    assert run("eight", 8) == whole
    engine = make_engine(records, folder="cut", allocate="adaptive", budget=24, concurrency=4, world=toy.ReExecutable)
    asyncio.run(engine.run())
    engine.journal.close()
    path = engine.journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in (2, len(lines) // 3, len(lines) // 2, len(lines) - 2):
        path.write_bytes(b"".join(lines[:kept]))
        assert run("cut", 4) == whole


def test_the_budget_of_an_adaptive_run_is_part_of_what_it_is(make_engine: Any, toy: Any) -> None:
    engine = make_engine([toy.record(1, 1, 1, 1)], allocate="adaptive", budget=24)
    configuration = engine.settings.configuration()
    assert (configuration["allocate"], configuration["budget"]) == ("adaptive", 24)
    uniform = make_engine([toy.record(1, 1, 1, 1)], folder="other", budget=24).settings.configuration()
    assert "budget" not in uniform
