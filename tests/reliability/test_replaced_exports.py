"""What a dead export left beside its target is put back or removed by the next one; a live one keeps its own."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ttc_replay.storage.exporters import writer
from ttc_replay.storage.kill_points import KILL_AT

TWO_RENAMES = """
import sys
from pathlib import Path
from ttc_replay.storage.exporters import writer
staged, target, aside = map(Path, sys.argv[1:])
writer._two_renames(staged, target, aside)
"""


def files(text: str) -> dict[str, bytes]:
    manifest = {"producer": {"name": writer.PRODUCER}, "files": [{"path": "train.jsonl"}]}
    return {"train.jsonl": text.encode(), writer.MANIFEST: json.dumps(manifest).encode()}


def test_replacing_leaves_nothing_beside_the_target(tmp_path: Path) -> None:
    out = tmp_path / "data"
    for text in ("old", "new"):
        writer.write_folder(out, files(text))
        assert (out / "train.jsonl").read_text() == text
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
        assert out.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can exchange two names")
def test_two_names_change_places_in_one_step(tmp_path: Path) -> None:
    """No moment without a whole folder under the name: there is no second step that a kill could come before."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    assert writer._exchange(one, other)
    assert [path.name for path in (*one.iterdir(), *other.iterdir())] == ["other", "one"]
    assert not writer._exchange(one, tmp_path / "missing")
    assert one.is_dir()


def test_a_kill_between_two_renames_is_undone(tmp_path: Path) -> None:
    """Where folders cannot be exchanged the earlier export waits aside; it is back before the next one is written."""
    out, staging = tmp_path / "data", tmp_path / ".data.tmp-dead"
    writer.write_folder(out, files("old"))
    (staging / "data").mkdir(parents=True)
    places = [str(path) for path in (staging / "data", out, staging / writer.EARLIER)]
    environment = {**os.environ, KILL_AT: "export.aside:1"}
    died = subprocess.run([sys.executable, "-c", TWO_RENAMES, *places], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not out.exists()
    with writer._staging(out) as fresh:
        assert (out / "train.jsonl").read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data", fresh.name])
    writer.write_folder(out, files("new"))
    assert (out / "train.jsonl").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_failed_second_rename_puts_the_earlier_one_back(tmp_path: Path) -> None:
    out = tmp_path / "data"
    writer.write_folder(out, files("old"))
    with pytest.raises(FileNotFoundError):
        writer._two_renames(tmp_path / "missing", out, tmp_path / "aside")
    assert (out / "train.jsonl").read_text() == "old"


def test_only_leftovers_of_the_same_place_and_of_dead_processes_go(tmp_path: Path) -> None:
    dead, live, others = (tmp_path / name for name in (".data.tmp-dead", ".data.tmp-live", ".data2.tmp-dead"))
    for folder in (dead, live, others):
        folder.mkdir()
        (folder / "half").touch()
    held = os.open(live, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer.write_file(tmp_path / "data", b"{}\n", ())
        assert sorted(path.name for path in tmp_path.iterdir()) == [".data.tmp-live", ".data2.tmp-dead", "data"]
    finally:
        os.close(held)
    writer.write_file(tmp_path / "data", b"{}\n", ())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data2.tmp-dead", "data"]
