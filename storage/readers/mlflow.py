"""Reader of MLflow traces as `Trace.to_json` writes them: schema v3 (`trace_id`) and v2 (`request_id`).

One trace a file, a line, or an element of a list (also of a page `{"traces": [...]}`); a row of an exported table whose
`trace` is that JSON text is read too. Attributes are JSON text each, ids base64 or hex. The calls inside a trace are
folded to conversations as those of OTLP are (`otlp_threads.py`): sub-agents and branches are trajectories of their own.

* scores: feedback assessments that were not overridden; `yes` and `no`, as MLflow's own judges say, are 1 and 0. Those
  of a call's span are that step's, the others the run's; the first number is the outcome, else the first boolean;
* `Task.private`: expectations;
* tags without `mlflow.` before them are tags; name, state, experiment and user are in `Source.extra`;
* the usage of the run: its stated sum, which counts sub-agents too.

Not kept outside of the raw record: other spans (retrievers, parsers), links, and rationale of expectations.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Rejected, Score, Source, Trajectory, Usage
from .chat import listing, mapping, number, string, text, unparsed
from .json_input import Head, records
from .json_text import BadRecord, wrong_shape
from .otlp_fields import usage_of
from .otlp_runs import Run, trajectories
from .otlp_spans import Event, Span, field_of, from_iso, identifier, qualified, span_of

_MARKS = frozenset(("trace_location", "trace_metadata", "request_metadata", "state", "status", "experiment_id"))
_FAILED = ("STATUS_CODE_ERROR", "ERROR")
_ANSWERS = {"yes": 1.0, "no": 0.0}


class MlflowReader:
    """Reads MLflow traces."""

    name = "mlflow"

    def detect(self, head: Head) -> float:
        """0.97 when every record is a trace with info and spans."""
        rows = [_trace(record) for record in head.records]
        return 0.97 if rows and all(_is_trace(row) for row in rows) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the trajectories of each trace: the main one, then its children."""
        source = replace(source, format=self.name)
        for item in records(stream):
            if isinstance(item, Rejected):
                yield item
                continue
            page = item.value.get("traces") if isinstance(item.value, dict) else None
            for value in page if isinstance(page, list) else [item.value]:
                yield from _read_one(value, replace(source, line=item.line))


def _trace(record: Any) -> Mapping[str, Any]:
    """The trace in a record: itself, the first of a page, or the JSON text of a table's row."""
    given = mapping(record)
    page = listing(given.get("traces"))
    if page:
        return _trace(page[0])
    if "info" not in given and isinstance(given.get("trace"), (str, dict)):
        return mapping(unparsed(given["trace"]))
    return given


def _is_trace(row: Mapping[str, Any]) -> bool:
    info, data = mapping(row.get("info")), mapping(row.get("data"))
    named = "trace_id" in info or "request_id" in info
    return named and bool(_MARKS & info.keys()) and isinstance(data.get("spans"), list)


def _read_one(value: Any, source: Source) -> Iterator[Trajectory | Rejected]:
    try:
        trace = _trace(value)
        if not isinstance(trace.get("info"), dict) or not isinstance(mapping(trace.get("data")).get("spans"), list):
            raise wrong_shape("an MLflow trace is an object with `info` and `data.spans`")
        run = _run(trace, source.line)
    except BadRecord as error:
        yield Rejected(error.problem(source.line))
        return

    def raw(spans: list[Span], main: bool, repeated: frozenset[str]) -> Any:
        own = {**trace["data"], "spans": [span.record for span in spans]} if main else None
        return {**trace, "data": own} if main else {"data": {"spans": [span.record for span in spans]}}

    yield from trajectories(run, source, raw)


def _run(trace: Mapping[str, Any], line: int | None) -> Run:
    info = trace["info"]
    about = mapping(field_of(info, "trace_metadata", "request_metadata"))
    name = text(field_of(info, "trace_id", "request_id")) or ""
    spans = [_span(span, name, line) for span in trace["data"]["spans"]]
    run = Run(spans, string(about.get("mlflow.trace.session")))
    tags = mapping(info.get("tags"))
    run.tags = {key: value for key, value in tags.items() if isinstance(value, str) and not key.startswith("mlflow.")}
    run.usage = _usage(about)
    run.extra = _extra(info, about, tags)
    root = next((span.id for span in spans if span.parent is None), None)
    expected: dict[str, Any] = {}
    for assessment in listing(info.get("assessments")):
        _take(mapping(assessment), run, name, root, expected)
    run.private = {"expectations": expected} if expected else {}
    run.verdicts = dict(sorted(run.verdicts.items(), key=_rank))
    return run


