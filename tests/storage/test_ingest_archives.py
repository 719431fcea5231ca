"""What an ingest takes: zip members, compressed and encoded text, folders of events, databases, tags and dates."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay.storage.accounts import exit_code
from ttc_replay.storage.errors import IngestError, UsageError
from ttc_replay.storage.ingest import IngestOptions, ingest
from ttc_replay.storage.limits import Limits
from ttc_replay.storage.readers.json_input import Head
from ttc_replay.storage.records import Problem, Rejected, Source, Task, Trajectory

MIB = 2**20


def conversation(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"task {number}"}, {"role": "assistant", "content": "done"}]
    return {"messages": messages, "reward": 1.0}


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps(conversation(number)).encode() + b"\n" for number in numbers)


def zipped(path: Path, members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return str(path)


def patched(path: str, old: bytes, new: bytes) -> str:
    """The archive with some bytes of it changed, as only an attacker or a broken tool would."""
    data = Path(path).read_bytes()
    assert old in data
    Path(path).write_bytes(data.replace(old, new))
    return path


def told(report: dict[str, Any]) -> dict[str, str]:
    """The code of the first problem of each file that has one, by the end of its path."""
    return {
        file["path"].rpartition(".zip/")[2]: file["problems"][0]["code"] for file in report["files"] if file["problems"]
    }


# --- zip ------------------------------------------------------------------------------------------------------------


def test_members_of_a_zip_are_read_as_files_of_a_folder(new_shelf: Any, tmp_path: Path) -> None:
    members = [
        ("march/b.jsonl", lines(1, 2)),
        ("a.json", json.dumps([conversation(3)], indent=1).encode()),
        ("march/", b""),
        ("march/SOURCE.md", b"# where from"),
        (".hidden.jsonl", lines(4)),
        ("__MACOSX/x.jsonl", lines(5)),
        ("wide.jsonl", lines(6).decode().encode("utf-16")),
    ]
    path = zipped(tmp_path / "logs.zip", members)
    shelf = new_shelf()
    report = ingest(shelf, [path])
    assert [(file["path"], file["accepted"]) for file in report["files"]] == [
        (f"{path}/a.json", 1),
        (f"{path}/march/b.jsonl", 2),
        (f"{path}/wide.jsonl", 1),
    ]
    assert report["ignored"] == [f"{path}/march/SOURCE.md"]
    assert exit_code(report) == 0
    found = {item.source.path: item.source for item in shelf.kept.values() if item.source}
    assert found[f"{path}/a.json"].dataset == "logs"
    assert found[f"{path}/march/b.jsonl"].dataset == "march"
    again = ingest(shelf, [path])
    assert (again["totals"]["trajectories"], again["totals"]["duplicates"]) == (0, 4)
    assert not [item for item in tmp_path.iterdir() if item.name != "logs.zip"], "nothing was extracted"


UNSAFE = (
    "../up.jsonl",
    "a/../../up.jsonl",
    "/etc/absolute.jsonl",
    "C:/drive.jsonl",
    "..\\up.jsonl",
    "\\\\host\\x.jsonl",
)


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_lead_out_of_the_archive_are_refused(new_shelf: Any, tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "logs.zip", [(name, lines(1)), ("good.jsonl", lines(2))])
    report = ingest(new_shelf(), [path])
    assert list(told(report).values()) == ["TTC-E026"]
    assert report["totals"]["trajectories"] == 1
    assert report["totals"]["rejected_files"] == 1
    assert exit_code(report) == 1


def test_a_name_that_two_members_share_is_refused_for_both(new_shelf: Any, tmp_path: Path) -> None:
    path = zipped(tmp_path / "logs.zip", [("a.jsonl", lines(1)), ("b.jsonl", lines(2)), ("c.jsonl", lines(3))])
    report = ingest(new_shelf(), [patched(path, b"b.jsonl", b"a.jsonl")])
    assert [file["rejected"] for file in report["files"]] == [True, True, False]
    assert told(report) == {"a.jsonl": "TTC-E026"}
    assert report["totals"]["trajectories"] == 1


def test_members_that_overlap_are_refused(new_shelf: Any, tmp_path: Path) -> None:
    """Two entries of the directory for the same bytes: how a small archive unpacks to a huge one."""
    path = Path(zipped(tmp_path / "logs.zip", [("a.jsonl", lines(1)), ("b.jsonl", lines(2)), ("c.jsonl", lines(3))]))
    data = bytearray(path.read_bytes())
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    path.write_bytes(data)
    report = ingest(new_shelf(), [str(path)])
    assert told(report) == {"a.jsonl": "TTC-E026", "b.jsonl": "TTC-E026"}
    assert report["totals"]["trajectories"] == 1


def test_what_cannot_be_unpacked_is_said_and_the_rest_read(new_shelf: Any, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inner.jsonl", lines(9))
    members = [("good.jsonl", lines(1)), ("inner.zip", inner.getvalue()), ("x.jsonl.gz", gzip.compress(lines(2)))]
    path = Path(zipped(tmp_path / "logs.zip", [*members, ("z.jsonl", lines(3)), ("y.jsonl", lines(4))]))
    data = bytearray(path.read_bytes())
    for name, place, value in ((b"z.jsonl", 8, 1), (b"y.jsonl", 10, 12)):  # encrypted; packed with bzip2
        entry = data.index(b"PK\x01\x02", data.rindex(name) - 60)
        data[entry + place] |= value
    path.write_bytes(data)
    report = ingest(new_shelf(), [str(path)])
    assert told(report) == dict.fromkeys(("inner.zip", "x.jsonl.gz", "y.jsonl", "z.jsonl"), "TTC-E027")
    assert report["totals"]["trajectories"] == 1
    messages = {file["path"][-7:]: file["problems"][0]["message"] for file in report["files"] if file["problems"]}
    assert "encrypted" in messages["z.jsonl"]
    assert "within packed data is not opened" in messages["ner.zip"]


def test_bombs_by_ratio_and_by_number_of_members(new_shelf: Any, tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "bomb.zip", [("a.jsonl", lines(1) + b" " * (64 * MIB)), ("b.jsonl", lines(2))])
    report = ingest(new_shelf(), [bomb])
    assert told(report) == {"a.jsonl": "TTC-E023"}
    assert report["totals"]["trajectories"] == 1
    allowed = ingest(new_shelf(), [bomb], IngestOptions(limits=Limits(ratio=2000)))
    assert allowed["totals"]["trajectories"] == 2
    many = zipped(tmp_path / "many.zip", [(f"{number}.jsonl", lines(number)) for number in range(20)])
    refused = ingest(new_shelf(), [many], IngestOptions(limits=Limits(members=19)))
    assert [file["problems"][0]["code"] for file in refused["files"]] == ["TTC-E028"]
    assert "--max-members" in refused["files"][0]["problems"][0]["message"]
    assert ingest(new_shelf(), [many], IngestOptions(limits=Limits(members=20)))["totals"]["trajectories"] == 20


def test_a_directory_of_a_million_members_is_not_listed(new_shelf: Any, tmp_path: Path) -> None:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    head = b"PK\x03\x04" + b"\x00" * 27
    count = 1_200_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(entry) * count, len(head), 0)
    path = tmp_path / "many.zip"
    path.write_bytes(head + entry * count + end)
    report = ingest(new_shelf(), [str(path)])
    assert [file["problems"][0]["code"] for file in report["files"]] == ["TTC-E028"]


def test_a_damaged_member_costs_itself(new_shelf: Any, tmp_path: Path) -> None:
    text = b"".join(lines(number) for number in range(3000))
    path = zipped(tmp_path / "logs.zip", [("a.jsonl", text), ("b.jsonl", lines(5000))])
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo("a.jsonl").compress_size // 2
    data = bytearray(Path(path).read_bytes())
    data[middle : middle + 4] = b"\xff\xff\xff\xff"
    Path(path).write_bytes(data)
    report = ingest(new_shelf(), [path])
    first, second = report["files"]
    assert first["problems"][-1]["code"] == "TTC-E023"
    assert second["accepted"] == 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_a_zip_raises(
    new_shelf: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    path = zipped(folder / "x.zip", [("a.jsonl", lines(1, 2)), ("b/c.jsonl", lines(3))])
    content = bytearray(Path(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    Path(path).write_bytes(content[: data.draw(st.integers(1, len(content)))])
    report = ingest(new_shelf(), [path])
    assert report["totals"]["trajectories"] <= 3
    assert exit_code(report) in (0, 1, 3)


def test_a_zip_without_logs(new_shelf: Any, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    path = zipped(logs / "document.zip", [("word/document.xml", b"<x/>"), ("mimetype", b"text")])
    named = ingest(new_shelf(), [path])
    assert [file["problems"][0]["code"] for file in named["files"]] == ["TTC-E013"]
    assert (named["ignored"], exit_code(named)) == ([], 3)
    walked = ingest(new_shelf(), [str(logs)])
    assert (walked["files"], walked["ignored"], exit_code(walked)) == ([], [path], 0)


class WholeZip:
    """A plugin that reads a zip as one log, as Inspect's .eval is."""

    name = "whole-zip"

    def detect(self, head: Head) -> float:
        return 0.9 if head.data.startswith(b"PK") and b"header.json" in head.data else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Any:
        with zipfile.ZipFile(stream) as archive:
            for name in archive.namelist():
                yield Trajectory(name, Task(name), source=source)


