"""Logs of coding agents: counts of the real files, detection of real and golden ones, and damaged copies of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.canonical import canonical_json
from ttc_replay.storage.records import Rejected, Trajectory

GOLDEN = Path(__file__).parents[1] / "golden_logs"
TRACES = Path(__file__).parents[4] / "shared" / "traces"
FOLDERS = {
    "claude-code": "claude-code",
    "codex": "codex",
    "openhands-events": "openhands",
    "swe-agent": "swe-agent",
    "mini-swe-agent": "mini-swe-agent",
}
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")


def real_files() -> list[tuple[str, str]]:
    names = [(folder, path) for folder in FOLDERS for path in sorted((TRACES / folder).glob("*"))]
    return [(folder, path.name) for folder, path in names if path.suffix != ".md"] or [("none", "none")]


def golden_files() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for name in FOLDERS.values():
        paths = sorted((GOLDEN / name).rglob("*"))
        found += [
            (name, path)
            for path in paths
            if path.suffix in (".json", ".jsonl", ".traj") and path.parent.name != "events"
        ]
    return found


@needs_traces
@pytest.mark.parametrize(("folder", "file"), real_files())
def test_real_logs_are_detected_and_counted(logs: Any, folder: str, file: str) -> None:
    path = TRACES / folder / file
    assert logs.detected(path) == FOLDERS[folder]
    found = logs.all(FOLDERS[folder], path)
    expected = logs.expected(folder, file)
    counts = {"runs": sum(isinstance(item, Trajectory) for item in found), **logs.counts(found)}
    assert {key: counts[key] for key in expected} == expected
    assert sum(isinstance(item, Rejected) for item in found) == expected.get("bad_lines", 0)


@needs_traces
def test_files_of_other_formats_are_not_claimed(logs: Any) -> None:
    others = [path for path in TRACES.rglob("*.*") if path.is_file() and path.parent.name not in FOLDERS]
    assert len(others) > 30
    assert [path for path in others if logs.detected(path) in FOLDERS.values()] == []


@needs_traces
def test_golden_logs_of_other_formats_are_not_claimed(logs: Any) -> None:
    others = [path for path in GOLDEN.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".md")]
    others = [path for path in others if not set(path.relative_to(GOLDEN).parts) & set(FOLDERS.values())]
    assert [path for path in others if logs.detected(path) in FOLDERS.values()] == []


@pytest.mark.parametrize(("name", "path"), golden_files(), ids=lambda value: getattr(value, "name", value))
def test_golden_logs_are_detected_read_whole_and_owned_once(logs: Any, name: str, path: Path) -> None:
    assert logs.detected(path) == name
    found = logs.good(name, path)
    assert found
    first = found[0].source
    assert first is not None
    assert first.counts.get("runs", 1) == 1
    raws = [json.loads(item.source.raw) for item in found]
    if path.suffix == ".jsonl" and name in ("claude-code", "codex"):
        lines = [canonical_json(json.loads(line)) for line in path.read_text().splitlines()]
        assert sorted(canonical_json(line) for raw in raws for line in raw) == sorted(lines)
    parents = {item.id for item in found}
    assert all(item.parent_id in parents for item in found if item.parent_id is not None)


@pytest.mark.parametrize(("name", "path"), golden_files(), ids=lambda value: getattr(value, "name", value))
def test_layout_changes_no_identity(logs: Any, name: str, path: Path) -> None:
    ids = [item.id for item in logs.good(name, path)]
    data = path.read_bytes()
    assert [item.id for item in logs.good(name, b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))] == ids
    if path.suffix != ".jsonl":
        turned = json.dumps(json.loads(data), sort_keys=True, ensure_ascii=False).encode()
        assert [item.id for item in logs.good(name, turned)] == ids


@pytest.mark.parametrize(("name", "path"), golden_files(), ids=lambda value: getattr(value, "name", value))
def test_damaged_logs_give_trajectories_and_refusals_only(logs: Any, name: str, path: Path) -> None:
    chance = random.Random(path.name)
    data = path.read_bytes()
    for _ in range(12):
        for item in logs.all(name, data[: chance.randrange(len(data))]):
            assert isinstance(item, (Trajectory, Rejected))
    for _ in range(25):
        for item in logs.all(name, retyped(data, path.suffix == ".jsonl", chance)):
            assert isinstance(item, (Trajectory, Rejected))


def retyped(data: bytes, lines: bool, chance: random.Random) -> bytes:
    """The log with a few values anywhere in it replaced by ones of another type."""
    rows = [json.loads(line) for line in data.splitlines()] if lines else [json.loads(data)]
    for _ in range(chance.randrange(1, 6)):
        row = chance.choice(rows)
        while True:
            place = chance.choice(list(row) if isinstance(row, dict) else range(len(row)))
            if not isinstance(row[place], (dict, list)) or not row[place] or chance.random() < 0.2:
                row[place] = chance.choice([None, True, 3, 2**70, 1.5, "x", [], [1], [None], {}, {"type": "text"}])
                break
            row = row[place]
    return b"\n".join(json.dumps(row).encode() for row in rows)
