"""ttc-replay: put logged agent runs back to any step, search from there, export what went better.

The folders beside this file are links to the five top-level folders and `examples/`, so that tools which read folders
(mypy, pyright, ruff, import-linter) see `ttc_replay.search` where the installed package has it; builds use the mapping
in pyproject.toml and need no link. Names below are public; each loads its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import search
    from .replay.environments.base import Environment
    from .replay.environments.users import User
    from .replay.policies.base import Policy
    from .rewards.base import RewardModel, reward
    from .storage.errors import TtcError
    from .storage.records import (
        Message,
        Node,
        Outcome,
        Proposal,
        ProposalRequest,
        Score,
        Source,
        Spec,
        Step,
        StepResult,
        Task,
        ToolCall,
        Trajectory,
        Usage,
    )

__version__ = "0.1.0"

_RECORDS = (
    "Message Node Outcome Proposal ProposalRequest Score Source Spec Step StepResult Task ToolCall Trajectory Usage"
)
_HOME = {
    **dict.fromkeys(_RECORDS.split(), "storage.records"),
    "TtcError": "storage.errors",
    "Environment": "replay.environments.base",
    "User": "replay.environments.users",
    "Policy": "replay.policies.base",
    "RewardModel": "rewards.base",
    "reward": "rewards.base",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name == "search":
        return import_module(".search", __name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'ttc_replay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
