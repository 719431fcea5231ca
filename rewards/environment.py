"""The world's own verdict as an outcome reward: `--reward environment`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..storage.records import Score, Trajectory


class EnvironmentReward:
    """The undiscounted return: the sum of what `StepResult.reward` gave at each step (`Step.scores["environment"]`).

    Abstains when no step carries a reward, because a world that says nothing has not said 0.0.
    """

    name = "environment"
    process = False
    batched = False

    def score(self, items: Sequence[Trajectory]) -> Sequence[Score]:
        """See `RewardModel.score`. A step whose own score is an error makes the run's score that error."""
        return [_return_of(item) for item in items]


def _return_of(item: Trajectory) -> Score:
    given = [step.scores["environment"] for step in item.steps if "environment" in step.scores]
    failed = next((score.error for score in given if score.error), None)
    if failed:
        return Score(error=failed)
    values = [score.value for score in given if score.value is not None and not score.abstain]
    if not values:
        return Score(abstain=True)
    total = sum(values)
    return Score(total) if math.isfinite(total) else Score(error="the environment's rewards are not finite numbers")


environment = EnvironmentReward()
