"""The `litellm` policy: any provider or OpenAI-compatible server that LiteLLM can reach, under our own retries.

One request of the search is one completion call with `n` siblings, never streamed (a cut stream cannot be told from a
finished one). LiteLLM is imported at first use, with its bundled price map and without its `.env` reading, feedback
prints and retries; its HTTP client is ours, follows no redirect and sends one request per attempt.

Decisions: a server that gives fewer than `n` choices gives fewer proposals (the search asks again, with another seed);
one that refuses `n` and names the most that it takes (llama.cpp: its slots) is asked for that many from then on;
`exclude` is not filtered (a duplicate is a vote and was paid for, and a stored reply must not depend on it); an empty
message is an action like any other and counted in `empty_total`; a server at an address of its own is asked once for
its models, right before the first call that is not in the journal: a run that needs no call needs no server.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from ...storage.errors import MissingKey, ProviderReplyInvalid, UsageError
from ...storage.records import Proposal, ProposalRequest, Usage
from ..calls import add_usage
from .health import LOOK_SECONDS, look
from .litellm_client import Connection, Target, load_litellm
from .litellm_options import check_options, most_siblings
from .pace import Pace, TrajectoryPace
from .pricing import GivenPrices, Prices
from .replies import proposals_of
from .retry import (
    EXCHANGE,
    NOT_A_COMPLETION,
    AttemptFailed,
    Backoff,
    Callee,
    Exchange,
    failure_of,
    missing_key,
    public_url,
    with_retries,
)
from .wire import fold_seed, wire_messages, wire_tool

_LOG = logging.getLogger("ttc_replay.litellm")
SAMPLING_KEYS = ("temperature", "top_p", "max_tokens", "stop", "presence_penalty", "frequency_penalty")
"""Keys of `ProposalRequest.sampling` that are sent; others (`first_sample`) only make the call key differ."""
BYTES_PER_TOKEN = 3
"""Worst case of the estimate: English has about 4 bytes a token, JSON and CJK text about 3."""
AMBIENT = frozenset(
    {"azure", "azure_ai", "azure_text", "bedrock", "sagemaker", "vertex_ai", "vertex_ai_beta", "ollama"}
)
"""Providers that may take credentials from elsewhere than a key variable (roles, cloud logins), or need none."""


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
    log probabilities. `input_cost_per_token` and `output_cost_per_token` (USD) go before the price map.
    `health_check`: see `health.look`. Raises UsageError on options that cannot be.

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
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    health_check: bool = True
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
        check_options(self)
        self._pace = Pace(self.requests_per_minute, self.sleep)
        self._litellm: Any = None
        self._target: Target | None = None
        self._checked = False
        self._looked = False
        self._most_siblings: int | None = None
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = WeakKeyDictionary()

    def check(self) -> None:
        """Refuse what cannot work before anything is spent; calls nobody.

        Raises MissingKey, and UsageError for an unknown provider or an option it does not know.
        """
        if "@" in urlsplit(self.api_base or "").netloc:  # it would go out beside the key, which HTTP clients refuse
            told = f"api_base {public_url(self.api_base)} may not hold a user name or a password"
            raise UsageError(told, hint="name the variable of a key: --policy-opt api_key_env=NAME")
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

    @property
    def priced(self) -> bool:
        """Whether a price is known; else calls count as 0.0 USD, and a limit of cost cannot bind."""
        return self._resolve().prices.known

    def report(self) -> dict[str, Any]:
        """What the run's report says of the policy: whether a price is known, and this session's counters."""
        names = ("attempts", "retries", "throttled", "invalid", "empty")
        return {"priced": self.priced, **{name: getattr(self, f"{name}_total") for name in names}}

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
        if not self._looked:
            await self._look()
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

    async def _look(self) -> None:
        """Ask the server for its models, once; see `health.look` for what it raises."""
        connection, target = self._connection(), self._resolve()
        async with connection.looking:
            if not self._looked and self._is_own_server(target) and connection.client is not None:
                seconds = min(LOOK_SECONDS, self.timeout_seconds)
                client, base = connection.client.client, str(target.api_base)
                warning = await look(client, base, target.name, self._callee(), target.api_key, seconds)
                if warning is not None:
                    _LOG.warning("%s", warning)
            self._looked = True

    def _is_own_server(self, target: Target) -> bool:
        """Whether the user named the address of an OpenAI-compatible API."""
        alike = {"openai", "custom_openai", "openai_like", *self._litellm.openai_compatible_providers}
        return self.health_check and self._effective_base is not None and target.provider in alike

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
            return proposals_of(response, request.n)

        async with connection.slots:  # a call that backs off keeps its slot: that is what slows the others down too
            backoff = Backoff(self.retries, self.max_retry_seconds)
            proposals = await with_retries(
                attempt, backoff, seed=request.seed, sleep=self.sleep, on_failure=self._count
            )
        self.empty_total += sum(not item.action.text and not item.action.tool_calls for item in proposals)
        return [replace(proposals[0], usage=add_usage(paid)), *proposals[1:]]

    async def _send(self, request: ProposalRequest, connection: Connection) -> Any:
        parameters = self._parameters(request)
        exchange = Exchange()
        token = EXCHANGE.set(exchange)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await self._litellm.acompletion(client=connection.client, **parameters)
        except Exception as error:  # noqa: BLE001 - the one seam to LiteLLM: everything becomes an error of ours
            most = most_siblings(str(error), int(parameters.get("n", 1)))
            if most is not None:  # the second request asks for no more than that: it cannot be refused for it again
                self._most_siblings = most
                return await self._send(request, connection)
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
        siblings = min(request.n, self._most_siblings or request.n)
        if siblings > 1 and "n" in target.supported:
            sent["n"] = siblings
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
        names = [f"{(self._prefix or 'openai').upper()}_{end}" for end in ("BASE_URL", "API_BASE")]
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
            prices = Prices(self._litellm, provider, name, self._given_prices())
            base = base or self._effective_base
            self._target = Target(provider, name, key or known_key, base, frozenset(supported), prices)
        return self._target

    def _given_prices(self) -> GivenPrices | None:
        given = (self.input_cost_per_token, self.output_cost_per_token)
        return None if given == (None, None) else (given[0] or 0.0, given[1] or 0.0)

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
