"""Parents by key: in any order, across ingests, without circles."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest

from ttc_replay.storage.database import Database
from ttc_replay.storage.links import Linked, Parent, parents
from ttc_replay.storage.records import Links, Source, Task, Trajectory


def linked(identity: str, keys: str = "", parent: str | None = None, steps: int = 1, **children: int | None) -> Linked:
    return Linked(identity, "f", steps, keys.split(), parent, children)


CASES = {
    "a child names its parent": ([linked("p", "main"), linked("c", "sub", "main")], {"c": Parent("p", None)}),
    "a parent names its child": ([linked("p", "main", sub=3), linked("c", "sub")], {"c": Parent("p", 3)}),
    "both do": ([linked("p", "main", sub=3), linked("c", "sub", "main")], {"c": Parent("p", 3)}),
    "nobody is there": ([linked("c", "sub", "main")], {}),
    "itself": ([linked("c", "sub", "sub")], {}),
    "a circle": ([linked("a", "a", "b"), linked("b", "b", "a")], {}),
    "the longer of two": (
        [linked("p1", "main", steps=2), linked("p2", "main", steps=5), linked("c", "sub", "main")],
        {"c": Parent("p2", None)},
    ),
    "grandchildren": (
        [linked("a", "a"), linked("b", "b", "a"), linked("c", "c", "b")],
        {"b": Parent("a", None), "c": Parent("b", None)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parents(name: str) -> None:
    some, expected = CASES[name]
    for order in permutations(some):
        assert parents(order) == expected


def test_formats_do_not_mix() -> None:
    assert parents([linked("p", "main"), linked("c", "sub", "main")._replace(format="g")]) == {}


def recorded(identity: str, links: Links) -> Trajectory:
    source = Source("claude-code", raw="{}", links=links, relation="subagent" if links.parent else None)
    return Trajectory(identity, Task("t"), source=source)


def test_links_over_two_ingests(tmp_path: Path) -> None:
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        database.add_trajectories([recorded("child", Links(("agent:1",), "session:1"))])
        assert database.resolve_links() == 0
        database.add_trajectories([recorded("main", Links(("session:1",), children={"agent:1": 4}))])
        assert database.resolve_links() == 1
        assert database.resolve_links() == 0
        child = database.trajectory("child")
        assert (child.parent_id, child.branch_step, child.run) == ("main", 4, None)
        assert child.source is not None
        assert child.source.links == Links(("agent:1",), "session:1")
        assert database.trajectory("main").parent_id is None
