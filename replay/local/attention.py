"""Attention over the pool: every tree node's keys and values are read once per layer for all rows that share it.

A forward is one packed sequence of the new tokens of all rows. Rows lie depth-first, so a node serves one contiguous
run of tokens: one matrix product for the scores, one for the values. The scores of a token stand at the position of
the key in its context, so one float32 softmax over that axis merges the parts exactly, without log-sum-exp bookkeeping.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from .pool import KVPool

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """Keys at `start` to `start + length` of the pool."""

    start: int
    length: int


@dataclass(slots=True)
class RowSpan:
    """One row of a forward: `count` new tokens after `before` own ones after the ancestors' (`path`, root first).

    Own tokens lie at `own` and after it; there is room for `room` of them.
    """

    path: Sequence[Run]
    own: int
    before: int
    count: int
    room: int

    @property
    def context(self) -> int:
        """Tokens of the ancestors."""
        return sum(run.length for run in self.path)


@dataclass(slots=True)
class Piece:
    """Keys that the packed tokens `first` to `last` share; the first key has position `column` in their contexts."""

    first: int
    last: int
    start: int
    length: int
    column: int


class Plan(Protocol):
    """How one forward attends; made for one arrangement of rows in the pool."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Write `key` and `value`, `[1, kv_heads, T, head_dim]`, into the pool and attend with `query`,
        `[1, heads, T, head_dim]`; answers `[1, T, heads, head_dim]`."""
        ...

    def advance(self) -> None:
        """One more own token per row, in a decode plan."""
        ...


def shared_pieces(rows: Sequence[RowSpan]) -> list[Piece]:
    """The ancestors of rows in depth-first order, each once per run of rows; ranges that adjoin are one piece."""
    pieces: list[Piece] = []
    latest: dict[tuple[int, int], Piece] = {}
    firsts = token_offsets(rows)
    for first, last, depth, run in shared_runs([row.path for row in rows]):
        column = sum(each.length for each in rows[first].path[:depth])
        _add(pieces, latest, Piece(firsts[first], firsts[last], run.start, run.length, column))
    return pieces


def shared_runs(paths: Sequence[Sequence[T]]) -> Iterator[tuple[int, int, int, T]]:
    """(first row, row after the last, depth, node) for every node and run of rows whose paths have it there."""
    for depth in range(max((len(path) for path in paths), default=0)):
        at_depth = [path[depth] if depth < len(path) else None for path in paths]
        begin = 0
        while begin < len(paths):
            node = at_depth[begin]
            end = begin + 1
            while end < len(paths) and at_depth[end] == node:
                end += 1
            if node is not None:
                yield begin, end, depth, node
            begin = end


def token_offsets(rows: Sequence[RowSpan]) -> list[int]:
    """Where each row's tokens begin in the packed sequence; the last entry is the number of tokens."""
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + row.count)
    return offsets


def write_positions(rows: Sequence[RowSpan]) -> list[int]:
    """Where in the pool the packed new tokens go."""
    return [row.own + row.before + index for row in rows for index in range(row.count)]


def context_positions(rows: Sequence[RowSpan]) -> list[int]:
    """The position of each packed token in its context."""
    return [row.context + row.before + index for row in rows for index in range(row.count)]


def _add(pieces: list[Piece], latest: dict[tuple[int, int], Piece], piece: Piece) -> None:
    before = latest.get((piece.first, piece.last))
    if before and before.start + before.length == piece.start and before.column + before.length == piece.column:
        before.length += piece.length
        return
    pieces.append(piece)
    latest[piece.first, piece.last] = piece


