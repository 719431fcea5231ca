"""One child process that hosts a world: started, asked with a time limit, ended. Lines of JSON over its pipes."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .wire import decode, encode

HOST = "ttc_replay.replay.environments.host"
START_SECONDS = 60.0
"""Least time that a child gets to start and to import the world's module."""
END_SECONDS = 5.0
"""How long a child that was told to end may take."""
REPLY_BYTES = 256 * 1024 * 1024
"""Longest answer: a world that says more is broken, and must not fill the parent's memory."""
_READ_BYTES = 1 << 20
_POLL_SECONDS = 0.001


class Gone(Exception):
    """The child is dead, and will not answer. The text says how it died."""


class Child:
    """A running host. Used by one thread at a time."""

    def __init__(self, hello: Mapping[str, Any], seconds: float, reply_bytes: int = REPLY_BYTES):
        """Start it and wait until it has loaded what `hello` names. `answer` is what it said.

        Its own session keeps a terminal's Ctrl-C away, which is the parent's to handle, and makes it a group that can
        be killed with all that it started. Raises Gone.
        """
        self._reply_bytes = reply_bytes
        self._process = subprocess.Popen(  # noqa: S603  this interpreter and a module of ours
            [sys.executable, "-m", HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        self._writable, self._readable = select.poll(), select.poll()
        self._writable.register(self._stdin, select.POLLOUT)
        self._readable.register(self._stdout, select.POLLIN)
        self.answer = self.ask(encode({**hello, "path": sys.path}), max(seconds, START_SECONDS))

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, line: str, seconds: float) -> dict[str, Any]:
        """One line there, one line back. Raises Gone, after which the child is dead."""
        deadline = time.monotonic() + seconds
        try:
            self._write(line.encode("ascii") + b"\n", deadline)
            said: dict[str, Any] = decode(self._read(deadline))
        except TimeoutError:
            self.kill()
            raise Gone(f"no answer within {seconds:g} s: its process was killed") from None
        except (BrokenPipeError, EOFError):
            raise Gone(self._death()) from None
        except ValueError as error:
            self.kill()
            raise Gone(f"its process was killed: {error}") from None
        return said

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._stdin.fileno(), view) :]
            except BlockingIOError:
                _wait(self._writable, deadline)

    def _read(self, deadline: float) -> bytes:
        parts: list[bytes] = []
        total = 0
        while not (parts and parts[-1].endswith(b"\n")):
            _wait(self._readable, deadline)
            part = os.read(self._stdout.fileno(), _READ_BYTES)
            if not part:
                raise EOFError
            parts.append(part)
            total += len(part)
            if total > self._reply_bytes:
                raise ValueError(f"an answer of more than {self._reply_bytes >> 20} MiB")
        return b"".join(parts)

    def _death(self) -> str:
        """How it died; it has closed its pipes, so it has little left to do."""
        self._outlive()
        code = self._process.returncode
        if code >= 0:
            return f"its process ended with exit code {code}"
        with suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process was ended by signal {-code}"

    def end(self) -> None:
        """Let it close its worlds and end; kill it when it takes too long."""
        self._stdin.close()
        self._outlive()

    def _outlive(self) -> None:
        """Wait for its end, then kill what it started, as long as the dead process keeps the group's number its own."""
        deadline = time.monotonic() + END_SECONDS
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it now, and what it started. Harmless when it is dead already."""
        if self._process.returncode is None:  # so its id is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._stdin.close()
        self._stdout.close()


def _wait(poll: select.poll, deadline: float) -> None:
    """Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(math.ceil(left * 1000)):
        raise TimeoutError
