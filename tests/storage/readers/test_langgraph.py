"""LangGraph checkpoints: golden databases in full, forks, sub-graphs, interrupts, and hostile databases."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import ormsgpack
import pytest

from ttc_replay.storage.readers import langgraph_threads
from ttc_replay.storage.readers.json_text import BadRecord
from ttc_replay.storage.readers.langgraph import LangGraphReader
from ttc_replay.storage.readers.langgraph_data import DataSerializer
from ttc_replay.storage.records import Message, Rejected, Source, ToolCall, Trajectory, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "langgraph"
POSTGRES = os.environ.get("TTC_TEST_POSTGRES")


def shape(messages: Any) -> str:
    return " ".join(
        message.role[0] + (str(len(message.tool_calls)) if message.tool_calls else "") for message in messages
    )


def test_golden_fork(logs: Any) -> None:
    check_fork(logs.good("langgraph", GOLDEN / "forked.sqlite"))


def check_fork(found: list[Trajectory]) -> None:
    """The latest leaf is the run; what it left behind is a branch of it."""
    main, branch = found
    assert (shape(main.messages), shape(branch.messages)) == ("s u a2 t t a1 t a", "s u a2 t t a1 t a")
    assert main.source is not None
    assert branch.source is not None
    assert (branch.parent_id, branch.source.relation, branch.branch_step) == (main.id, "branch", 1)
    assert [call.arguments for call in main.steps[1].action.tool_calls] == [{"city": "Basle"}]
    assert [call.arguments for call in branch.steps[1].action.tool_calls] == [{"city": "Basel"}]
    first = main.steps[0]
    assert first.action.tool_calls[0] == ToolCall("call-1", "weather", {"city": "Bern"})
    assert first.action.reasoning == "Two things to look up."
    failed = Message("tool", "Error: no flight LX1", tool_call_id="call-2", name="seats", is_error=True)
    assert first.observations[1] == failed
    assert branch.steps[1].usage == Usage(70, 9, 30)
    assert main.steps[0].model == "scripted-1"
    assert str(first.started_at) < str(first.ended_at) < str(main.steps[1].ended_at)
    assert main.final_state == {"budget": 0}
    assert main.source.counts["checkpoints"] + branch.source.counts["checkpoints"] == 10
    raw = json.loads(str(main.source.raw))
    assert [point["metadata"]["source"] for point in raw["checkpoints"]][-3:] == ["update", "loop", "loop"]


def test_golden_sub_graph_and_interrupt(logs: Any) -> None:
    check_team(logs.good("langgraph", GOLDEN / "team.sqlite"))


def check_team(found: list[Trajectory]) -> None:
    """A sub-graph is a sub-agent of the step that called it; a waiting run says so."""
    team, helper, waiting = found
    assert (shape(team.messages), shape(helper.messages), shape(waiting.messages)) == ("u a1 t", "u a1 t a", "u a1")
    assert team.source is not None
    assert helper.source is not None
    assert team.source.extra["channel"] == "dialogue"
    assert (helper.parent_id, helper.source.relation, helper.branch_step) == (team.id, "subagent", 0)
    assert helper.source.agent == "ask"
    assert waiting.outcome is not None
    assert waiting.outcome.exit_reason == "interrupted"
    assert [item["value"] for item in waiting.outcome.detail["interrupts"]] == [{"question": "May I call weather?"}]
    assert waiting.truncated
    assert waiting.source is not None
    assert waiting.source.extra["pending_writes"] == ["__interrupt__"]


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of an empty schema."""
    if POSTGRES is None:
        pytest.skip("TTC_TEST_POSTGRES is not set")
    import psycopg

    plain = POSTGRES.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS langgraph_reader CASCADE")
        connection.execute("CREATE SCHEMA langgraph_reader")
        yield f"{plain}?options={quote('-csearch_path=langgraph_reader')}"
        connection.execute("DROP SCHEMA langgraph_reader CASCADE")


def test_postgres_holds_the_same_threads(postgres: str) -> None:
    command = [sys.executable, str(GOLDEN / "make.py"), postgres]
    subprocess.run(command, check=True, timeout=120)
    reader, source = LangGraphReader(), Source("", path="database")
    found = cast(list[Trajectory], list(reader.read_postgres(postgres, source)))
    check_fork(found[:2])
    check_team(found[2:])
    assert [item.id for item in found] == [cast(Trajectory, item).id for item in reader.read_postgres(postgres, source)]


