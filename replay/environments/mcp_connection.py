"""Connections to Model Context Protocol servers, used from any thread and kept on one event loop of their own.

The library's client is async and must be closed by the task that opened it; worlds are opened, used and closed from
different tasks and threads. So each connection is one task on one loop in one thread, and everyone else asks it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

from ...storage.errors import EnvironmentFailed
from .mcp_pipes import Heard

Result = TypeVar("Result")
Streams = AbstractAsyncContextManager[tuple[Any, Any]]


class LoopThread:
    """An event loop in a daemon thread, started when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine there and wait for it; call it from any other thread. Raises what it raises."""
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="mcp servers", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """Stop the loop; connections are to be closed before. It starts again when it is needed again."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


class Connection:
    """One session with one server. All methods are coroutines of the loop it lives on.

    `place` names the server in errors. After a failure it is closed: what the server did last is not known.
    """

    def __init__(self, place: str, transport: Callable[[Heard], Streams], call_seconds: float):
        self.place = place
        self.heard = Heard()
        self._transport = transport
        self._seconds = call_seconds
        self._client: Any = None
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, seconds: float) -> None:
        """Start the server and shake hands. Raises EnvironmentFailed."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._live(ready))
        try:
            await asyncio.wait_for(asyncio.shield(ready), seconds)
        except TimeoutError:
            raise await self._failed(f"it did not start within {seconds:g} s") from None
        except Exception as error:
            raise await self._failed(f"it did not start: {_brief(error)}") from error

    async def _live(self, ready: asyncio.Future[None]) -> None:
        from mcp import Client

        try:
            async with Client(self._transport(self.heard), cache=None, read_timeout_seconds=self._seconds) as client:
                self._client = client
                ready.set_result(None)
                await self._ending.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else EnvironmentFailed("cancelled"))
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._client = None

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The `CallToolResult` of one call, or an `MCPError` that the server answered with.

        Raises EnvironmentFailed, and the connection is closed, when no answer came or it cannot be understood.
        """
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        try:
            return await self._bounded(self._session().call_tool(name, arguments))
        except MCPError as error:
            if error.code in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
                raise await self._failed(f"no answer to {name}: {_brief(error)}") from error
            return error
        except TimeoutError:
            raise await self._failed(f"no answer to {name} within {self._seconds:g} s") from None
        except EnvironmentFailed:
            raise
        except Exception as error:
            raise await self._failed(f"the answer to {name} is none: {_brief(error)}") from error

    async def tools(self, most: int) -> list[Any]:
        """Every listed tool, page by page. Raises EnvironmentFailed for more than `most`, or an endless list."""
        from mcp_types import PaginatedRequestParams

        found: list[Any] = []
        cursor, seen = None, set[str | None]()
        try:
            while cursor not in seen:
                seen.add(cursor)
                params = PaginatedRequestParams(cursor=cursor) if cursor else None
                page = await self._bounded(self._session().list_tools(params=params))
                found += page.tools
                cursor = page.next_cursor
                if len(found) > most or len(seen) > most:
                    raise await self._failed(f"it lists more than {most} tools (most_tools)")
                if cursor is None:
                    return found
        except EnvironmentFailed:
            raise
        except Exception as error:
            raise await self._failed(f"its tools could not be listed: {_brief(error)}") from error
        raise await self._failed("its list of tools has no end")

    def info(self) -> dict[str, Any]:
        """Name and version of the server, as far as it tells, and the protocol's."""
        server = self._client.server_info if self._client is not None else None
        protocol = self._client.protocol_version if self._client is not None else None
        name, version = (server.name, server.version) if server is not None else (None, None)
        return {"name": name, "version": version, "protocol": protocol}

    def _session(self) -> Any:
        if self._client is None:
            raise EnvironmentFailed(f"{self.place}: the server is gone")
        return self._client.session

    async def _bounded(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The library's own timeout starts when a request is written; a server that does not read has none."""
        return await asyncio.wait_for(work, self._seconds + 1.0)

    async def _failed(self, why: str) -> EnvironmentFailed:
        self.heard.hurry = True
        if self._client is None and self._task is not None:
            self._task.cancel()  # it waits for a handshake that does not come
        await self.close()
        said = self.heard.told()
        return EnvironmentFailed(f"{self.place}: {why}" + (f" ({said})" if said else ""))

    async def close(self) -> None:
        """End the session, and the process with all it started."""
        self._ending.set()
        task = self._task
        if task is not None:
            with suppress(Exception, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(task), 5.0)
            task.cancel()


def _brief(error: BaseException) -> str:
    inner = error
    while isinstance(inner, BaseExceptionGroup) and inner.exceptions:
        inner = inner.exceptions[0]
    text = f"{type(inner).__name__}: {inner}"
    return text if len(text) <= 200 else text[:199] + "…"
