"""What every part of the archive stands on: one open database, its transactions, and read-only SQL for people."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any

import duckdb
import pyarrow  # type: ignore[import-untyped]
import sqlalchemy.exc
from sqlalchemy import Connection, func, select

from .engines import Opened, all_threads, open_engine, private_files
from .errors import StoreError, UsageError
from .kill_points import kill_point
from .migrations import migrate
from .schema import VIEWS, metadata

_READS = re.compile(r"\s*(select|with|values|show|table|explain)\b", re.IGNORECASE)


class Store:
    """One open database. Safe to use from several threads; writes wait for each other."""

    def __init__(self, location: str, opened: Opened, schema: int):
        self.location = location
        self._opened = opened
        self._engine = opened.engine
        self._schema = schema
        self._writing = threading.Lock()

    def close(self) -> None:
        """Give the file (and its lock) back. Harmless twice."""
        kill_point("database.close")
        self._opened.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction, one writer: committed when the block ends, undone when it raises."""
        try:
            with self._writing, self._engine.connect() as connection:
                transaction = connection.begin()
                kill_point("database.begin")
                yield connection
                kill_point("database.commit")
                with private_files():
                    transaction.commit()
            kill_point("database.committed")
        except sqlalchemy.exc.DBAPIError as cause:
            raise StoreError(f"the database refused a write: {_brief(cause.orig)}", place=self._place) from cause

    @property
    def _place(self) -> str:
        """The location without a password."""
        return self._engine.url.render_as_string() if self._opened.file is None else self.location

    def query(self, sql: str, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and at most `limit` rows of one statement that only reads; nothing it does is kept.

        Raises UsageError when it is not one SELECT, WITH, VALUES, DESCRIBE or SHOW, or when the database refuses it.
        """
        with self._reading(sql) as cursor:
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        return names, rows

    def arrow(self, sql: str) -> pyarrow.Table:
        """As `query`, all rows as an Arrow table (for Parquet)."""
        with self._reading(sql) as cursor:
            if self._engine.dialect.name == "duckdb":
                return cursor.to_arrow_table()
            names = [column[0] for column in cursor.description]
            columns = list(zip(*cursor.fetchall(), strict=True)) or [()] * len(names)
            return pyarrow.table([pyarrow.array(column) for column in columns], names=names)

    @contextmanager
    def _reading(self, sql: str) -> Iterator[Any]:
        """A driver cursor with the result of one read-only statement, in a transaction that is rolled back."""
        duck = self._engine.dialect.name == "duckdb"
        options = {} if duck else {"postgresql_readonly": True}
        try:
            self._only_reads(sql)
            with self._engine.connect().execution_options(**options) as connection:
                driver: Any = connection.connection.driver_connection
                with all_threads(driver) if duck else nullcontext(), _rolled_back(connection):
                    # A prepared statement is one statement: PostgreSQL refuses `SELECT 1; COMMIT; DELETE ...` itself.
                    yield driver.execute(sql) if duck else driver.execute(sql, prepare=True)
        except (duckdb.Error, sqlalchemy.exc.DBAPIError, self._engine.dialect.loaded_dbapi.Error) as cause:
            raise UsageError(f"SQL: {_brief(cause)}", hint=f"the views are {', '.join(VIEWS)}") from cause

    def _only_reads(self, sql: str) -> None:
        if self._engine.dialect.name == "duckdb":
            kinds = [statement.type for statement in duckdb.extract_statements(sql)]
            reads = kinds == [duckdb.StatementType.SELECT]
        else:
            reads = _READS.match(sql) is not None
        if not reads:
            raise UsageError(
                "SQL: only one SELECT, WITH, VALUES, DESCRIBE or SHOW statement is run",
                hint="what is stored changes through ingest, search and export only",
            )

    def info(self) -> Mapping[str, Any]:
        """Versions, schema, sizes in bytes and rows per table, for `doctor`."""
        file = self._opened.file
        sizes = (
            [path.stat().st_size if path.exists() else 0 for path in (file, file.with_name(file.name + ".wal"))]
            if file
            else []
        )
        with self._read() as connection:
            rows = {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in metadata.tables.items()
            }
            server = ".".join(str(part) for part in connection.dialect.server_version_info or ())
        return {
            "location": self._place,
            "database": self._engine.dialect.name,
            "database_version": duckdb.__version__ if file else server,
            "sqlalchemy_version": sqlalchemy.__version__,
            "schema_version": self._schema,
            "bytes": sizes[0] if sizes else None,
            "log_bytes": sizes[1] if sizes else None,
            "rows": rows,
        }


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    transaction = connection.begin()
    try:
        yield
    finally:
        transaction.rollback()


def open_store(location: str, *, create: bool, compress: bool) -> tuple[Opened, int]:
    """Open and migrate; closes again when that fails. Raises what `engines.open_engine` and `migrate` raise."""
    opened = open_engine(location, create=create, compress=compress)
    kill_point("database.attached")
    try:
        with private_files():
            return opened, migrate(opened.engine)
    except BaseException:
        opened.close()
        raise


def _brief(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:400]


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