def test_a_zip_that_a_reader_claims_goes_to_it_whole(new_shelf: Any, tmp_path: Path) -> None:
    options = IngestOptions(format=WholeZip())
    path = zipped(tmp_path / "log.zip", [("header.json", b"{}"), ("samples/1.json", b"{}")], zipfile.ZIP_STORED)
    report = ingest(new_shelf(), [path], options)
    assert [(file["path"], file["accepted"]) for file in report["files"]] == [(path, 2)]
    with zipfile.ZipFile(tmp_path / "outer.zip", "w", zipfile.ZIP_DEFLATED) as outer:
        outer.write(path, "runs/log.eval")
    nested = ingest(new_shelf(), [str(tmp_path / "outer.zip")], options)
    assert [(file["path"], file["accepted"]) for file in nested["files"]] == [
        (f"{tmp_path}/outer.zip/runs/log.eval", 2)
    ]


# --- compressed and encoded text ------------------------------------------------------------------------------------

UNITS = {
    "gzip": gzip.compress(lines(1)) + gzip.compress(b"") + gzip.compress(lines(2)) + b"\x00" * 512,
    "zstd": zstandard.compress(lines(1)) + b"\x50*M\x18\x03\x00\x00\x00abc" + zstandard.compress(lines(2)),
    "zstd behind a skippable frame": b"\x5f*M\x18\x00\x00\x00\x00" + zstandard.compress(lines(1, 2)),
    "utf-16": lines(1, 2).decode().encode("utf-16"),
    "utf-16-be": b"\xfe\xff" + lines(1, 2).decode().encode("utf-16-be"),
    "utf-32": lines(1, 2).decode().encode("utf-32"),
    "utf-16 in gzip": gzip.compress(lines(1, 2).decode().encode("utf-16")),
    "utf-8 with a mark": b"\xef\xbb\xbf" + lines(1, 2),
    "utf-8 with a mark in zstd": zstandard.compress(b"\xef\xbb\xbf" + lines(1, 2)),
    "windows": b"\r\n\r\n" + lines(1, 2).replace(b"\n", b"\r\n\r\n"),
}


