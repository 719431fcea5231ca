"""Who belongs to whom: parents of recorded trajectories, found by the names that logs give each other.

A sub-agent's log and that of its caller may lie in different files, read in any order or in different ingests; each
keeps the keys it is known by and the keys it names (`records.Links`). After an ingest all of them are matched anew, so
that the result depends on what is stored and not on the order in which it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from .exact_json import loads
from .schema import trajectories


class Linked(NamedTuple):
    """What matching needs of one trajectory."""

    id: str
    format: str
    steps: int
    keys: Sequence[str]
    parent: str | None
    children: Mapping[str, int | None]


class Parent(NamedTuple):
    """A trajectory's parent and the step of it that called it."""

    id: str
    branch_step: int | None


def resolve_links(connection: Connection) -> int:
    """Set `parent_id` and `branch_step` of all recorded trajectories whose logs say where they belong."""
    table = trajectories.c
    columns = (table.id, table.format, table.steps, table.links, table.parent_id, table.branch_step)
    rows = connection.execute(select(*columns).where(table.links.is_not(None), table.run.is_(None))).all()
    given = {row.id: Parent(row.parent_id, row.branch_step) for row in rows}
    found = parents([_linked(row) for row in rows])
    changed = {identity: parent for identity, parent in found.items() if given[identity] != parent}
    for identity, parent in changed.items():
        values = {"parent_id": parent.id, "branch_step": parent.branch_step}
        connection.execute(trajectories.update().where(table.id == identity).values(**values))
    return len(changed)


def _linked(row: object) -> Linked:
    links = loads(row.links)  # type: ignore[attr-defined]
    return Linked(row.id, row.format, row.steps, links["keys"], links["parent"], links["children"])  # type: ignore[attr-defined]


def parents(some: Sequence[Linked]) -> dict[str, Parent]:
    """The parent of each trajectory that has one among `some`. Nobody becomes an ancestor of itself.

    Of several trajectories of one key (a session that was logged again later on) the longest is meant, then the lowest
    id.
    """
    known: dict[tuple[str, str], Linked] = {}
    for item in sorted(some, key=lambda item: (-item.steps, item.id)):
        for key in item.keys:
            known.setdefault((item.format, key), item)
    wanted: dict[str, Parent] = {}
    for item in sorted(some, key=lambda item: item.id):
        for child_key, step in item.children.items():
            child = known.get((item.format, child_key))
            if (
                child is not None
                and child.id != item.id
                and known.get((item.format, next(iter(item.keys), ""))) is item
            ):
                wanted.setdefault(child.id, Parent(item.id, step))
        parent = known.get((item.format, item.parent)) if item.parent is not None else None
        if parent is not None and parent.id != item.id:
            wanted.setdefault(item.id, Parent(parent.id, _step_of(parent, item)))
    return {identity: parent for identity, parent in wanted.items() if not _is_circular(identity, wanted)}


def _step_of(parent: Linked, child: Linked) -> int | None:
    return next((parent.children[key] for key in child.keys if key in parent.children), None)


def _is_circular(identity: str, wanted: Mapping[str, Parent]) -> bool:
    seen = {identity}
    at = wanted.get(identity)
    while at is not None:
        if at.id in seen:
            return True
        seen.add(at.id)
        at = wanted.get(at.id)
    return False