def test_an_unreachable_postgres_is_one_refusal_without_the_password() -> None:
    address = "postgresql+psycopg://someone:hunter22@127.0.0.1:1/nothing"
    [item] = LangGraphReader().read_postgres(address, Source("", path="database"))
    assert item.fatal  # type: ignore[union-attr]
    assert "hunter22" not in str(item)


SCHEMA = """
CREATE TABLE checkpoints (thread_id TEXT, checkpoint_ns TEXT DEFAULT '', checkpoint_id TEXT, parent_checkpoint_id TEXT,
    type TEXT, checkpoint BLOB, metadata BLOB, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id));
CREATE TABLE writes (thread_id TEXT, checkpoint_ns TEXT DEFAULT '', checkpoint_id TEXT, task_id TEXT, idx INTEGER,
    channel TEXT, type TEXT, value BLOB, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx));
"""


class Made:
    """A database of checkpoints written by hand, as old versions or enemies may have left it."""

    def __init__(self, path: Path, schema: str = SCHEMA):
        self.path = path
        self._connection = sqlite3.connect(path)
        self._connection.executescript(schema)

    def put(self, thread: str, key: str, parent: str | None, values: Any, kind: str = "msgpack", ns: str = "") -> None:
        """Add a checkpoint; `values` are its channels, or the stored bytes themselves."""
        state = {"v": 4, "ts": f"2026-01-01T00:00:0{key[-1]}+00:00", "id": key, "channel_values": values}
        data = values if isinstance(values, bytes) else ormsgpack.packb(state)
        row = (thread, ns, key, parent, kind, data, b'{"source": "loop", "step": 0}')
        self._connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def write(self, thread: str, key: str, channel: str, value: Any) -> None:
        """Add a pending write."""
        row = (thread, "", key, "task", channel, "msgpack", ormsgpack.packb(value))
        count = self._connection.execute("SELECT count(*) FROM writes").fetchone()[0]
        self._connection.execute(f"INSERT INTO writes VALUES (?, ?, ?, ?, {int(count)}, ?, ?, ?)", row)

    def data(self) -> bytes:
        """The file."""
        self._connection.commit()
        self._connection.close()
        return self.path.read_bytes()


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Made]:
    """Databases by hand."""
    return lambda *schema: Made(tmp_path / "made.sqlite", *schema)


def human(text: str, identity: str | None = None) -> dict[str, Any]:
    return {"type": "human", "content": text, "id": identity}


def ai(text: str, identity: str | None = None) -> dict[str, Any]:
    return {"type": "ai", "content": text, "id": identity}


def test_states_become_a_conversation_by_message_id(logs: Any, made: Callable[..., Made]) -> None:
    database = made()
    one, two, three = human("q", "1"), ai("a", "2"), ai("b", "3")
    database.put("t", "c1", None, {"messages": [one]})
    database.put("t", "c2", "c1", {"messages": [one, two]})
    database.put("t", "c3", "c2", {"messages": [{**one, "content": "Q"}, three], "other": [ai("x")]})  # edited, dropped
    [found] = logs.good("langgraph", database.data())
    assert [message.text for message in found.messages] == ["Q", "a", "b"]
    assert [step.ended_at for step in found.steps] == ["2026-01-01T00:00:02Z", "2026-01-01T00:00:03Z"]
    assert found.final_state == {"other": [ai("x")]}


def test_messages_without_ids_and_plain_dicts(logs: Any, made: Callable[..., Made]) -> None:
    database = made()
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ok"}]
    database.put("t", "c1", None, {"talk": said})
    database.put("t", "c2", "c1", {"talk": [*said, said[1]], "note": ["x"]})
    [found] = logs.good("langgraph", database.data())
    assert [message.text for message in found.messages] == ["q", "ok", "ok"]


def test_a_channel_that_stores_only_changes_is_read_from_its_writes(logs: Any, made: Callable[..., Made]) -> None:
    database = made()
    database.put("t", "c1", None, {})
    database.write("t", "c1", "messages", [human("q", "1")])
    database.put("t", "c2", "c1", {})
    database.write("t", "c2", "messages", ai("a", "2"))
    database.put("t", "c3", "c2", {})
    [found] = logs.good("langgraph", database.data())
    assert [message.text for message in found.messages] == ["q", "a"]


