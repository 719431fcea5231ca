"""Write the golden logs beside this file. Codex cannot run here: they follow the types in its sources (`RolloutLine`,
`ResponseItem` of codex-rs/protocol, `ThreadEvent` of codex-rs/exec) and, for old versions, real rollouts' first lines.

    python make.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Line = dict[str, Any]


class Rollout:
    """Lines with times counted up, and a token counter."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.total = [0, 0, 0]

    def add(self, line: str, **payload: Any) -> None:
        time = f"2026-01-05T10:00:{len(self.lines):02d}.000Z"
        self.lines.append({"timestamp": time, "type": line, "payload": payload})

    def item(self, kind: str, **payload: Any) -> None:
        self.add("response_item", type=kind, **payload)

    def event(self, name: str, **payload: Any) -> None:
        self.add("event_msg", type=name, **payload)

    def user(self, said: str) -> None:
        self.item("message", role="user", content=[{"type": "input_text", "text": said}])
        self.event("user_message", message=said, images=[])

    def assistant(self, said: str) -> None:
        self.item("message", role="assistant", content=[{"type": "output_text", "text": said}])
        self.event("agent_message", message=said)

    def call(self, identity: str, name: str, arguments: str) -> None:
        self.item("function_call", name=name, arguments=arguments, call_id=identity)

    def output(self, identity: str, said: Any) -> None:
        self.item("function_call_output", call_id=identity, output=said)

    def tokens(self, *spent: int) -> None:
        """One call's tokens (input, of it cached, output); without any the last count is said again."""
        self.total = [old + new for old, new in zip(self.total, spent or (0, 0, 0), strict=True)]
        names = ("input_tokens", "cached_input_tokens", "output_tokens")
        last = dict(zip(names, spent or (0, 0, 0), strict=True))
        info = {"total_token_usage": dict(zip(names, self.total, strict=True)), "last_token_usage": last}
        self.event("token_count", info=info, rate_limits=None)

    def write(self, name: str) -> None:
        (HERE / name).write_text("".join(json.dumps(line) + "\n" for line in self.lines))


def session(identity: str, **more: Any) -> Line:
    return {
        "id": identity,
        "timestamp": "2026-01-05T10:00:00.000Z",
        "cwd": "/home/dev/greeting",
        "originator": "codex_cli_rs",
        "cli_version": "0.98.0",
        "source": "cli",
        "model_provider": "openai",
        **more,
    }


def rollout() -> Rollout:
    """Parallel calls, a failed command, a free-text tool, a turn that was rolled back, a compaction, an open call."""
    log = Rollout()
    log.add("session_meta", **session("thread-1", base_instructions={"text": "You are Codex."}))
    log.item(
        "message",
        role="user",
        content=[
            {"type": "input_text", "text": "<environment_context>\n  <cwd>/home/dev</cwd>\n</environment_context>"}
        ],
    )
    log.event("task_started", model_context_window=272000)
    log.add(
        "turn_context", cwd="/home/dev", approval_policy="never", model="gpt-5.2-codex", effort="high", summary="auto"
    )
    log.user("Why does greet() not greet?")
    log.item("reasoning", summary=[{"type": "summary_text", "text": "Read both files."}], encrypted_content="gAAA")
    log.event("agent_reasoning", text="Read both files.")
    log.call("call_1", "exec_command", '{"cmd": "cat greet.py"}')
    log.call("call_2", "exec_command", '{"cmd": "cat none.py"}')
    log.tokens(1000, 0, 50)
    log.event("exec_command_end", call_id="call_2", exit_code=1, stdout="", stderr="none.py: No such file")
    log.output("call_2", "none.py: No such file")
    log.output("call_1", "def greet(): pass")
    log.tokens()
    log.item(
        "custom_tool_call",
        status="completed",
        call_id="call_3",
        name="apply_patch",
        input="*** Begin Patch\n*** End Patch",
    )
    log.tokens(1200, 1000, 30)
    log.item("custom_tool_call_output", call_id="call_3", output='{"output": "failed", "metadata": {"exit_code": 1}}')
    log.assistant("The patch was empty.")
    log.tokens(1300, 1200, 10)
    log.event("task_complete", last_agent_message="The patch was empty.")
    log.user("Forget it.")
    log.assistant("Forgotten.")
    log.tokens(1400, 1300, 5)
    log.event("thread_rolled_back", num_turns=1)
    log.user("Try again.")
    log.assistant("I try again.")
    log.call("call_4", "spawn_agent", '{"message": "find callers"}')
    log.tokens(1500, 1400, 25)
    log.output("call_4", '{"agent_id": "thread-2", "nickname": "Ada"}')
    history = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why does greet() not greet?"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Summary: greet() is empty."}]},
    ]
    log.add("compacted", message="Summary: greet() is empty.", replacement_history=history)
    log.call("call_5", "exec_command", '{"cmd": "pytest')
    log.tokens(400, 0, 20)
    log.event("turn_aborted", reason="interrupted")
    log.add("world_state", branch="main")
    return log


