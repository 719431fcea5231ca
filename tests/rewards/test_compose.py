"""Composition of rewards: which parts count when, how values combine, and what broken parts do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.rewards.base import reward
from ttc_replay.rewards.compose import How, Weighted, combine_values, compose
from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.records import Score, Task, Trajectory


def run(value: Any, *, truncated: bool = False) -> Trajectory:
    """A run whose final state holds what the rewards below read."""
    return Trajectory("run", Task("task"), final_state=value, truncated=truncated)


@reward
def first(trajectory: Trajectory) -> float | None:
    """An outcome reward."""
    value: float | None = trajectory.final_state[0]
    return value


@reward(process=True)
def second(trajectory: Trajectory) -> float | None:
    """A process reward."""
    value: float | None = trajectory.final_state[1]
    return value


class Batch:
    """A reward model that answers what it was told, and remembers how many items it was asked about."""

    def __init__(self, answer: Any, process: bool = False):
        self.answer, self.process = answer, process
        self.asked: list[int] = []

    def score(self, items: Sequence[Trajectory]) -> Any:
        """The prepared answer, repeated when it is a single score."""
        self.asked.append(len(items))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, list) else [self.answer] * len(items)


class Waiting:
    """A reward model whose score is async: not supported."""

    async def score(self, items: Sequence[Trajectory]) -> list[Score]:
        """Never awaited."""
        return [Score(1.0) for _ in items]


@pytest.mark.parametrize(
    ("how", "values", "weights", "expected"),
    [
        ("sum", (1.0, 0.5), (1.0, 1.0), 1.5),
        ("sum", (1.0, 0.5), (2.0, -1.0), 1.5),
        ("sum", (1.0, None), (2.0, 5.0), 2.0),
        ("min", (1.0, 0.5), (1.0, 1.0), 0.5),
        ("min", (1.0, 0.5), (0.25, 1.0), 0.25),
        ("min", (None, 0.5), (1.0, 1.0), 0.5),
        ("product", (0.5, 0.5), (1.0, 2.0), 0.125),
        ("product", (0.0, 0.5), (1.0, 1.0), 0.0),
        ("product", (-2.0, 1.0), (3.0, 1.0), -8.0),
        ("product", (0.25, 1.0), (0.5, 1.0), 0.5),
    ],
)
def test_finished_runs_are_judged_by_all_parts(
    how: str, values: tuple[float | None, ...], weights: tuple[float, float], expected: float
) -> None:
    composed = compose([Weighted("first", first, weights[0]), Weighted("second", second, weights[1])], how)
    judged = composed.score_all([run(values)], [True])[0]
    assert judged.combined.value == pytest.approx(expected)
    assert {name: score.value for name, score in judged.parts.items()} == {"first": values[0], "second": values[1]}


@pytest.mark.parametrize(
    ("values", "weight"), [((-1.0, 1.0), 0.5), ((0.0, 1.0), -1.0), ((1e200, 1.0), 2.0), ((1e308, 1e308), 1.0)]
)
def test_a_product_that_is_no_real_number_is_an_error(values: tuple[float, float], weight: float) -> None:
    judged = compose([Weighted("first", first, weight), Weighted("second", second)], "product").score_all(
        [run(values)], [True]
    )[0]
    assert judged.combined.value is None
    assert judged.combined.error is not None
    assert judged.parts["first"] == Score(values[0])


def test_prefixes_are_judged_by_process_parts_only() -> None:
    composed = compose([Weighted("first", first), Weighted("second", second)])
    items = [run((1.0, 0.5)), run((1.0, 0.5)), run((1.0, 0.5), truncated=True)]
    prefix, finished, cut = composed.score_all(items, [False, True, False])
    assert (prefix.combined.value, dict(prefix.parts)) == (0.5, {"second": Score(0.5)})
    assert finished.combined.value == cut.combined.value == 1.5
    assert composed.process
    assert not compose([Weighted("first", first)]).process


def test_a_prefix_without_process_parts_abstains_and_asks_nobody() -> None:
    model = Batch(1.0)
    judged = compose([Weighted("batch", model)]).score_all([run(None)], [False])
    assert (judged[0].combined, dict(judged[0].parts), model.asked) == (Score(abstain=True), {}, [])


def test_one_batch_per_part_and_nothing_for_nothing() -> None:
    model = Batch(1.0)
    composed = compose([Weighted("batch", model)])
    assert composed.score_all([], []) == []
    assert len(composed.score_all([run(None)] * 3, [True, False, True])) == 3
    assert model.asked == [2]


def test_all_abstaining_abstains() -> None:
    assert compose([Weighted("first", first), Weighted("second", second)]).score([run((None, None))]) == [
        Score(abstain=True)
    ]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (Batch(RuntimeError("no ledger")), "no ledger"),
        (Batch([]), "0 scores for 1 items"),
        (Batch(Score(math.nan)), "finite"),
        (Batch("fine"), "not a score"),
        (Batch(Score(error="unbalanced")), "unbalanced"),
        (Batch(Score(1.0, error="both")), "both"),
        (Waiting(), "async"),
    ],
)
def test_a_broken_part_is_an_error_for_its_items_only(broken: Any, named: str) -> None:
    composed = compose([Weighted("good", Batch(0.5, process=True)), Weighted("broken", broken)])
    judged = composed.score_all([run(None), run(None), run(None)], [True, False, True])
    assert judged[1].combined == Score(0.5)
    for verdict in (judged[0], judged[2]):
        assert verdict.combined.value is None
        assert "broken" in str(verdict.combined.error)
        assert named in str(verdict.parts["broken"].error)
        assert verdict.parts["good"] == Score(0.5)


def test_an_error_of_one_item_leaves_the_other_alone() -> None:
    verdicts = compose([Weighted("first", first)]).score_all([run((1.0,)), run(None)], [True, True])
    assert verdicts[0].combined == Score(1.0)
    assert "TypeError" in str(verdicts[1].combined.error)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("bad", [0, 5, 12])
def test_a_call_that_fails_for_many_is_made_again_in_halves(count: int, bad: int) -> None:
    """So a verdict does not depend on which others were in the same call."""

    class Fussy(Batch):
        def score(self, items: Sequence[Trajectory]) -> Any:
            self.answer = [item.final_state for item in items]
            if bad in self.answer:
                self.answer = ValueError("too much") if bad else []
            return super().score(items)

    fussy = Fussy(None)
    verdicts = compose([Weighted("fussy", fussy)]).score([run(number) for number in range(count)])
    assert [score.value for score in verdicts] == [None if n == bad else float(n) for n in range(count)]
    assert len(fussy.asked) <= 1 + 2 * (count - 1).bit_length()
    assert all((score.error is not None) == (n == bad) for n, score in enumerate(verdicts))


def test_parts_that_want_batches_and_others_may_be_asked_apart() -> None:
    model = Batch(0.25, process=True)
    composed = compose([Weighted("first", first), Weighted("batch", model), Weighted("second", second)])
    assert ([part.name for part in composed.gathered], composed.batched) == (["batch"], True)
    items, over = [run((1.0, 0.5)), run((1.0, 0.5))], [True, False]
    said = composed.ask(composed.alone, items, over)
    assert model.asked == []
    for scores, more in zip(said, composed.ask(composed.gathered, items, over), strict=True):
        scores.update(more)
    apart, together = [composed.judged(scores) for scores in said], composed.score_all(items, over)
    assert apart == together
    assert [list(verdict.parts) for verdict in apart] == [["first", "batch", "second"], ["batch", "second"]]
    assert not compose([Weighted("first", first)]).batched


def test_plain_functions_and_loose_scores_are_accepted() -> None:
    composed = compose([Weighted("function", lambda item: item.final_state), Weighted("dicts", Batch({"value": 2}))])
    assert composed.score([run(1)]) == [Score(3.0)]


@pytest.mark.parametrize(
    ("parts", "how"),
    [
        ([], "sum"),
        ([Weighted("first", first)], "median"),
        ([Weighted("first", first), Weighted("first", second)], "sum"),
        ([Weighted("first", first, math.nan)], "sum"),
        ([Weighted("first", object())], "sum"),
    ],
)
def test_what_cannot_be_composed_is_a_usage_error(parts: list[Weighted], how: str) -> None:
    with pytest.raises(UsageError):
        compose(parts, how)


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.1, 3)), min_size=1, max_size=6),
    st.sampled_from(["sum", "min", "product"]),
    st.randoms(use_true_random=False),
)
def test_order_of_the_parts_does_not_matter(pairs: list[tuple[float, float]], how: How, random: Any) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert combine_values(pairs, how) == pytest.approx(combine_values(shuffled, how))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_bounds_of_unweighted_combinations_of_shares(values: list[float]) -> None:
    pairs = [(value, 1.0) for value in values]
    least, product = combine_values(pairs, "min"), combine_values(pairs, "product")
    assert least == min(values)
    assert 0 <= product <= least + 1e-12
    assert combine_values(pairs, "sum") == pytest.approx(sum(values))


@given(st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=1, max_size=5), st.sampled_from(["sum", "min"]))
def test_leaving_out_abstainers_equals_not_asking_them(values: list[float | None], how: str) -> None:
    parts = [Weighted(str(index), Batch(value), index + 1.0) for index, value in enumerate(values)]
    combined = compose(parts, how).score([run(None)])[0]
    known = [part for part, value in zip(parts, values, strict=True) if value is not None]
    assert combined == (compose(known, how).score([run(None)])[0] if known else Score(abstain=True))
