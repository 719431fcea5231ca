"""Reader of Langfuse traces: `{trace, observations}`, a trace with its `observations` inside (the API), a page of those
(`{data: [...]}`), alone, in a JSON array, or as JSONL; a run a trace.

The conversation is folded from the GENERATION observations in the order of their time (`call_fold`); inputs and outputs
have the shape of whatever framework was traced (`message_shapes`). Tool schemas come from `toolDefinitions`, the input,
`modelParameters`, or the OTel attributes in `metadata`; TOOL observations give the results (and failures) of calls that
no later input repeats. A conversation of an AGENT inside another agent, or of another prompt in the same trace, is a
child trajectory of the main one. A trace without GENERATIONs is its own input and output.

NUMERIC and BOOLEAN scores become scores, the first of the trace its outcome; CATEGORICAL ones are in its detail.
Scores of an observation go to the step it made. Not kept apart from the raw record: the other observations (spans,
events), prompts' names and versions, comments of corrections. One trace (one page of the API) is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from ..records import Message, Outcome, Rejected, Score, Source, Trajectory
from .call_fold import Fold, Thread
from .call_results import place_results
from .call_runs import Placed, arranged, put_before, trajectory_of, without_calls
from .chat import listing, mapping, number, string, text
from .json_input import Head, records
from .json_text import BadRecord, wrong_shape
from .langfuse_calls import Tree, own_system, seen
from .message_shapes import messages_of

_KINDS = frozenset(
    ("SPAN", "GENERATION", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL")
)
_ABOUT = ["name", "sessionId", "userId", "environment", "release", "version", "tags"]
_TRACE = frozenset(("bookmarked", "public", "sessionId", "userId", "latency", "htmlPath"))


class LangfuseReader:
    """Reads traces exported from Langfuse."""

    name = "langfuse"

    def detect(self, head: Head) -> float:
        """0.95 for observations of Langfuse, 0.85 for its traces without any."""
        found = [_confidence(record) for record in head.records]
        return max(found, default=0.0)

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the main conversation of each trace, then its branches and sub-agents, or what is wrong with it."""
        source = replace(source, format=self.name)
        for item in records(stream):
            if isinstance(item, Rejected):
                yield item
                continue
            for record in _traces(item.value):
                try:
                    yield from _trajectories(record, replace(source, line=item.line))
                except BadRecord as error:
                    yield Rejected(error.problem(item.line))


def _confidence(record: Any) -> float:
    given = mapping(record)
    page = listing(given.get("data"))
    if page and isinstance(page[0], dict):
        return _confidence(page[0])
    trace = mapping(given.get("trace")) or given
    rows = listing(given.get("observations")) or listing(trace.get("observations"))
    first = mapping(next(iter(rows), None))
    if string(first.get("type")) in _KINDS and "startTime" in first and ("traceId" in first or "id" in first):
        return 0.95
    return 0.85 if "timestamp" in trace and "id" in trace and len(_TRACE & trace.keys()) >= 2 else 0.0


def _traces(value: Any) -> Iterator[Any]:
    page = mapping(value).get("data")
    if isinstance(page, list) and "trace" not in value and "observations" not in value:
        yield from page
    else:
        yield value


@dataclass(frozen=True, slots=True)
class _Trace:
    """One record taken apart."""

    record: Mapping[str, Any]
    about: Mapping[str, Any]
    rows: Sequence[Any]
    tree: Tree
    scores: Sequence[Mapping[str, Any]]


def _opened_trace(record: Any) -> _Trace:
    if not isinstance(record, dict):
        raise wrong_shape("a trace is an object")
    trace = record.get("trace")
    about = trace if isinstance(trace, dict) else record
    rows = record.get("observations") if record.get("observations") is not None else about.get("observations")
    if rows is not None and not isinstance(rows, list):
        raise wrong_shape("observations is not a list")
    if not isinstance(about.get("id"), str) and not rows:
        raise wrong_shape("neither a trace id nor observations")
    scores = [*listing(about.get("scores")), *(listing(record.get("scores")) if about is not record else ())]
    whole_rows = [row for row in listing(rows) if isinstance(row, dict)]
    return _Trace(record, about, whole_rows, Tree(seen(whole_rows)), [row for row in scores if isinstance(row, dict)])


def _trajectories(record: Any, source: Source) -> Iterator[Trajectory]:
    trace = _opened_trace(record)
    fold = Fold()
    by_observation = _scores_by_observation(trace)
    for call in trace.tree.calls():
        fold.take(replace(call, scores=by_observation.pop(call.key, {})))
    without_call = place_results(fold.threads, trace.tree.tool_runs())
    placed = arranged(fold.threads, trace.tree.scopes)
    placed = placed or without_calls(trace.about.get("input"), trace.about.get("output"))
    _complete_prompt(placed[0].thread, trace)
    ids: list[str] = []
    taken = [_counts(item, trace) for item in placed[1:]]
    for number_of, item in enumerate(placed):
        counts = taken[number_of - 1] if number_of else _main_counts(trace, taken)
        made = _trajectory(item, ids, trace, source, counts)
        if number_of == 0:
            made = _with_verdicts(made, trace, by_observation, without_call)
        ids.append(made.id)
        yield made


