"""A journal that cannot be written stops at once: nothing may follow half a line, and no fsync is taken for done."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from ttc_replay.storage.errors import StoreError
from ttc_replay.storage.journal import Journal, digest, read_journal

CONFIGURATION = {"seed": 0}


def test_nothing_follows_half_a_line(tmp_path: Path) -> None:
    """Another task may append after the disk was full for one; glued to the half line, its event would be damage."""
    journal = Journal.open(tmp_path / "run", CONFIGURATION, [])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(StoreError, match="not written whole"):
            journal.append({"event": "tell", "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(StoreError, match="could not be written before") as refused:
        journal.append({"event": "done"})
    assert refused.value.place == str(journal.path)
    assert refused.value.hint
    journal.close()
    again = Journal.open(tmp_path / "run", CONFIGURATION, [])
    again.append({"event": "done"})
    again.close()
    assert [event["event"] for event in read_journal(journal.path)[0]] == ["config", "done"]


def test_a_disk_that_does_not_answer_is_an_error_with_a_code(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # a pipe takes lines and has no disk to wait for: fsync(2) refuses it
    journal = Journal(tmp_path / "journal.jsonl", [], writing)
    journal.append({"event": "config"})
    for _ in range(2):
        with pytest.raises(StoreError, match="does not reach the disk") as refused:
            journal.sync()
        assert refused.value.place == str(tmp_path / "journal.jsonl")
    with pytest.raises(StoreError):
        journal.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)
    os.close(reading)


def test_what_a_provider_charges_makes_no_other_tree() -> None:
    """Discarded replies and its own cache change usage and calls; the digest is about the tree."""

    def tell(charged: int) -> dict[str, object]:
        usage = {"prompt_tokens": charged}
        step = {"index": 0, "action": "a", "usage": usage}
        children = [{"key": "a", "step": step}, {"key": "b"}]
        return {"event": "tell", "t": 0, "children": children, "usage": usage, "calls": charged}

    assert digest([tell(1)]) == digest([tell(2)])
    other = tell(1)
    other["children"] = [{"key": "a", "step": {"index": 1, "action": "a"}}, {"key": "b"}]
    assert digest([other]) != digest([tell(1)])
