"""What the embedded engine is asked and what it answers; plain data, loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "context", "memory", "constraint"]
"""Why a branch ended: an end token; `max_new_tokens`; the model's context is full (a coded reason, never a crash); out
of memory even alone; the constraint allows no token."""


@dataclass(frozen=True, slots=True)
class NoiseKey:
    """What the noise of one branch is a function of, with the position of the token in the step: nothing else is, so
    that a branch says the same alone and in any batch. Siblings differ in `seed`."""

    seed: int
    trajectory: str
    step: int


class Constraint(Protocol):
    """What the next tokens may be; one per branch, it has a state."""

    def allowed(self) -> Any:
        """A bool tensor over the vocabulary, or None where everything is allowed."""
        ...

    def accept(self, token: int) -> None:
        """The token was chosen."""
        ...


@dataclass(slots=True)
class Job:
    """One branch to sample: `tokens` is the whole context.

    `temperature` 0 takes the most likely token. `stop` are end tokens; the one that ends a branch is part of it.
    `factual`: the tokens that a recorded run said here; where they are given, the noise is that under which the model
    with the context `factual_context` would have said them (posterior Gumbel sampling).
    `latent_steps`: last hidden states fed back before the first token. `alternatives`: how many of the most likely
    tokens of each position are kept in `Generated.alternatives`.
    """

    tokens: Sequence[int]
    max_new_tokens: int
    key: NoiseKey
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    factual: Sequence[int] | None = None
    factual_context: Sequence[int] | None = None
    latent_steps: int = 0
    alternatives: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """One sampled branch. `logprobs` are natural logs of the sampling distribution at temperature 1 without truncation,
    the constraint applied. `margins`: how far the best noisy score was ahead of the second, per token; a token whose
    margin is below the engine's tolerance is undecided: another batch might have said the other one.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt: those whose keys and values were there already."""
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    """For each token the most likely ones of its position, best first, with log-probabilities as in `logprobs`."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Of an engine since it began. `unique_tokens` are those of all different contexts, each counted once."""

    prefilled_tokens: int = 0
    decoded_tokens: int = 0
    unique_tokens: int = 0
    cached_tokens: int = 0
    evicted_tokens: int = 0
    largest_batch: int = 0
    halved_batches: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """CPU seconds by part: prefill, decode, mask, noise, sampling (choosing tokens, the noise left out)."""
