"""`sql`: an analyst agent over an SQLite or DuckDB database.

The world is an unchanging image that all forks share, an answer, and what was seen; only a world that wrote has a
private copy of the database, and its fork an image of that. Whatever is wrong with a call, a statement that is not
allowed included, is an observation (`{"error": ...}`) and changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...storage.canonical import canonical_json
from ...storage.errors import UsageError
from ...storage.records import Message, StepResult, Task, ToolCall, ToolSchema
from . import sql_catalogue as catalogue
from .sql_results import Limits, Refused, Result, WriteNeeded, shown, text_of
from .sql_source import Image, Source, Writer
from .sql_tools import checked, sql_tools

CATALOGUE_ROWS = 10_000
"""Tables, columns or keys that the catalogue reads at most."""


class SqlEnvironment:
    """Tools `list_tables, describe, sample, run_sql, answer`; ends with an `answer` that could be executed.

    `database`: a file (SQLite or DuckDB, only read; `{key}` is filled in from the task). `build`: `module:function` or
    a function, called with the task; gives a connection or a script. With neither, `Task.data["database_sql"]` is the
    script. `engine`: of scripts. `writable`: statements may change the world's own copy. `instructions`: the system
    message of tasks whose log has none. Raises UsageError for options that cannot be.
    """

    def __init__(
        self,
        database: str | None = None,
        build: str | Callable[[Task], Any] | None = None,
        engine: str = "sqlite",
        *,
        writable: bool = False,
        instructions: str | None = None,
        timeout_seconds: float = 10.0,
        max_rows: int = 50,
        max_bytes: int = 16_384,
        normalise: Mapping[str, Any] | None = None,
    ):
        if not (math.isfinite(timeout_seconds) and timeout_seconds > 0 and max_rows > 0 and max_bytes > 0):
            raise UsageError("timeout_seconds, max_rows and max_bytes of the environment sql are numbers above 0")
        self._source = Source(database, build, engine)
        self._writable, self._instructions = writable, instructions
        self._limits = Limits(timeout_seconds, max_rows, max_bytes)
        self.normalise = normalise
        self._image: Image | None = None
        self._writer: Writer | None = None
        self._answer: dict[str, Any] | None = None
        self._seen: frozenset[str] = frozenset()

    def reset(self, task: Task) -> list[Message]:
        """Open the task's database; the prompt, as far as task and options have one. Raises UsageError."""
        self.close()
        self._image = self._source.image(task)
        self._answer, self._seen = None, frozenset()
        system = [Message("system", self._instructions)] if self._instructions else []
        return system + ([Message("user", task.prompt)] if task.prompt else [])

    def step(self, action: Message) -> StepResult:
        """Execute the calls of a message in order; the run is over when one of them was an answer that stands."""
        return StepResult([self._execute(call) for call in action.tool_calls], self._answer is not None)

    def fork(self) -> SqlEnvironment:
        """An independent copy. The image is shared; a world that wrote since its last image makes a new one."""
        if self._writer is not None and self._writer.changed:
            self._image = self._writer.image()
        copy = SqlEnvironment.__new__(SqlEnvironment)
        copy.__dict__.update(self.__dict__)
        copy._writer = None
        return copy

    def tools(self) -> list[ToolSchema]:
        """The five tools."""
        return sql_tools(self._writable)

    def state(self) -> dict[str, Any]:
        """Engine, digest of the database, and the answer: `sql`, `value` and the observation's `result`, or null."""
        return {"engine": self._opened().engine, "database": self._digest(), "answer": self._answer}

    def state_key(self) -> str:
        """Equal: the same database, the same answer, and the same things seen, in whatever order."""
        known = canonical_json([self._digest(), self._answer, sorted(self._seen)])
        return hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest()

    def close(self) -> None:
        """Drop the private copy, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> Image:
        if self._image is None:
            raise RuntimeError("reset(task) comes before any other call")
        return self._image

    def _digest(self) -> str:
        if self._writer is not None and self._writer.changed:
            return self._writer.digest()
        return self._opened().digest

    def _execute(self, call: ToolCall) -> Message:
        try:
            arguments = checked(call.name, call.arguments)
            if self._answer is not None:
                raise Refused("the answer was given already")
            said = _HANDLERS[call.name](self, arguments)
        except Refused as refused:
            said = {"error": str(refused)}
        text = text_of(said)
        self._seen |= {hashlib.sha256(f"{call.name} {text}".encode("utf-8", "surrogatepass")).hexdigest()}
        return Message("tool", text, tool_call_id=call.id, name=call.name)

    def _run(self, sql: str, limits: Limits | None = None, *, reading: bool = False) -> Result:
        """On the private copy where there is one; else on the shared image, until a statement has to write."""
        limits = limits or self._limits
        if self._writer is not None:
            return self._writer.run(sql, limits, reading=reading)
        try:
            return self._opened().run(sql, limits)
        except WriteNeeded:
            if reading or not self._writable:
                raise
        self._writer = self._opened().open()
        return self._writer.run(sql, limits)

    def _catalogue(self, sql: str) -> Result:
        return self._run(sql, replace(self._limits, max_rows=CATALOGUE_ROWS), reading=True)

    def _list_tables(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {"tables": catalogue.tables(self._opened().engine, self._catalogue)}

    def _describe(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return catalogue.describe(self._opened().engine, self._catalogue, arguments["table"])

    def _sample(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        name = catalogue.quoted_name(self._opened().engine, self._catalogue, arguments["table"])
        rows = min(arguments.get("rows", 5), self._limits.max_rows)
        return shown(self._run(f"SELECT * FROM {name} LIMIT {rows}"), self._limits)  # noqa: S608 - name is quoted

    def _run_sql(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return shown(self._run(arguments["sql"]), self._limits)

    def _give_answer(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The answer stands when its statement gives a result, or when it has a value only."""
        sql, value = arguments.get("sql"), arguments.get("value")
        if sql is None and value is None:
            raise Refused("an answer has sql, or a value, or both")
        result = None
        if sql is not None:
            result = shown(self._run(sql, reading=True), self._limits)
        self._answer = {"sql": sql, "value": value, "result": result}
        return {"answered": True} if result is None else {"answered": True, **result}


_HANDLERS: dict[str, Callable[[SqlEnvironment, Mapping[str, Any]], dict[str, Any]]] = {
    "list_tables": SqlEnvironment._list_tables,
    "describe": SqlEnvironment._describe,
    "sample": SqlEnvironment._sample,
    "run_sql": SqlEnvironment._run_sql,
    "answer": SqlEnvironment._give_answer,
}
