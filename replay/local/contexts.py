"""Contexts that are known: what of them is missing in the tree is prefilled, each token once for all who share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from .attention import RowSpan, context_positions
from .branches import Branch, leave
from .forward import TreeModel
from .latent import feed_back
from .pool import Range
from .prefill import Prefiller, Span, runs
from .prefix_tree import PrefixTree, Segment

Note = Callable[[int, torch.Tensor], None]
"""Gets the index of a pair and the logits `[K, vocabulary]` of the next tokens of its continuation, in their order."""


@dataclass(slots=True)
class Ready:
    """By branch index: tokens of the context that were in the tree already, the logits of the next token, and the last
    hidden state where a branch has latent steps."""

    cached: dict[int, int] = field(default_factory=dict)
    logits: dict[int, torch.Tensor] = field(default_factory=dict)
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)


class Contexts:
    """Prefills the contexts of branches (`prompts`) and texts whose every token is known (`forced`)."""

    def __init__(self, model: TreeModel, tree: PrefixTree, prefiller: Prefiller) -> None:
        self.model = model
        self.tree = tree
        self.prefiller = prefiller

    def prompts(self, branches: Sequence[Branch]) -> Ready:
        """Pin and prefill the contexts of `branches`: each has its `leaf` then, and logits, unless it has said tokens
        that must be fed again after its latent positions. On an error the branches hold nothing."""
        ready = Ready()
        try:
            leaves = self._pinned(branches, ready)
            with self._missing(leaves) as spans, _Scratch(self.tree) as scratch:
                again = [_last_token(leaf, scratch) for serial, leaf in leaves.items() if serial not in spans]
                for span in spans.values():
                    if span.segment is not None and span.segment.serial in leaves:
                        span.wanted = len(span.tokens) - 1
                self._run(branches, [*spans.values(), *again], ready)
            self._think(branches, ready)
        except BaseException:
            for branch in branches:
                leave(branch, self.tree)
            raise
        return ready

    def factual(self, branches: Sequence[Branch]) -> None:
        """The logits under which recorded tokens were said, for branches that share the noise of a recorded run."""
        missing = [each for each in branches if each.job.factual and each.job.temperature > 0 and each.factual is None]
        keys = list(dict.fromkeys(_recorded(branch) for branch in missing))
        logits: list[list[torch.Tensor]] = [[] for _ in keys]
        self.forced(keys, lambda index, part: logits[index].append(part))
        for branch in missing:
            branch.factual = torch.cat(logits[keys.index(_recorded(branch))])

    def forced(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], note: Note) -> None:
        """Run the continuation of each (context, continuation) and `note` its logits; both stay in the tree."""
        heads: list[Segment] = []
        try:
            for before, _ in pairs:
                heads.append(self.tree.insert(before[:-1]))
                self.tree.pin(heads[-1])
            with self._missing({head.serial: head for head in heads}) as spans, _Scratch(self.tree) as scratch:
                rows: dict[int, int] = {}
                forced: list[Span] = []
                for index, (head, (before, after)) in enumerate(zip(heads, pairs, strict=True)):
                    if after:
                        tokens = [before[-1], *after[:-1]]
                        forced.append(Span(head, len(before) - 1, tokens, scratch.allocate(len(tokens)), 0))
                        rows[id(forced[-1])] = index
                self.prefiller.run([*spans.values(), *forced], lambda span, part, _: note(rows[id(span)], part))
                for span in forced:
                    scratch.keep(span.held)
                    self.tree.attach(span.after, span.tokens, span.held)
        finally:
            for head in heads:
                self.tree.unpin(head)

    def _pinned(self, branches: Sequence[Branch], ready: Ready) -> dict[int, Segment]:
        """Every branch's leaf, pinned; the different ones by serial."""
        contexts = [branch.context() for branch in branches]
        for branch, context in zip(branches, contexts, strict=True):
            ready.cached[branch.index] = self.tree.match(context)[1]
        for branch, context in zip(branches, contexts, strict=True):
            branch.leaf = self.tree.insert(context)
            branch.fed = len(context) - len(branch.job.tokens)
            self.tree.pin(branch.leaf)
        return {branch.leaf.serial: branch.leaf for branch in branches if branch.leaf is not None}

    @contextmanager
    def _missing(self, leaves: dict[int, Segment]) -> Iterator[dict[int, Span]]:
        """Spans for what is not computed on the paths to `leaves` (pinned), by serial of the segment."""
        spans: dict[int, Span] = {}
        try:
            for leaf in leaves.values():
                for each in leaf.path():
                    if each.held is None:
                        each.held = self.tree.allocate(len(each.tokens))
                        assert each.parent is not None
                        size = len(each.tokens)
                        spans[each.serial] = Span(each.parent, each.begin, each.tokens, each.held, size, each)
            yield spans
        finally:
            for span in spans.values():
                if span.segment is not None and not span.segment.computed:
                    self.tree.drop(span.segment)

    def _run(self, branches: Sequence[Branch], spans: Sequence[Span], ready: Ready) -> None:
        """Prefill, and hand the last token's logits to every branch that ends there."""
        by_leaf: dict[int, list[Branch]] = {}
        for branch in branches:
            assert branch.leaf is not None
            by_leaf.setdefault(branch.leaf.serial, []).append(branch)

        def consume(span: Span, logits: torch.Tensor, hidden: torch.Tensor | None) -> None:
            for branch in by_leaf[(span.segment or span.after).serial]:
                ready.logits[branch.index] = logits[-1]
                if hidden is not None:
                    ready.hidden[branch.index] = hidden[-1]

        self.prefiller.run(spans, consume, hidden=any(branch.job.latent_steps for branch in branches))

    def _think(self, branches: Sequence[Branch], ready: Ready) -> None:
        """Feed hidden states back for the branches that want it; their logits are those after the last one."""
        by_steps: dict[int, list[Branch]] = {}
        for branch in branches:
            if branch.job.latent_steps:
                by_steps.setdefault(branch.job.latent_steps, []).append(branch)
        for steps, group in by_steps.items():
            for branch in group:
                branch.held = self.tree.allocate(steps)
        for steps, group in by_steps.items():
            group.sort(key=lambda branch: branch.leaf.order() if branch.leaf else ())
            logits = self._latent(group, steps, ready)
            for branch, row in zip(group, logits, strict=True):
                branch.own = steps
                ready.logits[branch.index] = row
                if branch.said:
                    del ready.logits[branch.index]

    def _latent(self, group: Sequence[Branch], steps: int, ready: Ready) -> torch.Tensor:
        """`steps` latent positions of every branch of `group`, all in one batch; the logits after the last."""
        every = torch.arange(len(group), device=self.model.device)
        done, latest = 0, torch.empty(0)

        def advance(hidden: torch.Tensor) -> torch.Tensor:
            nonlocal done, latest
            rows = [_latent_row(branch, done) for branch in group]
            places = torch.tensor(context_positions(rows), device=self.model.device)
            plan = self.model.plan(self.tree.pool, rows, decode=False)
            latest, states = self.model.forward(plan, places, every, embeddings=hidden, hidden=True)
            assert states is not None
            done += 1
            return states

        feed_back(advance, torch.stack([ready.hidden[branch.index] for branch in group]), steps)
        return latest


class _Scratch:
    """Ranges for a while: freed at the end unless kept."""

    def __init__(self, tree: PrefixTree) -> None:
        self.tree = tree
        self.held: list[Range] = []

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.held:
            self.tree.pool.free(each)

    def allocate(self, length: int) -> Range:
        self.held.append(self.tree.allocate(length))
        return self.held[-1]

    def keep(self, held: Range) -> None:
        self.held.remove(held)


def _last_token(leaf: Segment, scratch: _Scratch) -> Span:
    """The last token of a context that is all there, once more: nobody kept its logits."""
    return Span(leaf, leaf.end - 1, leaf.tokens[-1:], scratch.allocate(1), 0)


def _latent_row(branch: Branch, done: int) -> RowSpan:
    assert branch.leaf is not None
    assert branch.held is not None
    return RowSpan(runs(branch.leaf, branch.leaf.end), branch.held.start, done, 1, branch.held.length)


def _recorded(branch: Branch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the recorded run had before it and said, as far as the branch can go."""
    job = branch.job
    context = job.factual_context if job.factual_context is not None else job.tokens
    return tuple(context), tuple((job.factual or ())[: job.max_new_tokens])