def _trajectory(
    item: Placed, ids: Sequence[str], trace: _Trace, source: Source, counts: Mapping[str, int]
) -> Trajectory:
    record = trace.record if item.parent is None else _child_record(item, trace, len(ids))
    source = replace(source, agent=_agent(item.thread, trace), counts=counts, extra=_extra(trace))
    return trajectory_of(item, record, ids, source)


def _child_record(item: Placed, trace: _Trace, number_of: int) -> dict[str, Any]:
    """What belongs to a child: its own observations and those of the tools it called."""
    keys = {call.key for call in item.thread.calls} | item.thread.tool_keys.keys()
    return {
        "traceId": trace.about.get("id"),
        "conversation": number_of,
        "observations": [entry.row for entry in trace.tree.items if entry.key in keys],
    }


def _agent(thread: Thread, trace: _Trace) -> str | None:
    found = next((item for item in trace.tree.items if item.key == thread.scope), None)
    return string(found.row.get("name")) if found is not None else string(trace.about.get("name"))


def _extra(trace: _Trace) -> dict[str, Any]:
    extra = {key: trace.about[key] for key in _ABOUT if trace.about.get(key) not in (None, "", [])}
    return {"trace_id": trace.about.get("id")} | extra


def _counts(item: Placed, trace: _Trace) -> dict[str, int]:
    keys = item.thread.tool_keys
    generations = sum(call.sources for call in item.thread.calls)
    tools = sum(entry.kind == "TOOL" for entry in trace.tree.items if entry.key in keys)
    rest = sum(entry.kind != "TOOL" for entry in trace.tree.items if entry.key in keys)
    return {
        "runs": 0,
        "observations": generations + tools + rest,
        "assistant_turns": generations,
        "tool_observations": tools,
        "rewards": 0,
    }


def _main_counts(trace: _Trace, others: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """What the trace has, less what its children have: every observation is counted once."""
    kinds = [entry.kind for entry in trace.tree.items]
    own = {
        "runs": 1,
        "observations": len(kinds),
        "assistant_turns": kinds.count("GENERATION"),
        "tool_observations": kinds.count("TOOL"),
        "rewards": int(any(_value(row) is not None for row in trace.scores)),
    }
    return {key: own[key] - sum(counts[key] for counts in others) for key in own}


def _complete_prompt(thread: Thread, trace: _Trace) -> None:
    """What the calls leave out and the trace's own input has: the system prompt, or everything."""
    roles = {message.role for message in thread.messages[: thread.turns or None]}
    before: list[Message] = []
    if not roles & {"system", "developer"}:
        places = [
            trace.about.get("input"),
            *(item.row.get("input") for item in trace.tree.items if item.kind != "TOOL"),
        ]
        system = next((said for place in places if (said := own_system(place)) is not None), None)
        before = [Message("system", system)] if system is not None else []
    if thread.messages and thread.messages[0].role == "assistant":
        before += messages_of(trace.about.get("input"))
    put_before(thread, before)


def _value(row: Mapping[str, Any]) -> float | None:
    """The number of a NUMERIC or BOOLEAN score."""
    value = row.get("value")
    if row.get("dataType") not in ("NUMERIC", "BOOLEAN") or isinstance(value, bool):
        return None
    return number(value, f"score {string(row.get('name')) or ''}")


def _score(row: Mapping[str, Any], value: float) -> Score:
    keys = ("comment", "source", "dataType", "stringValue", "timestamp")
    return Score(value, detail={key: row[key] for key in keys if row.get(key) not in (None, "")})


def _scores_by_observation(trace: _Trace) -> dict[str, dict[str, Score]]:
    found: dict[str, dict[str, Score]] = {}
    for row in trace.scores:
        value, key = _value(row), text(row.get("observationId"))
        if value is not None and key is not None:
            found.setdefault(key, {}).setdefault(string(row.get("name")) or "score", _score(row, value))
    return found


def _with_verdicts(
    made: Trajectory, trace: _Trace, loose: Mapping[str, Mapping[str, Score]], without_call: int
) -> Trajectory:
    """The trace's own scores; those of observations that made no step stand beside them."""
    scores: dict[str, Score] = {}
    named: dict[str, Any] = {}
    for row in trace.scores:
        value, name = _value(row), string(row.get("name")) or "score"
        if value is None:
            named[_free(name, named)] = row.get("stringValue", row.get("value"))
        elif text(row.get("observationId")) is None:
            scores[_free(name, scores)] = _score(row, value)
    for kept in loose.values():
        for name in kept:
            scores[_free(name, scores)] = kept[name]
    first = next(iter(scores), None)
    reason = made.outcome.exit_reason if made.outcome is not None else None
    outcome = made.outcome
    if first is not None or named:
        value = scores[first].value if first is not None else None
        outcome = Outcome(value, first or "reward", reason, {"categorical": named} if named else {})
    source = made.source
    if source is not None and without_call:
        source = replace(source, extra={**source.extra, "tools_without_call": without_call})
    return replace(made, outcome=outcome, scores=scores, source=source)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, numbered when there is another score of that name."""
    number_of = 2
    free = name
    while free in taken:
        free, number_of = f"{name} ({number_of})", number_of + 1
    return free
