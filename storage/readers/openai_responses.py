"""Reader of OpenAI Responses API calls and item lists.

* calls {input, output, instructions, tools, usage, id, previous_response_id, ...}, or with the API's bodies under
  `request` and `response`, as JSONL, an array, or one object: a call that no other goes on from, and that goes on from
  none, is a trajectory. Calls that refer to each other by `previous_response_id` are one trajectory a last call; where
  two go on from the same one, the latest is the main one and the others are its branches.
* item lists: the elements of an array or the lines of a file are items of one trajectory; an array of lists, or of
  objects with `items`, has several.

What the agent says and calls until something comes back is one action; within a call the output is one action. Calls
that the server runs (web search, MCP, code interpreter) stay parts of it and are counted apart. Reasoning is what of it
can be read; encrypted content stays in the raw record. Calls that refer to each other are held until the end of the
file, up to 64 MiB of them, and each branch holds all calls before it, up to `MAX_WEIGHT` in all: further ones become
trajectories of their own, linked to the one before. A file of items is held whole, within the bound of `held.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from ..canonical import canonical_bytes
from ..records import Rejected, Source, Trajectory
from .base import most
from .event_tree import MAX_WEIGHT
from .held import hold
from .json_input import Head, Record, read_head, records
from .json_text import BadRecord
from .response_items import is_item, is_message
from .response_rows import chain, is_row, previous_id, response_id

_MAX_HELD = 64 * 2**20


class OpenAIResponsesReader:
    """Reads Responses API calls and item lists."""

    name = "openai-responses"

    def detect(self, head: Head) -> float:
        """0.9 for calls, 0.8 for an array of items or of lists of them, 0.6 for lines of items."""
        rows = list(head.records)
        if most(rows, is_row):
            return 0.9
        if head.container == "array" and (_are_items(rows) or most(rows, _is_item_list)):
            return 0.8
        return 0.6 if head.container == "lines" and _are_items(rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the trajectories, or what is wrong with each record."""
        source = replace(source, format=self.name)
        head = read_head(stream)
        if head.container != "document" and _are_items(list(head.records)):
            return _read_items(stream, source)
        return _read_rows(stream, source)


def _are_items(rows: list[Any]) -> bool:
    """Whether these are items of one conversation: all but damaged ones are, and one has a shape of its own."""
    known = [row for row in rows if isinstance(row, dict)]
    listed = sum(is_item(row) or is_message(row) for row in known)
    return any(map(is_item, known)) and listed * 2 > len(known) and not any(map(is_row, known))


def _is_item_list(value: Any) -> bool:
    return isinstance(value, list) and any(map(is_item, value))


def _read_items(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    found, refused = hold(stream)
    if found:
        try:
            yield chain([{"items": [item.value for item in found]}], replace(source, line=found[0].line))
        except BadRecord as error:
            yield Rejected(error.problem(found[0].line))
    yield from refused


def _read_rows(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    wanted = {name for item in records(stream) if isinstance(item, Record) and (name := previous_id(item.value))}
    held: list[Record] = []
    weights: dict[int, int] = {}
    size = 0
    for item in records(stream):
        if isinstance(item, Rejected):
            yield item
            continue
        row = {"items": item.value} if isinstance(item.value, list) else item.value
        if size < _MAX_HELD and (previous_id(row) or response_id(row) in wanted):
            length = len(canonical_bytes(row))
            size += length
            weights[item.position] = 1 + length // 1024
            held.append(replace(item, value=row))
        else:
            yield _one([row], replace(source, line=item.line))
    yield from _chains(held, weights, source)


def _one(rows: list[Any], source: Source) -> Trajectory | Rejected:
    try:
        return chain(rows, source)
    except BadRecord as error:
        return Rejected(error.problem(source.line))


def _chains(held: list[Record], weights: Mapping[int, int], source: Source) -> Iterator[Trajectory | Rejected]:
    """A trajectory for each last call, those of one beginning together, the latest of them first."""
    by_name = {name: record for record in held if (name := response_id(record.value))}
    going_on = {previous_id(record.value) for record in held}
    ends = [record for record in held if response_id(record.value) is None or response_id(record.value) not in going_on]
    groups: dict[int, list[list[Record]]] = {}
    for path in _paths(ends, by_name, weights):
        groups.setdefault(path[0].position, []).append(path)
    reached = {record.position for paths in groups.values() for path in paths for record in path}
    for paths in groups.values():
        yield from _branches(paths, source)
    for record in held:  # calls that refer to each other in a ring, or were too many to be held again
        if record.position not in reached:
            yield _one([record.value], replace(source, line=record.line))


def _paths(ends: list[Record], by_name: Mapping[str, Record], weights: Mapping[int, int]) -> list[list[Record]]:
    """The calls up to each of these; the latest are whole, earlier ones stand alone when there is no room for more."""
    found: list[list[Record]] = []
    room = MAX_WEIGHT
    for end in reversed(ends):
        path = _path(end, by_name) if room > 0 else [end]
        room -= sum(weights[record.position] for record in path)
        found.append(path)
    return found[::-1]


def _path(end: Record, by_name: Mapping[str, Record]) -> list[Record]:
    """The calls up to this one, oldest first."""
    path, seen = [end], {end.position}
    while (before := by_name.get(previous_id(path[-1].value) or "")) is not None and before.position not in seen:
        seen.add(before.position)
        path.append(before)
    return path[::-1]


def _branches(paths: list[list[Record]], source: Source) -> Iterator[Trajectory | Rejected]:
    main_path, *others = reversed(paths)
    main = _one([record.value for record in main_path], replace(source, line=main_path[0].line))
    yield main
    begun: dict[int, int] = {}  # steps by the number of calls in common
    for path in others:
        branch = _one([record.value for record in path], replace(source, line=path[-1].line))
        if isinstance(branch, Trajectory) and isinstance(main, Trajectory) and branch.source is not None:
            shared = sum(one is other for one, other in zip(path, main_path, strict=False))
            if shared not in begun:
                begun[shared] = len(chain([record.value for record in path[:shared]], source).steps)
            related = replace(branch.source, relation="branch")
            branch = replace(branch, parent_id=main.id, branch_step=begun[shared], source=related)
        yield branch
