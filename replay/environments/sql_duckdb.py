"""DuckDB worlds: an image is a file in a private folder, opened read-only; a writer is a copy of that file.

One instance a file, external access off, no extensions, the configuration locked, one thread (so that floats add up and
rows come in one order). Each statement has a cursor of its own: temporary objects end with it, on every fork alike.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from .sql_results import Limits, Refused, Result, TimedOut, WriteNeeded

MAGIC = b"DUCK"
"""At byte 8 of a database file."""
NAME = "world"
"""Of every image's file, so that the catalogue has one name on all forks."""
_CONFIG: dict[str, Any] = {
    "threads": 1,
    "memory_limit": "512MB",
    "temp_directory": "",
    "allow_unsigned_extensions": False,
}
_LOCK = (
    "SET TimeZone='UTC'",
    "SET autoinstall_known_extensions=false",
    "SET autoload_known_extensions=false",
    "SET allow_community_extensions=false",
    "SET allow_persistent_secrets=false",
    "SET enable_external_access=false",
    "SET lock_configuration=true",
)
_KIND = duckdb.StatementType
_READS = frozenset((_KIND.SELECT, _KIND.EXPLAIN))
_WRITES = frozenset((_KIND.INSERT, _KIND.UPDATE, _KIND.DELETE, _KIND.CREATE, _KIND.DROP, _KIND.ALTER, _KIND.MERGE_INTO))
_FAILURES = (duckdb.Error, ValueError, IndexError, RuntimeError, UnicodeError)
"""What the library raises on statements that it cannot read or execute; a few errors of its core keep C++ classes."""


def _opened(path: Path, *, writable: bool) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(path), read_only=not writable, config=_CONFIG)
    for statement in _LOCK:
        connection.execute(statement)
    return connection


def _run(connection: duckdb.DuckDBPyConnection, sql: str, limits: Limits, *, writable: bool) -> Result:
    cursor = connection.cursor()
    try:
        with _guard(cursor, limits.timeout_seconds):
            kind = _kind(cursor, sql, writable=writable)
            cursor.execute(sql)
            described = cursor.description or []
            rows = cursor.fetchmany(limits.max_rows + 1) if described else []
        if kind in _WRITES and [str(item[0]) for item in described] in (["Count"], ["Success"]):
            return Result(changed=int(rows[0][0]) if rows else None)
        kept = rows[: limits.max_rows]
        names, types = (tuple(str(item[at]) for item in described) for at in (0, 1))
        return Result(names, types, kept, len(rows) > len(kept))
    finally:
        cursor.close()


def _kind(cursor: duckdb.DuckDBPyConnection, sql: str, *, writable: bool) -> duckdb.StatementType:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise Refused("no statement" if not statements else "one statement a call")
    kind = statements[0].type
    if kind not in _READS | _WRITES:
        raise Refused(f"not allowed: {kind.name} (only queries, and changes of rows, tables, views and indexes)")
    if kind is _KIND.EXPLAIN and "ANALYZE" in sql.upper():
        raise Refused("not allowed: EXPLAIN ANALYZE tells times, which differ from run to run")
    if kind in _WRITES and not writable:
        raise WriteNeeded("not allowed: the database is read-only")
    return kind


