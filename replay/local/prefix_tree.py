"""A radix tree of contexts whose segments hold their keys and values as ranges of the pool.

As in SGLang's RadixAttention (Zheng et al., arXiv 2312.07104, section 3), but a segment is one contiguous range: so it
is split without a copy and read by attention as one matrix. A segment whose keys and values were evicted stays in the
tree without a range (eight bytes a token): so the tree knows what was seen before, and counts every token once.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .pool import KVPool, PoolFull, Range

REMEMBERED_TOKENS = 4_000_000
"""Tokens that the tree knows, with or without keys and values; the oldest evicted leaves are forgotten beyond."""


@dataclass(eq=False, slots=True)
class Segment:
    """A run of tokens after its parent's. `held`: its keys and values in the pool; `computed`: they are written.

    `begin` is the position of its first token in the context. `pins` counts the users of the segment and of all below
    it: pinned segments, and those with a child in the pool, are not evicted.
    """

    tokens: array[int]
    begin: int
    parent: Segment | None
    serial: int
    children: dict[int, Segment] = field(default_factory=dict)
    held: Range | None = None
    computed: bool = False
    last_use: int = 0
    pins: int = 0

    @property
    def end(self) -> int:
        """The position after its last token."""
        return self.begin + len(self.tokens)

    @property
    def resident(self) -> bool:
        """Its keys and values can be read."""
        return self.computed and self.held is not None

    def order(self) -> tuple[int, ...]:
        """Sorts segments depth-first, parents first."""
        return tuple(each.serial for each in self.path())

    def path(self) -> list[Segment]:
        """From the root's child down to this segment; empty for the root."""
        found: list[Segment] = []
        at: Segment = self
        while at.parent is not None:
            found.append(at)
            at = at.parent
        return found[::-1]


