"""The readers: counts and records of real logs, detection by content, tolerance, and every kind of bad input."""

from __future__ import annotations

import copy
import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.storage.canonical import canonical_bytes
from ttc_replay.storage.chat_log import raw_record
from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.readers.base import Reader, all_readers, detect_reader, find_reader, reader_names, record_id
from ttc_replay.storage.readers.json_input import read_head, records
from ttc_replay.storage.readers.json_text import BadRecord
from ttc_replay.storage.records import Outcome, Rejected, Score, Source, ToolCall, Trajectory
from ttc_replay.storage.unpacking import is_packed, open_unpacked

TRACES = Path(__file__).parents[3] / "shared" / "traces"
FORMATS = ("atif", "openai-chat", "tau-bench", "tau2-bench")
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")

CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "usage": {"prompt_tokens": 5}},
        {"role": "tool", "tool_call_id": "c1", "name": "get", "content": "7"},
        {"role": "assistant", "content": "seven"},
    ],
    "reward": 1,
}
TAU: dict[str, Any] = {
    "task_id": 3,
    "trial": 0,
    "reward": 0.0,
    "info": {
        "task": {"user_id": "u", "instruction": "do it", "actions": [{"name": "get", "kwargs": {}}], "outputs": ["7"]},
        "source": "user",
        "reward_info": {"reward": 0.0, "info": {"r_actions": 0.0, "gt_data_hash": "h"}, "actions": []},
    },
    "traj": [{"role": "system", "content": "# Airline Agent Policy\nbe good"}, *CHAT["messages"][1:]],
}
SIMULATION: dict[str, Any] = {
    "id": "s-1",
    "task_id": "t1",
    "trial": 2,
    "seed": 42,
    "termination_reason": "user_stop",
    "agent_cost": 0.1,
    "reward_info": {"reward": 1.0, "reward_breakdown": {"DB": 1.0, "COMMUNICATE": 0.5}, "db_check": {"db_match": True}},
    "messages": [
        {"role": "assistant", "content": "Hi!", "cost": 0.0, "turn_idx": 0},
        {"role": "user", "content": "help", "tool_calls": None, "turn_idx": 1},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "name": "get", "arguments": {"x": 1}, "requestor": "assistant"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 2},
            "raw_data": {"usage": {"prompt_tokens_details": {"cached_tokens": 4}}},
            "cost": 0.25,
        },
        {"role": "tool", "id": "a", "content": "1", "requestor": "assistant", "error": False},
        {"role": "user", "content": None, "tool_calls": [{"id": "b", "name": "toggle", "arguments": {}}]},
        {"role": "tool", "id": "b", "content": "on", "requestor": "user", "error": False},
    ],
}
RESULTS: dict[str, Any] = {
    "timestamp": "2026",
    "info": {
        "seed": 300,
        "agent_info": {"implementation": "llm_agent", "llm": "m-1"},
        "environment_info": {
            "domain_name": "telecom",
            "policy": "P",
            "tool_defs": {
                "get": {"name": "get", "doc": "Gets.", "params": {"type": "object", "properties": {"x": {}}}}
            },
        },
    },
    "tasks": [{"id": "t1", "user_scenario": "s", "ticket": "T", "evaluation_criteria": {"actions": []}}],
    "simulations": [SIMULATION],
}
ATIF: dict[str, Any] = {
    "schema_version": "ATIF-v1.9",
    "session_id": "outer",
    "agent": {"name": "ag", "version": "2", "model_name": "m", "tool_definitions": [{"name": "run", "parameters": {}}]},
    "steps": [
        {"step_id": 1, "source": "user", "message": "go"},
        {
            "step_id": 2,
            "source": "agent",
            "message": "",
            "reasoning_content": "hm",
            "tool_calls": [{"tool_call_id": "k", "function_name": "run", "arguments": {"c": "ls"}}],
            "observation": {"results": [{"source_call_id": None, "content": "f"}]},
            "metrics": {"prompt_tokens": 3, "cached_tokens": 1, "cost_usd": 0.5, "logprobs": [-0.5, -0.25]},
        },
        {"step_id": 3, "source": "system", "message": "summary", "observation": {"results": [{"content": "s"}]}},
    ],
    "subagent_trajectories": [
        {"schema_version": "ATIF-v1.9", "session_id": "in", "agent": {"name": "sub"}, "steps": []},
        {"schema_version": "ATIF-v1.9", "session_id": "bad"},
    ],
}
SAMPLES: dict[str, Any] = {"openai-chat": CHAT, "tau-bench": [TAU], "tau2-bench": RESULTS, "atif": ATIF}


