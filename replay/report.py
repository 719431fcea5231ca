"""The numbers of a run: one row per trajectory, totals, and a paired interval."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..storage.records import Trajectory, Usage
from .calls import add_usage
from .costs import Costs
from .engine import Engine
from .gate import Verdict
from .grove import Grove
from .settings import Settings

ROW_KEYS = (
    "id",
    "branch_step",
    "observed",
    "baseline",
    "best",
    "counterfactual_id",
    "novel",
    "trivial",
    "fidelity",
    "transitions",
    "calls",
    "tokens",
    "cost_usd",
    "stopped",
)
EXTRA_KEYS = ("confirmed",)
"""Keys of a row that are not columns of the archive."""


def row_of(grove: Grove) -> dict[str, Any]:
    """One trajectory of `search --json`, plus `task_id`, `refused` and `notes` for the archive.

    None accepted: best = baseline, gain 0.
    """
    base, tree, verdict = grove.baseline, grove.tree, grove.verdict
    found = verdict.counterfactual
    usage = add_usage(tree.usage) if tree else Usage()
    judged = base.judged if base else None
    if verdict.confirmed is not None:
        judged = verdict.confirmed.baseline
    return {
        "id": grove.record.id,
        "branch_step": found.branch_step if found else None,
        "observed": grove.record.outcome.value if grove.record.outcome else None,
        "baseline": judged,
        "best": verdict.value if found else judged,
        "counterfactual_id": found.id if found else None,
        "novel": verdict.novel,
        "trivial": base.trivial if base else False,
        "fidelity": found.fidelity if found else None,
        "transitions": tree.spent if tree else 0,
        "calls": tree.calls if tree else 0,
        "tokens": (usage.prompt_tokens or 0) + (usage.completion_tokens or 0),
        "cost_usd": usage.cost_usd or 0.0,
        "stopped": grove.stopped or "budget",
        "task_id": grove.record.task.id,
        "refused": verdict.refused,
        "confirmed": _confirmed(verdict),
        "unconfirmed": verdict.unconfirmed,
        "rebound": (base.rebound if base else 0) + (tree.rebound if tree else 0),
        "notes": _notes(grove),
    }


def _confirmed(verdict: Verdict) -> dict[str, Any] | None:
    means = verdict.confirmed
    return None if means is None else {"plays": means.plays, "best": means.found, "baseline": means.baseline}


def _notes(grove: Grove) -> list[str]:
    notes = list(grove.baseline.notes) if grove.baseline else []
    if grove.baseline and grove.baseline.error:
        notes.append(f"{grove.baseline.error_code}: {grove.baseline.error}")
    if grove.verdict.confirmed is not None:
        mean = grove.verdict.confirmed
        notes.append(f"lanes are means over {mean.plays} plays under fresh seeds")
    if grove.tree and grove.tree.failures:
        notes.append(f"{len(grove.tree.failures)} failed asks, the first: {grove.tree.failures[0]}")
    return notes


def totals_of(rows: Sequence[Mapping[str, Any]], repeated_calls: int, seconds: float) -> dict[str, Any]:
    """`totals` of `search --json`: means and counts of improvement over non-trivial trajectories, spend over all."""
    headline = [row for row in rows if not row["trivial"]]
    judged = [row for row in headline if row["baseline"] is not None]
    improved = [row for row in headline if row["counterfactual_id"]]
    return {
        "trajectories": len(rows),
        "improved": len(improved),
        "novel": sum(bool(row["novel"]) for row in improved),
        "trivial": len(rows) - len(headline),
        "transitions": sum(row["transitions"] for row in rows),
        "calls": sum(row["calls"] for row in rows),
        "repeated_calls": repeated_calls,
        "tokens": sum(row["tokens"] for row in rows),
        "cost_usd": round(sum(row["cost_usd"] for row in rows), 9),
        "seconds": round(seconds, 3),
        "rebound": sum(row.get("rebound", 0) for row in rows),
        "mean_observed": _mean(row["observed"] for row in headline),
        "mean_baseline": _mean(row["baseline"] for row in judged),
        "mean_best": _mean(row["best"] for row in judged),
        "gate": {
            "accepted": sum(bool(row["counterfactual_id"]) for row in rows),
            "refused": sum(row["refused"] for row in rows),
        },
    }


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def report_of(engine: Engine, seconds: float) -> dict[str, Any]:
    """`search --json` of design.md section 7, over the trajectories that are finished or were cut short."""
    rows = [row_of(grove) for grove in engine.groves if grove.reported]
    return {
        "v": 1,
        "run": engine.run_name,
        "algorithm": engine.settings.algorithm.name,
        "judge": engine.settings.judge,
        "environment_class": engine.environment_class,
        "stochastic": engine.chances,
        "policy": policy_section(engine.settings, engine.plugins.policy),
        "trajectories": [{key: row[key] for key in (*ROW_KEYS, *EXTRA_KEYS)} for row in rows],
        "totals": totals_of(rows, engine.repeated_calls, seconds),
        "warnings": warnings_of(engine.settings.confirm, rows),
        **world_section(engine.plugins.shared),
        **user_section(engine.settings, engine.plugins.user_policy),
    }


def user_section(settings: Settings, policy: Any) -> dict[str, Any]:
    """`user_policy` of `search --json`, where the user's side is played by one."""
    if policy is None:
        return {}
    name = settings.user_policy.name if settings.user_policy is not None else type(policy).__name__
    method = getattr(policy, "report", None)
    return {"user_policy": {"name": name, **(method() if method is not None else {})}}


