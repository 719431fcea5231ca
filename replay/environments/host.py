"""The process in which an isolated world lives: `python -m ttc_replay.replay.environments.host`, started by `child.py`.

The first line on stdin says what to load, each further line is one call of one world; each gets one line as its answer.
The process ends with its stdin, which is when the parent closes it or dies.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import reduce
from typing import Any, BinaryIO

from ...storage.codec import messages_from, result_from
from ...storage.errors import EnvironmentFailed, StoreError, TtcError, UsageError, boundary
from ...storage.exact_json import message_to_json
from ..drive import finish
from ..forking import capability, declared, duplicate
from ..transition import state_of
from .wire import ATTRIBUTES, METHODS, arguments_from_json, decode, encode, error_to_json, result_to_json

GRACE_SECONDS = 2.0
"""How long a world may go on after its parent is gone: its `close`, or a step that was under way."""
_BUILD = "the environment could not be built"


class Host:
    """The worlds of one process by handle: a root world and its forks."""

    def __init__(self, hello: Mapping[str, Any]):
        self.worlds: dict[int, Any] = {}
        self.arguments: dict[str, Any] = hello["arguments"]
        module, _, name = hello["loader"].partition(":")
        self.loader: Any = reduce(getattr, name.split("."), importlib.import_module(module))
        self._runner: Any = None

    def answer(self, line: bytes) -> str:
        """The line that answers `line`. What the world raises is an answer, too."""
        call = decode(line)
        for handle in call["drop"]:
            self.worlds.pop(handle, None)
        handle, method = call["world"], call["method"]
        world = self.worlds.get(handle)
        what = _label(method, world)
        try:
            with boundary(EnvironmentFailed, what):  # foreign code may raise anything
                said = self._build(handle) if method == "build" else self._call(handle, method, call["arguments"])
                return encode({"said": said})
        except StoreError as error:  # from `exact_json`: something that a world gave is not JSON
            return encode({"error": error_to_json(EnvironmentFailed(f"{what}: {error.message}"))})
        except TtcError as error:
            return encode({"error": error_to_json(error)})

    def close(self) -> None:
        """Close what the parent did not."""
        for world in self.worlds.values():
            if callable(getattr(world, "close", None)):
                with suppress(Exception):
                    self._wait(world.close())

    def _build(self, handle: int) -> dict[str, Any]:
        world = self.worlds[handle] = self._wait(self.loader(**self.arguments))
        copied = capability(world) != "reexecute"
        offered = [name for name in METHODS if (copied if name == "fork" else callable(getattr(world, name, None)))]
        name = type(world).__name__
        missing = [method for method in ("reset", "step") if method not in offered]
        if missing:
            raise UsageError(f"{name} is no environment: it has no {' and '.join(missing)}")
        values = {key: getattr(world, key) for key in ATTRIBUTES if hasattr(world, key)}
        values["forks_inside"] = declared(world)  # here its copy is made: for the parent it has a fork()
        return {"name": name, "methods": offered, "values": values}

    def _call(self, handle: int, method: str, values: list[Any]) -> Any:
        world = self.worlds[handle]
        if method == "fork":
            self.worlds[values[0]] = self._wait(duplicate(world))
            return None
        if method == "state":
            return self._wait(state_of(world))
        if method == "close":
            del self.worlds[handle]
        said = self._wait(getattr(world, method)(*arguments_from_json(method, values)))
        if method in ("step", "hear"):
            return result_to_json(result_from(said))
        if method == "reset":
            return {"prompt": [message_to_json(message) for message in messages_from(said or ())], **_tools(world)}
        return list(said) if method == "tools" else said if method == "state_key" else None

    def _wait(self, value: Any) -> Any:
        """The value, awaited where it is awaitable: in one event loop for the life of the process."""
        if not hasattr(value, "__await__"):
            return value
        if self._runner is None:
            import asyncio  # a quarter of the time that a process takes to start

            self._runner = asyncio.Runner()
        return self._runner.run(finish(value))


def _label(method: str, world: Any) -> str:
    """What the house says about a failure of this method, without a process between."""
    if method in ("step", "fork"):
        return f"environment.{method}"
    return _BUILD if method == "build" else f"{type(world).__name__}.{'reset' if method == 'load' else method}"


def _tools(world: Any) -> dict[str, Any]:
    """The tools along with the prompt, so that they are known when the world is closed; {} when it has none to say."""
    with suppress(Exception):  # asked for by themselves, they raise where it is seen
        said = {"tools": list(world.tools())}
        encode(said)
        return said
    return {}


def main() -> None:
    """Serve until stdin ends."""
    requests, replies = _own_pipes()
    threading.Thread(target=_end_with_parent, args=(requests.fileno(),), daemon=True).start()
    hello = decode(requests.readline())
    sys.path[:] = hello["path"]
    try:
        with boundary(EnvironmentFailed, _BUILD):
            host = Host(hello)
    except TtcError as error:
        _reply(replies, encode({"error": error_to_json(error)}))
        return
    _reply(replies, encode({"said": None}))
    for line in requests:
        _reply(replies, host.answer(line))
    host.close()
    if _leads_group():  # what the world started ends with it, also when no parent is left to see to it
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)


def _reply(replies: BinaryIO, text: str) -> None:
    with suppress(BrokenPipeError):  # the parent is gone: stdin says so next
        replies.write(text.encode("ascii") + b"\n")
        replies.flush()


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Both pipes under descriptors that the world cannot hit by accident: what it prints, or the programs that it
    starts print, goes to stderr, and its stdin is empty."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _end_with_parent(descriptor: int) -> None:
    """End the process and all that it started, a while after the pipe's other end is gone, even in the midst of a step.

    A world that keeps the interpreter's lock for ever inside native code cannot be ended this way.
    """
    poll = select.poll()
    poll.register(descriptor, 0)  # an end that hangs up is always reported
    while not poll.poll():
        pass
    time.sleep(GRACE_SECONDS)
    if _leads_group():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _leads_group() -> bool:
    return os.getpgid(0) == os.getpid()


if __name__ == "__main__":
    main()
