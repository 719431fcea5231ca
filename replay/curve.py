"""The curve of one searched trajectory: what the run would have reported, had it stopped at a smaller spend.

The journal says what each ask cost and which nodes it told; the tree says which of them are finished leaves, in the
guide's order. At a cut the gate is played again over the leaves told by then, with the verdicts that are on record. A
leaf that the gate never looked at has no verdict, and then the value at that cut is unknown: never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

TOLERANCE = 1e-9
"""Relative: sums of USD in another order are the same spend."""
UNITS = {"transitions": "transitions", "calls": "calls", "tokens": "tokens", "usd": "cost_usd"}
"""Names of `--spend`, and the fields they mean."""

Verdict = tuple[float | None, bool]
"""What the judge said of a leaf, and whether it passed."""


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent; fields are named as in `search --json`. Calls that the cache answered count: they are part of
    the method's price, whoever paid first."""

    transitions: int = 0
    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0

    def of(self, unit: str) -> float:
        """The amount in a unit of `--spend`."""
        amount: float = getattr(self, UNITS[unit])
        return amount

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            self.transitions + other.transitions,
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.cost_usd + other.cost_usd,
        )

    @staticmethod
    def of_row(row: Mapping[str, Any]) -> Spend:
        """The spend of a result; a usage that nobody knows is stored as 0."""
        return Spend(row["transitions"], row["calls"], row["tokens"], row["cost_usd"])

    @staticmethod
    def of_tell(event: Mapping[str, Any]) -> Spend:
        """The spend of one ask."""
        usage = event.get("usage") or {}
        tokens = (usage.get("prompt_tokens") or 0) + (usage.get("completion_tokens") or 0)
        return Spend(event["spent"], event.get("calls", 0), tokens, usage.get("cost_usd") or 0.0)


@dataclass(frozen=True, slots=True)
class Told:
    """What the journal keeps of one trajectory: per ask the nodes and the spend up to and with it, and the verdicts.

    `gated`: the leaves that the last gate looked at, in its order. `baselines`: the judge's verdict on the record, once
    it is known; where plays confirmed a find, the report has the mean of the record's plays in its place.
    """

    marks: list[tuple[Spend, Sequence[int]]] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    gated: list[int] = field(default_factory=list)
    baselines: list[float] = field(default_factory=list)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take a `baseline`, `tell` or `gate` event, in the journal's order. With `--confirm` the mean of the
        confirming plays is the leaf's value."""
        if event["event"] == "baseline":
            if event["judged"] is not None:
                self.baselines.append(event["judged"])
            return
        if event["event"] == "tell":
            before = self.marks[-1][0] if self.marks else Spend()
            self.marks.append((before + Spend.of_tell(event), event["nodes"]))
            return
        if event.get("first"):
            self.gated.clear()
        self.gated.append(event["node"])
        value = event["confirmed"][0] if event.get("confirmed") else event["value"]
        self.verdicts[event["node"]] = (value, event["passed"])


def told_by_trajectory(events: Sequence[Mapping[str, Any]]) -> dict[str, Told]:
    """What a journal keeps of each of its trajectories."""
    names = events[0]["trajectories"] if events else []
    told = {name: Told() for name in names}
    for event in events:
        if event["event"] in ("baseline", "tell", "gate"):
            told[names[event["t"]]].take(event)
    return told


@dataclass(frozen=True, slots=True)
class Curve:
    """Best by the judge against spend. `leaves`: finished leaves in the guide's order; `baseline` holds until one of
    them passes. `leaves` None: the order in which the gate looked at them is not known."""

    told: Told
    leaves: Sequence[int] | None
    candidates: int
    baseline: float

    def at(self, unit: str, most: float) -> tuple[Spend, float | None]:
        """Spend within `most`, and the value there; None when a verdict that is needed was never given."""
        spend, nodes = self._within(unit, most * (1 + TOLERANCE))
        if self.leaves is None:
            return spend, None
        for leaf in [node for node in self.leaves if node in nodes][: self.candidates]:
            if leaf not in self.told.verdicts:
                return spend, None
            value, passed = self.told.verdicts[leaf]
            if passed:
                return spend, value
        return spend, self.baseline

    def _within(self, unit: str, most: float) -> tuple[Spend, set[int]]:
        spend, nodes = Spend(), set[int]()
        for total, fresh in self.told.marks:
            if total.of(unit) > most:
                break
            spend = total
            nodes.update(fresh)
        return spend, nodes


def curve(
    told: Told,
    nodes: Iterable[Mapping[str, Any]],
    *,
    candidates: int,
    baseline: float,
    gate: bool,
    confirm: bool = False,
) -> Curve:
    """The curve of one trajectory; `nodes` are its rows of `v_nodes`, `gate`: whether a held-back reward judged,
    `confirm`: whether plays had to confirm it. `baseline` counts where the journal has none.

    Without a gate the guide judges, so the value of a leaf in the tree is its verdict, and it passes above the
    baseline (replay/gate.py); one that had to be confirmed passes by the record only. Where the last gate went another
    way than the guide's order says (a vote), no cut is known.
    """
    rows = list(nodes)
    ordered = guide_order(rows)
    baseline = told.baselines[-1] if told.baselines else baseline
    if not gate:
        values = {row["node"]: row["value"] for row in rows}
        guided = {leaf: (values[leaf], values[leaf] is not None and values[leaf] > baseline) for leaf in ordered}
        known = {leaf: verdict for leaf, verdict in guided.items() if not (confirm and verdict[1])}
        told = replace(told, verdicts={**known, **told.verdicts})
    followed = ordered[: len(told.gated)] == told.gated
    return Curve(told, ordered if followed else None, candidates, baseline)


def guide_order(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Finished searched leaves as the gate takes them (`TreeSearch.leaves`), from stored rows."""
    recorded = {-1: 0}
    for row in sorted(rows, key=lambda item: item["node"]):
        recorded[row["node"]] = recorded[row["parent"]] + bool(row["spine"])
    found = [row for row in rows if row["terminal"] and not row["spine"] and not row["imputed"] and row["node"] > 0]
    found.sort(key=lambda row: (-(row["value"] or 0.0), -recorded[row["node"]], row["depth"], row["node"]))
    return [row["node"] for row in found]
