"""Ingest into a real database: counts, accounting, idempotence, order, bad input, and which files are read."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay.storage import accounts as accounts_module
from ttc_replay.storage import ingest as ingest_module
from ttc_replay.storage.accounts import exit_code
from ttc_replay.storage.database import Database
from ttc_replay.storage.errors import IngestError, UsageError
from ttc_replay.storage.ingest import IngestOptions, ingest
from ttc_replay.storage.query import Query
from ttc_replay.storage.readers.json_input import Head
from ttc_replay.storage.records import Rejected, Source, Task, Trajectory

TRACES = Path(__file__).parents[3] / "shared" / "traces"
FORMATS = ("atif", "openai-chat", "tau-bench", "tau2-bench")
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")
ZERO = ("trajectories", "steps", "messages", "assistant_turns", "tool_calls", "tool_results", "rewards")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(str(tmp_path / "ttc.duckdb")) as opened:
        yield opened


def conversation(number: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"task {number}"}, {"role": "assistant", "content": "done"}]
    return {"messages": messages, "reward": 1.0, **more}


def lines(*records: Any) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in records)


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def accounts(report: dict[str, Any]) -> list[tuple[int, int, int, bool]]:
    keys = ("accepted", "duplicates", "skipped", "rejected")
    return [tuple(file[key] for key in keys) for file in report["files"]]


def codes(report: dict[str, Any]) -> list[str]:
    return [problem["code"] for file in report["files"] for problem in file["problems"]]


@needs_traces
def test_real_folders_give_the_expected_counts_once(database: Database) -> None:
    expected = json.loads((TRACES / "expected_counts.json").read_text())["formats"]
    folders = [str(TRACES / name) for name in FORMATS]
    report = ingest(database, folders)
    totals = {key: sum(expected[name]["totals"][key] for name in FORMATS) for key in ZERO if key not in ZERO[:2]}
    assert {key: report["totals"][key] for key in totals} == totals
    runs = {
        str(TRACES / name / file): counts["runs"]
        for name in FORMATS
        for file, counts in expected[name]["files"].items()
    }
    assert {file["path"]: file["accepted"] for file in report["files"]} == runs
    assert report["totals"]["trajectories"] == sum(runs.values()) == database.count()
    assert report["ignored"] == [str(TRACES / name / "SOURCE.md") for name in FORMATS]
    assert (exit_code(report), codes(report)) == (0, [])
    assert {row["dataset"] for row in database.datasets()} == set(FORMATS)
    again = ingest(database, folders)
    assert [again["totals"][key] for key in ZERO] == [0] * len(ZERO)
    assert again["totals"]["duplicates"] == sum(runs.values())
    assert exit_code(again) == 0


def test_the_report_has_exactly_the_agreed_keys(database: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "logs" / "a.jsonl", lines(conversation(1), b'{"messages": [], "reward": NaN}'))
    report = ingest(database, [path])
    assert list(report) == ["v", "files", "ignored", "totals"]
    problem = {"line": 2, "code": "TTC-E014", "message": "reward is NaN"}
    assert report["files"] == [
        {
            "path": path,
            "format": "openai-chat",
            "accepted": 1,
            "duplicates": 0,
            "skipped": 1,
            "rejected": False,
            "problems": [problem],
        }
    ]
    assert list(report["totals"]) == [*ZERO, "duplicates", "skipped", "rejected_files"]
    assert [report["totals"][key] for key in ZERO] == [1, 1, 2, 1, 0, 0, 1]
    assert exit_code(report) == 1
    (stored,) = database.trajectories()
    assert stored.source is not None
    assert (stored.source.path, stored.source.line, stored.source.dataset) == (path, 1, "logs")


def test_the_same_content_is_one_trajectory_in_any_file(database: Database, tmp_path: Path) -> None:
    rows = [conversation(number) for number in range(6)]
    first = ingest(database, [write(tmp_path / "a.jsonl", lines(*rows))], IngestOptions(dataset="mine"))
    others = [
        write(tmp_path / "b.json", json.dumps(rows[:4], indent=2, sort_keys=True).encode()),
        write(tmp_path / "c", gzip.compress(lines(*rows[3:]))),
        write(tmp_path / "d.txt", json.dumps(rows[0]).encode()),
    ]
    report = ingest(database, others, IngestOptions(dataset="other"))
    assert accounts(first) == [(6, 0, 0, False)]
    assert accounts(report) == [(0, 4, 0, False), (0, 3, 0, False), (0, 1, 0, False)]
    assert exit_code(report) == 0
    assert database.count() == 6
    assert {row["dataset"] for row in database.datasets()} == {"mine"}


def test_duplicates_within_one_run_are_counted_where_they_stand(database: Database, tmp_path: Path) -> None:
    rows = [conversation(1), conversation(1), conversation(2)]
    paths = [write(tmp_path / "a.jsonl", lines(*rows)), write(tmp_path / "b.jsonl", lines(rows[0]))]
    assert accounts(ingest(None, paths, IngestOptions(dry_run=True))) == [(2, 1, 0, False), (0, 1, 0, False)]
    assert database.count() == 0
    assert accounts(ingest(database, paths)) == [(2, 1, 0, False), (0, 1, 0, False)]


def test_a_folder_walk_ignores_what_no_reader_claims(database: Database, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "b" / "x.jsonl", lines(conversation(1)))
    write(logs / "a.jsonl", lines(conversation(2)))
    write(logs / "SOURCE.md", b"# where from")
    write(logs / "empty.jsonl", b"")
    write(logs / ".hidden.jsonl", lines(conversation(3)))
    write(logs / ".git" / "x.jsonl", lines(conversation(4)))
    outside = write(tmp_path / "outside.jsonl", lines(conversation(5)))
    (logs / "link.jsonl").symlink_to(outside)
    (logs / "loop").symlink_to(logs)
    os.mkfifo(logs / "pipe")
    report = ingest(database, [str(logs)])
    names = [os.path.relpath(file["path"], logs) for file in report["files"]]
    assert names == ["a.jsonl", "b/x.jsonl"]
    ignored = sorted(os.path.relpath(path, logs) for path in report["ignored"])
    assert ignored == ["SOURCE.md", "empty.jsonl", "link.jsonl", "loop", "pipe"]
    assert exit_code(report) == 0
    assert database.count() == 2


@pytest.mark.parametrize(
    ("data", "code", "exit_status"),
    [
        (b"", "TTC-E015", 3),
        (b"\n \n", "TTC-E015", 3),
        (b"# prose", "TTC-E013", 3),
        (b"PK\x03\x04zip", "TTC-E023", 3),
        (b"SQLite format 3\x00", "TTC-E013", 3),
        (b"\x1f\x8bnot gzip", "TTC-E023", 3),
        (json.dumps(conversation(1)).encode()[:-2], "TTC-E019", 3),
        (lines(b'{"messages": 1', conversation(1)), "TTC-E011", 1),
        (lines(conversation(1)) + b'{"messages": [', "TTC-E019", 1),
        (lines(b'{"messages": [], "reward": NaN}'), "TTC-E014", 3),
    ],
)
def test_a_bad_file_named_explicitly_is_told(
    database: Database, tmp_path: Path, data: bytes, code: str, exit_status: int
) -> None:
    report = ingest(database, [write(tmp_path / "log", data)])
    assert codes(report) == [code]
    assert exit_code(report) == exit_status
    (file,) = report["files"]
    assert file["rejected"] == (not file["accepted"] and not file["skipped"])


def test_with_a_format_given_the_reader_says_what_is_wrong(database: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "log", lines({"other": 1}, conversation(1)))
    report = ingest(database, [path], IngestOptions(format="openai-chat"))
    assert (accounts(report), codes(report)) == ([(1, 0, 1, False)], ["TTC-E012"])
    hollow = ingest(database, [write(tmp_path / "hollow", b"[]")], IngestOptions(format="openai-chat"))
    assert (codes(hollow), exit_code(hollow)) == (["TTC-E016"], 3)
    with pytest.raises(UsageError, match="unknown format"):
        ingest(database, [path], IngestOptions(format="opanai-chat"))


def test_on_bad_fail_stores_nothing_of_the_whole_command(database: Database, tmp_path: Path) -> None:
    fine = write(tmp_path / "a.jsonl", lines(conversation(1)))
    bad = write(tmp_path / "b.jsonl", lines(conversation(2), conversation(3), b"{", conversation(4)))
    with pytest.raises(IngestError) as caught:
        ingest(database, [fine, bad], IngestOptions(on_bad="fail"))
    assert caught.value.line().startswith(f"error[TTC-E011]: {bad}:3: ")
    assert caught.value.exit_code == 3
    assert database.count() == 0
    assert accounts(ingest(database, [fine], IngestOptions(on_bad="fail"))) == [(1, 0, 0, False)]
    assert accounts(ingest(database, [fine], IngestOptions(on_bad="fail"))) == [(0, 1, 0, False)]
    # what is not read is not checked
    assert accounts(ingest(database, [fine, bad], IngestOptions(on_bad="fail", limit=2)))[1][0] == 1


def test_limit_and_progress(database: Database, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    paths = [write(tmp_path / f"{n}.jsonl", lines(conversation(n), conversation(n + 10))) for n in range(3)]
    report = ingest(database, paths, IngestOptions(limit=3), lambda path, count: seen.append((path, count)))
    assert accounts(report) == [(2, 0, 0, False), (1, 0, 0, False)]
    assert seen == [(paths[0], 1), (paths[0], 2), (paths[1], 1)]
    again = ingest(database, paths, IngestOptions(limit=3))
    assert accounts(again) == [(0, 2, 0, False), (0, 1, 0, False)]


def test_paths_that_do_not_exist_and_patterns(database: Database, tmp_path: Path) -> None:
    write(tmp_path / "a1.jsonl", lines(conversation(1)))
    write(tmp_path / "a2.jsonl", lines(conversation(2)))
    assert len(ingest(database, [str(tmp_path / "a*.jsonl")])["files"]) == 2
    for missing in ("none.jsonl", "none*.jsonl"):
        with pytest.raises(UsageError, match="no such file"):
            ingest(database, [str(tmp_path / "a1.jsonl"), str(tmp_path / missing)])
    broken = tmp_path / "broken.jsonl"
    broken.symlink_to(tmp_path / "gone")
    assert codes(ingest(database, [str(broken)])) == ["TTC-E010"]


@pytest.mark.parametrize("on_bad", ["skip", "fail"])
@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, zstandard.compress, lambda data: data.decode().encode("utf-16")]
)
def test_stdin(database: Database, monkeypatch: pytest.MonkeyPatch, pack: Any, on_bad: Any) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(pack(lines(conversation(1), conversation(2)))))
    monkeypatch.setattr(sys, "stdin", stdin)  # the process's own seam, not our code
    report = ingest(database, ["-"], IngestOptions(on_bad=on_bad))
    assert accounts(report) == [(2, 0, 0, False)]
    assert [row["dataset"] for row in database.datasets()] == ["stdin"]


def test_a_named_pipe_is_read_and_endless_binary_is_not(database: Database, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[lines(conversation(1))])
    writer.start()
    assert accounts(ingest(database, [str(pipe)])) == [(1, 0, 0, False)]
    writer.join()
    assert codes(ingest(database, ["/dev/zero"])) == ["TTC-E024"]


def test_file_names_that_are_not_unicode(database: Database, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")
    Path(path).write_bytes(lines(conversation(1)))
    report = ingest(database, [str(tmp_path)])
    assert json.dumps(report, ensure_ascii=False).encode()
    assert any(file["path"].endswith("caf\ufffd.jsonl") for file in report["files"])
    (stored,) = database.trajectories()
    assert stored.source is not None
    assert stored.source.path.endswith("caf\ufffd.jsonl")


class Faulty:
    """A plugin's reader that fails behind its first trajectory."""

    name = "faulty"

    def detect(self, head: Head) -> float:
        return 1.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        yield Trajectory("id-1", Task("t"), source=source)
        raise ValueError("reader bug: " + stream.read(5).decode())