@contextmanager
def _guard(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise TimedOut(f"stopped: the statement ran longer than {seconds:g} s") from error
    except _FAILURES as error:
        text = str(error).strip()
        if "attached in read-only mode" in text:
            raise WriteNeeded("not allowed: the database is read-only") from error
        raise Refused(text[:500]) from error
    finally:
        timer.cancel()


class DuckImage:
    """An unchanging database file of our own, removed with the last who holds this object."""

    engine = "duckdb"

    def __init__(self, folder: Path):
        self.path = folder / f"{NAME}.duckdb"
        self._open: list[duckdb.DuckDBPyConnection] = []
        self._lock = threading.Lock()
        self._digest: str | None = None
        weakref.finalize(self, _discard, self._open, folder)

    @property
    def digest(self) -> str:
        """Equal digests mean equal content (64 bits a table; the order of rows does not count)."""
        if self._digest is None:
            self._digest = _digest(self._connection())
        return self._digest

    def run(self, sql: str, limits: Limits) -> Result:
        """Execute one reading statement. Raises Refused, WriteNeeded, TimedOut."""
        return _run(self._connection(), sql, limits, writable=False)

    def open(self) -> DuckWriter:
        """A private copy that may be changed."""
        folder = new_folder()
        shutil.copyfile(self.path, folder / self.path.name)
        return DuckWriter(folder)

    def _connection(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if not self._open:
                self._open.append(_opened(self.path, writable=False))
            return self._open[0]


def _discard(connections: list[duckdb.DuckDBPyConnection], folder: Path) -> None:
    while connections:
        with suppress(duckdb.Error):
            connections.pop().close()
    shutil.rmtree(folder, ignore_errors=True)


class DuckWriter:
    """A private copy, in a folder of its own."""

    def __init__(self, folder: Path):
        self._path = folder / f"{NAME}.duckdb"
        self._connection = _opened(self._path, writable=True)
        self.changed = False
        self._finalizer = weakref.finalize(self, _discard, [self._connection], folder)

    def run(self, sql: str, limits: Limits, *, reading: bool = False) -> Result:
        """Execute one statement. Raises Refused, TimedOut; WriteNeeded when it may only read."""
        try:
            result = _run(self._connection, sql, limits, writable=False)
        except WriteNeeded:
            if reading:
                raise
            self.changed = True
            return _run(self._connection, sql, limits, writable=True)
        self.changed = self.changed or "nextval" in sql.casefold()  # a query that changes something
        return result

    def image(self) -> DuckImage:
        """What the database is now, as an unchanging image."""
        self._connection.execute("CHECKPOINT")
        folder = new_folder()
        shutil.copyfile(self._path, folder / self._path.name)
        self.changed = False
        return DuckImage(folder)

    def digest(self) -> str:
        """Equal digests mean equal content."""
        return _digest(self._connection)

    def close(self) -> None:
        """Drop the copy; twice is harmless."""
        self._finalizer()


def _digest(connection: duckdb.DuckDBPyConnection) -> str:
    """SHA-256 over the schema, the sequences, and of each table the number of rows and the sum of their hashes."""
    cursor = connection.cursor()
    try:
        parts: list[Any] = [
            cursor.execute(query).fetchall()
            for query in (
                "SELECT sql FROM duckdb_tables() WHERE NOT internal ORDER BY ALL",
                "SELECT sql FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
                "SELECT sql FROM duckdb_indexes() ORDER BY ALL",
                "SELECT schema_name, sequence_name, last_value FROM duckdb_sequences() ORDER BY ALL",
            )
        ]
        tables = cursor.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal ORDER BY ALL")
        for schema, table in tables.fetchall():
            name = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))
            parts.append(cursor.execute(f"SELECT count(*), sum(hash(t)::HUGEINT) FROM {name} t").fetchall())  # noqa: S608
        return hashlib.sha256(repr(parts).encode()).hexdigest()
    finally:
        cursor.close()


def new_folder() -> Path:
    """A private folder for one database file."""
    return Path(tempfile.mkdtemp(prefix="ttc-sql-"))


def image_of_file(path: Path) -> DuckImage:
    """A copy of a user's file. It is held open read-only meanwhile, so nobody writes to it. Raises Refused."""
    folder = new_folder()
    try:
        with duckdb.connect(str(path), read_only=True, config={"threads": 1}):
            for suffix in ("", ".wal"):
                source = path.with_name(path.name + suffix)
                if source.exists():
                    shutil.copyfile(source, folder / f"{NAME}.duckdb{suffix}")
        return _sealed(folder)
    except (duckdb.Error, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Refused(str(error)) from error


def _sealed(folder: Path) -> DuckImage:
    """The image of a folder whose database was written: opened once, so that no log is left beside it."""
    with _opened(folder / f"{NAME}.duckdb", writable=True) as connection:
        connection.execute("CHECKPOINT")
    return DuckImage(folder)


def image_of_connection(connection: duckdb.DuckDBPyConnection) -> DuckImage:
    """A copy of a database that a builder made; the connection is closed. Raises Refused."""
    folder = new_folder()
    with connection:
        row = connection.execute("SELECT current_database()").fetchone()
        source = str(row[0]).replace('"', '""') if row else "memory"
        target = str(folder / f"{NAME}.duckdb").replace("'", "''")
        try:
            connection.execute(f"ATTACH '{target}' AS ttc_image")
            connection.execute(f'COPY FROM DATABASE "{source}" TO ttc_image')
            connection.execute("DETACH ttc_image")
        except duckdb.Error as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Refused(f"{error} (the builder's connection needs external access to be copied)") from error
    return DuckImage(folder)


def image_of_script(sql: str, timeout_seconds: float) -> DuckImage:
    """The database that a script makes; it reads and writes nothing else. Raises Refused."""
    folder = new_folder()
    try:
        with _opened(folder / f"{NAME}.duckdb", writable=True) as connection, _guard(connection, timeout_seconds):
            connection.execute(sql)
            connection.execute("CHECKPOINT")
    except Refused:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return DuckImage(folder)
