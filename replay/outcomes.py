"""One more outcome of a known action, for worlds that do not always answer alike."""

from __future__ import annotations

from typing import Any

from ..storage.canonical import content_id
from ..storage.codec import messages_to_dicts
from ..storage.errors import EnvironmentFailed, boundary
from .answers import Grown, Job
from .drive import finish


async def reseed(environment: Any, seed: int) -> None:
    """Give a world that has `reseed(seed)` other chances than its twin had. Raises EnvironmentFailed."""
    method = getattr(environment, "reseed", None)
    if method is not None:
        with boundary(EnvironmentFailed, f"{type(environment).__name__}.reseed"):
            await finish(method(seed))


def name_outcome(child: Grown, job: Job) -> None:
    """Key one more outcome of a known action: the action's own key when the world did as it did the first time, else
    one that tells what it did, so that equal outcomes are merged."""
    tree, first = job.tree, job.tree.tree.find(job.ask.node, job.ask.action or "")
    known = tree.steps[first] if first is not None else None
    if child.step is None or known is None or first is None:
        return
    seen = messages_to_dicts(child.step.observations)
    same = seen == messages_to_dicts(known.observations) and child.terminal == tree.tree.terminal[first]
    if not same or (child.state_key or "") != (tree.tree.state_key[first] or ""):
        child.key = f"{job.ask.action}\n→ {content_id(seen, child.terminal, child.state_key)[:12]}"