def test_an_error_of_a_node_ends_the_run(logs: Any, made: Callable[..., Made]) -> None:
    database = made()
    database.put("t", "c1", None, {"messages": [human("q", "1")]})
    database.write("t", "c1", "__error__", "ValueError('no')")
    [found] = logs.good("langgraph", database.data())
    assert (found.outcome.exit_reason, found.truncated) == ("error: ValueError('no')", True)


def extension(code: int, *fields: Any) -> Any:
    return ormsgpack.Ext(code, ormsgpack.packb(fields))


def test_nothing_that_a_checkpoint_names_is_imported_or_called(
    logs: Any, made: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "sprung"
    (tmp_path / "trap_module.py").write_text(f"open({str(trap)!r}, 'w').close()\nclass Message: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    database = made()
    command = f"touch {trap}"
    for number, value in enumerate(
        [
            extension(0, "os", "system", command),
            extension(1, "os", "system", [command]),
            extension(2, "trap_module", "Message", {"content": "x"}),
            extension(3, "os", "popen", command, "read"),
            extension(5, "trap_module", "Message", {"type": "ai", "content": "x"}, "model_validate_json"),
        ]
    ):
        database.put(f"t{number}", "c1", None, {"messages": [human("q", "1")], "evil": value})
    lc = {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [command]}
    database.put(
        "t9",
        "c1",
        None,
        json.dumps({"v": 4, "channel_values": {"messages": [human("q")], "evil": lc}}).encode(),
        "json",
    )
    found = logs.good("langgraph", database.data())
    assert len(found) == 6
    assert not trap.exists()
    assert found[0].final_state == {"evil": {"__class__": "os.system", "value": command}}
    assert found[5].final_state == {"evil": lc}


REFUSED: dict[str, tuple[bytes, str | None, str]] = {
    "pickle": (b"cos\nsystem\n(S'false'\ntR.", "pickle", "TTC-E012"),
    "pickle of the first versions": (b"\x80\x04.", None, "TTC-E012"),
    "encrypted": (b"xx", "msgpack+aes", "TTC-E012"),
    "not msgpack": (b"\xc1\xc1", "msgpack", "TTC-E011"),
    "not JSON": (b"{", "json", "TTC-E011"),
    "no checkpoint": (ormsgpack.packb([1]), "msgpack", "TTC-E012"),
    "not finite": (ormsgpack.packb({"channel_values": {"x": float("inf")}}), "msgpack", "TTC-E014"),
    "too deep": (b"\x91" * 230 + b"\x01", "msgpack", "TTC-E020"),
    "far too deep": (b"\x91" * 9000 + b"\x01", "msgpack", "TTC-E011"),
    "no messages": (ormsgpack.packb({"channel_values": {"x": 1}}), "msgpack", "TTC-E012"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_checkpoint_is_refused_with_its_thread_and_hides_no_other(
    logs: Any, made: Callable[..., Made], name: str
) -> None:
    data, kind, code = REFUSED[name]
    database = made()
    database.put("a", "c1", None, {"messages": [human("q", "1"), ai("a", "2")]})
    database.put("b", "c1", None, data, kind)  # type: ignore[arg-type]
    database.put("c", "c1", None, {"messages": [human("q", "1"), ai("c", "2")]})
    first, problem, last = logs.all("langgraph", database.data())
    assert (first.steps[0].action.text, last.steps[0].action.text) == ("a", "c")
    assert problem.problem.code == code
    assert "thread 'b'" in problem.problem.message


def test_a_bad_checkpoint_takes_only_what_stands_behind_it(logs: Any, made: Callable[..., Made]) -> None:
    database = made()
    database.put("t", "c1", None, {"messages": [human("q", "1")]})
    database.put("t", "c2", "c1", {"messages": [human("q", "1"), ai("good", "2")]})
    database.put("t", "c3", "c1", b"", "pickle")
    database.put("t", "c4", "c3", {"messages": [human("q", "1"), ai("lost", "3")]})
    problem, found = logs.all("langgraph", database.data())
    assert "checkpoint c3" in problem.problem.message
    assert found.steps[0].action.text == "good"


def test_checkpoints_in_a_circle_are_reported(logs: Any, made: Callable[..., Made]) -> None:
    database = made()
    database.put("t", "c1", "c2", {"messages": [human("q", "1")]})
    database.put("t", "c2", "c1", {"messages": [human("q", "1")]})
    [problem] = logs.all("langgraph", database.data())
    assert "2 checkpoints in a circle" in problem.problem.message


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE other (x)",
        SCHEMA.replace("CREATE TABLE writes", "CREATE TABLE written"),
        "CREATE TABLE writes (x); CREATE VIEW checkpoints AS WITH RECURSIVE n(checkpoint_ns) AS (SELECT 1 UNION ALL"
        " SELECT checkpoint_ns + 1 FROM n) SELECT checkpoint_ns, 1 AS parent_checkpoint_id FROM n",  # would never end
    ],
)
def test_other_databases_are_refused(logs: Any, made: Callable[..., Made], schema: str) -> None:
    [problem] = logs.all("langgraph", made(schema).data())
    assert problem.fatal
    assert problem.problem.code == "TTC-E012"


def test_a_database_without_threads_is_empty(logs: Any, made: Callable[..., Made]) -> None:
    assert logs.all("langgraph", made().data()) == []
    assert LangGraphReader.empty_is_valid


def test_a_write_ahead_log_is_reported(logs: Any, tmp_path: Path) -> None:
    database = tmp_path / "live.sqlite"
    database.write_bytes((GOLDEN / "forked.sqlite").read_bytes())
    (tmp_path / "live.sqlite-wal").write_bytes(b"x")
    with database.open("rb") as stream:
        first, *rest = LangGraphReader().read(stream, Source("", path=str(database)))
    assert "write-ahead log" in first.problem.message  # type: ignore[union-attr]
    assert len(rest) == 2


def test_plain_values_of_python_stay_what_they_hold() -> None:
    read = DataSerializer().loads_typed
    values = [
        extension(0, "uuid", "UUID", "ab"),
        extension(0, "builtins", "set", [1]),
        extension(6, "<f8", [2], "C", b"x"),
    ]
    assert read(("msgpack", ormsgpack.packb(values))) == [
        "ab",
        [1],
        {"__class__": "numpy.ndarray", "dtype": "<f8", "shape": [2]},
    ]
    assert read(("msgpack", ormsgpack.packb({1: b"x"}, option=ormsgpack.OPT_NON_STR_KEYS))) == {"1": {"base64": "eA=="}}
    assert (read(("null", b"")), read(("bytes", b"x"))) == (None, {"base64": "eA=="})
    with pytest.raises(BadRecord):
        read(("pickle", b""))


def test_many_branches_are_bounded_and_the_latest_are_read(
    logs: Any, made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leaf holds its whole path: a file of 3 MB, thousands of leaves on a long path, took more than 4 GB."""
    monkeypatch.setattr(langgraph_threads, "MAX_WEIGHT", 1000)
    database = made()
    for number in range(100):
        before = f"c{number - 1:04}" if number else None
        database.put("t", f"c{number:04}", before, {"messages": [ai("a", f"m{number}")]})
    for number in range(50):
        database.put("t", f"d{number:04}", "c0099", {"messages": [ai(f"leaf {number}", f"l{number}")]})
    found = logs.all("langgraph", database.data())
    refused = [item.problem for item in found if isinstance(item, Rejected)]
    trajectories: list[Any] = [item for item in found if isinstance(item, Trajectory)]
    main, *branches = trajectories
    assert len(refused) + 1 + len(branches) == 50
    assert 1 <= len(branches) <= 1000 // 200  # a message and a checkpoint each
    assert {problem.code for problem in refused} == {"TTC-E021"}
    assert (main.source.extra["checkpoint_id"], len(main.steps)) == ("d0049", 101)
    assert [branch.branch_step for branch in branches] == [100] * len(branches)


def test_small_values_without_number_are_refused_before_they_are_made(logs: Any, made: Callable[..., Made]) -> None:
    """An empty list is one byte, and 64 of them in memory."""
    database = made()
    database.put("t", "c1", None, b"\xdd" + (2**23).to_bytes(4, "big") + b"\x90" * 2**23)
    data = database.data()
    tracemalloc.start()
    try:
        [problem] = logs.all("langgraph", data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem.problem.code == "TTC-E021"
    assert peak < 100 * 2**20
