"""The four verdicts on a starter task; `verifiers.py` asks here when the task is one.

All read only the final state and the task. The gold is exact, line by line.
"""

from __future__ import annotations

from typing import Any

from ttc_replay import Score, Trajectory
from ttc_replay.examples.bookkeeping.starter import identity_failures
from ttc_replay.examples.bookkeeping.starter_scenarios import Posting, StarterWorld, starter_world_of


def identity(trajectory: Trajectory) -> Score | None:
    """1.0 when every line is posted once and with its side: what the bank could check."""
    if (read := _read(trajectory)) is None:
        return None
    world, posted, _ = read
    failed = identity_failures(world, posted)
    return Score(0.0 if failed else 1.0, detail={"failed": failed})


def policy(trajectory: Trajectory) -> Score | None:
    """Share of the stated rules that the postings keep, in [0, 1]: side and VAT of every line. No account is read."""
    if (read := _read(trajectory)) is None:
        return None
    world, posted, _ = read
    failed: dict[str, list[str]] = {}
    for number, line in enumerate(world.lines):
        got = posted[number] if number < len(posted) else None
        checks = {
            "side": got is not None and got.side == line.side,
            "vat_code": got is not None and got.vat == line.vat,
        }
        if wrong := [name for name, passed in checks.items() if not passed]:
            failed[_name(number)] = wrong
    broken = sum(map(len, failed.values()))
    return Score(1 - broken / (2 * len(world.lines)), detail={"failed": failed})


def progress(trajectory: Trajectory) -> Score | None:
    """Share of right lines among those posted, in [0, 1]; 0.0 while nothing is posted. Exact: it reads the gold."""
    if (read := _read(trajectory)) is None:
        return None
    world, posted, _ = read
    right = sum(got == line.right for got, line in zip(posted, world.lines, strict=False))
    return Score(right / len(posted) if posted else 0.0, detail={"right": right, "posted": len(posted)})


def gold(trajectory: Trajectory) -> Score | None:
    """1.0 when every line is posted as the auditor does; `detail["wrong"]` names the other lines."""
    if (read := _read(trajectory)) is None:
        return None
    world, posted, closed = read
    wrong = [
        _name(number)
        for number, line in enumerate(world.lines)
        if number >= len(posted) or posted[number] != line.right
    ]
    return Score(1.0 if closed and not wrong else 0.0, detail={"wrong": wrong, "closed": closed})


def _name(number: int) -> str:
    return f"L{number + 1:02d}"


def _read(trajectory: Trajectory) -> tuple[StarterWorld, list[Posting], bool] | None:
    state: Any = trajectory.final_state
    if state is None:
        return None
    return starter_world_of(trajectory.task), [Posting(**item) for item in state["posted"]], bool(state["closed"])
