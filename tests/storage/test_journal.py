"""The journal: what was acknowledged is there, what is torn is dropped, what is damaged is named."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.errors import DatabaseBusy, JournalDamaged, PluginFailed, RunConflict, StoreError
from ttc_replay.storage.journal import (
    Journal,
    MemoryJournal,
    decode_line,
    digest,
    encode_line,
    journals,
    read_journal,
    runs_folder,
)

CONFIGURATION = {"seed": 0, "width": 8}
EVENTS: list[dict[str, Any]] = [
    {"event": "intent", "key": "k1"},
    {"event": "result", "key": "k1", "body": [], "usage": None},
    {"event": "tell", "t": 0, "ask": 1, "text": "ünïcode \u2028 \x00"},
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def written(folder: Path, events: list[dict[str, Any]] = EVENTS) -> Path:
    """A closed journal of the first line and `events`."""
    journal = Journal.open(folder, CONFIGURATION, ["t1", "t2"])
    for event in events:
        journal.append(event)
    journal.close()
    return journal.path


# --- lines ----------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), json_values), st.integers(0, 10**9))
def test_a_line_gives_back_its_event(event: dict[str, Any], sequence: int) -> None:
    line = encode_line(sequence, event)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode_line(line[:-1], sequence) == event
    assert decode_line(line[:-1], sequence + 1) is None


@given(st.data())
def test_no_single_changed_byte_goes_unseen(data: Any) -> None:
    line = encode_line(7, {"event": "tell", "t": 1, "children": [{"key": "call:a({})", "value": 0.25}]})[:-1]
    place = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != line[place]))
    assert decode_line(line[:place] + bytes([byte]) + line[place + 1 :], 7) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, "a"}])
def test_what_is_not_json_is_the_plugins_fault_and_not_written(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path / "run")
    before = path.read_bytes()
    journal = Journal.open(tmp_path / "run", CONFIGURATION, [])
    with pytest.raises(PluginFailed, match=r"not JSON \(tell\)"):
        journal.append({"event": "tell", "final_state": value})
    journal.append({"event": "done"})
    journal.close()
    assert path.read_bytes()[: len(before)] == before
    assert read_journal(path)[0][-1] == {"event": "done"}


# --- opening --------------------------------------------------------------------------------------------------------


def test_the_first_line_freezes_and_events_follow(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    journal = Journal.open(tmp_path / "run", dict(reversed(CONFIGURATION.items())), ["others", "do", "not", "count"])
    assert journal.trajectories == ["t1", "t2"]
    assert journal.events[1:] == EVENTS
    journal.append({"event": "done"})
    journal.close()
    events, good = read_journal(path)
    first = {"event": "config", "configuration": CONFIGURATION, "trajectories": ["t1", "t2"]}
    assert events == [first, *EVENTS, {"event": "done"}]
    assert good == path.stat().st_size


def test_files_and_folders_are_for_their_owner_only(tmp_path: Path) -> None:
    path = written(tmp_path / "x.duckdb.runs" / "run")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700


def test_another_configuration_is_a_conflict_that_names_what_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    before = path.read_bytes()
    with pytest.raises(RunConflict, match="another configuration: seed, temperature") as conflict:
        Journal.open(tmp_path / "run", {"seed": 1, "width": 8, "temperature": 0}, ["t1", "t2"])
    assert conflict.value.exit_code == 2
    assert path.read_bytes() == before


def test_one_at_a_time(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "run", CONFIGURATION, [])
    with pytest.raises(DatabaseBusy) as busy:
        Journal.open(tmp_path / "run", CONFIGURATION, [])
    assert busy.value.exit_code == 6
    journal.close()
    Journal.open(tmp_path / "run", CONFIGURATION, []).close()


def test_a_refused_opening_gives_the_lock_back(tmp_path: Path) -> None:
    written(tmp_path / "run")
    with pytest.raises(RunConflict):
        Journal.open(tmp_path / "run", {}, [])
    Journal.open(tmp_path / "run", CONFIGURATION, []).close()


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_dropped_at_every_offset(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_journal(path)[0][1:] == EVENTS[:-1]
        journal = Journal.open(tmp_path / "run", CONFIGURATION, [])
        assert path.stat().st_size == start, "the torn rest is cut off"
        journal.append(EVENTS[-1])
        journal.close()
        assert path.read_bytes() == whole


def test_a_torn_first_line_starts_anew(tmp_path: Path) -> None:
    path = written(tmp_path / "run", [])
    path.write_bytes(path.read_bytes()[:-5])
    journal = Journal.open(tmp_path / "run", CONFIGURATION, ["t9"])
    assert journal.trajectories == ["t9"]
    journal.close()


FLIPS: dict[str, Callable[[int], int]] = {
    "lowest bit": lambda byte: byte ^ 1,
    "letter case": lambda byte: byte ^ 0x20,
    "newline": lambda byte: 0x0A if byte != 0x0A else 0x20,
    "zero": lambda byte: 0,
}


@pytest.mark.parametrize("flip", FLIPS)
def test_a_changed_byte_elsewhere_is_an_error_that_names_the_line(tmp_path: Path, flip: str) -> None:
    path = written(tmp_path / "run")
    whole = path.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for place in range(last):
        changed = bytes([FLIPS[flip](whole[place])])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        line = whole[:place].count(b"\n") + 1
        with pytest.raises(JournalDamaged) as damaged:
            read_journal(path)
        assert damaged.value.place == f"{path}:{line}"
        assert damaged.value.hint
    with pytest.raises(JournalDamaged):
        Journal.open(tmp_path / "run", CONFIGURATION, [])


def test_a_lost_line_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    with pytest.raises(JournalDamaged) as damaged:
        read_journal(path)
    assert damaged.value.place == f"{path}:2"


def test_a_full_disk_is_an_error_and_what_was_written_stays(tmp_path: Path) -> None:
    path = written(tmp_path / "run")
    whole = path.read_bytes()
    journal = Journal.open(tmp_path / "run", CONFIGURATION, [])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
    try:
        with pytest.raises(StoreError, match="journal") as full:
            journal.append({"event": "tell", "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        journal.close()
    assert full.value.place == str(path)
    assert path.stat().st_size == len(whole) + 10, "a part of the line was written"
    assert read_journal(path)[0][1:] == EVENTS


def test_threads_append_without_getting_into_each_others_lines(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "run", CONFIGURATION, [])
    barrier = threading.Barrier(8)

    def work(worker: int) -> None:
        barrier.wait()
        for number in range(300):
            journal.append({"event": "intent", "key": f"{worker}-{number}", "padding": "x" * (number % 50)})

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    journal.close()
    events, good = read_journal(journal.path)
    assert good == journal.path.stat().st_size
    assert len({event["key"] for event in events[1:]}) == 8 * 300
    for worker_number in range(8):
        own = [event["key"] for event in events[1:] if event["key"].startswith(f"{worker_number}-")]
        assert own == [f"{worker_number}-{number}" for number in range(300)]


# --- digest ---------------------------------------------------------------------------------------------------------


def tell(t: int, ask: int, **more: Any) -> dict[str, Any]:
    return {"event": "tell", "t": t, "ask": ask, **more}


def gate(t: int, node: int, *, first: bool = False) -> dict[str, Any]:
    return {"event": "gate", "t": t, "node": node, "first": first}


BASE = [tell(0, 0), {"event": "score", "t": 0, "node": 1}, tell(1, 0), gate(0, 1, first=True), gate(1, 2, first=True)]
SAME = {
    "without digest": [{"event": "intent"}, {"event": "result"}, *BASE, {"event": "done", "t": 0, "stopped": "budget"}],
    "trees interleaved otherwise": [BASE[2], BASE[4], BASE[0], BASE[1], BASE[3]],
    "what a call cost": [tell(0, 0, usage={"cost_usd": 1}), *BASE[1:]],
    "gates that a tell overtook": [gate(0, 9, first=True), gate(0, 8), *BASE],
    "a gate judged again": [*BASE[:3], gate(0, 9, first=True), gate(0, 8), *BASE[3:]],
}
OTHER = {
    "an order within a tree": [BASE[1], BASE[0], *BASE[2:]],
    "a tell less": BASE[1:],
    "another gate": [*BASE[:3], gate(0, 3, first=True), BASE[4]],
    "one gate more": [*BASE, gate(1, 3)],
    "another tree": [{**event, "t": event["t"] + 1} if event is BASE[2] else event for event in BASE],
}


@pytest.mark.parametrize("what", SAME)
def test_the_digest_does_not_depend_on(what: str) -> None:
    assert digest(SAME[what]) == digest(BASE)


@pytest.mark.parametrize("what", OTHER)
def test_the_digest_depends_on(what: str) -> None:
    assert digest(OTHER[what]) != digest(BASE)


# --- places ---------------------------------------------------------------------------------------------------------


def test_where_journals_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs_folder("a/b.duckdb") == Path("a/b.duckdb.runs")
    monkeypatch.delenv("TTC_RUNS_DIR", raising=False)
    assert runs_folder("postgresql://host/db") == Path("ttc-runs")
    monkeypatch.setenv("TTC_RUNS_DIR", str(tmp_path))
    assert runs_folder("postgresql://host/db") == tmp_path
    assert list(journals(tmp_path / "nowhere")) == []
    paths = [written(tmp_path / name) for name in ("b", "a")]
    assert list(journals(tmp_path)) == sorted(paths)


def test_a_journal_of_nothing() -> None:
    journal = MemoryJournal(["t1"])
    journal.append({"event": "tell", "state": object()})
    journal.sync()
    journal.close()
    assert journal.keeps_nothing
    assert journal.events == [{"event": "config", "trajectories": ["t1"]}]


def test_the_journal_is_json_lines_for_other_tools(tmp_path: Path) -> None:
    for number, line in enumerate(written(tmp_path / "run").read_text("ascii").splitlines()):
        checksum, sequence, event = line.split(" ", 2)
        assert len(checksum) == 8
        assert int(sequence) == number
        assert isinstance(json.loads(event), dict)
