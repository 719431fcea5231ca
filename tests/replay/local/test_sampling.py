"""Choosing tokens: the distribution, truncation, masks, ties, margins, and independence of the batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from ttc_replay.replay.local.jobs import Job, NoiseKey  # noqa: E402
from ttc_replay.replay.local.noise import gumbel_noise  # noqa: E402
from ttc_replay.replay.local.sampling import FORCED_MARGIN, Row, choose  # noqa: E402
from ttc_replay.replay.local.truncation import cut_of, kept_tokens  # noqa: E402


def key(seed: int = 0) -> NoiseKey:
    return NoiseKey(seed, "run-1", 2)


def job(seed: int = 0, **options: Any) -> Job:
    return Job([1, 2], 8, key(seed), **options)


def logits_of(rows: int, size: int, seed: int = 1, spread: float = 3.0) -> Any:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * spread


def kept(scores: Any, top_k: int = 0, top_p: float = 1.0) -> list[int]:
    cut = cut_of(scores, scores, top_k, top_p)
    made: list[int] = kept_tokens(scores, cut).nonzero().flatten().tolist()
    return made


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0.5}, [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.8}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        ({"top_k": 3, "top_p": 0.7}, [2 / 3, 1 / 3, 0, 0]),  # renormalised first: .556 + .278 is enough for .7
    ],
)
def test_sampled_frequencies(options: dict[str, Any], expected: list[float]) -> None:
    size = 4000
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().repeat(size, 1)
    tokens = choose(logits, [Row(job(**options), position) for position in range(size)]).tokens
    for token, probability in enumerate(expected):
        tolerance = 4 * math.sqrt(probability * (1 - probability) / size)
        assert tokens.count(token) / size == pytest.approx(probability, abs=tolerance)


def test_scores_are_those_of_the_noise() -> None:
    logits = logits_of(3, 50)
    chosen = choose(logits, [Row(job(seed, temperature=0.5), 4) for seed in range(3)])
    for index, token in enumerate(chosen.tokens):
        scores = logits[index] / 0.5 + gumbel_noise(key(index), 4, 50)
        best = scores.topk(2)
        assert token == int(best.indices[0])
        assert chosen.margins[index] == pytest.approx(float(best.values[0] - best.values[1]), abs=1e-5)
        assert chosen.logprobs[index] == pytest.approx(float(torch.log_softmax(logits[index], 0)[token]), abs=1e-5)


def test_temperature_0_is_argmax_with_the_margin_of_the_logits() -> None:
    chosen = choose(torch.tensor([[1.0, 4.0, 2.5]]), [Row(job(temperature=0.0, top_k=1, top_p=0.1), 0)])
    assert chosen.tokens == [1]
    assert chosen.margins == [1.5]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprob_is_of_the_constrained_distribution_at_temperature_1(temperature: float) -> None:
    logits = torch.tensor([[1.0, 9.0, 2.0, 3.0]])
    allowed = torch.tensor([True, False, True, False])
    chosen = choose(logits, [Row(job(temperature=temperature, top_k=1, alternatives=3), 0, allowed)])
    assert chosen.tokens == [2]
    assert [token for token, _ in chosen.alternatives[0]] == [2, 0]  # what the mask forbids is not among them
    assert sum(math.exp(logprob) for _, logprob in chosen.alternatives[0]) == pytest.approx(1.0)
    assert chosen.logprobs == pytest.approx([-math.log(1 + math.exp(-1.0))])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 3}, {"temperature": 9.0}])
def test_a_forced_token(options: dict[str, Any]) -> None:
    allowed = torch.zeros(20, dtype=torch.bool)
    allowed[13] = True
    chosen = choose(logits_of(1, 20), [Row(job(**options), 0, allowed)])
    assert (chosen.tokens, chosen.logprobs) == ([13], [0.0])
    assert chosen.margins == [FORCED_MARGIN]


@pytest.mark.parametrize("size", [3, 100, 5000])
def test_ties_are_decided_by_the_smaller_id(size: int) -> None:
    chosen = choose(torch.zeros(1, size), [Row(job(temperature=0.0), 0)])
    assert (chosen.tokens, chosen.margins) == ([0], [0.0])
    tied = torch.zeros(1, size)
    tied[0, [1, size - 1]] = 5.0
    assert choose(tied, [Row(job(temperature=0.0), 0)]).tokens == [1]
    assert kept(torch.zeros(size), top_k=2) == [0, 1]


@given(
    st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=9),
    st.integers(0, 10),
    st.floats(0.01, 1.0),
)
@settings(max_examples=300)
def test_truncation_against_its_definition(values: list[float], top_k: int, top_p: float) -> None:
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    order = order[:top_k] if top_k else order
    weights = [math.exp(values[token]) for token in order]
    expected, total = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        expected.append(token)
        total += weight
        if top_p < 1 and total / sum(weights) >= top_p - 1e-7:
            break
    sums = [sum(weights[: n + 1]) / sum(weights) for n in range(len(weights))]
    if any(abs(value - top_p) < 1e-6 for value in sums):
        return  # at the very edge: either is right
    assert kept(torch.tensor(values), top_k, top_p) == sorted(expected)


def test_a_nucleus_larger_than_the_first_look() -> None:
    assert kept(torch.zeros(10_000), top_p=0.49995) == list(range(5000))


def test_masked_tokens_are_outside_of_every_cut() -> None:
    scores = torch.tensor([-math.inf, 1.0, -math.inf, 0.0])
    assert kept(scores, top_k=3) == [1, 3]
    assert kept(scores, top_p=0.999) == [1, 3]


@pytest.mark.parametrize(
    ("second", "top", "undecided"),
    [
        (1e-5, {"top_k": 1}, True),  # the first one out is as good as the one that is in
        (1.0, {"top_k": 1}, False),
        (1.0, {"top_p": 0.73106}, True),  # the first alone has .731059: one more in the last digit is enough
        (1.0, {"top_p": 0.5}, False),
    ],
)
def test_a_margin_tells_of_the_cut(second: float, top: dict[str, Any], undecided: bool) -> None:
    # a seed under which the second token would win if it were in, and is the last one in where it is
    logits = torch.tensor([[0.0, -second, -1000.0]])
    seed = next(s for s in range(99) if choose(logits, [Row(job(s), 0)]).tokens == [1])
    margin = choose(logits, [Row(job(seed, **top), 0)]).margins[0]
    assert (margin < 1e-4) == undecided


def test_a_cut_that_cannot_matter_leaves_the_margin() -> None:
    logits = torch.tensor([[50.0, 0.0, -1e-6]])
    margin = choose(logits, [Row(job(top_k=2), 0)]).margins[0]
    assert margin > 30


@given(st.integers(1, 6), st.integers(0, 1000), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_a_row_does_not_depend_on_its_batch(count: int, seed: int, random: Any) -> None:
    logits = logits_of(count, 40, seed)
    options = [{}, {"temperature": 0.0}, {"temperature": 0.3}, {"top_k": 5}, {"top_p": 0.8}]
    masks = [None, torch.arange(40) % 3 == 0]
    rows = [Row(job(at, **random.choice(options)), at, random.choice(masks)) for at in range(count)]
    together = choose(logits, rows)
    order = random.sample(range(count), count)
    shuffled = choose(logits[order], [rows[index] for index in order])
    for place, index in enumerate(order):
        alone = choose(logits[index : index + 1], [rows[index]])
        assert together.tokens[index] == alone.tokens[0] == shuffled.tokens[place]
        assert together.margins[index] == pytest.approx(alone.margins[0], abs=1e-5)
        assert together.logprobs[index] == pytest.approx(alone.logprobs[0], abs=1e-5)


def test_the_logits_stay_as_they_are() -> None:
    logits = logits_of(2, 30)
    before = logits.clone()
    allowed = torch.arange(30) > 3
    choose(logits, [Row(job(0, top_k=3), 0, allowed), Row(job(1, temperature=0.5), 0)])
    assert torch.equal(logits, before)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.5}])
def test_nothing_allowed(options: dict[str, Any]) -> None:
    rows = [Row(job(), 0), Row(job(**options), 0, torch.zeros(5, dtype=torch.bool))]
    with pytest.raises(ValueError, match=r"no token is allowed in rows \[1\]"):
        choose(logits_of(2, 5), rows)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        choose(torch.tensor([[0.0, bad]]), [Row(job(), 0)])
