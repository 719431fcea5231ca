"""One export, from a selection to files: rows, splits, sidecars, card, manifest, and the lineage in the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from .canonical import content_id
from .errors import ExporterFailed, UsageError, boundary
from .exporters import base, card, manifest, writer
from .exporters.base import AllFiltered, Archive, Dropped, Exporter, Row
from .exporters.options import ExportOptions, check
from .exporters.selection import SearchResults
from .exporters.splits import held_out
from .kill_points import kill_point

TRAIN, TEST = "train", "test"
_LINE_ENDS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})


@dataclass(frozen=True, slots=True)
class _Written:
    """A row as it goes to the file: its line without the newline, and what is kept beside it."""

    line: bytes
    characters: int
    has_calls: bool
    origin: manifest.Origin
    lineage: Mapping[str, Any]


@dataclass(slots=True)
class _Split:
    name: str
    rows: list[_Written]
    data: bytes = b""
    sidecar: bytes = b""
    lineage: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data = b"".join(row.line + b"\n" for row in self.rows)
        for number, written in enumerate(self.rows):
            self.lineage.append({"row": number, "sha256": writer.sha256(written.line), **written.lineage})
        self.sidecar = b"".join(dump_line(entry) + b"\n" for entry in self.lineage)


@dataclass(frozen=True, slots=True)
class _Job:
    """One export on its way: who writes, what was asked for, and what was selected."""

    archive: Archive
    exporter: Exporter
    options: ExportOptions
    selection: SearchResults


def export(database: Archive, options: ExportOptions, exporter: Exporter | None = None) -> dict[str, Any]:
    """Write a dataset and return the report of design.md section 7.

    `exporter` None takes the one named `options.format`. An empty selection writes nothing and says so. Raises
    UsageError, UnknownId, PluginNotFound, ExporterFailed, and AllFiltered when no row is left; then nothing is written.
    """
    chosen = _with_options(exporter or base.load(options.format), options)
    check(options, chosen.units)
    _check_place(options, chosen)
    job = _Job(database, chosen, options, SearchResults(database, options))
    rows, dropped = _rows(job)
    if not rows:
        if job.selection.considered:
            raise AllFiltered(dropped)
        return _report(chosen.name, [], dropped, [])
    splits = _splits(rows, options)
    kill_point("export.rows")
    if options.is_file:
        writer.write_file(options.out, splits[0].data, chosen.columns)
    else:
        writer.write_folder(options.out, _folder(job, splits, dropped))
    data = [_entry(options, split) for split in splits if split.rows]
    _save(job, splits, data)
    kill_point("export.saved")
    return _report(chosen.name, data, dropped, splits)


def _with_options(exporter: Exporter, options: ExportOptions) -> Exporter:
    if not options.token_ids:
        return exporter
    with_token_ids = getattr(exporter, "with_token_ids", None)
    if with_token_ids is None:
        raise UsageError(f"the format {exporter.name} has no token ids", place="--token-ids")
    chosen: Exporter = with_token_ids()
    return chosen


def dump_line(value: Mapping[str, Any]) -> bytes:
    """One line of JSON: UTF-8, no NaN, keys as given, no character inside that a reader may take for a line end.

    A lone surrogate, which has no UTF-8, becomes a question mark. Raises ValueError on NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_LINE_ENDS).encode("utf-8", "replace")


def _check_place(options: ExportOptions, exporter: Exporter) -> None:
    """Fail before the work, not after it."""
    if options.is_file:
        writer.check_file(options.out, exporter.columns)
    else:
        writer.check_folder(options.out)


def _rows(job: _Job) -> tuple[list[_Written], dict[str, int]]:
    """All rows, duplicates left out, and the drops by reason. Rows with tool calls come first, so that a reader that
    guesses types from the first rows sees one."""
    rows: list[_Written] = []
    dropped = Counter(job.selection.dropped)
    seen: set[str] = set()
    with boundary(ExporterFailed, f"exporter {job.exporter.name}"):
        for item in job.exporter.rows(job.selection):
            if isinstance(item, Dropped):
                dropped[item.reason] += 1
            elif item.dedupe in seen:
                dropped["duplicate"] += 1
            else:
                seen.add(item.dedupe)
                rows.append(_written(job.exporter, item))
    counted = {reason: dropped[reason] for reason in sorted(dropped) if dropped[reason]}
    return sorted(rows, key=lambda row: not row.has_calls), counted


