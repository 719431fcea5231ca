"""Write the golden logs beside this file with mini-swe-agent 2.4.6 itself: a scripted model, a real shell, no network.

    pip install mini-swe-agent==2.4.6        # in an environment of its own
    python make_mini_swe_agent.py

Clock and process environment are fixed, so that the files come out the same each time.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SYSTEM = "You can run bash commands through the bash tool."
TASK = "Please solve this issue: {{task}}"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && printf 'diff --git a/greet.py b/greet.py\\n'"


def call(identity: str, command: str) -> dict[str, Any]:
    arguments = json.dumps({"command": command})
    return {"id": identity, "type": "function", "function": {"name": "bash", "arguments": arguments}}


def output(
    content: str | None, calls: list[dict[str, Any]], usage: tuple[int, int, int], **more: Any
) -> dict[str, Any]:
    """An assistant message as the tool's LiteLLM model makes it: the answer of the API goes beside it."""
    prompt, completion, cached = usage
    response = {
        "id": f"chatcmpl-{prompt}",
        "model": "scripted-1",
        "object": "chat.completion",
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }
    actions = [
        {"command": json.loads(item["function"]["arguments"])["command"], "tool_call_id": item["id"]} for item in calls
    ]
    extra = {"actions": actions, "response": response, "cost": 0.25, "timestamp": time.time()}
    return {"role": "assistant", "content": content, "tool_calls": calls, **more, "extra": extra}


def item_output(text: str, identity: str, command: str) -> dict[str, Any]:
    """An answer of the Responses API, as the tool's model for it keeps one."""
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look first."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
        {
            "type": "function_call",
            "call_id": identity,
            "name": "bash",
            "arguments": json.dumps({"command": command}),
        },
    ]
    actions = [{"command": command, "tool_call_id": identity}]
    usage = {"input_tokens": 30, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 10}}
    return {
        "object": "response",
        "output": items,
        "usage": usage,
        "extra": {"actions": actions, "cost": 0.5, "timestamp": time.time()},
    }


def run(model: Any, name: str, task: str, **settings: Any) -> None:
    environment = import_module("minisweagent.environments.local").LocalEnvironment(env={}, cwd="/tmp")
    agent = import_module("minisweagent.agents.default").DefaultAgent(
        model, environment, system_template=SYSTEM, instance_template=TASK, **settings
    )
    agent.run(task)
    agent.save(HERE / name, {"instance_id": name.partition(".")[0]})


def main() -> None:
    ticks = itertools.count(1_760_000_000)
    time.time = lambda: float(next(ticks))
    os.environ.clear()
    os.environ["PATH"] = "/usr/bin:/bin"
    models = import_module("minisweagent.models.test_models")
    calls = [
        output(
            "I look around first.",
            [call("call_a", "printf 'one\\ntwo\\n'"), call("call_b", "echo no such file >&2; exit 3")],
            (100, 20, 0),
            reasoning_content="Two reads do not depend on each other.",
        ),
        output(None, [call("call_c", "echo fixed")], (180, 15, 100)),
        output("Done.", [call("call_d", SUBMIT)], (230, 12, 180)),
    ]
    run(models.DeterministicToolcallModel(outputs=calls), "tools__greet-1.v2.traj.json", "greet() does not greet")
    texts = [
        {
            "role": "assistant",
            "content": f"THOUGHT: {thought}\n\n```mswea_bash_command\n{command}\n```",
            "extra": {"actions": [{"command": command}], "cost": 1.0, "timestamp": time.time()},
        }
        for thought, command in (("List.", "ls /nowhere"), ("Again.", "echo hello"))
    ]
    run(models.DeterministicModel(outputs=texts), "text__greet-2.v2.traj.json", "say hello", step_limit=2)
    items = [item_output("I say hello.", "fc_1", "echo hello"), item_output("Done.", "fc_2", SUBMIT)]
    run(models.DeterministicResponseAPIToolcallModel(outputs=items), "items__greet-3.v2.traj.json", "say hello")


if __name__ == "__main__":
    main()
