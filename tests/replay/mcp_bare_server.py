"""A Model Context Protocol server of the standard library alone: starts in no time, and misbehaves on request.

python mcp_bare_server.py [diary PATH | many N | endless | flood | silent | broken]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MOOD, VALUE = [*sys.argv, "", ""][1], [*sys.argv, "", "", ""][2]
ORDER = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
TOOLS: list[dict[str, Any]] = [{"name": name, "inputSchema": ORDER} for name in ("status", "refund", "misbehave")]
orders = {"W-1": "open", "W-2": "paid"}


def run_tool(name: str, order: str) -> str:
    if name == "status":
        return orders[order]
    if name == "refund":
        orders[order] = "refunded"
        if MOOD == "diary":  # outside the process: no restart takes it back
            with Path(VALUE).open("a") as diary:
                diary.write(f"{order}\n")
            return f"refund {len(Path(VALUE).read_text().split())}"
        return f"refunded {order}" + (f" in {os.getpid()}" if MOOD == "pid" else "")
    if order == "die":
        sys.stderr.write("out of paper\n")
        sys.stderr.flush()
        os._exit(3)
    if order == "hang":
        time.sleep(600)
    return "x" * 3_000_000


def listed(cursor: str | None) -> dict[str, Any]:
    if MOOD == "many":
        return {"tools": [{"name": f"tool_{number}", "inputSchema": ORDER} for number in range(int(VALUE))]}
    if MOOD == "endless":
        return {"tools": TOOLS[:1], "nextCursor": f"{cursor or ''}x"}
    return {"tools": TOOLS} if cursor else {"tools": TOOLS[:2], "nextCursor": "rest"}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        about = {"name": "bare", "version": "1"}
        version = params["protocolVersion"]
        return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}}
    if method == "tools/list":
        cursor = params.get("cursor")
        page = listed(cursor)
        return {"result": {"tools": TOOLS[2:]} if cursor == "rest" else page}
    if method == "tools/call":
        if MOOD == "broken":
            return {"result": {"content": "not a list"}}
        text = run_tool(params["name"], params["arguments"]["order"])
        return {"result": {"content": [{"type": "text", "text": text}]}}
    return {"error": {"code": -32601, "message": f"no method {method}"}}


if __name__ == "__main__":
    while MOOD == "flood":
        sys.stdout.write("no message\n" * 1000)
    if MOOD == "silent":
        time.sleep(600)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            said = answer(message["method"], message.get("params", {}))
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}), flush=True)
