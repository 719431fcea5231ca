"""`likelihood`: how likely a local model finds what the agent did, as the mean log-probability of its tokens.

The model belongs to a policy, and policies live a floor above: the reward finds the policy as every other plugin is
found, by its entry point (or by `package.module:attribute`), or is given one, and asks for two methods only: `check()`
and `score_steps(items, last=...)`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

from ..storage.errors import MissingExtra, PluginNotFound, UsageError
from ..storage.records import Score, Trajectory

GROUP = "ttc_replay.policies"
DIGITS = 3
"""Decimals of a value: what lies behind them depends on the batch, and two runs of one search should not differ."""


class TokenScores(Protocol):
    """What is asked of the score of one action."""

    @property
    def logprobs(self) -> Sequence[float]:
        """Natural log-probabilities of its tokens, as many as were judged."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether every token was judged."""
        ...


class Scorer(Protocol):
    """A policy that can say how likely actions are."""

    def check(self) -> None:
        """Refuse what cannot work."""
        ...

    def score_steps(self, items: Sequence[Trajectory], *, last: bool = False) -> Sequence[Sequence[TokenScores]]:
        """For each trajectory the scores of its actions (`last`: of the last one), in order."""
        ...


class Likelihood:
    """The mean natural log-probability, at most 0, of the tokens of a run's actions at temperature 1, each in the
    context it was taken in; tokens of tool results and of the user do not count.

    `process` True judges a prefix by its last action alone, False a finished run by all of them. `policy` is the name
    or the place of a policy with `score_steps`, or such an object; the other options are the policy's (`model=...`). A
    run without actions abstains, and so does one that is longer than the model's context: a mean over the beginning of
    an action would be another quantity. Raises UsageError, MissingExtra, and what the policy's `check` raises.
    """

    name = "likelihood"
    batched = True

    def __init__(self, policy: str | Scorer = "local", process: bool = False, **options: Any):
        if not isinstance(process, bool):
            raise UsageError(f"process must be true or false: {process!r}")
        self.process = process
        self._scorer = _found(policy, options) if isinstance(policy, str) else policy
        if not callable(getattr(self._scorer, "score_steps", None)):
            raise UsageError(f"the policy {policy!r} cannot say how likely an action is", hint="policy=local")
        self._scorer.check()

    def score(self, items: Sequence[Trajectory]) -> Sequence[Score]:
        """See `RewardModel.score`: all actions of all items in one pass."""
        return [_mean(actions) for actions in self._scorer.score_steps(items, last=self.process)]


def _mean(actions: Sequence[TokenScores]) -> Score:
    logprobs = [value for action in actions for value in action.logprobs]
    detail = {"tokens": len(logprobs), "actions": len(actions)}
    if not logprobs or not all(action.is_whole for action in actions):
        why = "longer than the model's context" if actions else "no action"
        return Score(abstain=True, detail={**detail, "reason": why})
    return Score(round(math.fsum(logprobs) / len(logprobs), DIGITS), detail=detail)


def _found(name: str, options: dict[str, Any]) -> Scorer:
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            made = getattr(importlib.import_module(module), attribute)
        else:
            made = next(iter(entry_points(group=GROUP, name=name))).load()
    except StopIteration:
        raise PluginNotFound(f"no policy named {name!r}", hint="policy=local") from None
    except ModuleNotFoundError as missing:
        raise MissingExtra(f"the policy {name!r} needs the package {missing.name}") from missing
    except AttributeError as missing:
        raise PluginNotFound(f"policy {name!r}: {missing}") from missing
    try:
        scorer: Scorer = made(**options)
    except TypeError as wrong:
        raise UsageError(f"reward likelihood: {wrong}", hint="--reward-opt likelihood.model=...") from wrong
    return scorer
