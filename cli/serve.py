"""`serve`: the embedded engine as an OpenAI-compatible endpoint."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from .replay import Options
from .state import State

if TYPE_CHECKING:
    from ..replay.local.serving import ModelServer
    from ..replay.policies.local import LocalPolicy


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    ctx: typer.Context,
    policy: Annotated[str, typer.Option(help="Policy: local, the embedded engine.")] = "local",
    policy_opt: Options = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but a loopback one is open to others.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
) -> None:
    """Serve a local model to any OpenAI client until Ctrl-C. Example: ttc-replay serve --policy-opt model=smollm2.

    There is no authentication.
    """
    from ..replay.local.serving import is_loopback

    state: State = ctx.obj
    server = _listening(_policy(policy, policy_opt or ()), host, port)
    if not is_loopback(host):
        state.note(f"{host} is not a loopback address, and there is no authentication: whoever reaches it may use it")
    document = {"v": 1, "url": server.url, "policy": policy, "health": server.url.removesuffix("/v1") + "/health"}
    state.emit(document, lambda console: console.print(f"listening on {server.url} (Ctrl-C ends)"))
    _run(state, server)


def _policy(name: str, options: list[str] | tuple[()]) -> LocalPolicy:
    """The policy, checked to be one that can be served. Raises UsageError."""
    from ..replay.policies.local import LocalPolicy
    from ..storage.errors import UsageError
    from . import jobs, plugins

    found = plugins.policy(jobs.specs(name, options, "--policy-opt"))
    if not isinstance(found, LocalPolicy):
        raise UsageError(f"only the embedded engine can be served, not --policy {name}", hint="--policy local")
    if found.counterfactual:
        raise UsageError("counterfactual=true needs recorded runs: it is for search", hint="leave the option out")
    return found


def _listening(policy: LocalPolicy, host: str, port: int) -> ModelServer:
    from ..replay.local.serving import ModelServer
    from ..storage.errors import UsageError

    try:
        return ModelServer(policy, host, port)
    except OSError as problem:
        told = f"cannot listen there: {problem.strerror or problem}"
        raise UsageError(told, place=f"{host}:{port}", hint="another --port (0 takes a free one), or --host") from None


def _run(state: State, server: ModelServer) -> None:
    """Answer until a signal comes, while the model is loaded in a thread. Raises what loading raises."""
    failed: list[Exception] = []

    def load() -> None:
        try:
            server.load()
            state.note("the model is loaded")
        except Exception as error:  # noqa: BLE001 - raised again below, by the thread that ends the command
            failed.append(error)
            server.shutdown()

    def stop(number: int, frame: object) -> None:
        """`shutdown` waits for the loop that this very thread runs: another must call it."""
        threading.Thread(target=server.shutdown, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        threading.Thread(target=load, daemon=True).start()
        server.serve_forever(poll_interval=0.1)
    finally:
        server.server_close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        raise failed[0]
    state.note("stopped")
