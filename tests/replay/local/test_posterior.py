"""Posterior Gumbel noise: the observed token wins, the noise is right on average, and counterfactuals are stable."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from ttc_replay.replay.local.jobs import Job, NoiseKey  # noqa: E402
from ttc_replay.replay.local.noise import gumbel_noise  # noqa: E402
from ttc_replay.replay.local.posterior import posterior_noise, scaled_logits  # noqa: E402
from ttc_replay.replay.local.sampling import Row, choose  # noqa: E402

numbers = st.floats(-60, 60, width=32)
rows_of_logits = st.lists(numbers, min_size=2, max_size=12)
temperatures = st.floats(0.1, 3.0)


def key(seed: int = 0) -> NoiseKey:
    return NoiseKey(seed, "run-1", 2)


def distance_to_gumbel(sample: list[float]) -> float:
    """Kolmogorov-Smirnov distance to the standard Gumbel distribution, times sqrt(n)."""
    true = [math.exp(-math.exp(-value)) for value in sorted(sample)]
    size = len(true)
    return max(max((i + 1) / size - at, at - i / size) for i, at in enumerate(true)) * math.sqrt(size)


@given(rows_of_logits, st.data(), temperatures, st.integers(0, 2**63 - 1), st.integers(0, 1000))
@settings(max_examples=300)
def test_the_observed_token_wins(
    logits: list[float], data: st.DataObject, temperature: float, seed: int, position: int
) -> None:
    token = data.draw(st.integers(0, len(logits) - 1))
    row = torch.tensor(logits)
    noise = posterior_noise(row, token, key(seed), position, temperature)
    sums = scaled_logits(row, temperature) + noise
    assert noise.dtype == torch.float32
    assert torch.isfinite(noise).all()
    assert all(sums[token] > sums[other] for other in range(len(logits)) if other != token)


@pytest.mark.parametrize("size", [2, 49_152])
@pytest.mark.parametrize("spread", [0.0, 3.0, 30.0])
def test_the_least_likely_token_wins_too(size: int, spread: float) -> None:
    row = torch.randn(size, generator=torch.Generator().manual_seed(size)) * spread
    for token in (int(row.argmin()), int(row.argmax()), size - 1):
        sums = row + posterior_noise(row, token, key(), 0)
        assert int(sums.argmax()) == token
        assert int((sums == sums[token]).sum()) == 1


def test_mixed_over_what_is_said_the_noise_is_plain_gumbel() -> None:
    # what is said drawn from the model, the noise from the posterior: together the prior again
    row = torch.tensor([2.0, 0.0, -1.0, 1.5])
    said = torch.multinomial(torch.softmax(row, 0), 4000, replacement=True, generator=torch.Generator().manual_seed(3))
    noises = torch.stack([posterior_noise(row, int(token), key(), at) for at, token in enumerate(said)])
    for token in range(4):
        assert distance_to_gumbel(noises[:, token].tolist()) < 1.95
    correlations = torch.corrcoef(noises.T) - torch.eye(4)
    assert float(correlations.abs().max()) < 4 / math.sqrt(4000)


def test_the_best_score_is_gumbel_around_the_log_partition() -> None:
    row = torch.tensor([2.0, 0.0, -1.0])
    best = [float(row[1] + posterior_noise(row, 1, key(), at)[1] - torch.logsumexp(row, 0)) for at in range(3000)]
    assert distance_to_gumbel(best) < 1.95


def test_the_others_are_truncated_gumbels() -> None:
    # P(score_j < x | best = z) = F(x - logit_j) / F(z - logit_j): its value is uniform, checked through a Gumbel again
    row = torch.tensor([2.0, 0.0, -1.0])
    levels = []
    for at in range(3000):
        scores = (row + posterior_noise(row, 1, key(), at)).double()
        level = torch.exp(-torch.exp(row[0] - scores[0]) + torch.exp(row[0] - scores[1]))
        levels.append(-math.log(-math.log(min(max(float(level), 1e-12), 1 - 1e-9))))
    assert distance_to_gumbel(levels) < 1.95


@given(rows_of_logits, st.data(), temperatures, st.integers(0, 1000))
@settings(max_examples=300)
def test_counterfactual_stability(logits: list[float], data: st.DataObject, temperature: float, seed: int) -> None:
    # Oberst and Sontag, arXiv 1905.05824, definition 3: a token that did not gain on the observed one is not chosen
    token = data.draw(st.integers(0, len(logits) - 1))
    gains = torch.tensor(data.draw(st.lists(st.floats(-5, 5, width=32), min_size=len(logits), max_size=len(logits))))
    factual = torch.tensor(logits)
    changed = factual + gains
    noise = posterior_noise(factual, token, key(seed), 0, temperature)
    chosen = int((scaled_logits(changed, temperature) + noise).argmax())
    lead = (changed[chosen] - factual[chosen]) - (changed[token] - factual[token])
    rounding = 1e-4 * (1 + temperature)
    assert chosen == token or float(lead) > -rounding


def test_what_could_not_be_said_keeps_its_plain_noise() -> None:
    row = torch.tensor([1.0, -math.inf, 0.5, -math.inf])
    noise = posterior_noise(row, 0, key(), 4)
    plain = gumbel_noise(key(), 4, 4)
    assert noise[[1, 3]].tolist() == pytest.approx(plain[[1, 3]].tolist(), rel=1e-6)
    assert noise[2] < plain[2]  # it lost, so it is lower than it might have been


@pytest.mark.parametrize("token", [1, 2])
def test_a_token_that_the_factual_run_could_not_say(token: int) -> None:
    row = torch.tensor([1.0, -math.inf, math.nan if token == 2 else 0.0])
    with pytest.raises(ValueError, match=f"token {token} has no finite probability"):
        posterior_noise(row, token, key(), 0)


def test_choose_repeats_the_factual_text_and_goes_on_with_plain_noise() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(40, 300, generator=generator) * 4
    recorded = torch.randint(300, (30,), generator=generator).tolist()
    job = Job([1], 40, key(9), temperature=0.7, factual=recorded, factual_context=[1])
    plain = Job([1], 40, key(9), temperature=0.7)
    for at in range(40):
        factual = logits[at] if at < 30 else None
        both = choose(logits[at].repeat(2, 1), [Row(job, at, factual=factual), Row(plain, at)]).tokens
        assert both[0] == (recorded[at] if at < 30 else both[1])


def test_an_intervention_changes_what_it_favours_only() -> None:
    generator = torch.Generator().manual_seed(6)
    factual = torch.randn(300, generator=generator) * 3
    job = Job([1], 1, key(9), factual=[17], factual_context=[1])
    favoured = factual.clone()
    favoured[40] += 100
    hindered = factual.clone()
    hindered[40] -= 100
    rows = [Row(job, 0, factual=factual)] * 2
    assert choose(torch.stack([favoured, hindered]), rows).tokens == [40, 17]


def test_missing_factual_logits() -> None:
    job = Job([1], 1, key(), factual=[1], factual_context=[1])
    with pytest.raises(ValueError, match="factual logits are missing"):
        choose(torch.zeros(1, 4), [Row(job, 0)])
    greedy = Job([1], 1, key(), temperature=0.0, factual=[1], factual_context=[1])
    assert choose(torch.tensor([[0.0, 1.0]]), [Row(greedy, 0)]).tokens == [1]
