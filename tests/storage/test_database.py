"""The archive on a real DuckDB file; on PostgreSQL too where `TTC_TEST_POSTGRES` names an empty database."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.storage.database import Database, Query
from ttc_replay.storage.errors import DatabaseBusy, MissingExtra, StoreError, TtcError, UnknownId, UsageError
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


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "archive.duckdb")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    with Database.open(path) as opened:
        yield opened


def make(number: int, **changes: Any) -> Trajectory:
    """Trajectory `number` of three datasets, five tasks and ten files, with as many steps as its last digit."""
    digit = number % 10
    steps = tuple(
        Step(index, Message("assistant", f"say {index}"), (Message("user", "and then?"),)) for index in range(digit)
    )
    source = Source(
        "openai-chat", f"logs/{9 - digit}.jsonl", number, dataset=f"set-{number % 3}", raw=f'{{"n":{number}}}'
    )
    outcome = None if digit == 9 else Outcome(digit / 8)
    made = Trajectory(f"{number:08x}" * 2, Task(f"task-{number % 5}"), steps=steps, outcome=outcome, source=source)
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
many = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


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


def test_what_is_not_json_is_an_error_that_names_the_trajectory(database: Database) -> None:
    with pytest.raises(StoreError, match="object is not JSON") as caught:
        database.add_trajectories([make(1), make(2, final_state={"x": object()})])
    assert caught.value.place == make(2).id
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(StoreError):
        database.add_trajectories([make(3, final_state=deep)])
    assert database.count() == 0


# Writing


def test_adding_again_changes_nothing(database: Database) -> None:
    batch = [make(number) for number in range(25)]
    assert database.add_trajectories([*batch[:10], batch[3]]) == [item.id for item in batch[:10]]
    changed = [replace(item, outcome=Outcome(0.123)) for item in batch]
    assert database.add_trajectories(changed) == [item.id for item in batch[10:]]
    assert database.add_trajectories(batch) == []
    assert database.add_trajectories([]) == []
    assert database.trajectory(batch[3].id).outcome == batch[3].outcome
    assert database.trajectory(batch[12].id).outcome == Outcome(0.123)
    assert database.query("SELECT count(*), sum(steps) FROM v_trajectories")[1] == [(25, 100)]
    assert database.query("SELECT count(*) FROM v_steps")[1] == [(100,)]


def test_replacing_leaves_one_of_each(database: Database) -> None:
    batch = [make(number, run="r", scores={"judge": Score(0.0)}) for number in range(12)]
    database.add_trajectories(batch)
    changed = [replace(item, steps=item.steps[:1], scores={"judge": Score(1.0)}) for item in batch[:6]]
    database.replace_trajectories(changed)
    database.replace_trajectories([make(20)])
    assert database.count() == 13
    assert [database.trajectory(item.id, raw=True) for item in changed] == changed
    assert database.query("SELECT value, count(*) FROM v_scores GROUP BY value ORDER BY value")[1] == [
        (0.0, 6),
        (1.0, 6),
    ]


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from ttc_replay.storage.database import Database
from ttc_replay.storage.records import Message, Step, Task, Trajectory
with Database.open(sys.argv[1]) as database:
    for batch in range(10_000):
        steps = tuple(Step(i, Message("assistant", "x" * 500)) for i in range(5))
        ids = [f"{batch:06d}-{i}" for i in range(40)]
        database.add_trajectories([Trajectory(i, Task("t"), steps=steps) for i in ids])
        print(batch, flush=True)
"""


def start_writer(path: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen([sys.executable, "-c", WRITER, path, root], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("acknowledged", [1, 7])
def test_after_sigkill_the_file_holds_the_acknowledged_batches_whole(path: str, acknowledged: int) -> None:
    with start_writer(path) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledged):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in writer.stdout.read().split())])
    assert writer.returncode == -signal.SIGKILL
    with Database.open(path) as database:
        ids = database.trajectory_ids()
        batches = len(ids) // 40
        assert batches in (last + 1, last + 2)  # one batch may be committed and not yet acknowledged
        assert ids == sorted(f"{batch:06d}-{i}" for batch in range(batches) for i in range(40))
        assert all(len(found.steps) == 5 for found in database.trajectories())
        assert database.add_trajectories([make(1)]) == [make(1).id]


def test_a_second_process_is_told_who_holds_the_file(path: str) -> None:
    with start_writer(path) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            with pytest.raises(DatabaseBusy, match=f"process {writer.pid} ") as caught:
                Database.open(path)
        finally:
            writer.kill()
    assert (caught.value.error_code, caught.value.exit_code, caught.value.place) == ("TTC-E201", 6, path)
    assert caught.value.hint


