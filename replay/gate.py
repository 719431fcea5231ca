"""The gate: when a tree has ended, its best finished leaves are judged; the first that passes is the counterfactual.

Verdicts never flow back into the search. A counterfactual is novel unless its sequence of environment calls equals that
of a recorded run of the same task (design.md section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..storage.canonical import content_id
from ..storage.codec import action_key, message_to_dict, score_from, score_to_dict
from ..storage.records import Outcome, Score, Source, Step, Trajectory
from .baseline import Baseline, Judge
from .confirm import Confirmed, Confirmer
from .tree_search import TreeSearch


@dataclass(slots=True)
class Verdict:
    """What the gate decided about one tree. `node` None: nothing passed."""

    node: int | None = None
    value: float | None = None
    counterfactual: Trajectory | None = None
    novel: bool = False
    refused: int = 0
    confirmed: Confirmed | None = None
    """What the counterfactual and the record are worth under fresh seeds, where that was asked for."""
    unconfirmed: bool = False
    """The world does not always answer alike, and nobody has played the counterfactual under fresh seeds."""


def environment_calls(steps: Iterable[Step]) -> tuple[str, ...]:
    """The sequence of environment calls of a run: what it did, without what it said."""
    return tuple(action_key(step.action) for step in steps if step.action.tool_calls)


async def judge_tree(
    tree: TreeSearch,
    base: Baseline,
    judge: Judge,
    *,
    run: str,
    judge_name: str,
    candidates: int,
    success_at: float,
    recorded: Sequence[Trajectory],
    earlier: Mapping[int, Mapping[str, Any]],
    confirmer: Confirmer | None,
    emit: Any,
    chances: bool = False,
) -> Verdict:
    """Judge at most `candidates` leaves in the guide's order. Emits one `gate` event per leaf.

    `earlier` holds the gate events of an earlier session by node: a leaf is not judged twice. With a `confirmer` a leaf
    that passes must also be better than the record under fresh seeds, and their means are the lanes. `chances`: the
    world does not always answer alike, so that what was not confirmed is marked.
    """
    verdict = Verdict()
    known = {environment_calls(record.steps) for record in recorded}
    for order, node in enumerate(tree.leaves()[:candidates]):
        found = counterfactual(tree, node, run)
        value, scores = _recalled(earlier[node]) if node in earlier else judge.lane(found)
        passed = _passes(value, base.judged, success_at, strict=judge.accept is not None)
        confirmed = None
        if passed and confirmer is not None:
            before = earlier.get(node, {})
            confirmed = _known_plays(before) if "confirmed" in before else await confirmer.check(found)
            passed = confirmed is None or confirmed.better
        emit(_event(tree.position, node, value, scores, passed=passed, first=order == 0, confirmed=confirmed))
        if not passed:
            verdict.refused += 1
            continue
        guide = {**tree.scores.get(node, {})}
        verdict.node, verdict.value, verdict.confirmed = node, value, confirmed
        verdict.unconfirmed = chances and confirmed is None
        if confirmed is not None:
            value = verdict.value = confirmed.found
        verdict.counterfactual = _finished(found, value, judge_name, {**guide, **scores})
        verdict.novel = environment_calls(found.steps) not in known
        break
    return verdict


def _event(
    position: int,
    node: int,
    value: float | None,
    scores: Mapping[str, Score],
    *,
    passed: bool,
    first: bool,
    confirmed: Confirmed | None,
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event": "gate",
        "t": position,
        "node": node,
        "value": value,
        "passed": passed,
        "scores": {name: score_to_dict(score) for name, score in scores.items()},
        "first": first,
    }
    if confirmed is not None:
        event["confirmed"] = [confirmed.found, confirmed.baseline, confirmed.plays]
    return event


def _known_plays(event: Mapping[str, Any]) -> Confirmed:
    found, baseline, plays = event["confirmed"]
    return Confirmed(found, baseline, plays)


def _recalled(event: Mapping[str, Any]) -> tuple[float | None, Mapping[str, Score]]:
    return event["value"], {name: score_from(score) for name, score in event["scores"].items()}


def _passes(value: float | None, baseline: float | None, success_at: float, *, strict: bool) -> bool:
    """With `--accept`: at least `--success-at`. Without: better than the baseline (or that, if it is unknown)."""
    if value is None or (baseline is not None and value <= baseline):
        return False
    return value >= success_at if strict or baseline is None else True


def counterfactual(tree: TreeSearch, node: int, run: str) -> Trajectory:
    """The path to a leaf as a trajectory of its own, gold included (for the judge and the archive only)."""
    record, steps = tree.record, tuple(tree.prefix(node))
    steps = tuple(replace(step, index=index) for index, step in enumerate(steps))
    actions = [message_to_dict(step.action) for step in steps]
    where = record.source or Source(format="unknown")
    tools_from = "log" if record.tools is not None else "environment"
    return replace(
        record,
        id=content_id("counterfactual", run, record.id, actions),
        tools=tree.tools,
        prompt=tree.prompt,
        steps=steps,
        outcome=None,
        scores={},
        final_state=tree.finals.get(node),
        truncated=tree.truncated[node],
        parent_id=record.id,
        branch_step=tree.branch_step(node),
        run=run,
        fidelity=tree.fidelity(node),
        source=replace(where, counts={}, raw=None, extra={"tools_from": tools_from, "node": node}),
    )


def _finished(found: Trajectory, value: float | None, judge: str, scores: dict[str, Score]) -> Trajectory:
    return replace(found, outcome=Outcome(value, judge), scores=scores)
