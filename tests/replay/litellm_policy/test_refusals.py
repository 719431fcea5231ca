"""What no attempt mends: refusals, missing keys, options that cannot be."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.replay.policies.litellm_options import most_siblings
from ttc_replay.replay.policies.retry import public_url
from ttc_replay.storage.errors import MissingExtra, MissingKey, ProviderRefused, UsageError

PROVIDERS = ("openai/local-model", "hosted_vllm/local-model")


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda wire: wire.failing(400, "temperature is odd"), "temperature is odd"),
        (
            lambda wire: wire.failing(
                400, "This model's maximum context length is 4096 tokens. However, you requested 5000"
            ),
            "4096",
        ),
        (lambda wire: wire.failing(401, f"Incorrect API key provided: {wire.KEY}"), "***"),
        (lambda wire: wire.failing(403, "not yours"), "not yours"),
        (lambda wire: wire.failing(404, "no such model"), "no such model"),
        (lambda wire: wire.failing(422, "tools?"), "tools?"),
        (lambda wire: wire.failing(429, "insufficient_quota: no credit"), "no credit"),
        (lambda wire: wire.Reply(307, {}, {"location": "/v2/chat/completions?token=abc"}), "/v2/chat/completions"),
        (lambda wire: wire.Reply(302, {}, {"location": "/login"}), "/login"),
    ],
    ids=["400", "context", "401", "403", "404", "422", "quota", "307", "302"],
)
def test_refusals_are_not_repeated(wire: Any, server: Any, model: str, bad: Any, words: str) -> None:
    bad = bad(wire)
    server.script = [bad]
    policy = wire.policy_for(server, model)
    error = wire.refusal(policy)
    assert isinstance(error, ProviderRefused)
    assert words in error.message
    assert "token=abc" not in error.message
    assert (error.exit_code, len(server.calls), wire.naps(policy)) == (7, 1, [])


def test_a_server_that_wants_a_key_nobody_gave(wire: Any, server: Any) -> None:
    server.script = [wire.failing(401, "who are you?")]
    error = wire.refusal(wire.policy_for(server, api_key=None))
    assert isinstance(error, MissingKey)
    assert error.exit_code == 2
    assert "OPENAI_API_KEY" in str(error.hint)


def test_a_server_at_an_address_needs_no_key(wire: Any, server: Any) -> None:
    server.script = [wire.completion("ok")]
    [[proposal]] = wire.ask(wire.policy_for(server, api_key=None))
    assert proposal.action.content == "ok"


def test_a_named_variable_holds_the_key(wire: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = wire.policy_for(server, api_key=None, api_key_env="TEAM_KEY")
    with pytest.raises(MissingKey, match="TEAM_KEY"):
        policy.check()
    monkeypatch.setenv("TEAM_KEY", "team-secret")
    server.script = [wire.completion("ok")]
    policy = wire.policy_for(server, api_key=None, api_key_env="TEAM_KEY")
    policy.check()
    wire.ask(policy)
    assert server.calls[0].headers["authorization"] == "Bearer team-secret"
    assert "team-secret" not in json.dumps(policy.identity()) + repr(policy)


@pytest.mark.parametrize(
    ("model", "variable"), [("gpt-4o", "OPENAI"), ("anthropic/claude-x", "ANTHROPIC"), ("gemini/g", "GEMINI")]
)
def test_a_hosted_provider_without_a_key_is_refused_before_any_call(wire: Any, model: str, variable: str) -> None:
    policy = LiteLLMPolicy(model)
    with pytest.raises(MissingKey) as caught:
        policy.check()
    assert f"{variable}_API_KEY" in str(caught.value.hint)
    with pytest.raises(MissingKey):
        wire.ask(policy)
    assert policy.attempts_total == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "no-such-thing"}, "no provider is known"),
        ({"model": "anthropic/claude-x", "api_key": "sk-test", "logprobs": True}, "logprobs"),
        (
            {"model": "openai/m", "api_base": "http://u:p@127.0.0.1:9/v1"},
            "^api_base http://127.0.0.1:9/v1 may not hold",
        ),
    ],
)
def test_check_refuses_what_cannot_work(
    wire: Any, options: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
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
        {"api_base": "http://localhost:80a/v1"},
        {"api_base": 8000},
        {"input_cost_per_token": -1e-6},
        {"output_cost_per_token": "dear"},
        {"extra_body": "top_k=3"},
        {"extra_body": {"n": 8}},
        {"extra_body": {"stream": True, "top_k": 3}},
        {"extra_body": {"max_tokens": 100_000}},
        {"api_key": "k", "api_key_env": "K"},
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LiteLLMPolicy(**{"model": "openai/m", **options})


def test_addresses_lose_their_secrets() -> None:
    assert public_url("https://u:p@host:8/v1?key=x#f") == "https://host:8/v1"
    assert public_url("/login?next=x") == "/login"
    assert public_url(None) is None


def test_without_litellm_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtra) as caught:
        LiteLLMPolicy("openai/m", api_base="http://127.0.0.1:9/v1").check()
    assert caught.value.hint == "pip install 'ttc-replay[litellm]'"


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_server_that_takes_fewer_siblings_is_asked_for_as_many_as_it_names(
    wire: Any, server: Any, model: str
) -> None:
    """What llama.cpp's server says that has two slots."""
    told = "Field 'n': Value must be between 1 <= value <= 2, but got 4"
    server.script = [wire.failing(400, told), wire.completion("a", "b"), wire.completion("c", "d")]
    policy = wire.policy_for(server, model)
    [first] = wire.ask(policy, wire.request(n=4))
    assert [item.action.text for item in first] == ["a", "b"]
    [second] = wire.ask(policy, wire.request(n=4, seed=8))
    assert [item.action.text for item in second] == ["c", "d"]
    assert [call.body.get("n") for call in server.calls] == [4, 2, 2]


@pytest.mark.parametrize(
    ("said", "asked", "most"),
    [
        ("Field 'n': Value must be between 1 <= value <= 2, but got 4", 4, 2),
        ("n must be at most 8", 16, 8),
        ("n must be at most 8", 8, None),
        ("n must be at most 0", 8, None),
        ("the number of tokens is at most 3", 8, None),
        ("maximum context length is 4096", 8192, None),
    ],
)
def test_the_most_siblings_a_refusal_names(said: str, asked: int, most: int | None) -> None:
    assert most_siblings(said, asked) == most
