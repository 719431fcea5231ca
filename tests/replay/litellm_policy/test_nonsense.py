"""A server that answers nonsense under status 200: asked once more and then a coded error, or taken as far as it goes.

What a retry cannot tell from a completion is data; what would corrupt a budget or a prior is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ttc_replay.storage.errors import ProviderReplyInvalid
from ttc_replay.storage.records import ToolCall, Usage

PROVIDERS = ("openai/local-model", "hosted_vllm/local-model")
PRICED = "openai/gpt-4o"

# the client libraries serialise what they could not check; `load_litellm` installs this filter, pytest undoes it
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")

Edit = Callable[[dict[str, Any]], object]


def message(**fields: Any) -> Edit:
    return lambda body: body["choices"][0]["message"].update(fields)


def choice(**fields: Any) -> Edit:
    return lambda body: body["choices"][0].update(fields)


def whole(**fields: Any) -> Edit:
    return lambda body: body.update(fields)


def called(**function: Any) -> Edit:
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}", **function}}
    return message(content=None, tool_calls=[call])


def logprobs(*values: Any) -> Edit:
    rows = [{"token": "x", "logprob": value, "bytes": None, "top_logprobs": []} for value in values]
    return choice(logprobs={"content": rows})


NO_COMPLETION: dict[str, Edit | bytes] = {
    "html": b"<!doctype html><title>502</title>",
    "empty": b"",
    "half": b'{"id": "c1", "choices": [{"index": 0, "message": {"role": "assis',
    "a number": b"5",
    "a text": b'"ok"',
    "not UTF-8": b'{"choices": [{"message": {"role": "assistant", "content": "\xff\xfe"}}]}',
    "nested 100,000 deep": b"[" * 100_000,
    "a stream": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    "choices: null": whole(choices=None),
    "choices: object": whole(choices={"0": {}}),
    "choices: [null]": whole(choices=[None]),
    "choices: [text]": whole(choices=["x"]),
    "message: null": choice(message=None),
    "message: text": choice(message="x"),
    "content: number": message(content=5),
    "content: object": message(content={"text": "x"}),
    "content: parts": message(content=[{"type": "text", "text": "x"}]),
    "reasoning: number": message(reasoning_content=5),
    "calls: object": message(tool_calls={"a": 1}),
    "calls: text": message(tool_calls="add"),
    "calls: [text]": message(tool_calls=["add"]),
    "calls: [null]": message(tool_calls=[None]),
    "call without function": message(tool_calls=[{"id": "a", "type": "function"}]),
    "function: text": message(tool_calls=[{"id": "a", "type": "function", "function": "add"}]),
    "name: number": called(name=7),
    "name: object": called(name={}),
    "arguments: number": called(arguments=5),
    "arguments: list": called(arguments=[1]),
    "error: text": whole(error="engine gone"),
    "error beside choices": whole(error={"message": "half done", "code": 500}),
    "logprob: null": logprobs(None),
    "usage: list": whole(usage=[1]),
    "usage: number": whole(usage=3),
    "usage: words": whole(usage={"prompt_tokens": "many", "completion_tokens": 1, "total_tokens": 1}),
    "usage: fractions": whole(usage={"prompt_tokens": 1.5, "completion_tokens": 1, "total_tokens": 2}),
}


def reply(wire: Any, edit: Edit | bytes) -> Any:
    made = wire.completion("x")
    if isinstance(edit, bytes):
        return wire.Reply(body=edit)
    edit(made.body)
    return made


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("name", NO_COMPLETION)
def test_what_is_no_completion_is_asked_for_once_more(wire: Any, server: Any, model: str, name: str) -> None:
    bad = reply(wire, NO_COMPLETION[name])
    server.script = [bad, bad]
    policy = wire.policy_for(server, model, logprobs=True)
    error = wire.refusal(policy, wire.request(tools=[wire.TOOL]))
    assert isinstance(error, ProviderReplyInvalid)
    assert (error.exit_code, len(server.calls), policy.invalid_total) == (7, 2, 2)
    assert server.base in error.message
    assert "the reply" in error.message or "choices" in error.message
    assert "2 attempts" in error.message


TAKEN: dict[str, tuple[Edit, dict[str, Any]]] = {
    "arguments: object": (
        called(arguments={"x": 1}),
        {"tool_calls": (ToolCall("a", "add", {"x": 1}, '{"x": 1}'),), "finish_reason": "tool_calls"},
    ),
    "arguments: no JSON": (called(arguments="x=1"), {"tool_calls": (ToolCall("a", "add", None, "x=1"),)}),
    "arguments: a JSON list": (called(arguments="[1]"), {"tool_calls": (ToolCall("a", "add", None, "[1]"),)}),
    "arguments: null": (called(arguments=None), {"tool_calls": (ToolCall("a", "add", {}, ""),)}),
    "name: null": (called(name=None), {"tool_calls": (ToolCall("a", "", {}, "{}"),)}),
    "id: number": (
        message(tool_calls=[{"id": 3, "type": "function", "function": {"name": "add", "arguments": "{}"}}]),
        {"tool_calls": (ToolCall("3", "add", {}, "{}"),)},
    ),
    "finish: unknown": (choice(finish_reason="banana"), {"finish_reason": "stop", "content": "x"}),
    "finish: null": (choice(finish_reason=None), {"finish_reason": "stop"}),
    "finish: number": (choice(finish_reason=3), {"finish_reason": "stop"}),
    "role: user": (message(role="user"), {"role": "assistant", "content": "x"}),
    "no index": (lambda body: body["choices"][0].pop("index"), {"content": "x"}),
    "error: null": (whole(error=None), {"content": "x"}),
    "NUL": (message(content="a\0b"), {"content": "a\0b"}),
    "a lone surrogate": (message(content="\ud800"), {"content": "\ud800"}),
    "logprobs: text": (choice(logprobs="x"), {"logprob": None}),
    "logprobs: {}": (choice(logprobs={}), {"logprob": None}),
    "logprobs of completions": (choice(logprobs={"tokens": ["a"], "token_logprobs": [-1.0]}), {"logprob": None}),
    "logprob: above 0": (logprobs(-1.0, 0.5), {"logprob": None}),
    "logprob: NaN": (logprobs(-1.0, float("nan")), {"logprob": None}),
    "logprob: infinite": (logprobs(float("-inf")), {"logprob": None}),
    "logprob: rounded up": (logprobs(-1.0, 1e-7), {"logprob": -1.0}),
}


@pytest.mark.parametrize("model", PROVIDERS)
@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_as_far_as_it_goes(wire: Any, server: Any, model: str, name: str) -> None:
    edit, expected = TAKEN[name]
    server.script = [reply(wire, edit)]
    policy = wire.policy_for(server, model, logprobs=True)
    [[proposal]] = wire.ask(policy, wire.request(tools=[wire.TOOL]))
    got = {key: getattr(proposal if hasattr(proposal, key) else proposal.action, key) for key in expected}
    assert got == expected
    assert (len(server.calls), policy.invalid_total) == (1, 0)


UNKNOWN = Usage(cost_usd=None)
PLAIN = Usage(10, 4, None, 10 * 2.5e-6 + 4 * 1e-5)
USAGES: dict[str, tuple[Any, Usage]] = {
    "missing": (None, UNKNOWN),
    "empty": ({}, UNKNOWN),
    "zero": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, UNKNOWN),
    "nulls": ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, UNKNOWN),
    "negative": ({"prompt_tokens": -5, "completion_tokens": -1, "total_tokens": -6}, UNKNOWN),
    "one negative": ({"prompt_tokens": 10, "completion_tokens": -4, "total_tokens": 6}, UNKNOWN),
    "numbers as text": ({"prompt_tokens": "10", "completion_tokens": "4", "total_tokens": "14"}, PLAIN),
    "cached: negative": (
        {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": -8}},
        PLAIN,
    ),
    "cached: more than the prompt": (
        {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 500}},
        PLAIN,
    ),
    "details: text": ({"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": "x"}, PLAIN),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_that_cannot_be_is_unknown_never_a_gain(wire: Any, server: Any, name: str) -> None:
    """The engine books unknown usage at its worst case; a negative one would pay money back."""
    usage, expected = USAGES[name]
    made = wire.completion("x", usage=None)
    if usage is not None:
        made.body["usage"] = usage
    server.script = [made]
    [[proposal]] = wire.ask(wire.policy_for(server, PRICED))
    got = proposal.usage
    assert (got.prompt_tokens, got.completion_tokens, got.cached_tokens) == (
        expected.prompt_tokens,
        expected.completion_tokens,
        expected.cached_tokens,
    )
    assert got.cost_usd == (None if expected.cost_usd is None else pytest.approx(expected.cost_usd))


@pytest.mark.parametrize("model", PROVIDERS)
def test_one_choice_too_many_is_cut_and_its_usage_counts(wire: Any, server: Any, model: str) -> None:
    server.script = [wire.completion("a", "b", "c", "d", usage=(10, 40))]
    [batch] = wire.ask(wire.policy_for(server, model), wire.request(n=3))
    assert [proposal.action.content for proposal in batch] == ["a", "b", "c"]
    assert batch[0].usage is not None
    assert batch[0].usage.completion_tokens == 40


def test_a_byte_order_mark_is_no_nonsense(wire: Any, server: Any) -> None:
    server.script = [wire.Reply(body=b"\xef\xbb\xbf" + json.dumps(wire.completion("ok").body).encode())]
    [[proposal]] = wire.ask(wire.policy_for(server))
    assert proposal.action.content == "ok"