def _rank(item: tuple[str, Score]) -> int:
    """Numbers before what stands for one (booleans, `yes` and `no`), and these before anything else."""
    score = item[1]
    return 2 if score.value is None else int("label" in score.detail)


def _usage(about: Mapping[str, Any]) -> Usage | None:
    told = unparsed(about.get("mlflow.trace.tokenUsage"))
    spent = unparsed(about.get("mlflow.trace.cost"))
    return usage_of({"mlflow.chat.tokenUsage": told, "mlflow.llm.cost": spent})


def _extra(info: Mapping[str, Any], about: Mapping[str, Any], tags: Mapping[str, Any]) -> dict[str, Any]:
    experiment = mapping(mapping(info.get("trace_location")).get("mlflow_experiment")).get("experiment_id")
    found = {
        "name": tags.get("mlflow.traceName"),
        "state": field_of(info, "state", "status"),
        "experiment": experiment if experiment is not None else info.get("experiment_id"),
        "user": about.get("mlflow.trace.user"),
        "client_request_id": info.get("client_request_id"),
    }
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _take(given: Mapping[str, Any], run: Run, trace: str, root: str | None, expected: dict[str, Any]) -> None:
    """One assessment: an expectation, or feedback on a span or on the run."""
    name = string(field_of(given, "assessment_name", "name")) or "feedback"
    expectation = mapping(given.get("expectation"))
    if expectation:
        wrapped = mapping(expectation.get("serialized_value")).get("value")
        expected[name] = unparsed(wrapped) if wrapped is not None else expectation.get("value")
        return
    feedback = mapping(given.get("feedback"))
    if not feedback or given.get("valid") is False:
        return
    score = _score(feedback, given, name)
    span = _identifier(given.get("span_id"))
    where = qualified(trace, span) if span else None
    if where is None or where == root:
        run.verdicts[name] = score
    else:
        run.span_verdicts.setdefault(where, {})[name] = score


def _score(feedback: Mapping[str, Any], given: Mapping[str, Any], name: str) -> Score:
    value = feedback.get("value")
    source = mapping(given.get("source"))
    about = {"explanation": given.get("rationale"), "source": source.get("source_type"), "by": source.get("source_id")}
    detail = {key: said for key, said in about.items() if isinstance(said, str) and said}
    failed = mapping(feedback.get("error"))
    if failed:
        reason = string(failed.get("error_message")) or string(failed.get("error_code")) or "error"
        return Score(error=reason, detail=detail)
    if isinstance(value, (str, bool)):
        detail["label"] = str(value)
    elif isinstance(value, (dict, list)):
        return Score(abstain=True, detail={**detail, "value": value})
    amount = _ANSWERS.get(value.lower()) if isinstance(value, str) else number(value, f"assessment {name}")
    return Score(amount, abstain=amount is None, detail=detail)


def _span(value: Any, trace: str, line: int | None) -> Span:
    """A span of schema v3, or of v2 (which has a `context`). Raises BadRecord when it has no id."""
    if not isinstance(value, dict):
        raise wrong_shape("a span is an object")
    context = mapping(value.get("context"))
    own = _identifier(field_of(value, "span_id") or context.get("span_id"))
    if not own:
        raise wrong_shape("a span without span_id")
    above = _identifier(field_of(value, "parent_span_id", "parent_id"))
    status = mapping(value.get("status"))
    code = field_of(status, "code") or value.get("status_code")
    message = string(field_of(status, "message") or value.get("status_message")) or ""
    attributes = {key: unparsed(said) for key, said in mapping(value.get("attributes")).items()}
    return span_of(
        value,
        trace,
        own,
        above,
        start=from_iso(field_of(value, "start_time_unix_nano", "start_time")),
        end=from_iso(field_of(value, "end_time_unix_nano", "end_time")),
        attributes={key: said for key, said in attributes.items() if said is not None},
        events=list(_events(value.get("events"))),
        error=message if isinstance(code, str) and code in _FAILED else None,
        record=value,
        line=line,
    )


def _identifier(value: Any) -> str:
    """A span's id as hex: v3 writes base64, other versions hex, with or without `0x`."""
    if not isinstance(value, str):
        return ""
    plain = value.removeprefix("0x")
    if len(plain) != 16:
        try:
            data = base64.b64decode(plain, validate=True)
        except (binascii.Error, ValueError):
            return identifier(plain)
        return data.hex() if len(data) == 8 else identifier(plain)
    return identifier(plain)


def _events(values: Any) -> Iterator[Event]:
    for value in listing(values):
        if isinstance(value, dict):
            time = from_iso(field_of(value, "time_unix_nano", "timestamp"))
            yield Event(string(value.get("name")) or "", time, dict(mapping(value.get("attributes"))))
