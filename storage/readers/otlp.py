"""Reader of OpenTelemetry traces (OTLP/JSON and OTLP protobuf) that hold calls of models, and of Phoenix's export.

A trajectory is a conversation, not a span: the calls of a trace (of all traces of a session in one file, by
`gen_ai.conversation.id` or `session.id`) repeat each other's history and are folded (`otlp_threads.py`). Sub-agents,
branches and continuations are trajectories of their own. What attributes mean stands in `otlp_names.py`: the three
generations of OpenTelemetry GenAI, the indexed names before them, OpenInference, OpenLLMetry, AgentOps and others.

* the task: equal prompts are one task; there is no other name for it in a trace;
* scores: `gen_ai.evaluation.result` events, evaluators' spans, annotations; on a call's span they are that step's,
  anywhere else the run's. The first with a number is the outcome;
* usage, time and model of each step from its span; costs where a span states one;
* counts are of the folded conversation, and `spans`, `llm_spans`, `tool_spans` of the source.

The spans of a run may stand anywhere in a file, so a file is read twice: first for what belongs together, then for the
spans themselves. Held are those of the runs that have begun and not ended, and no more. A session of more than
64 MiB falls apart into its traces, and a trace of more than 192 MiB is refused. Not kept outside of the raw record:
other spans (HTTP, retrievers), span links, and alternatives to the answer that the conversation went on with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from ..records import Problem, Rejected, Source, Trajectory
from .chat import listing
from .json_input import Head
from .json_text import TOO_LONG
from .otlp_input import LOGS, SPANS, glance, leaves, raw_record
from .otlp_phoenix import is_phoenix
from .otlp_proto import is_protobuf
from .otlp_runs import Run, trajectories
from .otlp_skim import Seen, seen
from .otlp_spans import LogRecord, Span, field_of, with_logs

_LARGEST_SESSION = 64 * 2**20
_LARGEST_RUN = 192 * 2**20


class OtlpReader:
    """Reads OTLP traces and logs, JSON and protobuf."""

    name = "otlp"

    def detect(self, head: Head) -> float:
        """0.97 for OTLP/JSON, 0.9 for bare spans and Phoenix's, 0.8 for what begins like an export request."""
        rows = [record for record in head.records if isinstance(record, dict)]
        if rows and any(_is_request(row) for row in rows):
            return 0.97
        if rows and all(_is_span(row) for row in rows):
            return 0.9
        return 0.8 if is_protobuf(head.data) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the trajectories of each run when its last span was read."""
        source = replace(source, format=self.name)
        index = _Index()
        for found in glance(stream):
            index.note(found)
        waiting = _Waiting(index.groups())
        end: Rejected | None = None
        for item in leaves(stream):
            if isinstance(item, Rejected):
                end = item if item.fatal else None
                yield from () if item.fatal else (item,)
            elif (run := waiting.take(item)) is not None:
                yield from _read_run(run, source)
        for run in waiting.rest():  # what refused records, or more that was written meanwhile, left open
            yield from _read_run(run, source)
        if end is not None:
            yield end


def _read_run(run: Run | Rejected, source: Source) -> Iterator[Trajectory | Rejected]:
    if isinstance(run, Rejected):
        yield run
    else:
        yield from trajectories(run, source, raw_record)


def _is_request(row: dict[str, Any]) -> bool:
    if any(name in row for name in (*SPANS, *LOGS)):
        return isinstance(field_of(row, *SPANS, *LOGS), list)
    page = listing(row.get("data"))
    return bool(page) and all(is_phoenix(item) for item in page[:10] if item)


def _is_span(row: dict[str, Any]) -> bool:
    if is_phoenix(row) or isinstance(field_of(row, "scopeSpans", "scopeLogs"), list):
        return True
    return {"traceId", "spanId", "startTimeUnixNano"} <= row.keys()


@dataclass(slots=True)
class _Trace:
    """What the first walk knows of a trace: how much there is of it, and the session of its earliest span."""

    count: int = 0
    size: int = 0
    session: str | None = None
    since: int = 2**63


class _Index:
    """The traces of a file."""

    def __init__(self) -> None:
        self._traces: dict[str, _Trace] = {}

    def note(self, found: Seen) -> None:
        """Count a span or log record of its trace."""
        trace = self._traces.setdefault(found.trace, _Trace())
        trace.count += 1
        trace.size += found.size
        if found.session is not None and (trace.session is None or found.time < trace.since):
            trace.session, trace.since = found.session, found.time

    def groups(self) -> dict[str, _Group]:
        """The run that each trace belongs to."""
        sizes: Counter[str] = Counter()
        for trace in self._traces.values():
            sizes[trace.session or ""] += trace.size
        made: dict[str, _Group] = {}
        found: dict[str, _Group] = {}
        for name, trace in self._traces.items():
            small = trace.session is not None and sizes[trace.session] <= _LARGEST_SESSION
            key = f"session:{trace.session}" if small else f"trace:{name}"
            group = made.setdefault(key, _Group(trace.session))
            group.left += trace.count
            group.size += trace.size
            found[name] = group
        return found


@dataclass(slots=True)
class _Group:
    """The spans and log records of a run that were read so far, and how many are still to come."""

    session: str | None
    left: int = 0
    size: int = 0
    line: int | None = None
    spans: list[Span] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)

    def add(self, item: Span | LogRecord) -> None:
        """Hold a span or log record. Of a run that is too big to be one record only the line is kept."""
        self.left -= 1
        if self.size > _LARGEST_RUN:
            self.line = item.line if self.line is None else self.line
        elif isinstance(item, Span):
            self.spans.append(item)
        else:
            self.logs.append(item)

    def run(self) -> Run | Rejected:
        """The run; the group is empty then."""
        if self.size > _LARGEST_RUN:
            problem = f"one trace of {self.size // 2**20} MiB: more than {_LARGEST_RUN // 2**20} MiB are not held"
            return Rejected(Problem(TOO_LONG, problem, self.line))
        run = Run(with_logs(self.spans, self.logs), self.session)
        self.spans, self.logs = [], []
        return run


class _Waiting:
    """The runs of which something is still to come."""

    def __init__(self, groups: dict[str, _Group]):
        self._groups = groups

    def take(self, item: Span | LogRecord) -> Run | Rejected | None:
        """Put a span or log record to its run; the run, when that was its last."""
        group = self._groups.get(item.trace)
        if group is None:
            group = self._groups[item.trace] = _Group(seen(item).session, left=-1)
        group.add(item)
        return group.run() if group.left == 0 else None

    def rest(self) -> Iterator[Run | Rejected]:
        """What is left over."""
        for group in {id(group): group for group in self._groups.values()}.values():
            if group.spans or group.logs or (group.left > 0 and group.line is not None):
                yield group.run()
