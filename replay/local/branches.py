"""Branches that are being decoded, and the block of the pool in which their new tokens lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from .attention import Plan, RowSpan, shared_runs
from .forward import TreeModel
from .jobs import FinishReason, Generated, Job
from .pool import PoolFull, Range
from .prefill import runs
from .prefix_tree import PrefixTree, Segment

FIRST_STRIDE = 64
"""Own tokens for which a block has room at first; it doubles, so a long limit that nobody uses costs nothing."""
JOIN_TOKENS = 512
"""Scattered neighbours on a path are moved together up to this size: fewer, larger products at every step."""


@dataclass(eq=False, slots=True)
class Branch:
    """One job under way. `leaf` (pinned while the branch runs) ends what was prefilled; then come `own` positions in
    the pool: latent ones, then said tokens. `fed` said tokens have keys and values, in the tree or as own."""

    index: int
    job: Job
    said: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    alternatives: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    cached_tokens: int | None = None
    finish_reason: FinishReason | None = None
    factual: torch.Tensor | None = None
    leaf: Segment | None = None
    held: Range | None = None
    own: int = 0
    fed: int = 0

    def context(self) -> list[int]:
        """What is prefilled: all that is known, but latent positions stand between the prompt and what was said."""
        return [*self.job.tokens, *([] if self.job.latent_steps else self.said)]

    def room(self) -> int:
        """Own positions still to come, at most: the last token said is not fed."""
        return self.job.max_new_tokens - 1 - self.fed

    def answer(self) -> Generated:
        """The finished branch."""
        assert self.finish_reason is not None
        return Generated(
            tuple(self.said),
            tuple(self.logprobs),
            tuple(self.margins),
            self.finish_reason,
            len(self.job.tokens),
            self.cached_tokens or 0,
            tuple(self.alternatives),
        )


class DecodeBatch:
    """The branches that are decoded together, one token a step, in depth-first order."""

    def __init__(self, model: TreeModel, tree: PrefixTree) -> None:
        self.model = model
        self.tree = tree
        self.branches: list[Branch] = []
        self.largest = 0
        self._block: Range | None = None
        self._stride = 0
        self._plan: Plan | None = None

    def add(self, branches: Sequence[Branch]) -> None:
        """They join at the next step."""
        self.dissolve()
        self.branches.extend(branches)

    def remove(self, branches: Sequence[Branch]) -> None:
        """They leave, with what they said kept in the tree for prompts that go on from it."""
        self.dissolve()
        self.branches = [branch for branch in self.branches if branch not in branches]
        for branch in branches:
            leave(branch, self.tree)

    def step(self) -> torch.Tensor:
        """Feed every branch its next token; logits `[branches, vocabulary]`. Raises PoolFull and torch's errors, and
        can be called again then."""
        full = self._block is not None and max(branch.own for branch in self.branches) >= self._stride
        if self._block is None or full:
            self._arrange()
        if self._plan is None:
            self._plan = self.model.plan(self.tree.pool, self._rows(), decode=True)
        device = self.model.device
        tokens = torch.tensor([branch.said[branch.fed] for branch in self.branches], device=device)
        places = torch.tensor([_end(branch) for branch in self.branches], device=device)
        every = torch.arange(len(self.branches), device=device)
        logits, _ = self.model.forward(self._plan, places, every, tokens)
        self._plan.advance()
        for branch in self.branches:
            branch.own += 1
            branch.fed += 1
        self.largest = max(self.largest, len(self.branches))
        return logits

    def ranges_moved(self) -> None:
        """Somebody allocated: the plan's places may be wrong."""
        self._plan = None

    def dissolve(self) -> None:
        """Give every branch a range of its own, cut from the block without a copy."""
        self._plan = None
        rest, self._block = self._block, None
        pool = self.tree.pool
        for branch in self.branches if rest else ():
            assert rest is not None
            following = pool.split(rest, self._stride) if rest.length > self._stride else None
            if branch.own:
                pool.shrink(rest, branch.own)
                branch.held = rest
            else:
                pool.free(rest)
            rest = following

    def _arrange(self) -> None:
        """One block for all, in depth-first order. Raises PoolFull, with every branch in a range of its own."""
        self.dissolve()
        self.branches.sort(key=lambda branch: (_leaf(branch).order(), branch.index))
        straighten(self.tree, [_leaf(branch).path() for branch in self.branches])
        most = max(branch.own + branch.room() for branch in self.branches)
        stride = min(most, max(FIRST_STRIDE, 2 * max(branch.own for branch in self.branches)))
        block = self.tree.allocate(stride * len(self.branches))
        pool = self.tree.pool
        for slot, branch in enumerate(self.branches):
            if branch.held is not None:
                pool.copy(branch.held, block.start + slot * stride, branch.own)
                pool.free(branch.held)
                branch.held = None
        self._block, self._stride = block, stride

    def _rows(self) -> list[RowSpan]:
        assert self._block is not None
        return [
            RowSpan(
                runs(_leaf(branch), _leaf(branch).end),
                self._block.start + slot * self._stride,
                branch.own,
                1,
                self._stride,
            )
            for slot, branch in enumerate(self.branches)
        ]


def leave(branch: Branch, tree: PrefixTree) -> None:
    """The branch runs no more, for now or for good: its own tokens become the tree's, and its pin ends.

    Keys and values after latent positions depend on them, so they are given up.
    """
    held, leaf = branch.held, branch.leaf
    if held is not None and branch.job.latent_steps:
        tree.pool.free(held)
    elif held is not None and leaf is not None:
        begin = branch.fed - branch.own
        tree.attach(leaf, branch.said[begin : branch.fed], held)
    if leaf is not None:
        tree.unpin(leaf)
    branch.held, branch.leaf, branch.own, branch.fed = None, None, 0, 0


def straighten(tree: PrefixTree, paths: Sequence[Sequence[Segment]]) -> None:
    """Move small neighbours that the same rows share next to one another, where the pool has room."""
    chains: dict[tuple[int, int], list[Segment]] = {}
    for first, last, _, segment in shared_runs(paths):
        chains.setdefault((first, last), []).append(segment)
    for chain in chains.values():
        for scattered in _scattered(chain):
            try:
                tree.pool.join(scattered)
            except PoolFull:
                return


def _scattered(chain: Sequence[Segment]) -> list[list[Range]]:
    """Neighbours of together at most JOIN_TOKENS that do not lie side by side."""
    groups: list[list[Range]] = [[]]
    for segment in chain:
        held = segment.held
        assert held is not None
        if sum(each.length for each in groups[-1]) + held.length > JOIN_TOKENS:
            groups.append([])
        groups[-1].append(held)
    return [each for each in groups if any(a.end != b.start for a, b in pairwise(each))]


def _leaf(branch: Branch) -> Segment:
    assert branch.leaf is not None, "the branch was not prefilled"
    return branch.leaf


def _end(branch: Branch) -> int:
    """The position of its next token."""
    return _leaf(branch).end + branch.own
