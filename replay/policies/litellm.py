"""The `litellm` policy: any provider or OpenAI-compatible server that LiteLLM can reach, under our own retries.

One request of the search is one completion call with `n` siblings, never streamed (a cut stream cannot be told from a
finished one). LiteLLM is imported at first use, with its bundled price map and without its `.env` reading, feedback
prints and retries; its HTTP client is ours, follows no redirect and sends one request per attempt.

Decisions: a server that gives fewer than `n` choices gives fewer proposals (the search asks again, with another seed);
`exclude` is not filtered (a duplicate is a vote and was paid for, and a stored reply must not depend on it); an empty
message is an action like any other and counted in `empty_total`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import math
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from ...storage.canonical import canonical_json
from ...storage.codec import parse_arguments
from ...storage.errors import MissingExtra, MissingKey, ProviderReplyInvalid, UsageError
from ...storage.records import Message, Proposal, ProposalRequest, ToolCall, Usage
from ..calls import add_usage
from .pace import Pace, TrajectoryPace
from .pricing import Prices
from .retry import (
    EXCHANGE,
    NOT_A_COMPLETION,
    AttemptFailed,
    Backoff,
    Callee,
    Exchange,
    after_response,
    before_request,
    failure_of,
    missing_key,
    public_url,
    with_retries,
)
from .wire import wire_messages, wire_tool

SAMPLING_KEYS = ("temperature", "top_p", "max_tokens", "stop", "presence_penalty", "frequency_penalty")
"""Keys of `ProposalRequest.sampling` that are sent; others (`first_sample`) only make the call key differ."""
BYTES_PER_TOKEN = 3
"""Worst case of the estimate: English has about 4 bytes a token, JSON and CJK text about 3."""
AMBIENT = frozenset(
    {"azure", "azure_ai", "azure_text", "bedrock", "sagemaker", "vertex_ai", "vertex_ai_beta", "ollama"}
)
"""Providers that may take credentials from elsewhere than a key variable (roles, cloud logins), or need none."""
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


@dataclass(eq=False)
class LiteLLMPolicy:
    """Proposes what a language model answers.

    `model` is LiteLLM's name with the provider first (`openai/NAME` with `api_base` for any compatible server). The key
    comes from `api_key`, the variable named by `api_key_env`, or the provider's usual variable; without one a server at
    `api_base` is called without. `temperature`, `top_p` and `parallel_tool_calls` None are not sent. `timeout_seconds`
    bounds one attempt as a whole. `requests_per_minute` spaces attempts evenly, whatever their concurrency,
    `trajectory_requests_per_minute` those of each trajectory.
    `seed_parameter` sends the request's seed where the provider knows seeds.
    `send_reasoning` returns the model's earlier reasoning to it. `logprobs` gives each proposal the sum of its tokens'
    log probabilities. Raises UsageError on options that cannot be.

    Counters for reports: `attempts_total`, `retries_total`, `throttled_total`, `invalid_total`, `empty_total`.
    """

    model: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    temperature: float | None = 1.0
    top_p: float | None = None
    max_tokens: int = 1024
    timeout_seconds: float = 60.0
    retries: int = 4
    max_retry_seconds: float = 120.0
    concurrency: int = 8
    requests_per_minute: float | None = None
    trajectory_requests_per_minute: float | None = None
    extra_body: Mapping[str, Any] | None = field(default=None, repr=False)
    tool_choice: str | Mapping[str, Any] | None = None
    logprobs: bool = False
    seed_parameter: bool = True
    parallel_tool_calls: bool | None = None
    send_reasoning: bool = False
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)

    batched: ClassVar[bool] = False
    sampling: ClassVar[bool] = True
    metered: ClassVar[bool] = True

    may_pay_again: Callable[[ProposalRequest], bool] | None = field(default=None, init=False, repr=False)
    """Asked before a call whose reply was paid for and useless is made once more: the engine's budget."""
    attempts_total: int = field(default=0, init=False)
    retries_total: int = field(default=0, init=False)
    throttled_total: int = field(default=0, init=False)
    invalid_total: int = field(default=0, init=False)
    empty_total: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.api_key is not None and self.api_key_env is not None:
            raise UsageError("api_key and api_key_env exclude each other", hint="keep api_key_env: it names a variable")
        parts = urlsplit(self.api_base) if self.api_base is not None else None
        if parts is not None and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise UsageError(
                f"api_base is no http(s) URL: {public_url(self.api_base)}", hint="e.g. http://localhost:8000/v1"
            )
        self._pace = Pace(self.requests_per_minute, self.sleep)
        self._litellm: Any = None
        self._target: Target | None = None
        self._checked = False
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = WeakKeyDictionary()

    def check(self) -> None:
        """Refuse what cannot work before anything is spent; calls nobody.

        Raises MissingExtra, MissingKey, and UsageError for an unknown provider or an option it does not know.
        """
        target = self._resolve()
        self._check_key(target)
        wanted = {
            "logprobs": self.logprobs,
            "parallel_tool_calls": self.parallel_tool_calls is not None,
            "tool_choice": self.tool_choice is not None,
        }
        unknown = [name for name, is_set in wanted.items() if is_set and name not in target.supported]
        if unknown:
            raise UsageError(f"{target.provider} does not know {', '.join(unknown)}", hint="leave the option out")
        self._checked = True

    def identity(self) -> dict[str, Any]:
        """What goes into the call key: provider, model, address and every parameter that is sent; never the key."""
        names = ("temperature", "top_p", "max_tokens", "tool_choice", "logprobs", "seed_parameter")
        more = ("parallel_tool_calls", "send_reasoning")
        return {
            "policy": "litellm",
            "provider": self._prefix,
            "model": self.model,
            "api_base": public_url(self._effective_base),
            "extra_body": dict(self.extra_body or {}),
            **{name: getattr(self, name) for name in (*names, *more)},
        }

    def estimate(self, request: ProposalRequest) -> Usage:
        """The worst case of one call: prompt (bytes of its JSON / 3) and `n * max_tokens`, nothing cached, in USD."""
        wire = {"messages": wire_messages(request.messages, reasoning=self.send_reasoning), "tools": request.tools}
        text = json.dumps(wire, ensure_ascii=False, default=dict)
        prompt = -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
        completion = request.n * int(request.sampling.get("max_tokens", self.max_tokens))
        return Usage(prompt, completion, None, self._resolve().prices.worst_case_usd(prompt, completion))

    async def propose(self, requests: Sequence[ProposalRequest]) -> list[list[Proposal]]:
        """One call per request, `concurrency` at a time.

        The call's usage, discarded replies included, is on its first proposal. Raises ProviderError, MissingKey.
        """
        if not self._checked:
            await asyncio.to_thread(self.check)
        answers = await asyncio.gather(*(self._one(request) for request in requests), return_exceptions=True)
        done: list[list[Proposal]] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            done.append(answer)
        return done

    async def close(self) -> None:
        """Close this event loop's connections; those of loops that ended are gone with them."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()

    async def _one(self, request: ProposalRequest) -> list[Proposal]:
        connection = self._connection()
        paid: list[Usage] = []

        async def attempt() -> list[Proposal]:
            if paid and self.may_pay_again is not None and not self.may_pay_again(request):
                told = f"{self._place}: the reply is no completion, and the budget allows no other"
                raise ProviderReplyInvalid(told, hint="raise the budget: the same command goes on")
            await connection.pace.wait(request.trajectory_id)
            self.attempts_total += 1
            try:
                response = await self._send(request, connection)
            except AttemptFailed as failure:
                if failure.kind == "invalid":  # a whole reply came, and nobody can read what it used
                    paid.append(self.estimate(request))
                raise
            usage = self._resolve().prices.usage(getattr(response, "usage", None))
            is_untold = usage.prompt_tokens is None and usage.completion_tokens is None
            paid.append(self.estimate(request) if is_untold and not response.choices else usage)
            if not response.choices:
                raise AttemptFailed("invalid", f"{self._place}: the reply has no choices", hint=NOT_A_COMPLETION)
            return [proposal_of(choice) for choice in response.choices[: request.n]]

        async with connection.slots:  # a call that backs off keeps its slot: that is what slows the others down too
            backoff = Backoff(self.retries, self.max_retry_seconds)
            proposals = await with_retries(
                attempt, backoff, seed=request.seed, sleep=self.sleep, on_failure=self._count
            )
        self.empty_total += sum(not item.action.text and not item.action.tool_calls for item in proposals)
        first = proposals[0]
        proposals[0] = Proposal(first.action, first.logprob, add_usage(paid), first.finish_reason)
        return proposals

    async def _send(self, request: ProposalRequest, connection: Connection) -> Any:
        parameters = self._parameters(request)
        exchange = Exchange()
        token = EXCHANGE.set(exchange)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await self._litellm.acompletion(client=connection.client, **parameters)
        except Exception as error:  # noqa: BLE001 - the one seam to LiteLLM: everything becomes an error of ours
            raise failure_of(error, exchange, self._callee()) from None  # its text and context may hold the key
        finally:
            EXCHANGE.reset(token)

    def _parameters(self, request: ProposalRequest) -> dict[str, Any]:
        target = self._resolve()
        sent: dict[str, Any] = {
            "model": self.model,
            "messages": wire_messages(request.messages, reasoning=self.send_reasoning),
            "api_base": self.api_base,
            "api_key": target.api_key,
            "timeout": self.timeout_seconds,
            "max_retries": 0,
            "num_retries": 0,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "extra_body": dict(self.extra_body) if self.extra_body else None,
            "logprobs": self.logprobs or None,
        }
        sent.update({key: request.sampling[key] for key in SAMPLING_KEYS if key in request.sampling})
        if request.n > 1 and "n" in target.supported:
            sent["n"] = request.n
        if self.seed_parameter and "seed" in target.supported:
            sent["seed"] = fold_seed(request.seed)
        if request.tools:
            sent["tools"] = [wire_tool(tool) for tool in request.tools]
            sent["tool_choice"] = self.tool_choice
            sent["parallel_tool_calls"] = self.parallel_tool_calls
            if importlib.util.find_spec("mcp") is None:
                sent["_skip_mcp_handler"] = True  # LiteLLM before 1.109 cannot pass tools without that package
        return {name: value for name, value in sent.items() if value is not None}

    def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            pace = TrajectoryPace(self.trajectory_requests_per_minute, self._pace, self.sleep)
            self._connections[loop] = Connection(self._resolve(), self.concurrency, self.timeout_seconds, pace)
        return self._connections[loop]

    def _count(self, failure: AttemptFailed, again: bool) -> None:
        self.retries_total += again
        self.throttled_total += failure.kind == "throttled"
        self.invalid_total += failure.kind == "invalid"

    @property
    def _prefix(self) -> str | None:
        return self.model.partition("/")[0] if "/" in self.model else None

    @property
    def _effective_base(self) -> str | None:
        prefix = (self._prefix or "openai").upper()
        names = (f"{prefix}_BASE_URL", f"{prefix}_API_BASE")
        return self.api_base or next((os.environ[name] for name in names if os.environ.get(name)), None)

    @property
    def _place(self) -> str:
        base = public_url(self._effective_base)
        return f"{self.model} at {base}" if base else self.model

    def _resolve(self) -> Target:
        if self._target is None:
            self._litellm = load_litellm()
            key = self.api_key or (os.environ.get(self.api_key_env) if self.api_key_env else None)
            try:
                name, provider, known_key, base = self._litellm.get_llm_provider(
                    self.model, api_base=self.api_base, api_key=key
                )
            except self._litellm.BadRequestError:
                raise UsageError(
                    f"no provider is known for model {self.model}",
                    hint="put it first: openai/NAME with --policy-opt api_base=URL for a compatible server",
                ) from None
            if provider == "openai":
                known_key = known_key or os.environ.get("OPENAI_API_KEY")
            supported = self._litellm.get_supported_openai_params(name, custom_llm_provider=provider) or ()
            prices = Prices(self._litellm, provider, name)
            base = base or self._effective_base
            self._target = Target(provider, name, key or known_key, base, frozenset(supported), prices)
        return self._target

    def _callee(self) -> Callee:
        target = self._resolve()
        secrets = tuple(secret for secret in (self.api_key, target.api_key) if secret)
        key_name = self.api_key_env or f"{target.provider.upper()}_API_KEY"
        return Callee(self._place, target.provider, key_name, secrets, self.timeout_seconds)

    def _check_key(self, target: Target) -> None:
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise MissingKey(f"the variable {self.api_key_env} is not set", hint=f"export {self.api_key_env}=...")
        if target.api_key or self.api_base or target.provider in AMBIENT:
            return
        missing = self._litellm.validate_environment(self.model)["missing_keys"]
        names = [name for name in missing if name.endswith(("_KEY", "_TOKEN"))]
        if names:
            raise missing_key(target.provider, " or ".join(names))


def proposal_of(choice: Any) -> Proposal:
    """One choice of a completion; arguments are kept as written, parsed where they are a JSON object."""
    message = choice.message
    calls = tuple(_call_of(call) for call in message.tool_calls or ())
    content = message.content if message.content is not None or calls else ""
    action = Message("assistant", content, getattr(message, "reasoning_content", None), calls)
    return Proposal(action, _logprob(choice), None, choice.finish_reason)


def _call_of(call: Any) -> ToolCall:
    raw = call.function.arguments or ""
    arguments = parse_arguments(raw)
    try:
        canonical_json(arguments)
    except ValueError:  # NaN or 1e400: Python reads it, JSON does not have it
        arguments = None
    return ToolCall(call.id, call.function.name or "", arguments, raw)


def _logprob(choice: Any) -> float | None:
    tokens = getattr(getattr(choice, "logprobs", None), "content", None)
    return float(sum(token.logprob for token in tokens)) if tokens else None


def fold_seed(seed: int) -> int:
    """A 63-bit seed as 31 bits, which every server takes; all bits count."""
    return (seed ^ (seed >> 31) ^ (seed >> 62)) & 0x7FFFFFFF


def _check_numbers(policy: LiteLLMPolicy) -> None:
    if not policy.model or not isinstance(policy.model, str):
        raise UsageError("the litellm policy needs a model", hint="--policy-opt model=openai/NAME")
    whole = {"max_tokens": 1, "concurrency": 1, "retries": 0}
    for name, low in whole.items():
        value = getattr(policy, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UsageError(f"{name} must be a whole number, at least {low}: {value!r}")
    rates = ("requests_per_minute", "trajectory_requests_per_minute")
    for name in ("timeout_seconds", "max_retry_seconds", "temperature", "top_p", *rates):
        value = getattr(policy, name)
        if value is None and name in ("temperature", "top_p", *rates):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UsageError(f"{name} must be a number, at least 0: {value!r}")
    for name in ("timeout_seconds", *rates):
        if getattr(policy, name) == 0:
            raise UsageError(f"{name} must be above 0")
