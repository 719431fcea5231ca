"""Reader of LangGraph checkpoints: an SQLite file of `langgraph-checkpoint-sqlite`, or a PostgreSQL database by URL.

A thread is a tree of checkpoints. Each leaf is a trajectory: the latest is the main one, the others are branches of it
(`relation="branch"`, `branch_step` the first step that differs). A sub-graph (`checkpoint_ns`) is a sub-agent of the
thread that called it. Databases are opened read-only through the library's savers with a serializer that constructs
nothing (`langgraph_data`). Memory holds one thread at a time.

Usage and model come from the AI messages, times from the checkpoints around them; other channels of the last state are
`final_state`. A run that waits for a person ends with `exit_reason` "interrupted", one whose node failed with "error:".
Not kept: the state of checkpoints between (their writes are in the raw record), a write-ahead log of a database that
still has a writer (it is reported), and sampling parameters and tool schemas, which checkpoints do not hold.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import MissingExtra
from ..records import Rejected, Source, Trajectory
from .json_input import Head, as_file
from .json_text import MAX_RECORD_BYTES, NOT_READ, BadRecord, wrong_shape
from .langgraph_data import DataSerializer
from .langgraph_runs import Namespace, thread_runs

_TABLES = ("checkpoints", "writes")
_LISTED = "SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id FROM checkpoints ORDER BY 1, 2, 3"
_TABLE_KINDS = "SELECT name, type, sql FROM sqlite_master WHERE name IN ('checkpoints', 'writes')"
_HINT = "pip install 'ttc-replay[langgraph]'"


class LangGraphReader:
    """Reads checkpoints of LangGraph."""

    name = "langgraph"
    empty_is_valid = True

    def detect(self, head: Head) -> float:
        """0.97 for an SQLite database that has LangGraph's tables."""
        if not head.data.startswith(b"SQLite format 3\x00"):
            return 0.0
        return 0.97 if b"checkpoint_ns" in head.data and b"parent_checkpoint_id" in head.data else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the trajectories of every thread, or what is wrong with it. Raises MissingExtra without LangGraph."""
        source = replace(source, format=self.name)
        saver_class = _sqlite_saver()
        with as_file(stream, ".sqlite") as path:
            try:
                with closing(_connected(path)) as connection:
                    yield from _read_sqlite(connection, saver_class, source)
            except BadRecord as error:
                yield Rejected(error.problem(), fatal=True)
            except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
                problem = BadRecord(NOT_READ, f"SQLite: {str(error)[:120] or type(error).__name__}")
                yield Rejected(problem.problem(), fatal=True)

    def read_postgres(self, url: str, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the trajectories of every thread in the PostgreSQL database at `url` (`postgresql://...`), read-only.

        A database that cannot be read is one fatal Rejected; no message has the password. Raises MissingExtra.
        """
        source = replace(source, format=self.name)
        psycopg, saver_class = _postgres_saver()
        address = url.replace("postgresql+psycopg://", "postgresql://", 1)
        try:
            with psycopg.connect(address, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
                connection.execute("SET default_transaction_read_only = on")
                saver = saver_class(connection, serde=DataSerializer())
                listed = [tuple(row.values()) for row in connection.execute(_LISTED).fetchall()]
                yield from _read_threads(_Database(listed, saver, psycopg.Error), source)
        except psycopg.Error as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            yield Rejected(BadRecord(NOT_READ, f"PostgreSQL: {said[0][:160]}").problem(), fatal=True)


def _sqlite_saver() -> Any:
    try:
        from langgraph.checkpoint.sqlite import SqliteSaver
    except ImportError:
        raise MissingExtra("LangGraph checkpoints need the package langgraph-checkpoint-sqlite", hint=_HINT) from None
    return SqliteSaver


def _postgres_saver() -> tuple[Any, Any]:
    try:
        import psycopg
        import psycopg.rows
        from langgraph.checkpoint.postgres import PostgresSaver
    except ImportError:
        hint = "pip install 'ttc-replay[langgraph,postgres]'"
        raise MissingExtra("PostgreSQL checkpoints need langgraph-checkpoint-postgres and psycopg", hint=hint) from None
    return psycopg, PostgresSaver


def _connected(path: str) -> sqlite3.Connection:
    """A private copy, opened so that nothing in it can act: no writing, no functions of its schema, no huge values."""
    connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_BYTES)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA query_only=ON")
    return connection


def _read_sqlite(connection: sqlite3.Connection, saver_class: Any, source: Source) -> Iterator[Trajectory | Rejected]:
    connection.text_factory = _text
    kinds = {name: (kind, str(sql)) for name, kind, sql in connection.execute(_TABLE_KINDS)}
    for name in _TABLES:
        kind, sql = kinds.get(name, ("", ""))
        if kind != "table" or sql.lstrip().upper().startswith("CREATE VIRTUAL"):
            raise wrong_shape(f"no table {name}: not LangGraph's checkpoints")
    saver = saver_class(connection, serde=DataSerializer())
    saver.is_setup = True  # its own set-up would write
    columns = {row[1] for row in connection.execute("PRAGMA table_info(writes)")}
    saver._has_task_path = "task_path" in columns
    if _has_log(source.path):
        yield Rejected(BadRecord(NOT_READ, "a write-ahead log (-wal) lies beside the file and is not read").problem())
    yield from _read_threads(_Database(connection.execute(_LISTED).fetchall(), saver, sqlite3.Error), source)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _has_log(path: str) -> bool:
    try:
        return os.path.getsize(f"{path}-wal") > 0
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class _Database:
    """What is the same for both kinds: the tree of checkpoints, and the library's saver that reads one."""

    listed: list[tuple[Any, ...]]
    saver: Any
    failure: type[Exception]


def _read_threads(database: _Database, source: Source) -> Iterator[Trajectory | Rejected]:
    for thread_id, rows in groupby(database.listed, key=lambda row: str(row[0])):
        namespaces = [
            Namespace(thread_id, name, {str(row[2]): None if row[3] is None else str(row[3]) for row in group})
            for name, group in groupby(rows, key=lambda row: str(row[1]))
        ]
        yield from thread_runs(namespaces, lambda space: _fetcher(database, space), source)


def _fetcher(database: _Database, space: Namespace) -> Callable[[str], Any]:
    def fetch(checkpoint_id: str) -> Any:
        place: Mapping[str, Any] = {
            "thread_id": space.thread_id,
            "checkpoint_ns": space.name,
            "checkpoint_id": checkpoint_id,
        }
        try:
            return database.saver.get_tuple({"configurable": place})
        except BadRecord:
            raise
        except (
            database.failure,
            ValueError,
            TypeError,
            KeyError,
            LookupError,
            RecursionError,
            AttributeError,
        ) as error:
            raise wrong_shape(f"cannot be read: {type(error).__name__}: {str(error)[:80]}") from None

    return fetch