@pytest.mark.parametrize("what", UNITS)
def test_packed_and_encoded_text_is_the_same_text(new_shelf: Any, tmp_path: Path, what: str) -> None:
    shelf = new_shelf()
    (tmp_path / "plain").write_bytes(lines(1, 2))
    (tmp_path / "other").write_bytes(UNITS[what])
    ingest(shelf, [str(tmp_path / "plain")])
    report = ingest(shelf, [str(tmp_path / "other")])
    assert (report["totals"]["duplicates"], len(shelf.kept), exit_code(report)) == (2, 2, 0)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_what_comes_before_the_damage_is_stored(new_shelf: Any, tmp_path: Path, pack: Any) -> None:
    """A writer that still runs, a disk that was full: the beginning is worth having."""
    text = b"".join(
        json.dumps({**conversation(number), "note": number * 7919}).encode() + b"\n" for number in range(9000)
    )
    (tmp_path / "log").write_bytes(pack(text)[:-2000])
    report = ingest(new_shelf(), [str(tmp_path / "log")])
    (file,) = report["files"]
    assert file["accepted"] > 100
    assert (file["skipped"], file["rejected"], file["problems"][-1]["code"]) == (1, False, "TTC-E023")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_is_refused_and_its_beginning_read(new_shelf: Any, tmp_path: Path, pack: Any) -> None:
    (tmp_path / "bomb").write_bytes(pack(lines(1) + b" " * (80 * MIB)))
    report = ingest(new_shelf(), [str(tmp_path / "bomb")])
    (file,) = report["files"]
    assert [problem["code"] for problem in file["problems"]] == ["TTC-E023"]
    assert "--max-ratio" in file["problems"][0]["message"]
    patient = ingest(new_shelf(), [str(tmp_path / "bomb")], IngestOptions(limits=Limits(ratio=100_000)))
    assert (patient["totals"]["trajectories"], exit_code(patient)) == (1, 0)


