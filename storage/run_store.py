"""What a run leaves in the database: its row, results, nodes, scores, paid calls, exports, and the fold's bookmarks.

All of it is a fold of the journals and can be made again from them, except `calls`: the permanent cache of paid calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table, select

from . import schema
from .bulk import IN_LIMIT, insert, insert_new
from .canonical import content_id
from .errors import StoreError
from .exact_json import Row, clean, dumps, loads, number
from .records import Node, Score
from .rows import node_from_row, node_row, node_score_row, score_from_row, step_score_row
from .store import Store, chunks

_JSON_COLUMNS = frozenset({"configuration", "report", "detail", "body", "result"})
_USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")


class RunStore(Store):
    """Runs and what belongs to them. Each `save_` is one transaction, and saving the same again changes nothing."""

    def save_run(self, run: str, configuration: Mapping[str, Any], **columns: Any) -> None:
        """Insert the run, or update what is given of it: status, algorithm, judge, digest, report (JSON), seed,
        started_at, ended_at (ISO text). Raises StoreError for any other column."""
        row = _encode(schema.runs, {"run": run, "configuration": configuration, **columns})
        table = schema.runs
        with self._write() as connection:
            found = connection.execute(select(table.c.run).where(table.c.run == row["run"])).first()
            if found is None:
                connection.execute(table.insert(), row)
            else:
                connection.execute(table.update().where(table.c.run == row["run"]).values(row))

    def run(self, run: str) -> Mapping[str, Any] | None:
        """The run's row, JSON columns as values; None when there is none of that name."""
        rows = self._rows(schema.runs, schema.runs.c.run == run)
        return rows[0] if rows else None

    def runs(self) -> list[Mapping[str, Any]]:
        """Every run, the latest start first."""
        table = schema.runs.c
        return self._rows(schema.runs, order=(table.started_at.desc().nulls_last(), table.run))

    def save_results(self, run: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the run's results: one row per searched trajectory. Raises StoreError for an unknown column."""
        encoded = [_encode(schema.results, {**row, "run": run}) for row in rows]
        with self._write() as connection:
            connection.execute(schema.results.delete().where(schema.results.c.run == run))
            insert(connection, schema.results, encoded)

    def results(self, run: str) -> list[Mapping[str, Any]]:
        """The run's results in the order of the run's trajectories."""
        table = schema.results.c
        return self._rows(schema.results, table.run == run, order=(table.position, table.trajectory_id))

    def save_nodes(
        self, run: str, trajectory_id: str, nodes: Sequence[Node], scores: Mapping[int, Mapping[str, Score]]
    ) -> None:
        """Replace one tree and the scores of its nodes (node id to score name to score)."""
        rows = [{**node_row(node), "run": clean(run), "trajectory_id": clean(trajectory_id)} for node in nodes]
        score_rows = [
            node_score_row(run, trajectory_id, node, name, score)
            for node, named in scores.items()
            for name, score in named.items()
        ]
        with self._write() as connection:
            for table in (schema.nodes, schema.scores):
                tree = (table.c.run == run) & (table.c.trajectory_id == trajectory_id) & table.c.node.is_not(None)
                connection.execute(table.delete().where(tree))
            insert(connection, schema.nodes, rows)
            insert(connection, schema.scores, score_rows)

    def save_step_scores(self, run: str, trajectory_id: str, scores: Mapping[int, Mapping[str, Score]]) -> None:
        """Replace what a run says of the steps of a recorded trajectory (step to score name to score)."""
        rows = [
            step_score_row(run, trajectory_id, step, name, score)
            for step, named in scores.items()
            for name, score in named.items()
        ]
        table = schema.scores
        said = (table.c.run == run) & (table.c.trajectory_id == trajectory_id)
        with self._write() as connection:
            connection.execute(table.delete().where(said & table.c.node.is_(None) & table.c.step_index.is_not(None)))
            insert(connection, table, rows)

    def nodes(self, run: str, trajectory_id: str | None = None) -> Iterator[Node]:
        """The nodes of one tree, or of every tree of the run, by trajectory and node id; one tree in memory at once."""
        table = schema.nodes.c
        trees = [trajectory_id]
        if trajectory_id is None:
            with self._read() as connection:
                distinct = select(table.trajectory_id).where(table.run == run).distinct()
                trees = sorted(connection.execute(distinct).scalars())
        for tree in trees:
            with self._read() as connection:
                query = select(schema.nodes).where(table.run == run, table.trajectory_id == tree).order_by(table.node)
                rows = connection.execute(query).mappings().all()
            yield from map(node_from_row, rows)

    def node_scores(self, run: str, trajectory_id: str) -> dict[int, dict[str, Score]]:
        """Node id to score name to score, of one tree."""
        table = schema.scores.c
        tree = (table.run == run, table.trajectory_id == trajectory_id, table.node.is_not(None))
        found: dict[int, dict[str, Score]] = {}
        with self._read() as connection:
            for row in connection.execute(select(schema.scores).where(*tree).order_by(table.node)).mappings():
                found.setdefault(row["node"], {})[row["name"]] = score_from_row(row)
        return found

    def calls(self, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The finished calls among `keys`: key, run, provider, body, result, usage, created_at.

        `usage` holds the fields that are known, or is None.
        """
        table = schema.calls
        found: dict[str, Mapping[str, Any]] = {}
        for some in chunks(keys, IN_LIMIT):
            for row in self._rows(table, table.c.key.in_(list(some))):
                usage = {name: row[name] for name in _USAGE if row[name] is not None}
                rest = {name: value for name, value in row.items() if name not in _USAGE}
                found[row["key"]] = {**rest, "usage": usage or None}
        return found

    def save_calls(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep finished calls for ever: key, run, provider, body, result (JSON), usage. A known key stays as it is."""
        encoded: dict[str, Row] = {}
        for row in rows:
            plain = {name: value for name, value in row.items() if name != "usage"}
            complete = {"created_at": _now(), **(row.get("usage") or {}), **plain}
            encoded.setdefault(row["key"], _encode(schema.calls, complete))
        with self._write() as connection:
            insert_new(connection, schema.calls, list(encoded.values()))

    def save_export(self, export: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
        """Record an export and the lineage of its rows, replacing one of the same id; the id.

        `export`: format, path, sha256, and optionally run, rows (their number), created_at, and its id as `export`
        (default: a hash of run, format, path and sha256). Each row: path, row, run, trajectory_id, node, call_key,
        source_path, source_line, sha256.
        """
        identity = [export.get(name) for name in ("run", "format", "path", "sha256")]
        chosen = str(export.get("export") or content_id(*identity))
        row = _encode(schema.exports, {"rows": len(rows), "created_at": _now(), **export, "export": chosen})
        lineage = [_encode(schema.export_rows, {**item, "export": chosen}) for item in rows]
        with self._write() as connection:
            for table in (schema.exports, schema.export_rows):
                connection.execute(table.delete().where(table.c.export == chosen))
            connection.execute(schema.exports.insert(), row)
            insert(connection, schema.export_rows, lineage)
        return chosen

    def exports(self) -> list[Mapping[str, Any]]:
        """Every export, the latest first."""
        table = schema.exports.c
        return self._rows(schema.exports, order=(table.created_at.desc().nulls_last(), table.export))

    def folded(self, path: str) -> int:
        """The last sequence number of a journal that the database has; 0 for none."""
        rows = self._rows(schema.folded_journals, schema.folded_journals.c.path == path)
        return int(rows[0]["last_seq"]) if rows else 0

    def set_folded(self, path: str, sequence: int, size: int | None = None) -> None:
        """Remember how far a journal is folded, and its size in bytes at that time."""
        table = schema.folded_journals
        row = _encode(table, {"path": path, "last_seq": sequence, "size": size})
        with self._write() as connection:
            _replace_one(connection, table, row)

    def _rows(self, table: Table, *conditions: Any, order: Sequence[Any] = ()) -> list[Mapping[str, Any]]:
        query = select(table).where(*conditions).order_by(*order)
        with self._read() as connection:
            return [_decode(row) for row in connection.execute(query).mappings()]


def _replace_one(connection: Connection, table: Table, row: Row) -> None:
    key = next(iter(table.primary_key.columns))
    if insert_new(connection, table, [row]):
        return
    rest = {name: value for name, value in row.items() if name != key.name}
    connection.execute(table.update().where(key == row[key.name]).values(rest))


def _encode(table: Table, row: Mapping[str, Any]) -> Row:
    unknown = sorted(set(row) - set(table.columns.keys()))
    if unknown:
        raise StoreError(f"{table.name} has no column {', '.join(unknown)}")
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON_COLUMNS:
        return dumps(value)
    if isinstance(value, str):
        return clean(value)
    return number(value) if isinstance(value, float) else value


def _decode(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: loads(value) if name in _JSON_COLUMNS else value for name, value in row.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
