"""In which order calls go out: those that share the longest prefix one after another, so that a server's prefix cache
(vLLM, SGLang: blocks or a radix tree; llama.cpp: a few slots) still holds it.

The order of the SGLang paper (arXiv 2312.07104, section 3): depth-first is optimal for a cache as large as the longest
branch; here without knowing what will be asked later. It does not change a tree: answers are committed in ask order.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile

from .answers import Job

Place = tuple[int, tuple[int, ...]]
"""A tree and the path of a node in it."""


def take(ready: deque[Job], count: int, latest: Place | None) -> tuple[list[Job], Place | None]:
    """Remove the next `count` jobs from `ready`; also the place of the last one, for the next call.

    Each is the one that shares most with the one before it: its siblings, then its cousins, then other trees; among
    equals the first in depth-first order, and of one node in ask order.
    """
    jobs = list(ready)
    waiting = [(place_of(job), job.ask.id, index) for index, job in enumerate(jobs)]
    taken: list[Job] = []
    while waiting and len(taken) < count:
        near = [shared(latest, place) for place, _, _ in waiting]
        _, chosen = min((-common, item) for common, item in zip(near, waiting, strict=True))
        waiting.remove(chosen)
        taken.append(jobs[chosen[2]])
        latest = chosen[0]
    ready.clear()
    ready.extend(jobs[index] for _, _, index in waiting)
    return taken, latest


def place_of(job: Job) -> Place:
    """Where the job asks."""
    return job.tree.position, tuple(job.path)


def shared(first: Place | None, second: Place) -> int:
    """How many nodes two places share from the root on; 0 for other trees."""
    if first is None or first[0] != second[0]:
        return 0
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first[1], second[1], strict=False)))
