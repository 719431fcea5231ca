"""Transports to Model Context Protocol servers that a server cannot abuse: bounded lines, bounded replies, a sure end.

The library's own stdio transport keeps a line in memory however long it is. Here a line has a limit, lines that are no
message are counted, the last of stderr is kept for error messages, and the process ends with its whole group.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

GRACE_SECONDS = 1.0
"""How long a server may take to end by itself after its stdin is closed."""
KEPT_OF_STDERR = 2_000
MOST_GARBAGE = 1_000
"""Lines that are no message, after which the server is given up."""


@dataclass(slots=True)
class Heard:
    """What came from a server beside its messages, for error texts."""

    garbage: int = 0
    first_garbage: str = ""
    stderr: bytes = b""
    broken: str | None = None
    """Why the connection was ended on this side."""
    exit_code: int | None = None
    hurry: bool = False
    """Whether the server gets no time to end by itself."""

    def told(self) -> str:
        """In words, "" when there is nothing to tell."""
        parts = [self.broken] if self.broken else []
        if self.exit_code is not None:
            parts.append(f"it ended with code {self.exit_code}")
        if self.garbage:
            parts.append(f"{self.garbage} lines on its stdout are no messages, the first: {self.first_garbage!r}")
        if said := self.stderr.decode("utf-8", "replace").strip():
            parts.append(f"its stderr ends: {said[-300:]}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Start:
    """How a server process is started. `most_bytes`: of one message."""

    command: Sequence[str]
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    most_bytes: int = 16 << 20


@asynccontextmanager
async def pipes(start: Start, heard: Heard) -> AsyncGenerator[tuple[Any, Any], None]:
    """A server process and its two message streams, as `mcp.Client` takes them. Raises OSError."""
    import anyio
    from mcp.client.stdio import get_default_environment

    process = await asyncio.create_subprocess_exec(
        *start.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=start.cwd,
        env={**get_default_environment(), "PYTHONHASHSEED": "0", **start.env},
        limit=start.most_bytes,
        start_new_session=True,
    )
    to_session, read_stream = anyio.create_memory_object_stream[Any](0)
    write_stream, from_session = anyio.create_memory_object_stream[Any](0)
    tasks = [
        asyncio.ensure_future(_read(process, to_session, heard)),
        asyncio.ensure_future(_write(process, from_session)),
        asyncio.ensure_future(_listen(process, heard)),
    ]
    try:
        yield read_stream, write_stream
    finally:
        await _end(process, heard)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (to_session, read_stream, write_stream, from_session):
            await stream.aclose()


async def _read(process: Any, to_session: Any, heard: Heard) -> None:
    """Lines of stdout become messages until it ends or stops making sense; then the session sees a closed stream."""
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    async with to_session:
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                heard.broken = "one message is longer than most_bytes"
                return
            if not line:
                return
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                heard.garbage += bool(line.strip())
                heard.first_garbage = heard.first_garbage or line[:80].decode("utf-8", "replace").strip()
                if heard.garbage >= MOST_GARBAGE:
                    heard.broken = "it does not speak the protocol"
                    return
                continue
            await to_session.send(SessionMessage(message))


async def _write(process: Any, from_session: Any) -> None:
    async with from_session:
        async for item in from_session:
            text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()


async def _listen(process: Any, heard: Heard) -> None:
    while chunk := await process.stderr.read(1 << 16):
        heard.stderr = (heard.stderr + chunk)[-KEPT_OF_STDERR:]


async def _end(process: Any, heard: Heard) -> None:
    """Close stdin, wait, then kill the process and everything it started."""
    with suppress(OSError):
        process.stdin.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.0 if heard.hurry or heard.broken else GRACE_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    heard.exit_code = await process.wait()


@asynccontextmanager
async def loopback(url: str, most_bytes: int, seconds: float) -> AsyncGenerator[tuple[Any, Any], None]:
    """A streamable HTTP connection whose replies are bounded; takes no proxy from the environment."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    class Bounded(httpx2.AsyncBaseTransport):
        """Counts the bytes of each reply."""

        inner = httpx2.AsyncHTTPTransport()

        async def handle_async_request(self, request: Any) -> Any:
            response = await self.inner.handle_async_request(request)
            if request.method == "POST":
                response.stream = _bounded(httpx2.AsyncByteStream, response.stream, most_bytes)
            return response

        async def aclose(self) -> None:
            await self.inner.aclose()

    timeout = httpx2.Timeout(seconds)
    async with (
        httpx2.AsyncClient(transport=Bounded(), timeout=timeout, trust_env=False) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=most_bytes) as streams,
    ):
        yield streams


def _bounded(base: Any, stream: Any, most_bytes: int) -> Any:
    """The same stream of bytes that fails when it is longer than it may be."""

    class Counted(base):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            seen = 0
            async for chunk in stream:
                seen += len(chunk)
                if seen > most_bytes:
                    raise OSError(f"a reply of more than {most_bytes} bytes")
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    return Counted()
