"""Stored + duplicate + filtered + skipped + rejected = everything read: properties over generated files (P3, P5)."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay.storage.errors import IngestError
from ttc_replay.storage.ingest import IngestOptions, ingest
from ttc_replay.storage.readers.base import identify
from ttc_replay.storage.readers.json_input import Head, records
from ttc_replay.storage.readers.json_text import wrong_shape
from ttc_replay.storage.records import Rejected, Source, Task, Trajectory


class Dated:
    """A plugin's format: an object with a number and maybe a day is a run."""

    name = "dated"

    def detect(self, head: Head) -> float:
        return 1.0 if any(isinstance(record, dict) and "n" in record for record in head.records) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        for item in records(stream):
            if isinstance(item, Rejected):
                yield item
            elif not isinstance(item.value, dict) or "n" not in item.value:
                yield Rejected(wrong_shape("no number").problem(item.line))
            else:
                identity, known = identify(replace(source, line=item.line), item.value)
                yield Trajectory(identity, Task("t"), source=replace(known, started_at=item.value.get("at")))


BAD = {
    b'{"n": nul}': "TTC-E011",
    b'{"n": NaN}': "TTC-E014",
    b'{"n": 1, "n": 2}': "TTC-E017",
    b'{"n": "\\ud800"}': "TTC-E018",
    b'{"n": "\xff"}': "TTC-E018",
    b'{"n": "a\x00b"}': "TTC-E024",
    b'{"n": ' + b"[" * 300 + b"]" * 300 + b"}": "TTC-E020",
    b'{"m": 1}': "TTC-E012",
    b"5": "TTC-E012",
    b'"text"': "TTC-E012",
}
SINCE = datetime(2026, 3, 2, tzinfo=UTC)
OLD = '"2026-03-01T23:00:00Z"'
DAYS = st.sampled_from(["", f', "at": {OLD}', ', "at": "2026-04-01"'])
GOOD = st.builds(lambda number, at: f'{{"n": {number}{at}}}'.encode(), st.integers(0, 9), DAYS)
ENTRY = st.one_of(GOOD, GOOD, st.sampled_from(sorted(BAD)))
SPACE = st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\n \t\r\n"])
FILES = st.lists(st.lists(st.tuples(ENTRY, SPACE), min_size=1, max_size=7), min_size=1, max_size=4)
PACKINGS = ("plain", "gzip", "zstd", "zip", "bom")


def write(path: Path, data: bytes, packing: str) -> str:
    """Write it; the path under which it is shown."""
    if packing == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("in/log.jsonl", data)
        return f"{path}/in/log.jsonl"
    packed: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "zstd": zstandard.compress,
        "bom": lambda text: b"\xef\xbb\xbf" + text,
    }
    path.write_bytes(packed[packing](data) if packing in packed else data)
    return str(path)


@settings(max_examples=150, deadline=None)
@given(FILES, st.lists(st.sampled_from(PACKINGS), min_size=4, max_size=4))
def test_every_record_is_accounted_for_with_its_line_and_code(
    new_shelf: Any,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[bytes, bytes]]],
    packings: list[str],
) -> None:
    folder = tmp_path_factory.mktemp("account")
    paths = [folder / f"{number}.log" for number in range(len(files))]
    shown = [
        write(path, b"".join(entry + space for entry, space in file), packing)
        for path, file, packing in zip(paths, files, packings, strict=False)
    ]
    shelf = new_shelf()
    report = ingest(shelf, [str(path) for path in paths], IngestOptions(format=Dated(), since=SINCE))
    assert [file["path"] for file in report["files"]] == shown
    seen: set[bytes] = set()
    for file, account in zip(files, report["files"], strict=True):
        entries = [entry for entry, _ in file]
        old = sum(OLD.encode() in entry for entry in entries)
        young = [entry for entry in entries if entry not in BAD and OLD.encode() not in entry]
        new = {entry for entry in young if entry not in seen}
        seen |= new
        assert (account["accepted"], account["duplicates"]) == (len(new), len(young) - len(new))
        assert account.get("filtered", 0) == old
        assert not account["rejected"]
        assert [(item["line"], item["code"]) for item in account["problems"]] == list(expected_problems(file))
        known = account["accepted"] + account["duplicates"] + account["skipped"] + account.get("filtered", 0)
        assert known == len(entries)
    totals = report["totals"]
    assert totals["trajectories"] == len(seen) == len(shelf.kept)
    assert totals.get("undated", 0) == sum(b'"at"' not in e for f in files for e, _ in f if e not in BAD)


