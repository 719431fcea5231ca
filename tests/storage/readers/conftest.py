"""Reading logs in the tests of the readers: golden files, real files, and records written in the test."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

from ttc_replay.storage.readers.base import all_readers, detect_reader, find_reader
from ttc_replay.storage.readers.json_input import read_head
from ttc_replay.storage.records import Rejected, Source, Trajectory

GOLDEN = Path(__file__).parents[1] / "golden_logs"
TRACES = Path(__file__).parents[4] / "shared" / "traces"


_readers = cache(all_readers)


class Logs:
    """Reads bytes, or values written as JSON lines, with the reader of a format."""

    golden, traces = GOLDEN, TRACES

    def data(self, value: Any) -> bytes:
        """Bytes as they are, a path's content, a list as JSON lines, anything else as a document."""
        if isinstance(value, Path):
            return value.read_bytes()
        if isinstance(value, bytes):
            return value
        rows = value if isinstance(value, list) else [value]
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    def all(self, name: str, value: Any) -> list[Trajectory | Rejected]:
        """What the reader yields."""
        return list(find_reader(name).read(io.BytesIO(self.data(value)), Source("", path="log", dataset="d")))

    def good(self, name: str, value: Any) -> list[Trajectory]:
        """The same, where nothing may be refused."""
        found = self.all(name, value)
        assert all(isinstance(item, Trajectory) for item in found), found
        return cast(list[Trajectory], found)

    def detected(self, value: Any) -> str | None:
        """The format that the content is taken for."""
        reader = detect_reader(read_head(io.BytesIO(self.data(value))), _readers())
        return reader.name if reader else None

    def counts(self, found: list[Trajectory | Rejected]) -> dict[str, int]:
        """The counts of all trajectories together."""
        together: dict[str, int] = {}
        for item in found:
            if isinstance(item, Trajectory) and item.source is not None:
                for key, count in item.source.counts.items():
                    together[key] = together.get(key, 0) + count
        return together

    def expected(self, folder: str, file: str) -> dict[str, int]:
        """What `count.py` finds in a real file."""
        formats = json.loads((TRACES / "expected_counts.json").read_text())["formats"]
        return cast(dict[str, int], formats[folder]["files"][file])


@pytest.fixture
def logs() -> Logs:
    """A reader of logs."""
    return Logs()
