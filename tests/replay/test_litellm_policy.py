"""The litellm policy against a real loopback HTTP server that answers from a script, call by call."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.replay.calls import Caller
from ttc_replay.replay.policies.base import Policy
from ttc_replay.replay.policies.litellm import LiteLLMPolicy, fold_seed, wire_messages
from ttc_replay.replay.policies.retry import Backoff, public_url, retry_after_seconds
from ttc_replay.storage.errors import (
    MissingExtra,
    MissingKey,
    ProviderRefused,
    ProviderReplyInvalid,
    ProviderUnavailable,
    TtcError,
    UsageError,
)
from ttc_replay.storage.records import Message, Proposal, ProposalRequest, Spec, Task, ToolCall

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the extra [litellm] is not installed"),
    # LiteLLM installs this very filter when it is imported; pytest undoes it for each test.
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier.*:UserWarning"),
]

KEY = "sk-test-0123456789abcdef"
PROVIDERS = ("openai/local-model", "hosted_vllm/local-model")
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
Result = TypeVar("Result")


# --- the server -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """One scripted answer. `drop` closes the socket unanswered, `reset` resets it; `cut` announces too many bytes."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drop: bool = False
    reset: bool = False
    cut: bool = False
    drip_seconds: float = 0.0

    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Call:
    path: str
    body: dict[str, Any]
    headers: dict[str, str]


Behaviour = Reply | Callable[[dict[str, Any]], Reply]


class Server(ThreadingHTTPServer):
    """Plays `script` call by call; a call beyond its end is refused with 418."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Behaviour] = []
        self.calls: list[Call] = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.running = self.most_running = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next(self, call: Call) -> Reply:
        with self.lock:
            number = len(self.calls)
            self.calls.append(call)
        behaviour = self.script[number] if number < len(self.script) else Reply(418, {"error": {"message": "too many"}})
        return behaviour if isinstance(behaviour, Reply) else behaviour(call.body)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that time out break pipes: expected here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = cast("Server", self.server)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        with server.lock:
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            reply = server.next(Call(self.path, body, {k.lower(): v for k, v in self.headers.items()}))
            server.stopping.wait(reply.delay_seconds)
        finally:
            with server.lock:
                server.running -= 1
        self.answer(reply, server.stopping)

    do_GET = do_POST

    def answer(self, reply: Reply, stopping: threading.Event) -> None:
        self.close_connection = reply.drop or reply.reset or reply.cut
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        if reply.drop or reply.reset:
            return
        payload = reply.payload()
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload) + 100 * reply.cut))
        self.end_headers()
        pieces = [payload[start : start + 40] for start in range(0, len(payload), 40)]
        for piece in pieces if reply.drip_seconds else [payload]:
            self.wfile.write(piece)
            stopping.wait(reply.drip_seconds)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.stopping.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def completion(*messages: Mapping[str, Any] | str | None, usage: Any = (10, 4), **extra: Any) -> Reply:
    choices = [
        {
            "index": index,
            "finish_reason": "tool_calls" if isinstance(message, Mapping) and message.get("tool_calls") else "stop",
            "message": dict(message) if isinstance(message, Mapping) else {"role": "assistant", "content": message},
        }
        for index, message in enumerate(messages)
    ]
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, **extra}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Reply(body=body)


def calling(*calls: tuple[str, str, str]) -> dict[str, Any]:
    rows = [{"id": i, "type": "function", "function": {"name": name, "arguments": raw}} for i, name, raw in calls]
    return {"role": "assistant", "content": None, "tool_calls": rows}


def failing(status: int, message: str = "no", **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "t", "code": "c"}}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


# --- the client side ------------------------------------------------------------------------------------------------


class Naps:
    """A sleep that takes no time and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def policy_for(server: Server, model: str = "openai/local-model", **options: Any) -> LiteLLMPolicy:
    return LiteLLMPolicy(model, **{"api_base": server.base, "api_key": KEY, "sleep": Naps(), **options})


def naps(policy: LiteLLMPolicy) -> list[float]:
    assert isinstance(policy.sleep, Naps)
    return policy.sleep.seconds


