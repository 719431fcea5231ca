"""The database after a kill: a torn log of DuckDB opens with whole batches, and the same ingest brings the rest."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from ttc_replay.storage.database import Database
from ttc_replay.storage.ingest import ingest

CUTS = 24
SEED = 20
STEPS = 4


def test_a_torn_log_holds_whole_batches(job: Any, forked: Any) -> None:
    folder = job.before("ingest")
    killed = forked(folder, "-q", *job.commands("")["ingest"], TTC_KILL_AT="database.committed:3")
    assert killed.code == -9
    file, log = folder / "ttc.duckdb", folder / "ttc.duckdb.wal"
    whole, base = log.read_bytes(), file.read_bytes()
    seen = set()
    draw = random.Random(SEED)
    for cut in [len(whole), len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(CUTS))]:
        file.write_bytes(base)
        log.write_bytes(whole[:cut])
        with Database.open(str(file), create=False) as archive:
            steps = archive.query("select count(*) from v_steps")[1][0][0]
            assert steps == STEPS * archive.count(), f"cut at byte {cut}"
            seen.add(archive.count())
            ingest(archive, [str(folder / "logs")])
            assert archive.count() == 5
    assert seen == {0, 2, 4, 5}, "batches are of two records"


def test_the_files_are_private_after_a_kill(job: Any, forked: Any) -> None:
    folder = job.before("ingest")
    assert forked(folder, "-q", *job.commands("")["ingest"], TTC_KILL_AT="database.committed:2").code == -9
    for path in folder.glob("ttc.duckdb*"):
        assert path.stat().st_mode & 0o077 == 0, path.name


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("ttc.duckdb*"))


def test_the_next_command_clears_what_the_kill_left(job: Any, forked: Any) -> None:
    folder = job.before("ingest")
    assert forked(folder, "-q", *job.commands("")["ingest"], TTC_KILL_AT="database.committed:2").code == -9
    assert leftovers(folder) == ["ttc.duckdb", "ttc.duckdb.tmp", "ttc.duckdb.wal"]
    assert forked(folder, "ls", "datasets").code == 0
    assert leftovers(folder) == ["ttc.duckdb"]
