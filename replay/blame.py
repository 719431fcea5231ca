"""The report of `blame`: for each run the value of every step, the pivotal one, what was better, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..search.blame import Ledger, beliefs, scale
from ..search.omega_prm import spine_path
from ..search.tree import Tree
from ..storage.codec import action_key
from ..storage.records import Score, Trajectory
from .calls import add_usage
from .detectors import detect, step_tool
from .engine import Engine
from .grove import Grove
from .posterior import Posterior, StepEstimate, largest
from .tree_search import TreeSearch

Event = Mapping[str, Any]
ACTION_LENGTH = 300
"""Characters of an action in the report; `tree RUN ID` and the database have all of it."""
STOPPED = {
    "decided": "one step's drop is the largest, with the confidence asked for",
    "undecided": "every state had its rollouts, and no step's drop is credibly the largest",
    "no-drop": "no state was worth more than what came of it",
    "unjudged": "the re-executed record has no verdict",
    "budget": "the budget ended first",
    "won": "the re-executed run succeeds: nothing was lost",
    "error": "the record could not be re-executed, or the policy failed",
}


def blamed(grove: Grove, tells: Sequence[Event], confidence: float, seed: int) -> dict[str, Any]:
    """One trajectory of the report. `tells` are its tell events: they say what each ask cost."""
    row = head(grove.record)
    row["task_id"], row["baseline"] = grove.record.task.id, grove.baseline.judged if grove.baseline else None
    row["stopped"] = stopped(grove)
    search = grove.tree
    if search is None:
        return row
    tree = search.tree
    ledger: Ledger = tree.memory.get("blame") or Ledger()
    found = beliefs(tree)
    if len(found) < 2:
        return row
    posterior = Posterior(found, scale(tree), confidence, seed)
    estimates, path, costs = posterior.steps(), spine_path(tree, tree.start), step_costs(tree, ledger, tells)
    row["steps"] = [_step(search, ledger, path, estimate, costs.get(estimate.index, {})) for estimate in estimates]
    row["scan"] = ledger.scan
    row["rollouts"], row["reused"] = sum(ledger.begun.values()), sum(ledger.reused.values())
    if (window := posterior.window()) is not None:
        row["window"] = [search.root_step + window[0], search.root_step + window[1] - 1]
    row["pivotal"] = _pivotal(search, path, largest(posterior))
    return row


def head(record: Trajectory) -> dict[str, Any]:
    """A trajectory of which nothing but its record is known yet."""
    findings = [
        {"step": finding.step, "kind": finding.kind, "tool": finding.tool, "detail": finding.detail}
        for finding in detect(record)
    ]
    observed = record.outcome.value if record.outcome else None
    return {
        "id": record.id,
        "task_id": record.task.id,
        "observed": observed,
        "baseline": None,
        "steps": [],
        "pivotal": None,
        "window": None,
        "scan": False,
        "rollouts": 0,
        "reused": 0,
        "detectors": findings,
        "stopped": None,
    }


def stopped(grove: Grove) -> str:
    """Why there were no more rollouts: a key of STOPPED."""
    if grove.tree is None:
        return "won" if grove.stopped == "solved" else "error"
    if grove.stopped == "error":
        return "error"
    ledger: Ledger = grove.tree.tree.memory.get("blame") or Ledger()
    return ledger.ended or "budget"


def step_costs(tree: Tree, ledger: Ledger, tells: Sequence[Event]) -> dict[int, dict[str, Any]]:
    """What the rollouts begun at each state cost, by its number along the record."""
    from ..storage.codec import usage_from

    costs: dict[int, dict[str, Any]] = {}
    for event in tells:
        node = ledger.asks.get(event["ask"])
        if node is None:
            continue
        cost = costs.setdefault(tree.depth[node], {"transitions": 0, "calls": 0, "usage": []})
        cost["transitions"] += event["spent"]
        cost["calls"] += event.get("calls", 0)
        if (usage := usage_from(event.get("usage"))) is not None:
            cost["usage"].append(usage)
    return {number: {**cost, "usage": add_usage(cost["usage"])} for number, cost in costs.items()}


def _step(
    search: TreeSearch, ledger: Ledger, path: Sequence[int], estimate: StepEstimate, cost: Mapping[str, Any]
) -> dict[str, Any]:
    usage, index = cost.get("usage"), search.root_step + estimate.index
    tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0) if usage else 0
    return {
        "index": index,
        "value": _number(estimate.before.value),
        "low": _number(estimate.before.low),
        "high": _number(estimate.before.high),
        "rollouts": ledger.count.get(path[estimate.index], 0),
        "drop": _number(estimate.drop.value),
        "drop_low": _number(estimate.drop.low),
        "drop_high": _number(estimate.drop.high),
        "probability_pivotal": _number(estimate.probability),
        "transitions": cost.get("transitions", 0),
        "calls": cost.get("calls", 0),
        "tokens": tokens,
        "cost_usd": (usage.cost_usd or 0.0) if usage else 0.0,
        "tool": step_tool(search.record.steps[index]),
    }


def _pivotal(search: TreeSearch, path: Sequence[int], step: StepEstimate | None) -> dict[str, Any] | None:
    if step is None:
        return None
    index = search.root_step + step.index
    ledger: Ledger = search.tree.memory["blame"]
    instead = best_sibling(search.tree, ledger, path[step.index])
    rollouts = ledger.count[instead] if instead is not None else 0
    return {
        "step": index,
        "probability": _number(step.probability),
        "action": action_text(action_key(search.record.steps[index].action)),
        "instead": action_text(search.tree.key[instead]) if instead is not None else None,
        "instead_value": _number(ledger.total[instead] / rollouts) if instead is not None else None,
        "instead_rollouts": rollouts,
    }


def best_sibling(tree: Tree, ledger: Ledger, node: int) -> int | None:
    """The action that left the record at this state and has the best value, shrunk towards the middle as by one more
    rollout, so that one lucky rollout is not better than nine good ones of ten; None when none left it there."""
    middle = scale(tree).value(0.5)
    tried = [child for child in tree.children(node) if not tree.spine[child] and ledger.count.get(child)]
    return max(
        tried,
        key=lambda child: ((ledger.total[child] + middle) / (ledger.count[child] + 1), -child),
        default=None,
    )


def action_text(key: str) -> str:
    """An action for people: `tool({...})`, or what was said."""
    text = key.removeprefix("call:").removeprefix("say:")
    return text if len(text) <= ACTION_LENGTH else text[: ACTION_LENGTH - 1] + "…"


def step_scores(row: Mapping[str, Any]) -> dict[int, dict[str, Score]]:
    """What the database keeps: by step the score `blame`, whose value is the step's drop; the detail has the rest."""
    pivotal = row["pivotal"]["step"] if row["pivotal"] else None
    kept = ("value", "low", "high", "rollouts", "drop_low", "drop_high", "probability_pivotal", "tool")
    scores = {}
    for step in row["steps"]:
        detail = {**{key: step[key] for key in kept}, "pivotal": step["index"] == pivotal}
        scores[step["index"]] = {"blame": Score(step["drop"], detail=detail)}
    return scores