def test_a_file_over_the_limit(new_shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(lines(*range(1000)))
    (tmp_path / "packed").write_bytes(gzip.compress(lines(*range(1000))))
    options = IngestOptions(limits=Limits(file=50_000))
    report = ingest(new_shelf(), [str(tmp_path / "plain"), str(tmp_path / "packed")], options)
    assert [file["problems"][-1]["code"] for file in report["files"]] == ["TTC-E028"] * 2
    assert report["files"][0]["rejected"]


def test_archives_of_kinds_that_are_not_opened_are_named(new_shelf: Any, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "logs.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("a.jsonl")
        info.size = len(lines(1))
        archive.addfile(info, io.BytesIO(lines(1)))
    (tmp_path / "twice.gz").write_bytes(gzip.compress(gzip.compress(lines(1))))
    report = ingest(new_shelf(), [str(tmp_path / "logs.tgz"), str(tmp_path / "twice.gz")])
    assert [file["problems"][0]["code"] for file in report["files"]] == ["TTC-E027"] * 2
    assert "a tar archive" in report["files"][0]["problems"][0]["message"]


def test_utf_16_that_is_damaged_costs_what_is_damaged(new_shelf: Any, tmp_path: Path) -> None:
    good, bad = lines(1).decode(), '{"messages": "\ud800"}\n'
    data = b"\xff\xfe" + (good + bad + lines(2).decode()).encode("utf-16-le", "surrogatepass")
    (tmp_path / "a").write_bytes(data)
    report = ingest(new_shelf(), [str(tmp_path / "a")])
    assert report["totals"]["trajectories"] == 2
    assert [(item["line"], item["code"]) for item in report["files"][0]["problems"]] == [(2, "TTC-E018")]
    (tmp_path / "b").write_bytes(data[:-1])
    cut = ingest(new_shelf(), [str(tmp_path / "b")])
    assert cut["files"][0]["problems"][-1]["code"] == "TTC-E019"


# --- the walk -------------------------------------------------------------------------------------------------------


def test_documentation_and_code_is_ignored_whatever_is_in_it(new_shelf: Any, tmp_path: Path) -> None:
    for name in ("README", "LICENSE.txt", "SOURCE.md", "count.py", "NOTICE"):
        (tmp_path / name).write_bytes(lines(1))
    (tmp_path / "expected_counts.json").write_text('{"totals": {"runs": 1}}')
    (tmp_path / "licensed-runs.jsonl").write_bytes(lines(2))
    report = ingest(new_shelf(), [str(tmp_path)])
    assert [Path(file["path"]).name for file in report["files"]] == ["licensed-runs.jsonl"]
    assert len(report["ignored"]) == 6
    named = ingest(new_shelf(), [str(tmp_path / "README")])
    assert named["totals"]["trajectories"] == 1, "named explicitly it is read"


# --- options --------------------------------------------------------------------------------------------------------


def test_tags_are_stored_and_change_no_id(new_shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(1))
    plain, tagged = new_shelf(), new_shelf()
    ingest(plain, [str(tmp_path)])
    ingest(tagged, [str(tmp_path)], IngestOptions(tags={"team": "search", "week": "12"}))
    assert plain.kept.keys() == tagged.kept.keys()
    (stored,) = tagged.kept.values()
    assert stored.source is not None
    assert stored.source.tags == {"team": "search", "week": "12"}


class Dated:
    """A plugin whose runs are lines that are times."""

    name = "dated"

    def detect(self, head: Head) -> float:
        return 1.0

    def read(self, stream: BinaryIO, source: Source) -> Any:
        for line in stream.read().decode().splitlines():
            yield Trajectory(line, Task("t"), source=replace(source, started_at=line if line != "-" else None))


@pytest.mark.parametrize("since", ["2026-03-02", "2026-03-02T00:00:00Z", "2026-03-02T02:00:00+02:00"])
def test_since_leaves_out_older_runs_and_keeps_those_without_a_time(new_shelf: Any, tmp_path: Path, since: str) -> None:
    times = [
        "2026-03-01T23:59:59Z",
        "2026-03-02T00:00:00Z",
        "2026-03-02T01:30:00+02:00",
        "-",
        "yesterday",
        "2026-03-03",
    ]
    (tmp_path / "a").write_text("\n".join(times))
    shelf = new_shelf()
    options = IngestOptions(format=Dated(), since=datetime.fromisoformat(since))
    report = ingest(shelf, [str(tmp_path / "a")], options)
    assert list(shelf.kept) == [times[1], "-", "yesterday", "2026-03-03"]
    assert (report["totals"]["filtered"], report["totals"]["undated"], report["files"][0]["filtered"]) == (2, 2, 2)
    assert exit_code(report) == 0
    limited = ingest(new_shelf(), [str(tmp_path / "a")], IngestOptions(format=Dated(), since=options.since, limit=1))
    assert (limited["totals"]["trajectories"], limited["totals"]["filtered"]) == (1, 1)


class Hollow:
    """A plugin whose format allows a log without runs."""

    name = "hollow"
    empty_is_valid = True

    def detect(self, head: Head) -> float:
        return 1.0

    def read(self, stream: BinaryIO, source: Source) -> Any:
        return iter(())


class Nested:
    """A plugin whose runs have a sub-agent in the same entry of the source."""

    name = "nested"

    def detect(self, head: Head) -> float:
        return 1.0

    def read(self, stream: BinaryIO, source: Source) -> Any:
        yield Trajectory("main", Task("t"), source=replace(source, counts={"runs": 1, "messages": 5}))
        yield Trajectory("sub", Task("t"), source=replace(source, counts={"runs": 0, "messages": 2}), parent_id="main")


def test_a_sub_agent_of_the_same_entry_is_stored_and_counted_apart(new_shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    shelf = new_shelf()
    report = ingest(shelf, [str(tmp_path / "a")], IngestOptions(format=Nested()))
    assert list(shelf.kept) == ["main", "sub"]
    totals = report["totals"]
    assert (totals["trajectories"], totals["subagents"], totals["messages"]) == (1, 1, 7)
    assert (report["files"][0]["accepted"], report["files"][0]["subagents"]) == (1, 1)
    again = ingest(shelf, [str(tmp_path / "a")], IngestOptions(format=Nested()))
    assert (again["totals"]["duplicates"], again["totals"].get("subagents")) == (1, None)


def test_a_valid_log_without_runs_is_no_problem(new_shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}")
    (tmp_path / "b").write_text("")
    report = ingest(new_shelf(), [str(tmp_path / "a"), str(tmp_path / "b")], IngestOptions(format=Hollow()))
    assert [file["rejected"] for file in report["files"]] == [False, True]
    assert report["files"][1]["problems"][0]["code"] == "TTC-E015"


class Remote:
    """A plugin that reads a database by its URL."""

    name = "remote"

    def detect(self, head: Head) -> float:
        return 0.0

    def read(self, stream: BinaryIO, source: Source) -> Any:
        return iter(())

    def read_postgres(self, url: str, source: Source) -> Any:
        yield Trajectory(url.partition("@")[2], Task("t"), source=source)
        yield Rejected(Problem("TTC-E010", "the connection broke"), fatal=True)


def test_a_database_url_is_read_by_the_reader_that_can_and_shown_without_its_password(
    new_shelf: Any, tmp_path: Path
) -> None:
    url = "postgresql://ann:secret@db.local:5432/agents?sslmode=require"
    shelf = new_shelf()
    report = ingest(shelf, [url], IngestOptions(format=Remote()))
    assert report["files"][0]["path"] == "postgresql://ann@db.local:5432/agents"
    assert (report["files"][0]["accepted"], report["files"][0]["skipped"]) == (1, 1)
    (stored,) = shelf.kept.values()
    assert stored.source is not None
    assert (stored.source.path, stored.source.dataset) == ("postgresql://ann@db.local:5432/agents", "agents")
    for asked in ("auto", "openai-chat"):
        with pytest.raises(UsageError, match=r"postgresql://ann@db\.local:5432/agents: a database of which format"):
            ingest(new_shelf(), [url], IngestOptions(format=asked))


def test_on_bad_fail_reads_archives_and_pipes_before_it_stores(new_shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(1))
    zipped(tmp_path / "b.zip", [("x.jsonl", lines(2)), ("y.jsonl", lines(3) + b"{]\n" + lines(4))])
    shelf = new_shelf()
    with pytest.raises(IngestError) as caught:
        ingest(shelf, [str(tmp_path)], IngestOptions(on_bad="fail"))
    assert caught.value.place == f"{tmp_path}/b.zip/y.jsonl:2"
    assert shelf.kept == {}


# --- folders of events ----------------------------------------------------------------------------------------------

EVENTS = Path(__file__).parent / "golden_logs" / "openhands" / "events"


def test_a_folder_of_events_is_one_run(new_shelf: Any, tmp_path: Path) -> None:
    events = tmp_path / "conversation" / "events"
    events.mkdir(parents=True)
    for path in EVENTS.iterdir():
        (events / path.name).write_bytes(path.read_bytes())
    (events.parent / "base_state.json").write_text("{}")
    whole = ingest(new_shelf(), [str(tmp_path)])
    assert [(file["path"], file["accepted"]) for file in whole["files"]] == [(str(events), 1)]
    assert whole["ignored"] == [str(events.parent / "base_state.json")]
    assert ingest(new_shelf(), [str(events)])["totals"]["trajectories"] == 1, "named itself"
    damaged = sorted(events.iterdir())[4]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    report = ingest(new_shelf(), [str(events)])
    (file,) = report["files"]
    assert (file["accepted"], [problem["code"] for problem in file["problems"]]) == (1, ["TTC-E011"])
    assert file["problems"][0]["line"] == 5, "its number among the events"
