"""Write the golden log beside this file. SWE-agent needs a container: it follows the schema of the real files in the
shared traces, with what those lack: demonstrations, thinking blocks, a cost limit, usage, an open call.

    python make_swe_agent.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def main() -> None:
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "You fix bugs.", "agent": "main", "message_type": "system_prompt"},
        {"role": "user", "content": "Fix the demo.", "agent": "main", "is_demo": True, "message_type": "demonstration"},
        {"role": "assistant", "content": "I run it.", "action": "ls", "agent": "main", "is_demo": True},
        {"role": "user", "content": "demo.py", "agent": "main", "is_demo": True},
        {"role": "user", "content": "greet() does not greet.", "agent": "main", "message_type": "observation"},
        {
            "role": "assistant",
            "content": "Two looks.",
            "thought": "Two looks.",
            "action": "ls && cat greet.py",
            "agent": "main",
            "message_type": "action",
            "thinking_blocks": [{"type": "thinking", "thinking": "Independent.", "signature": "c2ln"}],
            "tool_calls": [call("c1", "bash", '{"command": "ls"}'), call("c2", "bash", '{"command": "cat greet.py"')],
        },
        {
            "role": "tool",
            "content": "greet.py",
            "agent": "main",
            "tool_call_ids": ["c1"],
            "message_type": "observation",
        },
        {
            "role": "assistant",
            "content": "",
            "action": "submit",
            "agent": "main",
            "tool_calls": [call("c3", "submit", "{}")],
        },
    ]
    document = {
        "trajectory": [
            {
                "action": "ls && cat greet.py",
                "observation": "greet.py",
                "response": "Two looks.",
                "thought": "Two looks.",
            }
        ],
        "history": history,
        "info": {
            "submission": "diff --git a/greet.py b/greet.py\n",
            "exit_status": "exit_cost",
            "model_stats": {"instance_cost": 1.5, "tokens_sent": 900, "tokens_received": 80, "api_calls": 2},
            "swe_agent_version": "1.1.0",
        },
        "environment": "main",
        "replay_config": json.dumps(
            {
                "env": {"repo": {"repo_name": "testbed", "base_commit": "0a1b"}},
                "agent": {"name": "main", "model": {"name": "gpt-4o", "temperature": 0.0, "stop": []}},
                "problem_statement": {"type": "text", "id": "tools__greet-1", "text": "greet() does not greet."},
            }
        ),
    }
    (HERE / "tools__greet-1.traj").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
