"""A real small Model Context Protocol server, written with the library: an order desk over stdio, or over HTTP.

python mcp_server.py [PORT]
"""

from __future__ import annotations

import base64
import sys
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("orders")
orders: dict[str, str] = {"W-1": "open", "W-2": "paid"}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@server.tool(structured_output=False)
def status(order: str) -> str:
    """The status of an order."""
    if order not in orders:
        raise ToolError(f"no order {order}")
    return orders[order]


@server.tool(structured_output=False)
def refund(order: str) -> str:
    """Refund an order."""
    orders[order] = "refunded"
    return f"refunded {order}"


@server.tool()
def count() -> dict[str, int]:
    """How many orders there are."""
    return {"orders": len(orders)}


@server.tool(structured_output=False)
def picture() -> list[Any]:
    """A picture and a word."""
    return ["a pixel:", Image(data=PIXEL, format="png")]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        print("Welcome to the order desk!", flush=True)  # no message: many servers greet on stdout
        server.run("stdio")
