"""OTLP files: every dialect's golden log is the same run, whatever the container; detection, splits, bad input."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.storage.errors import MissingExtra
from ttc_replay.storage.ingest import IngestOptions, ingest
from ttc_replay.storage.readers import base, otlp
from ttc_replay.storage.readers.otlp import OtlpReader
from ttc_replay.storage.records import Message, Outcome, Rejected, Score, Source, Trajectory, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs"
TRACES = Path(__file__).parents[4] / "shared" / "traces"
FILES = sorted(path for path in (GOLDEN / "otlp").iterdir() if path.suffix in (".json", ".jsonl", ".pb"))
SAME_RUN = [path for path in FILES if path.name.startswith("genai-attributes.")]
LOGS_ONLY = {"genai-details.logs.pb", "genai-log-events.logs.pb"}
WITH_REASONING = {"genai-attributes", "genai-workflow", "genai-details"}
STATED_SEED = {"genai-attributes", "genai-workflow", "genai-span-events", "genai-details", "genai-log-events"}
STATED_SEED |= {"openinference", "no-content"}


def dialect(path: Path) -> str:
    return path.name.split(".")[0]


def pair(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}


def call_span(number: int, question: str, answer: str, trace: str = "ab" * 16, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "parts": [{"type": "text", "content": question}]}]
    gave = [{"role": "assistant", "parts": [{"type": "text", "content": answer}]}]
    attributes = [
        pair("gen_ai.operation.name", "chat"),
        pair("gen_ai.input.messages", json.dumps(said)),
        pair("gen_ai.output.messages", json.dumps(gave)),
    ]
    times = {"startTimeUnixNano": str(number * 10**9), "endTimeUnixNano": str(number * 10**9 + 5)}
    return {"traceId": trace, "spanId": f"{number:016x}", "name": "chat", **times, "attributes": attributes, **more}


def request(*spans: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "s"}, "spans": list(spans)}]}]}


def turns(trajectory: Trajectory) -> str:
    return "".join(message.role[0] for message in trajectory.messages)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_golden_logs_are_detected_and_hold_one_run_with_a_sub_agent(logs: Any, path: Path) -> None:
    assert logs.detected(path) == "otlp"
    main, child = logs.good("otlp", path)
    prompt = "" if dialect(path) == "no-content" else "su"
    assert turns(main) == f"{prompt}attata"
    assert turns(child) == f"{prompt}ata"
    assert main.parent_id is None
    assert child.parent_id == main.id
    assert child.source is not None
    assert child.source.relation == "subagent"
    if path.name not in LOGS_ONLY:
        assert child.branch_step == 1
        assert (main.source.agent, child.source.agent) == ("planner", "packer")


WITH_CONTENT = [path for path in FILES if dialect(path) != "no-content"]


@pytest.mark.parametrize("path", WITH_CONTENT, ids=lambda path: path.name)
def test_calls_results_and_errors(path: Path, logs: Any) -> None:
    main, child = logs.good("otlp", path)
    first, second, last = main.steps
    assert [(call.id, call.name, call.arguments) for call in first.action.tool_calls] == [
        ("c1", "get_weather", {"city": "Paris"}),
        ("c2", "get_weather", {"city": "Atlantis"}),
    ]
    known = path.name not in LOGS_ONLY  # errors stand in the tools' spans
    assert [(item.tool_call_id, item.content, item.is_error) for item in first.observations] == [
        ("c2", "no such city", known),
        ("c1", "18 C, sunny", False),
    ]
    assert second.action.content == "Paris it is."
    assert [(item.tool_call_id, item.content) for item in second.observations] == [("c3", "A light coat.")]
    assert [call.id for call in last.action.tool_calls] == ["c4"]
    assert last.observations == ()  # the call that was never answered
    assert first.action.reasoning == ("Two cities, two calls." if dialect(path) in WITH_REASONING else None)
    assert [message.content for message in main.prompt] == [
        "You plan trips. Use the tools.",
        "Plan a weekend: Paris or Atlantis? Ümlaut.",
    ]
    assert main.task.prompt == "Plan a weekend: Paris or Atlantis? Ümlaut."
    assert [message.text for message in child.prompt] == ["You pack bags.", "What to pack for 18 C?"]


SPANS = [path for path in FILES if path.name not in LOGS_ONLY]


@pytest.mark.parametrize("path", SPANS, ids=lambda path: path.name)
def test_usage_times_models_sampling_tools_and_verdicts(path: Path, logs: Any) -> None:
    main, child = logs.good("otlp", path)
    cost = (0.02, 0.015, 0.012) if dialect(path) == "openinference" else (None, None, None)
    assert [step.usage for step in main.steps] == [
        Usage(100, 20, 0, cost[0]),
        Usage(160, 15, 90, cost[1]),
        Usage(200, 12, 150, cost[2]),
    ]
    source = main.source
    assert source is not None
    assert source.usage == Usage(460, 47, 240, 0.047 if cost[0] else None)
    assert (source.started_at, main.steps[0].started_at) == ("2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z")
    assert main.steps[0].ended_at == "2026-01-01T00:00:07Z"  # when its last tool had ended
    assert {step.model for step in main.steps} == {source.model} == {"scripted-1-2026"}
    seed = {"seed": 7} if dialect(path) in STATED_SEED else {}
    assert source.sampling == {"temperature": 0.2, "max_tokens": 512, **seed}
    score = Score(0.75, detail={"label": "good", "explanation": "It answered."})
    assert main.scores == {"helpful": score}
    assert main.outcome == Outcome(0.75, "helpful", "tool_calls", score.detail)
    assert child.outcome == Outcome(exit_reason="stop")
    assert source.extra["session"] == "trip-7"
    assert source.links is not None
    assert "session:trip-7" in source.links.keys
    if dialect(path) in ("no-content", "genai-span-events", "genai-log-events"):
        assert main.tools is None  # the events before v1.37 have no place for them
    else:
        names = [tool["function"]["name"] for tool in main.tools or ()]
        assert names == ["get_weather", "ask_expert", "book"]
        assert all(tool["function"]["parameters"]["required"] for tool in main.tools or ())


def test_counts_are_of_the_conversation_and_of_the_spans(logs: Any) -> None:
    main, child = logs.good("otlp", GOLDEN / "otlp" / "openinference.jsonl")
    assert main.source is not None
    assert dict(main.source.counts) == {
        "messages": 8,
        "assistant_turns": 3,
        "tool_calls": 4,
        "tool_results": 3,
        "rewards": 1,
        "spans": 8,
        "llm_spans": 3,
        "tool_spans": 3,
    }
    assert child.source is not None
    assert main.source.counts["spans"] + child.source.counts["spans"] == 12


def test_without_content_calls_usage_and_times_are_still_known(logs: Any) -> None:
    main, _ = logs.good("otlp", GOLDEN / "otlp" / "no-content.jsonl")
    first = main.steps[0]
    assert first.action == Message("assistant", tool_calls=first.action.tool_calls)
    assert [(call.id, call.name, call.arguments) for call in first.action.tool_calls] == [
        ("c2", "get_weather", None),
        ("c1", "get_weather", None),
    ]
    assert [item.is_error for item in first.observations] == [True, False]
    assert main.source is not None
    assert "no content" in main.source.extra["note"]


def test_all_containers_of_one_run_give_one_id(logs: Any) -> None:
    """JSON with hex ids, protobuf in three framings, one request or one a span: the same content."""
    assert len(SAME_RUN) == 5
    found = {tuple(item.id for item in logs.good("otlp", path)) for path in SAME_RUN}
    assert len(found) == 1


@pytest.mark.parametrize("dress", ["indent", "snake", "array", "elements", "shuffled", "gzip", "bare"])
def test_layout_changes_neither_format_nor_conversation(logs: Any, dress: str) -> None:
    path = GOLDEN / "otlp" / "genai-attributes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    elements = [element for row in rows for element in row["resourceSpans"]]
    spans = [span for element in elements for scope in element["scopeSpans"] for span in scope["spans"]]
    shuffled = random.Random(3).sample(rows, len(rows))
    data = {
        "indent": json.dumps({"resourceSpans": elements}, indent=2).encode(),
        "snake": json.dumps([snake(row) for row in rows]).encode(),
        "array": json.dumps(rows).encode(),
        "elements": json.dumps(elements).encode(),
        "shuffled": "\n".join(map(json.dumps, shuffled)).encode(),
        "gzip": gzip.compress(path.read_bytes()),
        "bare": "\n".join(map(json.dumps, spans)).encode(),
    }[dress]
    if dress == "gzip":
        data = gzip.decompress(data)  # files are unpacked before a reader sees them
    assert logs.detected(data) == "otlp"
    wanted, found = logs.good("otlp", path), logs.good("otlp", data)
    assert [item.messages for item in found] == [item.messages for item in wanted]
    if dress not in ("snake", "bare"):  # those are other records
        assert [item.id for item in found] == [item.id for item in wanted]


def snake(value: Any) -> Any:
    """The field names of protobuf in place of JSON's."""
    if isinstance(value, list):
        return [snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {"".join(f"_{c.lower()}" if c.isupper() else c for c in key): snake(inner) for key, inner in value.items()}


def test_ids_are_opaque_so_base64_ones_join_too(logs: Any) -> None:
    """Protobuf's own JSON writes ids as base64: wrong, but consistent."""
    coded = [base64.b64encode(bytes((number,)) * 8).decode() for number in (1, 2)]
    root = call_span(1, "q", "a") | {"spanId": coded[0], "attributes": [pair("gen_ai.operation.name", "invoke_agent")]}
    child = call_span(2, "q", "a") | {"spanId": coded[1], "parentSpanId": coded[0]}
    (found,) = logs.good("otlp", request(root, child))
    assert found.source.counts["spans"] == 2


def test_upper_case_ids_are_the_same_ids(logs: Any) -> None:
    first, second = call_span(1, "q", "a", trace="AB" * 16), call_span(2, "r", "b", trace="ab" * 16)
    assert len(logs.good("otlp", request(first, second))) == 2  # two threads of one trace
    assert [item.source.extra["trace_ids"] for item in logs.good("otlp", request(first, second))] == [["ab" * 16]] * 2


def test_a_run_is_yielded_when_its_last_span_was_read() -> None:
    """Memory holds the runs that have begun and not ended, not the file."""
    rows = [request(call_span(1, "q" * 50_000, "a", trace=f"{number:032x}")) for number in range(1, 60)]
    stream = io.BytesIO("\n".join(map(json.dumps, rows)).encode())
    found = OtlpReader().read(stream, Source(""))
    next(found)
    assert stream.tell() < len(stream.getvalue()) / 4
    assert len(list(found)) == 58


def test_traces_of_one_session_are_one_run(logs: Any) -> None:
    def turn(number: int, history: list[str]) -> dict[str, Any]:
        said = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(history)]
        attributes = [
            pair("gen_ai.operation.name", "chat"),
            pair("gen_ai.conversation.id", "c"),
            pair("gen_ai.input.messages", json.dumps(said)),
            pair("gen_ai.output.messages", json.dumps([{"role": "assistant", "content": f"answer {number}"}])),
        ]
        return call_span(number, "", "", trace=f"{number:032x}") | {"attributes": attributes}

    rows = [request(turn(1, ["q1"])), request(turn(2, ["q1", "answer 1", "q2"]))]
    for order in (rows, rows[::-1]):
        (found,) = logs.good("otlp", order)
        assert [message.text for message in found.messages] == ["q1", "answer 1", "q2", "answer 2"]
        assert len(found.source.extra["trace_ids"]) == 2


