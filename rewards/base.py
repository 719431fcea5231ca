"""The reward contract and `@reward`, the one line a plugin author needs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, overload, runtime_checkable

from ..storage.codec import score_from
from ..storage.errors import RewardFailed, boundary
from ..storage.records import Score, Trajectory

RewardFunction: TypeAlias = Callable[..., float | Score | None]


@runtime_checkable
class RewardModel(Protocol):
    """Scores trajectories (outcome) or prefixes of one (process). `process` is False when absent.

    `batched` (True when absent): a search gathers what is in flight at one time, over all its trees, into one call, and
    makes one such call at a time. False: each ask is scored by itself where its step ran, in several threads at once.
    """

    def score(self, items: Sequence[Trajectory]) -> Sequence[Score]:
        """One score for each item, in order. One that cannot be judged abstains; a failure is `Score(error=...)`."""
        ...


class FunctionReward:
    """A decorated function as a reward model; extra keyword options are given by `--reward-opt NAME.key=value`."""

    batched = False

    def __init__(self, function: RewardFunction, *, process: bool = False, options: dict[str, Any] | None = None):
        self.function = function
        self.process = process
        self.options = options or {}
        self.name = getattr(function, "__name__", "reward").replace("_", "-")
        self.__doc__ = function.__doc__

    def __call__(self, trajectory: Trajectory) -> float | Score | None:
        """The plain function, so that it stays testable by hand."""
        return self.function(trajectory, **self.options)

    def with_options(self, **options: Any) -> FunctionReward:
        """The same reward with keyword options bound. Raises TypeError when the function does not take one."""
        inspect.signature(self.function).bind_partial(None, **options)
        bound = FunctionReward(self.function, process=self.process, options={**self.options, **options})
        bound.name = self.name
        return bound

    def score(self, items: Sequence[Trajectory]) -> Sequence[Score]:
        """See `RewardModel.score`: an exception or a NaN is an error, never 0.0."""
        return [self._one(item) for item in items]

    def _one(self, item: Trajectory) -> Score:
        try:
            with boundary(RewardFailed, f"reward {self.name}"):
                score = score_from(self(item))
        except RewardFailed as failed:
            return Score(error=failed.message)
        if score.value is not None and not math.isfinite(score.value):
            return Score(error=f"reward {self.name}: {score.value} is not a finite number")
        return score


@overload
def reward(function: RewardFunction) -> FunctionReward: ...
@overload
def reward(*, process: bool = False) -> Callable[[RewardFunction], FunctionReward]: ...
def reward(
    function: RewardFunction | None = None, *, process: bool = False
) -> FunctionReward | Callable[[RewardFunction], FunctionReward]:
    """Make `(Trajectory) -> float | Score | None` a reward model.

    Bare: an outcome reward, which sees only terminal or truncated runs. `@reward(process=True)`: a process reward,
    which gets the prefix that ends in the step it judges. None abstains; an exception is an error score.
    """
    if function is not None:
        return FunctionReward(function)
    return lambda inner: FunctionReward(inner, process=process)


def is_process(model: Any) -> bool:
    """Whether a reward model judges prefixes."""
    return bool(getattr(model, "process", False))


def is_batched(model: Any) -> bool:
    """Whether a reward model gains from large batches."""
    return bool(getattr(model, "batched", True))
