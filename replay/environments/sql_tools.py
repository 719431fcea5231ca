"""The tools of the `sql` environment: schemas, and the check of arguments against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...storage.records import ToolSchema
from .sql_results import Refused

_TABLE: dict[str, Any] = {"type": "string", "description": "Name of a table or view"}
_QUERY: dict[str, Any] = {"type": "string", "description": "The final query; its result is the answer"}
_VALUE: dict[str, Any] = {
    "type": ["string", "number", "boolean", "array"],
    "description": "The answer itself: one value, or a list of rows",
}


def _tool(name: str, description: str, properties: Mapping[str, Any], required: tuple[str, ...]) -> ToolSchema:
    parameters = {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def sql_tools(writable: bool) -> list[ToolSchema]:
    """The five tools, in a fixed order."""
    allowed = "it may change the database" if writable else "the database is read-only"
    statement = {"type": "string", "description": "One SQL statement"}
    return [
        _tool("list_tables", "Tables and views of the database.", {}, ()),
        _tool("describe", "Columns, keys and number of rows of a table.", {"table": _TABLE}, ("table",)),
        _tool(
            "sample",
            "The first rows of a table.",
            {"table": _TABLE, "rows": {"type": "integer", "minimum": 1, "description": "How many; default 5"}},
            ("table",),
        ),
        _tool("run_sql", f"Execute one SQL statement ({allowed}).", {"sql": statement}, ("sql",)),
        _tool(
            "answer", "Give the final answer: sql, value, or both. Ends the work.", {"sql": _QUERY, "value": _VALUE}, ()
        ),
    ]


_KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "list_tables": {},
    "describe": {"table": (str,)},
    "sample": {"table": (str,), "rows": (int,)},
    "run_sql": {"sql": (str,)},
    "answer": {"sql": (str,), "value": (str, int, float, bool, list)},
}
_REQUIRED = {"describe": "table", "sample": "table", "run_sql": "sql"}


def checked(name: str, arguments: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The arguments of a call, null ones left out. Raises Refused."""
    kinds = _KINDS.get(name)
    if kinds is None:
        raise Refused(f"there is no tool {name}")
    if arguments is None:
        raise Refused("the arguments are not a JSON object")
    given = {key: value for key, value in arguments.items() if value is not None}
    for key, value in given.items():
        if key not in kinds:
            raise Refused(f"{name} has no argument {key!r}")
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and bool not in kinds[key]):
            raise Refused(f"{key} must be {' or '.join(kind.__name__ for kind in kinds[key])}")
    if (needed := _REQUIRED.get(name)) is not None and needed not in given:
        raise Refused(f"{name} needs {needed}")
    if given.get("rows", 1) < 1:
        raise Refused("rows is a number from 1 up")
    return given
