"""Golden trees: every algorithm on a hash-driven world, compared exactly. Regenerate with regenerate_golden.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def test_every_scenario_has_its_file(toy: Any) -> None:
    assert sorted(toy.GOLDEN) == NAMES


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("name", NAMES)
def test_the_tree_is_the_golden_one(toy: Any, name: str, width: int) -> None:
    golden = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))[str(width)]
    run = toy.golden_run(name, width)
    assert run["asks"] == golden["asks"]
    assert run["nodes"] == golden["nodes"]
    assert run["best"] == golden["best"]