def request(
    *messages: Message, n: int = 1, seed: int = 7, tools: Sequence[Any] = (), **sampling: Any
) -> ProposalRequest:
    context = messages or (Message("system", "Be brief."), Message("user", "Go"))
    return ProposalRequest(Task("t"), "trajectory", 0, "0", context, tuple(tools), n, seed, sampling)


def run(policy: LiteLLMPolicy, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    async def main() -> Result:
        try:
            return await work()
        finally:
            await policy.close()

    return asyncio.run(main())


def ask(policy: LiteLLMPolicy, *requests: ProposalRequest) -> list[list[Proposal]]:
    return run(policy, lambda: policy.propose(requests or [request()]))


def refusal(policy: LiteLLMPolicy, *requests: ProposalRequest) -> TtcError:
    with pytest.raises(TtcError) as caught:
        ask(policy, *requests)
    error = caught.value
    told = " ".join(map(str, (error.line(), error.hint, error.args, vars(error))))
    assert KEY not in told
    assert "\n" not in error.line()
    assert error.hint
    return error


# --- replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_text_reply_with_its_usage(server: Server, model: str) -> None:
    server.script = [completion("Hello")]
    policy = policy_for(server, model)
    assert isinstance(policy, Policy)
    [[proposal]] = ask(policy)
    assert proposal.action == Message("assistant", "Hello")
    assert (proposal.finish_reason, proposal.logprob) == ("stop", None)
    assert proposal.usage is not None
    assert (proposal.usage.prompt_tokens, proposal.usage.completion_tokens, proposal.usage.cost_usd) == (10, 4, 0.0)
    [call] = server.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go"}]
    assert call.body["model"] == "local-model"
    assert (call.body["temperature"], call.body["max_tokens"]) == (1.0, 1024)
    assert not {"tools", "n", "logprobs", "top_p", "stream", "tool_choice"} & call.body.keys()


@pytest.mark.parametrize("model", PROVIDERS)
def test_parallel_tool_calls_keep_what_was_written(server: Server, model: str) -> None:
    rows = [("a", "add", '{"x": 1}'), ("b", "add", '{"x": '), ("c", "list", ""), ("d", "add", '{"x": NaN}')]
    server.script = [completion(calling(*rows))]
    [[proposal]] = ask(policy_for(server, model), request(tools=[TOOL]))
    assert proposal.action.content is None
    assert proposal.action.tool_calls == (
        ToolCall("a", "add", {"x": 1}, '{"x": 1}'),
        ToolCall("b", "add", None, '{"x": '),
        ToolCall("c", "list", {}, ""),
        ToolCall("d", "add", None, '{"x": NaN}'),
    )
    assert proposal.finish_reason == "tool_calls"


@pytest.mark.parametrize("model", PROVIDERS)
def test_what_is_sent(server: Server, model: str) -> None:
    server.script = [completion("a", "b", "c")]
    policy = policy_for(
        server,
        model,
        temperature=0.5,
        top_p=0.9,
        tool_choice="auto",
        parallel_tool_calls=False,
        extra_body={"min_p": 0.05},
    )
    [batch] = ask(
        policy, request(n=3, seed=(1 << 62) + 5, tools=[TOOL, TOOL["function"]], max_tokens=9, first_sample=4)
    )
    body = server.calls[0].body
    assert [proposal.action.content for proposal in batch] == ["a", "b", "c"]
    assert (body["n"], body["seed"], body["temperature"], body["top_p"]) == (3, fold_seed((1 << 62) + 5), 0.5, 0.9)
    assert (body["max_tokens"], body["min_p"], body["tool_choice"]) == (9, 0.05, "auto")
    assert body["parallel_tool_calls"] is False
    assert body["tools"] == [TOOL, TOOL]
    assert "first_sample" not in body
    assert len(server.calls) == 1


def test_usage_of_a_call_is_counted_once(server: Server) -> None:
    server.script = [completion("a", "b", usage=(100, 20))]
    [batch] = ask(policy_for(server), request(n=2))
    assert [proposal.usage is None for proposal in batch] == [False, True]


@pytest.mark.parametrize(("given", "kept"), [(("a",), 1), (("a", "b", "c", "d"), 3)])
def test_fewer_choices_are_fewer_proposals_and_more_are_cut(server: Server, given: Any, kept: int) -> None:
    server.script = [completion(*given)]
    [batch] = ask(policy_for(server), request(n=3))
    assert (len(batch), len(server.calls)) == (kept, 1)


def test_seed_can_be_left_out(server: Server) -> None:
    server.script = [completion("a")]
    ask(policy_for(server, seed_parameter=False, temperature=None))
    assert not {"seed", "temperature"} & server.calls[0].body.keys()


def test_logprobs_are_summed(server: Server) -> None:
    tokens: list[dict[str, Any]] = [
        {"token": t, "logprob": p, "bytes": None, "top_logprobs": []} for t, p in (("He", -0.5), ("y", -1.25))
    ]
    reply = completion("Hey", "Ho")
    reply.body["choices"][0]["logprobs"] = {"content": tokens}
    server.script = [reply]
    [[first, second]] = ask(policy_for(server, logprobs=True), request(n=2))
    assert server.calls[0].body["logprobs"] is True
    assert (first.logprob, second.logprob) == (-1.75, None)


def test_reasoning_is_kept_and_goes_back_only_on_demand(server: Server) -> None:
    server.script = [completion({"role": "assistant", "content": "4", "reasoning_content": "2+2"}), completion("5")]
    policy = policy_for(server, send_reasoning=True)
    [[proposal]] = ask(policy)
    assert (proposal.action.reasoning, proposal.action.content) == ("2+2", "4")
    context = (Message("user", "q"), proposal.action, Message("user", "and?"))
    ask(policy, request(*context))
    assert server.calls[1].body["messages"][1]["reasoning_content"] == "2+2"
    assert "reasoning_content" not in wire_messages(context, reasoning=False)[1]


def test_an_empty_message_is_an_action_and_counted(server: Server) -> None:
    server.script = [completion(None)]
    policy = policy_for(server)
    [[proposal]] = ask(policy)
    assert proposal.action == Message("assistant", "")
    assert proposal.usage is not None
    assert policy.empty_total == 1


def test_a_provider_with_another_wire_format(server: Server) -> None:
    """Anthropic knows neither `n` nor `seed`: one proposal, and nothing it would refuse is sent."""
    content = [{"type": "text", "text": "Adding."}, {"type": "tool_use", "id": "t1", "name": "add", "input": {"x": 1}}]
    usage = {"input_tokens": 10, "output_tokens": 4}
    body = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": content, "usage": usage}
    server.script = [failing(529), Reply(body={**body, "stop_reason": "tool_use"})]
    policy = policy_for(server, "anthropic/claude-local", api_base=server.base.removesuffix("/v1"))
    [[proposal]] = ask(policy, request(n=3, tools=[TOOL]))
    assert proposal.action == Message("assistant", "Adding.", tool_calls=(ToolCall("t1", "add", {"x": 1}, '{"x": 1}'),))
    assert proposal.usage is not None
    assert (proposal.usage.prompt_tokens, proposal.usage.completion_tokens) == (10, 4)
    assert [call.path for call in server.calls] == ["/v1/messages"] * 2
    assert not {"n", "seed"} & server.calls[1].body.keys()
    assert policy.throttled_total == 1


def test_a_provider_with_a_client_of_its_own(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")
    server.script = [failing(429, retry_after="3"), completion("ok")]
    policy = policy_for(server, "azure/deployment", api_base=server.base.removesuffix("/v1"))
    [[proposal]] = ask(policy)
    assert (proposal.action.content, len(server.calls)) == ("ok", 2)
    assert 3.0 <= naps(policy)[0] <= 4.0


# --- cost -----------------------------------------------------------------------------------------------------------


def test_a_model_of_the_price_map_costs_its_price_cached_tokens_less(server: Server) -> None:
    reply = completion("a", usage=(1000, 100))
    reply.body["usage"]["prompt_tokens_details"] = {"cached_tokens": 500}
    server.script = [reply]
    policy = policy_for(server, "openai/gpt-4o", max_tokens=100)
    [[proposal]] = ask(policy)
    assert proposal.usage is not None
    assert proposal.usage.cached_tokens == 500
    assert proposal.usage.cost_usd == pytest.approx(500 * 2.5e-6 + 500 * 1.25e-6 + 100 * 1e-5)
    worst = policy.estimate(request(n=2))
    assert worst.completion_tokens == 200
    assert worst.prompt_tokens is not None
    assert worst.cost_usd == pytest.approx(worst.prompt_tokens * 2.5e-6 + 200 * 1e-5)


def test_an_unknown_model_costs_nothing_and_says_so_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        policy = policy_for(server, "openai/never-heard-of-it")
        worst = policy.estimate(request(Message("user", "x" * 3000)))
        assert worst.cost_usd == 0.0
        assert worst.prompt_tokens is not None
        assert 1000 <= worst.prompt_tokens < 1100
    said = [line for line in caplog.messages if "never-heard-of-it" in line]
    assert len(said) == 1


@pytest.mark.parametrize(("model", "cost"), [("openai/gpt-4o", None), ("openai/local-model", 0.0)])
def test_a_reply_without_usage_has_unknown_usage(server: Server, model: str, cost: float | None) -> None:
    server.script = [completion("a", usage=None)]
    [[proposal]] = ask(policy_for(server, model))
    assert proposal.usage is not None
    assert (proposal.usage.prompt_tokens, proposal.usage.cost_usd) == (None, cost)


# --- failures that another attempt may mend -------------------------------------------------------------------------


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    "bad",
    [failing(429), failing(500), failing(529), failing(503), failing(408), Reply(drop=True), Reply(reset=True)],
    ids=["429", "500", "529", "503", "408", "dropped", "reset"],
)
def test_one_failure_is_one_more_call(server: Server, model: str, bad: Reply) -> None:
    server.script = [bad, completion("ok")]
    policy = policy_for(server, model)
    [[proposal]] = ask(policy)
    assert proposal.action.content == "ok"
    assert (len(server.calls), policy.attempts_total, policy.retries_total) == (2, 2, 1)
    assert policy.throttled_total == (bad.status in (429, 503, 529))
    assert [0.5 <= nap <= 1.0 for nap in naps(policy)] == [True]


def test_a_reply_cut_off_is_asked_for_again(server: Server) -> None:
    server.script = [Reply(body=completion("lost").body, cut=True), completion("ok")]
    policy = policy_for(server)
    [[proposal]] = ask(policy)
    assert (proposal.action.content, len(server.calls), policy.invalid_total) == ("ok", 2, 0)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry_after": "7"}, 7.0, 8.0),
        ({"retry_after": "0"}, 0.0, 1.0),
        ({"retry_after_ms": "2500"}, 2.5, 3.5),
        ({"retry_after": "soon"}, 0.5, 1.0),
        ({}, 0.5, 1.0),
    ],
)
def test_retry_after_is_honoured(server: Server, headers: dict[str, str], least: float, most: float) -> None:
    server.script = [failing(429, **headers), completion("ok")]
    policy = policy_for(server)
    ask(policy)
    [nap] = naps(policy)
    assert least <= nap <= most