class _SharedPlan:
    """What prefill and decode have in common: the ancestors' part, and the matrix of scores.

    `width` columns: positions of the ancestors, then the own tokens. Columns that a token does not have stay -inf over
    all layers and steps.
    """

    def __init__(self, pool: KVPool, rows: Sequence[RowSpan], pieces: list[Piece], columns: int, width: int) -> None:
        self.pool = pool
        self.pieces = pieces
        self.columns = columns
        self.width = width
        self.tokens = sum(row.count for row in rows)
        self.write_index = torch.tensor(write_positions(rows), device=pool.shape.device)
        self._scores: torch.Tensor | None = None
        self._weights: torch.Tensor | None = None

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """See `Plan`."""
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys.index_copy_(1, self.write_index, key[0])
        values.index_copy_(1, self.write_index, value[0])
        heads, head_dim, kv_heads = query.shape[1], query.shape[3], keys.shape[0]
        group = heads // kv_heads
        grouped = query[0].view(kv_heads, group, self.tokens, head_dim).transpose(1, 2)
        packed = (grouped * scaling).reshape(kv_heads, self.tokens * group, head_dim)
        scores, weights = self._buffers(kv_heads, group)
        for piece in self.pieces:
            rows = slice(piece.first * group, piece.last * group)
            run = keys[:, piece.start : piece.start + piece.length]
            place = scores[:, rows, piece.column : piece.column + piece.length]
            product(packed[:, rows], run.transpose(1, 2), place)
        self._own_scores(packed, keys, scores, group)
        torch.softmax(scores, dim=-1, out=weights)
        shares = weights.to(values.dtype)
        mixed = self._own_values(shares, values, group)
        for piece in self.pieces:
            rows = slice(piece.first * group, piece.last * group)
            part = shares[:, rows, piece.column : piece.column + piece.length]
            accumulate(mixed[:, rows], part, values[:, piece.start : piece.start + piece.length])
        merged = mixed.view(kv_heads, self.tokens, group, head_dim).transpose(0, 1)
        return merged.reshape(1, self.tokens, heads, head_dim).to(query.dtype)

    def _buffers(self, kv_heads: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self._scores is None or self._weights is None:
            shape = (kv_heads, self.tokens * group, self.width)
            self._scores = torch.full(shape, -math.inf, dtype=torch.float32, device=self.pool.shape.device)
            self._weights = torch.empty_like(self._scores)
        return self._scores, self._weights

    def _own_scores(self, packed: torch.Tensor, keys: torch.Tensor, scores: torch.Tensor, group: int) -> None:
        raise NotImplementedError

    def _own_values(self, shares: torch.Tensor, values: torch.Tensor, group: int) -> torch.Tensor:
        """float32 `[kv_heads, tokens * group, head_dim]`."""
        raise NotImplementedError


class PrefillPlan(_SharedPlan):
    """Many new tokens a row: each row's new tokens see one another causally."""

    def __init__(self, pool: KVPool, rows: Sequence[RowSpan]) -> None:
        pieces = shared_pieces(rows)
        offsets = token_offsets(rows)
        for index, row in enumerate(rows):
            if row.before:  # earlier parts of the same row are like an ancestor
                pieces.append(Piece(offsets[index], offsets[index + 1], row.own, row.before, row.context))
        columns = max(row.context + row.before for row in rows)
        longest = max(row.count for row in rows)
        super().__init__(pool, rows, pieces, columns, columns + longest)
        self.rows = rows
        self.offsets = offsets
        later = torch.ones((longest, longest), dtype=torch.bool, device=pool.shape.device).triu(1)
        self._later = later

    def advance(self) -> None:
        """A prefill plan is used once."""
        raise TypeError("a prefill plan does not advance")

    def _own_scores(self, packed: torch.Tensor, keys: torch.Tensor, scores: torch.Tensor, group: int) -> None:
        for index, row in enumerate(self.rows):
            tokens = slice(self.offsets[index] * group, self.offsets[index + 1] * group)
            run = keys[:, row.own + row.before : row.own + row.before + row.count]
            place = scores[:, tokens, self.columns : self.columns + row.count]
            product(packed[:, tokens], run.transpose(1, 2), place)
            later = self._later[: row.count, : row.count].repeat_interleave(group, dim=0)
            place.masked_fill_(later, -math.inf)

    def _own_values(self, shares: torch.Tensor, values: torch.Tensor, group: int) -> torch.Tensor:
        shape = (values.shape[0], self.tokens * group, values.shape[2])
        mixed = torch.zeros(shape, dtype=torch.float32, device=values.device)
        for index, row in enumerate(self.rows):
            tokens = slice(self.offsets[index] * group, self.offsets[index + 1] * group)
            run = values[:, row.own + row.before : row.own + row.before + row.count]
            accumulate(mixed[:, tokens], shares[:, tokens, self.columns : self.columns + row.count], run)
        return mixed


class DecodePlan(_SharedPlan):
    """One new token a row; own tokens lie in one block, row by row in equal slots, so one product reads them all."""

    def __init__(self, pool: KVPool, rows: Sequence[RowSpan]) -> None:
        columns = max(row.context for row in rows)
        self.slots = len(rows)
        self.stride = rows[0].room
        self.block = rows[0].own
        super().__init__(pool, rows, shared_pieces(rows), columns, columns + self.stride)
        self.own = torch.tensor([row.before for row in rows], device=pool.shape.device)
        """Own tokens before this step, per row."""
        self.longest = max(row.before for row in rows) + 1
        self.ragged = min(row.before for row in rows) + 1 < self.longest
        if any(row.room != self.stride or row.own != self.block + i * self.stride for i, row in enumerate(rows)):
            raise ValueError("the rows of a decode plan lie in one block")

    def advance(self) -> None:
        """The next step: one more own token in every row. The block must have room for it."""
        self.longest += 1
        self.own += 1
        self.write_index += 1

    def _block(self, tensor: torch.Tensor) -> torch.Tensor:
        """`[kv_heads, slots, longest, head_dim]`, a view."""
        block = tensor[:, self.block : self.block + self.slots * self.stride]
        return block.view(tensor.shape[0], self.slots, self.stride, tensor.shape[2])[:, :, : self.longest]

    def _own_scores(self, packed: torch.Tensor, keys: torch.Tensor, scores: torch.Tensor, group: int) -> None:
        by_slot = packed.view(packed.shape[0], self.slots, group, packed.shape[2])
        own = torch.matmul(by_slot, self._block(keys).transpose(2, 3)).float()
        if self.ragged:
            index = torch.arange(self.longest, device=own.device)
            own.masked_fill_((index > self.own[:, None])[None, :, None], -math.inf)
        place = scores.view(own.shape[0], self.slots, group, self.width)
        place[..., self.columns : self.columns + self.longest] = own

    def _own_values(self, shares: torch.Tensor, values: torch.Tensor, group: int) -> torch.Tensor:
        by_slot = shares.view(shares.shape[0], self.slots, group, self.width)
        part = by_slot[..., self.columns : self.columns + self.longest]
        return torch.matmul(part, self._block(values)).float().flatten(1, 2)


def product(left: torch.Tensor, right: torch.Tensor, place: torch.Tensor) -> None:
    """`place` = `left` @ `right`, batched; `place` is float32 and may be strided."""
    if left.dtype == place.dtype:
        torch.bmm(left, right, out=place)
    else:
        place.copy_(torch.bmm(left, right))


def accumulate(place: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """`place` += `left` @ `right`, batched; `place` is float32 and may be strided."""
    if left.dtype == place.dtype:
        place.baddbmm_(left, right)
    else:
        place.add_(torch.bmm(left, right))
