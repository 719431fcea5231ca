"""The embedded engine: samples branches of many trees in one batch over one prefix tree of keys and values."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ...storage.errors import UsageError
from .branches import Branch, DecodeBatch, leave
from .contexts import Contexts
from .forward import Layout, TreeModel
from .jobs import Counters, Generated, Job
from .loading import context_length_of
from .memory import is_out_of_memory
from .pool import KVPool
from .prefill import SMALLEST_CHUNK, Prefiller
from .prefix_tree import PrefixTree
from .sampling import Row, choose

CACHE_BYTES = 2 << 30
MAX_BATCH = 32
SMALLEST_CACHE_TOKENS = 32


class Decoder:
    """Generates and scores with one model of transformers, whose attention it replaces for good.

    `context_length`: tokens of prompt and answer together; a branch that reaches it ends with "context". `max_batch`:
    branches per decode step. `cache_bytes`: what keys and values may take; `attention` auto is "pooled" on CUDA, else
    "segments". `check_memory` is called with the number of tokens of each forward and may raise MemoryError: a limit of
    one's own. One call at a time: others wait. Raises UsageError for models that the engine cannot run exactly.
    """

    def __init__(
        self, model: Any, *, context_length: int | None = None, max_batch: int = MAX_BATCH,
        cache_bytes: int = CACHE_BYTES, attention: str = "auto", check_memory: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        longest: int | None = context_length or context_length_of(model.config)
        if longest is None:
            raise UsageError("the model does not say how long a context may be", hint="--policy-opt context_length=N")
        if max_batch < 1 or cache_bytes < 1:
            raise UsageError(f"max_batch {max_batch} and cache_bytes {cache_bytes} must be at least 1")
        self.context_length = longest
        self.max_batch = max_batch
        self.model = TreeModel(model, longest, _layout(attention, model.device), check_memory)
        self.pool = KVPool(self.model.shape(), cache_bytes)
        if self.pool.limit < SMALLEST_CACHE_TOKENS:
            raise UsageError(f"cache_bytes {cache_bytes} hold keys and values of {self.pool.limit} tokens only")
        self.tree = PrefixTree(self.pool)
        self._prefiller = Prefiller(self.model, self.tree)
        self._contexts = Contexts(self.model, self.tree, self._prefiller)
        self._batch = DecodeBatch(self.model, self.tree)
        self._lock = threading.Lock()
        self._width = max_batch
        self._emptied = False
        self._decoded = self._cached = self._halved = 0
        self._seconds: dict[str, float] = {"prefill": 0.0, "decode": 0.0, "mask": 0.0, "noise": 0.0, "sampling": 0.0}
        self.model.verify(self.pool)

    def counters(self) -> Counters:
        """What was done since the beginning."""
        return Counters(
            prefilled_tokens=self._prefiller.tokens,
            decoded_tokens=self._decoded,
            unique_tokens=self.tree.unique_tokens,
            cached_tokens=self._cached,
            evicted_tokens=self.tree.evicted_tokens,
            largest_batch=self._batch.largest,
            halved_batches=self._halved,
            seconds=dict(self._seconds),
        )

    def generate(self, jobs: Sequence[Job]) -> list[Generated]:
        """Sample all `jobs`, in their order. Raises UsageError for a job that is none: no tokens, or unknown ones."""
        for job in jobs:
            self._check(job.tokens)
            self._check(job.factual_context or job.tokens)
        branches = [Branch(index, job) for index, job in enumerate(jobs)]
        with self._lock, torch.inference_mode(), self._tidy(branches):
            queue = deque(sorted(branches, key=_depth_first))
            while queue or self._batch.branches:
                admitted: list[Branch] = []
                try:
                    self._admit(queue, admitted)
                    if self._batch.branches:
                        self._step()
                    self._emptied = False
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._back_off(queue, admitted)
        return [branch.answer() for branch in branches]

    def score(self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
        """Natural log-probabilities at temperature 1 of the tokens of each continuation after its context.

        An answer is shorter than its continuation where the model's context ends. Raises UsageError for empty contexts
        and unknown tokens, MemoryError where one pair alone does not fit.
        """
        pairs = [(list(before), list(after)) for before, after in zip(contexts, continuations, strict=True)]
        for before, after in pairs:
            self._check(before)
            self._check([*before, *after])
        found: dict[int, list[float]] = {}
        with self._lock, torch.inference_mode(), self._tidy([]):
            waiting = sorted(range(len(pairs)), key=lambda index: pairs[index])
            while waiting:
                taken = waiting[: self._width]
                try:
                    found.update(self._score(taken, pairs))
                    waiting = waiting[len(taken) :]
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    if not self._relieve():
                        raise MemoryError("not enough memory to score one continuation alone") from error
        return [found[index] for index in range(len(pairs))]

    def _score(self, taken: Sequence[int], pairs: Sequence[tuple[list[int], list[int]]]) -> dict[int, list[float]]:
        fitting = [(pairs[i][0], pairs[i][1][: max(0, self.context_length - len(pairs[i][0]))]) for i in taken]
        found: list[list[float]] = [[] for _ in taken]

        def note(index: int, logits: torch.Tensor) -> None:
            known = len(found[index])
            tokens = fitting[index][1][known : known + len(logits)]
            chosen = torch.tensor(tokens, device=logits.device)[:, None]
            found[index].extend((logits.gather(1, chosen)[:, 0] - logits.logsumexp(dim=1)).tolist())

        with self._timed("prefill"):
            self._contexts.forced(fitting, note)
        return dict(zip(taken, found, strict=True))

    def _admit(self, queue: deque[Branch], admitted: list[Branch]) -> None:
        """Prefill as many branches as there is room for in the batch, and let them join it."""
        free = self._width - len(self._batch.branches)
        while queue and len(admitted) < free:
            branch = queue.popleft()
            if not self._ends_early(branch):
                admitted.append(branch)
        if not admitted:
            return
        self._batch.ranges_moved()
        with self._timed("prefill"):
            self._contexts.factual(admitted)
            ready = self._contexts.prompts(admitted)
        for branch in admitted:
            if branch.cached_tokens is None:
                branch.cached_tokens = ready.cached[branch.index]
                self._cached += branch.cached_tokens
        self._sample([branch for branch in admitted if branch.index in ready.logits], ready.logits)
        for branch in admitted:
            if branch.finish_reason:
                leave(branch, self.tree)
        self._batch.add([branch for branch in admitted if not branch.finish_reason])
        admitted.clear()

    def _step(self) -> None:
        with self._timed("decode"):
            logits = self._batch.step()
        said = [branch for branch in self._batch.branches if branch.fed == len(branch.said)]
        places = {branch.index: place for place, branch in enumerate(self._batch.branches)}
        self._sample(said, {branch.index: logits[places[branch.index]] for branch in said})
        ended = [branch for branch in said if branch.finish_reason]
        if ended:
            self._batch.remove(ended)

    def _sample(self, branches: Sequence[Branch], logits: dict[int, torch.Tensor]) -> None:
        """The next token of each branch; branches that end get their reason."""
        rows: list[tuple[Branch, Row]] = []
        with self._timed("mask"):
            for branch in branches:
                allowed = branch.job.constraint.allowed() if branch.job.constraint else None
                if allowed is not None and not bool(allowed.any()):
                    branch.finish_reason = "constraint"
                else:
                    rows.append((branch, self._row(branch, allowed)))
        if not rows:
            return
        with self._timed("sampling"):
            stacked = torch.stack([logits[branch.index] for branch, _ in rows])
            chosen = choose(stacked, [row for _, row in rows])
        self._seconds["noise"] += chosen.noise_seconds
        self._seconds["sampling"] -= chosen.noise_seconds
        self._decoded += len(rows)
        with self._timed("mask"):
            for place, (branch, _) in enumerate(rows):
                branch.said.append(chosen.tokens[place])
                branch.logprobs.append(chosen.logprobs[place])
                branch.margins.append(chosen.margins[place])
                if branch.job.alternatives:
                    branch.alternatives.append(chosen.alternatives[place])
                if branch.job.constraint:
                    branch.job.constraint.accept(chosen.tokens[place])
                self._ended(branch)

    def _row(self, branch: Branch, allowed: Any) -> Row:
        position, factual = len(branch.said), branch.factual
        known = factual[position] if factual is not None and position < len(factual) else None
        return Row(branch.job, position, allowed, known)

    def _ended(self, branch: Branch) -> None:
        job, said = branch.job, branch.said
        if said[-1] in job.stop:
            branch.finish_reason = "stop"
        elif len(said) >= job.max_new_tokens:
            branch.finish_reason = "length"
        elif len(job.tokens) + job.latent_steps + len(said) >= self.context_length:
            branch.finish_reason = "context"

    def _ends_early(self, branch: Branch) -> bool:
        """Nothing can be said at all."""
        job = branch.job
        recorded = [*(job.factual_context or job.tokens), *(job.factual or ())]
        if job.max_new_tokens < 1:
            branch.finish_reason = "length"
        elif len(job.tokens) + job.latent_steps >= self.context_length or len(recorded) > self.context_length:
            branch.finish_reason = "context"
        return branch.finish_reason is not None

    def _back_off(self, queue: deque[Branch], admitted: Sequence[Branch]) -> None:
        """Out of memory: all branches wait again (what they said so far stays in the tree) and fewer go on; the first
        one ends where it cannot run alone."""
        running = [*self._batch.branches, *admitted]
        self._batch.remove(list(self._batch.branches))
        for branch in admitted:
            leave(branch, self.tree)
        queue.extendleft(sorted(running, key=_depth_first, reverse=True))
        if not self._relieve():
            queue.popleft().finish_reason = "memory"
            self._emptied = False

    def _relieve(self) -> bool:
        """Need less memory: half the batch and half the chunk, then an empty cache; False when all that was done."""
        if self._width > 1 or self._prefiller.chunk > SMALLEST_CHUNK:
            self._width = max(1, self._width // 2)
            self._prefiller.chunk = max(SMALLEST_CHUNK, self._prefiller.chunk // 2)
            self._halved += 1
            return True
        if self._emptied:
            return False
        self.tree.evict()
        self.pool.release()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._emptied = True
        return True

    @contextmanager
    def _tidy(self, branches: Sequence[Branch]) -> Iterator[None]:
        """A call begins with the whole batch, and leaves nothing pinned, whatever happens."""
        self._width, self._emptied = self.max_batch, False
        self._prefiller.chunk = self._prefiller.largest_chunk
        try:
            yield
        finally:
            self._batch.remove(list(self._batch.branches))
            for branch in branches:
                leave(branch, self.tree)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self._seconds[part] += time.process_time() - began

    def _check(self, tokens: Sequence[int]) -> None:
        if not len(tokens):
            raise UsageError("a context without tokens")
        if min(tokens) < 0 or max(tokens) >= self.model.vocabulary_size:
            raise UsageError(f"a context has tokens outside the model's vocabulary of {self.model.vocabulary_size}")


def _layout(attention: str, device: torch.device) -> Layout:
    if attention == "auto":
        return "pooled" if device.type == "cuda" else "segments"
    if attention == "pooled":
        return "pooled"
    if attention == "segments":
        return "segments"
    raise UsageError(f"attention {attention!r} is not one of auto, segments, pooled")


def _depth_first(branch: Branch) -> tuple[list[int], int]:
    """Contexts that share a prefix stand side by side, so that they are in one batch."""
    return list(branch.job.tokens), branch.index