def test_retry_after_as_a_date_counts_from_the_servers_clock(server: Server) -> None:
    server.script = [failing(429, retry_after=formatdate(time.time() + 20, usegmt=True)), completion("ok")]
    policy = policy_for(server)
    ask(policy)
    [nap] = naps(policy)
    assert 18.0 <= nap <= 22.0


def test_a_wait_beyond_the_limit_ends_the_call_at_once(server: Server) -> None:
    server.script = [failing(429, "slow down", retry_after="600")]
    policy = policy_for(server)
    error = refusal(policy)
    assert isinstance(error, ProviderUnavailable)
    assert error.exit_code == 7
    assert "slow down" in error.message
    assert "max_retry_seconds is 120" in error.message
    assert (len(server.calls), naps(policy), policy.retries_total) == (1, [], 0)


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_server_that_always_fails_is_given_up(server: Server, model: str) -> None:
    server.script = [failing(500, f"broken, key {KEY}")] * 9
    policy = policy_for(server, model, retries=3)
    error = refusal(policy)
    assert isinstance(error, ProviderUnavailable)
    assert "4 attempts" in error.message
    assert "broken, key ***" in error.message
    assert server.base in error.message
    assert (len(server.calls), policy.retries_total) == (4, 3)
    low = [0.5, 1.0, 2.0]
    assert [least <= nap <= 2 * least for nap, least in zip(naps(policy), low, strict=True)] == [True] * 3


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("slow", [Reply(delay_seconds=5.0), Reply(body=completion("x" * 400).body, drip_seconds=0.15)])
def test_a_slow_server_times_out_as_a_whole(server: Server, model: str, slow: Reply) -> None:
    server.script = [slow, slow]
    started = time.monotonic()
    error = refusal(policy_for(server, model, timeout_seconds=0.4, retries=1))
    assert isinstance(error, ProviderUnavailable)
    assert "no reply within 0.4 s" in error.message
    assert len(server.calls) == 2
    assert time.monotonic() - started < 4.0


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_server_that_is_down_is_named(model: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as free:
        base = f"http://user:pass@127.0.0.1:{free.server_port}/v1"
    policy = LiteLLMPolicy(model, api_base=base, api_key=KEY, retries=2, sleep=Naps())
    error = refusal(policy)
    assert isinstance(error, ProviderUnavailable)
    assert f"cannot reach {model} at http://127.0.0.1:{free.server_port}/v1" in error.message
    assert "pass@" not in error.message
    assert policy.attempts_total == 3


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    "bad",
    [
        Reply(body=b"<html>login</html>", headers={"content-type": "text/html"}),
        Reply(body=json.dumps(completion("x").body).encode()[:60]),
        Reply(body=[1, 2]),
        Reply(body=None),
        Reply(body={}),
        completion(),
        Reply(body={"error": {"message": "engine gone", "code": 500}}),
        Reply(body={**completion("x").body, "choices": [{"index": 0, "finish_reason": "stop"}]}),
    ],
    ids=["html", "half", "list", "null", "object", "no-choices", "error-body", "no-message"],
)
def test_a_reply_that_is_no_completion_is_asked_for_once_more(server: Server, model: str, bad: Reply) -> None:
    server.script = [bad, completion("ok"), bad, bad]
    policy = policy_for(server, model)
    [[proposal]] = ask(policy)
    assert (proposal.action.content, len(server.calls)) == ("ok", 2)
    error = refusal(policy)
    assert isinstance(error, ProviderReplyInvalid)
    assert "2 attempts" in error.message
    assert (len(server.calls), policy.invalid_total) == (4, 3)


