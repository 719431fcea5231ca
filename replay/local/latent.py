"""Latent reasoning: the last hidden state is fed back as the next input, some times before the first token is chosen.

Hao et al., "Training Large Language Models to Reason in a Continuous Latent Space" (Coconut), arXiv 2412.06769, section
3: in latent mode between positions i and j the inputs are E_t = [e(x_1), ..., e(x_i), h_i, h_i+1, ..., h_t-1], where h
is the last hidden state after the final norm. Only a model that was trained for it gains anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Advance: TypeAlias = Callable[[Any], Any]
"""One step of the model: input embeddings [rows, hidden] of the next position -> last hidden states [rows, hidden].
Whoever gives it keeps keys and values, and moves each row one position on."""


def feed_back(advance: Advance, hidden: Any, steps: int) -> Any:
    """The hidden states [rows, hidden] from which the next token is chosen, after `steps` latent positions.

    `hidden` are those of the last token of each context. With 0 steps they come back as they are. Raises ValueError for
    a negative number. The keys and values of latent positions, and of all that follows them, are of this branch only:
    a later prompt has the same tokens without the thoughts between them, so they never belong into a shared prefix.
    """
    if steps < 0:
        raise ValueError(f"latent steps: {steps}")
    for _ in range(steps):
        hidden = advance(hidden)
    return hidden


def next_logits(model: Any, tokens: Any, steps: int) -> Any:
    """Logits [rows, vocabulary] after `tokens` [rows, length] and `steps` latent positions, the plain way.

    Through transformers' own cache, with no tree: what the engine's answers are compared with.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)

    def run(**inputs: Any) -> Any:
        return model.base_model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, -1:]

    with torch.inference_mode():
        hidden = run(input_ids=tokens)
        hidden = feed_back(lambda last: run(inputs_embeds=last), hidden, steps)
        return model.get_output_embeddings()(hidden)[:, -1]