def subagent() -> Rollout:
    log = Rollout()
    spawned = {"subagent": {"thread_spawn": {"parent_thread_id": "thread-1", "depth": 1}}}
    log.add("session_meta", **session("thread-2") | {"source": spawned})
    log.user("find callers")
    log.assistant("main.py")
    return log


def bare() -> list[Line]:
    """A rollout of the summer of 2025: no envelope."""
    return [
        {"id": "thread-0", "timestamp": "2025-07-01T10:00:00.000Z", "instructions": "Be short.", "git": {}},
        {"record_type": "state"},
        {"type": "message", "id": None, "role": "user", "content": [{"type": "input_text", "text": "List files."}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "ls"}],
            "encrypted_content": None,
        },
        {
            "type": "local_shell_call",
            "id": "lsc_1",
            "call_id": "call_9",
            "status": "completed",
            "action": {"type": "exec", "command": ["ls"]},
        },
        {"type": "function_call_output", "call_id": "call_9", "output": '{"output":"a\\n","metadata":{"exit_code":0}}'},
        {"record_type": "state"},
        {"type": "message", "id": None, "role": "assistant", "content": [{"type": "output_text", "text": "One: a."}]},
    ]


def events_only() -> Rollout:
    """A legacy rollout that has events and no items."""
    log = Rollout()
    log.add("session_meta", **session("thread-3"))
    log.event("user_message", message="List files.", kind="plain")
    log.event("agent_reasoning", text="ls")
    log.event("exec_command_begin", call_id="call_7", command=["ls", "/nowhere"], cwd="/")
    log.event("exec_command_end", call_id="call_7", stdout="", aggregated_output="ls: /nowhere", exit_code=2)
    log.event("agent_message", message="There is none.")
    log.event("token_count", info=None)
    return log


def printed() -> list[Line]:
    """What `codex exec --json` prints."""

    def item(kind: str, **details: Any) -> Line:
        return {"type": kind, "item": details}

    command = {"id": "item_1", "type": "command_execution", "command": "bash -lc ls", "aggregated_output": ""}
    other = {
        "id": "item_2",
        "type": "mcp_tool_call",
        "server": "docs",
        "tool": "search",
        "arguments": {"query": "greet"},
    }
    return [
        {"type": "thread.started", "thread_id": "thread-4"},
        {"type": "turn.started"},
        item("item.completed", id="item_0", type="reasoning", text="List first."),
        item("item.started", **command, exit_code=None, status="in_progress"),
        item("item.started", **other, result=None, error=None, status="in_progress"),
        item("item.completed", **{**command, "aggregated_output": "no\n"}, exit_code=1, status="failed"),
        item("item.completed", **other, result={"content": [{"type": "text", "text": "1 hit"}]}, status="completed"),
        item(
            "item.completed",
            id="item_3",
            type="file_change",
            changes=[{"path": "a", "kind": "add"}],
            status="completed",
        ),
        item("item.started", id="item_4", type="web_search", query="greet"),
        item("item.completed", id="item_5", type="agent_message", text="Done."),
        {"type": "turn.completed", "usage": {"input_tokens": 900, "cached_input_tokens": 300, "output_tokens": 60}},
    ]


def main() -> None:
    rollout().write("rollout.jsonl")
    subagent().write("subagent.jsonl")
    events_only().write("events-only.jsonl")
    for name, lines in (("bare.jsonl", bare()), ("exec.jsonl", printed())):
        (HERE / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
