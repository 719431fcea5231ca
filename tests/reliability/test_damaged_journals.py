"""Torn and damaged journals (design.md section 6): the torn end is dropped or a line is named, never a wrong tree.

A torn write leaves the beginning of a line. So a file that ends without a newline is torn, and everything else that
does not verify is damage: an acknowledged event is never dropped silently.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.cli import jobs
from ttc_replay.replay.engine import Engine
from ttc_replay.replay.settings import Settings
from ttc_replay.storage.database import Database
from ttc_replay.storage.errors import JournalDamaged
from ttc_replay.storage.journal import Journal, digest, read_journal
from ttc_replay.storage.records import Spec

HERE = Path(__file__).parent
TOYS = HERE.parent / "cli" / "toy_plugins.py"
TAIL_BYTES = 4096
FLIPS = 500
SEED = 20


@dataclass
class Case:
    """A finished paid run, and the means to run it again over any beginning of its journal."""

    settings: Settings
    records: list[Any]
    folder: Path
    server: Any
    data: bytes = b""
    digest: str = ""
    resumed: set[int] = field(default_factory=set)

    @property
    def path(self) -> Path:
        return self.folder / "run" / "journal.jsonl"

    def open(self) -> Journal:
        return Journal.open(self.path.parent, self.settings.configuration(), [item.id for item in self.records])

    def run(self) -> str:
        """Run to the end over what the journal holds; the digest."""
        plugins = jobs.make_plugins(self.settings)
        engine = Engine(self.settings, "run", self.records, self.records, plugins, self.open())
        asyncio.run(engine.run())
        engine.journal.close()
        assert engine.error is None
        return digest(read_journal(self.path)[0])

    def check_resumed(self, kept: int) -> None:
        """A run over the first `kept` bytes ends like the whole one, and asks for nothing that it had paid for."""
        if kept in self.resumed:
            return
        self.resumed.add(kept)
        self.path.write_bytes(self.data[:kept])
        paid = {event["key"] for event in read_journal(self.path)[0] if event["event"] == "result"}
        before = len(self.server.asked["damaged"])
        assert self.run() == self.digest, f"cut behind byte {kept}"
        assert paid.isdisjoint(self.server.asked["damaged"][before:]), f"cut behind byte {kept}"


@pytest.fixture(scope="module")
def case(job: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    with Database.open(str(job.after_folder("ingest") / "ttc.duckdb"), create=False) as archive:
        records = jobs.recorded(archive)[:2]
    settings = Settings(
        environment=Spec(f"{TOYS}:Counter"),
        policy=Spec(f"{HERE / 'plugins.py'}:Loopback", {"base": job.server.base("damaged")}),
        rewards=((Spec("environment"), 1.0),),
        accept=Spec(f"{TOYS}:gold"),
        budget=6,
        width=3,
        concurrency=3,
    )
    made = Case(settings, records, tmp_path_factory.mktemp("damaged"), job.server)
    made.digest = made.run()
    made.data = made.path.read_bytes()
    return made


def test_cut_at_every_byte_of_the_tail(case: Case) -> None:
    """Whole lines stay, the torn one goes; and from each such beginning the run ends as if nothing was."""
    assert len(case.data) > TAIL_BYTES
    for cut in range(len(case.data) - TAIL_BYTES, len(case.data) + 1):
        case.path.write_bytes(case.data[:cut])
        kept = case.data.rfind(b"\n", 0, cut) + 1
        journal = case.open()
        assert len(journal.events) == case.data.count(b"\n", 0, cut)
        journal.close()
        assert case.path.read_bytes() == case.data[:kept]
    starts = [0, *(place + 1 for place, byte in enumerate(case.data) if byte == 0x0A)]
    for kept in (start for start in starts if start >= len(case.data) - TAIL_BYTES):
        case.check_resumed(kept)


def flips(data: bytes, count: int) -> list[int]:
    """Places of bits: half of them anywhere, half in the last two lines, which a careless reader takes for torn."""
    draw = random.Random(SEED)
    late = data.rfind(b"\n", 0, data.rfind(b"\n", 0, len(data) - 1)) + 1
    early = [draw.randrange(8 * len(data)) for _ in range(count // 2)]
    newlines = [8 * (len(data) - 1) + bit for bit in range(8)]
    return [*early, *newlines, *(draw.randrange(8 * late, 8 * len(data)) for _ in range(count - count // 2 - 8))]


def flipped(data: bytes, bit: int) -> bytes:
    place = bit // 8
    return data[:place] + bytes([data[place] ^ (1 << bit % 8)]) + data[place + 1 :]


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_a_flipped_bit_is_named_or_lies_in_the_torn_end(case: Case, torn: bool) -> None:
    """In a whole journal every flip is damage, also in the last line; not behind the last newline of a torn one."""
    data = case.data[: case.data.rfind(b"\n", 0, len(case.data) - 1) + 20] if torn else case.data
    acknowledged = data.rfind(b"\n") + 1
    named = 0
    for bit in flips(data, FLIPS // 2):
        damaged = flipped(data, bit)
        case.path.write_bytes(damaged)
        if bit // 8 < acknowledged or b"\n" in damaged[acknowledged:]:  # a flip may make a newline, too
            line = data.count(b"\n", 0, bit // 8) + 1
            with pytest.raises(JournalDamaged) as error:
                case.open()
            assert error.value.place == f"{case.path}:{line}"
            assert error.value.hint
            assert case.path.read_bytes() == damaged, "nothing is cut off a damaged journal"
            named += 1
        else:
            case.open().close()
            assert case.path.read_bytes() == data[:acknowledged]
            case.check_resumed(acknowledged)
    assert named >= FLIPS // 8


@pytest.mark.parametrize("more", [1, 2, 9, 20])
def test_a_torn_line_behind_a_damaged_newline_is_not_all_torn(case: Case, more: int) -> None:
    last = case.data.rfind(b"\n", 0, len(case.data) - 1)
    case.path.write_bytes(case.data[:last] + b"\x0b" + case.data[last + 1 : last + more])
    with pytest.raises(JournalDamaged) as error:
        read_journal(case.path)
    assert error.value.place == f"{case.path}:{case.data.count(bytes([10])) - 1}"


def test_two_lines_that_lost_the_newline_between_them_are_not_torn(case: Case) -> None:
    between = case.data.rfind(b"\n", 0, len(case.data) - 1)
    case.path.write_bytes(case.data[:between] + case.data[between + 1 :])
    with pytest.raises(JournalDamaged) as error:
        read_journal(case.path)
    assert error.value.place == f"{case.path}:{case.data.count(bytes([10])) - 1}"


def test_the_program_names_the_line_and_other_runs_go_on(job: Any, forked: Any) -> None:
    """A damaged journal stops its own run with its code; a run beside it only gets a note."""
    folder = job.before("paid")
    command = job.commands("refused")
    assert forked(folder, *command["paid"], TTC_KILL_AT="journal.written/tell:20").code == -9
    path = folder / "ttc.duckdb.runs" / "paid" / "journal.jsonl"
    data = path.read_bytes()
    path.write_bytes(flipped(data, 8 * (len(data) // 2)))
    line = data.count(b"\n", 0, len(data) // 2) + 1
    asked = list(job.server.asked["refused"])
    refused = forked(folder, "-q", *command["paid"])
    assert refused.code == 70
    assert "error[TTC-E203]: " in refused.err
    assert f"ttc.duckdb.runs/paid/journal.jsonl:{line}: the line does not verify" in refused.err
    assert "hint: " in refused.err
    assert job.server.asked["refused"] == asked, "nothing was paid"
    other = forked(folder, *command["free"])
    assert other.code == 0, other.err
    assert f"paid/journal.jsonl:{line}: the line does not verify" in other.err
