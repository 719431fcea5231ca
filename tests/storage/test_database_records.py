"""What goes into the archive comes back, exactly: on a DuckDB file, and on PostgreSQL where `TTC_TEST_POSTGRES` is set
to the URL of an empty database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.storage.database import Database
from ttc_replay.storage.errors import StoreError
from ttc_replay.storage.records import (
    FIDELITY_ORDER,
    Message,
    Node,
    Outcome,
    Score,
    Source,
    Step,
    Task,
    ToolCall,
    Trajectory,
    Usage,
)

POSTGRES = os.environ.get("TTC_TEST_POSTGRES")


@pytest.fixture(scope="module", params=["duckdb", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One archive for tests that only look at what they put in themselves."""
    if request.param == "postgresql" and not POSTGRES:
        pytest.skip("TTC_TEST_POSTGRES is not set")
    location = POSTGRES if request.param == "postgresql" else str(tmp_path_factory.mktemp("db") / "archive.duckdb")
    with Database.open(str(location)) as database:
        yield database


def make(number: int, **changes: Any) -> Trajectory:
    """Recorded trajectory `number`, of four steps."""
    steps = tuple(Step(index, Message("assistant", f"say {index}"), (Message("user", "so?"),)) for index in range(4))
    source = Source("openai-chat", "logs/a.jsonl", number, dataset="set", raw=f'{{"n":{number}}}')
    made = Trajectory(f"{number:08x}" * 2, Task("task"), steps=steps, outcome=Outcome(0.5), source=source)
    return replace(made, **changes)


# Everything a record may hold comes back equal.

any_text = st.text(st.characters(), max_size=20)  # NUL and lone surrogates too: JSON columns keep them
plain_text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(any_text, json_values, max_size=3)
optional_text = st.none() | any_text
calls = st.builds(ToolCall, optional_text, any_text, st.none() | objects, optional_text)
messages = st.builds(
    Message,
    role=any_text,
    content=optional_text | st.lists(objects, max_size=2),
    reasoning=optional_text,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=optional_text,
    name=optional_text,
    requestor=optional_text,
)
score_values = st.builds(Score, st.none() | st.just(0.0) | numbers, st.booleans(), optional_text, objects)
named_scores = st.dictionaries(any_text, score_values, max_size=2)
tokens = st.none() | st.integers(0, 2**60)
usages = st.builds(Usage, tokens, tokens, tokens, st.none() | numbers)
fidelities = st.none() | st.sampled_from(FIDELITY_ORDER)
small = st.integers(-(2**31), 2**31 - 1)
step_records = st.builds(
    Step,
    index=small,
    action=messages,
    observations=st.lists(messages, max_size=2).map(tuple),
    fidelity=fidelities,
    usage=st.none() | usages,
    logprob=st.none() | st.just(0.0) | st.just(float("-inf")) | numbers,
    scores=named_scores,
)
sources = st.builds(
    Source,
    format=plain_text,
    path=plain_text,
    line=st.none() | st.integers(0, 2**62),
    dataset=st.none() | plain_text,
    trial=st.none() | plain_text,
    agent=st.none() | plain_text,
    model=st.none() | plain_text,
    counts=st.dictionaries(any_text, st.integers(0), max_size=2),
    extra=objects,
    raw=st.none() | plain_text,
)
trajectory_records = st.builds(
    Trajectory,
    id=st.just("given by the test"),
    task=st.builds(Task, any_text, any_text, objects, st.none() | st.integers(), objects),
    tools=st.none() | st.lists(objects, max_size=2).map(tuple),
    prompt=st.lists(messages, max_size=2).map(tuple),
    steps=st.lists(step_records, max_size=3).map(tuple),
    outcome=st.none() | st.builds(Outcome, st.none() | st.just(0.0) | numbers, any_text, optional_text, objects),
    scores=named_scores,
    final_state=json_values,
    truncated=st.booleans(),
    parent_id=st.none() | plain_text,
    branch_step=st.none() | small,
    run=st.none() | plain_text,
    fidelity=fidelities,
    source=st.none() | sources,
)
many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@many
@given(drawn=st.lists(trajectory_records, min_size=1, max_size=3))
def test_a_trajectory_comes_back_as_it_was(shared: Database, drawn: list[Trajectory]) -> None:
    batch = [replace(item, id=uuid4().hex) for item in drawn]  # not drawn: examples are tried again
    assert shared.add_trajectories(batch) == [item.id for item in batch]
    for item in batch:
        assert shared.trajectory(item.id, raw=True) == item
        assert shared.trajectory(item.id).source == (item.source and replace(item.source, raw=None))


