"""Which options of the `litellm` policy cannot be, and what a server says that it cannot take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ...storage.errors import UsageError

SENT_ANYWAY = frozenset(
    {"model", "messages", "n", "stream", "tools", "seed", "max_tokens", "max_completion_tokens", "temperature", "top_p"}
    | {"logprobs", "tool_choice", "parallel_tool_calls"}
)
"""What `extra_body` may not hold: the policy sends it, and budgets count on it."""

_MOST_SIBLINGS = re.compile(r"\bn\b['\"`]?[:,]? [^.]{0,60}?(?:<=|at most|maximum(?: value)?(?: is| of)?) (\d{1,4})\b")
"""llama.cpp: "Field 'n': Value must be between 1 <= value <= 2, but got 4"."""


def most_siblings(said: str, asked: int) -> int | None:
    """How many siblings a request may ask for, where a refusal of more than one names it; else None."""
    found = _MOST_SIBLINGS.search(said) if asked > 1 else None
    most = int(found[1]) if found else 0
    return most if 1 <= most < asked else None


def check_options(policy: Any) -> None:
    """Refuse values that cannot be. Raises UsageError."""
    _check_model_and_address(policy)
    whole = {"max_tokens": 1, "concurrency": 1, "retries": 0}
    for name, low in whole.items():
        value = getattr(policy, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UsageError(f"{name} must be a whole number, at least {low}: {value!r}")
    rates = ("requests_per_minute", "trajectory_requests_per_minute")
    optional = ("temperature", "top_p", "input_cost_per_token", "output_cost_per_token", *rates)
    for name in ("timeout_seconds", "max_retry_seconds", *optional):
        value = getattr(policy, name)
        if value is None and name in optional:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UsageError(f"{name} must be a number, at least 0: {value!r}")
    for name in ("timeout_seconds", *rates):
        if getattr(policy, name) == 0:
            raise UsageError(f"{name} must be above 0")
    _check_extra_body(policy.extra_body)


def _check_extra_body(extra: Any) -> None:
    if extra is not None and not isinstance(extra, Mapping):
        raise UsageError(f"extra_body must be a JSON object: {extra!r}")
    doubled = sorted(SENT_ANYWAY.intersection(extra or ()))
    if doubled:
        raise UsageError(f"extra_body may not hold {', '.join(doubled)}", hint="the policy sends it: see its options")


def _check_model_and_address(policy: Any) -> None:
    if not policy.model or not isinstance(policy.model, str):
        raise UsageError("the litellm policy needs a model", hint="--policy-opt model=openai/NAME")
    if policy.api_key is not None and policy.api_key_env is not None:
        raise UsageError("api_key and api_key_env exclude each other", hint="keep api_key_env: it names a variable")
    if policy.api_base is not None and not _is_address(policy.api_base):
        told = policy.api_base.rpartition("@")[2] if isinstance(policy.api_base, str) else repr(policy.api_base)
        raise UsageError(f"api_base is no http(s) URL: {told}", hint="e.g. http://localhost:8000/v1")


def _is_address(url: Any) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):  # a port that is no number, or no text at all
        return False
