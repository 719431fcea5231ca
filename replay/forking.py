"""How a live world is copied: the capability that it declares, and the copy itself.

`forks` on the world or its class is one of

* `native`: its own `fork()` (the default of a world that has one);
* `pickle`: `pickle.loads(pickle.dumps(world))`;
* `deepcopy`: `copy.deepcopy(world)`;
* `reexecute`: never copied; a branch re-executes the prefix (the default of a world without `fork()`).

What did not declare it is never pickled or deep-copied: either may drag a whole data set along, or silently share a
connection. Pickling is safe here, and only here, because the bytes are made from the user's own live object and read
back at once in the same process: they are never stored, never sent, and nobody else can have written them.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, Literal, get_args

from ..storage.errors import EnvironmentFailed, TtcError, UsageError

Capability = Literal["native", "pickle", "deepcopy", "reexecute"]
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


def capability(environment: Any) -> Capability:
    """How `environment` is to be copied. Raises UsageError for a `forks` that cannot be."""
    how: Capability | None = getattr(environment, "forks", None)
    if how is None:
        return "native" if callable(getattr(environment, "fork", None)) else "reexecute"
    if how not in CAPABILITIES:
        name = _name(environment)
        raise UsageError(f"{name}: forks = {how!r}, which is none of {', '.join(CAPABILITIES)}", hint=_ALL)
    if how == "native" and not callable(getattr(environment, "fork", None)):
        raise UsageError(f'{_name(environment)}: forks = "native", but it has no fork()', hint=_ALL)
    return how


def declared(environment: Any) -> Capability:
    """The capability for reports: of a wrapper (`ToolsEnvironment`, an isolated world) that of what it wraps."""
    inside: Capability | None = getattr(environment, "forks_inside", None)
    return inside or capability(environment)


def duplicate(environment: Any) -> Any:
    """A copy by the declared capability; of `native` what `fork()` gave, which may be awaitable.

    Raises whatever `fork()` raises; EnvironmentFailed where pickle or deepcopy cannot copy it, or none is declared.
    """
    how = capability(environment)
    if how == "native":
        return environment.fork()
    if how == "reexecute":
        raise EnvironmentFailed(f"{_name(environment)} cannot be copied: it declares no way", hint=_ALL)
    try:
        if how == "deepcopy":
            return copy.deepcopy(environment)
        return pickle.loads(pickle.dumps(environment, pickle.HIGHEST_PROTOCOL))  # noqa: S301  made one call ago
    except TtcError:
        raise
    except Exception as cause:  # __reduce__, __deepcopy__ and __setstate__ are the user's code
        message = f"{_name(environment)} cannot be copied by {how}: {type(cause).__name__}: {cause}"
        raise EnvironmentFailed(message, hint=f"it holds something that {how} cannot copy. {_ALL}") from cause


def snapshot_every(environment: Any) -> int | None:
    """The class's own `snapshot_every` (steps between kept copies), or None: measured. Raises UsageError."""
    steps = getattr(environment, "snapshot_every", None)
    if steps is None or (isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1):
        return steps
    raise UsageError(f"{_name(environment)}: snapshot_every = {steps!r} is not a number of steps from 1 on")


_ALL = (
    'forks = "native" with a fork() that copies what changes; "pickle" or "deepcopy" where every part can be copied; '
    '"reexecute" for connections, sockets and processes'
)


def _name(environment: Any) -> str:
    return type(environment).__name__