nodes = st.builds(
    Node,
    run=st.just("tree"),
    trajectory_id=st.uuids().map(str),
    node=st.just(0),
    parent=small,
    depth=small,
    visits=st.integers(0, 2**60),
    value_sum=numbers,
    prior=st.none() | numbers,
    key=plain_text,
    value=st.none() | st.just(0.0) | numbers,
    terminal=st.booleans(),
    truncated=st.booleans(),
    spine=st.booleans(),
    imputed=st.booleans(),
    samples=small,
    status=st.sampled_from(("open", "closed", "exhausted", "failed", "pruned")),
    reason=st.none() | plain_text,
    fidelity=fidelities,
    call_key=st.none() | plain_text,
    step=st.none() | step_records,
)
plain_scores = st.dictionaries(plain_text, st.builds(Score, st.none() | numbers, st.booleans(), plain_text, objects))


@many
@given(first=nodes, second=nodes, scores=plain_scores)
def test_a_tree_comes_back_as_it_was(shared: Database, first: Node, second: Node, scores: dict[str, Score]) -> None:
    tree = [first, replace(second, trajectory_id=first.trajectory_id, node=1)]
    for _ in range(2):  # the second time replaces
        shared.save_nodes("tree", first.trajectory_id, tree, {1: scores})
    assert list(shared.nodes("tree", first.trajectory_id)) == tree
    assert shared.node_scores("tree", first.trajectory_id) == ({1: scores} if scores else {})


def test_text_that_no_column_can_hold_is_replaced_and_never_crashes(shared: Database) -> None:
    source = Source("for\x00mat", "pa\ud800th", dataset="\udfff", raw="ra\x00w 😀")
    odd = make(901, task=Task("id\x00\ud800"), source=source, run="r\x00")
    shared.add_trajectories([odd])
    found = shared.trajectory(odd.id, raw=True)
    assert found.task == odd.task
    assert (found.run, found.source) == (
        "r\ufffd",
        Source("for\ufffdmat", "pa\ufffdth", dataset="\ufffd", raw="ra\ufffdw 😀"),
    )


def test_numbers_that_are_no_verdict(shared: Database) -> None:
    nan, infinity = float("nan"), float("inf")
    odd = make(902, outcome=Outcome(nan, detail={"a": [nan, {"b": -infinity}]}), scores={"s": Score(nan)})
    shared.add_trajectories([odd])
    found = shared.trajectory(odd.id)
    assert found.outcome == Outcome(None, detail={"a": ["NaN", {"b": "-Infinity"}]})
    assert found.scores == {"s": Score(None)}


# Runs, results, calls, exports


def test_runs(shared: Database) -> None:
    shared.save_run("run-1", {"seed": 1}, status="running", seed=2**62, started_at="2026-01-01T00:00:00+00:00")
    shared.save_run("run-1", {"seed": 1}, status="done", report={"totals": {"improved": 0}})
    found = shared.run("run-1")
    assert found is not None
    assert found["configuration"] == {"seed": 1}
    assert (found["status"], found["seed"], found["report"]) == ("done", 2**62, {"totals": {"improved": 0}})
    shared.save_run("run-2", {}, started_at="2026-01-02T00:00:00+00:00")
    assert [row["run"] for row in shared.runs()][:2] == ["run-2", "run-1"]
    assert shared.run("unknown") is None
    with pytest.raises(StoreError, match="runs has no column colour"):
        shared.save_run("run-1", {}, colour="red")


def result(position: int, **changes: Any) -> Mapping[str, Any]:
    row = {"trajectory_id": f"t{position}", "position": position, "observed": None, "baseline": 0.0, "best": 1.0}
    flags = {"novel": True, "trivial": False, "counterfactual_id": None, "branch_step": None, "fidelity": "snapshot"}
    spent = {"transitions": 64, "calls": 3, "tokens": 2**40, "cost_usd": 0.0, "stopped": "solved", "detail": {"a": [1]}}
    return {**row, **flags, **spent, **changes}