def stream_of(data: bytes | Any) -> BinaryIO:
    return open_unpacked(io.BytesIO(data if isinstance(data, bytes) else json.dumps(data).encode()))


def read(name: str, data: bytes | Any) -> list[Trajectory | Rejected]:
    return list(find_reader(name).read(stream_of(data), Source("", path="log", dataset="d")))


def good(name: str, data: bytes | Any) -> list[Trajectory]:
    found = read(name, data)
    assert all(isinstance(item, Trajectory) for item in found), found
    return cast(list[Trajectory], found)


def detected(data: bytes | Any) -> str | None:
    reader = detect_reader(read_head(stream_of(data)), all_readers())
    return reader.name if reader else None


def source_of(trajectory: Trajectory) -> Source:
    assert trajectory.source is not None
    return trajectory.source


def real_files() -> list[tuple[str, str]]:
    found = [(name, path.name) for name in FORMATS for path in sorted((TRACES / name).glob("*.json*"))]
    return found or [("none", "none")]


@needs_traces
@pytest.mark.parametrize(("name", "file"), real_files())
def test_real_logs_are_detected_and_counted(name: str, file: str) -> None:
    expected = json.loads((TRACES / "expected_counts.json").read_text())["formats"][name]["files"][file]
    data = (TRACES / name / file).read_bytes()
    assert detected(data) == name
    found = good(name, data)
    counts = {"runs": len(found), "reward_sum": sum((t.outcome and t.outcome.value) or 0 for t in found)}
    for trajectory in found:
        for key, count in source_of(trajectory).counts.items():
            counts[key] = counts.get(key, 0) + count
    assert {key: counts[key] for key in expected} == pytest.approx(expected)


@needs_traces
@pytest.mark.parametrize(("name", "file"), real_files())
def test_real_logs_keep_every_message_and_their_raw_record(name: str, file: str) -> None:
    for trajectory in good(name, (TRACES / name / file).read_bytes()):
        source = source_of(trajectory)
        text = raw_record(trajectory)
        raw = json.loads(text or "")
        assert canonical_bytes(raw).decode() == text
        assert trajectory.id == record_id(name, canonical_bytes(raw))
        assert len(trajectory.steps) == source.counts["assistant_turns"]
        if name != "atif":  # one ATIF step is several messages
            assert len(trajectory.messages) == source.counts["messages"]


@needs_traces
def test_files_of_other_formats_are_not_claimed() -> None:
    others = [path for path in TRACES.rglob("*.*") if path.parent.name not in FORMATS and path.is_file()]
    assert len(others) > 40
    assert [path for path in others if detected(path.read_bytes()) in FORMATS] == []


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dress", ["plain", "indent", "sorted", "bom", "crlf", "gzip", "lines"])
def test_layout_changes_neither_format_nor_identity(name: str, dress: str) -> None:
    value = SAMPLES[name]
    data = json.dumps(value).encode()
    dressed = {
        "plain": data,
        "indent": json.dumps(value, indent=2).encode(),
        "sorted": json.dumps(value, sort_keys=True, ensure_ascii=False).encode(),
        "bom": b"\xef\xbb\xbf" + data,
        "crlf": json.dumps(value, indent=1).encode().replace(b"\n", b"\r\n"),
        "gzip": gzip.compress(data),
        "lines": b"\n".join(json.dumps(item).encode() for item in (value if isinstance(value, list) else [value])),
    }[dress]
    assert detected(dressed) == name
    ids = [item.id for item in read(name, data) if isinstance(item, Trajectory)]
    assert [item.id for item in read(name, dressed) if isinstance(item, Trajectory)] == ids != []


