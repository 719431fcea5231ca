"""Asks a server which models it serves, so that a wrong address, model or key shows before anything is spent.

Only what is sure is refused: nobody listens, the list lies at another address, the list is there without the model, the
key is refused. A server without a list, or with trouble of its own, is a warning at most: its completions will tell.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ...storage.errors import ProviderRefused, ProviderUnavailable
from .retry import IS_IT_RUNNING, REFUSED_HINTS, Callee, causes, missing_key, public_url, reason_of

LOOK_SECONDS = 5.0
ANY_NAME = frozenset({"llamacpp", "sglang"})
"""`owned_by` of servers that answer under any model name."""
SHOWN = 8
"""Models that an error names."""
_NOT_CONNECTED = ("ConnectError", "ConnectTimeout", "ClientConnectorError")


class Served(NamedTuple):
    """One model of the list."""

    name: str
    owner: str


async def look(client: Any, base: str, model: str, callee: Callee, key: str | None, seconds: float) -> str | None:
    """GET `{base}/models` once, within `seconds`: None when all is well, else a warning for the log.

    `client`: an HTTP client with httpx's `get`. Raises ProviderUnavailable (nobody listens), ProviderRefused (another
    address, another model, a refused key), MissingKey.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        status, body = await _get(client, base, headers, seconds)
    except Exception as error:  # noqa: BLE001 - client libraries have many; only "not connected" is judged here
        if any(type(cause).__name__ in _NOT_CONNECTED for cause in causes(error)):
            told = f"cannot reach {callee.place}: {reason_of(error, callee)}"
            raise ProviderUnavailable(told, hint=IS_IT_RUNNING) from None
        return f"GET /models of {callee.place} failed ({reason_of(error, callee)}): the model's name is not checked"
    if status == 401:
        raise _key_refused(callee)
    if status == 404:
        await _refuse_other_base(client, base, callee, headers, seconds)
    models = served(body) if status == 200 else None
    if models is None:
        return (
            None
            if status >= 500
            else f"{callee.place} has no list of models ({status}): the model's name is not checked"
        )
    return _unserved(model, models, callee)


async def _get(client: Any, base: str, headers: Mapping[str, str], seconds: float) -> tuple[int, Any]:
    """Status and parsed body; None for a body that is no JSON."""
    async with asyncio.timeout(seconds):
        response = await client.get(f"{base.rstrip('/')}/models", headers=dict(headers), timeout=seconds)
    try:
        return int(response.status_code), response.json()
    except (ValueError, RecursionError):
        return int(response.status_code), None


def served(body: Any) -> list[Served] | None:
    """The models of an OpenAI-style list; None when it is no such list, or names none."""
    rows = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        return None
    found = [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), str)]
    return [Served(row["id"], str(row.get("owned_by"))) for row in found] or None


def serves(name: str, model: str) -> bool:
    """Whether a listed name stands for the model: the same, with another tag (`qwen:latest`), or a pattern (`x/*`)."""
    if "*" in name:
        return re.fullmatch(".*".join(map(re.escape, name.split("*"))), model) is not None
    return name.partition(":")[0] == model.partition(":")[0]


def _unserved(model: str, models: Sequence[Served], callee: Callee) -> str | None:
    """A warning, or an error, where the list does not have the model."""
    if any(serves(item.name, model) for item in models):
        return None
    names = ", ".join(item.name for item in models[:SHOWN])
    names += f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
    if all(item.owner in ANY_NAME for item in models):
        return f"{callee.place} serves {names}, and answers under any name"
    told = f"{callee.place} does not serve the model {model}; it serves {names}"
    raise ProviderRefused(told, hint="--policy-opt model=PROVIDER/NAME with one of these, or health_check=false")


def _key_refused(callee: Callee) -> Exception:
    if not callee.secrets:
        return missing_key(callee.provider, callee.key_name)
    return ProviderRefused(f"{callee.place}: the key is refused (401)", hint=REFUSED_HINTS[401])


async def _refuse_other_base(
    client: Any, base: str, callee: Callee, headers: Mapping[str, str], seconds: float
) -> None:
    """Raise when the list of models lies at a likely other address of the same server."""
    for other in other_bases(base):
        status, body = 0, None
        with suppress(Exception):  # it was a guess
            status, body = await _get(client, other, headers, seconds)
        if status == 200 and served(body) is not None:
            told = f"{callee.place}: there is no such path (404), but {public_url(other)}/models answers"
            raise ProviderRefused(told, hint=f"--policy-opt api_base={public_url(other)}")


def other_bases(base: str) -> Iterator[str]:
    """Where the API may be when it is not at `base`: without the endpoint's own path, or under /v1."""
    plain = base.rstrip("/")
    root = plain.removesuffix("/completions").removesuffix("/chat")
    parts = urlsplit(root)
    for other in dict.fromkeys((root, f"{root}/v1", f"{parts.scheme}://{parts.netloc}/v1")):
        if other != plain:
            yield other
