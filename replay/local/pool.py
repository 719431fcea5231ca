"""The key-value pool: per layer one flat tensor of keys and one of values, in which every tree node is one range.

Ranges are handles: compaction moves their tokens and changes their `start`, so nobody keeps a start across an
allocation. A range that is cut in two, or loses its end, is never copied.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .memory import is_out_of_memory

SMALLEST_CAPACITY = 1024
"""Tokens of a new pool; it doubles from there."""


class PoolFull(MemoryError):
    """The pool may not grow and has no room, not even after compaction."""


@dataclass(eq=False, slots=True)
class Range:
    """Tokens `start` to `start + length` of every layer; owned by whoever allocated it."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first position after it."""
        return self.start + self.length


CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class PoolShape:
    """What one token takes: `layers` x 2 x `kv_heads` x `head_dim` numbers of `dtype`."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token over all layers."""
        return self.layers * 2 * self.kv_heads * self.head_dim * self.dtype.itemsize


class KVPool:
    """`keys[layer]` and `values[layer]`: `[kv_heads, capacity, head_dim]`, doubled when full up to `cache_bytes`.

    Fresh memory is zeroed: what is masked out still takes part in products with weight 0, and 0 x NaN is NaN.
    """

    def __init__(self, shape: PoolShape, cache_bytes: int, capacity: int = SMALLEST_CAPACITY) -> None:
        self.shape = shape
        self.limit = max(1, cache_bytes // shape.bytes_per_token)
        self.capacity = min(capacity, self.limit)
        self.keys = [self._fresh(self.capacity) for _ in range(shape.layers)]
        self.values = [self._fresh(self.capacity) for _ in range(shape.layers)]
        self.used = 0
        self.peak_used = 0
        self.compactions = 0
        self._ranges: list[Range] = []

    @property
    def free_tokens(self) -> int:
        """Tokens for which there is room, growth included."""
        return self.limit - self.used

    def allocate(self, length: int) -> Range:
        """A range of `length` tokens with old or no content. Raises PoolFull; ranges may have moved afterwards."""
        if length < 1:
            raise ValueError(f"a range of {length} tokens")
        start = self._gap(length)
        if start is None:
            self._make_room(length)
            start = self._gap(length)
            assert start is not None
        found = Range(start, length)
        insort(self._ranges, found, key=_start)
        self._count(length)
        return found

    def free(self, held: Range) -> None:
        """Give the range back; the handle is dead."""
        del self._ranges[self._index(held)]
        self._count(-held.length)

    def shrink(self, held: Range, length: int) -> None:
        """Keep the first `length` tokens, at least one."""
        if not 0 < length <= held.length:
            raise ValueError(f"{held.length} tokens cannot shrink to {length}")
        self._count(length - held.length)
        held.length = length

    def split(self, held: Range, length: int) -> Range:
        """Cut after `length` tokens: the handle keeps the first part, the answer is the second. Copies nothing."""
        if not 0 < length < held.length:
            raise ValueError(f"{held.length} tokens cannot be cut at {length}")
        second = Range(held.start + length, held.length - length)
        self._ranges.insert(self._index(held) + 1, second)
        held.length = length
        return second

    def copy(self, source: Range, target_start: int, length: int) -> None:
        """Copy the first `length` tokens of `source` to `target_start`; the places must not overlap."""
        for tensor in (*self.keys, *self.values):
            tensor[:, target_start : target_start + length] = tensor[:, source.start : source.start + length]

    def join(self, held: Sequence[Range]) -> None:
        """Move ranges so that each begins where the one before it ends. Raises PoolFull (nothing moved then)."""
        place = self.allocate(sum(each.length for each in held))
        start = place.start
        for each in held:
            self.copy(each, start, each.length)
            del self._ranges[self._index(each)]
            each.start = start
            start += each.length
        index = self._index(place)
        self._ranges[index : index + 1] = held
        self._count(-place.length)

    def compact(self) -> None:
        """Slide all ranges to the front, in their order."""
        end = 0
        for held in self._ranges:
            if held.start > end:
                self._slide(held, end)
            end = held.end
        self.compactions += 1

    def release(self) -> None:
        """Give memory that no range uses back to the device."""
        self.compact()
        self._resize(max(self.used, min(SMALLEST_CAPACITY, self.limit)))

    def _gap(self, length: int) -> int | None:
        """First fit."""
        end = 0
        for held in self._ranges:
            if held.start - end >= length:
                return end
            end = held.end
        return end if self.capacity - end >= length else None

    def _make_room(self, length: int) -> None:
        """Compact where half of the pool is free, else grow, else compact."""
        free = self.capacity - self.used
        if free < max(length, self.capacity // 2) and self._grow(length):
            return
        if self.capacity - self.used < length:
            raise PoolFull(f"no room for {length} tokens: {self.used} of at most {self.limit} are in use")
        self.compact()

    def _grow(self, length: int) -> bool:
        """Double until `length` more tokens fit behind the last range; False where the limit or the device says no."""
        end = self._ranges[-1].end if self._ranges else 0
        wanted = self.capacity
        while wanted < end + length:
            wanted *= 2
        wanted = min(wanted, self.limit)
        if wanted - self.used < length or wanted <= self.capacity:
            return False
        try:
            self._resize(wanted)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.limit = self.capacity  # the device has no more: it is the limit from now on
            return False
        return self._gap(length) is not None

    def _resize(self, capacity: int) -> None:
        """One layer after another, so that the peak is the pool and one tensor; `capacity` is right at any moment."""
        self.capacity = min(self.capacity, capacity)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                fresh = self._fresh(capacity)
                kept = min(capacity, old.shape[1])
                fresh[:, :kept] = old[:, :kept]
                tensors[layer] = fresh
        self.capacity = capacity

    def _slide(self, held: Range, start: int) -> None:
        for tensor in (*self.keys, *self.values):
            # The places may overlap: copy by way of a clone.
            tensor[:, start : start + held.length] = tensor[:, held.start : held.end].clone()
        held.start = start

    def _fresh(self, capacity: int) -> torch.Tensor:
        shape = self.shape
        return torch.zeros((shape.kv_heads, capacity, shape.head_dim), dtype=shape.dtype, device=shape.device)

    def _index(self, held: Range) -> int:
        index = bisect_left(self._ranges, held.start, key=_start)
        assert self._ranges[index] is held, "the range is not of this pool, or was freed"
        return index

    def _count(self, tokens: int) -> None:
        self.used += tokens
        self.peak_used = max(self.peak_used, self.used)


def _start(held: Range) -> int:
    return held.start
