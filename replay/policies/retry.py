"""Retries of one provider call: what a failure means, whether another attempt may help, how long to wait.

Neutral to the provider and to the HTTP library: errors are judged by what happened on the wire, by `status_code`, and
by class names that the common client libraries share. Exactly one HTTP request is one attempt: `before_request` and
`after_response` are hooks for an HTTP client; they note what really happened on the wire (client libraries report a
refused connection and a broken reply alike as "500") and stop requests that a library would add by itself: hidden
retries and redirects.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from ...storage.canonical import seed_from
from ...storage.errors import (
    MissingKey,
    ProviderError,
    ProviderRefused,
    ProviderReplyInvalid,
    ProviderUnavailable,
    TtcError,
)

Kind = Literal["throttled", "unavailable", "invalid"]
Answer = TypeVar("Answer")

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
"""Besides all of 5xx (529 is "overloaded" at some providers)."""
THROTTLING_STATUSES = frozenset({429, 503, 529})
INVALID_RETRIES = 1
"""A reply that is no completion is asked for once more: a broken server would only be paid again and again."""
NOT_A_COMPLETION = "is api_base the address of an OpenAI-compatible API (it often ends in /v1)?"
"""Hint for a reply that is no completion."""
IS_IT_RUNNING = "is the server running, and api_base right? how to start one: docs/servers.md"
_TROUBLE = "the provider has trouble: the same command resumes later"
_SEED_RANGE = float(1 << 63)
_SECRETS = re.compile(r"\b(?:sk|gsk|xai|hf)[-_][\w\-*.]{6,}|\bAIza[\w-]{20,}|(?i:bearer)\s+\S+")
_NOISE = re.compile(r"^(?:\s*(?:litellm\.)?\w*(?:Error|Timeout|Exception)(?: -|:)?\s+)+")
_WIRE_ERRORS = ("httpx", "httpcore", "aiohttp")
_THROTTLED = "lower --concurrency, or raise --policy-opt max_retry_seconds"
REFUSED_HINTS = {
    400: "the provider does not take this request: look at the model name and the policy's options",
    401: "the key is wrong or expired",
    403: "the key may not use this model",
    404: "look at the model name and api_base",
    413: "the conversation is too long: lower --max-depth",
    429: "the account has no credit left",
}


class AttemptFailed(Exception):
    """One attempt failed in a way that another may not. `retry_after_seconds` is the provider's own wish."""

    def __init__(self, kind: Kind, reason: str, *, hint: str | None = None, retry_after_seconds: float | None = None):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.hint = hint
        self.retry_after_seconds = retry_after_seconds


class HiddenRequest(Exception):
    """A client library tried a second request within one attempt."""


@dataclass(slots=True)
class Exchange:
    """What one attempt did on the wire: requests begun, and the last response, if any came."""

    requests: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


EXCHANGE: ContextVar[Exchange | None] = ContextVar("ttc_replay_exchange", default=None)
"""The exchange of the attempt that runs in this context; set by whoever makes the attempt."""


async def before_request(_request: object) -> None:
    """HTTP client hook. Raises HiddenRequest on the second request of an attempt."""
    exchange = EXCHANGE.get()
    if exchange is None:
        return
    if exchange.requests:
        raise HiddenRequest("one attempt is one request")
    exchange.requests += 1


