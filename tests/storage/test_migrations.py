"""Numbered migrations on real files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import Connection, Engine, inspect, select

from ttc_replay.storage import schema
from ttc_replay.storage.database import Database
from ttc_replay.storage.engines import open_engine
from ttc_replay.storage.errors import SchemaTooNew, StoreError
from ttc_replay.storage.migrations import MIGRATIONS, migrate, version


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(str(tmp_path / "archive.duckdb"), create=True)
    yield opened.engine
    opened.close()


def m002_add_note(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN note TEXT")


def m002_fails_half_way(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN note TEXT")
    connection.exec_driver_sql("ALTER TABLE no_such_table ADD COLUMN note TEXT")


def recorded(engine: Engine) -> list[tuple[int, str]]:
    with engine.connect() as connection:
        table = schema.schema_version.c
        rows = connection.execute(select(table.version, table.name).order_by(table.version))
        return [(row.version, row.name) for row in rows]


def run_columns(engine: Engine) -> set[str]:
    return {str(column["name"]) for column in inspect(engine).get_columns("runs")}


def test_numbers_are_in_order_and_named_after_their_function() -> None:
    for number, migration in enumerate(MIGRATIONS, 1):
        assert migration.__name__.startswith(f"m{number:03d}_")
        assert migration.__doc__


def test_a_new_database_gets_every_migration_once(engine: Engine) -> None:
    assert version(engine) == 0
    assert migrate(engine) == len(MIGRATIONS)
    assert migrate(engine) == len(MIGRATIONS) == version(engine)
    assert recorded(engine) == [(number, migration.__name__) for number, migration in enumerate(MIGRATIONS, 1)]


def test_the_frozen_migrations_lead_to_the_schema_as_it_is_declared(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        found = inspect(connection)
        assert set(found.get_table_names()) == set(schema.metadata.tables)
        for name, table in schema.metadata.tables.items():
            there = {str(column["name"]): type(column["type"]).__name__ for column in found.get_columns(name)}
            declared = {column.name: type(column.type).__name__ for column in table.columns}
            assert set(there) == set(declared), name
            for column, kind in declared.items():
                assert KINDS[there[column].upper()] == KINDS[kind.upper()], f"{name}.{column}"


KINDS = {
    **dict.fromkeys(("TEXT", "VARCHAR", "STRING"), "text"),
    **dict.fromkeys(("DOUBLE", "DOUBLE_PRECISION", "FLOAT"), "double"),
    "INTEGER": "integer",
    "BIGINTEGER": "bigint",
    "BIGINT": "bigint",
    "BOOLEAN": "boolean",
}


def cursor_of(connection: Connection, view: str) -> Any:
    return connection.exec_driver_sql(f"SELECT * FROM {view}").cursor


def test_the_stable_view_has_exactly_its_columns(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        columns = [[column[0] for column in cursor_of(connection, view).description] for view in schema.VIEWS]
    assert columns[0] == [
        *("id", "dataset", "format", "task_id", "trial", "agent", "model", "steps", "outcome", "parent_id"),
        *("branch_step", "run", "fidelity", "source_path", "source_line"),
        *("started_at", "ended_at", "relation", "tags", "usage", "replayability", "secrets"),
    ]
    views = ["v_trajectories", "v_steps", "v_runs", "v_nodes", "v_scores", "v_exports", "v_same_as"]
    assert list(schema.VIEWS) == views


def test_a_later_migration_keeps_data_and_views(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(schema.runs.insert(), {"run": "r", "configuration": "{}"})
    assert migrate(engine, (*MIGRATIONS, m002_add_note)) == len(MIGRATIONS) + 1
    assert "note" in run_columns(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT run FROM v_runs").scalars().all() == ["r"]


def test_a_failing_migration_leaves_the_database_as_it_was(engine: Engine) -> None:
    migrate(engine)
    with pytest.raises(Exception, match="no_such_table"):
        migrate(engine, (*MIGRATIONS, m002_fails_half_way))
    assert version(engine) == len(MIGRATIONS)
    assert "note" not in run_columns(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM v_runs").scalar() == 0
    assert migrate(engine, (*MIGRATIONS, m002_add_note)) == len(MIGRATIONS) + 1


def test_a_newer_schema_is_refused_by_name_and_the_file_stays_usable(tmp_path: Path) -> None:
    path = tmp_path / "archive.duckdb"
    opened = open_engine(str(path), create=True)
    migrate(opened.engine, (*MIGRATIONS, m002_add_note))
    opened.close()
    known = len(MIGRATIONS)
    with pytest.raises(SchemaTooNew, match=f"schema version {known + 1}, this program knows {known}") as caught:
        Database.open(str(path))
    assert (caught.value.error_code, caught.value.exit_code) == ("TTC-E202", 2)
    again = open_engine(str(path), create=False)  # the refusal gave the file back
    again.close()


def with_storage_version(data: bytes, number: int) -> bytes:
    """A DuckDB file's bytes with another storage version in its first header, whose checksum comes before it."""
    header = bytearray(data[8:4096])
    at = header.index(b"DUCK") + 4
    header[at : at + 8] = struct.pack("<Q", number)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", header):
        checksum ^= word * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    return struct.pack("<Q", checksum) + bytes(header) + data[4096:]


def test_a_newer_file_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.duckdb"
    Database.open(str(path)).close()
    path.write_bytes(with_storage_version(path.read_bytes(), 9999))
    with pytest.raises(SchemaTooNew, match="newer DuckDB") as caught:
        Database.open(str(path))
    assert caught.value.place == str(path)


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "archive.duckdb"
    Database.open(str(path)).close()
    data = bytearray(path.read_bytes())
    data[100:108] = b"nonsense"
    path.write_bytes(data)
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        Database.open(str(path))
    assert (caught.value.error_code, caught.value.place) == ("TTC-E200", str(path))


def test_a_foreign_database_with_our_table_names_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.duckdb"
    with duckdb.connect(str(path)) as theirs:
        theirs.execute("CREATE TABLE runs (mine INTEGER)")
    with pytest.raises(StoreError, match="'runs' that ttc-replay did not make"):
        Database.open(str(path))
    with duckdb.connect(str(path)) as theirs:
        assert theirs.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("runs",)]
