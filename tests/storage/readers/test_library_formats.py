"""Inspect, ATIF, ShareGPT, ADP, Anthropic, Responses and tau: each claims its own files, and none of the others'."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Rejected, Trajectory

GOLDEN = Path(__file__).parents[1] / "golden_logs"
TRACES = Path(__file__).parents[4] / "shared" / "traces"
OWN = ("adp", "anthropic", "atif", "inspect", "openai-responses", "sharegpt", "tau-bench", "tau2-bench")
NO_LOGS = {".md", ".py", ".txt"}


def files(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in found if path.parent != folder or folder != TRACES]


ALL = [*files(GOLDEN), *files(TRACES)]
LOGS = [path for path in files(GOLDEN) if path.suffix not in NO_LOGS and path.parent.name in OWN]


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.name}"[:80])
def test_only_their_own_files_are_claimed(logs: Any, path: Path) -> None:
    name = logs.detected(path)
    if path.parent.name in OWN and path.suffix not in NO_LOGS:
        assert name == path.parent.name
    else:
        assert name not in OWN


def test_there_are_real_logs_to_tell_apart() -> None:
    if not TRACES.is_dir():
        pytest.skip(f"no real logs at {TRACES}")
    assert len(files(TRACES)) > 60
    assert len(LOGS) >= 8


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_a_golden_log_cut_anywhere_ends_in_trajectories_or_refusals(logs: Any, path: Path) -> None:
    data = path.read_bytes()
    step = max(1, len(data) // (15 if path.parent.name == "inspect" else 60))
    for size in range(0, len(data), step):
        assert all(type(item) in (Trajectory, Rejected) for item in logs.all(path.parent.name, data[:size]))


@pytest.mark.parametrize("path", [path for path in LOGS if path.parent.name != "inspect"], ids=lambda path: path.name)
def test_golden_values_of_another_type_end_in_trajectories_or_refusals(logs: Any, path: Path) -> None:
    text = path.read_text()
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    places = [(row, place) for row in range(len(rows)) for place in _places(rows[row])]
    drawn = random.Random(7).sample(places, min(len(places), 150))
    for number, (row, place) in enumerate(drawn):
        changed = json.loads(json.dumps(rows))
        parent, last = changed[row], place[-1]
        for key in place[:-1]:
            parent = parent[key]
        parent[last] = [None, 5, -1.5, "text", [[]], {"a": []}, True, 2**70][number % 8]
        found = logs.all(path.parent.name, changed if len(rows) > 1 else changed[0])
        assert all(type(item) in (Trajectory, Rejected) for item in found)
        for item in found:
            if isinstance(item, Trajectory) and path.parent.name != "openai-responses":
                assert item.source is not None
                assert len(item.steps) == item.source.counts["assistant_turns"]


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([place] if place else []), *(found for key, child in inner for found in _places(child, (*place, key)))]
