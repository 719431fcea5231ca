"""LangSmith runs: golden JSONL, nested JSON and Parquet in full, and every trap of the format."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from ttc_replay.storage.readers import langsmith_parquet
from ttc_replay.storage.readers.langsmith_parquet import parquet_rows
from ttc_replay.storage.records import Message, Outcome, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "langsmith"


def shape(messages: Any) -> str:
    return " ".join(
        message.role[0] + (str(len(message.tool_calls)) if message.tool_calls else "") for message in messages
    )


def test_golden_agent_of_langchain(logs: Any) -> None:
    main, child = logs.good("langsmith", GOLDEN / "agent.jsonl")
    assert shape(main.messages) == "s u a2 t t a1 t"
    assert [message.text for message in main.prompt] == ["You are a clerk.", "A lamp, a saddle, a unicorn?"]
    assert [tool["function"]["name"] for tool in main.tools] == ["price", "expert"]
    assert main.steps[0].usage == Usage(50, 7, 20)
    last = main.steps[1].observations[0]  # no later call has it: it comes from the failed tool run
    assert (last.tool_call_id, last.text, last.is_error) == ("call-3", "ValueError('no such item')", True)
    assert main.outcome == Outcome(None, "reward", "error: ValueError('no such item')")
    assert main.truncated
    assert (child.parent_id, child.source.relation, child.branch_step, child.source.agent) == (
        main.id,
        "subagent",
        0,
        "expert",
    )
    assert shape(child.messages) == "s u a1 t a"
    assert main.source.counts == {
        **{"runs": 1, "observations": 15, "tool_observations": 3, "assistant_turns": 2, "rewards": 0},
        **{"messages": 7, "tool_calls": 3, "tool_results": 3},
    }
    assert logs.counts([main, child])["observations"] == len((GOLDEN / "agent.jsonl").read_text().splitlines())
    assert len(json.loads(main.source.raw)) == 18


@pytest.mark.parametrize(("file", "runs"), [("shop.json", 1), ("bulk.parquet", 2)])
def test_golden_openai_shaped_runs(logs: Any, file: str, runs: int) -> None:
    found = logs.good("langsmith", GOLDEN / file)
    assert len(found) == runs
    for main in found:
        assert shape(main.messages) == "s u a1 t a"
        assert main.steps[0].action.reasoning == "Look it up."
        assert [step.usage for step in main.steps] == [Usage(100, 10, 64, 0.00021)] * 2
        assert {name: score.value for name, score in main.scores.items()} == {"correct": 0.5}
        assert main.scores["correct"].detail == {"n": 2}
        assert (main.outcome.value, main.outcome.name, list(main.outcome.detail["feedback"])) == (
            0.5,
            "correct",
            ["tone"],
        )
        assert main.source.sampling == {"temperature": 0.2, "seed": 7}
        assert (main.source.model, main.source.agent, main.truncated) == ("gpt-5-mini", "shop", False)
        assert main.source.extra["metadata"] == {"customer": "c-1"}
        assert (main.source.ended_at or "").endswith(":09Z")
        assert main.source.counts["observations"] == 4


def test_order_of_lines_changes_no_identity(logs: Any) -> None:
    lines = (GOLDEN / "agent.jsonl").read_bytes().splitlines()
    ids = [item.id for item in logs.good("langsmith", GOLDEN / "agent.jsonl")]
    assert [item.id for item in logs.good("langsmith", b"\n".join(reversed(lines)))] == ids
    assert [item.id for item in logs.good("langsmith", b"\n".join([*lines, *lines]))] == ids  # exported twice
    page = json.dumps({"runs": [json.loads(line) for line in lines], "cursors": {}}).encode()
    assert logs.detected(page) == "langsmith"
    assert [item.id for item in logs.good("langsmith", page)] == ids


def run(key: str, kind: str, parent: str | None = None, **fields: Any) -> dict[str, Any]:
    about = {"id": key, "run_type": kind, "name": key, "trace_id": "t", "parent_run_id": parent}
    times = {"start_time": f"2026-01-01T00:00:0{fields.pop('at', 0)}", "end_time": "2026-01-01T00:01:00"}
    return {**about, **times, "inputs": {}, "outputs": {}, **fields}


def llm(key: str, asked: Any, answered: Any, **fields: Any) -> dict[str, Any]:
    return run(key, "llm", "root", inputs=asked, outputs=answered, **fields)


USER = {"messages": [{"role": "user", "content": "q"}]}
ANSWERS: dict[str, Any] = {
    "openai": {
        "choices": [
            {"message": {"role": "assistant", "content": "a"}},
            {"message": {"role": "assistant", "content": "z"}},
        ]
    },
    "responses": {
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]
    },
    "plain message": {"role": "assistant", "content": "a"},
    "completion": {"generations": [[{"text": "a"}, {"text": "z"}]], "llm_output": {}},
    "anthropic": {"role": "assistant", "type": "message", "content": [{"type": "text", "text": "a"}]},
    "output": {"output": "a"},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_shapes_of_answers(logs: Any, name: str) -> None:
    [found] = logs.good("langsmith", [run("root", "chain"), llm("l", USER, ANSWERS[name], at=1)])
    assert [message.text for message in found.messages] == ["q", "a"]


@pytest.mark.parametrize(
    ("fields", "answer", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 1, "total_cost": "0.5"}, {}, Usage(9, 1, None, 0.5)),
        (
            {},
            {"usage": {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}},
            Usage(9, 1, 4),
        ),
        (
            {},
            {"usage": {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 1}},
            Usage(8, 1, 3),
        ),  # Anthropic
        ({}, {"usage_metadata": {"input_tokens": 9, "output_tokens": 1}}, Usage(9, 1)),
        ({}, {"llm_output": {"token_usage": {"prompt_tokens": 9, "completion_tokens": 1}}}, Usage(9, 1)),
        ({"total_cost": "much"}, {}, None),
    ],
)
def test_tokens_and_money(logs: Any, fields: Any, answer: Any, expected: Usage | None) -> None:
    rows = [run("root", "chain"), llm("l", USER, {"role": "assistant", "content": "a", **answer}, at=1, **fields)]
    assert logs.good("langsmith", rows)[0].steps[0].usage == expected


def test_naive_times_are_utc(logs: Any) -> None:
    [found] = logs.good(
        "langsmith", [run("root", "chain"), llm("l", USER, {"role": "assistant", "content": "a"}, at=1)]
    )
    assert found.steps[0].started_at == "2026-01-01T00:00:01Z"


def test_a_trace_without_calls_is_its_input_and_output(logs: Any) -> None:
    row = run(
        "root", "chain", inputs={"input": "q"}, outputs={"output": "a"}, end_time=None, reference_example_id="ex-1"
    )
    [found] = logs.good("langsmith", [row])
    assert [message.text for message in found.messages] == ["q", "a"]
    assert found.truncated  # still running
    assert found.task.id == "ex-1"


def test_serialised_objects_are_never_constructed(logs: Any) -> None:
    """A constructor of anything is data; the library that could call it is not even imported."""
    hostile = {"lc": 1, "type": "constructor", "id": ["subprocess", "Popen"], "kwargs": {"args": ["false"]}}
    rows = [
        run("root", "chain", inputs=hostile),
        llm("l", {"messages": [[hostile]]}, {"generations": [[{"message": hostile}]]}, at=1),
    ]
    [found] = logs.good("langsmith", rows)
    assert found.messages == ()
    program = (
        "import io, sys\nfrom ttc_replay.storage.readers.langsmith import LangSmithReader\n"
        "from ttc_replay.storage.records import Source\n"
        f"found = list(LangSmithReader().read(open({str(GOLDEN / 'agent.jsonl')!r}, 'rb'), Source('langsmith')))\n"
        "assert len(found) == 2\n"
        "assert not {'langchain', 'langchain_core', 'langsmith', 'pyarrow.parquet'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("bad", [5, {"run_type": "llm"}, {"id": "x"}, {"id": "x", "run_type": 5}])
def test_a_bad_row_does_not_hide_its_neighbours(logs: Any, bad: Any) -> None:
    problem, found = logs.all("langsmith", [run("root", "chain"), bad, llm("l", USER, ANSWERS["openai"], at=1)])
    assert (problem.problem.line, problem.problem.code) == (2, "TTC-E012")
    assert shape(found.messages) == "u a"


def test_parents_in_a_circle_end(logs: Any) -> None:
    rows = [run("a", "tool", "b"), run("b", "tool", "a"), run("c", "llm", "a", inputs=USER, outputs=ANSWERS["openai"])]
    assert shape(logs.good("langsmith", rows)[0].messages) == "u a"


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


def test_parquet_of_something_else_is_refused(logs: Any) -> None:
    data = parquet([{"a": 1}])
    assert logs.detected(data) is None
    [problem] = logs.all("langsmith", data)
    assert problem.fatal
    assert problem.problem.code == "TTC-E012"


def test_parquet_rows_that_cannot_be_kept_do_not_hide_the_others(logs: Any) -> None:
    rows = [
        {"id": str(at), "run_type": "chain", "trace_id": str(at), "score": float("nan") if at == 1 else 1.0}
        for at in range(3)
    ]
    found = logs.all("langsmith", parquet(rows, row_group_size=1))
    assert [item.problem.code for item in found if hasattr(item, "problem")] == ["TTC-E014"]
    assert len(found) == 3


def test_a_long_parquet_file_is_detected_without_its_end(logs: Any) -> None:
    rows = [{"id": str(at), "run_type": "chain", "noise": bytes(range(256)) * 40} for at in range(200)]
    data = parquet(rows, compression="none", use_dictionary=False)
    assert len(data) > 2**20
    assert logs.detected(data) == "langsmith"
    assert len(logs.good("langsmith", data)) == 200


def test_calls_know_their_tools_and_history_from_either_side(logs: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    rows = [run("root", "chain"), llm("l", {**USER, "system": "be good", "tools": [tool]}, ANSWERS["openai"], at=1)]
    [found] = logs.good("langsmith", rows)
    assert found.prompt == (Message("system", "be good"), Message("user", "q"))
    assert found.tools == (tool,)


def test_a_text_that_a_small_file_means_in_every_row_is_held_once(logs: Any) -> None:
    """2 KB of Parquet meant 3 GB: one long text, in each of 64 rows."""
    size, rows = 2**23, 64
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    lists = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), texts)
    table = pa.table({"id": list(map(str, range(rows))), "run_type": ["llm"] * rows, "inputs": texts, "tags": lists})
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd", dictionary_pagesize_limit=2**30, store_schema=False)
    assert len(data.getvalue()) < 10_000
    before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    try:
        rows_of: Any = parquet_rows(data)
        found = [(row.line, len(row.value["inputs"]), len(row.value["tags"][0])) for row in rows_of]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [(number, size, size) for number in range(1, rows + 1)]
    assert peak < 16 * size
    assert pa.default_memory_pool().max_memory() < max(before + 1, 32 * size)


def test_lists_of_very_many_items_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langsmith_parquet, "_MOST_ITEMS", 100)
    good = parquet([{"id": "a", "run_type": "llm", "tags": ["x"] * 50}] * 2)
    assert len(list(parquet_rows(io.BytesIO(good)))) == 2
    problem: Any
    [problem] = parquet_rows(io.BytesIO(parquet([{"id": "a", "run_type": "llm", "tags": ["x"] * 101}])))
    assert (problem.fatal, problem.problem.code) == (True, "TTC-E021")


def test_a_row_that_is_too_much_to_hold_ends_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langsmith_parquet, "_TOGETHER", 1000)
    monkeypatch.setattr(langsmith_parquet, "MAX_VALUES_MEMORY", 5000)
    rows = [{"id": "a", "run_type": "llm", "extra": {"k": "x" * size}} for size in (4000, 4000, 6000, 1)]
    found: list[Any] = list(parquet_rows(io.BytesIO(parquet(rows))))
    *good, problem = found
    assert [len(row.value["extra"]["k"]) for row in good] == [4000, 4000]
    assert (problem.problem.code, problem.problem.line) == ("TTC-E021", 2)
