"""Algorithms that plan ahead keep the plan that the run began with, and a journal of another search is refused."""

from __future__ import annotations

import asyncio
from typing import Any

from ttc_replay import Spec
from ttc_replay.storage.errors import RunConflict
from ttc_replay.storage.journal import digest, read_journal


def finished(engine: Any) -> Any:
    asyncio.run(engine.run())
    engine.journal.close()
    return engine


def test_a_larger_budget_continues_a_planned_search(make_engine: Any, toy: Any) -> None:
    records = [toy.record(1, 1, 1, 1, target=99)]
    options = {"algorithm": Spec("gumbel"), "folder": "plan"}
    for budget in (20, 30, 100):
        engine = finished(make_engine(records, budget=budget, **options))
        events = read_journal(engine.journal.path)[0]
        assert engine.error is None
        assert [event["budget"] for event in events if event["event"] == "plan"] == [20]
        assert engine.groves[0].tree.spent <= budget
        again = finished(make_engine(records, budget=budget, **options))
        assert digest(read_journal(again.journal.path)[0]) == digest(events), "nothing is left to do"


def test_another_searchs_answers_are_refused_and_never_grafted(make_engine: Any, toy: Any) -> None:
    records = [toy.record(1, 1, 1, 1, target=99)]
    first = finished(make_engine(records, budget=40, algorithm=Spec("beam"), folder="mixed"))
    lines = first.journal.path.read_bytes()
    other = make_engine(records, budget=40, algorithm=Spec("beam"), folder="mixed")
    from ttc_replay.search.best_of_n import BestOfN

    other.plugins.algorithm = BestOfN  # as if the plugin had been rewritten between two sessions
    finished(other)
    assert isinstance(other.error, RunConflict)
    assert "now it is of node" in other.error.message
    assert first.journal.path.read_bytes() == lines, "what is stored is left as it is"
