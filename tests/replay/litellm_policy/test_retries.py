"""Failures that another attempt may mend: how often, how long, and what is told in the end."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.replay.policies.retry import Backoff, retry_after_seconds
from ttc_replay.storage.errors import ProviderReplyInvalid, ProviderUnavailable

PROVIDERS = ("openai/local-model", "hosted_vllm/local-model")


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    "bad",
    [
        lambda wire: wire.failing(429),
        lambda wire: wire.failing(500),
        lambda wire: wire.failing(529),
        lambda wire: wire.failing(503),
        lambda wire: wire.failing(408),
        lambda wire: wire.Reply(drop=True),
        lambda wire: wire.Reply(reset=True),
    ],
    ids=["429", "500", "529", "503", "408", "dropped", "reset"],
)
def test_one_failure_is_one_more_call(wire: Any, server: Any, model: str, bad: Any) -> None:
    bad = bad(wire)
    server.script = [bad, wire.completion("ok")]
    policy = wire.policy_for(server, model)
    [[proposal]] = wire.ask(policy)
    assert proposal.action.content == "ok"
    assert (len(server.calls), policy.attempts_total, policy.retries_total) == (2, 2, 1)
    assert policy.throttled_total == (bad.status in (429, 503, 529))
    assert [0.5 <= nap <= 1.0 for nap in wire.naps(policy)] == [True]


def test_a_reply_cut_off_is_asked_for_again(wire: Any, server: Any) -> None:
    server.script = [wire.Reply(body=wire.completion("lost").body, cut=True), wire.completion("ok")]
    policy = wire.policy_for(server)
    [[proposal]] = wire.ask(policy)
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
def test_retry_after_is_honoured(wire: Any, server: Any, headers: dict[str, str], least: float, most: float) -> None:
    server.script = [wire.failing(429, **headers), wire.completion("ok")]
    policy = wire.policy_for(server)
    wire.ask(policy)
    [nap] = wire.naps(policy)
    assert least <= nap <= most


def test_retry_after_as_a_date_counts_from_the_servers_clock(wire: Any, server: Any) -> None:
    server.script = [wire.failing(429, retry_after=formatdate(time.time() + 20, usegmt=True)), wire.completion("ok")]
    policy = wire.policy_for(server)
    wire.ask(policy)
    [nap] = wire.naps(policy)
    assert 18.0 <= nap <= 22.0


def test_a_wait_beyond_the_limit_ends_the_call_at_once(wire: Any, server: Any) -> None:
    server.script = [wire.failing(429, "slow down", retry_after="600")]
    policy = wire.policy_for(server)
    error = wire.refusal(policy)
    assert isinstance(error, ProviderUnavailable)
    assert error.exit_code == 7
    assert "slow down" in error.message
    assert "max_retry_seconds is 120" in error.message
    assert (len(server.calls), wire.naps(policy), policy.retries_total) == (1, [], 0)


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_server_that_always_fails_is_given_up(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.failing(500, f"broken, key {wire.KEY}")] * 9
    policy = wire.policy_for(server, model, retries=3)
    error = wire.refusal(policy)
    assert isinstance(error, ProviderUnavailable)
    assert "4 attempts" in error.message
    assert "broken, key ***" in error.message
    assert server.base in error.message
    assert (len(server.calls), policy.retries_total) == (4, 3)
    low = [0.5, 1.0, 2.0]
    assert [least <= nap <= 2 * least for nap, least in zip(wire.naps(policy), low, strict=True)] == [True] * 3


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    "slow",
    [
        lambda wire: wire.Reply(delay_seconds=5.0),
        lambda wire: wire.Reply(body=wire.completion("x" * 400).body, drip_seconds=0.15),
    ],
    ids=["silent", "dripping"],
)
def test_a_slow_server_times_out_as_a_whole(wire: Any, server: Any, model: str, slow: Any) -> None:
    slow = slow(wire)
    server.script = [slow, slow]
    started = time.monotonic()
    error = wire.refusal(wire.policy_for(server, model, timeout_seconds=0.4, retries=1))
    assert isinstance(error, ProviderUnavailable)
    assert "no reply within 0.4 s" in error.message
    assert len(server.calls) == 2
    assert time.monotonic() - started < 4.0


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_server_that_is_down_is_named_at_once(wire: Any, model: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        base = f"http://127.0.0.1:{free.server_port}/v1"
    policy = LiteLLMPolicy(model, api_base=base, api_key=wire.KEY, retries=2, sleep=wire.Naps())
    error = wire.refusal(policy)
    assert isinstance(error, ProviderUnavailable)
    assert f"cannot reach {model} at {base}" in error.message
    assert "docs/servers.md" in str(error.hint)
    assert (policy.attempts_total, wire.naps(policy)) == (0, []), "no call is made, and nobody waits"


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    "bad",
    [
        lambda wire: wire.Reply(body=b"<html>login</html>", headers={"content-type": "text/html"}),
        lambda wire: wire.Reply(body=json.dumps(wire.completion("x").body).encode()[:60]),
        lambda wire: wire.Reply(body=[1, 2]),
        lambda wire: wire.Reply(body=None),
        lambda wire: wire.Reply(body={}),
        lambda wire: wire.completion(),
        lambda wire: wire.Reply(body={"error": {"message": "engine gone", "code": 500}}),
        lambda wire: wire.Reply(body={**wire.completion("x").body, "choices": [{"index": 0, "finish_reason": "stop"}]}),
    ],
    ids=["html", "half", "list", "null", "object", "no-choices", "error-body", "no-message"],
)
def test_a_reply_that_is_no_completion_is_asked_for_once_more(wire: Any, server: Any, model: str, bad: Any) -> None:
    bad = bad(wire)
    server.script = [bad, wire.completion("ok"), bad, bad]
    policy = wire.policy_for(server, model)
    [[proposal]] = wire.ask(policy)
    assert (proposal.action.content, len(server.calls)) == ("ok", 2)
    error = wire.refusal(policy)
    assert isinstance(error, ProviderReplyInvalid)
    assert "2 attempts" in error.message
    assert (len(server.calls), policy.invalid_total) == (4, 3)


def test_a_gateways_rate_limit_in_the_body_of_a_200_is_waited_for(wire: Any, server: Any) -> None:
    busy = wire.Reply(body={"error": {"message": "busy", "code": 429}})
    server.script = [busy, busy, wire.completion("ok")]
    policy = wire.policy_for(server)
    [[proposal]] = wire.ask(policy)
    assert (proposal.action.content, policy.throttled_total) == ("ok", 2)


def test_what_a_discarded_reply_cost_is_not_lost(wire: Any, server: Any) -> None:
    server.script = [wire.completion(usage=(1000, 0)), wire.completion("ok", usage=(1000, 100))]
    [[proposal]] = wire.ask(wire.policy_for(server, "openai/gpt-4o"))
    assert proposal.usage is not None
    assert proposal.usage.prompt_tokens == 2000
    assert proposal.usage.cost_usd == pytest.approx(2000 * 2.5e-6 + 100 * 1e-5)


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


def test_attempts_keep_the_pace_retries_included(wire: Any, server: Any) -> None:
    server.script = [wire.Reply(503, {"error": {"message": "busy"}}), *(wire.completion("ok") for _ in range(3))]
    policy = wire.policy_for(server, requests_per_minute=6, concurrency=8)
    wire.ask(policy, *(wire.request(seed=seed) for seed in range(3)))
    paced = [seconds for seconds in wire.naps(policy) if seconds > 5]
    assert paced == pytest.approx([10, 20, 30], abs=2.0), "four attempts, ten seconds apart"


def test_each_trajectory_keeps_its_pace_retries_included(wire: Any, server: Any) -> None:
    """At six a minute a trajectory's second call waits ten seconds, as does a retry; another trajectory does not."""
    server.script = [wire.completion("ok")] * 3 + [wire.failing(503), wire.completion("ok")]
    policy = wire.policy_for(server, trajectory_requests_per_minute=6)
    requests = [replace(wire.request(seed=seed), trajectory_id=name) for seed, name in enumerate("aab")]
    wire.ask(policy, *requests)
    assert [seconds for seconds in wire.naps(policy) if seconds > 5] == [pytest.approx(10, abs=2.0)]
    wire.ask(policy, requests[0])
    back_off, paced = wire.naps(policy)[-2:]
    assert (back_off <= 1, paced) == (True, pytest.approx(10, abs=2.0)), "the second attempt waits for its turn"


def test_what_a_useless_reply_used_is_its_worst_case_where_it_does_not_say(wire: Any, server: Any) -> None:
    half = wire.Reply(body=json.dumps(wire.completion("lost").body).encode()[:60])
    for useless in (half, wire.completion(usage=None)):
        server.script = [*server.script, useless, wire.completion("ok", usage=(100, 20))]
        policy = wire.policy_for(server, "openai/gpt-4o")
        [[proposal]] = wire.ask(policy)
        worst = policy.estimate(wire.request())
        assert proposal.usage.prompt_tokens == worst.prompt_tokens + 100
        assert proposal.usage.completion_tokens == 1024 + 20
        assert proposal.usage.cost_usd == pytest.approx(worst.cost_usd + 100 * 2.5e-6 + 20 * 1e-5)