def test_a_reader_that_raises_is_data(database: Database, tmp_path: Path) -> None:
    report = ingest(database, [write(tmp_path / "x", b"hello")], IngestOptions(format=Faulty()))
    assert accounts(report) == [(1, 0, 1, False)]
    (problem,) = report["files"][0]["problems"]
    assert problem["code"] == "TTC-E404"
    assert "reader bug: hello" in problem["message"]


def test_endless_problems_are_counted_not_listed(new_shelf: Any, tmp_path: Path) -> None:
    limit = accounts_module.MAX_LISTED_PROBLEMS
    path = write(tmp_path / "x.jsonl", lines(conversation(1)) + b"{]\n" * (limit + 7))
    report = ingest(new_shelf(), [path])
    assert accounts(report) == [(1, 0, limit + 7, False)]
    problems = report["files"][0]["problems"]
    assert len(problems) == limit + 1
    assert problems[-1] == {"line": None, "code": "TTC-E025", "message": "7 further problems (TTC-E011: 7)"}


def test_batches_are_bounded_and_cross_files(new_shelf: Any, tmp_path: Path) -> None:
    sizes: list[int] = []

    class Measured:
        def add_trajectories(self, batch: Sequence[Trajectory]) -> list[str]:
            sizes.append(sum(len(item.source.raw or "") for item in batch if item.source))
            return [item.id for item in batch]

    big = "x" * (ingest_module.BATCH_BYTES // 4)
    paths = [write(tmp_path / f"{n}.jsonl", lines(conversation(n, note=big))) for n in range(6)]
    assert [account[0] for account in accounts(ingest(Measured(), paths))] == [1] * 6
    assert len(sizes) == 2
    assert max(sizes) <= ingest_module.BATCH_BYTES


ENTRIES = st.one_of(
    st.integers(0, 5).map(conversation),
    st.sampled_from(
        [b'{"messages": nul}', b'{"messages": [], "reward": NaN}', b'{"x": 1}', b"[1]", b'{"messages": [{}]}']
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=6), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_every_record_is_accounted_for_in_any_order_and_split(
    new_shelf: Any, tmp_path_factory: pytest.TempPathFactory, files: list[list[Any]], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("split")
    options = IngestOptions(format="openai-chat")
    paths = [write(folder / f"{n}.jsonl", lines(*entries)) for n, entries in enumerate(files)]
    shelf = new_shelf()
    report = ingest(shelf, paths, options)
    for entries, (accepted, duplicates, skipped, rejected) in zip(files, accounts(report), strict=True):
        assert accepted + duplicates + skipped == len(entries)
        assert rejected == (not entries)
    assert len(codes(report)) == report["totals"]["skipped"] + report["totals"]["rejected_files"]
    distinct = {json.dumps(item) for entries in files for item in entries if isinstance(item, dict)}
    assert report["totals"]["trajectories"] == len(distinct) == len(shelf.kept)

    again = ingest(shelf, paths, options)
    assert (again["totals"]["trajectories"], len(shelf.kept)) == (0, len(distinct))

    everything = [item for entries in files for item in entries]
    random.shuffle(everything)
    half = len(everything) // 2
    shuffled = [
        write(folder / "p.jsonl.gz", gzip.compress(lines(*everything[:half]))),
        write(folder / "q.jsonl", lines(*everything[half:])),
    ]
    other = new_shelf()
    split = ingest(other, shuffled, options)
    assert other.kept.keys() == shelf.kept.keys()
    for key in (*ZERO, "skipped"):
        assert split["totals"][key] == report["totals"][key]
    assert split["totals"]["duplicates"] == report["totals"]["duplicates"]


def test_a_dataset_can_be_selected_after_ingest(database: Database, tmp_path: Path) -> None:
    ingest(database, [write(tmp_path / "one" / "a.jsonl", lines(conversation(1)))])
    ingest(database, [write(tmp_path / "two" / "a.jsonl", lines(conversation(2)))])
    assert [item.task.prompt for item in database.trajectories(Query(dataset="two"))] == ["task 2"]
