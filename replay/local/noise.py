"""Gumbel noise that is a pure function of seed, trajectory, step, position and token: counter-based, without state.

Philox 4x64-10 (Salmon et al., SC 2011, doi:10.1145/2063384.2063405) gives the random words. Only `random_raw` of
NumPy's bit generator is used: raw words stay the same over NumPy versions, the distribution methods need not.
The noise is made on the CPU whatever the model runs on, so that no device has noise of its own.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from .jobs import NoiseKey

VERSION = b"ttc-gumbel-1"
"""Part of every key; another scheme gets another version, so that old records are never read with new noise."""
LARGEST_UNIFORM = 1.0 - 2.0**-24


def random_words(key: NoiseKey, position: int, count: int) -> Any:
    """`count` independent uniform 32-bit words, a uint32 array; word i belongs to token i, whatever `count` is."""
    # The numbers come first and without separators inside, so that no two keys have the same text.
    text = f"{key.seed} {key.step} {position} {key.trajectory}"
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=VERSION).digest()
    generator = np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64), counter=0)
    words = np.asarray(generator.random_raw((count + 1) // 2)).astype("<u8", copy=False)
    return words.view("<u4")[:count]


def exponential_of(words: Any) -> torch.Tensor:
    """Standard exponentials, float32, in (1e-10, 16.7), from uniform 32-bit words.

    -log(1 - u) with u = (word + 0.5) / 2^32: small values, which become the largest Gumbels and decide, keep the whole
    precision of float32; -log(u) would leave the winners of a large vocabulary a few hundred different values.
    """
    uniform = torch.from_numpy(words.astype(np.float32))
    uniform.add_(0.5).mul_(2.0**-32).clamp_(max=LARGEST_UNIFORM)
    return uniform.neg_().log1p_().neg_()


def exponential_noise(key: NoiseKey, position: int, size: int) -> torch.Tensor:
    """Standard exponential noise, float32 `[size]`: exp(-Gumbel noise) of the same key."""
    return exponential_of(random_words(key, position, size))


def gumbel_noise(key: NoiseKey, position: int, size: int) -> torch.Tensor:
    """Standard Gumbel noise of the token at `position` of the step of `key`, float32 `[size]` over the vocabulary."""
    return exponential_noise(key, position, size).log_().neg_()
