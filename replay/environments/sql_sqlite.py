"""SQLite worlds: an image is the bytes of a database, or a file of our own when they are many.

Reading connections are pooled and shared by all forks of an image. A writer is private; its image is taken with
`serialize()`, a large one with `backup()`. An authorizer lets a statement do what is listed and nothing else.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .sql_results import Limits, Refused, Result, TimedOut, WriteNeeded

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"SQLite format 3\x00"
MAX_VALUE_BYTES = 8_000_000
"""The largest text or blob that a statement may make."""
LARGE_BYTES = 16 * 2**20
"""Databases from this size on are files: each reader and each writer of bytes has a copy of them in memory."""
STEPS_PER_CHECK = 20_000
"""Instructions of SQLite's machine between two looks at the clock: about half a millisecond."""
_READS = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE))
_WRITES = frozenset(
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        *("INSERT", "UPDATE", "DELETE", "ALTER_TABLE", "REINDEX", "ANALYZE"),
        *(f"{verb}_{kind}" for verb in ("CREATE", "DROP") for kind in ("TABLE", "INDEX", "VIEW", "TRIGGER")),
    )
)
_SCRIPTS = frozenset((sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT))
_PRAGMAS = frozenset(
    ("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list")
)
_FORBIDDEN_FUNCTIONS = frozenset(("load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"))
_SCHEMA_TABLES = ("sqlite_master", "sqlite_schema")


class Guarded:
    """One connection under guard. `writable` False: a statement that would write raises WriteNeeded."""

    def __init__(self, content: bytes | Path | None, *, writable: bool, script: bool = False):
        self._connection = _connected(content, writable=writable)
        self._writable, self._script = writable, script
        self._deadline = 0.0
        self._late = False
        self._denied: str | None = None
        self._asked = False
        self._reading = not writable
        self.wrote = False
        self._connection.execute("PRAGMA trusted_schema=OFF")
        if not writable:
            self._connection.execute("PRAGMA query_only=ON")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._connection.set_authorizer(self._allowed)
        self._connection.set_progress_handler(self._clock, STEPS_PER_CHECK)

    def run(self, sql: str, limits: Limits, *, reading: bool = False) -> Result:
        """Execute one statement. Raises Refused with a text for the agent, WriteNeeded or TimedOut."""
        self._reading = reading or not self._writable
        with self._guard(limits.timeout_seconds), closing(self._connection.cursor()) as cursor:
            cursor.execute(sql)
            if cursor.description is None:
                if not self._asked:
                    raise Refused("no statement")
                return Result(changed=cursor.rowcount if cursor.rowcount >= 0 else None)
            rows = cursor.fetchmany(limits.max_rows + 1)
            columns = tuple(str(item[0]) for item in cursor.description)
            kept = rows[: limits.max_rows]
            return Result(columns, _types(len(columns), kept), kept, len(rows) > len(kept))

    def run_script(self, sql: str, timeout_seconds: float) -> None:
        """Execute many statements. Raises Refused."""
        with self._guard(timeout_seconds):
            self._connection.executescript(sql)

    def content(self) -> bytes | Path:
        """The database as bytes, or a new file in a folder of its own."""
        self._connection.set_authorizer(None)  # it would refuse a pragma of `serialize` itself
        try:
            return saved(self._connection)
        finally:
            self._connection.set_authorizer(self._allowed)

    def close(self) -> None:
        """Close the connection; twice is harmless."""
        self._connection.close()

    @contextmanager
    def _guard(self, seconds: float) -> Iterator[None]:
        self._deadline, self._late = time.monotonic() + seconds, False
        self._denied, self._asked = None, False
        try:
            yield
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:  # ValueError: NUL in the text
            raise self._reason(error, seconds) from error
        finally:
            if not self._script and self._connection.in_transaction:
                self._connection.rollback()

    def _reason(self, error: Exception, seconds: float) -> Refused:
        if self._late:
            return TimedOut(f"stopped: the statement ran longer than {seconds:g} s")
        if self._denied is None:
            return Refused(str(error))
        if self._denied == "write":
            return WriteNeeded("not allowed: the database is read-only")
        return Refused(f"not allowed: {self._denied}")

    def _clock(self) -> int:
        self._late = time.monotonic() > self._deadline
        return int(self._late)

    def _allowed(self, action: int, first: str | None, second: str | None, database: str | None, _: str | None) -> int:
        self._asked = True
        denied = self._denial(action, first, second, database)
        if denied is None:
            return sqlite3.SQLITE_OK
        if self._script and action == sqlite3.SQLITE_PRAGMA:
            return sqlite3.SQLITE_IGNORE  # dumps begin with some
        self._denied = denied
        return sqlite3.SQLITE_DENY

    def _denial(self, action: int, first: str | None, second: str | None, database: str | None) -> str | None:
        if action == sqlite3.SQLITE_FUNCTION and second in _FORBIDDEN_FUNCTIONS:
            return f"the function {second}"
        if action in _READS or (action in _SCRIPTS and self._script):
            return None
        if action == sqlite3.SQLITE_PRAGMA:
            return None if first in _PRAGMAS else f"PRAGMA {first}"
        if action in _WRITES:
            if first in _SCHEMA_TABLES and database == "main":
                return None  # seen while any table is made, and by table-valued pragmas; SQLite itself guards it
            if database == "temp":
                return "temporary objects"
            self.wrote = self.wrote or not self._reading
            return "write" if self._reading else None
        return "this kind of statement (only queries, and changes of rows, tables, views and indexes)"


