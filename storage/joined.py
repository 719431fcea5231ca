"""Outcomes that are kept apart from the logs: read from a file, joined to trajectories by id (`ingest --reward-from`).

What is understood, told by content:

* SWE-bench and SWE-agent reports: lists of instance ids under `resolved_ids` and `unresolved_ids` (or `resolved` and
  `unresolved`; other lists of a report are no verdicts); `{instance: {"resolved": true}}`;
* Harbor `result.json` of a trial (`trial_name`, `task_name`, `verifier_result.rewards`), one or a list of them;
* rows, as JSON lines, a JSON list or CSV: an id (`id`, `trajectory_id`, `session_id`, `trial_name`, `trial_id`,
  `instance_id`, `task_id`, `task_name`) and `reward`, `score`, `value` or `resolved`; `{id: number}`.

A trajectory is known by its id, its log's own ids, its trial and the names of the folders and the file it lies in; only
where none of these is named, by its task. The log's own outcome stands: what is joined to it becomes a score.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from .errors import UsageError
from .readers.json_input import container_of, guarded, records
from .records import Outcome, Rejected, Score, Trajectory

NAME = "reward"
_RUN_IDS = ("id", "trajectory_id", "session_id", "trial_name", "trial_id", "run_id")
_TASK_IDS = ("instance_id", "task_id", "task_name")
_VALUES = ("reward", "score", "value", "resolved", "success")
_LISTS = {"resolved": 1.0, "resolved_ids": 1.0, "unresolved": 0.0, "unresolved_ids": 0.0}
_OWN_IDS = ("id", "session_id", "trajectory_id", "instance_id", "trial_name", "run_id", "conversation_id", "name")
_LARGEST = 256 * 2**20


@dataclass(slots=True)
class Outcomes:
    """Outcomes by the ids that a file names; `used` are those that found a trajectory."""

    values: dict[str, Outcome] = field(default_factory=dict)
    tasks: dict[str, Outcome] = field(default_factory=dict)
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def join(self, trajectory: Trajectory) -> tuple[Trajectory, bool]:
        """The trajectory with the outcome that belongs to it, and whether there is one."""
        key = self._key(trajectory)
        if key is None:
            return trajectory, False
        self.used.add(key)
        outcome = self.values.get(key) or self.tasks[key]
        scores = {**self.scores.get(key, {}), **trajectory.scores}
        own = trajectory.outcome
        if own is not None and own.value is not None:
            return replace(trajectory, scores={outcome.name: Score(outcome.value), **scores}), True
        reason = own.exit_reason if own is not None else None
        joined = replace(outcome, exit_reason=outcome.exit_reason or reason)
        return replace(trajectory, outcome=joined, scores=scores), True

    def _key(self, trajectory: Trajectory) -> str | None:
        by_name = next((name for name in _names(trajectory) if name in self.values), None)
        return by_name or (trajectory.task.id if trajectory.task.id in self.tasks else None)

    @property
    def unused(self) -> list[str]:
        """The ids that found no trajectory."""
        return sorted({*self.values, *self.tasks} - self.used)


def _names(trajectory: Trajectory) -> Iterator[str]:
    yield trajectory.id
    source = trajectory.source
    if source is None:
        return
    for place in (source.extra, trajectory.task.data):
        yield from (place[key] for key in _OWN_IDS if isinstance(place.get(key), str))
    if source.links is not None:
        yield from (key.partition(":")[2] for key in source.links.keys)
    if source.trial is not None:
        yield source.trial
    path = PurePath(source.path)
    yield from (path.stem, path.name.partition(".")[0], *reversed(path.parent.parts))


def load_outcomes(path: str) -> Outcomes:
    """Read a file of outcomes. Raises UsageError when it cannot be read or holds none."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--reward-from {path}: {error.strerror or error}") from None
    if len(data) > _LARGEST:
        raise UsageError(f"--reward-from {path}: over {_LARGEST // 2**20} MiB", hint="give ids and rewards only")
    outcomes = Outcomes()
    for row in _rows(data, path):
        _take(row, outcomes)
    if not outcomes.values and not outcomes.tasks:
        hint = "rows with an id and a reward; SWE-bench reports; Harbor result.json"
        raise UsageError(f"--reward-from {path}: no outcomes in it", hint=hint)
    return outcomes