class PrefixTree:
    """All contexts that were seen, each token once; `unique_tokens` counts them."""

    def __init__(self, pool: KVPool, remembered_tokens: int = REMEMBERED_TOKENS) -> None:
        self.pool = pool
        self.remembered_tokens = remembered_tokens
        self.unique_tokens = 0
        self.evicted_tokens = 0
        self.known_tokens = 0
        self._serial = 0
        self._clock = 0
        self.root = Segment(array("q"), 0, None, 0, computed=True)

    def match(self, tokens: Sequence[int]) -> tuple[list[Segment], int]:
        """The segments that cover the longest known prefix whose keys and values are here, and its length.

        A segment that matches in part is split. They count as used now; pin the last one to keep them.
        """
        segment, length = self._descend(array("q", tokens))
        while segment.parent is not None and not segment.resident:
            segment, length = segment.parent, segment.begin
        path = segment.path()
        self._touch(path)
        return path, length

    def insert(self, tokens: Sequence[int]) -> Segment:
        """The segment at the end of `tokens`, made where it is missing; new segments hold nothing yet."""
        wanted = array("q", tokens)
        segment, length = self._descend(wanted)
        if length < len(wanted):
            segment = self._child(segment, wanted[length:])
            self.known_tokens += len(segment.tokens)
            self.unique_tokens += len(segment.tokens)
        self._touch(segment.path())
        if self.known_tokens > self.remembered_tokens:
            self.pin(segment)
            self._forget()
            self.unpin(segment)
        return segment

    def pin(self, segment: Segment) -> None:
        """Keep the segment and its ancestors until `unpin`."""
        for each in segment.path():
            each.pins += 1

    def unpin(self, segment: Segment) -> None:
        """The end of a `pin`; splits in between are known."""
        for each in segment.path():
            each.pins -= 1

    def attach(self, after: Segment, tokens: Sequence[int], held: Range) -> Segment:
        """Keep the computed `tokens` that follow `after`, in `held`, which now belongs to the tree; their last segment.

        Where the tree has some of them already, that part of `held` is freed.
        """
        whole = array("q")
        for segment in after.path():
            whole.extend(segment.tokens)
        whole.extend(tokens)
        leaf = self.insert(whole)
        rest: Range | None = held
        for segment in leaf.path():
            if rest is None or segment.begin < after.end:
                continue
            size = len(segment.tokens)
            following = self.pool.split(rest, size) if size < rest.length else None
            if segment.held is None:
                segment.held, segment.computed = rest, True
            else:
                self.pool.free(rest)
            rest = following
        return leaf

    def allocate(self, length: int) -> Range:
        """A range from the pool; the least recently used leaves make room for it. Raises PoolFull."""
        while True:
            try:
                return self.pool.allocate(length)
            except PoolFull:
                missing = length - self.pool.free_tokens
                if not self.evict(max(missing, 1)):
                    raise

    def evict(self, tokens: int | None = None) -> int:
        """Free at least `tokens` (None: all) of unpinned leaves, least recently used first; how many were freed."""
        freed = 0
        queue = [(each.last_use, each.serial, each) for each in self.segments() if _evictable(each)]
        heapq.heapify(queue)
        while queue and (tokens is None or freed < tokens):
            segment = heapq.heappop(queue)[2]
            freed += len(segment.tokens)
            self.drop(segment)
            parent = segment.parent
            if parent is not None and _evictable(parent):
                heapq.heappush(queue, (parent.last_use, parent.serial, parent))
        self.evicted_tokens += freed
        return freed

    def drop(self, segment: Segment) -> None:
        """Free its range; the tokens stay known."""
        if segment.held is not None:
            self.pool.free(segment.held)
        segment.held, segment.computed = None, False

    def segments(self) -> Iterator[Segment]:
        """All but the root, parents first."""
        stack = list(self.root.children.values())
        while stack:
            segment = stack.pop()
            yield segment
            stack.extend(segment.children.values())

    @property
    def resident_tokens(self) -> int:
        """Tokens whose keys and values the tree holds."""
        return sum(len(each.tokens) for each in self.segments() if each.held is not None)

    def _descend(self, tokens: array[int]) -> tuple[Segment, int]:
        """As deep as the tree knows `tokens`, splitting where they leave it; whether resident or not."""
        at, length = self.root, 0
        while length < len(tokens):
            child = at.children.get(tokens[length])
            if child is None:
                break
            same = common_length(child.tokens, tokens, length)
            length += same
            if same < len(child.tokens):
                return self._split(child, same), length
            at = child
        return at, length

    def _split(self, segment: Segment, at: int) -> Segment:
        """A new parent takes the first `at` tokens. The segment keeps its identity, pins and children."""
        parent = segment.parent
        assert parent is not None
        upper = self._child(parent, segment.tokens[:at])
        upper.last_use, upper.computed, upper.pins = segment.last_use, segment.computed, segment.pins
        if segment.held is not None:
            upper.held = segment.held
            segment.held = self.pool.split(upper.held, at)
        segment.tokens, segment.begin, segment.parent = segment.tokens[at:], upper.end, upper
        upper.children[segment.tokens[0]] = segment
        return upper

    def _child(self, parent: Segment, tokens: array[int]) -> Segment:
        self._serial += 1
        child = Segment(tokens, parent.end, parent, self._serial)
        parent.children[tokens[0]] = child
        return child

    def _touch(self, path: Sequence[Segment]) -> None:
        self._clock += 1
        for segment in path:
            segment.last_use = self._clock

    def _forget(self) -> None:
        """Drop evicted leaves, oldest first, down to nine tenths of what is remembered."""
        leaves = [(each.last_use, each.serial, each) for each in self.segments() if _forgettable(each)]
        heapq.heapify(leaves)
        while leaves and self.known_tokens > 0.9 * self.remembered_tokens:
            segment = heapq.heappop(leaves)[2]
            parent = segment.parent
            assert parent is not None
            del parent.children[segment.tokens[0]]
            self.known_tokens -= len(segment.tokens)
            if _forgettable(parent):
                heapq.heappush(leaves, (parent.last_use, parent.serial, parent))


def common_length(segment: array[int], tokens: array[int], offset: int) -> int:
    """How many tokens `segment` and `tokens[offset:]` have in common at their beginning."""
    low, high = 0, min(len(segment), len(tokens) - offset)
    if segment[:high] == tokens[offset : offset + high]:
        return high
    while high - low > 1:  # the first `low` are the same, the first `high` are not
        middle = (low + high) // 2
        if segment[low:middle] == tokens[offset + low : offset + middle]:
            low = middle
        else:
            high = middle
    return low


def _evictable(segment: Segment) -> bool:
    free = segment.parent is not None and segment.held is not None and segment.pins == 0
    return free and all(child.held is None for child in segment.children.values())


def _forgettable(segment: Segment) -> bool:
    return segment.parent is not None and segment.held is None and not segment.children and segment.pins == 0
