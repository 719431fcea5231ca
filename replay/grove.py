"""Grove: one trajectory on its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..storage.records import Trajectory
from .baseline import Baseline
from .gate import Verdict
from .session import Session
from .tree_search import TreeSearch
from .worlds import Worlds


@dataclass(slots=True)
class Grove:
    """One trajectory on its way through the engine."""

    position: int
    record: Trajectory
    session: Session
    worlds: Worlds
    baseline: Baseline | None = None
    tree: TreeSearch | None = None
    verdict: Verdict = field(default_factory=Verdict)
    stopped: str | None = None
    finished: bool = False
    parked: bool = False
    """Its grant is spent; it waits for the next one."""
    partial: bool = False
    """The run ended before its tree did; the tree was judged as it stands, and the same command goes on with it."""
    best: float | None = None
    """The value of its best finished run when it was last parked."""

    @property
    def reported(self) -> bool:
        """Whether reports and the database tell of it."""
        return self.finished or self.partial

    def improved(self) -> bool:
        """Whether the tree's best finished run became better since this was last asked."""
        tree = self.tree.tree if self.tree else None
        best = tree.best() if tree else None
        value = tree.value[best] if tree and best is not None and not tree.spine[best] else None
        better = value is not None and (self.best is None or value > self.best)
        self.best = value if better else self.best
        return better