def test_a_gateways_rate_limit_in_the_body_of_a_200_is_waited_for(server: Server) -> None:
    busy = Reply(body={"error": {"message": "busy", "code": 429}})
    server.script = [busy, busy, completion("ok")]
    policy = policy_for(server)
    [[proposal]] = ask(policy)
    assert (proposal.action.content, policy.throttled_total) == ("ok", 2)


def test_what_a_discarded_reply_cost_is_not_lost(server: Server) -> None:
    server.script = [completion(usage=(1000, 0)), completion("ok", usage=(1000, 100))]
    [[proposal]] = ask(policy_for(server, "openai/gpt-4o"))
    assert proposal.usage is not None
    assert proposal.usage.prompt_tokens == 2000
    assert proposal.usage.cost_usd == pytest.approx(2000 * 2.5e-6 + 100 * 1e-5)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (failing(400, "temperature is odd"), "temperature is odd"),
        (failing(400, "This model's maximum context length is 4096 tokens. However, you requested 5000"), "4096"),
        (failing(401, f"Incorrect API key provided: {KEY}"), "***"),
        (failing(403, "not yours"), "not yours"),
        (failing(404, "no such model"), "no such model"),
        (failing(422, "tools?"), "tools?"),
        (failing(429, "insufficient_quota: no credit"), "no credit"),
        (Reply(307, {}, {"location": "/v2/chat/completions?token=abc"}), "/v2/chat/completions"),
        (Reply(302, {}, {"location": "/login"}), "/login"),
    ],
    ids=["400", "context", "401", "403", "404", "422", "quota", "307", "302"],
)
def test_refusals_are_not_repeated(server: Server, model: str, bad: Reply, words: str) -> None:
    server.script = [bad]
    policy = policy_for(server, model)
    error = refusal(policy)
    assert isinstance(error, ProviderRefused)
    assert words in error.message
    assert "token=abc" not in error.message
    assert (error.exit_code, len(server.calls), naps(policy)) == (7, 1, [])