def test_openai_chat_maps_what_dumps_put_beside_the_messages() -> None:
    record = CHAT | {
        "tools": json.dumps([{"type": "function", "name": "get", "parameters": {"type": "object"}}]),
        "instance_id": "i-1",
        "trial": 4,
        "agent": "ag",
        "model": "m",
        "seed": 9,
        "scores": {"identity": 0.5, "policy": {"value": 1, "detail": {"why": "x"}}, "odd": "text", "none": None},
        "resolved": True,
        "exit_status": "submitted",
        "private": {"gold": 1},
        "task": {"ledger": "l", "data": {"month": 3}},
        "metadata": {"k": 1},
        "usage": {"total_tokens": 10},
        "surprise": [1],
    }
    (trajectory,) = good("openai-chat", record)
    task, source = trajectory.task, source_of(trajectory)
    assert (task.id, task.seed, task.prompt, task.private) == ("i-1", 9, "hello", {"gold": 1})
    assert task.data == {"ledger": "l", "month": 3, "metadata": {"k": 1}}
    assert trajectory.outcome == Outcome(1.0, "reward", "submitted")
    assert trajectory.scores == {
        "identity": Score(0.5),
        "policy": Score(1.0, detail={"why": "x"}),
        "none": Score(abstain=True),
        "resolved": Score(1.0),
    }
    assert trajectory.tools == ({"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}},)
    assert (source.trial, source.agent, source.model, source.line) == ("4", "ag", "m", 1)
    assert source.extra == {"usage": {"total_tokens": 10}, "surprise": [1], "scores": {"odd": "text"}}
    assert [message.role for message in trajectory.prompt] == ["system", "user"]
    assert trajectory.steps[0].action.tool_calls == (ToolCall("c1", "get", {"a": 1}, '{"a": 1}'),)
    assert trajectory.steps[0].usage is not None
    assert trajectory.steps[0].usage.prompt_tokens == 5


@pytest.mark.parametrize(
    ("extra", "outcome"),
    [
        ({}, None),
        ({"reward": None}, None),
        ({"reward": "high"}, None),
        ({"reward": 0}, Outcome(0.0)),
        ({"score": 0.25}, Outcome(0.25, "score")),
        ({"resolved": False}, Outcome(0.0, "resolved")),
        ({"exit_reason": "limit"}, Outcome(None, exit_reason="limit")),
    ],
)
def test_openai_chat_outcome(extra: Mapping[str, Any], outcome: Outcome | None) -> None:
    (trajectory,) = good("openai-chat", {"messages": CHAT["messages"], **extra})
    assert trajectory.outcome == outcome
    assert source_of(trajectory).counts["rewards"] == int(outcome is not None and outcome.value is not None)


def test_openai_chat_legacy_functions_and_odd_content() -> None:
    record = {
        "messages": json.dumps(
            [
                {"role": "developer", "content": [{"type": "text", "text": "a"}, "b"]},
                {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "not json"}},
                {"role": "function", "name": "f", "content": {"ok": True}},
                {"role": "assistant", "reasoning_content": "r", "tool_calls": [{"id": 5, "function": {"name": "g"}}]},
            ]
        ),
        "functions": [{"name": "f"}],
    }
    assert detected(record) == "openai-chat"
    (trajectory,) = good("openai-chat", record)
    first, second = trajectory.steps
    assert trajectory.prompt[0].text == "a\nb"
    assert first.action.tool_calls == (ToolCall(None, "f", None, "not json"),)
    assert (first.observations[0].role, first.observations[0].content) == ("tool", '{"ok": true}')
    assert second.action.tool_calls == (ToolCall("5", "g", {}, ""),)
    assert (second.action.content, second.action.reasoning) == (None, "r")
    assert trajectory.tools == ({"type": "function", "function": {"name": "f"}},)
    assert trajectory.task.id.startswith("prompt-")
    counts = source_of(trajectory).counts
    assert (counts["tool_calls"], counts["tool_results"]) == (1, 0)
    assert (counts["function_calls"], counts["function_results"]) == (1, 1)


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ("", {}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('{"a": NaN}', None),
        ('{"a": 1e400}', None),
        ("[1]", None),
        ('{"a": "\\ud800"}', None),
        ('{"a":' * 300 + "1" + "}" * 300, None),
        ('{"a": ' + "1" * 5000 + "}", None),
    ],
)
def test_arguments_are_kept_as_logged_and_parsed_only_when_sound(raw: str, arguments: Any) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": raw}}
    (trajectory,) = good("openai-chat", {"messages": [{"role": "assistant", "tool_calls": [call]}]})
    assert trajectory.steps[0].action.tool_calls == (ToolCall("c", "f", arguments, raw),)


