"""Structure-aware fuzzing of every format: whatever becomes of a log, an ingest ends with a report that adds up.

Logs are mutated as data (keys dropped, doubled, swapped, retyped; two logs spliced; odd numbers and texts) and as bytes
(cut, bits flipped, other encodings, packed). `TTC_FUZZ=10000` sets the mutations of each format family (500 without),
`TTC_FUZZ_SEED` another beginning. A mutant that breaks something is kept in the test's folder, which the failure names.
What takes more memory than an input may (`Memory`) fails its family before the machine has none left.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import zstandard

from ttc_replay.storage.database import Database
from ttc_replay.storage.ingest import IngestOptions, ingest
from ttc_replay.storage.readers.base import reader_names

GOLDEN = Path(__file__).parent / "golden_logs"
TRACES = Path(os.environ.get("TTC_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
MUTANTS = int(os.environ.get("TTC_FUZZ", "500"))
SEED = int(os.environ.get("TTC_FUZZ_SEED", "0"))
BATCH = 100
MOST_MEMORY = 3 * 2**29
"""No input takes over 1.5 GiB."""
SHORT, FEW, MOST = 160, 5, 5_000
"""Texts, lists and logs are cut to these, so that many mutants are tried in little time."""

Random: TypeAlias = random.Random
FAMILY_OF_FOLDER = {"openhands-events": "openhands"}
BOOKS = ("SOURCE.md", "README.md", "expected_counts.json", "count.py")


@dataclass(frozen=True)
class Log:
    """One log to mutate. `values`: its records, where it is JSON; `shape`: how they were written."""

    data: bytes
    values: list[Any]
    shape: str


def families() -> dict[str, list[Path]]:
    """The files of each format, real and golden."""
    found: dict[str, list[Path]] = {}
    for root in (TRACES, GOLDEN):
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            folder = path.relative_to(root).parts[0]
            is_log = path.name not in BOOKS and path.suffix != ".py"
            if is_log and path.is_file() and len(path.relative_to(root).parts) > 1 and folder != "LICENSES":
                found.setdefault(FAMILY_OF_FOLDER.get(folder, folder), []).append(path)
    return {name: paths for name, paths in found.items() if name in reader_names()}


# --- logs as data ---------------------------------------------------------------------------------------------------


def load(path: Path) -> Log:
    data = path.read_bytes()
    if data.startswith(b"PK\x03\x04"):
        return Log(data, members(data), "zip")
    for shape, read in (("document", one_value), ("lines", lines_of)):
        try:
            values = read(data)
        except ValueError:
            continue
        return smallest([shorten(value) for value in values][:40], shape)
    return Log(data, [], "binary")


def smallest(values: list[Any], shape: str) -> Log:
    """The log, its lists made shorter until it is small enough."""
    for most in (3 * FEW, FEW, 2, 1):
        cut_short = fewer(values, most) if shape == "document" else fewer(values[: 2 * most], most)
        data = written(cut_short, shape)
        if len(data) <= MOST:
            break
    return Log(data, cut_short, shape)


def fewer(value: Any, most: int) -> Any:
    if isinstance(value, list):
        return [fewer(item, most) for item in value[:most]]
    return {key: fewer(item, most) for key, item in value.items()} if isinstance(value, dict) else value


def one_value(data: bytes) -> list[Any]:
    return [json.loads(data.decode())]


def lines_of(data: bytes) -> list[Any]:
    values = []
    for line in data.decode().splitlines():
        try:
            values.append(json.loads(line))
        except ValueError:
            continue
    if not values:
        raise ValueError("no line is JSON")
    return values


def members(data: bytes) -> list[Any]:
    """[name, value] of every JSON member."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        try:
            return [[name, shorten(json.loads(archive.read(name)))] for name in names]
        except NotImplementedError:  # zstd: only its bytes can be mutated
            return []


