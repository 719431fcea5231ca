"""The whole body of a request by the server's log, for what vLLM, SGLang and llama.cpp know; token ids vLLM gives."""

from __future__ import annotations

from typing import Any

import pytest

from ttc_replay.replay.calls import proposal_from_dict, proposal_to_dict
from ttc_replay.replay.policies.wire import fold_seed
from ttc_replay.storage.records import TokenTrace

PROVIDERS = ("openai/local-model", "hosted_vllm/local-model")
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer", "enum": [1, 2]}}, "required": ["x"]}
EXTRA: dict[str, dict[str, Any]] = {
    "vllm": {
        "top_k": 20,
        "min_p": 0.05,
        "repetition_penalty": 1.05,
        "structured_outputs": {"json": SCHEMA},
        "guided_json": SCHEMA,
        "return_token_ids": True,
        "chat_template_kwargs": {"enable_thinking": False},
        "cache_salt": "mine",
    },
    "sglang": {
        "top_k": 20,
        "min_p": 0.05,
        "regex": "[a-z]+",
        "ebnf": 'root ::= "yes" | "no"',
        "separate_reasoning": True,
        "lora_path": "adapter",
    },
    "llama.cpp": {
        "cache_prompt": True,
        "id_slot": 0,
        "top_k": 0,
        "min_p": 0.0,
        "n_probs": 1,
        "grammar": 'root ::= "yes"',
        "lora": [{"id": 0, "scale": 0.5}],
        "samplers": ["top_k", "temperature"],
    },
    "none": {},
}


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("name", EXTRA)
def test_the_whole_body(wire: Any, server: Any, model: str, name: str) -> None:
    server.script = [wire.completion("a", "b", "c")]
    policy = wire.policy_for(
        server,
        model,
        temperature=0.7,
        top_p=0.9,
        max_tokens=64,
        logprobs=True,
        tool_choice="required",
        extra_body=EXTRA[name],
    )
    tool = {"type": "function", "function": {"name": "pick", "description": "Pick.", "parameters": SCHEMA}}
    wire.ask(policy, wire.request(n=3, seed=(1 << 60) + 9, tools=[tool]))
    [call] = server.calls
    assert call.body == {
        "model": "local-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go"}],
        "n": 3,
        "seed": fold_seed((1 << 60) + 9),
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 64,
        "logprobs": True,
        "tools": [tool],
        "tool_choice": "required",
        **EXTRA[name],
    }


@pytest.mark.parametrize("model", PROVIDERS)
def test_one_named_tool(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.completion("a")]
    chosen = {"type": "function", "function": {"name": "add"}}
    wire.ask(wire.policy_for(server, model, tool_choice=chosen), wire.request(tools=[wire.TOOL]))
    assert server.calls[0].body["tool_choice"] == chosen


@pytest.mark.parametrize("model", PROVIDERS)
def test_without_tools_no_tool_option_is_sent(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.completion("a")]
    wire.ask(wire.policy_for(server, model, tool_choice="required", parallel_tool_calls=False))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & server.calls[0].body.keys()


@pytest.mark.parametrize("model", PROVIDERS)
def test_calls_of_different_seeds_differ_on_the_wire_and_equal_ones_do_not(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.completion("a")] * 3
    policy = wire.policy_for(server, model)
    for seed in (1, 2, 1):
        wire.ask(policy, wire.request(seed=seed))
    first, second, again = (call.body for call in server.calls)
    assert first == again
    assert first["seed"] != second["seed"]
    assert {**second, "seed": 0} == {**first, "seed": 0}


def traced(wire: Any, ids: Any, logprobs: tuple[float, ...] | None = (-0.5, -0.25), prompt: Any = (5, 6, 7)) -> Any:
    """A reply as vLLM gives it under `return_token_ids`."""
    made = wire.completion("a", "b", prompt_token_ids=prompt if prompt is None else list(prompt))
    first = made.body["choices"][0]
    first["token_ids"] = ids
    rows: list[dict[str, Any]]
    if logprobs is not None:
        rows = [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in logprobs]
        first["logprobs"] = {"content": rows}
    return made


@pytest.mark.parametrize("model", PROVIDERS)
def test_token_ids_are_kept_with_their_log_probabilities(wire: Any, server: Any, model: str) -> None:
    server.script = [traced(wire, [11, 12])]
    policy = wire.policy_for(server, model, logprobs=True, extra_body={"return_token_ids": True})
    [[first, second]] = wire.ask(policy, wire.request(n=2))
    assert first.tokens == TokenTrace((11, 12), (-0.5, -0.25), prompt=(5, 6, 7))
    assert first.logprob == -0.75
    assert second.tokens is None
    assert first.usage is not None, "the trace does not push the usage out"
    assert proposal_from_dict(proposal_to_dict(first)) == first, "and the journal keeps it"


@pytest.mark.parametrize(
    ("ids", "logprobs", "prompt"),
    [
        ([11], (-0.5, -0.25), (5,)),
        ([11, "12"], (-0.5, -0.25), (5,)),
        ([11, -1], (-0.5, -0.25), (5,)),
        ([11, True], (-0.5, -0.25), (5,)),
        ([], (-0.5, -0.25), (5,)),
        ("11", (-0.5, -0.25), (5,)),
        ([11, 12], None, (5,)),
        ([11, 12], (-0.5, 2.0), (5,)),
    ],
    ids=repr,
)
def test_token_ids_that_do_not_fit_are_left_out(wire: Any, server: Any, ids: Any, logprobs: Any, prompt: Any) -> None:
    server.script = [traced(wire, ids, logprobs, prompt)]
    [[first, _]] = wire.ask(wire.policy_for(server, logprobs=True), wire.request(n=2))
    assert first.tokens is None
    assert first.action.content == "a"


def test_a_prompt_that_is_not_told_is_not_kept(wire: Any, server: Any) -> None:
    server.script = [traced(wire, [11, 12], prompt=None)]
    [[first, _]] = wire.ask(wire.policy_for(server, logprobs=True), wire.request(n=2))
    assert first.tokens == TokenTrace((11, 12), (-0.5, -0.25))


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("model", PROVIDERS)
def test_reasoning_under_either_name(wire: Any, server: Any, model: str, name: str) -> None:
    """Newer vLLM says `reasoning`, SGLang and llama.cpp `reasoning_content`."""
    server.script = [wire.completion({"role": "assistant", "content": "4", name: "2+2"})]
    [[proposal]] = wire.ask(wire.policy_for(server, model))
    assert (proposal.action.content, proposal.action.reasoning) == ("4", "2+2")
