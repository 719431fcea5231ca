"""The archive on a real DuckDB file: writing, files and locks, selection, SQL for people."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.database import Database, Query
from ttc_replay.storage.errors import DatabaseBusy, MissingExtra, StoreError, TtcError, UnknownId, UsageError
from ttc_replay.storage.migrations import MIGRATIONS
from ttc_replay.storage.records import (
    Message,
    Outcome,
    Score,
    Source,
    Step,
    Task,
    Trajectory,
)


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
        last = -1
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
    assert (info["database"], info["schema_version"], info["location"]) == ("duckdb", len(MIGRATIONS), filled.location)
    assert info["bytes"] > 0


def test_outcomes_are_joined_only_where_the_log_has_none(tmp_path: Path) -> None:
    known = make_recorded("a" * 64, Outcome(0.0, "reward"))
    unknown = make_recorded("b" * 64, Outcome(None, "reward", "submitted"))
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        database.add_trajectories([known, unknown])
        joined = Outcome(1.0, "resolved", "submitted", {"joined": True})
        assert database.join_outcomes({known.id: joined, unknown.id: joined, "c" * 64: joined}) == [unknown.id]
        assert database.trajectory(known.id).outcome == known.outcome
        assert database.trajectory(unknown.id).outcome == joined


def test_accounts_of_files_are_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "a.duckdb")
    with Database.open(path) as database:
        database.remember_files({"k1": [{"format": "x"}], "k2": []})
        database.remember_files({"k1": ["again"]})
    with Database.open(path) as database:
        assert database.read_accounts(["k1", "k3"]) == {"k1": [{"format": "x"}]}


def make_recorded(identity: str, outcome: Outcome) -> Trajectory:
    return Trajectory(identity, Task("t"), outcome=outcome, source=Source("swe-agent", raw="{}"))
