"""What resetting, stepping and copying a world cost here, measured as it happens, and what is cheaper.

A branch at step k needs a world that stands there: a copy of a kept one, or a fresh one in which the prefix is executed
again. A copy pays when t_fork < k * t_step + t_reset. Where copies are dear, few are kept: every m-th state, with
m = sqrt(2 * t_fork / t_step), the interval that minimises copying plus re-execution when each state of a run is needed
about once (Young 1974, "A first order approximation to the optimum checkpoint interval", CACM 17(9), equation 3, with
one need per step in place of one failure per mean time between failures).

What is chosen changes how long a search takes and nothing else: the class of a step follows from the declared
capability, and re-executed steps are compared with what they were.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from .environments.base import environment_class, has_chances
from .forking import declared, snapshot_every

REMEMBERED = 31
"""Durations that count: the last ones, because states grow."""
PROOFS = 3
"""Searched prefixes that were re-executed and found the same before a live world may be given away: what repeats so
often is taken to repeat."""
FREE_SECONDS = 0.0002
"""Copies that take less always pay: there is nothing to gain, and the clock is no judge of it."""


class Durations:
    """Median and mean of the last seconds. Any number of threads may add."""

    def __init__(self) -> None:
        self.count = 0
        self.median: float | None = None
        self.mean: float | None = None
        self._last: list[float] = []
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """One more."""
        with self._lock:
            if self.count < REMEMBERED:
                self._last.append(seconds)
            else:
                self._last[self.count % REMEMBERED] = seconds
            self.count += 1
            if self.count <= REMEMBERED or self.count % REMEMBERED == 0:
                self.median = sorted(self._last)[len(self._last) // 2]
                self.mean = sum(self._last) / len(self._last)


class Costs:
    """Of the worlds of one factory; shared by all trees of a run.

    `step` is of a step that is executed again and compared: a mean, because a prefix is a sum, and its one slow step
    counts. `fork` and `reset` are medians.
    """

    def __init__(self) -> None:
        self.reset, self.step, self.fork = Durations(), Durations(), Durations()
        self.reexecuted_steps = 0
        self._kind: tuple[str, str] | None = None
        self._every: int | None = None
        self._repeats = True
        self._proofs = 0
        self._lock = threading.Lock()

    def see(self, environment: Any) -> None:
        """Learn from a world what its class declares. Raises UsageError for declarations that cannot be."""
        if self._kind is None:
            self._every = snapshot_every(environment)
            self._repeats = not has_chances(environment)
            self._kind = environment_class(environment), declared(environment)

    def fork_pays(self, steps: int) -> bool:
        """Whether a copy of a world that stands after `steps` is cheaper than another one brought there.

        True as long as nobody knows, and for worlds that do not always answer alike: re-execution is no way there.
        """
        fork, reset, step = self.fork.median, self.reset.median, self.step.mean
        if fork is None or reset is None or step is None or fork < FREE_SECONDS or not self._repeats:
            return True
        return fork < steps * step + reset

    @property
    def interval(self) -> int:
        """Steps between kept copies: the class's own `snapshot_every`, else from what was measured; 1 for worlds that
        do not always answer alike."""
        if not self._repeats:
            return 1
        if self._every is not None:
            return self._every
        fork, step = self.fork.median, self.step.mean
        if fork is None or step is None or fork < FREE_SECONDS:
            return 1
        return max(1, round(math.sqrt(2 * fork / max(step, 1e-9))))

    def keeps(self, steps: int) -> bool:
        """Whether a copy of the state after `steps` is worth making, in case it is needed."""
        return steps % self.interval == 0 and self.fork_pays(steps)

    @property
    def proven(self) -> bool:
        """Whether searched steps were re-executed and found the same: a live world can be had again."""
        return self._proofs >= PROOFS

    def reexecuted(self, steps: int, *, searched: bool) -> None:
        """A prefix was executed again and was the same; `searched`: with steps that are not in the record."""
        with self._lock:
            self.reexecuted_steps += steps
            self._proofs += searched

    def not_the_same(self) -> None:
        """A searched prefix was not the same again: from now on every world is copied."""
        self._repeats = False

    def report(self) -> dict[str, Any]:
        """`environment` of `search --json`. Times are in ms, None where nothing was measured."""
        kind, forks = self._kind or (None, None)
        known = {"fork": self.fork.median, "reset": self.reset.median, "step": self.step.mean}
        times = {f"{name}_ms": _ms(seconds) for name, seconds in known.items()}
        kept = self.interval if self.fork.count else None
        counts = {"forked": self.fork.count, "reexecuted_steps": self.reexecuted_steps}
        return {"class": kind, "forks": forks, **times, **counts, "snapshot_every": kept}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds * 1000:.4g}")


def said_of(report: dict[str, Any]) -> str:
    """The report in one line for people."""
    times = [f"{name} {report[f'{name}_ms']:g} ms" for name in ("fork", "reset", "step") if report[f"{name}_ms"]]
    every = report["snapshot_every"] or 1
    kept = f", one kept every {every} steps" if every > 1 else ""
    return (
        f"worlds ({report['class'] or 'unknown'}, forks: {report['forks'] or 'unknown'}): "
        f"{', '.join(times) or 'nothing measured'}; "
        f"{report['forked']} copies{kept}, {report['reexecuted_steps']} steps re-executed"
    )