def _rows(data: bytes, path: str) -> Iterator[Mapping[str, Any]]:
    stream = cast(BinaryIO, io.BytesIO(data))
    if container_of(stream) == "other":
        yield from _csv_rows(data, path)
        return
    for item in guarded(records(stream)):
        if isinstance(item, Rejected):
            where = f"{path}:{item.problem.line or 1}"
            raise UsageError(f"--reward-from {where}: {item.problem.message}")
        if isinstance(item.value, dict):
            yield item.value


def _csv_rows(data: bytes, path: str) -> Iterator[Mapping[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
        for row in csv.DictReader(io.StringIO(text, newline="")):
            if set(row) & {*_RUN_IDS, *_TASK_IDS}:
                given = {key: value for key, value in row.items() if key is not None and value}
                yield {key: _number_or_text(text) if key in _VALUES else text for key, text in given.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--reward-from {path}: neither JSON nor CSV: {error}") from None


def _number_or_text(text: str) -> Any:
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _take(row: Mapping[str, Any], outcomes: Outcomes) -> None:
    """One row: a run's, a trial's, or a whole report."""
    value, scores = _value(row)
    run, task = _first(row, _RUN_IDS), _first(row, _TASK_IDS)
    if value is not None and (run or task):
        outcome = Outcome(value, NAME, detail={"joined": True})
        if run is not None:
            _put(outcomes.values, run, outcome)
        elif task is not None:
            _put(outcomes.tasks, task, outcome)
        outcomes.scores[str(run or task)] = scores
        return
    for key, entry in row.items():
        if key in _LISTS and isinstance(entry, list):
            for name in entry:
                _put(outcomes.tasks, str(name), Outcome(_LISTS[key], "resolved", detail={"joined": True}))
        elif isinstance(entry, Mapping):
            inner, named = _value(entry)
            if inner is not None:
                _put(outcomes.tasks, key, Outcome(inner, NAME, detail={"joined": True}))
                _put(outcomes.values, key, Outcome(inner, NAME, detail={"joined": True}))
                outcomes.scores[key] = named
        elif _number(entry) is not None and not set(row) & {*_VALUES, *_RUN_IDS, *_TASK_IDS, "total_instances"}:
            _put(outcomes.tasks, key, Outcome(_number(entry), NAME, detail={"joined": True}))
            _put(outcomes.values, key, Outcome(_number(entry), NAME, detail={"joined": True}))


def _put(into: dict[str, Outcome], key: str, outcome: Outcome) -> None:
    known = into.setdefault(key, outcome)
    if known.value != outcome.value:
        raise UsageError(f"--reward-from: {key!r} has two rewards, {known.value:g} and {outcome.value:g}")


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    for key in keys:
        found = row.get(key)
        if isinstance(found, str) and found:
            return found
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            return f"{found:g}" if isinstance(found, float) else str(found)
    return None


def _value(row: Mapping[str, Any]) -> tuple[float | None, dict[str, Score]]:
    """A row's outcome and its other named rewards (Harbor gives several)."""
    verdict = row.get("verifier_result")
    rewards = verdict.get("rewards") if isinstance(verdict, Mapping) else row.get("rewards")
    if isinstance(rewards, Mapping):
        named = {name: number for name, item in rewards.items() if (number := _number(item)) is not None}
        main = named.get("reward", next(iter(named.values()), None))
        return main, {name: Score(number) for name, number in named.items() if name != "reward"}
    if isinstance(verdict, Mapping):
        row = verdict
    return next((number for key in _VALUES if (number := _number(row.get(key))) is not None), None), {}


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None
