"""Opens the DuckDB file or the PostgreSQL database behind a `Database`; used by `database.py` only.

DuckDB (design.md section 6): an in-memory base connection, the file attached with its options (a URL cannot pass them),
then everything locked: no file or network access from SQL, no extensions, no Python variables as tables, no change of
the configuration. The engine's connections are cursors of that base; `Opened.close` gives the file's lock back.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from duckdb_sqlalchemy import ConnectionWrapper
from sqlalchemy.pool import QueuePool

from .errors import DatabaseBusy, MissingExtra, SchemaTooNew, StoreError, UsageError

CATALOG = "archive"
ROW_GROUP_SIZE = 2048
"""Rows per row group. Small ones fill up within a batch, so that bytes go to the file once, not by way of the log."""
STORAGE_VERSION = "v1.5.0"
"""Pinned: newer ones cannot be read by the oldest DuckDB allowed; this one compresses long text (3.5 times smaller)."""
MEMORY_LIMIT = "512MB"
_MOST_THREADS = 8
_LOCKED = (
    "threads = 1",  # a bulk insert costs 40 % less CPU than with two; `all_threads` is for people's queries
    "allowed_configs = ['threads']",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_community_extensions = false",
    "python_enable_replacements = false",
    "enable_external_access = false",
    "lock_configuration = true",
)
_umask_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine and how to close what is under it. `file` is None for a server."""

    engine: sqlalchemy.Engine
    close: Callable[[], None]
    file: Path | None


@contextmanager
def private_files() -> Iterator[None]:
    """Files made inside are for their owner only. DuckDB makes its log at a commit, with the process's umask."""
    with _umask_lock:
        before = os.umask(0o077)
        try:
            yield
        finally:
            os.umask(before)


@contextmanager
def all_threads(driver: Any) -> Iterator[None]:
    """DuckDB uses the machine's cores (at most 8: each wants memory) inside."""
    driver.execute(f"SET threads = {min(os.cpu_count() or 1, _MOST_THREADS)}")
    try:
        yield
    finally:
        driver.execute("SET threads = 1")


def open_engine(location: str, *, create: bool, compress: bool = True) -> Opened:
    """Open a path or URL; `compress`: text written to a file is compressed (a server has its own ways).

    Raises UsageError, DatabaseBusy, SchemaTooNew, MissingExtra or StoreError.
    """
    return _open_server(location) if "://" in location else _open_file(Path(location), create, compress)


def _open_file(path: Path, create: bool, compress: bool) -> Opened:
    if not path.exists():
        if not create:
            raise UsageError(
                "there is no database", place=str(path), hint="ingest some logs first, or name it: --db PATH"
            )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    base = duckdb.connect(":memory:")
    spill = Path(f"{path}.tmp")
    try:
        base.execute(f"SET temp_directory = {_quoted(str(spill))}")
        _attach(base, path, compress)
        spill.mkdir(mode=0o700, exist_ok=True)  # DuckDB itself would make it readable for everybody
    except BaseException:
        base.close()
        raise
    engine = sqlalchemy.create_engine(
        "duckdb:///:memory:", creator=lambda: ConnectionWrapper(base.cursor()), poolclass=QueuePool, max_overflow=-1
    )
    sqlalchemy.event.listen(engine, "connect", _use_catalog)

    def close() -> None:
        engine.dispose()
        shutil.rmtree(spill, ignore_errors=True)  # still under the file's lock: it is ours
        base.close()

    return Opened(engine, close, path)


def _use_catalog(connection: Any, _record: Any) -> None:
    connection.execute(f"USE {CATALOG}")


def _attach(base: duckdb.DuckDBPyConnection, path: Path, compress: bool) -> None:
    base.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    options = f"TYPE duckdb, ROW_GROUP_SIZE {ROW_GROUP_SIZE}, STORAGE_VERSION '{STORAGE_VERSION}'"
    try:
        with private_files():
            base.execute(f"ATTACH {_quoted(str(path))} AS {CATALOG} ({options})")
    except duckdb.Error as cause:
        raise _attach_error(str(cause), path) from cause
    for file in (path, Path(f"{path}.wal")):
        if file.exists():
            file.chmod(0o600)
    # Left to choose, DuckDB takes dictionaries for texts under 4 KiB: twice the size, and slower.
    base.execute(f"SET force_compression = '{'zstd' if compress else 'uncompressed'}'")
    for setting in _LOCKED:
        base.execute(f"SET {setting}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _attach_error(message: str, path: Path) -> StoreError | UsageError:
    place = str(path)
    holder = re.search(r"lock is held in (.*?) \(PID (\d+)\)", message)
    if holder or "Could not set lock" in message:
        who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
        hint = "wait until it ends, or stop it; a live run can be followed through its journal; or use another --db"
        return DatabaseBusy(f"{who} has the database open", place=place, hint=hint)
    if "already attached" in message or "file handle conflict" in message:
        hint = "close the other Database first, or share it"
        return DatabaseBusy(f"process {os.getpid()} (this one) has the database open", place=place, hint=hint)
    if "not a valid DuckDB database" in message:
        return UsageError("the file is not a DuckDB database", place=place, hint="choose another file: --db PATH")
    if "version number" in message:
        return SchemaTooNew("the file was written by a newer DuckDB", place=place, hint="pip install --upgrade duckdb")
    if "Cannot open file" in message:
        return UsageError(message.splitlines()[0], place=place, hint="check the path and its permissions")
    return StoreError(f"the database cannot be opened: {message.splitlines()[0]}", place=place)


def _open_server(location: str) -> Opened:
    try:
        url = sqlalchemy.make_url(location)
    except sqlalchemy.exc.ArgumentError as cause:
        raise UsageError("the database URL cannot be read", hint="postgresql://user@host/name") from cause
    if url.get_backend_name() != "postgresql":
        hint = "a DuckDB file is given by its path, a server as postgresql://user@host/name"
        raise UsageError(f"no support for {url.get_backend_name()!r} databases", hint=hint)
    place = url.render_as_string(hide_password=True)
    try:
        engine = sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg"))
    except ModuleNotFoundError as cause:
        raise MissingExtra("PostgreSQL needs psycopg", hint="pip install 'ttc-replay[postgres]'") from cause
    try:
        engine.connect().close()
    except sqlalchemy.exc.DBAPIError as cause:
        engine.dispose()
        first = str(cause.orig).strip().splitlines()[0]
        raise StoreError(f"the database cannot be reached: {first}", place=place) from cause
    return Opened(engine, engine.dispose, None)