async def after_response(response: Any) -> None:
    """HTTP client hook: note status and headers (httpx: `response.status_code`, `response.headers`)."""
    exchange = EXCHANGE.get()
    if exchange is not None:
        exchange.status = int(response.status_code)
        exchange.headers = {str(name).lower(): str(value) for name, value in response.headers.items()}


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with seeded jitter.

    At most `retries` further attempts; `max_retry_seconds` bounds the sum of all waiting of one call (not the time the
    attempts take). A Retry-After is honoured in full; one that does not fit ends the call at once.
    """

    retries: int = 4
    max_retry_seconds: float = 120.0
    first_seconds: float = 1.0
    longest_seconds: float = 30.0

    def wait_seconds(self, retry: int, seed: int, retry_after_seconds: float | None = None) -> float:
        """Seconds before retry number `retry` (from 0): the same for the same seed, apart for different ones.

        Without Retry-After between half and all of `first * 2**retry`; with it, up to `first_seconds` longer than it.
        """
        share = seed_from("back-off", seed, retry) / _SEED_RANGE
        if retry_after_seconds is not None:
            return retry_after_seconds + share * self.first_seconds
        whole: float = min(self.longest_seconds, self.first_seconds * 2.0 ** min(retry, 60))
        return whole * (0.5 + 0.5 * share)


async def with_retries(
    attempt: Callable[[], Awaitable[Answer]],
    backoff: Backoff,
    *,
    seed: int,
    sleep: Callable[[float], Awaitable[None]],
    on_failure: Callable[[AttemptFailed, bool], None],
) -> Answer:
    """The first answer of `attempt`, repeated after each AttemptFailed; any other exception passes at once.

    `on_failure(failure, again)` hears of every failed attempt. Raises ProviderUnavailable or ProviderReplyInvalid.
    """
    waited, invalid, retry = 0.0, 0, 0
    while True:
        try:
            return await attempt()
        except AttemptFailed as caught:
            failure = caught
        invalid += failure.kind == "invalid"
        wait = backoff.wait_seconds(retry, seed, failure.retry_after_seconds)
        again = retry < backoff.retries and waited + wait <= backoff.max_retry_seconds and invalid <= INVALID_RETRIES
        on_failure(failure, again)
        if not again:
            raise _given_up(failure, retry, waited, wait, backoff)
        await sleep(wait)
        waited += wait
        retry += 1


def _given_up(failure: AttemptFailed, retry: int, waited: float, wait: float, backoff: Backoff) -> ProviderError:
    attempts = f"{retry + 1} attempt{'s' if retry else ''}"
    if failure.kind == "invalid":
        return ProviderReplyInvalid(f"{failure.reason} ({attempts})", hint=failure.hint)
    why = f"gave up after {attempts}, {waited:.1f} s of waiting"
    if retry < backoff.retries and failure.retry_after_seconds is not None:
        why += f"; the provider asks to wait {wait:.0f} s more, max_retry_seconds is {backoff.max_retry_seconds:g}"
    return ProviderUnavailable(f"{failure.reason} ({why})", hint=failure.hint)


def kind_of_status(status: int) -> Kind | None:
    """What an HTTP error status means for a retry; None: no retry helps."""
    if status in THROTTLING_STATUSES:
        return "throttled"
    return "unavailable" if status in RETRIED_STATUSES or status >= 500 else None


def retry_after_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After` (RFC 9110: seconds or HTTP date); None when absent or unreadable.

    `headers` has lower-case names. A date counts from the response's own `Date` where it has one, so that a wrong clock
    here does no harm, else from `now` (Unix seconds).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    wish = headers.get("retry-after")
    seconds = _number(wish)
    if seconds is not None:
        return seconds
    until = _unix_seconds(wish)
    if until is None:
        return None
    sent = _unix_seconds(headers.get("date"))
    start = sent if sent is not None else (time.time() if now is None else now)
    return max(0.0, until - start)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _unix_seconds(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text is not None else None
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Callee:
    """Who is called, for error messages. `secrets` never appear in any; `key_name` is the variable of the key."""

    place: str
    provider: str
    key_name: str
    secrets: tuple[str, ...]
    timeout_seconds: float


def failure_of(error: Exception, exchange: Exchange, callee: Callee) -> TtcError | AttemptFailed:
    """What one failed attempt means: AttemptFailed where another may help, else the error to show."""
    name = type(error).__name__
    status = exchange.status if exchange.requests else getattr(error, "status_code", None)
    said = reason_of(error, callee)
    reason = f"{callee.place}: {said}"
    if name == "ContextWindowExceededError":
        return ProviderRefused(reason, hint="the conversation is too long: lower --max-depth or max_tokens")
    if any(isinstance(cause, ImportError) for cause in causes(error)):
        return ProviderRefused(reason, hint="a package that this provider needs is not installed")
    if isinstance(error, TimeoutError) or (name == "Timeout" and status in (None, 200, 408)):
        late = f"{callee.place}: no reply within {callee.timeout_seconds:g} s"
        return AttemptFailed("unavailable", late, hint="raise --policy-opt timeout_seconds")
    if status is None:
        lost = f"cannot reach {callee.place}: {said}"
        return AttemptFailed("unavailable", lost, hint=IS_IT_RUNNING)
    if status < 300:
        return _broken(error, callee.place, said)
    return _status_failure(error, int(status), exchange, reason, callee)


def _broken(error: Exception, place: str, said: str) -> AttemptFailed:
    """A response came, with status 2xx, but no completion in it."""
    reason = f"{place}: {said}"
    if any(type(cause).__module__.startswith(_WIRE_ERRORS) for cause in causes(error)):
        return AttemptFailed("unavailable", f"{reason} (the reply was cut off)", hint=_TROUBLE)
    if getattr(error, "status_code", None) in THROTTLING_STATUSES:
        return AttemptFailed("throttled", reason, hint=_THROTTLED)  # gateways send such errors in the body of a 200
    return AttemptFailed("invalid", f"{place}: the reply is no completion: {said}", hint=NOT_A_COMPLETION)


def _status_failure(
    error: Exception, status: int, exchange: Exchange, reason: str, callee: Callee
) -> TtcError | AttemptFailed:
    kind = kind_of_status(status)
    if kind is not None and "insufficient_quota" not in str(error):
        wish = retry_after_seconds(exchange.headers or _headers_of(error))
        hint = _THROTTLED if kind == "throttled" else _TROUBLE
        return AttemptFailed(kind, f"{reason} ({status})", hint=hint, retry_after_seconds=wish)
    if status == 401 and not callee.secrets:
        return missing_key(callee.provider, callee.key_name)
    if status < 400:
        where = public_url(exchange.headers.get("location"))
        told = f"{callee.place}: redirects to {where} ({status}), which is not followed"
        return ProviderRefused(told, hint="set api_base to the address it redirects to")
    return ProviderRefused(f"{reason} ({status})", hint=REFUSED_HINTS.get(status, REFUSED_HINTS[400]))


def missing_key(provider: str, names: str) -> MissingKey:
    """The error for a provider that wants a key; `names`: the variables that may hold it."""
    hint = f"export {names}=..., or name your variable: --policy-opt api_key_env=NAME"
    return MissingKey(f"{provider} wants a key and none is set", hint=hint)


def public_url(url: str | None) -> str | None:
    """Without user, password and query: these may be secrets."""
    if url is None:
        return None
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}" if parts.hostname else parts.path


def reason_of(error: Exception, callee: Callee) -> str:
    """The provider's own words in one line, at most 300 characters, without keys."""
    text = _NOISE.sub("", str(error).partition("Traceback (most recent")[0]).strip()
    start = text.find("{")
    if start >= 0:
        with suppress(ValueError, LookupError, TypeError, RecursionError):  # else not the usual body: text as it is
            text = str(json.loads(text[start:])["error"]["message"])
    for secret in callee.secrets:
        text = text.replace(secret, "***")
    return _SECRETS.sub("***", " ".join(text.split()))[:300] or type(error).__name__


def _headers_of(error: Exception) -> dict[str, str]:
    found = getattr(error, "litellm_response_headers", None) or {}
    return {str(name).lower(): str(value) for name, value in found.items()}


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, at most 20 links."""
    current: BaseException | None = error
    for _ in range(20):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__
