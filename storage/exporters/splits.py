"""Train and test splits by task: every branch of a task lands in the same split."""

from __future__ import annotations

from collections.abc import Iterable

from ..canonical import content_id


def position(task_id: str, seed: int) -> float:
    """Where a task falls in [0, 1): a hash of the seed and the id, so more tasks never move the old ones."""
    return int(content_id("split", seed, task_id)[:13], 16) / 16**13


def held_out(task_ids: Iterable[str], fraction: float, seed: int) -> frozenset[str]:
    """The tasks of the test split: those whose position is below `fraction` (0 to 1).

    The last one by position stays in train when the hash would leave train empty.
    """
    placed = {task_id: position(task_id, seed) for task_id in task_ids}
    chosen = {task_id for task_id, place in placed.items() if place < fraction}
    if chosen and len(chosen) == len(placed):
        chosen.discard(max(chosen, key=lambda task_id: (placed[task_id], task_id)))
    return frozenset(chosen)