def expected_problems(file: list[tuple[bytes, bytes]]) -> Iterator[tuple[int, str]]:
    line = 1
    for entry, space in file:
        if entry in BAD:
            yield line, BAD[entry]
        line += space.count(b"\n")


@settings(max_examples=60, deadline=None)
@given(FILES, st.data())
def test_neither_order_nor_split_nor_packing_changes_what_is_stored(
    new_shelf: Any,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[tuple[bytes, bytes]]],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("split")
    options = IngestOptions(format=Dated())
    entries = [entry for file in files for entry, _ in file]
    (folder / "whole").write_bytes(b"\n".join(entries) + b"\n")
    whole = new_shelf()
    first = ingest(whole, [str(folder / "whole")], options)
    again = ingest(whole, [str(folder / "whole")], options)
    assert again["totals"]["trajectories"] == 0
    assert again["totals"]["duplicates"] == len(entries) - first["totals"]["skipped"]

    cuts = sorted(data.draw(st.sets(st.integers(0, len(entries)), max_size=5)) | {0, len(entries)})
    paths = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        paths.append(folder / f"{number}")
        text = b"\n".join(entries[start:end]) + data.draw(st.sampled_from([b"\n", b""]))
        write(paths[-1], text, data.draw(st.sampled_from(PACKINGS)))
    parts = new_shelf()
    split = ingest(parts, [str(path) for path in data.draw(st.permutations(paths))], options)
    assert parts.kept.keys() == whole.kept.keys()
    for key in ("trajectories", "duplicates", "skipped", "rejected_files"):
        assert split["totals"][key] == first["totals"][key]


@settings(max_examples=40, deadline=None)
@given(FILES)
def test_on_bad_fail_stores_all_or_nothing(
    new_shelf: Any, tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[bytes, bytes]]]
) -> None:
    folder = tmp_path_factory.mktemp("fail")
    for number, file in enumerate(files):
        (folder / f"{number}").write_bytes(b"".join(entry + space for entry, space in file))
    options = IngestOptions(format=Dated(), on_bad="fail")
    shelf, good = new_shelf(), {entry for file in files for entry, _ in file if entry not in BAD}
    if any(entry in BAD for file in files for entry, _ in file):
        with pytest.raises(IngestError):
            ingest(shelf, [str(folder)], options)
        assert not shelf.kept
    else:
        ingest(shelf, [str(folder)], options)
        assert len(shelf.kept) == len(good)


def test_a_bad_file_does_not_stop_the_others(new_shelf: Any, tmp_path: Path) -> None:
    for number, data in enumerate((b'{"n": 1}\n', b"\x1f\x8bnot gzip", b"", b"PK\x03\x04", b'{"n": 2}\n')):
        (tmp_path / f"{number}").write_bytes(data)
    report = ingest(new_shelf(), [str(tmp_path / f"{number}") for number in range(5)], IngestOptions(format=Dated()))
    assert [(file["accepted"], file["rejected"]) for file in report["files"]] == [
        (1, False), (0, True), (0, True), (0, True), (1, False),
    ]  # fmt: skip
    assert json.dumps(report)


def test_a_time_that_is_none_keeps_its_run(new_shelf: Any, tmp_path: Path) -> None:
    """Nobody knows whether it is too old."""
    value: Any = {"n": 10**30, "at": "never"}
    (tmp_path / "a").write_text(json.dumps(value))
    report = ingest(new_shelf(), [str(tmp_path / "a")], IngestOptions(format=Dated(), since=SINCE))
    assert (report["totals"]["trajectories"], report["totals"]["undated"]) == (1, 1)
