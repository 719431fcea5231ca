"""What unit tests said of the files a run left: `tests-pass` and `tests-share`, from `final_state["tests"]`.

The `shell` environment runs the tests and keeps the counts in its state; rewards run nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..storage.records import Trajectory
from .base import reward


def _counts(trajectory: Trajectory) -> tuple[int, int] | None:
    """(passed, of); None when no tests were run."""
    state = trajectory.final_state
    tests = state.get("tests") if isinstance(state, Mapping) else None
    if not isinstance(tests, Mapping):
        return None
    good, of = tests.get("passed"), tests.get("of")
    return (good, of) if isinstance(good, int) and isinstance(of, int) else None


@reward
def passed(trajectory: Trajectory) -> float | None:
    """1.0 when there were tests and all of them passed at the end of the run, else 0.0; None: none were run."""
    counts = _counts(trajectory)
    return None if counts is None else float(0 < counts[1] == counts[0])


@reward(process=True)
def share(trajectory: Trajectory) -> float | None:
    """The share of tests that pass after the step that is judged; None: none were run."""
    counts = _counts(trajectory)
    return None if counts is None else counts[0] / max(1, counts[1])


passed.name, share.name = "tests-pass", "tests-share"
