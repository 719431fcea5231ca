"""LiteLLM under our own HTTP client: imported late, quiet and offline; one attempt is one request."""

from __future__ import annotations

import asyncio
import importlib
import os
import warnings
from dataclasses import dataclass
from typing import Any

from ...storage.errors import MissingExtra
from .pace import TrajectoryPace
from .pricing import Prices
from .retry import after_response, before_request

OWN_CLIENT = frozenset({"azure", "azure_text"})
"""Providers that take only a client class of their own: they keep LiteLLM's client, without our hooks."""


def load_litellm() -> Any:
    """The `litellm` module, quiet and offline. Raises MissingExtra. First import about 5 s of CPU."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches the map from the network while importing
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it loads the nearest .env file
    try:
        module: Any = importlib.import_module("litellm")
    except ImportError as cause:
        raise MissingExtra(
            f"the litellm policy needs LiteLLM: {cause}", hint="pip install 'ttc-replay[litellm]'"
        ) from cause
    module.suppress_debug_info = True  # else it prints to stdout on errors
    module.telemetry = False
    # of replies with wrong types in them: they are judged, not only warned of
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    return module


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go: what LiteLLM makes of `model` and the environment variables."""

    provider: str
    name: str
    api_key: str | None
    api_base: str | None
    supported: frozenset[str]
    prices: Prices


class Connection:
    """The HTTP client, the call slots and the trajectories' paces of one event loop."""

    def __init__(self, target: Target, concurrency: int, timeout_seconds: float, pace: TrajectoryPace):
        self.slots = asyncio.Semaphore(concurrency)
        self.looking = asyncio.Lock()
        self.pace = pace
        self.client: Any = None
        if target.provider in OWN_CLIENT:
            return
        handlers = importlib.import_module("litellm.llms.custom_httpx.http_handler")
        hooks = {"request": [before_request], "response": [after_response]}
        self.client = handlers.AsyncHTTPHandler(timeout=timeout_seconds, event_hooks=hooks, follow_redirects=False)
        sdk = importlib.import_module("openai").AsyncOpenAI(
            api_key=target.api_key or "none",
            base_url=target.api_base,
            max_retries=0,
            http_client=self.client.client,
        )
        # LiteLLM hands a provider's call either to an HTTP handler or to the OpenAI SDK, which of them changes with
        # its version: this one object serves as both.
        for name in ("chat", "api_key", "base_url", "_base_url"):
            setattr(self.client, name, getattr(sdk, name))

    async def close(self) -> None:
        """Close the sockets."""
        if self.client is not None:
            await self.client.close()
        else:
            await importlib.import_module("litellm").close_litellm_async_clients()
