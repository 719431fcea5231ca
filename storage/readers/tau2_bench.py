"""Reader of tau2-bench results: {timestamp, info, tasks, simulations}; a trajectory a simulation.

The record that is hashed is the simulation alone, so that splitting a results file changes no id. What the file says
once for all simulations is put beside each: the policy (`Task.data["policy"]`; it is not among the messages), the task
without its evaluation criteria (`Task.data`), the criteria (`Task.private`), tool schemas when the file has them, and
the rest of `info` (`Source.extra["info"]`). The simulated user may call tools too: those calls and their results carry
`requestor` "user", are part of the observations, and are counted apart. `simulations` is streamed, wherever in the
file it stands. A file that holds one simulation by itself is read as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from ..records import Message, Outcome, Rejected, Score, Source, Task, ToolSchema, Trajectory
from .base import identify
from .chat import (
    chat_counts,
    chat_message,
    first_user_text,
    listing,
    mapping,
    number,
    split,
    string,
    text,
    tool_schemas,
    usage,
    whole,
)
from .json_input import Head, container_of, guarded, records, rewind
from .json_scan import Scanner, elements, keys
from .json_text import (
    DUPLICATE_KEY,
    MAX_RECORD_BYTES,
    NOT_JSON,
    BadRecord,
    decode,
    too_long,
    wrong_shape,
)

_SHARED = ("info", "tasks")
_DETAIL = "db_check action_checks env_assertions communicate_checks nl_assertions reward_basis reward_breakdown info"


@dataclass(frozen=True, slots=True)
class _Shared:
    """What a results file says once for all its simulations."""

    info: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str | None, Mapping[str, Any]] = field(default_factory=dict)
    tools: tuple[ToolSchema, ...] | None = None


class Tau2BenchReader:
    """Reads tau2-bench results files."""

    name = "tau2-bench"

    def detect(self, head: Head) -> float:
        """0.97 for a results document, 0.85 for simulations by themselves."""
        rows = [record for record in head.records if isinstance(record, Mapping)]
        if any("simulations" in row and ("info" in row or "tasks" in row) for row in rows):
            return 0.97
        return 0.85 if rows and all(_is_simulation(row) for row in rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each simulation."""
        source = replace(source, format=self.name)
        if container_of(stream) == "document":
            return guarded(_read_document(stream, source))
        return _read_records(stream, source)


def _is_simulation(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("messages"), list) and bool({"termination_reason", "reward_info"} & record.keys())


def _read_records(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    """Results documents or simulations that are lines or elements of a list: each is held whole."""
    for item in records(stream):
        if isinstance(item, Rejected):
            yield item
            continue
        whole_results = isinstance(item.value, Mapping) and "simulations" in item.value
        simulations = listing(item.value["simulations"]) if whole_results else [item.value]
        shared = _shared(item.value) if whole_results else _Shared()
        for simulation in simulations:
            yield _read_one(simulation, shared, replace(source, line=item.line))


def _read_document(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    """Stream a results document: at once when `info` and `tasks` stand first, else with a second walk."""
    rewind(stream)
    scanner = Scanner(stream)
    found: dict[str, Any] = {}
    seen: set[str] = set()
    late = False
    for key in keys(scanner):
        if key in seen:
            raise BadRecord(DUPLICATE_KEY, f"key {key[:60]!a} twice in one object", scanner.line)
        seen.add(key)
        if key == "simulations" and set(_SHARED) <= seen:
            yield from _read_simulations(scanner, _shared(found), source)
        elif key == "simulations":
            late = True
            scanner.value(keep=False)
        else:
            line = scanner.line
            found[key] = _decoded(scanner.value(keep="simulations" not in seen or key in _SHARED), key, line)
    if scanner.peek() is not None:
        raise BadRecord(NOT_JSON, "more text behind the end of the document", scanner.line)
    if late:
        yield from _read_late(stream, _shared(found), source)
    elif "simulations" not in seen:
        yield _read_one(found, _Shared(), replace(source, line=1))
