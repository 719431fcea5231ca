"""The `replay` command's work: re-execute records, compare, re-score; no model is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..storage.errors import DivergedError, MissingExtra, ReplayError
from ..storage.records import Trajectory, lowest_fidelity
from .drive import run_inline
from .session import EnvironmentFactory, Replay, Session

LEVELS = ("exact", "json", "normalised")


def replay_all(
    records: Sequence[Trajectory],
    factory: EnvironmentFactory,
    *,
    tolerant: bool = False,
    known: Mapping[str, Mapping[str, Trajectory]] | None = None,
    drive: Callable[[Any], Replay] = run_inline,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The report of `replay --json` (design.md section 7). `known`: recorded runs by task id, for tape worlds.

    Raises MissingExtra: without its package the world works for no record.
    """
    rows, failed, environment = [], 0, None
    parts: dict[str, list[bool]] = {}
    for index, record in enumerate(records):
        session = Session(record, factory, (known or {}).get(record.task.id, {record.id: record}))
        done = drive(session.replay(tolerant=tolerant))
        environment = environment or session.environment_class
        if isinstance(done.error, MissingExtra):
            raise done.error
        failed += done.error is not None and done.diverged is None and not isinstance(done.error, ReplayError)
        rows.append(row_of(record, done, session))
        for name, agreed in agreement(record, done).items():
            parts.setdefault(name, []).append(agreed)
        if progress is not None:
            progress(index + 1, len(records))
    totals = totals_of(rows, records, failed)
    totals["parts"] = {name: {"compared": len(said), "agreed": sum(said)} for name, said in sorted(parts.items())}
    return {"v": 1, "environment_class": environment, "trajectories": rows, "totals": totals}


def agreement(record: Trajectory, done: Replay) -> dict[str, bool]:
    """Part by part, whether the world's verdict equals the one in the log's outcome; parts known on both sides only."""
    recorded = record.outcome.detail if record.outcome else {}
    return {
        name: float(recorded[name]) == float(value)
        for name, value in done.info.items()
        if isinstance(value, (int, float)) and isinstance(recorded.get(name), (int, float))
    }


def row_of(record: Trajectory, done: Replay, session: Session) -> dict[str, Any]:
    """One record: how many steps matched, the weakest level used, the first difference, the re-executed outcome."""
    levels = [match.level for match in done.matches if match.level is not None]
    first = done.diverged
    divergence = None
    if first is not None:
        divergence = {"step": first.index, "expected": first.expected, "got": first.got}
    elif done.error is not None:
        divergence = {"step": len(done.matches), "expected": None, "got": done.error.line()}
        if isinstance(done.error, DivergedError):
            divergence = {"step": done.error.step, "expected": done.error.expected, "got": done.error.got}
    return {
        "id": record.id,
        "steps": len(record.steps),
        "matched": len(levels),
        "level": max(levels, key=LEVELS.index) if levels else None,
        "fidelity": lowest_fidelity([match.fidelity for match in done.matches]),
        "rules": list(dict.fromkeys(rule for match in done.matches for rule in match.rules)),
        "rebound": done.rebound,
        "first_divergence": divergence,
        "baseline": baseline_value(record, done, session),
        **final_state(record, done, session),
    }


def final_state(record: Trajectory, done: Replay, session: Session) -> dict[str, Any]:
    """The hash of the state at the end, and whether the record ended in the same one; None where that is unknown.

    Paths that the environment says to ignore do not count. A record that did not replay to its end has no such state.
    """
    ended = done.error is None and len(done.steps) == len(record.steps) and (done.diverged is None)
    if not ended or done.final_state is None:
        return {"state_hash": None, "final_state_agrees": None}
    here = session.hash_of(done.final_state)
    recorded = None if record.final_state is None else session.hash_of(record.final_state)
    return {"state_hash": here, "final_state_agrees": None if recorded is None else recorded == here}


def baseline_value(record: Trajectory, done: Replay, session: Session) -> float | None:
    """The environment's own verdict on the re-executed record; None when it gave none or the record diverged."""
    from ..rewards.environment import environment

    if done.error is not None or done.diverged is not None:
        return None
    run = replace(record, prompt=session.prompt, steps=tuple(done.steps), final_state=done.final_state)
    return environment.score([run])[0].value


def totals_of(rows: Sequence[Mapping[str, Any]], records: Sequence[Trajectory], failed: int = 0) -> dict[str, Any]:
    """Sums over rows; `agreed` counts baselines equal to the recorded outcome, of `compared` where both are known.

    `failed` runs, in which the world itself raised, are not among the `diverged` ones.
    """
    observed = {record.id: record.outcome.value if record.outcome else None for record in records}
    both = [row for row in rows if row["baseline"] is not None and observed[row["id"]] is not None]
    levels = [row["level"] for row in rows]
    states = [row["final_state_agrees"] for row in rows if row.get("final_state_agrees") is not None]
    return {
        "trajectories": len(rows),
        "steps": sum(row["steps"] for row in rows),
        "matched": sum(row["matched"] for row in rows),
        "diverged": sum(row["first_divergence"] is not None for row in rows) - failed,
        "failed": failed,
        "levels": {level: levels.count(level) for level in LEVELS},
        "rules": dict(Counter(rule for row in rows for rule in row["rules"])),
        "rebound": sum(row["rebound"] for row in rows),
        "final_states": {"compared": len(states), "agreed": sum(states)},
        "compared": len(both),
        "agreed": sum(row["baseline"] == observed[row["id"]] for row in both),
    }
