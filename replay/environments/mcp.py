"""The tools of a Model Context Protocol server as a world: re-executable, put back by a restart of the server.

The protocol has no call that puts state back. A world starts a server process of its own, and `reset` starts another:
what the process held is gone with it. What a tool did outside its process (a file, a database, a mail) stays done, and
a search does it again for every branch: such a server is `stateful=external`, and its answers count as `recorded` only.
"""

from __future__ import annotations

import atexit
import ipaddress
import os
import shlex
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

from ...storage.errors import DivergedError, EnvironmentFailed, MissingExtra, UsageError
from ...storage.records import Message, StepResult, Task, ToolCall, ToolSchema
from .mcp_connection import Connection, LoopThread
from .mcp_content import observation, refusal, schema_of
from .mcp_pipes import Start, loopback, pipes

Stateful = Literal["process", "session", "external"]
PUT_BACK = {
    "process": "a fresh server process",
    "session": "a fresh session of the same server process",
    "external": "nothing: what its tools changed stays changed",
}
"""By `stateful`: what stands behind a reset, said in `state()`."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an `mcp` world is told, checked."""

    command: Sequence[str] = ()
    url: str | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 30.0
    start_seconds: float = 30.0
    stateful: Stateful = "process"
    most_open: int = 16
    most_tools: int = 1_000
    most_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "start_seconds", "most_open", "most_tools", "most_bytes"):
            if not getattr(self, name) > 0:
                raise UsageError(f"mcp: {name} {getattr(self, name)!r} is not above 0")
        if self.stateful not in PUT_BACK:
            raise UsageError(f"mcp: stateful {self.stateful!r}", hint=f"one of: {', '.join(PUT_BACK)}")
        if bool(self.command) == bool(self.url):
            hint = '--env-opt command=\'["python","server.py"]\' or --env-opt url=http://127.0.0.1:8000/mcp'
            raise UsageError("mcp: give either a command or a url", hint=hint)
        if self.url is not None:
            _check_loopback(self.url)
            if self.stateful == "process":
                told = "mcp: a server at a url is not started here: its process cannot be put back"
                raise UsageError(told, hint="stateful=session if each session has its own state, else external")