def test_tau_bench_keeps_gold_private_and_names_the_verdicts() -> None:
    failed = {"task_id": 4, "trial": 1, "reward": 0.0, "info": {"error": "boom", "traceback": "t"}, "traj": []}
    first, second = good("tau-bench", [TAU, failed])
    assert first.task.id == "3"
    assert first.task.data == {"user_id": "u", "instruction": "do it", "domain": "airline"}
    assert first.task.private == {"actions": [{"name": "get", "kwargs": {}}], "outputs": ["7"]}
    detail = {"reward_info_present": True, "r_actions": 0.0, "gt_data_hash": "h"}
    assert first.outcome == Outcome(0.0, "reward", None, detail)
    assert (first.scores, first.tools, source_of(first).trial) == ({"r_actions": Score(0.0)}, None, "0")
    assert second.outcome == Outcome(0.0, "reward", "error: boom", {"reward_info_present": False})
    assert (second.steps, second.truncated) == ((), True)
    assert source_of(second).extra == {"error": "boom", "traceback": "t"}


def test_tau2_bench_tells_the_users_tools_from_the_agents() -> None:
    (trajectory,) = good("tau2-bench", RESULTS)
    task, source = trajectory.task, source_of(trajectory)
    assert task.data == {"user_scenario": "s", "ticket": "T", "domain": "telecom", "policy": "P"}
    assert (task.id, task.seed, task.private) == ("t1", 42, {"evaluation_criteria": {"actions": []}})
    assert (source.agent, source.model, source.trial) == ("llm_agent", "m-1", "2")
    assert trajectory.tools is not None
    assert trajectory.tools[0]["function"]["description"] == "Gets."
    step = trajectory.steps[1]
    assert [(m.role, m.requestor, m.tool_call_id) for m in step.observations] == [
        ("tool", None, "a"),
        ("user", "user", None),
        ("tool", "user", "b"),
    ]
    assert step.usage is not None
    assert (step.usage.prompt_tokens, step.usage.cached_tokens, step.usage.cost_usd) == (9, 4, 0.25)
    assert trajectory.outcome is not None
    assert (trajectory.outcome.value, trajectory.outcome.exit_reason) == (1.0, "user_stop")
    assert trajectory.scores == {"DB": Score(1.0), "COMMUNICATE": Score(0.5)}
    expected = {"messages": 6, "assistant_turns": 2, "tool_calls": 1, "tool_results": 1, "rewards": 1}
    assert source.counts == expected | {"user_tool_calls": 1, "user_tool_results": 1}


def test_tau2_bench_reads_simulations_before_their_tasks_and_alone() -> None:
    (whole,) = good("tau2-bench", RESULTS)
    (late,) = good("tau2-bench", {key: RESULTS[key] for key in ("simulations", "tasks", "info")})
    assert late == whole
    assert detected(SIMULATION) == "tau2-bench"
    (alone,) = good("tau2-bench", SIMULATION)
    assert (alone.id, alone.steps, alone.task.private) == (whole.id, whole.steps, {})
    cut = SIMULATION | {"termination_reason": "max_steps"}
    assert [item.truncated for item in good("tau2-bench", RESULTS | {"simulations": [SIMULATION, cut]})] == [
        False,
        True,
    ]


