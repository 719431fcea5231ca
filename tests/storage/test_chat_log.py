"""The fast way of chat logs: what it keeps, builds and counts is what the way over records keeps, builds and counts."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.storage import chat_log
from ttc_replay.storage.canonical import canonical_bytes
from ttc_replay.storage.chat_log import LoggedSteps, raw_record
from ttc_replay.storage.conversation import conversation_id
from ttc_replay.storage.database import Database
from ttc_replay.storage.exact_json import clean, message_from_json
from ttc_replay.storage.readers.base import find_reader
from ttc_replay.storage.records import Rejected, Source, Trajectory
from ttc_replay.storage.replayability import replayability

CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}
HELLO = {"role": "user", "content": "hello"}
BYE = {"role": "assistant", "content": "bye"}
UNPLAIN: dict[str, Mapping[str, Any]] = {
    "usage": {"role": "assistant", "content": "x", "usage": {"prompt_tokens": 5}},
    "reasoning": {"role": "assistant", "content": "x", "reasoning_content": "because"},
    "old call": {"role": "assistant", "content": None, "function_call": {"name": "get", "arguments": "{}"}},
    "parts": {"role": "user", "content": [{"type": "text", "text": "x"}]},
    "arguments as an object": {
        "role": "assistant",
        "tool_calls": [{"id": "1", "function": {"name": "get", "arguments": {"a": 1}}}],
    },
    "more of a call": {"role": "assistant", "tool_calls": [{**CALL, "extra": {"deep": []}}]},
    "nested others": {"role": "assistant", "content": "x", "annotations": [{"a": 1}]},
    "an error": {"role": "tool", "content": "x", "tool_call_id": "1", "is_error": True},
    "other keys": {"role": "tool", "content": "x", "tool_call_id": "1", "weight": 1},
    "number as id": {"role": "tool", "content": "x", "tool_call_id": 7},
}

texts = st.text(st.characters(codec="utf-8"), max_size=12)
raw_arguments = st.one_of(
    texts,
    st.just(""),
    st.dictionaries(texts, st.integers() | texts, max_size=2).map(json.dumps),
    st.sampled_from(['{"a": NaN}', '{"a":1,"a":2}', "[1]", '{"x": ' + "[" * 300 + "]" * 300 + "}"]),
)
calls = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": texts, "arguments": raw_arguments})},
    optional={"id": st.none() | st.sampled_from("abc"), "type": st.just("function")},
)
messages = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "developer"]), "content": st.none() | texts}),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={"content": st.none() | texts, "tool_calls": st.none() | st.lists(calls, max_size=3)},
    ),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "content": texts},
        optional={"tool_call_id": st.none() | st.sampled_from("abc"), "name": texts, "refusal": st.none()},
    ),
)


def read(record: Any, text: str | None = None) -> Trajectory:
    """The one trajectory of a log of one line."""
    data = (json.dumps(record) if text is None else text).encode() + b"\n"
    (found,) = find_reader("openai-chat").read(io.BytesIO(data), Source("", path="log", dataset="d"))
    assert isinstance(found, Trajectory), found
    return found


@given(st.lists(messages, min_size=1, max_size=8))
def test_both_ways_lead_to_the_same(some: list[dict[str, Any]]) -> None:
    fast = read({"messages": some, "task_id": "t"})
    # A reasoning that is there sends the record the slow way, and changes nothing else.
    marked = [{**message, "reasoning": "."} for message in some]
    slow = read({"messages": marked, "task_id": "t"})
    assert isinstance(fast.steps, LoggedSteps)
    assert not isinstance(slow.steps, LoggedSteps)
    unmarked = [replace(message, reasoning=None) for message in slow.messages]
    assert list(fast.messages) == unmarked
    assert [len(step.observations) for step in fast.steps] == [len(step.observations) for step in slow.steps]
    assert fast.source is not None
    assert slow.source is not None
    assert fast.source.counts == slow.source.counts
    assert raw_record(fast) == canonical_bytes({"messages": some, "task_id": "t"}).decode()


POSTGRES = os.environ.get("TTC_TEST_POSTGRES")


@pytest.fixture(scope="module", params=["duckdb", "postgresql"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One archive for all examples."""
    if request.param == "postgresql" and not POSTGRES:
        pytest.skip("TTC_TEST_POSTGRES is not set")
    file = tmp_path_factory.mktemp("chat") / "archive.duckdb"
    with Database.open(str(POSTGRES if request.param == "postgresql" else file)) as database:
        yield database


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(messages, min_size=1, max_size=8))
def test_the_archive_gives_back_what_was_read(archive: Database, some: list[dict[str, Any]]) -> None:
    fast = read({"messages": some, "reward": 1, "id": "x"})
    archive.add_trajectories([fast])
    assert archive.trajectory(fast.id, raw=True) == chat_log.built(fast)
    columns = "replayability, conversation, steps"
    (stored,) = archive.query(f"SELECT {columns} FROM trajectories WHERE id = '{fast.id}'")[1]
    assert (json.loads(stored[0]), stored[1], stored[2]) == (
        replayability(chat_log.built(fast)),
        conversation_id(chat_log.built(fast)),
        len(fast.steps),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(messages, min_size=1, max_size=30), page=st.sampled_from([1, 100, 4096]))
