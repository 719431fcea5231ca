"""Which trajectories: the selection that every command shares, and its SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, UnaryExpression, select

from .bulk import IN_LIMIT
from .schema import trajectories


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions that all hold; None asks nothing.

    `ids` are whole ids. `where` is an SQL expression over `v_trajectories`. `recorded` True: no counterfactuals, False:
    only those. `run`: counterfactuals of that run. `limit` counts after ordering by source path, line and id.
    """

    ids: Sequence[str] | None = None
    dataset: str | None = None
    where: str | None = None
    recorded: bool | None = None
    run: str | None = None
    task_ids: Sequence[str] | None = None
    limit: int | None = None


EVERYTHING = Query()


def where_statement(where: str) -> str:
    """The query for the ids that satisfy a user's expression (on lines of its own: it may end in a comment)."""
    return f"SELECT id FROM v_trajectories WHERE (\n{where}\n)"  # noqa: S608 (run as one read-only statement)


def keys_statement(selection: Query, dialect: str) -> Select[Any, Any, Any]:
    """Select id, number and steps in stable order; `where` and long lists are left to `allowed`."""
    table = trajectories.c
    conditions: list[ColumnElement[bool]] = []
    if selection.dataset is not None:
        conditions.append(table.dataset == selection.dataset)
    if selection.recorded is not None:
        conditions.append(table.run.is_(None) if selection.recorded else table.run.is_not(None))
    if selection.run is not None:
        conditions.append(table.run == selection.run)
    if selection.task_ids is not None:
        conditions.append(table.task_id.in_(list(selection.task_ids)))
    if selection.ids is not None and len(selection.ids) <= IN_LIMIT:
        conditions.append(table.id.in_(list(selection.ids)))
    return select(table.id, table.number, table.steps).where(*conditions).order_by(*_order(dialect))


def _order(dialect: str) -> list[ColumnElement[str] | UnaryExpression[str]]:
    """By code point on every database: DuckDB does so, PostgreSQL would follow its locale."""
    table = trajectories.c
    if dialect == "postgresql":
        return [table.source_path.collate("C"), table.source_line, table.id.collate("C")]
    return [table.source_path, table.source_line, table.id]
