"""What a call costs, by LiteLLM's bundled price map (read from the package, never from the network)."""

from __future__ import annotations

import logging
from typing import Any

from ...storage.records import Usage

_LOG = logging.getLogger("ttc_replay.pricing")
_ASKS_ITS_SERVER = ("ollama",)
"""Providers about whose models LiteLLM asks the (local, free) server instead of the map."""
_unpriced_said: set[str] = set()


class Prices:
    """The prices of one model, in USD. A model that is not in the map costs 0.0: said once a process, in the log."""

    def __init__(self, litellm: Any, provider: str, model: str):
        self._litellm = litellm
        self._provider = provider
        self._model = model
        self.known = not provider.startswith(_ASKS_ITS_SERVER) and self._is_mapped()
        name = f"{provider}/{model}"
        if not self.known and name not in _unpriced_said:
            _unpriced_said.add(name)
            _LOG.warning("no price is known for %s: its calls count as 0.0 USD", name)

    def worst_case_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """USD for these tokens when nothing of the prompt is cached."""
        if not self.known:
            return 0.0
        prompt, completion = self._litellm.cost_per_token(
            model=self._model,
            custom_llm_provider=self._provider,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )
        return float(prompt + completion)

    def usage(self, reported: Any) -> Usage:
        """Tokens and USD of a reply from its usage object (OpenAI fields).

        A reply that reports no tokens has unknown usage: all None, except `cost_usd` 0.0 where the model has no price.
        """
        tokens = [getattr(reported, name, None) for name in ("prompt_tokens", "completion_tokens")]
        if not any(tokens):
            return Usage(cost_usd=None if self.known else 0.0)
        details = getattr(reported, "prompt_tokens_details", None)
        return Usage(
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            cached_tokens=getattr(details, "cached_tokens", None),
            cost_usd=self._reply_usd(reported) if self.known else 0.0,
        )

    def _reply_usd(self, reported: Any) -> float:
        prompt, completion = self._litellm.cost_per_token(
            model=self._model, custom_llm_provider=self._provider, usage_object=reported
        )
        return float(prompt + completion)

    def _is_mapped(self) -> bool:
        try:
            self._litellm.cost_per_token(
                model=self._model, custom_llm_provider=self._provider, prompt_tokens=1, completion_tokens=1
            )
        except Exception:  # noqa: BLE001 - LiteLLM has many errors for it; each means that the map gives no price
            return False
        return True
