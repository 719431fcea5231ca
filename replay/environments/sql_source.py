"""Where the database of a task comes from: a file, a builder, or a script in the task; images are kept and shared.

The user's file is only ever read. Worlds of one task, and all their forks, share one unchanging image.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sqlite3
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, TypeAlias, get_args

from ...storage.canonical import canonical_json, content_id
from ...storage.errors import UsageError
from ...storage.records import Task
from .sql_results import Limits, Refused, Result

Engine: TypeAlias = Literal["sqlite", "duckdb"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
SCRIPT = "database_sql"
"""Key of a script in `Task.data`, or in its `metadata`."""
IMAGES = 16
"""Images kept for worlds to come; those that a world holds stay in any case."""
SCRIPT_SECONDS = 60.0
_FIELD = re.compile(r"\{(\w+)\}")
_PLAIN_NAME = re.compile(r"\w[\w.-]*")


class Writer(Protocol):
    """A private copy of a database that may be changed. `changed`: it may differ from its last image."""

    @property
    def changed(self) -> bool: ...  # noqa: D102
    def run(self, sql: str, limits: Limits, *, reading: bool = False) -> Result: ...  # noqa: D102
    def image(self) -> Image: ...  # noqa: D102
    def digest(self) -> str: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Image(Protocol):
    """An unchanging database, shared by any number of worlds and threads."""

    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    def run(self, sql: str, limits: Limits) -> Result: ...  # noqa: D102
    def open(self) -> Writer: ...  # noqa: D102


class Source:
    """Says, for each task, which database. `database`: a file, `{key}` in it is filled in from the task; `build`: a
    function of the task, or where it is. With neither the task brings a script. Raises UsageError."""

    def __init__(self, database: str | None, build: str | Callable[[Task], Any] | None, engine: str):
        if database is not None and build is not None:
            raise UsageError("the environment sql takes database or build, not both")
        if engine not in ENGINES:
            raise UsageError(f"engine {engine!r}", hint=f"one of: {', '.join(ENGINES)}")
        self._database, self._engine = database, engine
        self._build = loaded(build) if isinstance(build, str) else build
        if database is not None and not _FIELD.search(database):
            _existing(Path(database))

    def image(self, task: Task) -> Image:
        """The task's database. Raises UsageError for what cannot be found or read; a builder raises what it raises."""
        if self._database is not None:
            path = _existing(Path(_filled(self._database, task)))
            status = path.stat()
            return _kept(("file", str(path), status.st_mtime_ns, status.st_size), lambda: _of_file(path))
        build, engine = self._build, self._engine
        if build is not None:
            said = canonical_json([task.id, task.seed, task.prompt, dict(task.data), dict(task.private)])
            return _kept(("build", build, engine, said), lambda: _of_built(build(task), engine))
        script = _script(task)
        return _kept(("script", engine, script), lambda: _of_script(script, engine))


def loaded(place: str) -> Callable[[Task], Any]:
    """The function at `package.module:function` or `./file.py:function`. Raises UsageError."""
    name, colon, attribute = place.rpartition(":")
    if not colon or not name:
        raise UsageError(f"build={place}", hint="package.module:function, or ./file.py:function")
    try:
        module = _file_module(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        found = reduce(getattr, attribute.split("."), module)
    except (ImportError, AttributeError, OSError) as error:
        raise UsageError(f"build={place}: {error}", hint="package.module:function, or ./file.py:function") from error
    if not callable(found):
        raise UsageError(f"build={place} is not a function")
    function: Callable[[Task], Any] = found
    return function


def _file_module(path: Path) -> ModuleType:
    place = path.resolve()
    name = f"ttc_replay_sql_{content_id(str(place))[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None or not place.is_file():
        raise ImportError(f"there is no file {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _filled(template: str, task: Task) -> str:
    """`{key}` becomes the task's value, which must be one plain name: no log chooses a path of its own."""
    values = {**_mapping(task.data.get("metadata")), **task.data, "id": task.id}

    def value(found: re.Match[str]) -> str:
        text = str(values.get(found[1], ""))
        if not _PLAIN_NAME.fullmatch(text):
            raise UsageError(f"task {task.id!r}: {found[1]} = {text!r} is no plain name for {template!r}")
        return text

    return _FIELD.sub(value, template)


def _script(task: Task) -> str:
    script = task.data.get(SCRIPT, _mapping(task.data.get("metadata")).get(SCRIPT))
    if not isinstance(script, str):
        hint = f"--env-opt database=FILE or build=module:function, or {SCRIPT!r} in the task's data"
        raise UsageError(f"task {task.id!r} has no database", hint=hint)
    return script


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"there is no database file {path}", hint="--env-opt database=FILE")
    return path.resolve()


_images: OrderedDict[Hashable, Image] = OrderedDict()
_lock = threading.RLock()  # a builder may use a world of its own


def _kept(key: Hashable, make: Callable[[], Image]) -> Image:
    """The image of that key, made at most once at a time. Raises UsageError for what the engine refused."""
    with _lock:
        found = _images.get(key)
        if found is None:
            try:
                found = _images[key] = make()
            except Refused as error:
                raise UsageError(f"the database could not be made: {error}") from error
        _images.move_to_end(key)
        while len(_images) > IMAGES:
            _images.popitem(last=False)
        return found


def _of_file(path: Path) -> Image:
    from . import sql_sqlite

    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(sql_sqlite.MAGIC):
        return sql_sqlite.image_of_file(path)
    from . import sql_duckdb

    if head[8:12] == sql_duckdb.MAGIC:
        return sql_duckdb.image_of_file(path)
    raise Refused(f"{path} is neither an SQLite nor a DuckDB database")


def _of_built(made: Any, engine: str) -> Image:
    if isinstance(made, str):
        return _of_script(made, engine)
    if isinstance(made, sqlite3.Connection):
        from . import sql_sqlite

        return sql_sqlite.image_of_connection(made)
    if type(made).__name__ == "DuckDBPyConnection":
        from . import sql_duckdb

        return sql_duckdb.image_of_connection(made)
    raise Refused(f"the builder gave {type(made).__name__}: an SQLite or DuckDB connection or a script is needed")


def _of_script(script: str, engine: str) -> Image:
    if engine == "duckdb":
        from . import sql_duckdb

        return sql_duckdb.image_of_script(script, SCRIPT_SECONDS)
    from . import sql_sqlite

    return sql_sqlite.image_of_script(script, SCRIPT_SECONDS)
