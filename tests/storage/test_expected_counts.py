"""The real logs of ../shared/traces: what an ingest finds equals what its count.py counts, key by key."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.accounts import exit_code
from ttc_replay.storage.ingest import ingest

TRACES = Path(os.environ.get("TTC_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
EXPECTED: dict[str, Any] = (
    json.loads((TRACES / "expected_counts.json").read_text("utf-8")) if TRACES.is_dir() else {"formats": {}}
)
REPORTED = ("messages", "assistant_turns", "tool_calls", "tool_results", "rewards")
NOT_OF_THE_SOURCE = ("runs", "files", "reward_sum")
FORMAT_OF_FOLDER = {"openhands-events": "openhands"}
"""The folder of every other format has its name."""

pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}: set TTC_TRACES")


def counted(shelf: Any, path: Path) -> Counter[str]:
    """What the trajectories of one file count, with the sum of their rewards."""
    found: Counter[str] = Counter()
    for item in shelf.kept.values():
        if item.source is not None and item.source.path == str(path):
            found.update({"runs": 1, **item.source.counts})
            found["reward_sum"] += (item.outcome.value or 0) if item.outcome else 0
    return found


@pytest.mark.parametrize("folder", EXPECTED["formats"])
def test_a_folder_gives_exactly_the_expected_counts(new_shelf: Any, folder: str) -> None:
    shelf = new_shelf()
    report = ingest(shelf, [str(TRACES / folder)])
    expected = EXPECTED["formats"][folder]
    files = {Path(file["path"]).name: file for file in report["files"]}
    assert files.keys() == expected["files"].keys()
    assert [Path(path).name for path in report["ignored"]] == ["SOURCE.md"]
    for name, counts in expected["files"].items():
        found = counted(shelf, TRACES / folder / name)
        assert files[name]["format"] == FORMAT_OF_FOLDER.get(folder, folder), name
        assert files[name]["accepted"] == counts["runs"], name
        assert (files[name]["duplicates"], files[name]["rejected"]) == (0, False), name
        assert {key: found[key] for key in counts} == pytest.approx(counts), name
        assert files[name]["skipped"] == counts.get("bad_lines", 0), files[name]["problems"]
    totals = expected["totals"]
    assert report["totals"]["trajectories"] == totals["runs"]
    known = [key for key in REPORTED if key in totals]
    assert {key: report["totals"][key] for key in known} == {key: totals[key] for key in known}
    assert exit_code(report) == (1 if totals.get("bad_lines") else 0)


def test_one_ingest_of_everything_accounts_for_every_file(new_shelf: Any) -> None:
    report = ingest(new_shelf(), [str(TRACES)])
    there = {str(path) for path in TRACES.rglob("*") if path.is_file()}
    read = [file["path"] for file in report["files"]]
    assert sorted([*read, *report["ignored"]]) == sorted(there), "each exactly once"
    logs = {str(TRACES / folder / name) for folder, of in EXPECTED["formats"].items() for name in of["files"]}
    assert set(read) == logs
    assert not [file["path"] for file in report["files"] if file["rejected"]]
    totals = EXPECTED["totals"]
    assert report["totals"]["trajectories"] == totals["runs"]
    assert {key: report["totals"][key] for key in REPORTED} == {key: totals[key] for key in REPORTED}


def test_a_second_ingest_finds_only_duplicates(new_shelf: Any) -> None:
    shelf = new_shelf()
    first = ingest(shelf, [str(TRACES)])
    again = ingest(shelf, [str(TRACES)])
    assert again["totals"]["trajectories"] == 0
    assert again["totals"]["duplicates"] == first["totals"]["trajectories"]
    assert again["totals"]["skipped"] == first["totals"]["skipped"]
