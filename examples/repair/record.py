"""Writes the logs: each attempt of `attempts.py` executed in the sandbox, in mini-swe-agent's form (version 1.1).

`python -m ttc_replay.examples.repair.record [FOLDER]`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttc_replay import Message, Task
from ttc_replay.examples.repair.attempts import ATTEMPTS, ISSUES, Attempt
from ttc_replay.replay.environments.shell import ShellEnvironment
from ttc_replay.storage.codec import message_to_dict

HERE = Path(__file__).parent
SYSTEM = "You mend code by running bash commands, one tool call at a time, each in a new subshell."


def record(name: str, attempt: Attempt) -> dict[str, Any]:
    """One run as a mini-swe-agent document."""
    world = ShellEnvironment(str(HERE / "repositories" / name), dialect="mini-swe-agent")
    world.reset(Task(name))
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"Please solve this issue: {ISSUES[name]}"},
    ]
    for number, (thought, command) in enumerate(attempt):
        action = _action(thought, command, f"call_{number}")
        done = world.step(Message("assistant", thought, tool_calls=_calls(action)))
        messages += [action, *map(message_to_dict, done.observations)]
    world.close()
    messages.append({"role": "exit", "content": "", "extra": {"exit_status": "Submitted", "submission": ""}})
    info = {"exit_status": "Submitted", "submission": "", "mini_version": "2.0.0", "config": {}}
    return {"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1", "instance_id": name}


def _action(thought: str, command: str, call_id: str) -> dict[str, Any]:
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    call = {"id": call_id, "type": "function", "function": function}
    extra = {"actions": [{"command": command, "tool_call_id": call_id}]}
    return {"role": "assistant", "content": thought, "tool_calls": [call], "extra": extra}


def _calls(action: dict[str, Any]) -> Any:
    from ttc_replay.storage.codec import call_from

    return tuple(map(call_from, action["tool_calls"]))


def main(arguments: Sequence[str]) -> None:
    """Write every log into a folder."""
    folder = Path(arguments[0]) if arguments else HERE / "logs"
    for name, attempts in ATTEMPTS.items():
        for number, attempt in enumerate(attempts):
            text = json.dumps(record(name, attempt), indent=1)
            (folder / f"{name}-{number}.traj.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
