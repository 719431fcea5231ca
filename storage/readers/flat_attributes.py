"""Lists that stand in attributes one field each, with indices in their names: `llm.input_messages.0.message.role`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

Path = tuple[str | int, ...]
Fields = list[tuple[Path, Any]]
Lists = dict[str, list[Fields]]

_DEEPEST = 16
_INDEXED = re.compile(r"(.+?)\.(\d{1,6})(?:\.(.+))?")


@lru_cache(maxsize=2**16)
def _place(name: str) -> tuple[str, int, Path] | None:
    """`llm.tools.2.tool.json_schema` is (`llm.tools`, 2, (`tool`, `json_schema`)); None for names without an index."""
    match = _INDEXED.fullmatch(name) if len(name) < 200 else None
    if match is None:
        return None
    rest = tuple(int(part) if part.isdigit() else part for part in match[3].split(".")) if match[3] else ()
    return (match[1], int(match[2]), rest) if len(rest) <= _DEEPEST else None


def indexed(attributes: Mapping[str, Any]) -> Lists:
    """The lists that stand in attributes with indices, by what is before the index, each element as its fields.

    Gaps in the indices are closed. Elements are compared as they are, and `built` when they are wanted.
    """
    found: dict[str, dict[int, Fields]] = {}
    for name, value in attributes.items():
        place = _place(name)
        if place is not None:
            prefix, index, rest = place
            elements = found.setdefault(prefix, {})
            if index in elements:
                elements[index].append((rest, value))
            else:
                elements[index] = [(rest, value)]
    return {prefix: [elements[index] for index in sorted(elements)] for prefix, elements in found.items()}


def built(fields: Fields) -> Any:
    """An element with its fields inside each other: `tool_calls.0.id` is a list of objects."""
    if len(fields) == 1 and not fields[0][0]:
        return fields[0][1]
    tree: dict[Any, Any] = {}
    deep = False
    for path, value in fields:
        if len(path) == 1:
            tree.setdefault(path[0], value)
        elif path:
            deep = True
            _put(tree, path, value)
    return _closed(tree) if deep else tree


def _put(node: dict[Any, Any], path: Path, value: Any) -> None:
    for part in path[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # `content` and `content.0` at once: the first stays
        node = inner
    node.setdefault(path[-1], value)


def _closed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(key, int) for key in node):
        return [_closed(node[key]) for key in sorted(node)]
    return {str(key): _closed(value) for key, value in node.items()}
