"""What calls cost: prices of the bundled map by hand, cached tokens in both spellings, given prices, none at all."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.storage.records import Message

GPT = {"input": 2.5e-6, "read": 1.25e-6, "output": 1e-5}
CLAUDE = {"input": 3e-6, "read": 3e-7, "written": 3.75e-6, "output": 1.5e-5}
"""USD of a token of openai/gpt-4o and of anthropic/claude-sonnet-4-5, as the providers list them."""


def openai_usage(**details: int) -> dict[str, Any]:
    return {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "prompt_tokens_details": details}


OPENAI: dict[str, tuple[dict[str, Any], int | None, float]] = {
    "nothing cached": (openai_usage(cached_tokens=0), 0, 1000 * GPT["input"]),
    "read": (openai_usage(cached_tokens=400), 400, 600 * GPT["input"] + 400 * GPT["read"]),
    "all read": (openai_usage(cached_tokens=1000), 1000, 1000 * GPT["read"]),
    "no details": (
        {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        None,
        1000 * GPT["input"],
    ),
    "Anthropic's spelling through a gateway": (
        {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cache_read_input_tokens": 400},
        400,
        600 * GPT["input"] + 400 * GPT["read"],
    ),
}


@pytest.mark.parametrize("name", OPENAI)
def test_openai_usage(wire: Any, server: Any, name: str) -> None:
    usage, cached, prompt_usd = OPENAI[name]
    reply = wire.completion("a")
    reply.body["usage"] = usage
    server.script = [reply]
    [[proposal]] = wire.ask(wire.policy_for(server, "openai/gpt-4o"))
    assert (proposal.usage.prompt_tokens, proposal.usage.completion_tokens) == (1000, 100)
    assert proposal.usage.cached_tokens == cached
    assert proposal.usage.cost_usd == pytest.approx(prompt_usd + 100 * GPT["output"], rel=1e-9)


@pytest.mark.parametrize(("read", "written"), [(0, 0), (400, 0), (0, 300), (400, 300)])
def test_anthropic_usage(wire: Any, server: Any, read: int, written: int) -> None:
    """There `input_tokens` are those neither read from the cache nor written to it."""
    fresh = 1000 - read - written
    usage = {"input_tokens": fresh, "output_tokens": 100}
    usage |= {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    content = [{"type": "text", "text": "a"}]
    body = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": content, "usage": usage}
    server.script = [wire.Reply(body={**body, "stop_reason": "end_turn"})]
    base = server.base.removesuffix("/v1")
    [[proposal]] = wire.ask(wire.policy_for(server, "anthropic/claude-sonnet-4-5", api_base=base))
    assert (proposal.usage.prompt_tokens, proposal.usage.cached_tokens) == (1000, read)
    by_hand = fresh * CLAUDE["input"] + read * CLAUDE["read"] + written * CLAUDE["written"] + 100 * CLAUDE["output"]
    assert proposal.usage.cost_usd == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize(
    ("model", "options", "usd"),
    [
        ("openai/local-model", {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}, 1000e-6 + 200e-6),
        ("openai/gpt-4o", {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}, 1000e-6 + 200e-6),
        ("openai/gpt-4o", {"output_cost_per_token": 2e-6}, 200e-6),
        ("openai/gpt-4o", {"input_cost_per_token": 0.0}, 0.0),
    ],
)
def test_given_prices_win(wire: Any, server: Any, model: str, options: dict[str, float], usd: float) -> None:
    reply = wire.completion("a")
    reply.body["usage"] = openai_usage(cached_tokens=400)
    server.script = [reply]
    policy = wire.policy_for(server, model, max_tokens=50, **options)
    [[proposal]] = wire.ask(policy)
    assert proposal.usage.cost_usd == pytest.approx(usd, abs=1e-12)
    assert proposal.usage.cached_tokens == 400
    assert policy.priced
    worst = policy.estimate(wire.request(Message("user", "x" * 3000)))
    expected = worst.prompt_tokens * options.get("input_cost_per_token", 0.0)
    assert worst.cost_usd == pytest.approx(expected + 50 * options.get("output_cost_per_token", 0.0))


@pytest.mark.parametrize(
    ("model", "priced"),
    [
        ("openai/gpt-4o", True),
        ("anthropic/claude-sonnet-4-5", True),
        ("hosted_vllm/gpt-4o", False),
        ("openai/local-model", False),
        ("ollama/llama3", False),
    ],
)
def test_what_has_a_price(model: str, priced: bool) -> None:
    """A local server's model has none, whatever it is called; the report says so."""
    policy = LiteLLMPolicy(model, api_base="http://127.0.0.1:9/v1", api_key="k")
    assert policy.priced is priced
    assert policy.report()["priced"] is priced


def test_a_model_that_the_map_has_without_a_price_is_unpriced(wire: Any, server: Any, caplog: Any) -> None:
    """LiteLLM's map has entries of 0 USD for models that are not free."""
    policy = wire.policy_for(server, "openai/unpriced-in-map")
    litellm = policy._resolve() and policy._litellm
    litellm.model_cost["unpriced-in-map"] = {"litellm_provider": "openai", "mode": "chat", "max_tokens": 10}
    try:
        again = wire.policy_for(server, "openai/unpriced-in-map")
        assert not again.priced
        assert again.estimate(wire.request()).cost_usd == 0.0
    finally:
        del litellm.model_cost["unpriced-in-map"]


def test_the_report_counts_this_session(wire: Any, server: Any) -> None:
    server.script = [wire.failing(429), wire.completion(), wire.completion(None)]
    policy = wire.policy_for(server)
    wire.ask(policy)
    assert policy.report() == {
        "priced": False,
        "attempts": 3,
        "retries": 2,
        "throttled": 1,
        "invalid": 1,
        "empty": 1,
    }
