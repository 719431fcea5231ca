"""Exports from a real DuckDB file: the same bytes as from plain records, and lineage that SQL can follow."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.database import Database
from ttc_replay.storage.export import export
from ttc_replay.storage.exporters.options import ExportOptions

ARCHIVE = runpy.run_path(str(Path(__file__).parent / "golden_export" / "export_archive.py"))
RUN: str = ARCHIVE["RUN"]


@pytest.fixture
def database(tmp_path: Path) -> Any:
    """The archive of the golden exports, written and read back."""
    archive = ARCHIVE["build"]()
    with Database.open(str(tmp_path / "test.duckdb")) as opened:
        opened.add_trajectories(list(archive.trajectories.values()))
        row = dict(archive.run(RUN))
        opened.save_run(row.pop("run"), row.pop("configuration"), **row)
        opened.save_results(RUN, archive.results(RUN))
        for (run, trajectory_id), nodes in archive.trees.items():
            opened.save_nodes(run, trajectory_id, nodes, archive.node_scores(run, trajectory_id))
        yield opened


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["trl-sft", "trl-dpo"])
def test_the_database_exports_the_bytes_that_the_records_export(tmp_path: Path, database: Any, form: str) -> None:
    options = ExportOptions(format=form, out=tmp_path / "out", runs=(RUN,), test_fraction=0.4, seed=3)
    report = export(database, options)
    found = contents(tmp_path / "out")
    assert export(ARCHIVE["build"](), options) == report
    assert contents(tmp_path / "out") == found


def test_sql_leads_from_an_exported_row_to_its_source_line(tmp_path: Path, database: Any) -> None:
    out = tmp_path / "out"
    report = export(database, ExportOptions(format="trl-dpo", out=out, runs=(RUN,)))
    rows = (out / "train.jsonl").read_bytes().splitlines()
    columns, found = database.query("SELECT * FROM v_exports ORDER BY row")
    lineage = [dict(zip(columns, row, strict=True)) for row in found]
    assert [row["sha256"] for row in lineage] == [hashlib.sha256(row).hexdigest() for row in rows]
    assert {row["source_path"] for row in lineage} >= {"logs/shop-1.jsonl", "logs/talk.jsonl"}
    assert {row["source_line"] for row in lineage} == {7}
    assert {row["run"] for row in lineage} == {RUN}
    assert all(row["node"] is not None and row["call_key"] for row in lineage)
    exports = database.exports()
    assert [(row["format"], row["rows"], row["path"]) for row in exports] == [("trl-dpo", len(rows), str(out))]
    assert report["splits"]["train"] == len(rows)
    export(database, ExportOptions(format="trl-dpo", out=out, runs=(RUN,)))
    assert len(database.exports()) == 1  # the same export again is the same export
    assert database.query("SELECT count(*) FROM v_exports")[1] == [(len(rows),)]