def test_a_server_that_wants_a_key_nobody_gave(server: Server) -> None:
    server.script = [failing(401, "who are you?")]
    error = refusal(policy_for(server, api_key=None))
    assert isinstance(error, MissingKey)
    assert error.exit_code == 2
    assert "OPENAI_API_KEY" in str(error.hint)


def test_a_server_at_an_address_needs_no_key(server: Server) -> None:
    server.script = [completion("ok")]
    [[proposal]] = ask(policy_for(server, api_key=None))
    assert proposal.action.content == "ok"


def test_a_named_variable_holds_the_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_for(server, api_key=None, api_key_env="TEAM_KEY")
    with pytest.raises(MissingKey, match="TEAM_KEY"):
        policy.check()
    monkeypatch.setenv("TEAM_KEY", "team-secret")
    server.script = [completion("ok")]
    policy = policy_for(server, api_key=None, api_key_env="TEAM_KEY")
    policy.check()
    ask(policy)
    assert server.calls[0].headers["authorization"] == "Bearer team-secret"
    assert "team-secret" not in json.dumps(policy.identity()) + repr(policy)


@pytest.mark.parametrize(
    ("model", "variable"), [("gpt-4o", "OPENAI"), ("anthropic/claude-x", "ANTHROPIC"), ("gemini/g", "GEMINI")]
)
def test_a_hosted_provider_without_a_key_is_refused_before_any_call(model: str, variable: str) -> None:
    policy = LiteLLMPolicy(model)
    with pytest.raises(MissingKey) as caught:
        policy.check()
    assert f"{variable}_API_KEY" in str(caught.value.hint)
    with pytest.raises(MissingKey):
        ask(policy)
    assert policy.attempts_total == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "no-such-thing"}, "no provider is known"),
        ({"model": "anthropic/claude-x", "api_key": KEY, "logprobs": True}, "logprobs"),
    ],
)
def test_check_refuses_what_cannot_work(
    options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=words):
        LiteLLMPolicy(**options).check()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"max_tokens": 0},
        {"retries": -1},
        {"concurrency": 0},
        {"timeout_seconds": 0},
        {"timeout_seconds": float("nan")},
        {"temperature": "hot"},
        {"retries": 1.5},
        {"api_base": "localhost:8000"},
        {"api_key": "k", "api_key_env": "K"},
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LiteLLMPolicy(**{"model": "openai/m", **options})


