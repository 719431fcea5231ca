"""A second ingest: files that have not changed are not read again, and the report says the same."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.database import Database
from ttc_replay.storage.ingest import IngestOptions, ingest
from ttc_replay.storage.joined import load_outcomes
from ttc_replay.storage.limits import Limits
from ttc_replay.storage.readers.openai_chat import OpenAIChatReader
from ttc_replay.storage.records import Outcome


def line(number: int) -> str:
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": f"answer {number}"}]
    return json.dumps({"messages": messages, "id": f"run-{number}"}) + "\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.jsonl").write_text(line(1) + line(2) + '{"messages": 3}\n', encoding="utf-8")
    (folder / "b.jsonl").write_text(line(2) + line(3), encoding="utf-8")
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        archive.writestr("inner/d.jsonl", line(4))
        archive.writestr("notes.txt", "nothing")
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


class Counting:
    """How often the reader was asked to read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.reads = 0
        plain = OpenAIChatReader.read

        def read(reader: OpenAIChatReader, *given: Any) -> Any:
            self.reads += 1
            return plain(reader, *given)

        monkeypatch.setattr(OpenAIChatReader, "read", read)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    # The changed time of a file just made is now: without this every file would be too fresh to be remembered.
    monkeypatch.setattr("ttc_replay.storage.unchanged._RACY_SECONDS", -1.0)
    return Counting(monkeypatch)


def without_new(report: dict[str, Any]) -> dict[str, Any]:
    """The report of a second ingest of what the first one read."""
    files = [{**file, "accepted": 0, "duplicates": file["accepted"] + file["duplicates"]} for file in report["files"]]
    zeros = dict.fromkeys(report["totals"], 0)
    duplicates = sum(file["duplicates"] for file in files)
    same = {key: report["totals"][key] for key in ("skipped", "rejected_files")}
    return {**report, "files": files, "totals": {**zeros, **same, "duplicates": duplicates}}


def test_unchanged_files_are_not_read_and_reported_as_duplicates(
    tmp_path: Path, logs: Path, counting: Counting
) -> None:
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        first = ingest(database, [str(logs)])
        assert counting.reads == 3
        second = ingest(database, [str(logs)])
        assert counting.reads == 3
        assert second == without_new(first)
        assert [file["path"].removeprefix(str(logs)) for file in second["files"]] == [
            "/a.jsonl",
            "/b.jsonl",
            "/c.zip/inner/d.jsonl",
        ]
        assert second["files"][0]["problems"] == first["files"][0]["problems"] != []


def test_a_changed_file_is_read_again(tmp_path: Path, logs: Path, counting: Counting) -> None:
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        ingest(database, [str(logs)])
        with (logs / "b.jsonl").open("a", encoding="utf-8") as file:
            file.write(line(5))
        report = ingest(database, [str(logs)])
    assert counting.reads == 4
    assert (report["totals"]["trajectories"], report["totals"]["duplicates"]) == (1, 5)


@pytest.mark.parametrize(
    "options",
    [IngestOptions(limit=10), IngestOptions(dry_run=True), IngestOptions(limits=Limits(depth=150))],
    ids=["limit", "dry run", "other limits"],
)
def test_what_reads_otherwise_reads_again(
    tmp_path: Path, logs: Path, counting: Counting, options: IngestOptions
) -> None:
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        ingest(database, [str(logs)])
        ingest(database, [str(logs)], options)
    assert counting.reads == 6


def test_files_touched_a_moment_ago_are_read_again(tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        ingest(database, [str(logs)])
        ingest(database, [str(logs)])
    assert counting.reads == 6


def test_another_archive_knows_nothing(tmp_path: Path, logs: Path, counting: Counting) -> None:
    for name in ("a", "b"):
        with Database.open(str(tmp_path / f"{name}.duckdb")) as database:
            assert ingest(database, [str(logs)])["totals"]["trajectories"] == 4
    assert counting.reads == 6


def test_outcomes_reach_new_and_stored_trajectories(tmp_path: Path, logs: Path) -> None:
    rewards = tmp_path / "rewards.json"
    rewards.write_text(json.dumps({"run-1": 1, "run-2": 0, "run-9": 1}), encoding="utf-8")
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        ingest(database, [str(logs / "b.jsonl")])
        options = IngestOptions(outcomes=load_outcomes(str(rewards)))
        report = ingest(database, [str(logs)], options)
        assert report["reward_from"] == {"joined": 2, "unmatched": ["run-9"]}
        rows = dict(database.query("SELECT task_id, outcome FROM v_trajectories")[1])
        assert rows == {"run-1": 1.0, "run-2": 0.0, "run-3": None, "run-4": None}
        found = next(item for item in database.trajectories() if item.task.id == "run-2")
        assert found.outcome == Outcome(0.0, "reward", None, {"joined": True})
        again = ingest(database, [str(logs)], IngestOptions(outcomes=load_outcomes(str(rewards))))
        assert again["reward_from"] == {"joined": 0, "unmatched": ["run-9"]}


def test_what_was_rejected_is_tried_again(tmp_path: Path, logs: Path, counting: Counting) -> None:
    (logs / "broken.jsonl").write_text('{"messages": [{"role": "user"', encoding="utf-8")
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        first = ingest(database, [str(logs)])
        assert first["totals"]["rejected_files"] == 1
        assert ingest(database, [str(logs)])["totals"] == without_new(first)["totals"]
    assert counting.reads == 3 + 1 + 1