def warnings_of(plays: int, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the whole report must know: found runs that may be luck."""
    count = sum(row["unconfirmed"] for row in rows)
    if not count:
        return []
    why = "and has no reseed(seed), so that --confirm has no fresh seeds" if plays else "and --confirm N was not given"
    return [
        f"the world does not always answer alike {why}: {count} found {'run' if count == 1 else 'runs'} may be luck; "
        "exports leave such runs out (--keep-unconfirmed takes them)"
    ]


def policy_section(settings: Settings, policy: Any = None) -> dict[str, Any]:
    """`policy` of `search --json`: its name, and what it says of itself (`report()`)."""
    method = getattr(policy, "report", None)
    return {"name": settings.policy.name, **(method() if method is not None else {})}


def world_section(factory: Any = None) -> dict[str, Any]:
    """`world` of `search --json`, where the factory of worlds says something of itself (`report()`)."""
    method = getattr(factory, "report", None)
    return {"world": method()} if method is not None else {}


def empty_report(settings: Settings, run: str, environment_class: str | None = None) -> dict[str, Any]:
    """The report of a search that selected nothing."""
    head: dict[str, Any] = {"v": 1, "run": run, "algorithm": settings.algorithm.name, "judge": settings.judge}
    head |= {"environment_class": environment_class, "stochastic": None, "policy": policy_section(settings)}
    return {**head, "trajectories": [], "totals": totals_of([], 0, 0.0), "warnings": []}


def with_costs(report: dict[str, Any], costs: Costs) -> dict[str, Any]:
    """The report with `environment`: how its worlds were copied, and what that cost in this session (the same search
    costs otherwise each time, so `report_of` leaves it out)."""
    return {**report, "environment": {**costs.report(), "class": report["environment_class"]}}


def paired_interval(
    rows: Sequence[Mapping[str, Any]], tasks: Mapping[str, str], seed: int = 0, resamples: int = 2000
) -> tuple[float, float] | None:
    """95 % percentile interval of the mean gain (best − baseline), by a cluster bootstrap over tasks.

    Trajectories of one task are resampled together (Efron & Tibshirani 1993, chapter 8: resample the independent unit).
    Trivial tasks and unknown baselines are left out; None with fewer than two tasks.
    """
    gains: dict[str, list[float]] = {}
    for row in rows:
        if not row["trivial"] and row["baseline"] is not None and row["best"] is not None:
            gains.setdefault(tasks.get(row["id"], row["id"]), []).append(row["best"] - row["baseline"])
    clusters = [gains[task] for task in sorted(gains)]
    if len(clusters) < 2:
        return None
    draw = random.Random(seed)
    means = sorted(_resampled(clusters, draw) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]


def _resampled(clusters: Sequence[Sequence[float]], draw: random.Random) -> float:
    chosen = draw.choices(clusters, k=len(clusters))
    return sum(map(sum, chosen)) / sum(map(len, chosen))


def task_of(records: Sequence[Trajectory]) -> dict[str, str]:
    """Task ids by trajectory id."""
    return {record.id: record.task.id for record in records}
