"""What `search` says of how its worlds were copied, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_a_search_says_what_was_measured_and_chosen(cli: Any, toys: Path, search_toys: tuple[str, ...]) -> None:
    done = cli(*search_toys, "--json", "-v")
    assert done.code == 0, done.err
    found = done.document["environment"]
    assert list(found) == [
        *("class", "forks", "fork_ms", "reset_ms", "step_ms", "forked", "reexecuted_steps", "snapshot_every")
    ]
    assert (found["class"], found["forks"], found["snapshot_every"]) == ("forkable", "native", 1)
    assert found["forked"] > 100
    assert found["reexecuted_steps"] == 0
    assert all(0 < found[name] < 1000 for name in ("fork_ms", "reset_ms", "step_ms"))
    said = next(line for line in done.err.splitlines() if line.startswith("worlds (forkable, forks: native)"))
    assert f"{found['forked']} copies, 0 steps re-executed" in said
    again = cli(*search_toys, "--json").document["environment"]  # nothing was left to do, so nothing was measured
    assert (again["class"], again["forked"], again["step_ms"]) == ("forkable", 0, None)


def test_without_v_nobody_is_told(cli: Any, toys: Path, search_toys: tuple[str, ...]) -> None:
    assert "worlds (" not in cli(*search_toys).err


def test_a_wrong_capability_is_a_usage_error(cli: Any, toys: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text(
        'class Shop:\n    forks = "cow"\n    def buy(self, item: str) -> str:\n        return item\n', "utf-8"
    )
    done = cli("replay", "--env", f"{file}:Shop")
    assert (done.code, done.codes) == (2, ["TTC-E100"])
    assert "none of native, pickle, deepcopy, reexecute" in done.err
