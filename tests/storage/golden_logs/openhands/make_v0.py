"""Write the v0 golden logs beside this file. OpenHands v0 cannot be installed here: they follow its event schema, as
the real list in the shared traces has it, with what that one lacks: parallel calls, errors, a delegate, an open call.

    python make_v0.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Event = dict[str, Any]


def event(number: int, source: str, **more: Any) -> Event:
    return {"id": number, "timestamp": f"2026-01-05T10:00:{number:02d}.000000", "source": source, **more}


def response(identity: str, calls: list[tuple[str, str, str]], prompt: int, content: str | None = None) -> Event:
    made = [
        {"id": name, "type": "function", "function": {"name": tool, "arguments": arguments}}
        for name, tool, arguments in calls
    ]
    message = {"role": "assistant", "content": content, "tool_calls": made, "reasoning_content": "Think."}
    usage = {"prompt_tokens": prompt, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 5}}
    choices = [{"finish_reason": "tool_calls", "index": 0, "message": message}]
    return {"id": identity, "model": "scripted-1", "choices": choices, "usage": usage}


def meta(answer: Event, place: int) -> Event:
    call = answer["choices"][0]["message"]["tool_calls"][place]
    return {
        "function_name": call["function"]["name"],
        "tool_call_id": call["id"],
        "model_response": answer,
        "total_calls_in_response": len(answer["choices"][0]["message"]["tool_calls"]),
    }


def cost(value: float) -> Event:
    return {"accumulated_cost": value, "accumulated_token_usage": {"prompt_tokens": int(value * 1000)}}


def run() -> list[Event]:
    tools = [{"type": "function", "function": {"name": "execute_bash", "parameters": {"type": "object"}}}]
    two = response(
        "r1",
        [("c1", "execute_bash", '{"command": "ls"}'), ("c2", "execute_bash", '{"command": "cat none"}')],
        50,
        "Look.",
    )
    hand = response("r2", [("c3", "delegate_to_browsing_agent", '{"task": "find"}')], 70)
    inner = response("d1", [("d1", "browser", '{"code": "noop()"}')], 30)
    last = response("r3", [("c4", "finish", '{"message": "done"}')], 90)
    return [
        event(0, "agent", action="system", args={"content": "Be good.", "tools": tools, "agent_class": "CodeActAgent"}),
        event(1, "user", action="message", args={"content": "Fix it.", "image_urls": ["https://example.com/a.png"]}),
        event(2, "environment", observation="agent_state_changed", content="", extras={"agent_state": "running"}),
        event(3, "agent", action="run", args={"command": "ls"}, tool_call_metadata=meta(two, 0), llm_metrics=cost(0.5)),
        event(5, "agent", action="run", args={"command": "cat none"}, tool_call_metadata=meta(two, 1)),
        event(
            6,
            "agent",
            observation="run",
            content="cat: none",
            cause=5,
            success=False,
            tool_call_metadata=meta(two, 1),
            extras={"metadata": {"exit_code": 1}},
        ),
        event(7, "agent", observation="run", content="a", cause=3, success=True, tool_call_metadata=meta(two, 0)),
        event(
            8,
            "agent",
            action="delegate",
            args={"agent": "BrowsingAgent", "inputs": {"task": "find"}},
            tool_call_metadata=meta(hand, 0),
            llm_metrics=cost(0.75),
        ),
        event(
            9,
            "agent",
            action="browse_interactive",
            args={"browser_actions": "noop()"},
            tool_call_metadata=meta(inner, 0),
        ),
        event(10, "agent", observation="error", content="no browser", cause=9, tool_call_metadata=meta(inner, 0)),
        event(11, "agent", action="finish", args={"final_thought": "", "outputs": {}, "thought": "gone"}),
        event(12, "agent", observation="delegate", content="nothing", cause=8, tool_call_metadata=meta(hand, 0)),
        event(13, "agent", action="run", args={"command": "pwd", "thought": "Where am I?", "hidden": False}),
        event(14, "agent", observation="run", content="/app", cause=13, extras={"exit_code": 0}),
        event(
            15, "agent", action="finish", args={"thought": ""}, tool_call_metadata=meta(last, 0), llm_metrics=cost(1.0)
        ),
    ]


def main() -> None:
    (HERE / "v0-events.json").write_text(json.dumps(run(), indent=1) + "\n")
    record = {
        "instance_id": "tools__greet-1",
        "instance": {"patch": "the gold patch"},
        "instruction": "Fix it.",
        "metadata": {"agent_class": "CodeActAgent", "llm_config": {"model": "scripted-1", "temperature": 0.0}},
        "history": run(),
        "test_result": {"git_patch": "diff --git a/greet.py b/greet.py\n"},
        "metrics": {"accumulated_cost": 1.0},
        "report": {"resolved": True},
        "error": None,
    }
    failed = {**record, "instance_id": "tools__greet-2", "history": run()[:2], "error": "STUCK", "report": None}
    pairs = {
        **record,
        "instance_id": "tools__greet-3",
        "history": [run()[3:5], run()[5:7]],
        "report": {"resolved": False},
    }
    (HERE / "v0-output.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (record, failed, pairs)))


if __name__ == "__main__":
    main()