def _written(exporter: Exporter, row: Row) -> _Written:
    if tuple(row.columns) != exporter.columns or any(value is None for value in row.columns.values()):
        raise ValueError(f"a row must have exactly the columns {exporter.columns}, none of them null")
    line = dump_line(row.columns)
    origin = manifest.origin_of(row.candidate)
    return _Written(line, len(line.decode("utf-8")), b'"tool_calls":' in line, origin, row.lineage)


def _splits(rows: Sequence[_Written], options: ExportOptions) -> list[_Split]:
    held = held_out({row.origin.task_id for row in rows}, options.test_fraction, options.seed)
    return [
        _Split(TRAIN, [row for row in rows if row.origin.task_id not in held]),
        _Split(TEST, [row for row in rows if row.origin.task_id in held]),
    ]


def _folder(job: _Job, splits: Sequence[_Split], dropped: Mapping[str, int]) -> dict[str, bytes]:
    """The files of the folder by name, the manifest last."""
    exporter, facts = job.exporter, _facts(job, splits, dropped)
    found: dict[str, bytes] = {}
    for split in splits:
        if split.rows:
            found[f"{split.name}.jsonl"] = split.data
            found[f"{split.name}.meta.jsonl"] = split.sidecar
    found.update(_training(exporter, facts["lengths"]["max_length"]))
    found["README.md"] = card.render_card({"format": exporter.name, **facts}, exporter.columns, job.options)
    counted = {f"{split.name}.jsonl": len(split.rows) for split in splits}
    listed = [
        {"path": name, "bytes": len(content), "sha256": writer.sha256(content)}
        | ({"rows": counted[name]} if name in counted else {})
        for name, content in sorted(found.items())
    ]
    found[writer.MANIFEST] = pretty(manifest.build(exporter, job.options, facts, listed))
    return found


def _facts(job: _Job, splits: Sequence[_Split], dropped: Mapping[str, int]) -> dict[str, Any]:
    """The measured part of the manifest, which the card tells in words."""
    rows = [row for split in splits for row in split.rows]
    origins = [row.origin for row in rows]
    return {
        "runs": manifest.run_facts(job.archive, _used_runs(job, splits), job.options),
        "sources": manifest.sources(origins),
        "counts": {"searched": job.selection.considered, **manifest.counts(origins)},
        "dropped": dict(dropped),
        "splits": {split.name: len(split.rows) for split in splits},
        "lengths": manifest.lengths([(row.characters, len(row.line)) for row in rows]),
    }


def pretty(value: Any) -> bytes:
    """JSON for people: indented, keys sorted, one newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _training(exporter: Exporter, max_length: int) -> dict[str, bytes]:
    if exporter.training is None:
        return {}
    name, settings = exporter.training
    template = package_files(base.__package__ or "").joinpath("chat_template.jinja").read_bytes()
    return {name: pretty({**settings, "max_length": max_length}), "chat_template.jinja": template}


def _used_runs(job: _Job, splits: Sequence[_Split]) -> list[str]:
    """With --dataset all runs are looked at, so only those that gave rows are told."""
    used = {row.origin.run for split in splits for row in split.rows}
    return [run for run in job.selection.runs if run in used or job.options.dataset is None]


def _entry(options: ExportOptions, split: _Split) -> dict[str, Any]:
    path = options.out if options.is_file else options.out / f"{split.name}.jsonl"
    return {"path": str(path), "rows": len(split.rows), "sha256": writer.sha256(split.data)}


def _report(
    name: str, data: Sequence[Mapping[str, Any]], dropped: Mapping[str, int], splits: Sequence[_Split]
) -> dict[str, Any]:
    sizes = {TRAIN: 0, TEST: 0} | {split.name: len(split.rows) for split in splits}
    return {"v": 1, "format": name, "files": list(data), "dropped": dict(dropped), "splits": sizes}


def _save(job: _Job, splits: Sequence[_Split], data: Sequence[Mapping[str, Any]]) -> None:
    """The same lineage in the database, so that SQL answers where an exported row came from."""
    place = str(job.options.out.resolve())
    hashes = [entry["sha256"] for entry in data]
    header = {
        "export": content_id("export", place, hashes)[:16],
        "run": ",".join(_used_runs(job, splits)),
        "format": job.exporter.name,
        "path": place,
        "sha256": hashes[0] if len(hashes) == 1 else content_id(hashes),
        "rows": sum(entry["rows"] for entry in data),
    }
    keys = ("row", "sha256", "run", "trajectory_id", "node", "call_key", "source_path", "source_line")
    rows = [
        {"path": str(Path(entry["path"]).resolve()), **{key: row.get(key) for key in keys}}
        for entry, split in zip(data, (split for split in splits if split.rows), strict=True)
        for row in split.lineage
    ]
    job.archive.save_export(header, rows)
