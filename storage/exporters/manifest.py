"""The manifest: what was exported, from what, with which options, and how long the rows are. No clock in it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ..canonical import canonical_json
from .base import Archive, Candidate, Exporter
from .options import ExportOptions
from .render import masker, plain, well_formed
from .writer import PRODUCER

BYTES_PER_TOKEN = 2.0
"""A cautious estimate, because no row may be cut. The densest of 100 recorded airline runs gives 3.2 with the
tokenizers of GPT-4 and Claude, and 2.5 when every digit is a token of its own, as in Qwen."""
_STEP = 256
_RUN_KEYS = ("algorithm", "judge", "seed", "digest")


def lengths(rows: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Longest and 95th percentile of (characters, UTF-8 bytes) of the rows, the tokens they may take, and the
    `max_length` that cuts none of them."""
    characters = sorted(count for count, _ in rows)
    tokens = sorted(math.ceil(size / BYTES_PER_TOKEN) for _, size in rows)
    longest = tokens[-1] if tokens else 0
    return {
        "characters": {"max": characters[-1] if characters else 0, "p95": percentile(characters, 0.95)},
        "estimated_tokens": {"max": longest, "p95": percentile(tokens, 0.95)},
        "max_length": _STEP * max(1, math.ceil(longest / _STEP)),
    }


def percentile(ordered: Sequence[int], share: float) -> int:
    """The nearest-rank percentile of sorted values; 0 of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0


@dataclass(frozen=True, slots=True)
class Origin:
    """The counterfactual behind a row, in short: rows must not keep whole trajectories in memory."""

    run: str
    counterfactual_id: str
    task_id: str
    novel: bool
    dataset: str | None
    format: str | None


def origin_of(candidate: Candidate) -> Origin:
    """The facts of a candidate that the manifest counts."""
    source, found = candidate.record.source, candidate.counterfactual
    novel = bool(candidate.result["novel"])
    dataset, form = (source.dataset, source.format) if source else (None, None)
    return Origin(candidate.run, found.id, found.task.id, novel, dataset, form)


def counts(origins: Iterable[Origin]) -> dict[str, int]:
    """Counterfactuals with at least one row: all, novel, copied, and how many tasks they are of."""
    unique = set(origins)
    novel = sum(item.novel for item in unique)
    tasks = {item.task_id for item in unique}
    return {"counterfactuals": len(unique), "novel": novel, "copied": len(unique) - novel, "tasks": len(tasks)}


def sources(origins: Iterable[Origin]) -> list[dict[str, Any]]:
    """The datasets and log formats that the rows came from, with the number of counterfactuals of each."""
    found = Counter((item.dataset, item.format) for item in set(origins))
    rows = [{"dataset": dataset, "format": form, "counterfactuals": n} for (dataset, form), n in found.items()]
    return sorted(rows, key=canonical_json)


def run_facts(archive: Archive, runs: Iterable[str], options: ExportOptions) -> list[dict[str, Any]]:
    """What each run was: its frozen configuration with the specs of environment, policy, rewards and algorithm."""
    mask = masker(options.redact)
    facts = []
    for run in runs:
        row = archive.run(run) or {}
        known = {key: row[key] for key in _RUN_KEYS if row.get(key) is not None}
        if (kind := (row.get("report") or {}).get("environment_class")) is not None:
            known["environment_class"] = kind
        fact = {"run": run, "configuration": row.get("configuration") or {}, **known}
        facts.append(plain(json.loads(canonical_json(fact)), lambda text: mask(well_formed(text))))
    return facts


def build(
    exporter: Exporter, options: ExportOptions, facts: Mapping[str, Any], files: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The manifest as plain JSON; `facts` are its measured parts, `files` all files but itself."""
    return {
        "v": 1,
        "producer": {"name": PRODUCER, "version": version("ttc-replay")},
        "format": exporter.name,
        "columns": list(exporter.columns),
        "options": options.recorded() | {"unit": options.unit or exporter.units[0]},
        **facts,
        "files": list(files),
    }
