"""Which errors mean that memory ran out."""

from __future__ import annotations

import torch

PHRASES = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory")
"""How torch's allocators say it in a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """MemoryError, torch.OutOfMemoryError, or a RuntimeError of an allocator."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in PHRASES)
