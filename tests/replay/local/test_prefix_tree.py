"""The prefix tree beside a plain dict of prefixes."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from ttc_replay.replay.local.pool import KVPool, PoolFull, PoolShape  # noqa: E402
from ttc_replay.replay.local.prefix_tree import PrefixTree, Segment, common_length  # noqa: E402

SHAPE = PoolShape(layers=1, kv_heads=1, head_dim=1)


def tree_of(limit: int, **options: int) -> PrefixTree:
    return PrefixTree(KVPool(SHAPE, limit * SHAPE.bytes_per_token, 8), **options)


class Known:
    """A tree, and what was written for every prefix."""

    def __init__(self, limit: int) -> None:
        self.tree = tree_of(limit)
        self.written: dict[tuple[int, ...], float] = {}
        self.seen: set[tuple[int, ...]] = set()
        self.pinned: list[Segment] = []

    def compute(self, tokens: list[int]) -> None:
        """What a prefill does: pin, allocate what is missing, write, unpin."""
        leaf = self.tree.insert(tokens)
        self.tree.pin(leaf)
        self.see(tokens)
        try:
            for segment in leaf.path():
                if segment.held is None:
                    segment.held = self.tree.allocate(len(segment.tokens))
                    self.write(segment)
        except PoolFull:
            pinned = {id(each) for segment in [*self.pinned, leaf] for each in segment.path()}
            resident = [each for each in self.tree.segments() if each.held is not None]
            assert all(id(each) in pinned for each in resident), "only what is pinned may stand in the way"
        self.tree.unpin(leaf)

    def write(self, segment: Segment) -> None:
        assert segment.held is not None
        before = [token for each in segment.path()[:-1] for token in each.tokens]
        for index in range(len(segment.tokens)):
            prefix = (*before, *segment.tokens[: index + 1])
            self.written[prefix] = float(len(self.written) + 1)
            self.tree.pool.keys[0][0, segment.held.start + index] = self.written[prefix]
        segment.computed = True

    def see(self, tokens: list[int]) -> None:
        self.seen.update(tuple(tokens[: end + 1]) for end in range(len(tokens)))

    def attach(self, before: list[int], said: list[int]) -> None:
        """What a branch does that ends: its own tokens become a segment."""
        path, length = self.tree.match(before)
        if length < len(before) or not said:
            return
        leaf = path[-1] if path else self.tree.root
        self.tree.pin(leaf)
        try:
            held = self.tree.allocate(len(said))
        except PoolFull:
            self.tree.unpin(leaf)
            return
        old = set(self.resident())
        for index in range(len(said)):
            prefix = (*before, *said[: index + 1])
            stamp = self.written[prefix] if prefix in old else float(len(self.written) + 1)
            self.written[prefix] = stamp
            self.tree.pool.keys[0][0, held.start + index] = stamp
        self.tree.attach(leaf, said, held)
        self.tree.unpin(leaf)
        self.see([*before, *said])
        assert {(*before, *said[: index + 1]) for index in range(len(said))} <= set(self.resident())

    def resident(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for segment in self.tree.segments():
            if segment.resident:
                before = [token for each in segment.path()[:-1] for token in each.tokens]
                found.extend((*before, *segment.tokens[: index + 1]) for index in range(len(segment.tokens)))
        return found

    def check(self) -> None:
        resident = self.resident()
        assert len(resident) == len(set(resident)) == self.tree.resident_tokens == self.tree.pool.used
        assert all(prefix[:-1] in set(resident) for prefix in resident if len(prefix) > 1)
        assert self.tree.unique_tokens == self.tree.known_tokens == len(self.seen)
        for segment in self.tree.segments():
            assert segment.parent is not None
            assert segment.parent.children[segment.tokens[0]] is segment
            assert segment.begin == segment.parent.end
            if segment.held is not None:
                before = [token for each in segment.path()[:-1] for token in each.tokens]
                there = self.tree.pool.keys[0][0, segment.held.start : segment.held.end, 0].tolist()
                prefixes = [(*before, *segment.tokens[: index + 1]) for index in range(len(segment.tokens))]
                assert there == [self.written[prefix] for prefix in prefixes]

    def match(self, tokens: list[int]) -> None:
        resident = set(self.resident())
        expected = next((n for n in range(len(tokens), 0, -1) if tuple(tokens[:n]) in resident), 0)
        path, length = self.tree.match(tokens)
        assert length == expected == sum(len(segment.tokens) for segment in path)
        assert [token for segment in path for token in segment.tokens] == tokens[:length]
        assert all(segment.resident for segment in path)

    def pin(self, tokens: list[int]) -> None:
        path, _ = self.tree.match(tokens)
        if path:
            self.tree.pin(path[-1])
            self.pinned.append(path[-1])

    def evict(self, tokens: int) -> None:
        kept = {id(each) for segment in self.pinned for each in segment.path()}
        before = self.tree.resident_tokens
        freed = self.tree.evict(tokens)
        assert self.tree.resident_tokens == before - freed
        assert freed >= tokens or all(id(each) in kept for each in self.tree.segments() if each.held is not None), (
            "it stops early only when all that is left is in use"
        )
        assert all(each.held is not None for segment in self.pinned for each in segment.path())


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)
STEPS = st.tuples(
    st.sampled_from(["compute", "compute", "compute", "match", "pin", "unpin", "evict", "attach", "compact"]),
    TOKENS,
    TOKENS,
)


@settings(max_examples=100, deadline=None)
@given(st.integers(12, 60), st.lists(STEPS, max_size=30))
def test_the_tree_is_a_dict_of_prefixes(limit: int, steps: list[tuple[str, list[int], list[int]]]) -> None:
    known = Known(limit)
    for name, tokens, more in steps:
        if name == "attach":
            known.attach(tokens, more)
        elif name == "evict":
            known.evict(len(tokens))
        elif name == "compact":
            known.tree.pool.compact()
        elif name != "unpin":
            getattr(known, name)(tokens)
        elif known.pinned:
            known.tree.unpin(known.pinned.pop())
        known.check()
    for segment in known.pinned:
        known.tree.unpin(segment)
    assert all(each.pins == 0 for each in known.tree.segments())
    known.tree.evict()
    assert known.tree.pool.used == 0


def test_a_partial_match_splits_without_a_copy() -> None:
    known = Known(100)
    known.compute([1, 2, 3, 4, 5])
    start = next(iter(known.tree.segments())).held
    assert start is not None
    used = known.tree.pool.peak_used
    path, length = known.tree.match([1, 2, 3, 9])
    assert (length, [list(each.tokens) for each in path]) == (3, [[1, 2, 3]])
    assert path[0].held is not None
    (lower,) = path[0].children.values()
    assert lower.held is not None
    assert (path[0].held.start, path[0].held.end, lower.held.start) == (0, 3, 3)
    assert known.tree.pool.peak_used == used


def test_the_least_recently_used_leaf_goes_first() -> None:
    known = Known(100)
    for tokens in ([1, 2, 3], [1, 2, 4], [1, 2, 5]):
        known.compute(tokens)
    known.tree.match([1, 2, 3])  # used again
    assert known.tree.evict(1) == 1
    assert sorted(known.resident()) == [(1,), (1, 2), (1, 2, 3), (1, 2, 5)]
    assert known.tree.evict(3) == 4  # the leaves, then the parent that nobody needs any more
    assert known.resident() == []
    assert (known.tree.evicted_tokens, known.tree.unique_tokens) == (5, 5)


def test_what_was_evicted_is_not_unique_again() -> None:
    known = Known(100)
    known.compute([1, 2, 3])
    known.tree.evict()
    known.compute([1, 2, 3, 4])
    assert (known.tree.unique_tokens, known.tree.resident_tokens) == (4, 4)


def test_evicted_leaves_are_forgotten_beyond_what_is_remembered() -> None:
    tree = tree_of(1000, remembered_tokens=100)
    for first in range(40):
        tree.insert([first] * 5)
        assert tree.known_tokens <= 105
    assert tree.unique_tokens == 200
    assert 39 in tree.root.children
    assert 0 not in tree.root.children


def test_allocate_evicts_and_says_so_when_all_is_in_use() -> None:
    known = Known(20)
    known.compute([1] * 8)
    known.compute([2] * 8)
    known.pin([2] * 8)
    assert known.tree.allocate(12).length == 12
    assert known.tree.evicted_tokens == 8
    with pytest.raises(PoolFull):
        known.tree.allocate(1)


@given(st.lists(st.integers(0, 1), max_size=20), st.lists(st.integers(0, 1), max_size=20), st.integers(0, 5))
def test_common_length(first: list[int], second: list[int], offset: int) -> None:
    offset = min(offset, len(second))
    expected = 0
    for a, b in zip(first, second[offset:], strict=False):
        if a != b:
            break
        expected += 1
    assert common_length(array("q", first), array("q", second), offset) == expected
