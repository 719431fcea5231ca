"""Paths of a log that is a tree: every entry that matters is on one, and owned by exactly one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.readers.event_tree import paths


@st.composite
def trees(draw: Any) -> tuple[list[int | None], list[bool], list[str | None]]:
    size = draw(st.integers(1, 25))
    parents = [draw(st.one_of(st.none(), st.integers(0, entry - 1))) if entry else None for entry in range(size)]
    matters = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    groups = draw(st.lists(st.sampled_from([None, "a", "b"]), min_size=size, max_size=size))
    return parents, matters, groups


@given(trees())
def test_every_entry_that_matters_is_owned_once(tree: tuple[list[int | None], list[bool], list[str | None]]) -> None:
    parents, matters, groups = tree
    found = list(paths(parents, matters, groups, [1] * len(parents)))
    owned = [entry for path in found for entry in path.own]
    assert len(owned) == len(set(owned))
    assert {entry for entry in range(len(parents)) if matters[entry]} <= set(owned)
    seen: set[int] = set()
    for path in found:
        assert set(path.own) == set(path.whole) - seen
        assert (path.fork is None) or path.fork in seen
        assert all(parents[entry] is None or parents[entry] in path.whole for entry in path.whole)
        assert list(path.whole) == sorted(path.whole)
        seen |= set(path.whole)
    if found:
        assert max(entry for entry in range(len(parents)) if matters[entry]) in found[0].whole


def test_a_group_beside_the_path_belongs_to_it() -> None:
    parents = [None, 0, 1, 1, 2, 0]
    groups = [None, "m", "m", "m", None, None]
    (path, other) = paths(parents, [True] * 6, groups, [1] * 6)
    assert (path.whole, other.whole, other.fork) == ((0, 5), (0, 1, 2, 3, 4), 0)