def test_tau2_bench_skips_one_bad_simulation() -> None:
    text = json.dumps(RESULTS | {"simulations": [SIMULATION, {"task_id": "x", "messages": 5}, SIMULATION]}, indent=1)
    text = text.replace('"agent_cost": 0.1', '"agent_cost": NaN', 1)
    found = read("tau2-bench", text.encode())
    problems = [item.problem.code for item in found if isinstance(item, Rejected)]
    assert (problems, len(found)) == (["TTC-E014", "TTC-E012"], 3)
    twice = read("tau2-bench", b'{"info": {}, "info": {}, "simulations": []}')
    assert [(item.problem.code, item.fatal) for item in twice if isinstance(item, Rejected)] == [("TTC-E017", True)]


def test_atif_steps_and_embedded_trajectories() -> None:
    outer, inner, bad = read("atif", ATIF)
    assert isinstance(outer, Trajectory)
    assert isinstance(inner, Trajectory)
    assert isinstance(bad, Rejected)
    (step,) = outer.steps
    assert step.action.tool_calls == (ToolCall("k", "run", {"c": "ls"}),)
    assert (step.action.reasoning, step.logprob) == ("hm", -0.75)
    assert [(m.role, m.content, m.tool_call_id) for m in step.observations] == [
        ("tool", "f", "k"),
        ("system", "summary", None),
        ("system", "s", None),
    ]
    assert outer.tools == ({"type": "function", "function": {"name": "run", "parameters": {}}},)
    expected = {"messages": 3, "assistant_turns": 1, "tool_calls": 1, "tool_results": 2, "rewards": 0}
    assert source_of(outer).counts == expected
    assert source_of(inner).extra["parent_session"] == "outer"
    assert bad.problem.code == "TTC-E012"


GOOD_LINE = json.dumps(CHAT).encode()
BAD_LINES = {
    "not json": (b'{"messages": [}', "TTC-E011"),
    "wrong shape": (b'{"message": []}', "TTC-E012"),
    "no object": (b"[1, 2]", "TTC-E012"),
    "no role": (b'{"messages": [{"content": "x"}]}', "TTC-E012"),
    "nan reward": (b'{"messages": [], "reward": NaN}', "TTC-E014"),
    "infinite": (b'{"messages": [], "x": {"y": [-Infinity]}}', "TTC-E014"),
    "1e400": (b'{"messages": [], "reward": 1e400}', "TTC-E014"),
    "integer over float": (b'{"messages": [], "reward": 1' + b"0" * 400 + b"}", "TTC-E014"),
    "duplicate key": (b'{"messages": [], "reward": 1, "reward": 0}', "TTC-E017"),
    "latin-1": ('{"messages": [], "x": "é"}'.encode("latin-1"), "TTC-E018"),
    "lone surrogate": (b'{"messages": [], "x": "\\ud83d"}', "TTC-E018"),
    "deep": (b'{"messages": ' + b"[" * 300 + b"]" * 300 + b"}", "TTC-E020"),
    "very deep": (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "TTC-E020"),
    "crowded": (b'{"messages": [' + b"[]," * 2_000_000 + b"1]}", "TTC-E021"),
    "huge integer": (b'{"messages": [], "x": ' + b"1" * 5000 + b"}", "TTC-E022"),
    "raw nul": (b'{"messages": [], "x": "\x00"}', "TTC-E024"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_costs_that_line(case: str) -> None:
    line, code = BAD_LINES[case]
    found = read("openai-chat", b"\n".join([GOOD_LINE, b"", line, GOOD_LINE]))
    assert [type(item) for item in found] == [Trajectory, Rejected, Trajectory]
    bad, last = found[1], found[2]
    assert isinstance(bad, Rejected)
    assert isinstance(last, Trajectory)
    assert (bad.problem.code, bad.problem.line, bad.fatal) == (code, 3, False)
    assert source_of(last).line == 4


@pytest.mark.parametrize("case", [name for name in BAD_LINES if name not in ("not json", "crowded")])
def test_a_bad_element_costs_that_element(case: str) -> None:
    line, code = BAD_LINES[case]
    found = read("openai-chat", b"[" + b",\n".join([GOOD_LINE, line, GOOD_LINE]) + b"]")
    assert [item.problem.code if isinstance(item, Rejected) else "" for item in found] == ["", code, ""]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (GOOD_LINE + b"\n" + GOOD_LINE[:-30], "TTC-E019"),
        (b"[" + GOOD_LINE + b"," + GOOD_LINE[:-30], "TTC-E019"),
        (b"[" + GOOD_LINE + b" " + GOOD_LINE + b"]", "TTC-E011"),
        (b"[" + GOOD_LINE + b"]]", "TTC-E011"),
        (gzip.compress(GOOD_LINE + b"\n" + GOOD_LINE[:-1])[:-9], "TTC-E023"),
    ],
)
def test_what_ends_a_file_is_told_behind_what_was_read(data: bytes, code: str) -> None:
    found = read("openai-chat", data)
    last = found[-1]
    assert isinstance(last, Rejected)
    assert (last.problem.code, last.fatal) == (code, True)
    if code != "TTC-E023":
        assert isinstance(found[0], Trajectory)


