"""Posterior Gumbel noise: under which noise would the model have said what was recorded?

Top-down sampling (Maddison et al., arXiv 1411.0030, section 3; for counterfactuals Oberst and Sontag, arXiv 1905.05824,
section 4; for language models Chatzi et al., arXiv 2409.17027): the score of the observed token is the maximum, which
is Gumbel(logsumexp), and every other score is a Gumbel truncated below it. Written with the exponentials
E = exp(-Gumbel) of the keyed noise this is one line: with p = softmax(scores) and o the observed token,

    noise[o] = -log(E[o]) - log(p[o])        noise[j] = -log(E[j] + p[j] E[o])

so nothing is drawn that the plain noise of the same key does not draw, and a token that the factual run could not say
(p[j] = 0) keeps its plain noise: the record says nothing about it.
"""

from __future__ import annotations

import math

import torch

from .jobs import NoiseKey
from .noise import exponential_noise


def scaled_logits(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits over temperature, float32; the very operation of `choose`, so that both round alike."""
    return logits / torch.tensor(temperature, dtype=torch.float32, device=logits.device)


def posterior_noise(
    logits_row: torch.Tensor, token: int, key: NoiseKey, position: int, temperature: float = 1.0
) -> torch.Tensor:
    """Noise, float32 `[vocabulary]` on the CPU, a pure function of its arguments, under which
    argmax(logits_row / temperature + noise) is `token` exactly, ties included; drawn from the posterior given that.

    Raises ValueError when the factual run could not have said the token.
    """
    scores = scaled_logits(logits_row.detach().float(), temperature).cpu()
    logprobs = torch.log_softmax(scores.double(), dim=-1)
    observed = float(logprobs[token])
    if not math.isfinite(observed):
        raise ValueError(f"token {token} has no finite probability under the factual context: {observed}")
    exponential = exponential_noise(key, position, scores.numel()).double()
    race = exponential[token]
    noise = -torch.log(exponential + torch.exp(logprobs) * race)
    noise[token] = -torch.log(race) - observed
    return _observed_first(noise.float(), scores, token)


def _observed_first(noise: torch.Tensor, scores: torch.Tensor, token: int) -> torch.Tensor:
    """Lower what rounding to float32 has lifted to the observed token's sum or above it, by the least that shows."""
    gap = torch.finfo(torch.float32).eps
    while True:
        sums = scores + noise
        over = sums >= sums[token]
        over[token] = False
        if not bool(over.any()):
            return noise
        noise[over] = sums[token] - gap * max(1.0, abs(float(sums[token]))) - scores[over]
        gap *= 2
