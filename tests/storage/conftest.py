"""What tests of the storage share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ttc_replay.storage.records import Trajectory


class Shelf:
    """An archive in memory, for properties over many small ingests."""

    def __init__(self) -> None:
        self.kept: dict[str, Trajectory] = {}

    def add_trajectories(self, batch: Sequence[Trajectory]) -> list[str]:
        new = [item for item in batch if item.id not in self.kept]
        self.kept.update((item.id, item) for item in new)
        return [item.id for item in new]


@pytest.fixture(scope="session")
def new_shelf() -> type[Shelf]:
    """Makes empty archives (a fixture, since test files import nothing of each other)."""
    return Shelf
