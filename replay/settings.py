"""What a search is told: the settings of one run, frozen into its journal where they belong to its identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..storage.canonical import content_id
from ..storage.records import Spec

SECRET_WORDS = ("api_key", "token", "secret", "password")
FromStep = int | Literal["auto"] | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Run-wide hard limits; None is unlimited."""

    calls: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """One search run. `budget` counts transitions per trajectory; `max_depth` None: twice the recorded steps.

    `merge_states`: equal `state_key()`s share one evaluation. `allocate` "adaptive": `budget` is the mean per
    trajectory, see `allocation.py`. `confirm`: plays under fresh seeds that an accepted run of a world with chances
    must stand, see `confirm.py`.
    """

    environment: Spec
    policy: Spec
    rewards: tuple[tuple[Spec, float], ...]
    combine: Literal["sum", "min", "product"] = "sum"
    accept: Spec | None = None
    algorithm: Spec = field(default_factory=lambda: Spec("mcts"))
    from_step: FromStep = None
    width: int = 8
    budget: int = 64
    max_depth: int | None = None
    candidates: int = 3
    success_at: float = 1.0
    seed: int = 0
    concurrency: int = 8
    limits: Limits = Limits()
    merge_states: bool = False
    allocate: Literal["uniform", "adaptive"] = "uniform"
    confirm: int = 0
    user_policy: Spec | None = None
    """Who plays the user; None: the tape."""
    selector: tuple[tuple[str, Any], ...] = ()

    def configuration(self) -> dict[str, Any]:
        """What identifies the run: everything but concurrency and, as long as a larger one continues a smaller one,
        budgets."""
        frozen = {
            "v": 1,
            "selector": [list(item) for item in self.selector],
            "environment": _spec(self.environment),
            "policy": _spec(self.policy),
            "rewards": [[_spec(spec), weight] for spec, weight in self.rewards],
            "combine": self.combine,
            "accept": _spec(self.accept) if self.accept else None,
            "algorithm": _spec(self.algorithm),
            "from_step": self.from_step,
            "width": self.width,
            "max_depth": self.max_depth,
            "candidates": self.candidates,
            "success_at": self.success_at,
            "seed": self.seed,
        }
        if self.merge_states:
            frozen["merge_states"] = True
        if self.confirm:
            frozen["confirm"] = self.confirm
        if self.user_policy is not None:
            frozen["user_policy"] = _spec(self.user_policy)
        if self.allocate != "uniform":
            frozen["allocate"], frozen["budget"] = self.allocate, self.budget
        return frozen

    def run_name(self, name: str | None = None) -> str:
        """`--name`, else a hash of the configuration."""
        return name or f"run-{content_id(self.configuration())[:12]}"

    @property
    def judge(self) -> str:
        """Who scores the lanes: the accept reward, else the guide."""
        return self.accept.name if self.accept else "+".join(spec.name for spec, _ in self.rewards)


def _spec(spec: Spec) -> dict[str, Any]:
    return {"name": spec.name, "options": {key: _public(key, value) for key, value in spec.options.items()}}


def _public(key: str, value: Any) -> Any:
    """An option as it is stored: of a secret only a hash, enough to tell that it changed. Also within options."""
    if isinstance(value, dict):
        return {name: _public(str(name), item) for name, item in value.items()}
    is_secret = isinstance(value, str) and any(word in key.lower() for word in SECRET_WORDS)
    return f"[SECRET:option:{content_id(value)[:8]}]" if is_secret and not key.endswith("_env") else value
