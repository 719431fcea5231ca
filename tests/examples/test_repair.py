"""The repair example end to end: failed runs of a bash agent are replayed, searched, mended and checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Task
from ttc_replay.cli.main import main
from ttc_replay.examples.repair.attempts import ATTEMPTS
from ttc_replay.replay.environments.shell import ShellEnvironment
from ttc_replay.replay.environments.shell_layers import open_store
from ttc_replay.storage.errors import SandboxUnavailable
from ttc_replay.storage.records import ToolCall

try:
    open_store("overlay")
    WHY_NOT = ""
except SandboxUnavailable as reason:
    WHY_NOT = reason.message
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

EXAMPLE = Path(__file__).parents[2] / "examples" / "repair"
WORLD = ["--env", "shell", "--env-opt", f"folder={EXAMPLE}/repositories/{{task}}"]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TTC_DB", raising=False)

    def run(*words: str, code: int = 0) -> Any:
        with pytest.raises(SystemExit) as left:
            main([*words, "--json", "-q"])
        out = capsys.readouterr()
        assert left.value.code == code, out.err
        return json.loads(out.out)

    return run


def test_every_log_holds_and_the_search_mends_what_no_run_mended(cli: Callable[..., Any]) -> None:
    assert cli("ingest", str(EXAMPLE / "logs"), "--dataset", "repair")["totals"]["trajectories"] == 12
    held = cli("replay", "--dataset", "repair", *WORLD)
    assert [run["first_divergence"] for run in held["trajectories"]] == [None] * 12
    verdict = ["--env-opt", "visible=tests", "--env-opt", f"tests={EXAMPLE}/hidden/{{task}}"]
    policy = ["--policy", "corpus", "--policy-opt", "same_task_only=true"]
    found = cli(
        *("search", "--dataset", "repair", "--where", "source_path LIKE '%-0.traj.json'", *WORLD, *verdict, *policy),
        *("--reward", "tests-share", "--accept", "environment", "--budget", "96", "--width", "4", "--name", "mend"),
    )
    for run in found["trajectories"]:
        assert (run["baseline"], run["best"], run["novel"], run["fidelity"]) == (0.0, 1.0, True, "snapshot"), run
    assert found["totals"]["improved"] == 3
    again = cli("replay", *(run["counterfactual_id"] for run in found["trajectories"]), *WORLD)
    assert [run["first_divergence"] for run in again["trajectories"]] == [None] * 3


def judged(task: str, *commands: str) -> tuple[float | None, int]:
    """(the held-back verdict, how many of the repository's own tests pass) after some commands."""
    folders = [str(EXAMPLE / name / task) for name in ("repositories", "hidden")]
    world = ShellEnvironment(folders[0], tests=folders[1], visible="tests")
    world.reset(Task(task))
    for command in commands:
        world.step(Message("assistant", tool_calls=(ToolCall("c", "bash", {"command": command}),)))
    return world.step(Message("assistant", "Done.")).reward, world.state()["tests"]["passed"]


def edits(task: str) -> list[list[str]]:
    return [[command for _, command in attempt if "EOF" in command or "sed" in command] for attempt in ATTEMPTS[task]]


def test_the_gate_refuses_what_the_repository_s_own_tests_take_for_right() -> None:
    (cents,), (half_up, _), (round_up,), (edit_tests,) = edits("invoices")
    assert judged("invoices", cents, half_up) == (1.0, 5)
    assert judged("invoices", cents, round_up) == (0.0, 5)
    assert judged("invoices", edit_tests) == (0.0, 2)
