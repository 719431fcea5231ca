"""What an analyst may ask of a database beside queries: which tables, which columns, the first rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .sql_results import Refused, Result

Run = Callable[[str], Result]
"""Executes a statement under guard."""
_SQLITE_TABLES = r"""
SELECT name, type, (SELECT count(*) FROM pragma_table_xinfo(m.name)) FROM sqlite_master m
WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name"""
_DUCKDB_TABLES = """
SELECT if(schema_name = 'main', '', schema_name || '.') || table_name, kind, column_count FROM (
  SELECT schema_name, table_name, 'table' AS kind, column_count FROM duckdb_tables() WHERE NOT internal
  UNION ALL SELECT schema_name, view_name, 'view', column_count FROM duckdb_views() WHERE NOT internal) ORDER BY 1"""


def tables(engine: str, run: Run) -> list[dict[str, Any]]:
    """Tables and views by name, with their number of columns."""
    found = run(_DUCKDB_TABLES if engine == "duckdb" else _SQLITE_TABLES).rows
    return [{"table": name, "kind": kind, "columns": columns} for name, kind, columns in found]


def describe(engine: str, run: Run, table: str) -> dict[str, Any]:
    """Columns (name, type, nullable, primary key), foreign keys and number of rows. Raises Refused."""
    quoted = quoted_name(engine, run, table)
    columns, foreign = (_duckdb if engine == "duckdb" else _sqlite)(run, table)
    rows = run(f"SELECT count(*) FROM {quoted}").rows[0][0]  # noqa: S608 - a name that the catalogue has, quoted
    return {"table": table, "rows": rows, "columns": columns, "foreign_keys": foreign}


def quoted_name(engine: str, run: Run, table: str) -> str:
    """The table's name as an identifier. Raises Refused for one that is not there."""
    known = [item["table"] for item in tables(engine, run)]
    if table not in known:
        raise Refused(f"there is no table {table!r}; tables: {', '.join(known[:50])}")
    parts = table.split(".", 1) if engine == "duckdb" else [table]
    return ".".join(_quoted(part) for part in parts)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _sqlite(run: Run, table: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    info = run(f"PRAGMA table_xinfo({_quoted(table)})").rows
    columns = [
        {"name": name, "type": kind, "nullable": not (required or key), "primary_key": bool(key)}
        for _, name, kind, required, _, key, _ in info
    ]
    found = run(f"PRAGMA foreign_key_list({_quoted(table)})").rows
    links = [
        {"column": source, "references": f"{other}.{target or source}"} for _, _, other, source, target, *_ in found
    ]
    return columns, sorted(links, key=lambda item: item["column"])


def _duckdb(run: Run, table: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    schema, _, name = table.rpartition(".")
    which = f"schema_name = {_text(schema or 'main')} AND table_name = {_text(name)}"
    found = run(
        "SELECT constraint_type, constraint_column_names, referenced_table, referenced_column_names "  # noqa: S608
        f"FROM duckdb_constraints() WHERE {which} ORDER BY constraint_index"
    ).rows
    keys = {column for kind, names, *_ in found if kind == "PRIMARY KEY" for column in names}
    columns = [
        {"name": name, "type": kind, "nullable": nullable, "primary_key": name in keys}
        for name, kind, nullable in run(
            "SELECT column_name, data_type, is_nullable FROM duckdb_columns() "  # noqa: S608
            f"WHERE {which} ORDER BY column_index"
        ).rows
    ]
    links = [
        {"column": source, "references": f"{other}.{target}"}
        for kind, names, other, targets in found
        if kind == "FOREIGN KEY"
        for source, target in zip(names, targets, strict=True)
    ]
    return columns, sorted(links, key=lambda item: item["column"])
