"""Latent reasoning: no step is the plain path, more steps are another answer, the same each time."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay.replay.local.latent import feed_back, next_logits

torch = pytest.importorskip("torch")


@pytest.fixture
def tokens() -> Any:
    return torch.tensor([[5, 60, 7, 200, 31], [9, 8, 400, 11, 2]])


def test_without_steps_it_is_exactly_the_plain_path(tiny_model: Any, tokens: Any) -> None:
    with torch.inference_mode():
        plain = tiny_model.model(tokens, logits_to_keep=1).logits[:, -1]
    assert torch.equal(next_logits(tiny_model.model, tokens, 0), plain)


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_are_the_embeddings_of_equation_one(tiny_model: Any, tokens: Any, steps: int) -> None:
    """The whole sequence [e(x_1), ..., e(x_n), h_n, h_n+1, ...] in one pass, without a cache, says the same."""
    model = tiny_model.model
    with torch.inference_mode():
        inputs = model.get_input_embeddings()(tokens)
        for _ in range(steps):
            hidden = model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state[:, -1:]
            inputs = torch.cat([inputs, hidden], dim=1)
        expected = model(inputs_embeds=inputs, use_cache=False).logits[:, -1]
    found = next_logits(model, tokens, steps)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found, next_logits(model, tokens, steps))
    assert not torch.allclose(found, next_logits(model, tokens, 0), atol=1e-2)


def test_feed_back() -> None:
    given = object()
    assert feed_back(lambda hidden: pytest.fail("no step was asked for"), given, 0) is given
    assert feed_back(lambda hidden: hidden * 2, 3, 4) == 48
    with pytest.raises(ValueError, match="-1"):
        feed_back(lambda hidden: hidden, given, -1)
