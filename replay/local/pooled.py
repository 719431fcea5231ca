"""The layout for CUDA: one FlexAttention launch per layer over the whole flat pool.

A bool table rows x pool positions says which keys a row may see; a key is visible if it is in the row's table and its
position in the context is not after the query's. So the block mask is made once per arrangement of rows: a decode
step only moves the queries' positions on. Blocks of 128 keys that no row of a block of queries sees are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.attention import flex_attention as flex

from .attention import RowSpan, context_positions, write_positions
from .pool import KVPool

BLOCK = 128
VARIANTS = 64


class PooledPlan:
    """`Plan` for any rows, prefill or decode."""

    def __init__(self, pool: KVPool, rows: Sequence[RowSpan]) -> None:
        self.pool = pool
        device = pool.shape.device
        self.write_index = torch.tensor(write_positions(rows), device=device)
        self.positions = torch.tensor(context_positions(rows), dtype=torch.int32, device=device)
        self.mask = self._block_mask(rows)
        self.attention = compiled() if device.type == "cuda" else uncompiled

    def advance(self) -> None:
        """The next step of a decode; in place, so that the mask and its compiled kernel stay."""
        self.positions += 1
        self.write_index += 1

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """See `attention.Plan`."""
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys.index_copy_(1, self.write_index, key[0])
        values.index_copy_(1, self.write_index, value[0])
        capacity = self.pool.capacity
        merged = self.attention(
            query, keys[None, :, :capacity], values[None, :, :capacity], block_mask=self.mask, scale=scaling,
            enable_gqa=query.shape[1] != keys.shape[0],
        )  # fmt: skip
        return merged.transpose(1, 2).contiguous()

    def _block_mask(self, rows: Sequence[RowSpan]) -> flex.BlockMask:
        device = self.pool.shape.device
        table, order = visible(rows, self.pool.capacity)
        owner = np.repeat(np.arange(len(rows)), [row.count for row in rows])
        lists = blocks(table, order, owner, np.array(context_positions(rows)))
        (counts, indices), (whole_counts, whole_indices) = (tuple(map(self._placed, each)) for each in lists)
        seen, places = torch.from_numpy(table).to(device), torch.from_numpy(order).to(device)
        row_of, positions = torch.from_numpy(owner).to(device), self.positions

        def mask(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
            return seen[row_of[query], key] & (places[key] <= positions[query])

        return flex.BlockMask.from_kv_blocks(
            counts,
            indices,
            whole_counts,
            whole_indices,
            BLOCK_SIZE=BLOCK,
            mask_mod=mask,
            seq_lengths=(len(owner), self.pool.capacity),
        )

    def _placed(self, counts: Any) -> torch.Tensor:
        """For every batch and head alike."""
        return torch.from_numpy(counts)[None, None].to(self.pool.shape.device)


def visible(rows: Sequence[RowSpan], capacity: int) -> tuple[Any, Any]:
    """The table, bool `[rows, capacity]`, all room of a row's own tokens included, and the position in its context of
    every key that some row sees, int32 `[capacity]`."""
    table = np.zeros((len(rows), capacity), dtype=bool)
    order = np.zeros(capacity, dtype=np.int32)
    for index, row in enumerate(rows):
        position = 0
        for start, length in [*((run.start, run.length) for run in row.path), (row.own, row.room)]:
            table[index, start : start + length] = True
            order[start : start + length] = np.arange(position, position + length)
            position += length
    return table, order


def blocks(table: Any, order: Any, owner: Any, positions: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Blocks of keys that each block of queries sees in part, and those that all of it sees whole (no mask is evaluated
    there): counts, and indices padded with zeros, int32. Whole blocks stay whole when the positions move on."""
    rows, capacity = table.shape
    columns = -(-capacity // BLOCK)
    shape = (rows, columns, BLOCK)
    padded = np.zeros((rows, columns * BLOCK), dtype=bool)
    padded[:, :capacity] = table
    latest = np.zeros(columns * BLOCK, dtype=np.int32)
    latest[:capacity] = order
    some: Any = padded.reshape(shape).any(axis=2)
    every: Any = padded.reshape(shape).all(axis=2)
    last: Any = latest.reshape(columns, BLOCK).max(axis=1)
    partial, whole = [], []
    for at in range(0, len(owner), BLOCK):
        seen_by = np.unique(owner[at : at + BLOCK])
        whole.append(every[seen_by].all(axis=0) & (last <= positions[at : at + BLOCK].min()))
        partial.append(some[seen_by].any(axis=0) & ~whole[-1])
    return _listed(partial), _listed(whole)


def _listed(seen: Sequence[Any]) -> tuple[Any, Any]:
    """Per block of queries, how many blocks of keys and which."""
    counts = np.array([each.sum() for each in seen], dtype=np.int32)
    indices = np.zeros((len(seen), len(seen[0])), dtype=np.int32)
    for index, each in enumerate(seen):
        indices[index, : counts[index]] = np.flatnonzero(each)
    return counts, indices


@cache
def compiled() -> Callable[..., torch.Tensor]:
    """The fused kernel, compiled at its first call. Sizes are symbols, but those that are 1 (a row, a block) are not:
    that makes more variants than the eight after which torch would give up and run it uncompiled."""
    import torch._dynamo.config as settings

    settings.recompile_limit = max(settings.recompile_limit, VARIANTS)
    return torch.compile(flex.flex_attention)


def uncompiled(*inputs: Any, **options: Any) -> torch.Tensor:
    """The same function as plain torch operations: it is for checks on a CPU, and torch's warning says so."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile", UserWarning)
        merged: torch.Tensor = flex.flex_attention(*inputs, **options)
        return merged
