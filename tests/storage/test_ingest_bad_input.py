"""The table of bad input in docs/ingest.md, a row at a time: what is decided, and that the good neighbours are read."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ttc_replay.storage.accounts import exit_code
from ttc_replay.storage.database import Database
from ttc_replay.storage.ingest import IngestOptions, ingest
from ttc_replay.storage.limits import Limits, parse_size

DOCS = Path(__file__).parents[2] / "docs" / "ingest.md"
MIB = 2**20


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(str(tmp_path / "ttc.duckdb")) as opened:
        yield opened


def record(number: int = 1, **more: Any) -> bytes:
    messages = [{"role": "user", "content": f"task {number}"}, {"role": "assistant", "content": "done"}]
    return json.dumps({"messages": messages, **more}).encode()


def nested(levels: int) -> bytes:
    """A record that is `levels` deep: itself, `note`, and lists in it."""
    return record(7)[:-1] + b', "note": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


A, B = record(1) + b"\n", record(2) + b"\n"


@dataclass(frozen=True)
class Row:
    """`bad` stands between two good records; `code` None: it is good too. `file`: the whole file instead."""

    bad: bytes = b""
    code: str | None = None
    file: bytes | None = None
    stored: int = 2


def between(bad: bytes, code: str) -> Row:
    return Row(bad + b"\n", code)


def good(data: bytes, stored: int = 2) -> Row:
    return Row(file=data, stored=stored)


TABLE: dict[str, list[Row]] = {
    "NaN, Infinity, 1e400": [
        between(record(9, reward=1)[:-2] + value + b"}", "TTC-E014") for value in (b"NaN", b"-Infinity", b"1e400")
    ],
    "a key twice in one object": [between(b'{"messages": [], "messages": []}', "TTC-E017")],
    "a lone surrogate": [between(b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "TTC-E018")],
    "bytes that are not UTF-8": [between(b'{"messages": [{"role": "user", "content": "caf\xe9"}]}', "TTC-E018")],
    "raw NUL bytes": [between(b'{"messages": [{"role": "user", "content": "a\x00b"}]}', "TTC-E024")],
    "`\\u0000` in a string": [good(A + B + record(3, note="a\x00b"), 3)],
    "a byte order mark (UTF-8)": [good(b"\xef\xbb\xbf" + A + B)],
    "UTF-16 or UTF-32 with a byte order mark": [good((A + B).decode().encode(name)) for name in ("utf-16", "utf-32")],
    "CRLF, blank lines": [good(A.replace(b"\n", b"\r\n\r\n") + b" \t\n\n" + B)],
    "a last line that is cut": [Row(file=A + B + record(3)[:-9], code="TTC-E019")],
    "no newline behind the last line": [good(A + B.rstrip())],
    "nesting to the limit": [good(A + B + nested(200), 3)],
    "nesting beyond the limit": [between(nested(201), "TTC-E020"), between(nested(100_000), "TTC-E020")],
    "brackets that never close": [Row(file=A + B + b"[" * 1_000_000, code="TTC-E019")],
    "an integer of 5,000 digits": [between(record(9)[:-1] + b', "n": ' + b"7" * 5000 + b"}", "TTC-E022")],
    "an integer of 4,300 digits": [good(A + B + record(9)[:-1] + b', "n": ' + b"7" * 4300 + b"}", 3)],
    "a record over `--max-line`": [between(record(9, note="x" * (129 * MIB)), "TTC-E021")],
    "a record of millions of values": [between(record(9)[:-1] + b', "n": [' + b"{}," * 3_000_000 + b"1]}", "TTC-E021")],
    "JSON, but not of the format": [between(b'{"messages": "x"}', "TTC-E01"), between(b"[1]", "TTC-E012")],
    "not JSON": [between(b"{'messages': []}", "TTC-E011"), between(b"Traceback (most recent call last):", "TTC-E011")],
    "gzip that unpacks without end": [Row(file=gzip.compress(A + B + b" " * (70 * MIB)), code="TTC-E023")],
    "zstd that unpacks without end": [Row(file=zstandard.compress(A + B + b" " * (70 * MIB)), code="TTC-E023")],
}


@pytest.mark.parametrize("what", TABLE)
def test_bad_input_is_decided_as_documented(database: Database, tmp_path: Path, what: str) -> None:
    assert f"\n| {what} |" in DOCS.read_text("utf-8"), "a row of the table in docs/ingest.md"
    for number, row in enumerate(TABLE[what]):
        path = tmp_path / f"{number}.log"
        path.write_bytes(A + row.bad + B if row.file is None else row.file)
        report = ingest(database if number == 0 else None, [str(path)], IngestOptions(dry_run=number > 0))
        (file,) = report["files"]
        found = [problem["code"] for problem in file["problems"]]
        assert file["accepted"] == row.stored, (what, number, file["problems"][:3])
        assert [code[: len(row.code or "")] for code in found] == ([row.code] if row.code else [])
        assert exit_code(report) == (1 if row.code else 0)
        if row.file is None:
            assert file["problems"][0]["line"] == 2
    assert database.count() == TABLE[what][0].stored


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "an empty file": (lambda: b"", "TTC-E015"),
    "UTF-16 without a byte order mark": (lambda: (A + B).decode().encode("utf-16-le"), "TTC-E013"),
    "binary data": (lambda: bytes(range(256)) * 99, "TTC-E013"),
    "prose": (lambda: b"# A title\n\nand text\n" * 9, "TTC-E013"),
    "one value without end": (lambda: b'{"messages": [' + b'{"role": "user", "content": "x"},' * 5, "TTC-E019"),
    "only brackets": (lambda: b"[" * 3_000_000, "TTC-E0"),
    "only quotes": (lambda: b'"' * 3_000_000, "TTC-E013"),
    "only backslashes": (lambda: b'{"' + b"\\" * 3_000_000, "TTC-E0"),
    "only newlines": (lambda: b"\n" * 3_000_000, "TTC-E0"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_of_which_nothing_can_be_read(tmp_path: Path, what: str) -> None:
    make, code = FILES[what]
    (tmp_path / "log").write_bytes(make())
    report = ingest(None, [str(tmp_path / "log")], IngestOptions(dry_run=True))
    (file,) = report["files"]
    assert (file["accepted"], file["rejected"]) == (0, True)
    assert file["problems"][0]["code"].startswith(code)
    assert exit_code(report) == 3


# --- text that does something elsewhere -----------------------------------------------------------------------------

EVIL = "\x1b[31mred\x1b]0;title\x07'; drop table trajectories; --"


def test_sql_and_escape_codes_in_names_are_only_text(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / EVIL.replace("/", "")
    folder.mkdir()
    name = 'a"; delete from steps; --\x1b[2J.jsonl'
    (folder / name).write_bytes(record(1, task_id=EVIL, agent=EVIL, model=EVIL, trial=EVIL, scores={EVIL: 1.0}))
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr(name, record(2, **{EVIL: EVIL}))
    report = ingest(database, [str(tmp_path)], IngestOptions(tags={EVIL: EVIL}))
    assert (report["totals"]["trajectories"], exit_code(report)) == (2, 0)
    assert database.count() == 2
    first = next(item for item in database.trajectories() if item.task.id == EVIL)
    assert first.source is not None
    assert (first.source.agent, first.source.dataset, first.scores[EVIL].value) == (EVIL, folder.name, 1.0)


# --- formats that look like another ---------------------------------------------------------------------------------

TAU = {"task_id": 1, "reward": 1.0, "info": {"task": {}}, "trial": 0, "traj": json.loads(record(1))["messages"]}
SIMULATION = {"id": "s", "task_id": "t", "termination_reason": "x", "reward_info": {"reward": 1}, "messages": []}
LOOKALIKES: dict[str, tuple[str, bytes, str | None]] = {
    "chat whose tool results are logs": (
        "logs.jsonl",
        json.dumps(
            {"messages": [*json.loads(record(1))["messages"], {"role": "tool", "content": json.dumps([TAU])}]}
        ).encode(),
        "openai-chat",
    ),
    "chat named as an Inspect log": ("log.eval", A + B, "openai-chat"),
    "chat named as a SWE-agent log": ("run.traj", record(1), "openai-chat"),
    "chat with the keys of others beside it": ("x", record(1, task_id="t", reward=1.0, info={"a": 1}), "openai-chat"),
    "tau-bench with chat in it": ("chat.jsonl", json.dumps([TAU]).encode(), "tau-bench"),
    "tau-bench as lines": ("chat.jsonl", json.dumps(TAU).encode() + b"\n" + json.dumps(TAU).encode(), "tau-bench"),
    "tau2-bench simulations by themselves": ("messages.json", json.dumps([SIMULATION]).encode(), "tau2-bench"),
    "a database that holds chat": ("chat.jsonl", b"SQLite format 3\x00\n" + A + B, None),
    "a list of messages": ("chat.json", json.dumps(json.loads(record(1))["messages"]).encode(), None),
    "a configuration": ("settings.json", b'{"version": 1, "messages": {"hello": "hi"}}', None),
}


@pytest.mark.parametrize("what", LOOKALIKES)
def test_content_decides_of_which_format_a_file_is(tmp_path: Path, what: str) -> None:
    name, data, expected = LOOKALIKES[what]
    (tmp_path / name).write_bytes(data)
    report = ingest(None, [str(tmp_path)], IngestOptions(dry_run=True))
    assert [file["format"] for file in report["files"]] == ([expected] if expected else [])
    assert len(report["ignored"]) == (expected is None)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_limits_are_in_force_for_one_ingest_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(A + record(3, note="x" * 5000) + b"\n" + nested(9) + b"\n" + B)
    tight = IngestOptions(dry_run=True, limits=Limits(line=1000, depth=8))
    report = ingest(None, [str(tmp_path / "a")], tight)
    assert [(item["line"], item["code"]) for item in report["files"][0]["problems"]] == [
        (2, "TTC-E021"),
        (3, "TTC-E020"),
    ]
    assert exit_code(ingest(None, [str(tmp_path / "a")], IngestOptions(dry_run=True))) == 0


def test_deeper_than_the_default_can_be_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(nested(230))
    report = ingest(None, [str(tmp_path / "a")], IngestOptions(dry_run=True, limits=Limits(depth=240)))
    assert report["totals"]["trajectories"] == 1


def test_sizes() -> None:
    assert [parse_size(text) for text in ("0", "1000", "1KiB", "256MiB", "1.5gb", "2 G")] == [
        0, 1000, 1024, 256 * MIB, 1_500_000_000, 2 * 2**30,
    ]  # fmt: skip
    assert sys.getrecursionlimit() >= 1000, "what the limit on nesting relies on"
