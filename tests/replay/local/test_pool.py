"""The key-value pool: ranges keep their content whatever happens to others, and memory is what is in use."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from ttc_replay.replay.local.memory import is_out_of_memory  # noqa: E402
from ttc_replay.replay.local.pool import SMALLEST_CAPACITY, KVPool, PoolFull, PoolShape, Range  # noqa: E402

SHAPE = PoolShape(layers=2, kv_heads=2, head_dim=3)


def pool_of(tokens: int, capacity: int = 8) -> KVPool:
    return KVPool(SHAPE, tokens * SHAPE.bytes_per_token, capacity)


class Written:
    """A pool beside a plain record of what was written where."""

    def __init__(self, limit: int) -> None:
        self.pool = pool_of(limit)
        self.limit = limit
        self.ranges: list[tuple[Range, list[float]]] = []
        self.stamp = 0.0

    def allocate(self, length: int) -> None:
        used = sum(len(content) for _, content in self.ranges)
        if used + length > self.limit:
            with pytest.raises(PoolFull):
                self.pool.allocate(length)
            return
        held = self.pool.allocate(length)
        content = [self.stamp + index for index in range(length)]
        self.stamp += length
        for layer in range(SHAPE.layers):
            for sign, tensors in ((1, self.pool.keys), (-1, self.pool.values)):
                tensors[layer][:, held.start : held.end] = sign * (torch.tensor(content) + layer / 8)[None, :, None]
        self.ranges.append((held, content))

    def free(self, index: int) -> None:
        self.pool.free(self.ranges.pop(index)[0])

    def shrink(self, index: int, length: int) -> None:
        held, content = self.ranges[index]
        self.pool.shrink(held, min(length, len(content)))
        del content[length:]

    def split(self, index: int, length: int) -> None:
        held, content = self.ranges[index]
        if length < len(content):
            self.ranges.append((self.pool.split(held, length), content[length:]))
            del content[length:]

    def join(self, first: int, second: int) -> None:
        chosen = list(dict.fromkeys([first, second]))
        try:
            self.pool.join([self.ranges[index][0] for index in chosen])
        except PoolFull:
            return
        places = [self.ranges[index][0] for index in chosen]
        assert all(a.end == b.start for a, b in pairwise(places))

    def check(self) -> None:
        ordered = sorted((held.start, held.end) for held, _ in self.ranges)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered))
        assert self.pool.used == sum(len(content) for _, content in self.ranges)
        assert self.pool.free_tokens == self.limit - self.pool.used
        assert self.pool.capacity <= self.limit
        for held, content in self.ranges:
            assert held.length == len(content)
            for layer in range(SHAPE.layers):
                for sign, tensors in ((1, self.pool.keys), (-1, self.pool.values)):
                    there = tensors[layer][:, held.start : held.end]
                    expected = (sign * (torch.tensor(content) + layer / 8))[None, :, None]
                    assert torch.equal(there, expected.expand_as(there))


STEPS = st.tuples(
    st.sampled_from(["allocate", "allocate", "allocate", "free", "shrink", "split", "join", "compact", "release"]),
    st.integers(0, 30),
    st.integers(1, 20),
)


@settings(max_examples=80, deadline=None)
@given(st.integers(20, 90), st.lists(STEPS, max_size=40))
def test_ranges_keep_their_content_and_there_is_room_for_all_that_fits(
    limit: int, steps: list[tuple[str, int, int]]
) -> None:
    written = Written(limit)
    for name, which, length in steps:
        index = which % len(written.ranges) if written.ranges else 0
        if name == "allocate":
            written.allocate(length)
        elif name in ("compact", "release"):
            getattr(written.pool, name)()
        elif not written.ranges:
            continue
        elif name == "free":
            written.free(index)
        elif name == "join":
            written.join(index, length % len(written.ranges))
        else:
            getattr(written, name)(index, length)
        written.check()


def test_it_doubles_up_to_the_limit() -> None:
    pool = pool_of(50)
    sizes = []
    for _ in range(10):
        pool.allocate(5)
        sizes.append(pool.capacity)
    assert sizes == [8, 16, 16, 32, 32, 32, 50, 50, 50, 50]
    with pytest.raises(PoolFull, match="no room for 1 tokens: 50 of at most 50"):
        pool.allocate(1)


def test_it_compacts_instead_of_growing_when_half_is_free() -> None:
    pool = pool_of(1000, capacity=40)
    held = [pool.allocate(10) for _ in range(4)]
    pool.free(held[0])
    pool.free(held[2])
    pool.allocate(15)
    assert (pool.capacity, pool.compactions, [each.start for each in held[1::2]]) == (40, 1, [0, 10])


def test_a_split_or_a_shrink_copies_nothing() -> None:
    pool = pool_of(100, capacity=64)
    held = pool.allocate(30)
    before = [tensor.data_ptr() for tensor in pool.keys]
    second = pool.split(held, 10)
    pool.shrink(second, 5)
    assert (held.start, held.end, second.start, second.end) == (0, 10, 10, 15)
    assert before == [tensor.data_ptr() for tensor in pool.keys]
    assert (pool.used, pool.peak_used) == (15, 30)


def test_release_gives_memory_back() -> None:
    pool = pool_of(100_000, capacity=SMALLEST_CAPACITY)
    large, small = pool.allocate(20_000), pool.allocate(10)
    assert pool.capacity == 32_768
    pool.free(large)
    pool.release()
    assert (pool.capacity, pool.keys[0].shape[1], small.start) == (SMALLEST_CAPACITY, SMALLEST_CAPACITY, 0)


def test_a_device_that_has_no_more_is_the_limit() -> None:
    pool = KVPool(PoolShape(1, 1, 1), 1 << 60, capacity=64)
    with pytest.raises(PoolFull):
        pool.allocate(1 << 50)  # 4 PiB: no machine maps that
    assert pool.limit == 64
    assert pool.allocate(64).length == 64


@pytest.mark.parametrize(("call", "length"), [("shrink", 0), ("shrink", 6), ("split", 0), ("split", 5)])
def test_impossible_cuts_are_refused(call: str, length: int) -> None:
    pool = pool_of(20)
    held = pool.allocate(5)
    with pytest.raises(ValueError, match="5 tokens cannot"):
        getattr(pool, call)(held, length)
    with pytest.raises(ValueError, match="a range of 0 tokens"):
        pool.allocate(0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (PoolFull("no room"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
