# mypy: disable-error-code="no-any-return"
"""Write a golden log of Messages API calls with the types of the package `anthropic`: a scripted agent, no network.

usage: python make.py     (writes calls.jsonl beside this file)

1: two parallel calls (one fails, one is never answered), thoughts, an image, cached tokens, and the answer.
2: the server's own search inside the answer. 3: an answer that goes on from the agent's own words. 4: an error.
"""

import json
from pathlib import Path
from typing import Any

from anthropic.types import Message, ToolParam

HERE = Path(__file__).parent
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MODEL = "claude-scripted-1"

TOOLS: list[ToolParam] = [
    {
        "name": "read_file",
        "description": "Reads a file.",
        "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    }
]


def answer(identity: str, content: list[dict[str, Any]], stop: str, **usage: int) -> dict[str, Any]:
    """The API's answer, checked by the library."""
    counts = {"input_tokens": 10, "output_tokens": 5, **usage}
    about = {"type": "message", "role": "assistant", "model": MODEL, "stop_reason": stop, "stop_sequence": None}
    message = Message.model_validate({"id": identity, **about, "content": content, "usage": counts})
    return message.model_dump(mode="json", exclude_none=True)


def first() -> dict[str, Any]:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DOT}}
    calls = [
        {"type": "tool_use", "id": f"toolu_{number}", "name": "read_file", "input": {"path": path}}
        for number, path in ((1, "a.txt"), (2, "b.txt"), (3, "c.txt"))
    ]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "Compare the files with this:"}, image]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "All three at once.", "signature": "c2lnbmF0dXJl"},
                {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"},
                {"type": "text", "text": "I read them."},
                *calls,
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such file", "is_error": True},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a dot"}]},
                {"type": "text", "text": "Be quick."},
            ],
        },
    ]
    usage = {"cache_read_input_tokens": 100, "cache_creation_input_tokens": 20}
    return {
        "model": MODEL,
        "max_tokens": 512,
        "temperature": 0.5,
        "system": [{"type": "text", "text": "You compare.", "cache_control": {"type": "ephemeral"}}],
        "messages": messages,
        "tools": TOOLS,
        "response": answer("msg_1", [{"type": "text", "text": "a.txt is the same."}], "end_turn", **usage),
        "started_at": "2026-03-01T12:00:00+01:00",
        "ended_at": "2026-03-01T12:00:02+01:00",
        "cost_usd": 0.25,
        "task_id": "compare",
        "reward": 1,
    }


def searched() -> dict[str, Any]:
    content: list[dict[str, Any]] = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "dots"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": [
                {"type": "web_search_result", "title": "Dots", "url": "about:dots", "encrypted_content": "eA=="}
            ],
        },
        {"type": "text", "text": "Dots are small."},
    ]
    server = {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}
    request = {
        "model": MODEL,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "What are dots?"}],
        "tools": [server],
    }
    return {"request": request, "response": answer("msg_2", content, "max_tokens")}


def prefilled() -> dict[str, Any]:
    messages = [{"role": "user", "content": "Biggest planet?"}, {"role": "assistant", "content": "It is ("}]
    request = {"model": MODEL, "max_tokens": 8, "messages": messages}
    return {"request": request, "response": answer("msg_3", [{"type": "text", "text": "Jupiter)"}], "end_turn")}


def failed() -> dict[str, Any]:
    request = {
        "model": MODEL,
        "max_tokens": 8,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hello?"}],
    }
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return {"request": request, "response": error}


def main() -> None:
    rows = [first(), searched(), prefilled(), failed()]
    (HERE / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
