"""The scripted policy: by step, by path, by function; exclusion, ids and bad scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.replay.policies.base import Policy
from ttc_replay.replay.policies.scripted import ScriptedPolicy
from ttc_replay.storage.codec import action_key
from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.records import Message, ProposalRequest, Task, ToolCall

LOOK = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": "{}"}}],
}
BARE = {"tool_calls": [{"function": {"name": "look", "arguments": {"at": 1}}}, {"function": {"name": "stop"}}]}


def request(step: int, *said: str, n: int = 8, exclude: frozenset[str] = frozenset()) -> ProposalRequest:
    """A request after the agent said these things."""
    messages = (Message("user", "go"), *(Message("assistant", text) for text in said))
    return ProposalRequest(Task("t"), "run", step, "0", messages, (), n, 0, exclude=exclude)


def keys(policy: ScriptedPolicy, *asked: ProposalRequest) -> list[list[str]]:
    """The proposed action keys of each request."""
    return [[action_key(proposal.action) for proposal in batch] for batch in policy.propose(asked)]


@pytest.mark.parametrize(
    ("script", "asked", "expected"),
    [
        (["a", ["b", "c"]], request(0), ["say:a"]),
        (["a", ["b", "c"]], request(1, "a"), ["say:b", "say:c"]),
        (["a"], request(1, "a"), ["say:done"]),
        ([[]], request(0), []),
        ({"1": "second"}, request(1, "x"), ["say:second"]),
        ({1: "second"}, request(1, "x"), ["say:second"]),
        ({"": "start", "0": "other"}, request(0), ["say:start"]),
        ({"say:x > say:y": ["deep"], "2": "flat"}, request(2, "x", "y"), ["say:deep"]),
        ({"say:x > say:y": ["deep"], "2": "flat"}, request(2, "y", "x"), ["say:flat"]),
        ([LOOK], request(0), ["call:look({})"]),
        ([{"action": LOOK, "logprob": -1.0}], request(0), ["call:look({})"]),
        (["a", ["b", "b", "c"]], request(1, "a", n=2), ["say:b", "say:c"]),
        (["a", ["b", "c"]], request(1, "a", n=1), ["say:b"]),
        (["a", ["b", "c"]], request(1, "a", n=1, exclude=frozenset({"say:b"})), ["say:c"]),
        (["a"], request(0, exclude=frozenset({"say:a"})), []),
    ],
)
def test_the_script_decides(script: Any, asked: ProposalRequest, expected: list[str]) -> None:
    policy = ScriptedPolicy(script, default="done")
    assert keys(policy, asked) == [expected]
    assert keys(policy, asked, asked) == [expected, expected]


def test_it_is_a_finite_policy_that_never_blocks() -> None:
    policy = ScriptedPolicy(["a"])
    assert isinstance(policy, Policy)
    assert (policy.sampling, policy.inline) == (False, True)


def test_details_of_a_proposal_are_kept_and_missing_call_ids_are_filled() -> None:
    policy = ScriptedPolicy([[{"action": LOOK, "logprob": -1.5, "source": ["other", 3]}, BARE]])
    kept, filled = policy.propose([request(0)])[0]
    assert (kept.logprob, kept.source, kept.action.tool_calls[0].id) == (-1.5, ("other", 3), "c1")
    assert [call.id for call in filled.action.tool_calls] == ["call_0_0", "call_0_1"]
    assert filled.action.role == "assistant"


def test_a_function_is_asked_with_the_request() -> None:
    def play(asked: ProposalRequest) -> list[Any]:
        return [f"step {asked.step}", Message("assistant", tool_calls=(ToolCall("i", "look", {}),))]

    policy = ScriptedPolicy(play)
    assert keys(policy, request(4), request(5, n=1)) == [["say:step 4", "call:look({})"], ["say:step 5"]]


def test_a_file_holds_the_same_script(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"0": [LOOK, "hello"]}), encoding="utf-8")
    assert keys(ScriptedPolicy(file=str(path)), request(0), request(1)) == [["call:look({})", "say:hello"], []]


@pytest.mark.parametrize("content", ["{", '"text"', "3", "[[[1]]]", '{"0": 5}'])
def test_a_file_that_is_no_script_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        ScriptedPolicy(file=str(path))
    assert str(path) in caught.value.line()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"script": ["a"], "file": "b"},
        {"file": "/nonexistent/script.json"},
        {"script": "hello"},
        {"script": [7]},
        {"script": [{"action": None}]},
        {"default": [3]},
    ],
)
def test_bad_options_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ScriptedPolicy(**options)


def test_a_default_alone_is_a_script() -> None:
    assert keys(ScriptedPolicy(default=["a", "b"]), request(9)) == [["say:a", "say:b"]]
