"""The archive: trajectories in and out, runs and what they found, in a DuckDB file or on PostgreSQL.

With `engines.py` and `bulk.py` the only code that opens a database. Importing this module loads duckdb, sqlalchemy and
pyarrow: import it late. One transaction per batch: after a `kill -9` the file holds exactly the acknowledged batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, distinct, func, select

from . import schema
from .bulk import IN_LIMIT, arrow_columns, existing, insert, insert_columns, insert_new
from .chat_log import ON_PAGES, LoggedSteps, built
from .errors import UnknownId
from .exact_json import clean, dumps, loads
from .kill_points import kill_point
from .links import resolve_links
from .query import EVERYTHING, Query, keys_statement, where_statement
from .records import Outcome, Trajectory
from .rows import (
    outcome_detail,
    page_columns,
    score_rows,
    step_rows,
    stored_trajectory,
    trajectory_row,
)
from .run_store import RunStore
from .secrets_gate import secrets_of
from .store import chunks, open_store

__all__ = ["EVERYTHING", "Database", "Query"]

SHORTEST_PREFIX = 4
_STEPS_PER_WRITE = 4096
_STEPS_PER_READ = 2000
_TRAJECTORIES_PER_READ = 200


class Key(NamedTuple):
    """Enough to find a trajectory fast: `number` narrows the search by zone maps."""

    id: str
    number: int
    steps: int


class Database(RunStore):
    """One open archive; a context manager. `location` is the path or URL as given."""

    @classmethod
    def open(cls, location: str, *, create: bool = True, compress: bool = True) -> Database:
        """Open, create where allowed, and migrate. Files are 0600, a missing parent folder is made 0700.

        `compress` False writes text to a DuckDB file as it is: faster, and several times larger.

        Raises DatabaseBusy when another process (or another Database of this one) holds the file, SchemaTooNew, and
        UsageError when there is no file and `create` is False, or when it is not a database.
        """
        opened, version = open_store(location, create=create, compress=compress)
        return cls(location, opened, version)

    def __enter__(self) -> Database:
        return self

    def add_trajectories(self, batch: Sequence[Trajectory]) -> list[str]:
        """Store what is not there yet, all or nothing; the ids newly stored, in order. Known ids stay as they are.

        Raises StoreError naming the trajectory when a value in it is not JSON.
        """
        with self._write() as connection:
            return _add(connection, batch)

    def resolve_links(self) -> int:
        """Give recorded sub-agents, branches and continuations the parents their logs name; how many changed."""
        with self._write() as connection:
            return resolve_links(connection)

    def join_outcomes(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """Give stored trajectories whose logs have no verdict the one that was kept elsewhere; the ids changed."""
        table = schema.trajectories.c
        changed = []
        with self._write() as connection:
            for identity, outcome in outcomes.items():
                values = {"outcome": outcome.value, "outcome_detail": outcome_detail(outcome)}
                update = schema.trajectories.update().where(table.id == identity, table.outcome.is_(None))
                if connection.execute(update.values(**values).returning(table.id)).first():
                    changed.append(identity)
        return changed

    def known_files(self) -> set[str]:
        """The keys of the files that were read whole (`remember_files`)."""
        with self._read() as connection:
            return set(connection.execute(select(schema.read_files.c.key)).scalars())

    def read_accounts(self, keys: Sequence[str]) -> dict[str, Any]:
        """The accounts of those files that were read whole before (`remember_files`)."""
        table = schema.read_files.c
        with self._read() as connection:
            found: dict[str, Any] = {}
            for some in chunks(keys, IN_LIMIT):
                rows = connection.execute(select(table.key, table.account).where(table.key.in_(some)))
                found |= {row.key: loads(row.account) for row in rows}
        return found

    def remember_files(self, accounts: Mapping[str, Any]) -> None:
        """Keep the accounts of files that were read whole, all of whose trajectories are stored."""
        with self._write() as connection:
            rows = [{"key": key, "account": dumps(account)} for key, account in accounts.items()]
            insert_new(connection, schema.read_files, rows)

    def replace_trajectories(self, batch: Sequence[Trajectory]) -> None:
        """Store the batch in place of whatever has the same ids: counterfactuals of a run that is folded again."""
        ids = [trajectory.id for trajectory in batch]
        with self._write() as connection:
            for some in chunks(ids, IN_LIMIT):
                _delete(connection, some)
            _add(connection, batch)

    def resolve(self, id_or_prefix: str) -> str:
        """The whole id. Raises UnknownId, whose hint lists near misses or the candidates."""
        table = schema.trajectories.c
        with self._read() as connection:
            if connection.execute(select(table.id).where(table.id == id_or_prefix)).first():
                return id_or_prefix
            if len(id_or_prefix) < SHORTEST_PREFIX:
                raise UnknownId(
                    f"no trajectory {id_or_prefix!r}", hint=f"give at least {SHORTEST_PREFIX} characters of its id"
                )
            found = _starting_with(connection, id_or_prefix, 6)
            if len(found) == 1:
                return found[0]
            if found:
                shown = ", ".join(full[: len(id_or_prefix) + 8] for full in found[:5])
                more = ", ..." if len(found) > 5 else ""
                raise UnknownId(f"{id_or_prefix!r} fits several trajectories", hint=f"which of {shown}{more}?")
            raise UnknownId(f"no trajectory {id_or_prefix!r}", hint=_near_misses(connection, id_or_prefix))

    def trajectory(self, id_or_prefix: str, *, raw: bool = False) -> Trajectory:
        """One trajectory by id or unique prefix; with `raw` its `source.raw` too. Raises UnknownId."""
        is_it = schema.trajectories.c.id == id_or_prefix
        found = self._load(is_it, raw=raw) or self._load(
            schema.trajectories.c.id == self.resolve(id_or_prefix), raw=raw
        )
        return next(iter(found.values()))

    def trajectories(self, selection: Query = EVERYTHING) -> Iterator[Trajectory]:
        """The selected trajectories without their raw text, by source path, line and id; bounded memory.

        What is added meanwhile is not seen. Raises UsageError when `where` is not an expression over `v_trajectories`.
        """
        keys = iter(self._keys(selection))
        table = schema.trajectories.c
        while batch := _next_batch(keys):
            numbers = [key.number for key in batch]
            between = table.number.between(min(numbers), max(numbers))
            found = self._load(and_(between, table.id.in_([key.id for key in batch])), raw=False)
            yield from (found[key.id] for key in batch if key.id in found)

    def trajectory_ids(self, selection: Query = EVERYTHING) -> list[str]:
        """The selected ids, in the order of `trajectories`."""
        return [key.id for key in self._keys(selection)]

    def count(self, selection: Query = EVERYTHING) -> int:
        """How many trajectories are selected."""
        return len(self._keys(selection))

    def datasets(self) -> list[Mapping[str, Any]]:
        """One row per dataset: trajectories recorded, tasks, steps, mean known outcome, formats, by name."""
        table = schema.trajectories.c
        query = (
            select(
                table.dataset,
                func.min(table.format).label("format"),
                func.count(distinct(table.format)).label("formats"),
                func.count().label("trajectories"),
                func.count(distinct(table.task_id)).label("tasks"),
                func.sum(table.steps).label("steps"),
                func.avg(table.outcome).label("mean_outcome"),
            )
            .where(table.run.is_(None))
            .group_by(table.dataset)
            .order_by(table.dataset)
        )
        with self._read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _keys(self, selection: Query) -> list[Key]:
        allowed: set[str] | None = None
        if selection.where is not None:
            allowed = {row[0] for row in self.query(where_statement(selection.where))[1]}
        if selection.ids is not None and len(selection.ids) > IN_LIMIT:
            allowed = set(selection.ids) if allowed is None else allowed & set(selection.ids)
        statement = keys_statement(selection, self._engine.dialect.name)
        with self._read() as connection:
            keys = (Key(row.id, row.number, row.steps) for row in connection.execute(statement))
            return list(islice((key for key in keys if allowed is None or key.id in allowed), selection.limit))

    def _load(self, which: ColumnElement[bool], *, raw: bool) -> dict[str, Trajectory]:
        """The trajectories whose rows are meant, by id."""
        columns = [column for column in schema.trajectories.columns if raw or column.name != "raw"]
        with self._read() as connection:
            rows = connection.execute(select(*columns).where(which)).mappings().all()
            pages = _pages(connection, [row["number"] for row in rows if row["raw_layout"] == ON_PAGES])
            steps = _steps(connection, [row for row in rows if row["raw_layout"] != ON_PAGES])
        return {
            row["id"]: stored_trajectory(row, steps.get(row["id"], ()), pages.get(row["number"], ())) for row in rows
        }


def _steps(connection: Connection, rows: Sequence[Mapping[Any, Any]]) -> dict[str, list[Mapping[Any, Any]]]:
    """The rows of the steps of trajectories, in order, by their ids."""
    step, found = schema.steps.c, dict[str, list[Mapping[Any, Any]]]()
    if rows:
        which = and_(
            _among(step.trajectory_number, [row["number"] for row in rows]),
            step.trajectory_id.in_([row["id"] for row in rows]),
        )
        statement = select(schema.steps).where(which).order_by(step.position)
        for row in connection.execute(statement).mappings():
            found.setdefault(row["trajectory_id"], []).append(row)
    return found


def _pages(connection: Connection, numbers: Sequence[int]) -> dict[int, list[tuple[int, str]]]:
    """Positions and texts of the pages of trajectories, in order, by their numbers."""
    table, pages = schema.pages.c, dict[int, list[tuple[int, str]]]()
    if numbers:
        which = _among(table.trajectory_number, numbers)
        statement = select(schema.pages).where(which).order_by(table.position)
        for number, position, text in connection.execute(statement):
            pages.setdefault(number, []).append((position, text))
    return pages


def _among(column: ColumnElement[int], numbers: Sequence[int]) -> ColumnElement[bool]:
    """Whether a number is one of these; zone maps narrow the search by the range."""
    if len(numbers) == 1:
        return column == numbers[0]
    return and_(column.between(min(numbers), max(numbers)), column.in_(numbers))


def _next_batch(keys: Iterator[Key]) -> list[Key]:
    """The next keys up to a number of trajectories and of steps; at least one where there is one."""
    batch: list[Key] = []
    steps = 0
    for key in keys:
        batch.append(key)
        steps += key.steps
        if steps >= _STEPS_PER_READ or len(batch) >= _TRAJECTORIES_PER_READ:
            break
    return batch


def _add(connection: Connection, batch: Sequence[Trajectory]) -> list[str]:
    table = schema.trajectories
    first = connection.execute(select(func.max(table.c.number))).scalar()
    number = 0 if first is None else first + 1
    unique: dict[str, Trajectory] = {}
    for trajectory in batch:
        unique.setdefault(clean(trajectory.id) or "", trajectory)
    known = existing(connection, table, list(unique))
    numbered = list(enumerate((unique[key] for key in unique if key not in known), number))
    duck = connection.dialect.name == "duckdb"
    if not duck:
        numbered = [(count, built(trajectory)) for count, trajectory in numbered]
    rows = [trajectory_row(trajectory, count) for count, trajectory in numbered]
    logged = [(count, item) for count, item in numbered if isinstance(item.steps, LoggedSteps)]
    pages = arrow_columns(schema.pages, page_columns(logged))
    _mark_secrets(rows, pages)
    if duck:  # the only writer: it has looked
        insert(connection, table, rows)
        insert_columns(connection, schema.pages, pages)
        fresh = numbered
    else:
        added = insert_new(connection, table, rows)
        fresh = [(count, trajectory) for count, trajectory in numbered if clean(trajectory.id) in added]
    kill_point("database.add")
    _add_steps(connection, [(count, item) for count, item in fresh if not isinstance(item.steps, LoggedSteps)])
    insert(connection, schema.scores, [row for _, trajectory in fresh for row in score_rows(trajectory)])
    return [trajectory.id for _, trajectory in fresh]


def _mark_secrets(rows: Sequence[dict[str, Any]], pages: Mapping[str, Any]) -> None:
    """Fill in `secrets` of recorded trajectories; `pages`: the columns of those whose raw record is kept in parts."""
    recorded = [row for row in rows if row["run"] is None and row["raw"] is not None]
    if not recorded:
        return
    raws = arrow_columns(schema.trajectories, {"raw": [row["raw"] for row in recorded]})
    on_pages = (pages["trajectory_number"].to_pylist(), pages["messages"])
    found = secrets_of([([row["number"] for row in recorded], raws["raw"]), on_pages])
    for row in recorded if found else ():
        if row["number"] in found:
            row["secrets"] = dumps(found[row["number"]])


def _add_steps(connection: Connection, fresh: Sequence[tuple[int, Trajectory]]) -> None:
    every_step = (row for row_number, trajectory in fresh for row in step_rows(trajectory, row_number))
    while some := list(islice(every_step, _STEPS_PER_WRITE)):
        insert(connection, schema.steps, some)


def _delete(connection: Connection, ids: Sequence[str]) -> None:
    numbers = select(schema.trajectories.c.number).where(schema.trajectories.c.id.in_(ids))
    connection.execute(schema.pages.delete().where(schema.pages.c.trajectory_number.in_(numbers)))
    connection.execute(schema.trajectories.delete().where(schema.trajectories.c.id.in_(ids)))
    connection.execute(schema.steps.delete().where(schema.steps.c.trajectory_id.in_(ids)))
    of_nodes = schema.scores.c.node.is_not(None)
    connection.execute(schema.scores.delete().where(schema.scores.c.trajectory_id.in_(ids), ~of_nodes))


def _starting_with(connection: Connection, prefix: str, limit: int) -> list[str]:
    column = schema.trajectories.c.id
    query = select(column).where(func.starts_with(column, prefix)).order_by(column).limit(limit)
    return list(connection.execute(query).scalars())


def _near_misses(connection: Connection, text: str) -> str:
    for length in range(min(len(text) - 1, 12), 1, -1):
        found = _starting_with(connection, text[:length], 3)
        if found:
            return "did you mean " + ", ".join(full[:12] for full in found) + "?"
    return "list what is there: ttc-replay ls trajectories"