def shorten(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        try:
            inner = json.loads(value) if value[:1] in "{[" and len(value) > SHORT else None
        except ValueError:
            inner = None
        return value[:SHORT] if inner is None else json.dumps(shorten(inner, depth))
    if isinstance(value, list):
        return [shorten(item, depth + 1) for item in value[: 3 * FEW]]
    if isinstance(value, dict):
        return {key: shorten(item, depth + 1) for key, item in value.items()}
    return value


def written(values: list[Any], shape: str, **options: Any) -> bytes:
    if shape == "zip":
        packed = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            warnings.simplefilter("ignore", UserWarning)  # of a name that stands twice: that is what is tried
            for item in values:
                name, value = item if isinstance(item, list) and len(item) == 2 else ("samples/x.json", item)
                member = zipfile.ZipInfo(str(name)[:1000].encode("utf-8", "replace").decode() or "x")
                archive.writestr(member, dumped(value, **options), zipfile.ZIP_DEFLATED)
        return packed.getvalue()
    end = b"\n" if shape == "lines" else b""
    return b"".join(dumped(value, **options) + end for value in values)


def dumped(value: Any, **options: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, **options).encode("utf-8", "surrogatepass")


# --- mutations of data ----------------------------------------------------------------------------------------------

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40, 0.1, -0.0, 1e308, 5e-324),
    *(float("nan"), float("inf"), 1e15, 1.7e9, "", " ", "null", "0", "1e999", "x" * 3000, "\x00", "\ud800", "\x1b[2J"),
    *(
        "2026-01-01T00:00:00Z",
        "2026-13-45",
        "9999999999999999999",
        "../../x",
        "'; drop table steps; --",
        "data:;base64,x",
    ),
    *([], {}, [[]], [None], {"": None}, {"role": "user"}, [{"type": "text"}], {"type": "tool_use"}, ["\ud83d\ude00"]),
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in it."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        item = stack.pop()
        keys: Any = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            stack.append(item[key])
    return found


def copied(value: Any) -> Any:
    """What is put into a log is its own. One that is shared would be mutated with it, in every later log, and may come
    to hold itself: a walk over it has no end (once that took 23 GB).
    """
    return json.loads(json.dumps(value))


def drop(random: Random, box: Any, key: Any, other: Any) -> None:
    del box[key]


def double(random: Random, box: Any, key: Any, other: Any) -> None:
    if isinstance(box, list):
        box.insert(random.randrange(len(box) + 1), copied(box[key]))
    else:
        box[f"{key} "] = copied(box[key])


def swap(random: Random, box: Any, key: Any, other: Any) -> None:
    key2 = random.choice(list(box) if isinstance(box, dict) else range(len(box)))
    box[key], box[key2] = box[key2], box[key]


def rename(random: Random, box: Any, key: Any, other: Any) -> None:
    if isinstance(box, dict):
        box[random.choice(["", "id", "type", "content", key.upper(), "role", "messages"])] = box.pop(key)
    else:
        random.shuffle(box)


def retype(random: Random, box: Any, key: Any, other: Any) -> None:
    value = box[key]
    box[key] = random.choice([str(value), [value], {"value": value}, None, json.dumps(value), bool(value)])


def oddity(random: Random, box: Any, key: Any, other: Any) -> None:
    box[key] = copied(random.choice(ODD))


def splice(random: Random, box: Any, key: Any, other: Any) -> None:
    box[key] = copied(other)


def nest(random: Random, box: Any, key: Any, other: Any) -> None:
    for _ in range(random.choice([1, 5, 150, 205])):
        box[key] = [box[key]]


OPERATIONS: list[Callable[[Random, Any, Any, Any], None]] = [
    *(drop, double, swap, rename, retype, retype, oddity, oddity, splice, nest),
]