def _check_loopback(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        near = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = False
    if parts.scheme not in ("http", "https") or not near:
        told = f"mcp: {url!r} is not on this machine"
        raise UsageError(told, hint="a search calls every tool many times: servers elsewhere are refused; use a tunnel")


class McpServers:
    """What the `mcp` worlds of a run share: the options, the event loop, the list of tools, who is open.

    At most `most_open` servers run; the one that was used longest ago is put to rest, and its world starts another and
    tells it again what it was told when it is needed.
    """

    def __init__(self, options: Options, normalise: Mapping[str, Any] | None = None):
        self.options = options
        self.normalise = normalise
        self.tools: tuple[ToolSchema, ...] | None = None
        self.about: dict[str, Any] = {}
        self._loop = LoopThread()
        self._open: OrderedDict[int, McpEnvironment] = OrderedDict()
        self._lock = threading.Lock()
        atexit.register(_close, weakref.ref(self))

    def __call__(self) -> McpEnvironment:
        """A new world; its server starts with `reset`."""
        return McpEnvironment(self)

    def check(self) -> None:
        """Raises MissingExtra without the library."""
        try:
            import mcp  # noqa: F401
        except ModuleNotFoundError as error:
            hint = "pip install 'ttc-replay[mcp]'"
            raise MissingExtra(f"environment 'mcp' needs the package {error.name}", hint=hint) from error

    def report(self) -> dict[str, Any]:
        """What the run's report says of the world."""
        stateful = self.options.stateful
        return {"server": self.about, "stateful": stateful, "put_back_by": PUT_BACK[stateful]}

    def connect(self, world: McpEnvironment) -> Connection:
        """A new server for `world`, its tools listed once. Raises EnvironmentFailed, MissingExtra."""
        self.check()
        self._make_room()
        connection = self._loop.run(self._connected())
        with self._lock:
            self._open[id(world)] = world
        return connection

    async def _connected(self) -> Connection:
        options = self.options
        if options.url is not None:
            transport: Any = lambda heard: loopback(str(options.url), options.most_bytes, options.timeout_seconds)  # noqa: E731
            place = options.url
        else:
            start = Start(options.command, options.cwd, options.env, options.most_bytes)
            transport, place = partial(pipes, start), shlex.join(options.command)[:120]
        connection = Connection(place, transport, options.timeout_seconds)
        await connection.open(options.start_seconds)
        if self.tools is None:
            self.tools = tuple(schema_of(tool) for tool in await connection.tools(options.most_tools))
            self.about = connection.info()
        return connection

    def _make_room(self) -> None:
        with self._lock:
            idle = [world for world in self._open.values() if not world.busy]
            over = len(self._open) + 1 - self.options.most_open
            resting = idle[: max(0, over)]
        for world in resting:
            world.rest()

    def used(self, world: McpEnvironment) -> None:
        """This world's server was used just now."""
        with self._lock:
            if id(world) in self._open:
                self._open.move_to_end(id(world))

    def run(self, work: Any) -> Any:
        """Run a coroutine of a connection."""
        return self._loop.run(work)

    def forget(self, world: McpEnvironment) -> None:
        """This world has no server any more."""
        with self._lock:
            self._open.pop(id(world), None)

    def close(self) -> None:
        """End every server and the loop."""
        with self._lock:
            worlds = list(self._open.values())
        for world in worlds:
            world.close()
        self._loop.close()


def _close(servers: weakref.ref[McpServers]) -> None:
    """At the end of this process: a server that hangs would outlive it."""
    if (left := servers()) is not None:
        left.close()


class McpEnvironment:
    """See `Environment`. Built by `McpServers`. Re-executable: a branch is a fresh server that was told the prefix.

    `shared` options: `command` (a list, or text in shell quoting) starts a server that talks over its stdin and
    stdout; `url` instead is a streamable HTTP server on this machine. `cwd`, `env` (names and values beside a few
    harmless ones), `pass_env` (names taken from this process). `timeout_seconds` a call, `start_seconds` a start.
    `stateful`: where the state is that tools change: `process`, `session` or `external`. `most_open` servers at once,
    `most_tools` listed, `most_bytes` a message; `normalise` as in docs/replay.md.
    """

    def __init__(self, servers: McpServers):
        self._servers = servers
        self._connection: Connection | None = None
        self._told: list[tuple[ToolCall, str]] = []
        self._lock = threading.RLock()
        self.normalise = servers.normalise
        self.busy = False

    @staticmethod
    def shared(
        *,
        command: Sequence[str] | str = (),
        url: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        pass_env: Sequence[str] = (),
        timeout_seconds: float = 30.0,
        start_seconds: float = 30.0,
        stateful: Stateful | None = None,
        most_open: int = 16,
        most_tools: int = 1_000,
        most_bytes: int = 16 << 20,
        normalise: Mapping[str, Any] | None = None,
    ) -> McpServers:
        """The factory of worlds that share one event loop and one list of tools. Raises UsageError."""
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
        passed = {name: os.environ[name] for name in pass_env if name in os.environ}
        given = {str(name): str(value) for name, value in (env or {}).items()}
        where = stateful or ("external" if url is not None else "process")
        checked = Options(
            words,
            url,
            cwd,
            {**passed, **given},
            timeout_seconds,
            start_seconds,
            where,
            most_open,
            most_tools,
            most_bytes,
        )
        return McpServers(checked, normalise)

    def reset(self, task: Task) -> list[Message]:
        """Start a fresh server; no prompt: only the log knows it. Raises EnvironmentFailed."""
        with self._lock:
            self.close()
            self._told = []
            self._connection = self._servers.connect(self)
        return []

    def step(self, action: Message) -> StepResult:
        """Call the tools in order. What a server refuses is an observation; no answer at all is EnvironmentFailed."""
        with self._lock:
            self.busy = True
            try:
                observations = [self._answer(call) for call in action.tool_calls]
            finally:
                self.busy = False
                self._servers.used(self)
        info = {"fidelity": "recorded"} if self._servers.options.stateful == "external" else {}
        return StepResult(observations, info=info)

    def _answer(self, call: ToolCall) -> Message:
        if call.arguments is None:
            return refusal(call, "the arguments are not a JSON object")
        said = self._call(self._awake(), call)
        self._told.append((call, said.text))
        return said

    def _awake(self) -> Connection:
        """The server; one that was put to rest starts again and is told everything again. Raises DivergedError."""
        if self._connection is None:
            self._connection = self._servers.connect(self)
            for place, (call, text) in enumerate(self._told):
                again = self._call(self._connection, call)
                if again.text != text:
                    raise DivergedError(place, text, again.text, place=f"{call.name}, told again after a restart")
        return self._connection

    def _call(self, connection: Connection, call: ToolCall) -> Message:
        try:
            result = self._servers.run(connection.call(call.name, dict(call.arguments or {})))
        except EnvironmentFailed:
            self._servers.forget(self)
            raise
        return refusal(call, str(result)) if isinstance(result, Exception) else observation(call, result)

    def tools(self) -> Sequence[ToolSchema]:
        """The tools that the server listed first; none before any server has started."""
        return self._servers.tools or ()

    def state(self) -> dict[str, Any]:
        """What was called and what a restart puts back: the server's own state is not to be had."""
        calls = [{"name": call.name, "arguments": call.arguments, "result": text} for call, text in self._told]
        return {"calls": calls, **self._servers.report()}

    def rest(self) -> None:
        """End the server but remember what it was told; nothing when a step is under way."""
        if self._lock.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End the server."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._servers.forget(self)
            if connection is not None:
                self._servers.run(connection.close())