def report_of(engine: Engine, events: Sequence[Event], confidence: float, seconds: float) -> dict[str, Any]:
    """`blame --json` over the trajectories that are finished or were cut short, without what compares them."""
    tells: dict[int, list[Event]] = {}
    for event in events:
        if event["event"] == "tell":
            tells.setdefault(event["t"], []).append(event)
    rows = [
        blamed(grove, tells.get(grove.position, ()), confidence, engine.settings.seed)
        for grove in engine.groves
        if grove.reported
    ]
    return {"v": 1, "run": engine.run_name, "trajectories": rows, "totals": totals(rows, engine, seconds)}


def totals(rows: Sequence[Mapping[str, Any]], engine: Engine | None, seconds: float) -> dict[str, Any]:
    """What it comes to; without an engine (detectors only) nothing was spent."""
    trees = [grove.tree for grove in engine.groves if grove.reported and grove.tree] if engine else []
    usage = add_usage([item for tree in trees for item in tree.usage])
    return {
        "trajectories": len(rows),
        "pivotal": sum(row["pivotal"] is not None for row in rows),
        "findings": sum(len(row["detectors"]) for row in rows),
        "rollouts": sum(row["rollouts"] for row in rows),
        "reused": sum(row["reused"] for row in rows),
        "transitions": sum(tree.spent for tree in trees),
        "calls": sum(tree.calls for tree in trees),
        "repeated_calls": engine.repeated_calls if engine else 0,
        "tokens": (usage.prompt_tokens or 0) + (usage.completion_tokens or 0),
        "cost_usd": round(usage.cost_usd or 0.0, 9),
        "seconds": round(seconds, 3),
    }


def _number(value: float | None) -> float | None:
    """Four digits: more would be noise of the draws."""
    return None if value is None else round(value, 4) + 0.0
