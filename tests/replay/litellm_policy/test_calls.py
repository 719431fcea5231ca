"""Many calls: side by side, cancelled, cached, in a conversation, and in a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.replay.calls import Caller
from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.storage.records import Message, Proposal, Spec


def test_concurrency_is_bounded_and_order_kept(wire: Any, server: Any) -> None:
    def echo(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        return wire.Reply(body=wire.completion(text).body, delay_seconds=0.15 if text == "0" else 0.05)

    server.script = [echo] * 8
    policy = wire.policy_for(server, concurrency=3)
    batches = wire.ask(policy, *(wire.request(Message("user", str(number))) for number in range(8)))
    assert [batch[0].action.content for batch in batches] == [str(number) for number in range(8)]
    assert server.most_running == 3


def test_a_second_event_loop_gets_its_own_connection(wire: Any, server: Any) -> None:
    server.script = [wire.completion("a"), wire.completion("b")]
    policy = wire.policy_for(server)
    texts = [wire.ask(policy)[0][0].action.content for _ in range(2)]
    assert texts == ["a", "b"]


def test_cancelling_leaves_nothing_open(wire: Any, server: Any) -> None:
    server.script = [wire.Reply(delay_seconds=5.0), wire.completion("ok")]
    policy = wire.policy_for(server)

    async def work() -> list[list[Proposal]]:
        task = asyncio.create_task(policy.propose([wire.request()]))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer: list[list[Proposal]] = await policy.propose([wire.request()])
        return answer

    [[proposal]] = wire.run(policy, work)
    assert proposal.action.content == "ok"


def test_the_same_call_is_paid_once(wire: Any, server: Any) -> None:
    """Through the engine's own seam: the second caller knows the first one's journal."""
    server.script = [wire.completion("a", usage=(10, 2))]
    policy = wire.policy_for(server)
    journal: list[Mapping[str, Any]] = []
    spec = Spec("litellm", {"model": policy.model})
    first = wire.run(policy, lambda: Caller(policy, spec, journal.append, lambda keys: {}).propose([wire.request()]))
    stored = {event["key"]: event for event in journal if event["event"] == "result"}
    cached = Caller(wire.policy_for(server), spec, journal.append, lambda keys: {key: stored[key] for key in keys})
    second = wire.run(policy, lambda: cached.propose([wire.request()]))
    assert len(server.calls) == 1
    assert [item.action for item in second[0].proposals] == [item.action for item in first[0].proposals]
    assert second[0].usage == first[0].usage
    assert wire.KEY not in json.dumps(journal)


def test_identity_holds_what_changes_the_reply_and_nothing_else(wire: Any) -> None:
    base = LiteLLMPolicy("openai/m", api_base="http://u:secret@host:1/v1?k=secret", api_key=wire.KEY)
    same = LiteLLMPolicy("openai/m", api_base="http://host:1/v1", retries=0, concurrency=1, timeout_seconds=1.0)
    assert base.identity() == same.identity()
    text = json.dumps(base.identity())
    assert "secret" not in text
    assert wire.KEY not in text
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


def test_a_model_on_the_server_drives_a_tool_conversation(wire: Any, server: Any) -> None:
    """Three steps: the scripted model reads what the tools said, as a real one would."""

    def model(body: dict[str, Any]) -> Any:
        results = [int(row["content"]) for row in body["messages"] if row["role"] == "tool"]
        if len(results) < 2:
            start = results[-1] if results else 1
            return wire.completion(wire.calling((f"c{len(results)}", "add", json.dumps({"x": start, "y": 10}))))
        return wire.completion(f"The sum is {results[-1]}.")

    server.script = [model] * 3
    policy = wire.policy_for(server, "hosted_vllm/local-model")
    messages = [Message("system", "Add."), Message("user", "1 + 10 + 10?")]

    async def converse() -> None:
        for _ in range(3):
            [[proposal]] = await policy.propose([wire.request(*messages, tools=[wire.TOOL])])
            messages.append(proposal.action)
            for call in proposal.action.tool_calls:
                assert call.arguments is not None
                total = call.arguments["x"] + call.arguments["y"]
                messages.append(Message("tool", str(total), tool_call_id=call.id, name=call.name))

    wire.run(policy, converse)
    assert messages[-1] == Message("assistant", "The sum is 21.")
    assert len(server.calls) == 3
    last = server.calls[-1].body["messages"]
    assert [row["role"] for row in last] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert [row["tool_call_id"] for row in last if row["role"] == "tool"] == ["c0", "c1"]
    assert all(isinstance(row["function"]["arguments"], str) for m in last for row in m.get("tool_calls", ()))


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


def test_a_process_without_mcp_stays_silent_and_closes_everything(wire: Any, server: Any, tmp_path: Path) -> None:
    server.script = [wire.completion(wire.calling(("a", "add", "{}"))), wire.failing(400)]
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
