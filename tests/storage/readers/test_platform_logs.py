"""Logs of tracing platforms: counts of real files, detection of real and golden ones, and damaged copies of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.canonical import canonical_json
from ttc_replay.storage.codec import messages_to_dicts, step_to_dict
from ttc_replay.storage.records import Rejected, Trajectory

GOLDEN = Path(__file__).parents[1] / "golden_logs"
TRACES = Path(__file__).parents[4] / "shared" / "traces"
NAMES = ("langfuse", "langgraph", "langsmith", "litellm")
LOGS = (".json", ".jsonl", ".parquet", ".sqlite")
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")
real = pytest.mark.parametrize("file", [p.name for p in sorted((TRACES / "langfuse").glob("*.json"))] or ["none"])
GOLDEN_FILES = [(n, p) for n in NAMES for p in sorted((GOLDEN / n).iterdir()) if p.suffix in LOGS]
golden = pytest.mark.parametrize(("name", "path"), GOLDEN_FILES, ids=lambda value: getattr(value, "name", value))
TEXT = [(name, path) for name, path in GOLDEN_FILES if path.suffix in (".json", ".jsonl")]
text = pytest.mark.parametrize(("name", "path"), TEXT, ids=lambda value: getattr(value, "name", value))


@needs_traces
@real
def test_real_langfuse_traces_are_detected_and_counted(logs: Any, file: str) -> None:
    path = TRACES / "langfuse" / file
    assert logs.detected(path) == "langfuse"
    counts = logs.counts(logs.good("langfuse", path))
    assert {key: counts[key] for key in logs.expected("langfuse", file)} == logs.expected("langfuse", file)


@needs_traces
def test_real_logs_of_other_formats_are_not_claimed(logs: Any) -> None:
    others = [path for path in TRACES.rglob("*.*") if path.is_file() and path.parent.name != "langfuse"]
    assert len(others) > 60
    assert [path for path in others if logs.detected(path) in NAMES] == []


def test_golden_logs_of_other_formats_are_not_claimed(logs: Any) -> None:
    others = [path for path in GOLDEN.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".md", ".pyc")]
    others = [path for path in others if not set(path.relative_to(GOLDEN).parts) & set(NAMES)]
    assert len(others) > 20
    assert [path for path in others if logs.detected(path) in NAMES] == []


@golden
def test_golden_logs_are_small_detected_and_read_whole(logs: Any, name: str, path: Path) -> None:
    assert path.stat().st_size < 60_000
    assert logs.detected(path) == name
    found = logs.good(name, path)
    assert found
    assert len({item.id for item in found}) == len(found)
    known: set[str] = set()
    for item in found:
        assert (item.parent_id is None) == (item.source.relation is None)
        assert item.parent_id is None or item.parent_id in known  # parents come first
        assert item.source.counts["runs"] == (item.parent_id is None)
        known.add(item.id)


@text
def test_layout_changes_no_identity(logs: Any, name: str, path: Path) -> None:
    ids = [item.id for item in logs.good(name, path)]
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
    data = path.read_bytes()
    assert [item.id for item in logs.good(name, b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))] == ids
    if rows is not None:
        turned = [dict(reversed(row.items())) for row in rows]
        assert [item.id for item in logs.good(name, json.dumps(turned, indent=1).encode())] == ids
    else:
        assert [item.id for item in logs.good(name, json.dumps(json.loads(data), sort_keys=True).encode())] == ids


@golden
def test_damaged_logs_give_trajectories_and_refusals_only(logs: Any, name: str, path: Path) -> None:
    chance = random.Random(path.name)
    data = path.read_bytes()
    for _ in range(15):
        check(logs.all(name, data[: chance.randrange(len(data))]))
    for _ in range(15):
        broken = bytearray(data)
        for _ in range(chance.randrange(1, 8)):
            broken[chance.randrange(len(data))] = chance.randrange(256)
        check(logs.all(name, bytes(broken)))


@text
def test_retyped_values_give_trajectories_and_refusals_only(logs: Any, name: str, path: Path) -> None:
    chance = random.Random(path.name)
    data = path.read_bytes()
    lines = data.splitlines() if path.suffix == ".jsonl" else [data]
    for _ in range(25):
        rows = [retyped(json.loads(line), chance, chance.choice([0.002, 0.02, 0.1])) for line in lines]
        check(logs.all(name, b"\n".join(json.dumps(row).encode() for row in rows)))


def check(found: list[Any]) -> None:
    for item in found:
        assert isinstance(item, (Trajectory, Rejected))
        if isinstance(item, Trajectory):
            assert item.source is not None
            plain = [messages_to_dicts(item.prompt), [step_to_dict(step) for step in item.steps]]
            canonical_json([*plain, item.tools, item.final_state, item.source.extra, item.source.sampling])
            assert all(tool["function"]["name"] for tool in item.tools or ())
            assert all(type(count) is int for count in item.source.counts.values())


OTHERS: tuple[Any, ...] = (
    None,
    True,
    3,
    10**30,
    1.5,
    "",
    "x",
    "[]",
    [],
    [1],
    [None],
    {},
    {"type": "text"},
    {"role": 5},
    {"type": {}},
)


def retyped(value: Any, chance: random.Random, rate: float) -> Any:
    """The value with some of its parts, those in JSON texts too, replaced by ones of another type, or left out."""
    if chance.random() < rate:
        return chance.choice(OTHERS)
    if isinstance(value, dict):
        return {key: retyped(value[key], chance, rate) for key in value if chance.random() > rate / 2}
    if isinstance(value, list):
        return [retyped(item, chance, rate) for item in value if chance.random() > rate / 2]
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.dumps(retyped(json.loads(value), chance, rate))
        except ValueError:
            return value
    return value
