"""Which counterfactuals are exported: filters, each with a reason that is counted, and the cap per task."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..canonical import content_id
from ..codec import action_key
from ..errors import UnknownId
from ..records import FIDELITY_ORDER, Fidelity, Trajectory
from .base import Archive, Candidate
from .options import ExportOptions


@dataclass(frozen=True, slots=True)
class _Chosen:
    order: int
    run: str
    gain: float
    result: Mapping[str, Any]
    task_id: str
    signature: str


class SearchResults:
    """The selection of one export: iterate it for candidates; `dropped` counts what was left out, by reason.

    `considered` is how many searched trajectories there were. Trajectories are loaded one at a time, so that the size
    of a run does not decide the memory an export takes.
    """

    def __init__(self, archive: Archive, options: ExportOptions):
        self.archive = archive
        self.options = options
        self.dropped: Counter[str] = Counter()
        self.considered = 0
        self.runs = self._runs()
        self._chosen = self._capped(list(self._passing()))

    def __iter__(self) -> Iterator[Candidate]:
        for item in self._chosen:
            counterfactual = self.archive.trajectory(str(item.result["counterfactual_id"]))
            record = self.archive.trajectory(str(item.result["trajectory_id"]))
            yield Candidate(item.run, item.gain, item.result, record, counterfactual)

    def _runs(self) -> tuple[str, ...]:
        if self.options.dataset is not None:
            return tuple(sorted(str(row["run"]) for row in self.archive.runs()))
        for run in self.options.runs:
            if self.archive.run(run) is None:
                known = ", ".join(sorted(str(row["run"]) for row in self.archive.runs())[:5])
                hint = f"runs here: {known}" if known else "there is no run here yet: ttc-replay search makes one"
                raise UnknownId(f"no run {run!r}", hint=hint)
        return tuple(dict.fromkeys(self.options.runs))

    def _passing(self) -> Iterator[_Chosen]:
        for run in self.runs:
            for result in sorted(self.archive.results(run), key=lambda row: int(row["position"])):
                if self.options.dataset is not None and not self._in_dataset(str(result["trajectory_id"])):
                    continue
                self.considered += 1
                reason = refusal(result, self.options)
                found = None if reason else self._load(str(result["counterfactual_id"]))
                if found is None:
                    self.dropped[reason or "missing_trajectory"] += 1
                    continue
                gain = float(result["best"]) - float(result["baseline"])
                signature = content_id([action_key(step.action) for step in found.steps])
                yield _Chosen(self.considered, run, gain, result, found.task.id, signature)

    def _load(self, trajectory_id: str) -> Trajectory | None:
        try:
            return self.archive.trajectory(trajectory_id)
        except UnknownId:
            return None

    def _in_dataset(self, trajectory_id: str) -> bool:
        record = self._load(trajectory_id)
        return record is not None and record.source is not None and record.source.dataset == self.options.dataset

    def _capped(self, passing: list[_Chosen]) -> list[_Chosen]:
        """At most `per_task` a task: the greatest gain first, other actions before the same ones again."""
        limit = self.options.per_task
        if limit is None:
            return passing
        by_task: dict[str, list[_Chosen]] = defaultdict(list)
        for item in sorted(passing, key=lambda one: (-one.gain, one.order)):
            by_task[item.task_id].append(item)
        kept: list[_Chosen] = []
        for items in by_task.values():
            seen: Counter[str] = Counter()
            ranked = []
            for item in items:
                ranked.append((seen[item.signature], item))
                seen[item.signature] += 1
            ranked.sort(key=lambda pair: pair[0])
            kept.extend(item for _, item in ranked[:limit])
        self.dropped["per_task_cap"] += len(passing) - len(kept)
        return sorted(kept, key=lambda one: one.order)


def refusal(result: Mapping[str, Any], options: ExportOptions) -> str | None:
    """Why a searched trajectory gives no rows; None when it does. The first reason that applies is the one counted."""
    if result["counterfactual_id"] is None:
        return "no_counterfactual"
    if result["trivial"] and not options.keep_trivial:
        return "trivial"
    if not result["novel"] and not options.keep_copied:
        return "copied"
    if not options.keep_unconfirmed and (result.get("detail") or {}).get("unconfirmed"):
        return "unconfirmed"
    if not true_enough(result["fidelity"], options.min_fidelity):
        return "below_min_fidelity"
    if result["best"] is None or result["baseline"] is None:
        return "unknown_gain"
    gain = float(result["best"]) - float(result["baseline"])
    enough = gain > 0.0 if options.min_gain is None else gain >= options.min_gain
    return None if enough else "below_min_gain"


def true_enough(fidelity: Fidelity | None, least: Fidelity) -> bool:
    """A class is at least `least`; an unknown class never is."""
    return fidelity is not None and FIDELITY_ORDER.index(fidelity) >= FIDELITY_ORDER.index(least)
