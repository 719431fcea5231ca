"""The keyed Gumbel noise: known answers, its distribution, and what it depends on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from ttc_replay.replay.local.jobs import NoiseKey  # noqa: E402
from ttc_replay.replay.local.noise import exponential_noise, exponential_of, gumbel_noise, random_words  # noqa: E402

KEY = NoiseKey(seed=7, trajectory="bookkeeping/easy/000", step=3)
keys = st.builds(NoiseKey, st.integers(0, 2**63 - 1), st.text(max_size=20), st.integers(0, 500))


WORDS = [4255661249, 2326168430, 3950163461, 665155167, 1562136910]
GUMBELS = [-1.54624724, 0.24843541, -0.92514086, 1.78222680, 0.79383838]


def kolmogorov_smirnov(sample: Any, cumulative: Callable[[Any], Any]) -> float:
    """The largest distance between the sample's and the true distribution function, times sqrt(n): above 1.95 in one
    of a thousand samples."""
    ordered = sample.double().flatten().sort().values
    size = ordered.numel()
    true = cumulative(ordered)
    steps = torch.arange(size + 1, dtype=torch.float64) / size
    distance = torch.maximum((steps[1:] - true).abs(), (true - steps[:-1]).abs()).max()
    return float(distance) * math.sqrt(size)


def gumbel_cumulative(values: Any) -> Any:
    return torch.exp(-torch.exp(-values))


def test_known_words() -> None:
    # what is recorded today must be read with the same noise by any later version, on any machine
    assert random_words(KEY, 5, 5).tolist() == WORDS
    assert random_words(KEY, 5, 4).tolist() == WORDS[:4]


def test_known_noise() -> None:
    assert gumbel_noise(KEY, 5, 5).tolist() == pytest.approx(GUMBELS, rel=1e-5)


def test_noise_is_gumbel() -> None:
    assert kolmogorov_smirnov(gumbel_noise(KEY, 0, 200_000), gumbel_cumulative) < 1.95
    one_token = torch.stack([gumbel_noise(KEY, position, 8)[3] for position in range(5000)])
    assert kolmogorov_smirnov(one_token, gumbel_cumulative) < 1.95


def test_the_tail_that_decides_is_fine_grained() -> None:
    # the largest of a vocabulary of 49,152: an exponential race, whose minimum is exponential with that rate
    size = 49_152
    winners = torch.stack([exponential_noise(KEY, position, size).min() for position in range(1000)])
    assert kolmogorov_smirnov(winners, lambda values: 1 - torch.exp(-values * size)) < 1.95
    assert winners.unique().numel() == 1000


def test_noise_is_finite_at_both_ends() -> None:
    made = -exponential_of(np.array([0, 1, 2**32 - 2, 2**32 - 1], dtype=np.uint32)).log()
    assert torch.isfinite(made).all()
    assert made[0] > made[1] > 20
    assert -2.9 < made[3] <= made[2] < -2.7


@given(keys, st.integers(0, 5000), st.integers(1, 60), st.integers(1, 60))
def test_noise_of_a_token_does_not_depend_on_the_vocabulary(key: NoiseKey, position: int, one: int, other: int) -> None:
    shared = min(one, other)
    assert torch.equal(gumbel_noise(key, position, one)[:shared], gumbel_noise(key, position, other)[:shared])


@pytest.mark.parametrize("name", ["seed", "trajectory", "step", "position"])
def test_every_part_of_the_key_counts(name: str) -> None:
    changed: dict[str, Any] = {"seed": 8, "trajectory": "bookkeeping/easy/001", "step": 4}
    key, position = (KEY, 6) if name == "position" else (replace(KEY, **{name: changed[name]}), 5)
    size = 20_000
    before, after = gumbel_noise(KEY, 5, size), gumbel_noise(key, position, size)
    correlation = torch.corrcoef(torch.stack([before, after]))[0, 1]
    assert abs(float(correlation)) < 4 / math.sqrt(size)
    assert not (before == after).any()


@given(keys, keys, st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=200)
def test_other_keys_have_other_noise(one: NoiseKey, other: NoiseKey, first: int, second: int) -> None:
    same = (one, first) == (other, second)
    assert torch.equal(gumbel_noise(one, first, 8), gumbel_noise(other, second, 8)) == same


def test_keys_do_not_run_into_each_other() -> None:
    texts = ["1", "1 1", "", " ", "1\x00"]
    made = {tuple(random_words(NoiseKey(1, text, step), 1, 4).tolist()) for text in texts for step in (1, 11)}
    assert len(made) == 10


def test_no_global_state_is_used() -> None:
    before = gumbel_noise(KEY, 1, 16)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(gumbel_noise(KEY, 1, 16), before)
    torch.set_rng_state(state)
