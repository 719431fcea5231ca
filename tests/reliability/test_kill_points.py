"""The kill points themselves: counted, named in one place, real, and nothing when they are off."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ttc_replay.storage import kill_points
from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.kill_points import KILL_AT, KILL_COUNT, POINTS, due, kill_point

ROOT = Path(__file__).parents[2]
HOUSE = ("storage", "search", "rewards", "replay", "cli")
THREE_PASSES = """
import sys
from ttc_replay.storage.kill_points import kill_point
for kind in ("tell", "score", "tell"):
    kill_point("journal.append", kind)
    sys.stdout.write(kind + " ")
    sys.stdout.flush()
"""


def run(tmp_path: Path, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", THREE_PASSES],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_every_name_in_the_code_is_in_the_registry_and_the_other_way_round() -> None:
    used: set[str] = set()
    for folder in HOUSE:
        for file in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r"\b(?:kill_point|due)\(\"([a-z.-]+)\"", file.read_text("utf-8")))
    assert used == set(POINTS)


def test_every_name_is_documented() -> None:
    text = (ROOT / "docs" / "design" / "kill-points.md").read_text("utf-8")
    for name, meaning in POINTS.items():
        assert f"| `{name}` | {meaning} |" in text


@pytest.mark.parametrize(
    ("kill_at", "passed"),
    [
        ("journal.append:1", ""),
        ("journal.append:3", "tell score "),
        ("journal.append/tell:2", "tell score "),
        ("journal.append/score:1", "tell "),
        ("2", "tell "),
    ],
)
def test_the_process_dies_at_that_very_pass(tmp_path: Path, kill_at: str, passed: str) -> None:
    assert run(tmp_path, **{KILL_AT: kill_at}) == (-signal.SIGKILL, passed)


@pytest.mark.parametrize("kill_at", ["", "4", "journal.append:4", "journal.append/gate:1", "journal.torn:1"])
def test_a_pass_that_never_comes_kills_nobody(tmp_path: Path, kill_at: str) -> None:
    assert run(tmp_path, **{KILL_AT: kill_at}) == (0, "tell score tell ")


def test_passes_are_written_down_also_by_a_process_that_dies(tmp_path: Path) -> None:
    log = tmp_path / "passes.txt"
    assert run(tmp_path, **{KILL_COUNT: str(log), KILL_AT: "2"})[0] == -signal.SIGKILL
    assert log.read_text() == "journal.append/tell\njournal.append/score\n"
    assert run(tmp_path, **{KILL_COUNT: str(log)})[0] == 0
    assert log.read_text().count("\n") == 5


@pytest.mark.parametrize("kill_at", ["nonsense:1", "journal.append:0", "journal.append", "0", "-1", "journal.append:x"])
def test_what_cannot_be_is_refused(kill_at: str) -> None:
    with pytest.raises(UsageError, match=KILL_AT):
        kill_points.arm({KILL_AT: kill_at})


def test_off_is_off() -> None:
    kill_points.arm({})
    kill_point("no such point")
    assert not due("no such point")
