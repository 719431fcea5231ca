"""Several rewards as one: weighted sum, minimum or product; every part's own score is kept beside the result.

guide = compose([Weighted("identity", identity), Weighted("progress", progress, 0.1)], "sum")
guide.score_all([finished, prefix], terminal=[True, False])   # -> [Judged(combined, parts), ...]
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..storage.codec import score_from
from ..storage.errors import RewardFailed, UsageError, boundary
from ..storage.records import Score, Trajectory
from .base import FunctionReward, RewardFunction, is_batched, is_process

How = Literal["sum", "min", "product"]
HOWS: Mapping[str, How] = {"sum": "sum", "min": "min", "product": "product"}


@dataclass(frozen=True, slots=True)
class Weighted:
    """One part: a reward model (or a plain function of a trajectory), its name in reports and its weight."""

    name: str
    model: Any
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one item: the combined score, and by name each part that was asked about this item."""

    combined: Score
    parts: Mapping[str, Score]


def compose(parts: Sequence[Weighted], how: str = "sum") -> Composed:
    """Check the parts and put them together. Raises UsageError for no parts, a repeated name, a weight that is not a
    finite number, a part that is no reward, or an unknown `how`."""
    chosen = HOWS.get(how)
    if chosen is None:
        raise UsageError(f"rewards cannot be combined by {how!r}", hint=f"one of: {', '.join(HOWS)}")
    if not parts:
        raise UsageError("no reward given", hint="--reward NAME[=WEIGHT]")
    names = [part.name for part in parts]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"reward {repeated!r} is given twice", hint="give it once, with the weight it should have")
    return Composed([_checked(part) for part in parts], chosen)


class Composed:
    """A checked composition; see `compose`. A finished or truncated run is judged by every part, a prefix by the
    process parts only.

    `gathered` are the parts that gain from large batches, `alone` the others; either may be asked by itself.
    """

    def __init__(self, parts: Sequence[Weighted], how: How):
        self.parts = tuple(parts)
        self.how: How = how
        self.process = any(is_process(part.model) for part in parts)
        self.gathered = tuple(part for part in parts if is_batched(part.model))
        self.alone = tuple(part for part in parts if not is_batched(part.model))
        self.batched = bool(self.gathered)
        self._weights = {part.name: part.weight for part in parts}

    def score_all(self, items: Sequence[Trajectory], terminal: Sequence[bool]) -> list[Judged]:
        """One verdict per item, in order. `terminal[i]`: the run of item i is over (a truncated one is, too).

        Parts that abstain are left out; when all do, the combination abstains; one error makes it an error. A part that
        raises or answers the wrong number of scores is asked again for half of the items, down to single ones: what one
        item breaks is an error score of that item, never an exception.
        """
        return [self.judged(scores) for scores in self.ask(self.parts, items, terminal)]

    def ask(
        self, parts: Sequence[Weighted], items: Sequence[Trajectory], terminal: Sequence[bool]
    ) -> list[dict[str, Score]]:
        """What some of the parts say of each item, by name: one call for each part."""
        named: list[dict[str, Score]] = [{} for _ in items]
        for part in parts:
            every = is_process(part.model)
            asked = [i for i, item in enumerate(items) if every or terminal[i] or item.truncated]
            scores = _ask(part, [items[i] for i in asked]) if asked else ()
            for i, score in zip(asked, scores, strict=True):
                named[i][part.name] = score
        return named

    def judged(self, scores: Mapping[str, Score]) -> Judged:
        """The verdict on one item of which all parts have spoken; the parts come in their own order."""
        if self.gathered and self.alone:
            scores = {part.name: scores[part.name] for part in self.parts if part.name in scores}
        return Judged(self._combine(scores), scores)

    def score(self, items: Sequence[Trajectory]) -> Sequence[Score]:
        """The combined scores of finished runs: a composition is a reward model itself."""
        return [judged.combined for judged in self.score_all(items, [True] * len(items))]

    def _combine(self, scores: Mapping[str, Score]) -> Score:
        failed = [f"{name}: {score.error}" for name, score in scores.items() if score.error is not None]
        if failed:
            return Score(error="; ".join(failed))
        weights = self._weights
        pairs = [(score.value, weights[name]) for name, score in scores.items() if score.value is not None]
        if not pairs:
            return Score(abstain=True)
        try:
            return Score(combine_values(pairs, self.how))
        except ValueError as error:
            return Score(error=str(error))


def combine_values(pairs: Sequence[tuple[float, float]], how: How) -> float:
    """Combine (value, weight) pairs: sum of value x weight, least value x weight, or product of value ** weight.

    Raises ValueError when the result is no finite real number (a negative value under a fractional exponent, zero under
    a negative one, an overflow).
    """
    try:
        if how == "sum":
            combined = math.fsum(value * weight for value, weight in pairs)
        elif how == "min":
            combined = min(value * weight for value, weight in pairs)
        else:
            combined = math.prod(math.pow(value, weight) for value, weight in pairs)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"the {how} of {list(pairs)} is not a real number") from error
    if not math.isfinite(combined):
        raise ValueError(f"the {how} of {list(pairs)} is not finite")
    return combined


def _checked(part: Weighted) -> Weighted:
    if not math.isfinite(part.weight):
        raise UsageError(f"the weight of reward {part.name!r} is not a finite number: {part.weight}")
    if callable(getattr(part.model, "score", None)):
        return part
    if not callable(part.model):
        raise UsageError(f"reward {part.name!r} is neither a reward model nor a function", hint="see @reward")
    return Weighted(part.name, FunctionReward(cast(RewardFunction, part.model)), part.weight)


def _ask(part: Weighted, items: Sequence[Trajectory]) -> list[Score]:
    """The scores of one call; of a call that fails for many items, those of both halves. So what an item gets does not
    depend on the company it came in, which would be a matter of timing."""
    try:
        with boundary(RewardFailed, f"reward {part.name}"):
            answer = part.model.score(items)
            if inspect.iscoroutine(answer):
                answer.close()
                raise TypeError("score() is async; a reward model scores synchronously")
            given = list(answer)
            if len(given) != len(items):
                raise ValueError(f"{len(given)} scores for {len(items)} items")
    except RewardFailed as failed:
        if len(items) == 1:
            return [Score(error=failed.message)]
        half = len(items) // 2
        return [*_ask(part, items[:half]), *_ask(part, items[half:])]
    return [_sound(part.name, value) for value in given]


def _sound(name: str, value: Any) -> Score:
    """A score that is exactly one of: a finite value, an abstention, an error."""
    try:
        with boundary(RewardFailed, f"reward {name}: not a score"):
            score = score_from(value)
            if score.error is None and not score.abstain and score.value is not None and not math.isfinite(score.value):
                raise ValueError(f"{score.value} is not a finite number")
    except RewardFailed as failed:
        return Score(error=failed.message)
    if score.error is not None:
        return Score(error=score.error, detail=score.detail)
    if score.abstain or score.value is None:
        return Score(abstain=True, detail=score.detail)
    return score
