"""Next tokens from logits: mask, temperature, truncation, keyed Gumbel noise, argmax.

The argmax of logits / temperature + Gumbel noise is a sample of their softmax (Gumbel-max: Maddison et al.,
arXiv 1411.0030, section 2); with the noise keyed (`noise.py`) it depends on nothing but the row's own logits and key.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .jobs import Job
from .noise import gumbel_noise
from .posterior import posterior_noise
from .truncation import Cut, cut_of, kept_tokens

FORCED_MARGIN = 1e9
"""The margin of a token that had no competitor: finite, so that it survives JSON."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the logits: the branch, the number of tokens it has said in this step, and what may come next.

    `allowed`: bool tensor over the vocabulary, None where everything is. `factual`: the logits, `[vocabulary]`, under
    `job.factual_context` and the factual tokens before `position`; needed while `position < len(job.factual)` (masked
    with -inf by the caller where the factual run was under a constraint). Without noise, at temperature 0, it is not.
    """

    job: Job
    position: int
    allowed: torch.Tensor | None = None
    factual: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """One entry per row, as in `Generated`: token, natural log of its probability, lead over the second best score.

    `alternatives`: for each row as many of its most likely tokens as its job keeps, with their log-probabilities.
    `noise_seconds`: CPU seconds of the process that the noise took, of all rows together.
    """

    tokens: list[int]
    logprobs: list[float]
    margins: list[float]
    alternatives: list[tuple[tuple[int, float], ...]]
    noise_seconds: float = 0.0


def choose(logits: torch.Tensor, rows: Sequence[Row]) -> Chosen:
    """The next token of every row of `logits`, float32 `[rows, vocabulary]`, on any device; `logits` stays as it is.

    Of equal scores the smaller token id wins, with margin 0. Where a small change of the logits would move the cut of
    top-k or top-p so that another token wins, the margin is at most that change. At temperature 0 the margin is that
    of the logits. Raises ValueError for a row whose mask allows nothing (the caller ends that branch), for logits that
    are no numbers, and for a row within the factual text that comes without its factual logits.
    """
    constrained = _constrained(logits, rows)
    totals = torch.logsumexp(constrained, dim=1)
    if not bool(torch.isfinite(totals).all()):
        raise ValueError(_what_is_wrong(constrained))
    scores = _scores(constrained, rows)
    began = time.process_time()
    noise = _noise(rows, logits)
    noise_seconds = time.process_time() - began
    noisy = noise.add_(scores)
    cuts = [_truncate(noisy[index], scores[index], row.job) for index, row in enumerate(rows)]
    best, second, tokens = _best_two(noisy)
    margins = (best - second).clamp_(max=FORCED_MARGIN).tolist()
    said = tokens.tolist()
    for index, cut in enumerate(cuts):
        if cut is not None and cut.matters(float(scores[index, said[index]]), float(best[index])):
            margins[index] = min(margins[index], cut.slack)
    logprobs = (constrained.gather(1, tokens[:, None])[:, 0] - totals).tolist()
    alternatives = [_likeliest(constrained[at], totals[at], row.job) for at, row in enumerate(rows)]
    return Chosen(said, logprobs, margins, alternatives, noise_seconds)


def _likeliest(scores: torch.Tensor, total: torch.Tensor, job: Job) -> tuple[tuple[int, float], ...]:
    """The most likely tokens of one row, best first, those that its mask forbids left out."""
    if not job.alternatives:
        return ()
    found = torch.topk(scores, min(job.alternatives, scores.numel()))
    pairs = zip(found.indices.tolist(), (found.values - total).tolist(), strict=True)
    return tuple((token, logprob) for token, logprob in pairs if logprob > -math.inf)


def _constrained(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """The logits with -inf where a row's mask says no; the logits themselves when no row has a mask."""
    masked = [index for index, row in enumerate(rows) if row.allowed is not None]
    if not masked:
        return logits
    constrained = logits.clone()
    for index in masked:
        allowed = rows[index].allowed
        assert allowed is not None
        constrained[index].masked_fill_(~allowed.to(logits.device), -math.inf)
    return constrained


def _scores(constrained: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Logits over temperature; temperature 0 has no noise, so any scale gives the same token: 1 keeps the margin that
    of the logits."""
    values = [row.job.temperature or 1.0 for row in rows]
    if all(value == 1.0 for value in values):
        return constrained
    return constrained / torch.tensor(values, dtype=torch.float32, device=constrained.device)[:, None]


def _truncate(noisy: torch.Tensor, scores: torch.Tensor, job: Job) -> Cut | None:
    """Take from `noisy`, in place, what top-k and top-p leave out; None where they leave out nothing."""
    if job.temperature == 0 or (job.top_k == 0 and job.top_p >= 1.0):
        return None
    cut = cut_of(scores, noisy, job.top_k, job.top_p)
    noisy.masked_fill_(~kept_tokens(scores, cut), -math.inf)
    return cut


def _noise(rows: Sequence[Row], logits: torch.Tensor) -> torch.Tensor:
    """`[rows, vocabulary]` on the logits' device; zeros for rows that noise cannot change."""
    noise = torch.zeros(logits.shape, dtype=torch.float32)
    for index, row in enumerate(rows):
        if row.job.temperature > 0 and not _is_forced(row):
            noise[index] = _row_noise(row, logits.shape[1])
    return noise.to(logits.device)


def _is_forced(row: Row) -> bool:
    return row.allowed is not None and int(row.allowed.count_nonzero()) == 1


def _row_noise(row: Row, size: int) -> torch.Tensor:
    job = row.job
    if job.factual is None or row.position >= len(job.factual):
        return gumbel_noise(job.key, row.position, size)
    if row.factual is None:
        raise ValueError(f"position {row.position} is within the factual text, but its factual logits are missing")
    return posterior_noise(row.factual, job.factual[row.position], job.key, row.position, job.temperature)


def _best_two(noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best and the second best of every row, and the token of the best (`argmax` takes the first of ties); uses
    `noisy` up: at a vocabulary's size another copy costs more than the search."""
    tokens = noisy.argmax(dim=1)
    best = noisy.gather(1, tokens[:, None])
    noisy.scatter_(1, tokens[:, None], -math.inf)
    return best[:, 0], noisy.amax(dim=1), tokens


def _what_is_wrong(constrained: torch.Tensor) -> str:
    empty = (constrained == -math.inf).all(dim=1).nonzero().flatten().tolist()
    return f"no token is allowed in rows {empty}" if empty else "the model's logits are not numbers"
