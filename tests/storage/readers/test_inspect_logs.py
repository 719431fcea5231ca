"""Inspect logs: real ones of 2024 and 2025, golden ones with sub-agents, limits and errors, and damaged ones."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage import errors
from ttc_replay.storage.limits import Limits, using
from ttc_replay.storage.readers import inspect_library
from ttc_replay.storage.readers.base import find_reader
from ttc_replay.storage.readers.inspect_messages import inspect_usage
from ttc_replay.storage.records import Outcome, Rejected, Score, Source, ToolCall, Trajectory, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "inspect"
AGENTS, ANSWERS = GOLDEN / "agents.eval", GOLDEN / "answers.json"
TRACES = Path(__file__).parents[4] / "shared" / "traces" / "inspect"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")
REAL = sorted(path.name for path in TRACES.glob("*.[ej]*")) or ["none"]

MESSAGES = [
    {"role": "system", "content": "Be good."},
    {"role": "user", "content": "Go."},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": "f", "arguments": {"x": 1}}]},
    {"role": "tool", "content": "", "tool_call_id": "c", "error": {"type": "timeout", "message": "too slow"}},
]
SAMPLE: dict[str, Any] = {
    "id": 1,
    "epoch": 2,
    "input": "Go.",
    "target": "gone",
    "messages": MESSAGES,
    "scores": {"a": {"value": "C", "explanation": "e"}},
}
LOG: dict[str, Any] = {
    "version": 2,
    "status": "success",
    "eval": {
        "created": "2026-01-01T00:00:00+00:00",
        "task": "t",
        "dataset": {"name": "d"},
        "model": "m",
        "config": {},
    },
    "samples": [SAMPLE],
}


def archive(members: dict[str, Any], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        for name, value in members.items():
            file.writestr(name, value if isinstance(value, bytes) else json.dumps(value))
    return packed.getvalue()


HEADER = {key: value for key, value in LOG.items() if key != "samples"}


@needs_traces
@pytest.mark.parametrize("file", REAL)
def test_real_logs_are_detected_and_counted(logs: Any, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = logs.expected("inspect", file)
    assert logs.detected(TRACES / file) == "inspect"
    found = logs.good("inspect", TRACES / file)
    runs = expected.pop("runs")
    assert len(found) == runs
    counts = logs.counts(found)
    assert {key: counts.get(key, 0) for key in expected} == expected
    assert all(len(item.steps) == item.source.counts["assistant_turns"] for item in found)
    assert capsys.readouterr() == ("", "")


@needs_traces
@pytest.mark.parametrize("file", REAL)
def test_every_step_of_a_real_log_has_the_usage_of_its_call(logs: Any, file: str) -> None:
    steps = [step for item in logs.good("inspect", TRACES / file) for step in item.steps]
    assert [step.usage.completion_tokens > 0 for step in steps] == [True] * len(steps)
    assert all(step.ended_at is not None and step.ended_at.endswith("Z") for step in steps)


@needs_traces
def test_the_same_log_as_archive_and_as_json_says_the_same(logs: Any) -> None:
    (packed,) = logs.good("inspect", TRACES / "log_formats.eval")
    (plain,) = logs.good("inspect", TRACES / "log_formats.json")
    assert [m.content for m in packed.messages] == [m.content for m in plain.messages]
    assert (packed.task.id, packed.outcome.value) == (plain.task.id, plain.outcome.value) == ("popularity/1", 0.0)
    assert (packed.source.trial, plain.source.sampling) == ("1", {"temperature": 1.0})


def test_agents_with_a_thread_of_their_own_are_children_of_the_step_that_called_them(logs: Any) -> None:
    crash, endless, main, helper = logs.good("inspect", AGENTS)
    assert (helper.parent_id, helper.branch_step, helper.source.relation) == (main.id, 1, "subagent")
    assert main.steps[1].action.tool_calls == (ToolCall("c3", "helper", {"input": "20+22"}),)
    assert [step.action.tool_calls[0].name for step in helper.steps] == ["add", "submit"]
    assert (helper.source.agent, helper.prompt[0].text[:20]) == ("helper", "You are a sub-agent.")
    assert [tool["function"]["name"] for tool in helper.tools] == ["add", "submit"]
    assert {item.parent_id for item in (crash, endless, main)} == {None}
    assert json.loads(helper.source.raw)["agent"]["name"] == "helper"


def test_what_a_sample_says_beside_its_messages(logs: Any) -> None:
    crash, endless, main, _ = logs.good("inspect", AGENTS)
    assert (main.outcome.value, main.outcome.name, main.outcome.exit_reason) == (1.0, "includes", "stop")
    assert main.outcome.detail["value"] == "C"
    assert {name: score.value for name, score in main.scores.items()} == {
        "includes": 1.0,
        "grades.length": 8.0,
        "grades.polite": 1.0,
    }
    assert (main.task.id, main.task.prompt, main.task.seed) == ("sums/sum", "What is 20+22?", 7)
    assert (main.task.private, main.task.data["metadata"]) == ({"target": "42"}, {"level": 1})
    assert main.source.usage == Usage(80, 20, 30)
    assert main.source.sampling == {"temperature": 0.5, "seed": 7}
    assert [tool["function"]["name"] for tool in main.tools] == ["add", "fail", "crash", "helper", "submit"]
    assert (endless.outcome.exit_reason, endless.truncated) == ("limit: message", True)
    assert (crash.outcome.value, crash.truncated) == (None, True)
    assert crash.outcome.exit_reason == "error: RuntimeError('crashed: told to')"
    assert (len(crash.steps[0].action.tool_calls), crash.steps[0].observations) == (2, ())


def test_steps_have_reasoning_parallel_calls_errors_usage_and_times(logs: Any) -> None:
    step = logs.good("inspect", AGENTS)[2].steps[0]
    assert (step.action.text, step.action.reasoning) == ("Two at once.", "Both are needed.")
    assert step.action.tool_calls == (ToolCall("c1", "add", {"a": 1, "b": 2}), ToolCall("c2", "fail", {"why": "no"}))
    assert [(m.tool_call_id, m.name, m.is_error, m.content) for m in step.observations] == [
        ("c1", "add", False, "3"),
        ("c2", "fail", True, "failed: no"),
    ]
    assert step.usage == Usage(16, 4, 6)  # 10 fresh and 6 cached
    assert step.started_at is not None
    assert step.ended_at is not None
    assert step.started_at < step.ended_at
    assert step.model == "mockllm/model"


def test_epochs_are_trials_images_are_references_and_nan_is_no_verdict(logs: Any) -> None:
    assert logs.detected(ANSWERS) == "inspect"
    first, second = logs.good("inspect", ANSWERS)
    assert [item.source.trial for item in (first, second)] == ["1", "2"]
    assert first.task == second.task
    assert first.outcome.value == 0.5
    assert second.outcome == Outcome(exit_reason="stop")
    assert second.scores == {"half": Score(abstain=True, detail={"answer": "nothing", "value": "NaN"})}
    assert second.source.counts["rewards"] == 0
    text, image = first.prompt[0].content
    assert text == {"type": "text", "text": "What is this?"}
    assert image["image_url"]["url"].startswith("sha256:")
    assert "base64" not in json.dumps(image)
    assert "data:image/png;base64," in first.source.raw


@pytest.mark.parametrize(
    ("scores", "outcome", "values"),
    [
        ({"a": {"value": "P"}}, 0.5, {"a": 0.5}),
        ({"a": {"value": "N"}, "b": {"value": 3}}, 0.0, {"a": 0.0, "b": 3.0}),
        ({"a": {"value": "free text"}, "b": {"value": True}}, 1.0, {"a": None, "b": 1.0}),
        ({"a": {"value": {"x": "I", "y": 0.25}}}, None, {"a.x": 0.0, "a.y": 0.25}),
        ({"a": {"value": [1, 2]}}, None, {"a": None}),
        (None, None, {}),
    ],
)
def test_scores(logs: Any, scores: Any, outcome: float | None, values: dict[str, float | None]) -> None:
    (found,) = logs.good("inspect", LOG | {"samples": [SAMPLE | {"scores": scores}]})
    assert (found.outcome.value if found.outcome else None) == outcome
    assert {name: score.value for name, score in found.scores.items()} == values
    assert all(score.abstain is (score.value is None) for score in found.scores.values())
    assert found.source.counts["rewards"] == int(outcome is not None)


def test_the_headline_score_is_the_outcome(logs: Any) -> None:
    sample = SAMPLE | {"scores": {"a": {"value": 1}, "b": {"value": 0}}}
    results = {"scores": [], "headline": {"scorer": "b", "score": "b", "metric": "mean"}}
    (found,) = logs.good("inspect", LOG | {"results": results, "samples": [sample]})
    assert (found.outcome.name, found.outcome.value) == ("b", 0.0)


def test_old_logs_with_one_score_and_steps_for_spans(logs: Any) -> None:
    event = {
        "timestamp": "2024-10-15T12:00:01-04:00",
        "event": "model",
        "model": "old",
        "input": [],
        "tools": [{"name": "f", "description": "attachment://" + "a" * 32, "parameters": {"type": "object"}}],
        "tool_choice": "auto",
        "config": {"temperature": 0.5},
        "output": {
            "model": "old",
            "choices": [{"message": MESSAGES[2], "stop_reason": "tool_calls"}],
            "usage": {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "input_tokens_cache_read": 4},
        },
    }
    events = [{"event": "step", "action": "begin", "name": "x", "timestamp": "2024-10-15T12:00:00-04:00"}, event]
    old = {key: value for key, value in SAMPLE.items() if key != "scores"}
    old |= {"score": {"value": "C"}, "transcript": {"events": events, "content": {"a" * 32: "a long text"}}}
    (found,) = logs.good("inspect", LOG | {"samples": [old]})
    assert found.outcome == Outcome(1.0, "score", None, {"value": "C"})
    step = found.steps[0]
    assert step.usage == Usage(7, 2, 4)  # the input of old logs includes what was cached
    assert (step.started_at, step.ended_at, step.model) == (None, "2024-10-15T16:00:01Z", "old")
    assert found.tools[0]["function"]["description"] == "a long text"
    assert found.source.started_at == "2024-10-15T16:00:00Z"
    assert found.source.counts["events"] == 0  # they stand in its transcript


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ({"input_tokens": 5, "output_tokens": 1, "total_tokens": 10, "input_tokens_cache_read": 4}, 9),
        ({"input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "input_tokens_cache_read": 4}, 5),
        ({"input_tokens": 5, "output_tokens": 1, "input_tokens_cache_write": 2}, 7),
        ({}, None),
        ("nothing", None),
    ],
)
def test_usage_includes_what_was_cached_once(given: Any, prompt: int | None) -> None:
    usage = inspect_usage(given)
    assert (usage.prompt_tokens if usage else None) == prompt


def test_attachments_are_put_in_place_and_kept_apart_in_the_raw_record(logs: Any) -> None:
    name = "b" * 32
    messages = [{"role": "user", "content": f"attachment://{name}"}, *MESSAGES[2:]]
    (found,) = logs.good("inspect", LOG | {"samples": [SAMPLE | {"messages": messages, "attachments": {name: "long"}}]})
    assert found.prompt[0].content == "long"
    assert json.loads(found.source.raw)["messages"][0]["content"] == f"attachment://{name}"


def test_one_long_text_meant_very_often_is_not_put_in_place(logs: Any) -> None:
    name = "c" * 32
    messages = [{"role": "user", "content": f"attachment://{name}"}] * 300
    sample = SAMPLE | {"messages": messages, "attachments": {name: "x" * 2**20}}
    (found,) = logs.good("inspect", LOG | {"samples": [sample]})
    assert {message.content for message in found.prompt} == {f"attachment://{name}"}


def test_a_sample_too_long_to_be_stored_is_kept_without_its_events(logs: Any) -> None:
    events = [{"event": "info", "timestamp": "2026-01-01T00:00:00+00:00", "data": "x" * (33 * 2**20)}]
    (found,) = logs.good("inspect", LOG | {"samples": [SAMPLE | {"events": events}]})
    assert found.source.extra["raw_without"] == ["events"]
    assert "events" not in json.loads(found.source.raw)
    assert (len(found.messages), found.source.counts["events"]) == (4, 1)


@pytest.mark.parametrize("samples", [[], None, "absent"])
def test_a_log_without_samples_is_valid_and_empty(logs: Any, samples: Any) -> None:
    log = HEADER if samples == "absent" else LOG | {"samples": samples}
    assert logs.detected(log) == "inspect"
    assert logs.all("inspect", log) == []
    assert logs.all("inspect", archive({"header.json": HEADER})) == []
    reader: Any = find_reader("inspect")
    assert reader.empty_is_valid is True


def test_an_eval_that_still_runs_gives_the_samples_so_far(logs: Any) -> None:
    start = {"version": 2, "eval": LOG["eval"], "plan": {"steps": [{"solver": "s"}]}}
    data = archive({"_journal/start.json": start, "samples/1_epoch_2.json": SAMPLE})
    assert logs.detected(data) == "inspect"
    (found,) = logs.good("inspect", data)
    assert (found.source.agent, found.source.extra["eval"]["status"]) == ("s", "started")
    assert found.steps[0].observations[0].content == "too slow"


def test_a_sample_written_twice_counts_once(logs: Any) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, value in (("header.json", HEADER), ("samples/1_epoch_2.json", SAMPLE | {"messages": []})):
            file.writestr(name, json.dumps(value))
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("samples/1_epoch_2.json", json.dumps(SAMPLE))
    (found,) = logs.good("inspect", packed.getvalue())
    assert len(found.messages) == 4


def test_bad_samples_do_not_hide_their_neighbours(logs: Any) -> None:
    bad: list[Any] = [5, {"messages": 5}, SAMPLE | {"messages": [{"role": "clown"}]}, SAMPLE | {"epoch": "x"}]
    found = logs.all("inspect", LOG | {"samples": [SAMPLE, *bad, SAMPLE]})
    assert [isinstance(item, Rejected) for item in found] == [False, True, True, True, True, False]
    problems = [item.problem for item in found if isinstance(item, Rejected)]
    assert {problem.code for problem in problems} == {"TTC-E012"}
    assert all("\n" not in problem.message and "sample " in problem.message for problem in problems)
    members = {"header.json": HEADER, "samples/a_epoch_1.json": b'{"id":', "samples/b_epoch_1.json": SAMPLE}
    refused, good = logs.all("inspect", archive(members))
    assert (refused.problem.code, good.source.trial) == ("TTC-E011", "2")
    assert refused.problem.message.startswith("samples/a_epoch_1.json: ")


@pytest.mark.parametrize(
    "header", [HEADER | {"version": 99}, HEADER | {"eval": {"task": "t"}}, {"version": 2}, {"version": 2, "eval": 5}]
)
def test_a_log_that_the_library_refuses_is_one_fatal_problem(logs: Any, header: Any) -> None:
    for data in (header | {"samples": [SAMPLE]}, archive({"header.json": header, "samples/1_epoch_1.json": SAMPLE})):
        (item,) = logs.all("inspect", data)
        assert (item.problem.code, item.fatal) == ("TTC-E012", True)
        assert "\n" not in item.problem.message


def test_damaged_archives_are_told(logs: Any) -> None:
    data = AGENTS.read_bytes()
    for size in (*range(0, len(data), 1499), len(data) - 1):
        found = logs.all("inspect", data[:size])
        assert any(isinstance(item, Rejected) for item in found)
    hit = bytearray(data)
    hit[3000:3050] = b"x" * 50
    found = logs.all("inspect", bytes(hit))
    codes = {item.problem.code for item in found if isinstance(item, Rejected)}
    assert codes == {"TTC-E023"}
    assert any(isinstance(item, Trajectory) for item in found)


def test_members_over_the_limits_are_refused(logs: Any) -> None:
    data = archive({"header.json": HEADER, "samples/1_epoch_1.json": SAMPLE, "samples/2_epoch_1.json": b" " * 2**20})
    with using(Limits(line=2**16)):
        good, refused = logs.all("inspect", data)
    assert (isinstance(good, Trajectory), refused.problem.code) == (True, "TTC-E021")
    many = archive({"header.json": HEADER, **{f"samples/{number}_epoch_1.json": {} for number in range(9000)}})
    with using(Limits(members=100)):
        (item,) = logs.all("inspect", many)
    assert (item.problem.code, item.fatal) == ("TTC-E021", True)


def test_without_the_library_the_error_holds_the_command(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    for data in (AGENTS, LOG):
        with pytest.raises(errors.MissingExtra) as caught:
            logs.all("inspect", data)
        assert "pip install 'ttc-replay[inspect]'" in str(caught.value.hint)


def test_detection_does_not_load_the_library() -> None:
    code = (
        "import sys, pathlib; from ttc_replay.storage.readers.base import find_reader;"
        "from ttc_replay.storage.readers.json_input import read_head;"
        f"stream = open({str(AGENTS)!r}, 'rb'); print(find_reader('inspect').detect(read_head(stream)));"
        "stream.close(); print('inspect_ai' in sys.modules, 'atif' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.99", "False", "False"]


def test_the_library_is_not_heard(caplog: pytest.LogCaptureFixture, logs: Any) -> None:
    with caplog.at_level("DEBUG"):
        logs.good("inspect", ANSWERS)
    assert [record for record in caplog.records if record.name.startswith("inspect_ai")] == []


def test_retyped_values_end_in_trajectories_or_refusals() -> None:
    """Every value of a whole sample, one after the other, as null, number, text and list."""
    whole = json.loads(ANSWERS.read_text().replace("NaN", "0.5"))
    sample = whole["samples"][0]
    places = [path for path in paths(sample) if path and len(path) < 7]
    assert len(places) > 100
    reader = find_reader("inspect")
    for number, path in enumerate(places[:: max(1, len(places) // 60)]):
        changed = copy.deepcopy(sample)
        keys = list(path)
        last, parent = keys.pop(), changed
        for key in keys:
            parent = parent[key]
        parent[last] = [None, 5, "text", [[]], {}][number % 5]
        data = json.dumps(whole | {"samples": [changed]}).encode()
        found = list(reader.read(io.BytesIO(data), Source("")))
        assert [type(item) in (Trajectory, Rejected) for item in found] == [True] * len(found)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in inner for found in paths(child, (*path, key)))]


def test_the_seam_makes_one_line_of_the_librarys_errors() -> None:
    with pytest.raises(errors.IngestError) as caught:
        inspect_library.read_messages(LOG, SAMPLE, [{"role": "user"}, {"role": 5}])
    assert "inspect_ai cannot read it" in caught.value.message
    assert "\n" not in caught.value.message


def test_spans_in_a_ring_and_a_deep_tower_of_them_end(logs: Any) -> None:
    ring = [{"event": "span_begin", "id": name, "parent_id": other, "name": name} for name, other in ("ab", "ba")]
    tower = [{"event": "span_begin", "id": str(n), "parent_id": str(n + 1), "name": "s"} for n in range(20_000)]
    inside: list[dict[str, Any]] = [{"event": "info", "span_id": "0", "data": 1} for _ in tower]
    events = [{**event, "timestamp": "2026-01-01T00:00:00+00:00"} for event in (*ring, *tower, *inside)]
    (found,) = logs.good("inspect", LOG | {"samples": [SAMPLE | {"events": events}]})
    assert found.source.counts["events"] == 40_002
