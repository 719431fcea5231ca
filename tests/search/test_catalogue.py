"""create and names: by name, with options, plugins included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import search
from ttc_replay.storage.errors import PluginNotFound, UsageError

PLUGIN = """
class Planner:
    def __init__(self, budget=None, depth=3):
        self.budget, self.depth = budget, depth
    def ask(self, tree, k):
        return []
    def tell(self, tree, ask_id, children, *, more=False, failed=None):
        return []

def anything(**options):
    planner = Planner()
    planner.options = options
    return planner

broken = 1 / 0 if __name__ == "broken_planner" else None
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with three algorithm plugins, one of them broken."""
    (tmp_path / "good_planner.py").write_text(PLUGIN)
    (tmp_path / "broken_planner.py").write_text(PLUGIN)
    info = tmp_path / "planner-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planner\nVersion: 1.0\n")
    points = ["planner = good_planner:Planner", "anything = good_planner:anything", "broken = broken_planner:broken"]
    (info / "entry_points.txt").write_text("[ttc_replay.algorithms]\n" + "\n".join(points) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_ours_are_listed() -> None:
    assert {"beam", "best-of-n", "mcts"} <= set(search.names())
    assert search.names() == sorted(search.names())


@pytest.mark.parametrize("name", ["beam", "best-of-n", "mcts"])
def test_each_satisfies_the_protocol_and_takes_a_budget(name: str) -> None:
    algorithm = search.create(name, budget=64)
    assert isinstance(algorithm, search.Algorithm)
    assert len(algorithm.ask(search.Tree(), 8)) == 1


@pytest.mark.parametrize(("wrong", "meant"), [("mtcs", "mcts"), ("best_of_n", "best-of-n"), ("bean", "beam")])
def test_an_unknown_name_says_what_was_meant(wrong: str, meant: str) -> None:
    with pytest.raises(PluginNotFound, match=wrong) as caught:
        search.create(wrong)
    assert f"did you mean {meant}?" in str(caught.value.hint)
    assert caught.value.exit_code == 2


def test_an_unknown_option_says_what_was_meant() -> None:
    with pytest.raises(UsageError, match="mcts has no option 'explore'") as caught:
        search.create("mcts", explore=1)
    assert "exploration" in str(caught.value.hint)
    with pytest.raises(UsageError) as far:
        search.create("beam", zzz=1)
    assert "beam_width" in str(far.value.hint)


def test_plugins_are_found_and_get_the_budget_only_if_they_take_it(plugins: None) -> None:
    assert {"planner", "anything"} <= set(search.names())
    planner: Any = search.create("planner", budget=64, depth=5)
    assert (planner.budget, planner.depth) == (64, 5)
    anything: Any = search.create("anything", budget=7, more=1)
    assert anything.options == {"budget": 7, "more": 1}
    with pytest.raises(UsageError, match="no option 'width'"):
        search.create("planner", width=1)


def test_a_broken_plugin_is_named(plugins: None) -> None:
    assert "broken" in search.names()
    with pytest.raises(PluginNotFound, match=r"broken.*division by zero"):
        search.create("broken")


def test_the_package_is_pure() -> None:
    code = (
        "import sys; from ttc_replay import search; search.create('mcts');"
        "heavy = {'asyncio', 'duckdb', 'numpy', 'sqlalchemy', 'importlib.metadata', 'socket', 'time'} - before;"
        "print(sorted(heavy & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; before = set(sys.modules);" + code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.strip() == "[]"


def test_a_class_may_stand_for_its_name() -> None:
    kind = type(search.create("mcts"))
    assert search.create(kind, exploration=2.0, budget=9) == search.create("mcts", exploration=2.0)
    with pytest.raises(UsageError, match="MCTS has no option 'explore'"):
        search.create(kind, explore=1)
