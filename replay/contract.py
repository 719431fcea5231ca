"""What the house does for any environment, whatever its constructor takes: rules, re-binding, a hash of the state.

Each option may be an attribute of the environment or, stronger, come with the factory (`--env-opt`): `Configured`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..storage.canonical import canonical_json
from ..storage.errors import UsageError
from .environments.isolated import IsolatedFactory, isolated
from .equality import reshaped
from .rules import Normaliser, Rule, normalisers_from

HOUSE_OPTIONS = ("normalise", "rebind", "state_hash", "state_ignore")
"""Options that the house takes where the environment's own constructor does not name them."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Options of the house for one environment; None: what the environment itself declares, else the default.

    `normalise`: rules (`rules.py`). `rebind` (default true): ids of the record are re-bound. `state_hash` (false): the
    state's hash is its key. `state_ignore`: paths of `state()` that do not count.
    """

    normalise: Mapping[str, Any] | None = None
    rebind: bool | None = None
    state_hash: bool | None = None
    state_ignore: Sequence[str] | None = None

    def __post_init__(self) -> None:
        normalisers_from(self.normalise)  # wrong rules show now
        for name in ("rebind", "state_hash"):
            if not isinstance(getattr(self, name), (bool, type(None))):
                raise UsageError(f"{name} is true or false, not {getattr(self, name)!r}")
        given = self.state_ignore
        if given is not None and (isinstance(given, str) or not all(isinstance(path, str) and path for path in given)):
            raise UsageError(
                f"state_ignore is a list of paths, not {given!r}", hint="""state_ignore='["updated_at"]'"""
            )

    def rules(self, environment: Any) -> Normaliser:
        """The rules under which an observation of this world counts as equal."""
        given = getattr(environment, "normalise", None) if self.normalise is None else self.normalise
        return normalisers_from(given)

    def rebinds(self, environment: Any) -> bool:
        """Whether ids of the record are re-bound in this world."""
        return bool(getattr(environment, "rebind", True)) if self.rebind is None else self.rebind

    def hashes(self, environment: Any) -> bool:
        """Whether the hash of the state is the key of a world that has none of its own."""
        return bool(getattr(environment, "state_hash", False)) if self.state_hash is None else self.state_hash

    def hash_of(self, environment: Any, state: Any) -> str:
        """SHA-256 of a state as canonical JSON without the ignored paths. Never of pickles: they differ for equals."""
        ignored = getattr(environment, "state_ignore", None) if self.state_ignore is None else self.state_ignore
        rules = [Rule("ignore", "*", path) for path in ignored or ()]
        text = canonical_json(reshaped(state, rules, ()) if rules else state)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


class Configured:
    """A factory of worlds with options of the house. Everything else about it is the factory's own."""

    def __init__(self, factory: Callable[..., Any], contract: Contract):
        self._factory = isolated(factory)
        self.contract = contract
        if isinstance(self._factory, IsolatedFactory):
            self._factory.normalise(contract.normalise)

    def __call__(self) -> Any:
        """A new world."""
        return self._factory()

    def __getattr__(self, name: str) -> Any:
        if name == "isolation" or inspect.isclass(self._factory) or inspect.isroutine(self._factory):
            raise AttributeError(name)  # isolation is seen to already, and a class's own members are its worlds'
        return getattr(self._factory, name)


def contract_of(factory: Any) -> Contract:
    """The options that came with a factory."""
    found = getattr(factory, "contract", None)
    return found if isinstance(found, Contract) else Contract()