def test_the_view_shows_the_steps_that_are_on_pages(archive: Database, some: list[dict[str, Any]], page: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_log, "PAGE_BYTES", page)
        fast = read({"messages": some, "id": "y", "page": page})
    archive.add_trajectories([fast])
    assert archive.trajectory(fast.id, raw=True) == chat_log.built(fast)
    sql = f"SELECT step, role, text, tools, action, observations FROM v_steps WHERE trajectory_id = '{fast.id}'"
    shown = [(*row[:4], *map(json.loads, row[4:])) for row in archive.query(f"{sql} ORDER BY step")[1]]
    assert [row[:4] for row in shown] == [
        (
            step.index,
            "assistant",
            clean(step.action.text),
            clean(",".join(call.name for call in step.action.tool_calls)),
        )
        for step in fast.steps
    ]
    assert [message_from_json(row[4]) for row in shown] == [step.action for step in fast.steps]
    assert [tuple(map(message_from_json, row[5])) for row in shown] == [tuple(step.observations) for step in fast.steps]


def test_archives_of_version_2_are_read(tmp_path: Path) -> None:
    """They kept the messages of a logged chat in the rows of its steps, and the prompt apart."""
    fast = read({"messages": [HELLO, BYE, HELLO, BYE], "id": "x", "z": 1})
    slow = chat_log.built(fast)
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        database.add_trajectories([slow])
        with database._write() as connection:
            rest = '{"id":"x","z":1}'
            connection.exec_driver_sql(f"UPDATE trajectories SET raw = '{rest}', raw_layout = 'messages'")
        found = database.trajectory(fast.id, raw=True)
    assert found.steps == slow.steps
    assert found.source is not None
    assert json.loads(found.source.raw or "") == json.loads(raw_record(fast) or "")


@pytest.mark.parametrize("name", UNPLAIN)
def test_what_is_not_plain_goes_over_records(name: str) -> None:
    found = read({"messages": [HELLO, UNPLAIN[name], BYE]})
    assert not isinstance(found.steps, LoggedSteps)
    assert len(found.messages) == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "TTC-E017"),
        ('{"messages": [{"role": "user", "content": "a", "c\\u003a": 1, "content": "b"}]}', "TTC-E017"),
        ('{"id": 1, "messages": [], "id": 2}', "TTC-E017"),
        ('{"messages": [], "x": ' + "[" * 200 + "]" * 200 + "}", "TTC-E020"),
        ('{"messages": [{"role": "user", "content": "a", "x": ' + "[" * 200 + "]" * 200 + "}]}", "TTC-E020"),
    ],
)
def test_the_fast_way_is_as_strict(text: str, code: str) -> None:
    (found,) = find_reader("openai-chat").read(io.BytesIO(text.encode()), Source(""))
    assert isinstance(found, Rejected)
    assert found.problem.code == code


def test_big_integers_and_escaped_colons_are_kept() -> None:
    text = '{"messages": [{"role": "user", "content": "a\\u003ab"}], "n": 123456789012345678901234567890, "id": "1"}'
    found = read(None, text)
    assert isinstance(found.steps, LoggedSteps)
    assert raw_record(found) == (
        '{"id":"1","messages":[{"content":"a:b","role":"user"}],"n":123456789012345678901234567890}'
    )


def test_a_run_in_two_formats_is_linked_by_what_was_said(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s"}, HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    chat = read({"messages": [*messages, {"role": "tool", "tool_call_id": "c1", "content": "7"}, BYE]})
    steps: list[dict[str, Any]] = [
        {"step_id": 1, "source": "user", "message": "hello"},
        {
            "step_id": 2,
            "source": "agent",
            "message": "",
            "tool_calls": [{"tool_call_id": "other", "function_name": "get", "arguments": {"a": 1}}],
            "observation": {"results": [{"source_call_id": "other", "content": "7"}]},
        },
        {"step_id": 3, "source": "agent", "message": "bye"},
    ]
    document = {
        "schema_version": "ATIF-v1.5",
        "session_id": "s",
        "agent": {"name": "a", "version": "1"},
        "steps": steps,
    }
    (other,) = find_reader("atif").read(io.BytesIO(json.dumps(document).encode()), Source(""))
    assert isinstance(other, Trajectory)
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        database.add_trajectories([chat, other, read({"messages": [HELLO, BYE]})])
        found = database.query("SELECT id, same_as FROM v_same_as ORDER BY id")[1]
    assert found == sorted([(chat.id, other.id), (other.id, chat.id)])