def test_a_gzip_bomb_is_refused() -> None:
    data = gzip.compress(GOOD_LINE + b"\n" + b" " * (64 * 2**20))
    found = read("openai-chat", data)
    assert isinstance(found[0], Trajectory)
    assert [item.problem.code for item in found if isinstance(item, Rejected)] == ["TTC-E023"]


def test_escaped_quotes_without_end_take_no_time() -> None:
    found = read("openai-chat", GOOD_LINE + b'\n{"messages": "' + b'\\"' * 500_000)
    assert [item.problem.code for item in found if isinstance(item, Rejected)] == ["TTC-E019"]


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        find_reader("openai_chat")
    assert "openai-chat" in str(caught.value.hint)
    assert set(FORMATS) <= set(reader_names())
    assert all(isinstance(find_reader(name), Reader) for name in FORMATS)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in inner for found in places(child, (*path, key)))]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_damaged_record_crashes_a_reader(name: str, data: st.DataObject) -> None:
    sample = copy.deepcopy(SAMPLES[name])
    *path, last = data.draw(st.sampled_from([place for place in places(sample) if place]))
    parent = sample
    for key in path:
        parent = parent[key]
    if data.draw(st.booleans()):
        del parent[last]
    else:
        parent[last] = data.draw(JSON_VALUES)
    for item in read(name, sample):
        assert isinstance(item, (Trajectory, Rejected))
        if isinstance(item, Trajectory):
            assert len(item.steps) == source_of(item).counts["assistant_turns"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damaged_bytes_crash_detection_or_reading(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FORMATS))
    text = bytearray(json.dumps(SAMPLES[name], indent=data.draw(st.sampled_from([None, 1]))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=4))
    try:
        detected(bytes(text))
    except BadRecord:
        assert is_packed(bytes(text)), "only what says it is compressed can be refused as a whole"
        return
    for reader in FORMATS:
        assert all(isinstance(item, (Trajectory, Rejected)) for item in read(reader, bytes(text)))
    assert all(item is not None for item in records(stream_of(bytes(text))))


def test_a_text_that_is_no_text_stays_a_part() -> None:
    blocks = [{"type": "text", "text": True}, {"type": "tool_use", "id": "t", "name": "n", "input": {}}]
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": blocks}]
    (found,) = good("anthropic", {"system": "s", "messages": messages, "max_tokens": 5})
    assert [message.text for message in found.messages] == ["s", "go", ""]


def test_detection_takes_any_part() -> None:
    odd = {"messages": [{"role": "user", "content": [{"type": ["no", "text"]}]}]}
    assert detected(json.dumps(odd).encode()) == "openai-chat"
