# mypy: disable-error-code="no-any-return"
"""Write golden Responses API logs with the types of the package `openai`: a scripted agent, no network.

usage: python make.py     (writes calls.jsonl and items.json beside this file)

calls.jsonl: three calls that go on from each other (parallel calls, one failed, one never answered; reasoning; cached
tokens), a branch of the second, one with the server's own search, and one that failed. items.json: a bare item list.
"""

import json
from pathlib import Path
from typing import Any

from openai.types.responses import Response

HERE = Path(__file__).parent
MODEL = "gpt-scripted-1"
TOOLS = [
    {
        "type": "function",
        "name": "read_file",
        "description": "Reads a file.",
        "strict": True,
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
    {"type": "local_shell"},
]


def answer(number: int, output: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The API's answer, checked by the library."""
    usage = {
        "input_tokens": 100 + number,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 109 + number,
    }
    about = {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1772366400.0 + number,
        "completed_at": 1772366400.5 + number,
        "model": MODEL,
        "status": "completed",
        "instructions": "You compare files.",
        "parallel_tool_calls": True,
        "temperature": 0.5,
        "tool_choice": "auto",
        "tools": TOOLS,
        "usage": usage,
        "output": output,
    }
    return Response.model_validate({**about, **more}).model_dump(mode="json", exclude_none=True)


def said(identity: str, text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": identity, "role": "assistant", "status": "completed", "content": [part]}


def called(call: str, path: str) -> dict[str, Any]:
    arguments = json.dumps({"path": path})
    return {"type": "function_call", "id": f"fc_{call}", "call_id": call, "name": "read_file", "arguments": arguments}


def result(call: str, output: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call, "output": output, **more}


def calls() -> list[dict[str, Any]]:
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "All three at once."}],
        "encrypted_content": "ZW5jcnlwdGVk",
    }
    image = {"type": "input_image", "detail": "low", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    first = answer(1, [thought, called("c1", "a.txt"), called("c2", "b.txt"), called("c3", "c.txt")])
    shell = {
        "type": "local_shell_call",
        "id": "ls_1",
        "call_id": "c4",
        "status": "completed",
        "action": {"type": "exec", "command": ["ls"], "env": {}},
    }
    answers = [
        result("c2", "no such file", status="incomplete"),
        result("c1", [{"type": "input_text", "text": "a dot"}]),
    ]
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "dots", "queries": ["dots"]},
    }
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "Compare with this:"}, image]}]
    listed = {"type": "local_shell_call_output", "id": "c4", "output": json.dumps({"stdout": "a.txt"})}
    failure = {"status": "failed", "error": {"code": "server_error", "message": "Try again."}}
    return [
        {"request": {"input": asked}, "response": first},
        {"request": {"input": answers}, "response": answer(2, [shell], previous_response_id="resp_1")},
        {
            "request": {"input": [listed]},
            "response": answer(3, [said("m3", "The same.")], previous_response_id="resp_2"),
        },
        {"request": {"input": answers}, "response": answer(4, [said("m4", "Done.")], previous_response_id="resp_1")},
        {"request": {"input": "What are dots?"}, "response": answer(5, [search, said("m5", "Small.")])},
        {"request": {"input": "Hello?"}, "response": answer(6, [], **failure)},
    ]


def items() -> list[dict[str, Any]]:
    custom = {"type": "custom_tool_call", "id": "ct_1", "call_id": "d1", "name": "patch", "input": "*** Begin Patch"}
    return [
        {"role": "developer", "content": "You patch."},
        {"role": "user", "content": "Patch it."},
        custom,
        {"type": "custom_tool_call_output", "call_id": "d1", "output": "ok"},
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "look", "arguments": "{}", "output": "seen"},
        said("m1", "Patched."),
    ]


def main() -> None:
    (HERE / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in calls()))
    (HERE / "items.json").write_text(json.dumps(items(), indent=1) + "\n")


if __name__ == "__main__":
    main()