def _types(count: int, rows: list[tuple[Any, ...]]) -> tuple[str, ...]:
    """SQLite types values, not columns: the type of a column is that of its values, ANY when they differ."""
    names = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}
    found: list[set[str]] = [{names[type(row[at])] for row in rows if row[at] is not None} for at in range(count)]
    return tuple(kinds.pop() if len(kinds) == 1 else "ANY" if kinds else "NULL" for kinds in found)


def _connected(content: bytes | Path | None, *, writable: bool) -> sqlite3.Connection:
    """A connection over an image. No statement comes from its cache, which would hide it from the authorizer."""
    place = ":memory:"
    if isinstance(content, Path):
        place = content.as_uri() + ("?mode=rw" if writable else "?mode=ro&immutable=1")
    connection = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False, cached_statements=0)
    if isinstance(content, bytes):
        connection.deserialize(content)
    return connection


def saved(connection: sqlite3.Connection) -> bytes | Path:
    """A copy of a connection's database: bytes, or a new file in a folder of its own when it is large."""
    size = connection.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]
    if size < LARGE_BYTES:
        return plain_journal(connection.serialize())
    path = _new_file()
    with closing(sqlite3.connect(path)) as copy:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    return path


def _new_file() -> Path:
    return Path(tempfile.mkdtemp(prefix="ttc-sql-")) / "world.sqlite"


def plain_journal(content: bytes) -> bytes:
    """The image with its write-ahead mark (bytes 18 and 19 of the header) taken off: in memory there is no such log."""
    return content[:18] + b"\x01\x01" + content[20:] if content[18:20] == b"\x02\x02" else content


class SqliteImage:
    """An unchanging database. Connections that only read are pooled: one thread at a time has one."""

    engine = "sqlite"

    def __init__(self, content: bytes | Path):
        self._content = content
        self.digest = digest_of(content)
        self._idle: list[Guarded] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _discard, self._idle, content)

    @property
    def content(self) -> bytes:
        """The database as bytes."""
        return self._content if isinstance(self._content, bytes) else self._content.read_bytes()

    def run(self, sql: str, limits: Limits) -> Result:
        """Execute one reading statement. Raises Refused, WriteNeeded, TimedOut."""
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        reader = reader or Guarded(self._content, writable=False)
        try:
            return reader.run(sql, limits)
        finally:
            with self._lock:
                self._idle.append(reader)

    def open(self) -> SqliteWriter:
        """A private copy that may be changed."""
        content = self._content
        if isinstance(content, Path):
            content = Path(shutil.copyfile(content, _new_file()))
        return SqliteWriter(content)


def digest_of(content: bytes | Path) -> str:
    """SHA-256 of the bytes."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _discard(readers: list[Guarded], content: bytes | Path) -> None:
    while readers:
        with suppress(sqlite3.Error):
            readers.pop().close()
    if isinstance(content, Path):
        shutil.rmtree(content.parent, ignore_errors=True)


class SqliteWriter:
    """A private copy. `changed`: a statement may have written since it was opened or last imaged."""

    def __init__(self, content: bytes | Path):
        self._guarded = Guarded(content, writable=True)
        self._finalizer = weakref.finalize(self, _discard, [self._guarded], content)

    @property
    def changed(self) -> bool:
        """Whether its content may differ from its last image."""
        return self._guarded.wrote

    def run(self, sql: str, limits: Limits, *, reading: bool = False) -> Result:
        """Execute one statement. Raises Refused, TimedOut; WriteNeeded when it may only read."""
        return self._guarded.run(sql, limits, reading=reading)

    def image(self) -> SqliteImage:
        """What the database is now, as an unchanging image."""
        self._guarded.wrote = False
        return SqliteImage(self._guarded.content())

    def digest(self) -> str:
        """Equal digests mean equal databases."""
        content = self._guarded.content()
        try:
            return digest_of(content)
        finally:
            _discard([], content)

    def close(self) -> None:
        """Drop the copy; twice is harmless."""
        self._finalizer()


def image_of_file(path: Path) -> SqliteImage:
    """A copy of a user's file, which is only read. Raises Refused.

    A file with a write-ahead mark and no log beside it is opened as immutable: opening it otherwise would leave two
    empty files beside it.
    """
    try:
        with path.open("rb") as stream:
            write_ahead = stream.read(20)[18:20] == b"\x02\x02"
        quiet = write_ahead and not path.with_name(f"{path.name}-wal").exists()
        source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if quiet else ''}", uri=True)
        with closing(source):
            return SqliteImage(saved(source))
    except (sqlite3.Error, OSError) as error:
        raise Refused(str(error)) from error


def image_of_connection(connection: sqlite3.Connection) -> SqliteImage:
    """A copy of a database that a builder made; the connection is closed."""
    with closing(connection):
        connection.commit()
        return SqliteImage(saved(connection))


def image_of_script(sql: str, timeout_seconds: float) -> SqliteImage:
    """The database that a script makes, under the same guard as the agent's statements. Raises Refused."""
    with closing(Guarded(None, writable=True, script=True)) as guarded:
        guarded.run_script(sql, timeout_seconds)
        return SqliteImage(guarded.content())
