"""The `sql` world on both engines: what an agent may do and sees, how it forks, and that no file of a user changes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Environment, Message, StepResult, Task, ToolCall
from ttc_replay.replay.environments import sql_sqlite
from ttc_replay.replay.environments.sql import SqlEnvironment
from ttc_replay.storage.errors import UsageError

SCRIPT = """
CREATE TABLE parents (id INTEGER PRIMARY KEY, name VARCHAR);
CREATE TABLE things (id INTEGER PRIMARY KEY, name VARCHAR NOT NULL, price DOUBLE,
    parent INTEGER REFERENCES parents(id));
INSERT INTO parents VALUES (1, 'p');
INSERT INTO things VALUES (1, 'a', 0.1, 1), (2, 'b', NULL, 1), (3, 'c', 1e300, NULL);
CREATE VIEW dear AS SELECT * FROM things WHERE price > 1;
"""
TASK = Task("t", "How many things?", {"database_sql": SCRIPT})
ENGINES = ("sqlite", "duckdb")
both = pytest.mark.parametrize("engine", ENGINES)


def world(engine: str = "sqlite", task: Task = TASK, **options: Any) -> SqlEnvironment:
    made = SqlEnvironment(engine=engine, **options)
    made.reset(task)
    return made


def act(environment: SqlEnvironment, name: str, **arguments: Any) -> StepResult:
    return environment.step(Message("assistant", tool_calls=(ToolCall("c", name, arguments),)))


def say(environment: SqlEnvironment, name: str, **arguments: Any) -> Any:
    """The observation, as a value."""
    (observation,) = act(environment, name, **arguments).observations
    return json.loads(observation.text)


def run(environment: SqlEnvironment, sql: str) -> Any:
    return say(environment, "run_sql", sql=sql)


def rows(environment: SqlEnvironment, sql: str) -> Any:
    return run(environment, sql)["rows"]


@both
def test_the_tools_say_what_is_there(engine: str) -> None:
    environment = world(engine)
    assert isinstance(environment, Environment)
    assert say(environment, "list_tables") == {
        "tables": [
            {"table": "dear", "kind": "view", "columns": 4},
            {"table": "parents", "kind": "table", "columns": 2},
            {"table": "things", "kind": "table", "columns": 4},
        ]
    }
    described = say(environment, "describe", table="things")
    assert described["rows"] == 3
    assert [(item["name"], item["nullable"], item["primary_key"]) for item in described["columns"]] == [
        ("id", False, True),
        ("name", False, False),
        ("price", True, False),
        ("parent", True, False),
    ]
    assert described["foreign_keys"] == [{"column": "parent", "references": "parents.id"}]
    sample = say(environment, "sample", table="things", rows=2)
    assert sample["columns"] == ["id", "name", "price", "parent"]
    assert sample["rows"] == [[1, "a", 0.1, 1], [2, "b", None, 1]]


@both
def test_results_have_one_text_form(engine: str) -> None:
    environment = world(engine)
    (observation,) = act(environment, "run_sql", sql="SELECT id AS n, name, price FROM things ORDER BY id").observations
    types = {"sqlite": '["INTEGER", "TEXT", "REAL"]', "duckdb": '["INTEGER", "VARCHAR", "DOUBLE"]'}[engine]
    assert observation.text == (
        f'{{"columns": ["n", "name", "price"], "types": {types}, '
        '"rows": [[1, "a", 0.1], [2, "b", null], [3, "c", 1e+300]]}'
    )
    assert rows(environment, "SELECT 0.1 + 0.2 + 1e-17 * id, -0.0 * id FROM things WHERE id = 1")[0][0] in (0.3, "0.3")
    odd = rows(environment, "SELECT 1e308 * 10 * price, 'é\u2028' FROM things WHERE id = 1")
    assert odd == [["Infinity", "é\u2028"]]


def test_values_of_other_types_are_plain() -> None:
    query = (
        "SELECT 1.50::DECIMAL(9, 2), DATE '2024-02-29', TIMESTAMP '2024-02-29 10:00:00', true, 'ab'::BLOB, [1, NULL], "
        "{'k': 0.5::DOUBLE}, 170141183460469231731687303715884105727::HUGEINT, 'nan'::DOUBLE"
    )
    assert rows(world("duckdb"), query) == [
        ["1.50", "2024-02-29", "2024-02-29 10:00:00", True, "x'6162'", [1, None], {"k": 0.5}, 2**127 - 1, "NaN"]
    ]
    assert rows(world(), "SELECT x'00ff', 9223372036854775807") == [["x'00ff'", 2**63 - 1]]


REFUSED = (
    ("sqlite duckdb", "INSERT INTO things VALUES (9, 'x', 1, 1)", "read-only"),
    ("sqlite duckdb", "DELETE FROM things", "read-only"),
    ("sqlite duckdb", "UPDATE things SET price = 0", "read-only"),
    ("sqlite duckdb", "CREATE TABLE other (id INTEGER)", "read-only"),
    ("sqlite duckdb", "DROP TABLE things", "read-only"),
    ("sqlite duckdb", "INSERT INTO things VALUES (9, 'x', 1, 1) RETURNING id", "read-only"),
    ("sqlite duckdb", "ATTACH '{folder}/made.db' AS other", "not allowed"),
    ("sqlite duckdb", "BEGIN", "not allowed"),
    ("sqlite duckdb", "SELECT 1; SELECT 2", "one statement"),
    ("sqlite duckdb", "-- nothing", "no statement"),
    ("sqlite duckdb", "SELEC 1", "syntax error"),
    ("sqlite duckdb", "SELECT nope FROM things", "nope"),
    ("sqlite duckdb", "SELECT 'a\0b'", "null character|unterminated"),
    ("sqlite", "VACUUM INTO '{folder}/made.db'", "not allowed"),
    ("sqlite", "VACUUM", "not allowed"),
    ("sqlite", "PRAGMA writable_schema=1", "not allowed: PRAGMA writable_schema"),
    ("sqlite", "PRAGMA query_only=0", "not allowed: PRAGMA query_only"),
    ("sqlite", "SELECT * FROM pragma_database_list", "not allowed: PRAGMA database_list"),
    ("sqlite", "SELECT load_extension('x')", "not allowed"),
    ("sqlite", "CREATE TEMP TABLE z (id INTEGER)", "temporary"),
    ("sqlite", "UPDATE sqlite_master SET sql = ''", "may not be modified"),
    ("sqlite", "SELECT zeroblob(900000000)", "too big"),
    ("duckdb", "CREATE TEMP TABLE z (id INTEGER)", "read-only"),
    ("duckdb", "EXPLAIN ANALYZE DELETE FROM things", "not allowed"),
    ("duckdb", "SET threads = 4", "not allowed: SET"),
    ("duckdb", "INSTALL httpfs", "not allowed"),
    ("duckdb", "LOAD httpfs", "not allowed"),
    ("duckdb", "COPY things TO '{folder}/made.csv'", "not allowed: COPY"),
    ("duckdb", "EXPORT DATABASE '{folder}/made'", "not allowed"),
    ("duckdb", "SELECT * FROM read_text('{folder}/secret.txt')", "disabled by configuration"),
    ("duckdb", "SELECT * FROM read_csv('{folder}/secret.txt')", "disabled by configuration"),
    ("duckdb", "SELECT * FROM glob('{folder}/*')", "disabled by configuration"),
    ("duckdb", "SELECT * FROM '{folder}/secret.txt'", "does not exist"),
    ("duckdb", "PRAGMA enable_profiling", "not allowed"),
)


@pytest.mark.parametrize(
    ("engine", "sql", "why"),
    [(engine, sql, why) for engines, sql, why in REFUSED for engine in engines.split()],
)
def test_what_is_not_allowed_is_an_observation_and_changes_nothing(
    engine: str, sql: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    environment = world(engine)
    before = environment.state()["database"]
    said = run(environment, sql.format(folder=tmp_path))
    assert set(said) == {"error"}
    assert any(part in said["error"] for part in why.split("|")), said
    assert rows(environment, "SELECT count(*) FROM things") == [[3]]
    assert environment.state()["database"] == before
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]


WRITABLE_REFUSED = ("ATTACH ':memory:' AS other", "BEGIN", "VACUUM", "SELECT 1; DELETE FROM things")


@both
@pytest.mark.parametrize("sql", WRITABLE_REFUSED)
def test_a_writable_world_allows_no_more_than_changes_of_its_own_database(engine: str, sql: str) -> None:
    environment = world(engine, writable=True)
    assert run(environment, "DELETE FROM things WHERE id = 1") == {"ok": True, "rows_changed": 1}
    assert set(run(environment, sql)) == {"error"}
    assert rows(environment, "SELECT count(*) FROM things") == [[2]]


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("describe", {"table": "nope"}, "there is no table 'nope'; tables: dear, parents, things"),
        ("sample", {"table": 'things"; DROP TABLE things; --'}, "there is no table"),
        ("describe", {}, "describe needs table"),
        ("sample", {"table": "things", "rows": 0}, "rows is a number from 1 up"),
        ("sample", {"table": "things", "rows": True}, "rows must be int"),
        ("run_sql", {"sql": 1}, "sql must be str"),
        ("run_sql", {"query": "SELECT 1"}, "run_sql has no argument 'query'"),
        ("drop", {}, "there is no tool drop"),
        ("answer", {}, "an answer has sql, or a value, or both"),
        ("answer", {"sql": "SELECT nope"}, "nope"),
        ("answer", {"sql": "DELETE FROM things"}, "read-only"),
    ],
)
def test_wrong_arguments_are_observations(name: str, arguments: dict[str, Any], why: str) -> None:
    environment = world(writable=True)
    result = act(environment, name, **arguments)
    assert why in json.loads(result.observations[0].text)["error"]
    assert not result.done
    assert environment.state()["answer"] is None
    raw = Message("assistant", tool_calls=(ToolCall("c", "run_sql", None, "{"),))
    assert "not a JSON object" in environment.step(raw).observations[0].text


@both
def test_rows_bytes_and_long_values_are_cut_with_a_mark(engine: str) -> None:
    many = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 200) SELECT i FROM r ORDER BY i"
    said = run(world(engine, max_rows=7), many)
    assert said["rows"] == [[number] for number in range(1, 8)]
    assert said["truncated"] == "only the first 7 rows are shown; there are more"
    few = run(world(engine, max_bytes=20), many)
    assert 1 < len(few["rows"]) < 7
    assert few["truncated"] == f"only the first {len(few['rows'])} rows are shown; there are more"
    assert "truncated" not in run(world(engine, max_rows=200), many)
    long = "SELECT replace('abcdefghij', 'a', '" + "x" * 1000 + "') AS long"
    assert rows(world(engine), long) == [["x" * 400 + "… (+609 characters)"]]


@both
def test_a_statement_that_takes_too_long_is_stopped_and_the_world_goes_on(engine: str) -> None:
    environment = world(engine, timeout_seconds=0.1, writable=True)
    endless = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r"
    assert run(environment, endless) == {"error": "stopped: the statement ran longer than 0.1 s"}
    assert rows(environment, "SELECT count(*) FROM things") == [[3]]


@both
def test_an_answer_ends_the_run_and_is_the_state(engine: str) -> None:
    environment = world(engine)
    result = act(environment, "answer", sql="SELECT count(*) AS n FROM things", value=3)
    assert result.done
    said = json.loads(result.observations[0].text)
    assert said["answered"] is True
    assert said["rows"] == [[3]]
    answer = environment.state()["answer"]
    assert (answer["sql"], answer["value"]) == ("SELECT count(*) AS n FROM things", 3)
    assert answer["result"]["rows"] == [[3]]
    again = act(environment, "answer", value=4)
    assert again.done
    assert "already" in again.observations[0].text
    assert world(engine).step(Message("assistant", "I give up.")) == StepResult([], False)


@pytest.mark.parametrize("engine", [*ENGINES, "sqlite in files"])
def test_forks_of_a_world_that_wrote_are_independent(
    engine: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if engine.endswith("files"):
        monkeypatch.setattr(sql_sqlite, "LARGE_BYTES", 0)
        engine = "sqlite"
    environment = world(engine, Task("t", data={"database_sql": f"{SCRIPT}-- {request.node.name}"}), writable=True)
    untouched = environment.fork()
    assert run(environment, "INSERT INTO things VALUES (4, 'd', 4, 1)") == {"ok": True, "rows_changed": 1}
    child = environment.fork()
    assert child.state_key() == environment.state_key() != untouched.state_key()
    assert run(child, "DELETE FROM things WHERE id < 3") == {"ok": True, "rows_changed": 2}
    grandchild = child.fork()
    run(grandchild, "DROP VIEW dear")
    run(environment, "UPDATE things SET name = 'e' WHERE id = 4")
    count = "SELECT count(*), max(name) FROM things"
    assert [rows(item, count) for item in (untouched, environment, child, grandchild)] == [
        [[3, "c"]],
        [[4, "e"]],
        [[2, "d"]],
        [[2, "d"]],
    ]
    assert len(say(child, "list_tables")["tables"]) == len(say(grandchild, "list_tables")["tables"]) + 1
    for item in (untouched, environment, child, grandchild):
        item.close()


def test_sequences_of_duckdb_go_their_own_way_on_each_fork() -> None:
    script = "CREATE SEQUENCE s; CREATE TABLE t (id INTEGER DEFAULT nextval('s'), x INTEGER);"
    environment = world("duckdb", Task("s", data={"database_sql": script}), writable=True)
    run(environment, "INSERT INTO t (x) VALUES (1)")
    child = environment.fork()
    for _ in range(3):
        assert rows(environment, "SELECT nextval('s') > 1") == [[True]]
    run(child, "INSERT INTO t (x) VALUES (2)")
    assert rows(child, "SELECT id FROM t ORDER BY id") == [[1], [2]]
    assert "read-only" in run(world("duckdb", Task("s", data={"database_sql": script})), "SELECT nextval('s')")["error"]
    environment.close()
    child.close()


STATEMENTS = (
    "INSERT INTO things SELECT max(id) + 1, 'n', 2, 1 FROM things",
    "DELETE FROM things WHERE id = (SELECT max(id) FROM things)",
    "UPDATE things SET price = coalesce(price, 0) + id",
    "SELECT * FROM things ORDER BY id",
    "CREATE TABLE made (x INTEGER)",
    "SELECT nope",
)


@given(st.lists(st.sampled_from(STATEMENTS), max_size=6), st.lists(st.sampled_from(STATEMENTS), max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_fork_is_what_re_execution_gives(prefix: list[str], rest: list[str]) -> None:
    parent = world(writable=True)
    for sql in prefix:
        run(parent, sql)
    child, again = parent.fork(), world(writable=True)
    for sql in prefix:
        run(again, sql)
    key = parent.state_key()
    assert [run(child, sql) for sql in rest] == [run(again, sql) for sql in rest]
    assert child.state() == again.state()
    assert child.state_key() == again.state_key()
    assert parent.state_key() == key


@both
def test_the_key_of_a_state_tells_what_was_seen_but_not_in_which_order(engine: str) -> None:
    one, other, less = (world(engine) for _ in range(3))
    for environment, order in ((one, "parents things"), (other, "things parents"), (less, "things")):
        for table in order.split():
            say(environment, "sample", table=table)
    assert one.state_key() == other.state_key() != less.state_key()
    say(one, "answer", value=1)
    assert one.state_key() != other.state_key()


def sqlite_file(path: Path, *, write_ahead: bool) -> sqlite3.Connection:
    made = sqlite3.connect(path)
    made.execute(f"PRAGMA journal_mode={'wal' if write_ahead else 'delete'}")
    made.executescript(SCRIPT)
    made.commit()
    return made


@pytest.fixture(
    params=["plain", "plain, large", "write-ahead, closed", "write-ahead, open", "duckdb", "duckdb, with a log"]
)
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if "large" in request.param:
        monkeypatch.setattr(sql_sqlite, "LARGE_BYTES", 0)
    path = tmp_path / "users.db"
    if request.param.startswith("duckdb"):
        with duckdb.connect(str(path)) as made:
            if "log" in request.param:
                made.execute("PRAGMA disable_checkpoint_on_shutdown")
            made.execute(SCRIPT)
        yield path
        return
    with closing(sqlite_file(path, write_ahead="write" in request.param)) as connection:
        if "open" not in request.param:
            connection.close()
        yield path


def test_the_users_file_is_read_copied_and_left_as_it_was(file: Path) -> None:
    before = {path.name: path.read_bytes() for path in file.parent.iterdir() if "shm" not in path.name}
    environment = world(database=str(file), writable=True, task=Task("t"))
    assert rows(environment, "SELECT count(*) FROM things") == [[3]]
    assert run(environment, "DELETE FROM things") == {"ok": True, "rows_changed": 3}
    assert rows(world(database=str(file), task=Task("t")), "SELECT count(*) FROM things") == [[3]]
    environment.close()
    assert {path.name: path.read_bytes() for path in file.parent.iterdir() if "shm" not in path.name} == before


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    with closing(sqlite_file(path, write_ahead=False)) as connection:
        first = world(database=str(path), task=Task("t"))
        connection.execute("DELETE FROM things WHERE id > 1")
        connection.executescript("CREATE TABLE padding AS SELECT zeroblob(9000) AS x")
        connection.commit()
        assert rows(world(database=str(path), task=Task("t")), "SELECT count(*) FROM things") == [[1]]
        assert rows(first, "SELECT count(*) FROM things") == [[3]]


def test_a_task_may_name_its_database_but_no_path(tmp_path: Path) -> None:
    sqlite_file(tmp_path / "shop.db", write_ahead=False).close()
    template = f"{tmp_path}/{{db_id}}.db"
    for data in ({"db_id": "shop"}, {"metadata": {"db_id": "shop"}}):
        assert rows(world(database=template, task=Task("t", data=data)), "SELECT count(*) FROM things") == [[3]]
    for bad in ("../shop", "/etc/passwd", "", ".hidden", "a/b"):
        with pytest.raises(UsageError, match="no plain name"):
            world(database=template, task=Task("t", data={"db_id": bad}))


def build_sqlite(task: Task) -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    made.execute(f"CREATE TABLE t AS SELECT {task.seed} AS seed")
    return made


def build_duckdb(task: Task) -> duckdb.DuckDBPyConnection:
    made = duckdb.connect(":memory:")
    made.execute(f"CREATE TABLE t AS SELECT {task.seed} AS seed")
    return made


def build_script(task: Task) -> str:
    return f"CREATE TABLE t AS SELECT {task.seed} AS seed;"


@pytest.mark.parametrize("build", [build_sqlite, build_duckdb, build_script])
def test_a_builder_makes_the_database_of_each_task(build: Any) -> None:
    for seed in (4, 5):
        environment = world(build=build, task=Task("t", seed=seed))
        assert rows(environment, "SELECT seed FROM t") == [[seed]]
    one, other = world(build=build, task=Task("t", seed=4)), world(build=build, task=Task("t", seed=4))
    assert one._image is other._image  # made once, shared by all worlds of the task


def test_a_builder_is_found_by_module_and_by_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def build(task):\n    return 'CREATE TABLE t AS SELECT 7 AS x;'\n")
    assert rows(world(build=f"{file}:build", task=Task("t")), "SELECT x FROM t") == [[7]]
    place = "ttc_replay.examples.analyst.warehouse:build"
    assert rows(world(build=place, task=Task("t", seed=1)), "SELECT count(*) > 9 FROM orders") == [[1]]


@pytest.mark.parametrize("script", ["ATTACH '{}' AS x;", "VACUUM INTO '{}';", "CREATE TABLE t (x); SELECT nope;"])
def test_a_script_of_a_log_reaches_no_file(script: str, tmp_path: Path) -> None:
    place = tmp_path / "made.db"
    with pytest.raises(UsageError, match="could not be made"):
        world(task=Task("t", data={"database_sql": script.format(place)}))
    with pytest.raises(UsageError, match="could not be made"):
        world("duckdb", task=Task("t", data={"database_sql": f"COPY (SELECT 1) TO '{place}'"}))
    assert not place.exists()


def test_a_dump_of_sqlite_is_a_script() -> None:
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(SCRIPT)
        script = "PRAGMA foreign_keys=OFF;\n" + "\n".join(made.iterdump())
    assert rows(world(task=Task("t", data={"metadata": {"database_sql": script}})), "SELECT count(*) FROM dear") == [
        [1]
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"database": "nowhere.db"}, "there is no database file"),
        ({"database": __file__}, "neither an SQLite nor a DuckDB"),
        ({"database": "a.db", "build": "m:f"}, "not both"),
        ({"engine": "oracle"}, "engine 'oracle'"),
        ({"build": "nowhere"}, "build=nowhere"),
        ({"build": "json:nope"}, "build=json:nope"),
        ({"build": "json:__name__"}, "is not a function"),
        ({"build": "./nowhere.py:f"}, "there is no file"),
        ({"build": lambda task: 7}, "the builder gave int"),
        ({"timeout_seconds": 0}, "numbers above 0"),
        ({"max_rows": 0}, "numbers above 0"),
        ({}, "has no database"),
    ],
)
def test_what_cannot_be_is_said_at_once(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        world(task=Task("t"), **options)


@both
def test_threads_may_share_an_image(engine: str) -> None:
    environments = [world(engine) for _ in range(8)]

    def work(environment: SqlEnvironment) -> Any:
        return [rows(environment, "SELECT sum(id) FROM things") for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, environments)) == [[[[6]]] * 5] * 8


def test_the_prompt_is_the_tasks_and_instructions_are_the_system_message() -> None:
    environment = SqlEnvironment(instructions="Be exact.")
    assert environment.reset(TASK) == [Message("system", "Be exact."), Message("user", "How many things?")]
    names = [tool["function"]["name"] for tool in environment.tools()]
    assert names == ["list_tables", "describe", "sample", "run_sql", "answer"]
