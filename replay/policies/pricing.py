"""What a call costs, by LiteLLM's bundled price map (read from the package, never from the network), or by prices that
the user gives."""

from __future__ import annotations

import logging
from typing import Any

from ...storage.records import Usage

_LOG = logging.getLogger("ttc_replay.pricing")
_ASKS_ITS_SERVER = ("ollama",)
"""Providers about whose models LiteLLM asks the (local, free) server instead of the map."""
_unpriced_said: set[str] = set()

GivenPrices = tuple[float, float]
"""USD of one prompt token and of one completion token."""


class Prices:
    """The prices of one model, in USD: those `given`, else those of the map.

    A model that the map does not have, or has without a price, costs 0.0 (`known` is False): said once a process, in
    the log. Given prices hold for cached tokens, too.
    """

    def __init__(self, litellm: Any, provider: str, model: str, given: GivenPrices | None = None):
        self._litellm = litellm
        self._provider = provider
        self._model = model
        self._given = given
        mapped = not provider.startswith(_ASKS_ITS_SERVER) and self._is_mapped()
        self.known = given is not None or mapped
        name = f"{provider}/{model}"
        if not self.known and name not in _unpriced_said:
            _unpriced_said.add(name)
            _LOG.warning("no price is known for %s: its calls count as 0.0 USD", name)

    def worst_case_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """USD for these tokens when nothing of the prompt is cached."""
        if self._given is not None:
            return prompt_tokens * self._given[0] + completion_tokens * self._given[1]
        if not self.known:
            return 0.0
        return self._mapped_usd(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    def usage(self, reported: Any) -> Usage:
        """Tokens and USD of a reply from its usage object (LiteLLM's: OpenAI fields, and those of Anthropic's cache).

        A reply that reports no tokens, or a negative number, has unknown usage: all None, except `cost_usd` 0.0 where
        the model has no price. A number of cached tokens that cannot be is None, and nothing counts as cached.
        """
        prompt, completion = (getattr(reported, name, None) for name in ("prompt_tokens", "completion_tokens"))
        if not (prompt or completion) or min(prompt or 0, completion or 0) < 0:
            return Usage(cost_usd=None if self.known else 0.0)
        prompt, completion = prompt or 0, completion or 0
        read, written = _cached(reported)
        if (read or 0) < 0 or (written or 0) < 0 or (read or 0) + (written or 0) > prompt:
            return Usage(prompt, completion, None, self.worst_case_usd(prompt, completion))
        if self._given is not None or not self.known:
            return Usage(prompt, completion, read, self.worst_case_usd(prompt, completion))
        return Usage(prompt, completion, read, self._mapped_usd(usage_object=reported))

    def _mapped_usd(self, **tokens: Any) -> float:
        prompt, completion = self._litellm.cost_per_token(
            model=self._model, custom_llm_provider=self._provider, **tokens
        )
        return float(prompt + completion)

    def _is_mapped(self) -> bool:
        try:
            return self._mapped_usd(prompt_tokens=1, completion_tokens=1) > 0
        except Exception:  # noqa: BLE001 - LiteLLM has many errors for it; each means that the map gives no price
            return False


def _cached(reported: Any) -> tuple[int | None, int | None]:
    """Tokens of the prompt that were read from the provider's cache, and those that were written to it."""
    details = getattr(reported, "prompt_tokens_details", None)
    return getattr(details, "cached_tokens", None), getattr(details, "cache_creation_tokens", None)
