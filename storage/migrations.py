"""Numbered migrations: each runs in one transaction together with its own record, on DuckDB and PostgreSQL alike.

A migration is frozen once released: it holds its own SQL and never looks at `schema.py`, which says what the tables are
after the last one. Allowed on DuckDB: create a table, add a nullable column, rebuild a table; nothing else by ALTER.
The views are dropped before each migration and made anew from `schema.VIEWS` after the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, inspect, select

from .errors import SchemaTooNew, StoreError
from .kill_points import kill_point
from .schema import VIEWS, schema_version, view_query

Migration = Callable[[Connection], None]


def m001_first_tables(connection: Connection) -> None:
    """Trajectories, steps, scores, runs, results, nodes, calls, exports and the fold's bookmarks."""
    for statement in _M001.split(";"):
        if statement.strip():
            connection.exec_driver_sql(statement)
    if connection.dialect.name == "postgresql":
        for statement in _M001_POSTGRESQL:
            connection.exec_driver_sql(statement)


def m002_more_of_the_logs(connection: Connection) -> None:
    """Times, relations, tags, usage, replayability, secrets, the conversation's hash; times and model of steps; the
    files that were read whole.
    """
    connection.exec_driver_sql("CREATE TABLE read_files (key TEXT PRIMARY KEY, account TEXT)")
    for table, columns in _M002.items():
        for column in columns.split():
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column} TEXT")


def m003_pages(connection: Connection) -> None:
    """The messages of logged chats, some steps on each page."""
    connection.exec_driver_sql("CREATE TABLE pages (trajectory_number BIGINT, position INTEGER, messages TEXT)")


def m004_tokens(connection: Connection) -> None:
    """The tokens that local policies sampled."""
    connection.exec_driver_sql("ALTER TABLE steps ADD COLUMN tokens TEXT")


MIGRATIONS: tuple[Migration, ...] = (m001_first_tables, m002_more_of_the_logs, m003_pages, m004_tokens)
"""In order; the version of a database is the number of migrations it has had."""


def version(engine: Engine) -> int:
    """The schema version of a database; 0 for one that has none of our tables.

    Raises StoreError when tables of ours are there without a version: somebody else's database, or a damaged one.
    """
    with engine.connect() as connection:
        present = set(inspect(connection).get_table_names())
        if schema_version.name in present:
            numbers = connection.execute(select(schema_version.c.version)).scalars().all()
            return max(numbers, default=0)
    ours = sorted(present & set(schema_version.metadata.tables))
    if ours:
        raise StoreError(
            f"the database has a table {ours[0]!r} that ttc-replay did not make",
            hint="choose an empty database: --db PATH|URL",
        )
    return 0


def migrate(engine: Engine, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring a database to the last version; returns it. Does nothing to one that is there already.

    Raises SchemaTooNew when the database was written by a newer version of this program.
    """
    found, known = version(engine), len(migrations)
    if found > known:
        raise SchemaTooNew(
            f"the database has schema version {found}, this program knows {known}",
            hint="upgrade ttc-replay, or choose another file with --db",
        )
    for number in range(found + 1, known + 1):
        with engine.begin() as connection:
            kill_point("migration.begin")
            _apply(connection, number, migrations[number - 1], last=number == known)
            kill_point("migration.applied")
        kill_point("migration.done")
    return known


def _apply(connection: Connection, number: int, migration: Migration, *, last: bool) -> None:
    if number == 1:
        schema_version.create(connection)
    for view in reversed(VIEWS):
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {view}")
    migration(connection)
    if last:
        for view in VIEWS:
            connection.exec_driver_sql(f"CREATE VIEW {view} AS {view_query(view, connection.dialect.name)}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute(schema_version.insert(), {"version": number, "name": migration.__name__, "applied_at": now})


_M001 = """
CREATE TABLE trajectories (
    id TEXT PRIMARY KEY, number BIGINT, dataset TEXT, format TEXT, task_id TEXT, trial TEXT, agent TEXT, model TEXT,
    steps INTEGER, outcome DOUBLE PRECISION, parent_id TEXT, branch_step INTEGER, run TEXT, fidelity TEXT,
    source_path TEXT, source_line BIGINT, truncated BOOLEAN, task TEXT, task_private TEXT, tools TEXT, prompt TEXT,
    outcome_detail TEXT, scores TEXT, final_state TEXT, counts TEXT, extra TEXT, raw TEXT
);
CREATE TABLE steps (
    trajectory_number BIGINT, trajectory_id TEXT, position INTEGER, step_index INTEGER, role TEXT, text TEXT,
    tools TEXT, action TEXT, observations TEXT, fidelity TEXT, usage TEXT, logprob DOUBLE PRECISION, scores TEXT
);
CREATE TABLE scores (
    run TEXT, trajectory_id TEXT, node INTEGER, step_index INTEGER, name TEXT, value DOUBLE PRECISION,
    abstain BOOLEAN, error TEXT, detail TEXT
);
CREATE TABLE runs (
    run TEXT PRIMARY KEY, configuration TEXT, status TEXT, algorithm TEXT, judge TEXT, digest TEXT, report TEXT,
    seed BIGINT, started_at TEXT, ended_at TEXT
);
CREATE TABLE results (
    run TEXT, trajectory_id TEXT, position INTEGER, observed DOUBLE PRECISION, baseline DOUBLE PRECISION,
    best DOUBLE PRECISION, counterfactual_id TEXT, branch_step INTEGER, novel BOOLEAN, trivial BOOLEAN, fidelity TEXT,
    transitions BIGINT, calls BIGINT, tokens BIGINT, cost_usd DOUBLE PRECISION, stopped TEXT, detail TEXT
);
CREATE TABLE nodes (
    run TEXT, trajectory_id TEXT, node INTEGER, parent INTEGER, depth INTEGER, visits BIGINT,
    value_sum DOUBLE PRECISION, prior DOUBLE PRECISION, key TEXT, value DOUBLE PRECISION, terminal BOOLEAN,
    truncated BOOLEAN, spine BOOLEAN, imputed BOOLEAN, samples INTEGER, status TEXT, reason TEXT, fidelity TEXT,
    call_key TEXT, step_index INTEGER, tools TEXT, text TEXT, step TEXT
);
CREATE TABLE calls (
    key TEXT PRIMARY KEY, run TEXT, provider TEXT, body TEXT, result TEXT, prompt_tokens BIGINT,
    completion_tokens BIGINT, cached_tokens BIGINT, cost_usd DOUBLE PRECISION, created_at TEXT
);
CREATE TABLE exports (
    export TEXT PRIMARY KEY, run TEXT, format TEXT, path TEXT, sha256 TEXT, rows BIGINT, created_at TEXT
);
CREATE TABLE export_rows (
    export TEXT, path TEXT, row BIGINT, run TEXT, trajectory_id TEXT, node INTEGER, call_key TEXT, source_path TEXT,
    source_line BIGINT, sha256 TEXT
);
CREATE TABLE folded_journals (path TEXT PRIMARY KEY, last_seq BIGINT, size BIGINT)
"""

_M001_POSTGRESQL = (
    "CREATE INDEX steps_by_trajectory ON steps (trajectory_id)",
    "CREATE INDEX scores_by_trajectory ON scores (trajectory_id)",
    "CREATE INDEX nodes_by_trajectory ON nodes (run, trajectory_id)",
    "CREATE INDEX results_by_run ON results (run)",
)

_M002 = {
    "trajectories": (
        "started_at ended_at relation links tags usage sampling replayability secrets conversation raw_layout"
    ),
    "steps": "started_at ended_at model",
}