def mutated(random: Random, log: Log, other: Log) -> bytes:
    """The log with some of its values changed, written in one of several ways."""
    values = copied(log.values)
    strange = places(other.values)
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        found = places(values)
        if not found:
            break
        box, key = random.choice(found)
        far, name = random.choice(strange) if strange else ([None], 0)
        random.choice(OPERATIONS)(random, box, key, far[name])
    shape = log.shape if random.random() < 0.8 or log.shape == "zip" else random.choice(["lines", "document"])
    return written(values, shape, indent=random.choice([None, None, None, 1]))


# --- mutations of bytes ---------------------------------------------------------------------------------------------


def cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def cut_out(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice([1, 2, 40, 1000]) :]


def flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 2, 9]) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def insert(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data) + 1)
    odd = [
        b"\x00",
        b"\n",
        b"\xff\xfe",
        b'"',
        b"\\",
        b"{",
        b"]",
        b",,",
        b"NaN",
        b"\xed\xa0\x80",
        b"9" * 4400,
        b"//\n",
        b"\xef\xbb\xbf",
    ]
    return data[:place] + random.choice(odd) + data[place:]


def recode(random: Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(random.choice(["utf-16", "utf-32", "utf-16-le", "latin-1", "utf-8-sig", "cp037"]), "replace")


def pack(random: Random, data: bytes) -> bytes:
    packed = gzip.compress(data, mtime=0) if random.random() < 0.5 else zstandard.compress(data)
    return packed if random.random() < 0.5 else flip(random, cut(random, packed))


def respace(random: Random, data: bytes) -> bytes:
    return data.replace(b"\n", random.choice([b"\r\n", b"", b"\n\n", b" ", b"\r"]))


def big_number(random: Random, data: bytes) -> bytes:
    """Some place of a binary format overwritten with a number that lies about a length."""
    place = random.randrange(len(data) + 1)
    value = random.choice([b"\xff" * 9 + b"\x01", struct.pack("<I", 2**31), struct.pack(">Q", 2**63), b"\x00" * 8])
    return data[:place] + value + data[place + len(value) :]


BYTES: list[Callable[[Random, bytes], bytes]] = [cut, cut_out, flip, insert, recode, pack, respace, big_number]


def mutants(name: str, paths: list[Path], count: int) -> Iterator[bytes]:
    random = Random(f"{name} {SEED}")
    logs = [load(path) for path in paths]
    for _ in range(count):
        log, other = random.choice(logs), random.choice(logs)
        data = mutated(random, log, other) if log.values and random.random() < 0.7 else log.data
        if data is log.data or random.random() < 0.2:
            data = random.choice(BYTES)(random, data)
        yield data


# --- memory ---------------------------------------------------------------------------------------------------------


class Memory:
    """Fails the test, not the machine, when the process grows by more than `most`: looked at ten times a second, where
    Python code runs away, and at each `check` by its peak, whatever code took it. `where` is named. Linux only.
    """

    def __init__(self, where: str, most: int = MOST_MEMORY):
        self.where = where
        self._most = most
        self._start = 0

    def __enter__(self) -> Memory:
        if STATUS.exists():
            RESET_PEAK.write_text("5")
            self._start = resident("VmRSS")
            self._before = signal.signal(signal.SIGALRM, lambda *_: self.check())
            signal.siginterrupt(signal.SIGALRM, False)  # nobody's system calls are to fail because we look
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if STATUS.exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def check(self) -> None:
        """Fail when the peak since the beginning is too high. No reader can catch what this raises."""
        grown = resident("VmHWM") - self._start if STATUS.exists() else 0
        if grown > self._most:
            pytest.fail(f"{self.where}: {grown // 2**20} MiB of memory, more than {self._most // 2**20}")


STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """Bytes of this process's memory: VmRSS as it is, VmHWM the peak."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name)) * 1024


# --- what must hold -------------------------------------------------------------------------------------------------


def check(report: dict[str, Any], files: list[str]) -> None:
    """Every file is in the report once, its counts add up, and no reader broke."""
    read = [file["path"] for file in report["files"]]
    members_of = {path for path in files if any(item.startswith(f"{path}/") for item in (*read, *report["ignored"]))}
    assert sorted({*read, *report["ignored"]} & set(files) | members_of) == sorted(files)
    assert len(read) == len(set(read))
    for file in report["files"]:
        done = file["accepted"] + file["duplicates"] + file["skipped"]
        assert not (file["rejected"] and done), file
        assert len(file["problems"]) == file["skipped"] + file["rejected"], file
        assert "TTC-E404" not in {problem["code"] for problem in file["problems"]}, file["problems"]
    totals = report["totals"]
    assert totals["trajectories"] == sum(file["accepted"] for file in report["files"])
    json.dumps(report, allow_nan=False, ensure_ascii=False).encode()


def run(database: Database, folder: Path, options: IngestOptions) -> dict[str, Any]:
    before = database.count()
    report = ingest(database, [str(folder)], options)
    totals = report["totals"]
    assert database.count() == before + totals["trajectories"] + totals.get("subagents", 0)
    check(report, [str(path) for path in sorted(folder.iterdir())])
    return report


@pytest.mark.parametrize("family", families())
def test_whatever_becomes_of_a_log_the_report_adds_up(family: str, tmp_path: Path) -> None:
    paths = families()[family]
    stored = 0
    with Memory(str(tmp_path)) as memory, Database.open(str(tmp_path / "ttc.duckdb")) as database:
        for number, batch in enumerate(batches(mutants(family, paths, MUTANTS))):
            folder = tmp_path / f"batch-{number}"
            folder.mkdir()
            memory.where = f"{folder}, or what was made after it"
            for index, data in enumerate(batch):
                (folder / f"{index}.log").write_bytes(data)
            options = IngestOptions(format="auto" if number % 3 == 0 else family, dataset=family)
            try:
                stored += run(database, folder, options)["totals"]["trajectories"]
            except Exception as error:
                pytest.fail(f"{culprit(folder, options, tmp_path)}: {error!r}")
            memory.check()
            for path in folder.iterdir():
                path.unlink()
    assert stored > MUTANTS // 50, "too few mutants are still logs: the fuzzing tests nothing"


def batches(items: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def culprit(folder: Path, options: IngestOptions, tmp_path: Path) -> str:
    """The first file of the batch that fails alone."""
    for path in sorted(folder.iterdir()):
        alone = tmp_path / "alone"
        alone.mkdir(exist_ok=True)
        copy = alone / path.name
        copy.write_bytes(path.read_bytes())
        try:
            with Database.open(str(tmp_path / "alone.duckdb")) as database:
                run(database, alone, options)
        except Exception:
            return str(path)
        copy.unlink()
    return f"{folder} (only together)"


def test_there_is_something_to_mutate() -> None:
    assert len(families()) >= 10


def test_mutants_are_the_same_whatever_was_mutated_before() -> None:
    """Else a find could not be repeated, and a value that is put into itself would have no end."""
    first, again = ({name: list(mutants(name, paths, 60)) for name, paths in families().items()} for _ in range(2))
    assert [name for name in first if first[name] != again[name]] == []


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    "grow", [lambda held: [held.append(b"x" * 2**20) for _ in iter(int, 1)], lambda _: b"x" * 2**27]
)
def test_memory_beyond_the_promise_is_told(grow: Callable[[list[bytes]], object]) -> None:
    """What has no end, and what is given back before anybody looks."""
    with pytest.raises(pytest.fail.Exception, match=r"here: [0-9]+ MiB of memory, more than 64"):
        grow_within("here", 2**26, grow)
    grow_within("here", 2**28, lambda _: b"x" * 2**27)


def grow_within(where: str, most: int, grow: Callable[[list[bytes]], object]) -> None:
    with Memory(where, most) as memory:
        grow([])
        memory.check()