# --- many calls -----------------------------------------------------------------------------------------------------


def test_concurrency_is_bounded_and_order_kept(server: Server) -> None:
    def echo(body: dict[str, Any]) -> Reply:
        text = body["messages"][-1]["content"]
        return Reply(body=completion(text).body, delay_seconds=0.15 if text == "0" else 0.05)

    server.script = [echo] * 8
    policy = policy_for(server, concurrency=3)
    batches = ask(policy, *(request(Message("user", str(number))) for number in range(8)))
    assert [batch[0].action.content for batch in batches] == [str(number) for number in range(8)]
    assert server.most_running == 3


def test_a_second_event_loop_gets_its_own_connection(server: Server) -> None:
    server.script = [completion("a"), completion("b")]
    policy = policy_for(server)
    texts = [ask(policy)[0][0].action.content for _ in range(2)]
    assert texts == ["a", "b"]


def test_cancelling_leaves_nothing_open(server: Server) -> None:
    server.script = [Reply(delay_seconds=5.0), completion("ok")]
    policy = policy_for(server)

    async def work() -> list[list[Proposal]]:
        task = asyncio.create_task(policy.propose([request()]))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await policy.propose([request()])

    [[proposal]] = run(policy, work)
    assert proposal.action.content == "ok"


def test_the_same_call_is_paid_once(server: Server) -> None:
    """Through the engine's own seam: the second caller knows the first one's journal."""
    server.script = [completion("a", usage=(10, 2))]
    policy = policy_for(server)
    journal: list[Mapping[str, Any]] = []
    spec = Spec("litellm", {"model": policy.model})
    first = run(policy, lambda: Caller(policy, spec, journal.append, lambda keys: {}).propose([request()]))
    stored = {event["key"]: event for event in journal if event["event"] == "result"}
    cached = Caller(policy_for(server), spec, journal.append, lambda keys: {key: stored[key] for key in keys})
    second = run(policy, lambda: cached.propose([request()]))
    assert len(server.calls) == 1
    assert [item.action for item in second[0].proposals] == [item.action for item in first[0].proposals]
    assert second[0].usage == first[0].usage
    assert KEY not in json.dumps(journal)


