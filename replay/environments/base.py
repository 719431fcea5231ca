"""The environment contract: what a world must offer, and what it may offer.

Required: `reset` and `step`. Optional, found by name: `fork`, `tools`, `state`, `state_key`, `close`, `hear`, `inline`,
`isolation`.
Inheriting from `Environment` is optional; any method may be `def` or `async def`; plain OpenAI-style dicts may be
returned wherever a `Message`, `StepResult` or `ToolSchema` is named. Plugin code raises plain Python errors.

Three classes of environment:

* forkable: has `fork()`, or declares another way to be copied (`forks`, see `replay.forking`); a branch is an
  independent copy of the live state (fidelity `snapshot`);
* re-executable: neither, or `forks = "reexecute"`; a branch re-executes the prefix in a fresh environment and compares
  every observation with the record (fidelity `reexecuted`);
* recorded only: sets `recorded_only = True`; every answer comes from the tape (fidelity `recorded`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from ...storage.records import Message, StepResult, Task, ToolSchema
from ..forking import capability

EnvironmentClass = Literal["forkable", "re-executable", "recorded only"]


@runtime_checkable
class Environment(Protocol):
    """Executes actions and returns observations; holds the state of one world.

    Optional members, not part of the runtime check:

    * `fork(self) -> Environment`: an independent copy of the current state;
    * `forks = "native" | "pickle" | "deepcopy" | "reexecute"`: how it is copied, where that is not by `fork()`;
      `snapshot_every = m`: a copy is kept every m steps (default: by what was measured);
    * `tools(self) -> list[ToolSchema]`; `state(self) -> JSON`, kept as `Trajectory.final_state` for rewards;
    * `state_key(self) -> str | None`: equal keys mean equal states (merged only under `--merge-states`);
    * `reseed(self, seed: int)`: only for worlds that do not always answer alike: what comes now depends on this seed
      (`--confirm`, and actions that `mcts` plays again);
    * `hear(self, reply: Message) -> StepResult`: told of each user reply that the user seam gave, so that a world may
      end on it (`done`, `reward`); its observations are ignored;
    * `close(self)`; `inline = True`: in memory and never blocking, may run on the event loop;
    * `isolation = "process"`, on the class or function that builds worlds: each lives in a process of its own with its
      forks (`isolated`), may use `isolation_timeout_seconds` (300) a call and is put to rest when more than
      `isolation_processes` (32) are open. `inline` then does not count.
    """

    def reset(self, task: Task) -> Sequence[Message | Mapping[str, Any]]:
        """Start over for `task`; the prompt messages, empty when only the log knows them."""
        ...

    def step(self, action: Message) -> StepResult | Mapping[str, Any]:
        """Execute one action. An unknown tool or bad argument is an observation (an error text), not an exception."""
        ...


def environment_class(environment: Any) -> EnvironmentClass:
    """Which of the three classes an environment declares itself to be. Raises UsageError for a wrong `forks`."""
    if getattr(environment, "recorded_only", False):
        return "recorded only"
    return "re-executable" if capability(environment) == "reexecute" else "forkable"


def has_chances(environment: Any) -> bool:
    """Whether a world does not always answer alike: it can be reseeded, or declares `stochastic = True`."""
    return callable(getattr(environment, "reseed", None)) or bool(getattr(environment, "stochastic", False))


def tools_of(environment: Any) -> tuple[ToolSchema, ...]:
    """The declared tools, or none."""
    method = getattr(environment, "tools", None)
    declared: Any = method() if method is not None else ()
    return tuple(declared)
