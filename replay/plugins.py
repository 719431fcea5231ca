"""Plugins: the live objects that a run works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import search
from ..rewards.compose import Composed
from ..storage.records import Spec, Trajectory
from .environments.isolated import isolated
from .session import EnvironmentFactory


@dataclass(slots=True)
class Plugins:
    """The live objects that a run works with."""

    policy: Any
    factory: EnvironmentFactory
    guide: Composed
    accept: Composed | None = None
    algorithm: Callable[..., search.Algorithm] | None = None
    """The class of an algorithm that is not looked up by its name."""
    answer: Callable[[Trajectory], str | None] | None = None
    """What a finished run says, for algorithms that vote; None: its state key, else its last action."""

    def __post_init__(self) -> None:
        self.factory = isolated(self.factory)  # where the world asks for it; else the factory itself


def own_options(spec: Spec) -> dict[str, Any]:
    """An algorithm's options without `answer` as text, which names a function of finished runs and is the engine's."""
    return {key: value for key, value in spec.options.items() if key != "answer" or not isinstance(value, str)}