def test_identity_holds_what_changes_the_reply_and_nothing_else() -> None:
    base = LiteLLMPolicy("openai/m", api_base="http://u:secret@host:1/v1?k=secret", api_key=KEY)
    same = LiteLLMPolicy("openai/m", api_base="http://host:1/v1", retries=0, concurrency=1, timeout_seconds=1.0)
    assert base.identity() == same.identity()
    text = json.dumps(base.identity())
    assert "secret" not in text
    assert KEY not in text
    others: list[dict[str, Any]] = [
        {"model": "openai/m2"},
        {"temperature": 0.0},
        {"max_tokens": 5},
        {"api_base": "http://other/v1"},
    ]
    others += [{"extra_body": {"top_k": 3}}, {"send_reasoning": True}, {"seed_parameter": False}]
    for options in others:
        given: dict[str, Any] = {"model": "openai/m", "api_base": "http://host:1/v1", **options}
        changed = LiteLLMPolicy(**given)
        assert changed.identity() != base.identity(), options


def test_a_model_on_the_server_drives_a_tool_conversation(server: Server) -> None:
    """Three steps: the scripted model reads what the tools said, as a real one would."""

    def model(body: dict[str, Any]) -> Reply:
        results = [int(row["content"]) for row in body["messages"] if row["role"] == "tool"]
        if len(results) < 2:
            start = results[-1] if results else 1
            return completion(calling((f"c{len(results)}", "add", json.dumps({"x": start, "y": 10}))))
        return completion(f"The sum is {results[-1]}.")

    server.script = [model] * 3
    policy = policy_for(server, "hosted_vllm/local-model")
    messages = [Message("system", "Add."), Message("user", "1 + 10 + 10?")]

    async def converse() -> None:
        for _ in range(3):
            [[proposal]] = await policy.propose([request(*messages, tools=[TOOL])])
            messages.append(proposal.action)
            for call in proposal.action.tool_calls:
                assert call.arguments is not None
                total = call.arguments["x"] + call.arguments["y"]
                messages.append(Message("tool", str(total), tool_call_id=call.id, name=call.name))

    run(policy, converse)
    assert messages[-1] == Message("assistant", "The sum is 21.")
    assert len(server.calls) == 3
    last = server.calls[-1].body["messages"]
    assert [row["role"] for row in last] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert [row["tool_call_id"] for row in last if row["role"] == "tool"] == ["c0", "c1"]
    assert all(isinstance(row["function"]["arguments"], str) for m in last for row in m.get("tool_calls", ()))


# --- pure parts -----------------------------------------------------------------------------------------------------


def test_messages_for_strict_servers() -> None:
    rows = wire_messages(
        [
            Message("user", None),
            Message("assistant", None, "thought", (ToolCall(None, "a", {"x": 1}), ToolCall(None, "b", None, "{oops"))),
            Message("tool", "1"),
            Message("user", "mine", tool_calls=(ToolCall("u", "phone", {}),), requestor="user"),
            Message("tool", "ring", tool_call_id="u", requestor="user"),
            Message("assistant", None),
            Message("assistant", "x", tool_calls=(ToolCall("k", "c", {}, ""),)),
            Message("function", "done", tool_call_id="k", name="c"),
            Message("user", "bad \ud800 text"),
        ],
        reasoning=False,
    )
    assert rows == [
        {"role": "user", "content": ""},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "function": {"name": "a", "arguments": '{"x":1}'}, "id": "call_1_0"},
                {"type": "function", "function": {"name": "b", "arguments": '{"invalid":"{oops"}'}, "id": "call_1_1"},
            ],
        },
        {"role": "tool", "content": "1", "tool_call_id": "call_1_0"},
        {"role": "tool", "tool_call_id": "call_1_1", "content": "Error: not executed"},
        {"role": "assistant", "content": ""},
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"id": "k", "type": "function", "function": {"name": "c", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "done", "tool_call_id": "k", "name": "c"},
        {"role": "user", "content": rows[-1]["content"]},
    ]
    rows[-1]["content"].encode("utf-8")
    assert rows[-1]["content"].startswith("bad ")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=6))