def test_a_second_opening_in_this_process_is_busy_until_the_first_is_closed(path: str) -> None:
    first = Database.open(path)
    with pytest.raises(DatabaseBusy, match=f"process {os.getpid()} "):
        Database.open(path)
    first.close()
    first.close()
    Database.open(path, create=False).close()


# Files


def mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = tmp_path / "new" / "archive.duckdb"
        with Database.open(str(path)) as database:
            database.add_trajectories([make(1)])
            names = {file.name: mode(file) for file in path.parent.iterdir()}
            assert names == {path.name: 0o600, f"{path.name}.wal": 0o600, f"{path.name}.tmp": 0o700}
            database.query("SELECT * FROM v_trajectories")
        assert mode(path.parent) == 0o700
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        path.chmod(0o644)
        Database.open(str(path)).close()
        assert mode(path) == 0o600
    finally:
        assert os.umask(before) == 0o022


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no database"), (b"{}\n" * 5000, "not a DuckDB database"), (b"x", "not a")]
)
def test_what_is_not_a_database(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "logs.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        Database.open(str(path), create=False)
    assert (caught.value.exit_code, caught.value.place) == (2, str(path))
    assert (path.read_bytes() if path.exists() else None) == content
    assert list(tmp_path.iterdir()) == ([path] if content is not None else [])


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("mysql://u:secret@localhost/x", UsageError),
        ("nonsense://", UsageError),
        ("postgresql://u:secret@127.0.0.1:1/x", StoreError),
    ],
)
def test_urls_that_cannot_be_opened_do_not_show_their_password(url: str, error: type[TtcError]) -> None:
    with pytest.raises((error, MissingExtra)) as caught:
        Database.open(url)
    assert "secret" not in caught.value.line()


# Reading


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database.open(str(tmp_path_factory.mktemp("db") / "archive.duckdb")) as opened:
        opened.add_trajectories([make(number) for number in range(700)])
        opened.add_trajectories([make(1000 + number, run="run-a", parent_id=make(number).id) for number in range(4)])
        opened.add_trajectories([make(1010, run="run-b")])
        yield opened


ALL = [*range(700), 1000, 1001, 1002, 1003, 1010]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (Query(), ALL),
        (Query(recorded=True), range(700)),
        (Query(recorded=False), [1000, 1001, 1002, 1003, 1010]),
        (Query(run="run-a"), range(1000, 1004)),
        (Query(dataset="set-1"), [number for number in ALL if number % 3 == 1]),
        (Query(dataset="nothing"), []),
        (Query(ids=[make(5).id, "unknown", make(2).id]), [2, 5]),
        (Query(ids=[]), []),
        (Query(ids=[make(number).id for number in range(0, 1400, 2)]), [number for number in ALL if number % 2 == 0]),
        (Query(task_ids=["task-0", "task-4"]), [number for number in ALL if number % 5 in (0, 4)]),
        (Query(where="outcome >= 1 AND steps = 8"), [number for number in ALL if number % 10 == 8]),
        (Query(where="outcome IS NULL -- no verdict"), [number for number in ALL if number % 10 == 9]),
        (Query(where="id LIKE '%:1%' OR task_id = 'a:b'"), []),
        (
            Query(where="steps = 3", recorded=True, dataset="set-0"),
            [n for n in range(700) if n % 10 == 3 and n % 3 == 0],
        ),
    ],
)
def test_selection(filled: Database, query: Query, numbers: list[int]) -> None:
    expected = sorted((make(number) for number in numbers), key=in_order)
    ids = [item.id for item in expected]
    assert filled.trajectory_ids(query) == ids
    assert filled.count(query) == len(ids)
    assert filled.trajectory_ids(replace(query, limit=3)) == ids[:3]
    assert [(item.id, len(item.steps)) for item in filled.trajectories(query)] == [
        (item.id, len(item.steps)) for item in expected
    ]


def in_order(item: Trajectory) -> tuple[str, int, str]:
    assert item.source is not None
    return item.source.path, item.source.line or 0, item.id


def test_reading_may_be_left_half_way_and_interleaved_with_writing(database: Database) -> None:
    database.add_trajectories([make(number) for number in range(450)])
    reading = database.trajectories()
    next(reading)
    database.add_trajectories([make(800)])
    database.replace_trajectories([make(9, steps=())])
    assert len(list(reading)) == 449
    assert database.count() == 451


