"""How ATIF documents refer to each other: sub-agents and continuations, in the document or in files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from os.path import abspath, dirname, join
from typing import Any

from ..records import Links, Relation
from .chat import listing, mapping, string

_VERSION = re.compile(r"ATIF-v(\d+)\.(\d+)")
_CONTINUED = re.compile(r"-cont-\d+\Z")
Json = Mapping[str, Any]


def references(document: Json) -> Iterator[tuple[str | None, Json, int | None]]:
    """(trajectory id, reference, step) of each sub-agent that an observation refers to. A reference in a system or user
    step belongs to the agent's step before it.
    """
    step_index: int | None = None
    for step in listing(document.get("steps")):
        if mapping(step).get("source") == "agent":
            step_index = 0 if step_index is None else step_index + 1
        for result in listing(mapping(mapping(step).get("observation")).get("results")):
            for found in listing(mapping(result).get("subagent_trajectory_ref")):
                if isinstance(found, dict):
                    yield string(found.get("trajectory_id")), found, step_index


def relation_of(document: Json) -> Relation | None:
    """What a document that stands by itself says it is to another one."""
    about = mapping(mapping(document.get("agent")).get("extra"))
    if about.get("parent_session_id") is not None or about.get("parent_trajectory_id") is not None:
        return "subagent"
    names = (string(document.get("session_id")), string(document.get("trajectory_id")))
    return "continuation" if any(name and _CONTINUED.search(name) for name in names) else None


def links_of(document: Json, path: str | None) -> Links | None:
    """Its own names, and those of the documents that belong to it. `path` None: it has no file of its own.

    Sub-agents embedded in the document are known without links. Sessions are names before v1.7 only: since then several
    trajectories may share one.
    """
    names = _names(document, path)
    children: dict[str, int | None] = {}
    inner = listing(document.get("subagent_trajectories"))
    embedded = {string(mapping(item).get("trajectory_id")) for item in inner}
    for identity, found, step in references(document):
        if identity is None or identity not in embedded:
            children |= dict.fromkeys(_reference_names(document, found, identity, path), step)
    agents = sum(mapping(step).get("source") == "agent" for step in listing(document.get("steps")))
    continued = string(document.get("continued_trajectory_ref"))
    children |= dict.fromkeys(_file_names(continued, path), agents - 1 if agents else None)
    return Links(names, None, children) if names or children else None


def _names(document: Json, path: str | None) -> tuple[str, ...]:
    identity, session = string(document.get("trajectory_id")), string(document.get("session_id"))
    return (
        *((f"file:{abspath(path)}",) if path else ()),
        *((f"trajectory:{identity}",) if identity else ()),
        *((f"session:{session}",) if session and _names_by_session(document) else ()),
    )


def _reference_names(document: Json, found: Json, identity: str | None, path: str | None) -> list[str]:
    session = string(found.get("session_id"))
    return [
        *_file_names(string(found.get("trajectory_path")), path),
        *([f"trajectory:{identity}"] if identity else []),
        *([f"session:{session}"] if session and _names_by_session(document) else []),
    ]


def _file_names(reference: str | None, path: str | None) -> list[str]:
    """File names are relative to the document that has them."""
    if not reference or not path or "://" in reference or "\0" in reference:
        return []
    return [f"file:{abspath(join(dirname(path), reference))}"]


def _names_by_session(document: Json) -> bool:
    found = _VERSION.match(string(document.get("schema_version")) or "")
    return found is not None and (int(found[1]), int(found[2])) < (1, 7)
