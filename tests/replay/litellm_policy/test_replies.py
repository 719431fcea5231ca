"""What goes out to a model and what comes back, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay.replay.policies.base import Policy
from ttc_replay.replay.policies.wire import fold_seed, wire_messages
from ttc_replay.storage.records import Message, ToolCall

PROVIDERS = ("openai/local-model", "hosted_vllm/local-model")


@pytest.mark.parametrize("model", PROVIDERS)
def test_a_text_reply_with_its_usage(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.completion("Hello")]
    policy = wire.policy_for(server, model)
    assert isinstance(policy, Policy)
    [[proposal]] = wire.ask(policy)
    assert proposal.action == Message("assistant", "Hello")
    assert (proposal.finish_reason, proposal.logprob) == ("stop", None)
    assert proposal.usage is not None
    assert (proposal.usage.prompt_tokens, proposal.usage.completion_tokens, proposal.usage.cost_usd) == (10, 4, 0.0)
    [call] = server.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {wire.KEY}"
    assert call.body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go"}]
    assert call.body["model"] == "local-model"
    assert (call.body["temperature"], call.body["max_tokens"]) == (1.0, 1024)
    assert not {"tools", "n", "logprobs", "top_p", "stream", "tool_choice"} & call.body.keys()


@pytest.mark.parametrize("model", PROVIDERS)
def test_parallel_tool_calls_keep_what_was_written(wire: Any, server: Any, model: str) -> None:
    rows = [("a", "add", '{"x": 1}'), ("b", "add", '{"x": '), ("c", "list", ""), ("d", "add", '{"x": NaN}')]
    server.script = [wire.completion(wire.calling(*rows))]
    [[proposal]] = wire.ask(wire.policy_for(server, model), wire.request(tools=[wire.TOOL]))
    assert proposal.action.content is None
    assert proposal.action.tool_calls == (
        ToolCall("a", "add", {"x": 1}, '{"x": 1}'),
        ToolCall("b", "add", None, '{"x": '),
        ToolCall("c", "list", {}, ""),
        ToolCall("d", "add", None, '{"x": NaN}'),
    )
    assert proposal.finish_reason == "tool_calls"


@pytest.mark.parametrize("model", PROVIDERS)
def test_what_is_sent(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.completion("a", "b", "c")]
    policy = wire.policy_for(
        server,
        model,
        temperature=0.5,
        top_p=0.9,
        tool_choice="auto",
        parallel_tool_calls=False,
        extra_body={"min_p": 0.05},
    )
    [batch] = wire.ask(
        policy,
        wire.request(n=3, seed=(1 << 62) + 5, tools=[wire.TOOL, wire.TOOL["function"]], max_tokens=9, first_sample=4),
    )
    body = server.calls[0].body
    assert [proposal.action.content for proposal in batch] == ["a", "b", "c"]
    assert (body["n"], body["seed"], body["temperature"], body["top_p"]) == (3, fold_seed((1 << 62) + 5), 0.5, 0.9)
    assert (body["max_tokens"], body["min_p"], body["tool_choice"]) == (9, 0.05, "auto")
    assert body["parallel_tool_calls"] is False
    assert body["tools"] == [wire.TOOL, wire.TOOL]
    assert "first_sample" not in body
    assert len(server.calls) == 1


def test_usage_of_a_call_is_counted_once(wire: Any, server: Any) -> None:
    server.script = [wire.completion("a", "b", usage=(100, 20))]
    [batch] = wire.ask(wire.policy_for(server), wire.request(n=2))
    assert [proposal.usage is None for proposal in batch] == [False, True]


@pytest.mark.parametrize(("given", "kept"), [(("a",), 1), (("a", "b", "c", "d"), 3)])
def test_fewer_choices_are_fewer_proposals_and_more_are_cut(wire: Any, server: Any, given: Any, kept: int) -> None:
    server.script = [wire.completion(*given)]
    [batch] = wire.ask(wire.policy_for(server), wire.request(n=3))
    assert (len(batch), len(server.calls)) == (kept, 1)


def test_seed_can_be_left_out(wire: Any, server: Any) -> None:
    server.script = [wire.completion("a")]
    wire.ask(wire.policy_for(server, seed_parameter=False, temperature=None))
    assert not {"seed", "temperature"} & server.calls[0].body.keys()


def test_logprobs_are_summed(wire: Any, server: Any) -> None:
    tokens: list[dict[str, Any]] = [
        {"token": t, "logprob": p, "bytes": None, "top_logprobs": []} for t, p in (("He", -0.5), ("y", -1.25))
    ]
    reply = wire.completion("Hey", "Ho")
    reply.body["choices"][0]["logprobs"] = {"content": tokens}
    server.script = [reply]
    [[first, second]] = wire.ask(wire.policy_for(server, logprobs=True), wire.request(n=2))
    assert server.calls[0].body["logprobs"] is True
    assert (first.logprob, second.logprob) == (-1.75, None)


def test_reasoning_is_kept_and_goes_back_only_on_demand(wire: Any, server: Any) -> None:
    server.script = [
        wire.completion({"role": "assistant", "content": "4", "reasoning_content": "2+2"}),
        wire.completion("5"),
    ]
    policy = wire.policy_for(server, send_reasoning=True)
    [[proposal]] = wire.ask(policy)
    assert (proposal.action.reasoning, proposal.action.content) == ("2+2", "4")
    context = (Message("user", "q"), proposal.action, Message("user", "and?"))
    wire.ask(policy, wire.request(*context))
    assert server.calls[1].body["messages"][1]["reasoning_content"] == "2+2"
    assert "reasoning_content" not in wire_messages(context, reasoning=False)[1]


def test_an_empty_message_is_an_action_and_counted(wire: Any, server: Any) -> None:
    server.script = [wire.completion(None)]
    policy = wire.policy_for(server)
    [[proposal]] = wire.ask(policy)
    assert proposal.action == Message("assistant", "")
    assert proposal.usage is not None
    assert policy.empty_total == 1


def test_a_provider_with_another_wire_format(wire: Any, server: Any) -> None:
    """Anthropic knows neither `n` nor `seed`: one proposal, and nothing it would refuse is sent."""
    content = [{"type": "text", "text": "Adding."}, {"type": "tool_use", "id": "t1", "name": "add", "input": {"x": 1}}]
    usage = {"input_tokens": 10, "output_tokens": 4}
    body = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": content, "usage": usage}
    server.script = [wire.failing(529), wire.Reply(body={**body, "stop_reason": "tool_use"})]
    policy = wire.policy_for(server, "anthropic/claude-local", api_base=server.base.removesuffix("/v1"))
    [[proposal]] = wire.ask(policy, wire.request(n=3, tools=[wire.TOOL]))
    assert proposal.action == Message("assistant", "Adding.", tool_calls=(ToolCall("t1", "add", {"x": 1}, '{"x": 1}'),))
    assert proposal.usage is not None
    assert (proposal.usage.prompt_tokens, proposal.usage.completion_tokens) == (10, 4)
    assert [call.path for call in server.calls] == ["/v1/messages"] * 2
    assert not {"n", "seed"} & server.calls[1].body.keys()
    assert policy.throttled_total == 1


def test_a_provider_with_a_client_of_its_own(wire: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")
    server.script = [wire.failing(429, retry_after="3"), wire.completion("ok")]
    policy = wire.policy_for(server, "azure/deployment", api_base=server.base.removesuffix("/v1"))
    [[proposal]] = wire.ask(policy)
    assert (proposal.action.content, len(server.calls)) == ("ok", 2)
    assert 3.0 <= wire.naps(policy)[0] <= 4.0


def test_a_model_of_the_price_map_costs_its_price_cached_tokens_less(wire: Any, server: Any) -> None:
    reply = wire.completion("a", usage=(1000, 100))
    reply.body["usage"]["prompt_tokens_details"] = {"cached_tokens": 500}
    server.script = [reply]
    policy = wire.policy_for(server, "openai/gpt-4o", max_tokens=100)
    [[proposal]] = wire.ask(policy)
    assert proposal.usage is not None
    assert proposal.usage.cached_tokens == 500
    assert proposal.usage.cost_usd == pytest.approx(500 * 2.5e-6 + 500 * 1.25e-6 + 100 * 1e-5)
    worst = policy.estimate(wire.request(n=2))
    assert worst.completion_tokens == 200
    assert worst.prompt_tokens is not None
    assert worst.cost_usd == pytest.approx(worst.prompt_tokens * 2.5e-6 + 200 * 1e-5)


def test_an_unknown_model_costs_nothing_and_says_so_once(
    wire: Any, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        policy = wire.policy_for(server, "openai/never-heard-of-it")
        worst = policy.estimate(wire.request(Message("user", "x" * 3000)))
        assert worst.cost_usd == 0.0
        assert worst.prompt_tokens is not None
        assert 1000 <= worst.prompt_tokens < 1100
    said = [line for line in caplog.messages if "never-heard-of-it" in line]
    assert len(said) == 1


@pytest.mark.parametrize(("model", "cost"), [("openai/gpt-4o", None), ("openai/local-model", 0.0)])
def test_a_reply_without_usage_has_unknown_usage(wire: Any, server: Any, model: str, cost: float | None) -> None:
    server.script = [wire.completion("a", usage=None)]
    [[proposal]] = wire.ask(wire.policy_for(server, model))
    assert proposal.usage is not None
    assert (proposal.usage.prompt_tokens, proposal.usage.cost_usd) == (None, cost)
