"""The litellm policy against a real loopback HTTP server that answers from a script, call by call.

`wire` has the parts that test files need (they do not import each other).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from ttc_replay.replay.policies.litellm import LiteLLMPolicy
from ttc_replay.storage.errors import TtcError
from ttc_replay.storage.records import Message, Proposal, ProposalRequest, Task

KEY = "sk-test-0123456789abcdef"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
Result = TypeVar("Result")


# --- the server -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """One scripted answer. `drop` closes the socket unanswered, `reset` resets it; `cut` announces too many bytes."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drop: bool = False
    reset: bool = False
    cut: bool = False
    drip_seconds: float = 0.0

    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Call:
    path: str
    body: dict[str, Any]
    headers: dict[str, str]


Behaviour = Reply | Callable[[dict[str, Any]], Reply]


ANY_MODEL = Reply(body={"object": "list", "data": [{"id": "*", "object": "model", "owned_by": "test"}]})


class Server(ThreadingHTTPServer):
    """Plays `script` call by call; a call beyond its end is refused with 418. GET has the `pages` by path, else 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Behaviour] = []
        self.calls: list[Call] = []
        self.pages: dict[str, Reply] = {"/v1/models": ANY_MODEL}
        self.looks: list[Call] = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.running = self.most_running = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next(self, call: Call) -> Reply:
        with self.lock:
            number = len(self.calls)
            self.calls.append(call)
        behaviour = self.script[number] if number < len(self.script) else Reply(418, {"error": {"message": "too many"}})
        return behaviour if isinstance(behaviour, Reply) else behaviour(call.body)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that time out break pipes: expected here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each reply waits 40 ms for the acknowledgement of its head

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = cast("Server", self.server)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        with server.lock:
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            reply = server.next(Call(self.path, body, {k.lower(): v for k, v in self.headers.items()}))
            server.stopping.wait(reply.delay_seconds)
        finally:
            with server.lock:
                server.running -= 1
        self.answer(reply, server.stopping)

    def do_GET(self) -> None:
        server = cast("Server", self.server)
        call = Call(self.path, {}, {k.lower(): v for k, v in self.headers.items()})
        with server.lock:
            server.looks.append(call)
        reply = server.pages.get(self.path, Reply(404, {"error": {"message": "not found"}}))
        server.stopping.wait(reply.delay_seconds)
        self.answer(reply, server.stopping)

    def answer(self, reply: Reply, stopping: threading.Event) -> None:
        self.close_connection = reply.drop or reply.reset or reply.cut
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        if reply.drop or reply.reset:
            return
        payload = reply.payload()
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload) + 100 * reply.cut))
        self.end_headers()
        pieces = [payload[start : start + 40] for start in range(0, len(payload), 40)]
        for piece in pieces if reply.drip_seconds else [payload]:
            self.wfile.write(piece)
            stopping.wait(reply.drip_seconds)


@pytest.fixture
def server(serving: Any) -> Iterator[Server]:
    server = Server()
    with serving(server):
        yield server
        server.stopping.set()


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def completion(*messages: Mapping[str, Any] | str | None, usage: Any = (10, 4), **extra: Any) -> Reply:
    choices = [
        {
            "index": index,
            "finish_reason": "tool_calls" if isinstance(message, Mapping) and message.get("tool_calls") else "stop",
            "message": dict(message) if isinstance(message, Mapping) else {"role": "assistant", "content": message},
        }
        for index, message in enumerate(messages)
    ]
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, **extra}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Reply(body=body)


def calling(*calls: tuple[str, str, str]) -> dict[str, Any]:
    rows = [{"id": i, "type": "function", "function": {"name": name, "arguments": raw}} for i, name, raw in calls]
    return {"role": "assistant", "content": None, "tool_calls": rows}


def failing(status: int, message: str = "no", **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "t", "code": "c"}}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


# --- the client side ------------------------------------------------------------------------------------------------


class Naps:
    """A sleep that takes no time and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def policy_for(server: Server, model: str = "openai/local-model", **options: Any) -> LiteLLMPolicy:
    return LiteLLMPolicy(model, **{"api_base": server.base, "api_key": KEY, "sleep": Naps(), **options})


def naps(policy: LiteLLMPolicy) -> list[float]:
    assert isinstance(policy.sleep, Naps)
    return policy.sleep.seconds


def request(
    *messages: Message, n: int = 1, seed: int = 7, tools: Sequence[Any] = (), **sampling: Any
) -> ProposalRequest:
    context = messages or (Message("system", "Be brief."), Message("user", "Go"))
    return ProposalRequest(Task("t"), "trajectory", 0, "0", context, tuple(tools), n, seed, sampling)


def run(policy: LiteLLMPolicy, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    async def main() -> Result:
        try:
            return await work()
        finally:
            await policy.close()

    return asyncio.run(main())


def ask(policy: LiteLLMPolicy, *requests: ProposalRequest) -> list[list[Proposal]]:
    return run(policy, lambda: policy.propose(requests or [request()]))


def refusal(policy: LiteLLMPolicy, *requests: ProposalRequest) -> TtcError:
    with pytest.raises(TtcError) as caught:
        ask(policy, *requests)
    error = caught.value
    told = " ".join(map(str, (error.line(), error.hint, error.args, vars(error))))
    assert KEY not in told
    assert "\n" not in error.line()
    assert error.hint
    return error


@pytest.fixture(scope="session")
def wire() -> Any:
    """The server's replies and the client's side as one namespace."""
    return SimpleNamespace(
        **{"KEY": KEY, "TOOL": TOOL, "Reply": Reply, "Naps": Naps, "completion": completion, "calling": calling},
        **{"failing": failing, "policy_for": policy_for, "naps": naps, "request": request, "run": run, "ask": ask},
        refusal=refusal,
    )
