"""Write the golden logs beside this file. Claude Code cannot run here: they follow its line schema as real sessions and
the notes of those who parse them show it (versions 1.0.88, with side chains in the file, and 2.1.80).

    python make_claude_code.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
Line = dict[str, Any]


class Session:
    """Lines with ids and times counted up."""

    def __init__(self, name: str, version: str):
        self.name, self.version = name, version
        self.lines: list[Line] = []
        self.last: str | None = None

    def add(self, kind: str, parent: str | None = "", **more: Any) -> str:
        number = len(self.lines) + 1
        uuid = f"{self.name}-{number:02d}"
        self.lines.append(
            {
                "parentUuid": self.last if parent == "" else parent,
                "isSidechain": False,
                "userType": "external",
                "cwd": "/home/dev/greeting",
                "sessionId": self.name,
                "version": self.version,
                "gitBranch": "main",
                "type": kind,
                "uuid": uuid,
                "timestamp": f"2026-01-05T10:00:{number:02d}.000Z",
                **more,
            }
        )
        self.last = uuid
        return uuid

    def user(self, content: Any, parent: str | None = "", **more: Any) -> str:
        return self.add("user", parent, message={"role": "user", "content": content}, **more)

    def answer(self, identity: str, block: Line, tokens: int, parent: str | None = "", **more: Any) -> str:
        usage = {
            "input_tokens": 10,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 100,
            "output_tokens": tokens,
        }
        message = {
            "id": identity,
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [block],
            "stop_reason": more.pop("stop_reason", None),
            "usage": usage,
        }
        return self.add("assistant", parent, message=message, requestId=f"req_{identity}", **more)

    def write(self, name: str) -> None:
        (HERE / name).write_text("".join(json.dumps(line) + "\n" for line in self.lines))


def text(said: str) -> Line:
    return {"type": "text", "text": said}


def use(identity: str, name: str, **given: Any) -> Line:
    return {"type": "tool_use", "id": identity, "name": name, "input": given}


def result(identity: str, said: Any, **more: Any) -> list[Line]:
    return [{"tool_use_id": identity, "type": "tool_result", "content": said, **more}]


def main_session() -> Session:
    """Split answers, parallel calls, a side chain, an error, a rewound prompt, a compaction, unknown lines."""
    talk = Session("golden", "1.0.88")
    talk.lines.append({"type": "file-history-snapshot", "messageId": "m-1", "snapshot": {}, "isSnapshotUpdate": False})
    talk.user("Why does greet() not greet?")
    talk.answer("msg_1", {"type": "thinking", "thinking": "Look at both files.", "signature": "c2ln"}, 1)
    talk.answer("msg_1", text("I read both files."), 2)
    first = talk.answer("msg_1", use("toolu_1", "Read", file_path="/home/dev/greeting/greet.py"), 3)
    second = talk.answer("msg_1", use("toolu_2", "Read", file_path="/home/dev/greeting/none.py"), 40)
    # Two calls at once make a fork of the tree: the first result has no child.
    talk.user(result("toolu_1", "def greet(): pass"), first, toolUseResult={"type": "text", "file": {"numLines": 1}})
    failed = result("toolu_2", "File does not exist.", is_error=True)
    talk.user(failed, second, toolUseResult="Error: File does not exist.")
    task = "Find every caller of greet()."
    called = talk.answer("msg_2", use("toolu_3", "Task", description="callers", prompt=task), 30)
    talk.user(task, None, isSidechain=True)
    talk.answer("msg_s1", use("toolu_s", "Grep", pattern="greet"), 8, isSidechain=True)
    talk.user(result("toolu_s", "main.py:3"), isSidechain=True)
    talk.answer("msg_s2", text("main.py calls it."), 9, isSidechain=True, stop_reason="end_turn")
    talk.user(result("toolu_3", [text("main.py calls it.")]), called)
    asked = talk.answer("msg_3", text("It returns nothing. Shall I fix it?"), 20, stop_reason="end_turn")
    # What was asked here was rewound and asked in another way.
    talk.user("No, leave it.", asked)
    talk.answer("msg_4", text("Then I leave it."), 6, stop_reason="end_turn")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    talk.user([text("Yes, like in this picture."), image], asked)
    talk.answer("msg_5", use("toolu_4", "Edit", old_string="pass", new_string="return 'hello'"), 25)
    before = talk.user(result("toolu_4", "Updated."))
    talk.lines.append({"type": "queue-operation", "operation": "enqueue", "sessionId": "golden", "content": "later"})
    talk.add("progress", data={"type": "hook_progress"})
    talk.add(
        "system",
        None,
        subtype="compact_boundary",
        content="Conversation compacted",
        logicalParentUuid=before,
        compactMetadata={"trigger": "auto", "preTokens": 155000},
    )
    talk.user("This session continues: greet() was fixed.", isCompactSummary=True, isVisibleInTranscriptOnly=True)
    talk.answer("msg_6", use("toolu_5", "Bash", command="pytest -q"), 15, stop_reason="tool_use")
    talk.lines.append({"type": "summary", "summary": "Fixing greet()", "leafUuid": talk.last})
    return talk


def resumed() -> Session:
    """A session that was resumed: the older one's lines are copied with their ids, its session's too."""
    talk = Session("resumed", "2.1.80")
    talk.lines = [dict(line) for line in main_session().lines[1:8]]
    talk.last = talk.lines[-1]["uuid"]
    talk.user("Go on.")
    talk.answer("msg_9", text("Done."), 5, stop_reason="end_turn")
    return talk


def with_agent() -> tuple[Session, Session]:
    """A session of the newer kind and the file of its sub-agent."""
    talk, agent = Session("caller", "2.1.80"), Session("caller", "2.1.80")
    talk.user("Who calls greet()?")
    talk.answer("msg_a", use("toolu_a", "Task", prompt="Find callers."), 12)
    talk.user(result("toolu_a", "main.py"), toolUseResult={"status": "completed", "agentId": "a1b2c3d", "content": []})
    talk.answer("msg_b", text("main.py does."), 6, stop_reason="end_turn")
    agent.user("Find callers.", isSidechain=True, agentId="a1b2c3d")
    agent.answer("msg_c", text("main.py"), 4, isSidechain=True, agentId="a1b2c3d", stop_reason="end_turn")
    for line in agent.lines:
        line["uuid"] = "agent-" + line["uuid"]
        line["parentUuid"] = "agent-" + line["parentUuid"] if line["parentUuid"] else None
    return talk, agent


def main() -> None:
    main_session().write("session.jsonl")
    resumed().write("resumed.jsonl")
    talk, agent = with_agent()
    talk.write("caller.jsonl")
    (HERE / "caller" / "subagents").mkdir(parents=True, exist_ok=True)
    agent.write("caller/subagents/agent-a1b2c3d.jsonl")


if __name__ == "__main__":
    main()
