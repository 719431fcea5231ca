"""The embedded engine as an OpenAI-compatible endpoint on this machine: any agent can be pointed at it.

    POST /v1/chat/completions     messages, tools, tool_choice, n, seed, logprobs, stop, stream
    GET  /v1/models               the one model
    GET  /health                  503 until the model is loaded

The standard library's server is enough: decoding is the work, and requests that wait are decoded together. There is no
authentication. A page in a browser cannot reach it all the same: bodies must be JSON, for which browsers ask leave that
nobody gives, and on a loopback address the Host header must name a loopback one (no DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

from .serving_answers import answered, ask_of, check_length, decoded, refused_from
from .serving_request import ChatRequest, Refused, parse_request
from .serving_stream import Events
from .speaking import Ask, Speaker

if TYPE_CHECKING:
    from ..policies.local import LocalPolicy

MOST_BYTES = 64 << 20
"""Of one request's body."""
WINDOW_SECONDS = 0.005
"""How long the first request of a batch waits for others: agents that start together are decoded together."""
IDLE_SECONDS = 120.0
"""A connection on which nothing comes for so long is closed: each holds a thread."""


class ModelServer(ThreadingHTTPServer):
    """Serves one local policy's model. `load` must run before it answers; it may run in another thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, policy: LocalPolicy, host: str = "127.0.0.1", port: int = 0):
        self.policy = policy
        self.speaker: Speaker | None = None
        self.is_loopback = is_loopback(host)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        """The base URL that clients are given."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/v1"

    def load(self) -> None:
        """Load the model. Raises what the policy's `check` raises."""
        self.policy.check()
        speaker = self.policy.speaker()
        speaker.batcher.window_seconds = WINDOW_SECONDS
        self.speaker = speaker

    def ready(self) -> Speaker:
        """The loaded model. Raises Refused while it is loading."""
        if self.speaker is None:
            raise Refused("the model is still being loaded", status=503, code="loading")
        return self.speaker

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no event; everything else was answered by the handler."""


def is_loopback(host: str) -> bool:
    """Whether an address or name is of this machine only."""
    name = host.strip("[]").lower()
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    @property
    def served(self) -> ModelServer:
        """The server, whose class the base class leaves open."""
        return cast("ModelServer", self.server)

    def do_GET(self) -> None:
        """Health and models."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Chat completions."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: they are the user's."""

    def _answer(self, work: Callable[[], tuple[int, Mapping[str, Any]] | None]) -> None:
        """Send what `work` returns (None: it has sent everything itself), or the error that it raises."""
        try:
            answer = work()
        except Refused as refused:
            answer = refused.status, refused.body()
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:  # noqa: BLE001 - the seam to HTTP: whatever it is, the client gets a JSON error
            told = refused_from(error)
            answer = told.status, told.body()
        if answer is not None:
            self._send(*answer)

    def _get(self) -> tuple[int, Mapping[str, Any]]:
        self._check_host()
        path = self.path.partition("?")[0].rstrip("/")
        if path in ("/health", "/v1/health"):
            loaded = self.served.speaker
            if loaded is None:
                return 503, {"status": "loading"}
            return 200, {"status": "ok", "model": loaded.loaded.name}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [self._model()]}
        if path.startswith("/v1/models/"):
            self._check_model(path.removeprefix("/v1/models/"))
            return 200, self._model()
        raise Refused(f"there is nothing at {self.path}", status=404)

    def _model(self) -> dict[str, Any]:
        loaded = self.served.ready().loaded
        row = {"id": loaded.name, "object": "model", "created": 0, "owned_by": "ttc-replay"}
        return {**row, "context_length": loaded.context_length, "digest": loaded.digest}

    def _check_model(self, name: str) -> None:
        own = self.served.ready().loaded.name
        if name != own:
            raise Refused(f"no model {name!r}: this server has {own!r}", "model", status=404, code="model_not_found")

    def _check_host(self) -> None:
        host = self.headers.get("Host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self.served.is_loopback and not is_loopback(name):
            raise Refused("the Host header names another machine", status=403)

    def _post(self) -> tuple[int, Mapping[str, Any]] | None:
        body = self._body()  # read in any case: what is left over would be taken for the next request
        self._check_host()
        if self.path.partition("?")[0].rstrip("/") not in ("/v1/chat/completions", "/chat/completions"):
            raise Refused(f"there is nothing at {self.path}", status=404)
        if self.headers.get_content_type() != "application/json":
            raise Refused("the Content-Type must be application/json", status=415)
        request = parse_request(decoded(body))
        speaker = self.served.ready()
        self._check_model(request.model)
        ask = ask_of(request, self.served.policy)
        check_length(ask, speaker)
        if request.stream:
            self._stream(request, ask, speaker)
            return None
        return 200, answered(request, ask, speaker).completion()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self.close_connection = True
            if not length.isdigit():
                raise Refused("a Content-Length is required", status=411)
            raise Refused(f"the body is longer than {MOST_BYTES} bytes", status=413)
        return self.rfile.read(int(length))

    def _send(self, status: int, row: Mapping[str, Any]) -> None:
        data = json.dumps(row).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 503:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    def _stream(self, request: ChatRequest, ask: Ask, speaker: Speaker) -> None:
        """Server-sent events, the connection's last answer: their end is the connection's."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        events = Events(request, ask, speaker)
        try:
            for row in events:
                self.wfile.write(b"data: " + json.dumps(row).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")
        except Refused as refused:
            self.wfile.write(b"data: " + json.dumps(refused.body()).encode() + b"\n\n")
        finally:
            events.cancel()
