"""The public names are pinned, and the front door is light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ttc_replay

HEAVY = ("torch", "litellm", "langgraph", "pyarrow", "duckdb", "sqlalchemy", "transformers", "tau2")
PUBLIC = [
    "Environment",
    "Message",
    "Node",
    "Outcome",
    "Policy",
    "Proposal",
    "ProposalRequest",
    "RewardModel",
    "Score",
    "Source",
    "Spec",
    "Step",
    "StepResult",
    "Task",
    "ToolCall",
    "Trajectory",
    "TtcError",
    "Usage",
    "User",
    "reward",
    "search",
]


def test_public_names_are_pinned() -> None:
    assert ttc_replay.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(ttc_replay, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ttc_replay.nonsense


@pytest.mark.parametrize(
    "code",
    [
        "import ttc_replay",
        "from ttc_replay import Trajectory, reward, search; search.Tree(seed=0)",
        "import contextlib\n"
        "with contextlib.suppress(SystemExit):\n from ttc_replay.cli.main import main; main(['--help'])",
        "import contextlib\n"
        "with contextlib.suppress(SystemExit):\n from ttc_replay.cli.main import main; main(['search', '--help'])",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    probe = f"{code}\nimport sys; print('HEAVY', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "HEAVY", done.stdout
