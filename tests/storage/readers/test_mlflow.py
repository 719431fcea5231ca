"""MLflow traces: both schemas of the golden trace, assessments, tables and pages, and the shapes of inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.storage.records import Outcome, Rejected, Score, Trajectory, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "mlflow"
FILES = sorted(path for path in GOLDEN.iterdir() if path.suffix in (".json", ".jsonl"))
JUDGE = {"source": "LLM_JUDGE", "by": "judge-1"}


def golden() -> dict[str, Any]:
    value: dict[str, Any] = json.loads((GOLDEN / "trace-v3.json").read_text())
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_golden_traces_are_read_the_same_in_both_schemas(logs: Any, path: Path) -> None:
    assert logs.detected(path) == "mlflow"
    main, child = logs.good("mlflow", path)
    assert "".join(message.role[0] for message in main.messages) == "suattata"
    assert [message.text for message in child.messages] == ["You pack bags.", "What to pack for 18 C?", "A light coat."]
    assert (child.source.relation, child.parent_id, child.branch_step) == ("subagent", main.id, 1)
    first, _, last = main.steps
    assert first.action.reasoning == "Two cities, two calls."
    assert [(call.id, call.name, call.arguments) for call in first.action.tool_calls] == [
        ("c1", "get_weather", {"city": "Paris"}),
        ("c2", "get_weather", {"city": "Atlantis"}),
    ]
    assert [(item.tool_call_id, item.content, item.is_error) for item in first.observations] == [
        ("c2", "no such city", True),
        ("c1", "18 C, sunny", False),
    ]
    assert last.observations == ()
    assert (first.usage, first.model, first.started_at) == (
        Usage(100, 20, 0, 0.02),
        "scripted-1",
        "2026-01-01T00:00:02Z",
    )
    assert [tool["function"]["name"] for tool in main.tools] == ["get_weather", "ask_expert", "book"]
    assert child.tools == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_assessments_are_scores_and_expectations_are_private(logs: Any, path: Path) -> None:
    main, child = logs.good("mlflow", path)
    assert main.scores == {
        "helpful": Score(0.75, detail={"explanation": "It answered.", **JUDGE}),
        "safe": Score(1.0, detail={**JUDGE, "label": "yes"}),
        "tone": Score(
            abstain=True, detail={"explanation": "no emoji", "source": "HUMAN", "by": "kim", "label": "formal"}
        ),
        "broken": Score(error="no answer", detail=JUDGE),
    }
    assert main.outcome == Outcome(0.75, "helpful", "tool_calls", main.scores["helpful"].detail)
    assert {name: score.value for name, score in main.steps[0].scores.items()} == {"grounded": 1.0}
    assert main.task.private == {"expectations": {"hotel": "Lutetia"}}
    assert (child.scores, child.task.private) == ({}, {})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_said_of_the_trace(logs: Any, path: Path) -> None:
    main, _ = logs.good("mlflow", path)
    source = main.source
    assert source.tags == {"team": "travel"}
    assert source.usage == Usage(560, 67)
    assert source.sampling == {"temperature": 0.2, "seed": 7}
    assert (source.started_at, source.ended_at) == ("2026-01-01T00:00:01Z", "2026-01-01T00:00:18Z")
    expected = {"name": "planner", "state": "OK", "experiment": "7", "session": "trip-7"}
    assert {key: source.extra[key] for key in expected} == expected
    assert source.links.keys == ("trace:tr-abcd0000000000000000000000000001", "session:trip-7")
    assert source.counts["spans"] == 7
    raw = json.loads(source.raw)
    assert raw["info"]["assessments"]
    assert len(raw["data"]["spans"]) == 7


@pytest.mark.parametrize("dress", ["array", "page", "row", "object row", "lines"])
def test_lists_pages_and_tables(logs: Any, dress: str) -> None:
    trace = golden()
    other = json.loads(json.dumps(trace).replace("tr-abcd", "tr-ef01"))
    data = {
        "array": json.dumps([trace, other]),
        "page": json.dumps({"traces": [trace, other], "next_page_token": None}),
        "row": "\n".join(json.dumps({"trace_id": "x", "trace": json.dumps(item)}) for item in (trace, other)),
        "object row": "\n".join(json.dumps({"trace": item, "state": "OK"}) for item in (trace, other)),
        "lines": "\n".join(map(json.dumps, (trace, other))),
    }[dress].encode()
    assert logs.detected(data) == "mlflow"
    found = logs.good("mlflow", data)
    assert len(found) == 4
    assert found[0].id == logs.good("mlflow", GOLDEN / "trace-v3.json")[0].id


def test_hex_ids_of_other_versions(logs: Any) -> None:
    """MLflow 3.5.0 wrote ids as they look in its interface."""
    import base64

    trace = golden()
    for span in trace["data"]["spans"]:
        for name in ("span_id", "parent_span_id"):
            span[name] = base64.b64decode(span[name]).hex() if span[name] else None
        span["trace_id"] = "tr-abcd0000000000000000000000000001"
    main, child = logs.good("mlflow", trace)
    assert main.steps[0].scores.keys() == {"grounded"}  # the assessment names the span in hex
    assert child.parent_id == main.id


def judged(*assessments: Any) -> dict[str, Any]:
    trace = golden()
    trace["info"]["assessments"] = list(assessments)
    return trace


@pytest.mark.parametrize(
    ("feedback", "expected"),
    [
        ({"value": 0}, Score(0.0)),
        ({"value": True}, Score(1.0, detail={"label": "True"})),
        ({"value": "no"}, Score(0.0, detail={"label": "no"})),
        ({"value": "maybe"}, Score(abstain=True, detail={"label": "maybe"})),
        ({"value": {"a": 1}}, Score(abstain=True, detail={"value": {"a": 1}})),
        ({"value": None, "error": {"error_code": "E"}}, Score(error="E")),
    ],
)
def test_feedback_of_every_kind(logs: Any, feedback: Any, expected: Score) -> None:
    main, _ = logs.good("mlflow", judged({"assessment_name": "x", "feedback": feedback}))
    assert main.scores == {"x": expected}
    assert main.outcome.value == expected.value


def test_feedback_that_was_overridden_does_not_count(logs: Any) -> None:
    old = {"name": "x", "feedback": {"value": 1}, "valid": False}
    main, _ = logs.good("mlflow", judged(old, {"name": "x", "feedback": {"value": 0.5}}))
    assert main.scores == {"x": Score(0.5)}


def test_numbers_are_the_outcome_before_booleans(logs: Any) -> None:
    named = [("a", "yes"), ("b", True), ("c", 0.25)]
    main, _ = logs.good("mlflow", judged(*({"name": name, "feedback": {"value": value}} for name, value in named)))
    assert (main.outcome.name, main.outcome.value) == ("c", 0.25)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([[{"type": "human", "content": "hi"}]], {"generations": [[{"message": {"type": "ai", "content": "ok"}}]]}),
        (
            {"input": "hi"},
            {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]}]},
        ),
        (
            {"messages": [{"role": "user", "content": "hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "ok"}]},
        ),
        (
            {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
            {"candidates": [{"content": {"parts": [{"text": "ok"}]}}]},
        ),
        ("hi", "ok"),
    ],
    ids=["langchain", "responses", "anthropic", "gemini", "text"],
)
def test_inputs_and_outputs_as_autologging_writes_them(logs: Any, inputs: Any, outputs: Any) -> None:
    attributes = {"mlflow.spanType": "LLM", "mlflow.spanInputs": inputs, "mlflow.spanOutputs": outputs}
    span = {"span_id": "01" * 8, "name": "m", "attributes": {key: json.dumps(item) for key, item in attributes.items()}}
    trace = {"info": {"trace_id": "tr-1", "state": "OK"}, "data": {"spans": [span]}}
    assert logs.detected(trace) == "mlflow"
    (found,) = logs.good("mlflow", trace)
    assert [(message.role, message.text) for message in found.messages] == [("user", "hi"), ("assistant", "ok")]


@pytest.mark.parametrize(
    "bad",
    [
        {"info": {"trace_id": "tr-2", "state": "OK"}, "data": {"spans": []}},
        {"info": {"trace_id": "tr-2", "state": "OK"}, "data": {"spans": [None]}},
        {"info": {"trace_id": "tr-2"}, "data": {"spans": [{"name": "no id"}]}},
        {"info": None, "data": {}},
        17,
    ],
)
def test_a_bad_trace_does_not_hide_its_neighbours(logs: Any, bad: Any) -> None:
    found = logs.all("mlflow", [bad, golden()])
    assert isinstance(found[0], Rejected)
    assert found[0].problem.line == 1
    assert all(isinstance(item, Trajectory) for item in found[1:])
    assert len(found) == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_retyped_values_never_raise(logs: Any, data: Any) -> None:
    trace = golden()
    value: Any = trace
    for _ in range(data.draw(st.integers(1, 7))):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(value[key], (dict, list)) or data.draw(st.integers(0, 5)) == 0:
            value[key] = data.draw(st.sampled_from([None, 0, "", "[", "{}", [], {}, [None], True, 1e308]))
            break
        value = value[key]
    assert all(isinstance(item, (Trajectory, Rejected)) for item in logs.all("mlflow", trace))