def test_a_trace_without_a_call_of_a_model_is_accounted_for(logs: Any) -> None:
    other = {**call_span(9, "", "", trace="cd" * 16), "attributes": [pair("http.route", "/")]}
    good, bad = logs.all("otlp", [request(call_span(1, "q", "a")), request(other)])
    assert isinstance(good, Trajectory)
    assert isinstance(bad, Rejected)
    assert (bad.problem.code, bad.problem.line) == ("TTC-E016", 2)
    assert "cd" * 16 in bad.problem.message


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"traceId": "ab" * 16, "name": "no id"}, "TTC-E012"),
        ({"traceId": "0" * 32, "spanId": "1" * 16}, "TTC-E012"),
        ("text", "TTC-E012"),
        (None, "TTC-E012"),
    ],
)
def test_a_bad_span_does_not_hide_its_neighbours(logs: Any, bad: Any, code: str) -> None:
    found = logs.all("otlp", request(call_span(1, "q", "a"), bad, call_span(2, "r", "b", trace="cd" * 16)))
    assert [item.problem.code for item in found if isinstance(item, Rejected)] == [code]
    assert sum(isinstance(item, Trajectory) for item in found) == 2


def test_a_bad_line_is_reported_with_its_number(logs: Any) -> None:
    good = json.dumps(request(call_span(1, "q", "a")))
    found = logs.all("otlp", f'{good}\n{{"resourceSpans": NaN}}\n'.encode())
    assert [(item.problem.line, item.problem.code) for item in found if isinstance(item, Rejected)] == [(2, "TTC-E014")]


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".pb"], ids=lambda path: path.name)
def test_protobuf_that_is_cut_keeps_what_came_before(logs: Any, path: Path) -> None:
    data = path.read_bytes()
    found = logs.all("otlp", data[:-7])
    assert isinstance(found[-1], Rejected)
    assert found[-1].fatal
    if "delimited" in path.name or "collector" in path.name:  # all but the last span were read
        assert any(isinstance(item, Trajectory) for item in found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_cut_anywhere_only_trajectories_and_refusals_come_out(logs: Any, path: Path) -> None:
    data = path.read_bytes()
    for size in range(0, len(data), max(1, len(data) // 40)):
        assert all(isinstance(item, (Trajectory, Rejected)) for item in logs.all("otlp", data[:size]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_retyped_values_never_raise(logs: Any, data: Any) -> None:
    path = data.draw(st.sampled_from([path for path in FILES if path.suffix == ".jsonl"]))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    value: Any = data.draw(st.sampled_from(rows))
    for _ in range(data.draw(st.integers(1, 9))):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(value[key], (dict, list)) or data.draw(st.integers(0, 6)) == 0:
            value[key] = data.draw(st.sampled_from([None, 0, "", "[", [], {}, [None], {"values": [1]}, True, 1e308]))
            break
        value = value[key]
    for item in logs.all("otlp", rows):
        assert isinstance(item, (Trajectory, Rejected))


def test_a_run_too_long_to_store_is_kept_without_the_repeated_inputs(
    logs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [{"role": "user", "content": "q" * 400}]
    spans = []
    for number in range(1, 9):
        attributes = [
            pair("gen_ai.operation.name", "chat"),
            pair("gen_ai.input.messages", json.dumps(history)),
            pair("gen_ai.output.messages", json.dumps([{"role": "assistant", "content": f"a{number}"}])),
        ]
        spans.append(call_span(number, "", "") | {"attributes": attributes})
        history += [{"role": "assistant", "content": f"a{number}"}, {"role": "user", "content": f"q{number}"}]
    (whole,) = logs.good("otlp", request(*spans))
    monkeypatch.setattr(base, "MAX_STORED_BYTES", len(whole.source.raw) - 1)
    (thin,) = logs.good("otlp", request(*spans))
    assert thin.messages == whole.messages
    assert len(thin.source.raw) < len(whole.source.raw)
    assert "left out" in thin.source.extra["raw"]
    raw = json.loads(thin.source.raw)
    kept = [span["attributes"] for span in raw["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    assert [any(item["key"] == "gen_ai.input.messages" for item in span) for span in kept] == [False] * 7 + [True]


def test_a_trace_too_big_to_hold_is_refused_and_hides_no_other(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [request(call_span(number, "q" * 9000, "a", trace="cd" * 16)) for number in (1, 2)]
    rows.insert(1, request(call_span(3, "q", "a")))
    monkeypatch.setattr(otlp, "_LARGEST_RUN", 10_000)
    small, refused = logs.all("otlp", rows)
    assert isinstance(small, Trajectory)
    assert isinstance(refused, Rejected)
    assert (refused.problem.code, refused.problem.line) == ("TTC-E021", 1)


def test_a_session_too_big_for_one_run_is_read_trace_by_trace(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for number in (1, 2):
        made = call_span(number, "q" * 9000, "a", trace=f"{number:032x}")
        rows.append(request(made | {"attributes": [*made["attributes"], pair("session.id", "s")]}))
    assert len(logs.good("otlp", rows)) == 2  # one run: its second conversation continues the first
    assert [item.parent_id is None for item in logs.good("otlp", rows)] == [True, False]
    monkeypatch.setattr(otlp, "_LARGEST_SESSION", 10_000)
    assert [item.parent_id is None for item in logs.good("otlp", rows)] == [True, True]


def test_what_came_before_a_cut_line_is_yielded_before_the_error(logs: Any) -> None:
    """Also where a record that looked good at the first walk was refused at the second."""
    twice = json.dumps(request(call_span(2, "r", "b"))).replace('"name": "chat"', '"name": "chat", "name": "chat"')
    data = "\n".join([json.dumps(request(call_span(1, "q", "a"))), twice, '{"resourceSpans": ['])
    found = logs.all("otlp", data.encode())
    assert [type(item) for item in found] == [Rejected, Trajectory, Rejected]
    assert [item.problem.code for item in found if isinstance(item, Rejected)] == ["TTC-E017", "TTC-E019"]
    assert found[-1].fatal


def test_only_its_own_files_are_claimed(logs: Any) -> None:
    own = {"otlp", "mlflow"}
    folders = [path for path in (GOLDEN, TRACES) if path.is_dir()]
    files = [path for folder in folders for path in folder.rglob("*.*") if path.is_file()]
    others = [path for path in files if path.parent.name not in own and path.suffix not in (".py", ".md", ".pyc")]
    assert len(others) > 20
    assert [path for path in others if logs.detected(path) in own] == []


def test_an_export_twice_in_one_file_is_one_run(logs: Any) -> None:
    row = request(call_span(1, "q", "a"))
    (once,), (twice,) = logs.good("otlp", row), logs.good("otlp", [row, row])
    assert once.id == twice.id
    assert twice.source.extra["repeated_spans"] == 1


def test_the_raw_record_holds_every_span_once(logs: Any) -> None:
    path = GOLDEN / "otlp" / "genai-log-events.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    logged = {json.dumps(leaf, sort_keys=True) for row in rows for leaf in leaves(row)}
    stored = [leaf for item in logs.good("otlp", path) for leaf in leaves(json.loads(item.source.raw))]
    assert len(stored) == len(rows)
    assert {json.dumps(leaf, sort_keys=True) for leaf in stored} == logged


def leaves(value: Any) -> list[Any]:
    scopes = [scope for part in value.get("resourceSpans", ()) for scope in part["scopeSpans"]]
    logged = [scope for part in value.get("resourceLogs", ()) for scope in part["scopeLogs"]]
    return [span for scope in scopes for span in scope["spans"]] + [
        log for scope in logged for log in scope["logRecords"]
    ]


def test_protobuf_without_its_library_says_what_to_install(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ttc_replay.storage.readers.otlp_proto_dicts", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.trace.v1.trace_pb2", None)
    with pytest.raises(MissingExtra) as caught:
        logs.all("otlp", GOLDEN / "otlp" / "genai-attributes.pb")
    assert caught.value.hint == "pip install 'ttc-replay[otlp]'"


def test_the_readers_import_nothing_heavy() -> None:
    code = (
        "import sys; import ttc_replay.storage.readers.otlp, ttc_replay.storage.readers.mlflow;"
        "sys.exit(any(name in sys.modules for name in ('google.protobuf', 'opentelemetry', 'mlflow', 'duckdb')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_of_all_containers_is_ingested_and_one_run_is_stored_once() -> None:
    report = ingest(None, [str(GOLDEN / "otlp"), str(GOLDEN / "mlflow")], IngestOptions(dry_run=True))
    formats = {Path(file["path"]).name: file["format"] for file in report["files"]}
    assert len(formats) == len(FILES) + 3
    assert {name: found for name, found in formats.items() if found == "otlp"}.keys() == {path.name for path in FILES}
    assert report["totals"]["skipped"] == report["totals"]["rejected_files"] == 0
    repeated = 2 * (len(SAME_RUN) - 1) + 2  # and one trace of MLflow stands in two files
    assert report["totals"]["duplicates"] == repeated
    assert report["totals"]["trajectories"] == 2 * len(FILES) + 6 - repeated


def test_messages_without_number_are_refused_before_they_are_made(logs: Any) -> None:
    """An empty attribute is two bytes of protobuf, and 300 as a dict: 25 MB took 4 GB."""
    span = field(1, b"a" * 16) + field(2, b"b" * 8) + field(9, b"") * 2**21
    [problem] = logs.all("otlp", field(1, field(2, field(2, span))))
    assert problem.problem.code == "TTC-E021"


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf with a length."""
    head, size = bytes((number << 3 | 2,)), len(content)
    while size > 127:
        head, size = head + bytes((size & 127 | 128,)), size >> 7
    return head + bytes((size,)) + content
