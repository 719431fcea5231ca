"""Where a row came from: the sidecar's columns, and what makes two rows the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..canonical import content_id
from ..records import Node, Score
from .base import Candidate
from .token_ids import INTEGERS
from .tree import mean_value


def common(candidate: Candidate) -> dict[str, Any]:
    """What every row of a counterfactual shares: source, run, verdicts, how true it is."""
    record, found, result = candidate.record, candidate.counterfactual, candidate.result
    tools_from = found.source.extra.get("tools_from") if found.source else None
    return {
        "run": candidate.run,
        "task_id": found.task.id,
        "trajectory_id": found.id,
        "parent_id": record.id,
        "branch_step": candidate.branch_step,
        "source_path": record.source.path if record.source else None,
        "source_line": record.source.line if record.source else None,
        "source_model": record.source.model if record.source else None,
        "tools_from": tools_from or "log",
        "fidelity": result["fidelity"],
        "novel": bool(result["novel"]),
        "trivial": bool(result["trivial"]),
        "observed": result.get("observed"),
        "baseline": float(result["baseline"]),
        "best": float(result["best"]),
        "gain": candidate.gain,
        "scores": values(found.scores),
    }


def node_facts(node: Node) -> dict[str, Any]:
    """A node's id, the call that proposed it, and its value V (mean) after N visits."""
    return {
        "node": node.node,
        "call_key": node.call_key,
        "value": mean_value(node),
        "visits": node.visits,
        "fidelity": node.fidelity,
        "recorded": node.spine,
        "imputed": node.imputed,
    }


def values(scores: Mapping[str, Score]) -> dict[str, float | None]:
    """The named verdicts; None where a reward model abstained or failed."""
    return {name: score.value for name, score in sorted(scores.items())}


def dedupe_key(columns: Mapping[str, Any]) -> str:
    """Identity of what a row teaches: its messages and tools, call ids and token ids left out."""
    return content_id(_without_ids({name: value for name, value in columns.items() if name not in INTEGERS}))


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_ids(item) for key, item in value.items() if key != "tool_call_id"}
        if "function" in kept:
            kept.pop("id", None)
        return kept
    return [_without_ids(item) for item in value] if isinstance(value, list) else value