def test_results_are_replaced_as_a_whole(shared: Database) -> None:
    shared.save_results("run-1", [result(1), result(0), result(2)])
    shared.save_results("run-x", [result(5)])
    shared.save_results("run-1", [result(1, best=None, novel=None), result(0)])
    assert shared.results("run-1") == [
        {**result(0), "run": "run-1"},
        {**result(1, best=None, novel=None), "run": "run-1"},
    ]
    assert [row["position"] for row in shared.results("run-x")] == [5]
    with pytest.raises(StoreError, match="no column"):
        shared.save_results("run-1", [{"bust": 1}])
    assert len(shared.results("run-1")) == 2


def test_a_finished_call_is_kept_for_ever(shared: Database) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 0, "cost_usd": 0.25}
    body = [{"action": {"role": "assistant", "content": "é\x00\ud800"}}]
    shared.save_calls([{"key": "k1", "run": "r", "provider": "p", "body": body, "result": None, "usage": usage}])
    shared.save_calls([{"key": "k1", "body": "other"}, {"key": "k2", "body": []}, {"key": "k2", "body": [2]}])
    found = shared.calls(["k2", "k1", "k3", *(f"none-{number}" for number in range(1200))])
    assert set(found) == {"k1", "k2"}
    assert (found["k1"]["body"], found["k1"]["usage"], found["k1"]["provider"]) == (body, usage, "p")
    assert (found["k2"]["body"], found["k2"]["usage"]) == ([], None)
    assert shared.calls([]) == {}


def test_how_far_a_journal_is_folded(shared: Database) -> None:
    assert shared.folded("a/journal.jsonl") == 0
    shared.set_folded("a/journal.jsonl", 17, 1000)
    shared.set_folded("a/journal.jsonl", 40)
    shared.set_folded("b/journal.jsonl", 3)
    assert (shared.folded("a/journal.jsonl"), shared.folded("b/journal.jsonl")) == (40, 3)


def lineage_of(database: Database) -> list[dict[str, Any]]:
    names, rows = database.query("SELECT * FROM v_exports WHERE run = 'lineage' ORDER BY row")
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_lineage_from_exported_row_to_source_line(shared: Database) -> None:
    recorded = make(903, scores={})
    better = make(904, run="lineage", parent_id=recorded.id, branch_step=1, source=None, scores={"gold": Score(1.0)})
    shared.add_trajectories([recorded, better])
    shared.save_results("lineage", [result(0, trajectory_id=recorded.id, counterfactual_id=better.id)])
    flags = {"terminal": False, "truncated": False, "spine": True, "imputed": False}
    unknown = dict.fromkeys(("prior", "value", "reason", "fidelity", "call_key", "step"))
    numbers = {"node": 0, "parent": -1, "depth": 0, "visits": 4, "value_sum": 2.0, "samples": 1}
    root = Node(run="lineage", trajectory_id=recorded.id, key="", status="open", **flags, **unknown, **numbers)  # type: ignore[arg-type]
    leaf = replace(
        root, node=1, parent=0, depth=1, value=1.0, call_key="call-1", fidelity="snapshot", step=better.steps[1]
    )
    shared.save_nodes("lineage", recorded.id, [root, leaf], {1: {"guide": Score(1.0), "judge": Score(abstain=True)}})
    shared.save_calls([{"key": "call-1", "provider": "test", "body": [], "usage": {"prompt_tokens": 5}}])
    rows = [
        {"path": "train.jsonl", "row": 0, "run": "lineage", "trajectory_id": better.id, "node": 1, "sha256": "aa"},
        {"path": "train.jsonl", "row": 1, "run": "lineage", "trajectory_id": recorded.id, "node": 0, "sha256": "bb"},
    ]
    export = {"format": "trl-sft", "path": "out", "sha256": "cc", "run": "lineage"}
    assert shared.save_export(export, rows) == shared.save_export(export, rows)
    first, second = lineage_of(shared)
    assert (first["node_value"], first["call_key"], first["provider"], first["prompt_tokens"]) == (
        1.0,
        "call-1",
        "test",
        5,
    )
    assert first["node_verdicts"].startswith("guide=1")
    assert first["node_verdicts"].endswith("judge=abstains")
    assert first["verdicts"].startswith("gold=1")
    assert (first["searched_id"], first["baseline"], first["best"]) == (recorded.id, 0.0, 1.0)
    assert (first["source_path"], first["source_line"]) == ("logs/a.jsonl", 903)
    assert (second["searched_id"], second["node_value"], second["verdicts"]) == (recorded.id, None, None)
    assert [row["rows"] for row in shared.exports() if row["run"] == "lineage"] == [2]