def test_every_call_on_the_wire_is_answered_once(turns: list[tuple[int, int]]) -> None:
    messages = [Message("user", "go")]
    for calls, results in turns:
        messages.append(Message("assistant", "", tool_calls=tuple(ToolCall(None, "f", {}) for _ in range(calls))))
        messages += [Message("tool", "r")] * min(calls, results)
    rows = wire_messages(messages, reasoning=False)
    asked = [call["id"] for row in rows for call in row.get("tool_calls", ())]
    answered = [row["tool_call_id"] for row in rows if row["role"] == "tool"]
    assert asked == answered
    assert len(set(asked)) == len(asked)


@given(st.integers(0, 40), st.integers(0, (1 << 63) - 1), st.none() | st.floats(0, 1e4))
def test_back_off_is_seeded_and_bounded(retry: int, seed: int, wish: float | None) -> None:
    backoff = Backoff()
    wait = backoff.wait_seconds(retry, seed, wish)
    assert wait == backoff.wait_seconds(retry, seed, wish)
    if wish is None:
        whole = min(30.0, 2.0**retry)
        assert whole / 2 <= wait <= whole
    else:
        assert wish <= wait <= wish + 1.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3.5"}, 3.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after_header(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, now=1.5e9) == seconds


@given(st.integers(0, (1 << 63) - 1))
def test_seeds_fit_every_server(seed: int) -> None:
    assert 0 <= fold_seed(seed) < 1 << 31
    assert fold_seed(seed) != fold_seed(seed ^ 1)


def test_addresses_lose_their_secrets() -> None:
    assert public_url("https://u:p@host:8/v1?key=x#f") == "https://host:8/v1"
    assert public_url("/login?next=x") == "/login"
    assert public_url(None) is None


# --- in a process of its own ----------------------------------------------------------------------------------------

ALONE = """
import asyncio, sys
sys.modules["mcp"] = None
before = set(sys.modules)
from ttc_replay.replay.policies.litellm import LiteLLMPolicy
assert "litellm" not in sys.modules and "httpx" not in sys.modules
from ttc_replay.storage.records import Message, ProposalRequest, Task
tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
ask = ProposalRequest(Task("t"), "x", 0, "0", (Message("user", "go"),), (tool,), 1, 3)

async def main():
    policy = LiteLLMPolicy("openai/m", api_base=sys.argv[1], retries=0)
    [[proposal]] = await policy.propose([ask])
    assert proposal.action.tool_calls[0].name == "add", proposal
    try:
        await policy.propose([ask])
    except Exception as error:
        assert type(error).__name__ == "ProviderRefused", error
    await policy.close()

asyncio.run(main())
"""


def test_a_process_without_mcp_stays_silent_and_closes_everything(server: Server, tmp_path: Path) -> None:
    server.script = [completion(calling(("a", "add", "{}"))), failing(400)]
    command = [
        sys.executable,
        "-W",
        "always::ResourceWarning",
        "-W",
        "always::RuntimeWarning",
        "-c",
        ALONE,
        server.base,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if "no price is known" not in line] == []
    assert len(server.calls) == 2


def test_without_litellm_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtra) as caught:
        LiteLLMPolicy("openai/m", api_base="http://127.0.0.1:9/v1").check()
    assert caught.value.hint == "pip install 'ttc-replay[litellm]'"


def test_attempts_keep_the_pace_retries_included(server: Server) -> None:
    server.script = [Reply(503, {"error": {"message": "busy"}}), *(completion("ok") for _ in range(3))]
    policy = policy_for(server, requests_per_minute=6, concurrency=8)
    ask(policy, *(request(seed=seed) for seed in range(3)))
    paced = [seconds for seconds in naps(policy) if seconds > 5]
    assert paced == pytest.approx([10, 20, 30], abs=2.0), "four attempts, ten seconds apart"