@pytest.mark.parametrize(
    "where",
    ["no_such_column = 1", "1=1); DELETE FROM trajectories; --", "1=1) ; SELECT (1", "", "raw LIKE 'x'", "steps ="],
)
def test_a_bad_where_is_a_usage_error(filled: Database, where: str) -> None:
    with pytest.raises(UsageError, match="SQL"):
        filled.count(Query(where=where))
    assert filled.count() == len(ALL)


def test_ids_by_prefix(database: Database) -> None:
    ids = ["abcd1111", "abcd2222", "abce", "abcefff0", "f00"]
    database.add_trajectories([replace(make(1), id=one) for one in ids])
    assert database.resolve("abcd1") == "abcd1111"
    assert database.resolve("abce") == "abce"
    assert database.resolve("abcef") == "abcefff0"
    assert database.trajectory("f00").id == "f00"
    for text, message, hint in [
        ("abcd", "fits several", "which of abcd1111, abcd2222"),
        ("abc", "no trajectory", "at least 4 characters"),
        ("abcd19", "no trajectory", "did you mean abcd1111"),
        ("zzzz%_", "no trajectory", "ls trajectories"),
        ("%%%%", "no trajectory", "ls trajectories"),
    ]:
        with pytest.raises(UnknownId, match=message) as caught:
            database.trajectory(text)
        assert hint in str(caught.value.hint)
        assert caught.value.error_code == "TTC-E103"


# SQL for people


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) AS n FROM v_trajectories", [(705,)]),
        ("WITH a AS (SELECT 1 AS x) SELECT x FROM a;", [(1,)]),
        ("VALUES (1, 'a:b'), (2, '100%')", [(1, "a:b"), (2, "100%")]),
        ("FROM v_runs", []),
    ],
)
def test_queries(filled: Database, sql: str, rows: list[tuple[Any, ...]]) -> None:
    assert filled.query(sql)[1] == rows
    assert [tuple(row.values()) for row in filled.arrow(sql).to_pylist()] == rows


def test_query_gives_names_and_keeps_the_limit(filled: Database) -> None:
    names, rows = filled.query("SELECT id, steps AS n, steps AS n FROM v_trajectories ORDER BY id", limit=2)
    assert names == ["id", "n", "n"]
    assert rows == [(make(0).id, 0, 0), (make(1).id, 1, 1)]
    assert filled.query("DESCRIBE v_trajectories")[1][0][0] == "id"
    assert "trajectories" in {row[0] for row in filled.query("SHOW TABLES")[1]}


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE trajectories",
        "DELETE FROM trajectories",
        "WITH a AS (SELECT 'x') INSERT INTO runs (run) SELECT * FROM a",
        "UPDATE trajectories SET outcome = 1",
        "EXPLAIN ANALYZE DELETE FROM trajectories",
        "CREATE TABLE x (a INTEGER)",
        "ATTACH ':memory:' AS other",
        "COPY trajectories TO 'out.csv'",
        "COPY (SELECT 1) TO 'out.csv'",
        "EXPORT DATABASE 'out'",
        "SET memory_limit = '100GB'",
        "SET lock_configuration = false",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CALL pragma_version()",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('http://127.0.0.1/x')",
        "SELECT * FROM secret_variable",
        "SELEC 1",
    ],
)
def test_only_reading_statements_run(filled: Database, sql: str) -> None:
    secret_variable = {"a": [1]}
    with pytest.raises(UsageError, match="SQL"):
        filled.query(sql)
    with pytest.raises(UsageError, match="SQL"):
        filled.arrow(sql)
    assert filled.count() == len(ALL)
    assert secret_variable


def test_datasets_and_info(filled: Database) -> None:
    rows = filled.datasets()
    assert [row["dataset"] for row in rows] == ["set-0", "set-1", "set-2"]
    assert sum(row["trajectories"] for row in rows) == 700
    assert sum(row["steps"] for row in rows) == 70 * 45
    info = filled.info()
    assert info["rows"]["trajectories"] == 705
    assert (info["database"], info["schema_version"], info["location"]) == ("duckdb", 1, filled.location)
    assert info["bytes"] > 0


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
    assert (first["source_path"], first["source_line"]) == ("logs/6.jsonl", 903)
    assert (second["searched_id"], second["node_value"], second["verdicts"]) == (recorded.id, None, None)
    assert [row["rows"] for row in shared.exports() if row["run"] == "lineage"] == [2]
