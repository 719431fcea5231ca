"""Plugins: the live objects that a run works with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .. import search
from ..rewards.compose import Composed
from ..storage.records import Spec, Trajectory, Usage
from .calls import Append, Lookup
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
    environment_class: str | None = None
    """Of the worlds, where one was looked at already."""
    user_policy: Any = None
    """Who plays the user after the branch point; None: the tape."""

    def __post_init__(self) -> None:
        self.factory = isolated(self.factory)  # where the world asks for it; else the factory itself

    @property
    def shared(self) -> Any:
        """The factory, where it is an object that its worlds share; None for a class or function that builds them."""
        return None if inspect.isroutine(self.factory) or inspect.isclass(self.factory) else self.factory

    @property
    def imagination(self) -> Imagining | None:
        """The factory, where its worlds ask a model. By its methods: a `Configured` factory passes them on."""
        asks = all(callable(getattr(self.shared, name, None)) for name in ("bind", "recall", "worst"))
        return self.shared if asks else None


class Imagining(Protocol):
    """A factory of worlds that ask a model (`world-model`): what the engine does for its calls.

    Such a factory may also have `prepare(records)`, `check()`, `close()` and `report()`, as a policy may.
    """

    metered: bool
    repeated_calls: int

    def bind(self, append: Append, lookup: Lookup) -> None:
        """Journal every paid call here; answer finished ones from this cache."""
        ...

    def recall(self, event: Mapping[str, Any]) -> None:
        """Take an event of the journal whose `by` is `world`."""
        ...

    def worst(self) -> tuple[int, Usage]:
        """Calls and use that one action may cost at most."""
        ...


def own_options(spec: Spec) -> dict[str, Any]:
    """An algorithm's options without `answer` as text, which names a function of finished runs and is the engine's."""
    return {key: value for key, value in spec.options.items() if key != "answer" or not isinstance(value, str)}
