"""Prefill: the keys and values of tokens that are known, many a row, packed in chunks; logits where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .attention import RowSpan, Run, context_positions, token_offsets
from .forward import TreeModel
from .pool import Range
from .prefix_tree import PrefixTree, Segment

CHUNK_TOKENS = 256
"""Of one forward: enough for full speed of the matrix products, few enough that little of a causal square is wasted."""
POOLED_CHUNK_TOKENS = 2048
"""The same for the fused kernel, which skips masked blocks."""
SMALLEST_CHUNK = 16
SCORE_BYTES = 64 << 20
"""Of the float32 score matrix of one forward (there are two of them)."""


@dataclass(eq=False, slots=True)
class Span:
    """`tokens` to run after the first `context` tokens on the path of `after`; keys and values go to `held`.

    `segment`: the one that is computed by it. Logits are wanted of its tokens `wanted` and later.
    """

    after: Segment
    context: int
    tokens: Sequence[int]
    held: Range
    wanted: int
    segment: Segment | None = None
    done: int = 0

    def order(self) -> tuple[int, ...]:
        """Depth-first, what is depended on first."""
        return (self.segment or self.after).order()


Consume = Callable[[Span, torch.Tensor, torch.Tensor | None], None]
"""Gets a span, the logits `[K, vocabulary]` of its next wanted tokens, and their hidden states, if asked for."""


def runs(segment: Segment, length: int) -> list[Run]:
    """The first `length` tokens of the path down to `segment`, as they lie in the pool now."""
    found: list[Run] = []
    for each in segment.path():
        if each.begin < length:
            assert each.held is not None
            found.append(Run(each.held.start, min(each.end, length) - each.begin))
    return found


class Prefiller:
    """Runs spans; `tokens` counts what went through the model."""

    def __init__(self, model: TreeModel, tree: PrefixTree) -> None:
        self.model = model
        self.tree = tree
        self.largest_chunk = CHUNK_TOKENS if model.layout == "segments" else POOLED_CHUNK_TOKENS
        self.chunk = self.largest_chunk
        self.tokens = 0

    def run(self, spans: Sequence[Span], consume: Consume, hidden: bool = False) -> None:
        """All of `spans`; afterwards their segments are computed. Nothing is allocated meanwhile.

        A span may depend on another one: both are in one forward or in the right order.
        """
        waiting = sorted(spans, key=Span.order)
        while waiting:
            self._forward(self._pack(waiting), consume, hidden)
            for span in waiting:
                if span.done == len(span.tokens) and span.segment is not None:
                    span.segment.computed = True
            waiting = [span for span in waiting if span.done < len(span.tokens)]

    def _pack(self, waiting: Sequence[Span]) -> list[tuple[Span, int]]:
        """The first spans and how many tokens of each."""
        left, packed = self.chunk, list[tuple[Span, int]]()
        for span in waiting:
            count = min(left, len(span.tokens) - span.done)
            count = min(count, self._allowed([*packed, (span, count)]) - (self.chunk - left))
            if count < 1:
                break
            packed.append((span, count))
            left -= count
            if left == 0 or count < len(span.tokens) - span.done:
                break
        return packed

    def _allowed(self, packed: Sequence[tuple[Span, int]]) -> int:
        """Tokens of one forward whose scores stay within SCORE_BYTES; the fused kernel keeps no scores."""
        if self.model.layout == "pooled":
            return self.chunk
        longest = max(span.context + span.done + count for span, count in packed)
        return max(SMALLEST_CHUNK, SCORE_BYTES // (4 * self.model.heads * longest))

    def _forward(self, packed: Sequence[tuple[Span, int]], consume: Consume, hidden: bool) -> None:
        rows = [
            RowSpan(runs(span.after, span.context), span.held.start, span.done, count, span.held.length)
            for span, count in packed
        ]
        device = self.model.device
        plan = self.model.plan(self.tree.pool, rows, decode=False)
        tokens = [token for span, count in packed for token in span.tokens[span.done : span.done + count]]
        offsets = token_offsets(rows)
        firsts = [min(max(span.wanted - span.done, 0), count) for span, count in packed]
        keep = [offsets[i] + at for i, (_, count) in enumerate(packed) for at in range(firsts[i], count)]
        logits, states = self.model.forward(
            plan,
            torch.tensor(context_positions(rows), device=device),
            torch.tensor(keep, dtype=torch.long, device=device),
            torch.tensor(tokens, device=device),
            hidden=hidden,
        )
        self.tokens += len(tokens)
        used = 0
        for (span, count), first in zip(packed, firsts, strict=True):
            size = count - first
            if size:
                part = slice(used, used + size)
                consume(span, logits[part], states[part] if states is not None else None)
            used += size
            span.done += count
