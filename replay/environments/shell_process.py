"""One sandboxed process: read what it says, watch what it uses, and leave nothing of it alive.

The command is pid 1 of a pid namespace below `unshare --fork`. When that process has been waited for, the kernel has
killed and reaped everything that ran in the namespace: no daemon survives, and nobody changes files any more.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

TICK_SECONDS = 0.1
"""How often a running command is looked at."""
DRAIN_BYTES = 64 * 2**20
"""A command that has said this much is killed."""
_PAGE = os.sysconf("SC_PAGE_SIZE")

Watch = Callable[[], str | None]


@dataclass(slots=True)
class Capture:
    """The first and the last bytes of a stream, at most `limit` in all, and how many there were."""

    limit: int
    total: int = 0
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Take what was read."""
        self.total += len(data)
        room = self.limit // 2 - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        self.tail += data
        surplus = len(self.tail) - (self.limit - self.limit // 2)
        if surplus > 0:
            del self.tail[:surplus]

    @property
    def dropped(self) -> int:
        """Bytes in the middle that were not kept."""
        return self.total - len(self.head) - len(self.tail)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended. `killed` says why it was ended from outside; None: it ended by itself."""

    code: int
    killed: str | None = None


def pump(
    process: subprocess.Popen[bytes],
    streams: dict[int, Capture],
    seconds: float,
    watches: Sequence[Watch] = (),
) -> Ended:
    """Read the streams until all are closed, then wait for the process. It is killed, with all that it started, after
    `seconds` of wall time, after `DRAIN_BYTES` of output, or when a watch gives a reason. Closes the streams."""
    deadline, killed = time.monotonic() + seconds, None
    look = time.monotonic() + TICK_SECONDS
    with selectors.DefaultSelector() as selector:
        for descriptor in streams:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(TICK_SECONDS):
                data = os.read(key.fd, 65536)
                streams[key.fd].add(data)
                if not data:
                    selector.unregister(key.fd)
            now = time.monotonic()
            if killed is None and now > deadline:
                killed = f"no end after {seconds:g} seconds"
            elif killed is None and any(stream.total > DRAIN_BYTES for stream in streams.values()):
                killed = f"more than {DRAIN_BYTES >> 20} MiB of output"
            elif killed is None and now > look:
                killed = next((reason for watch in watches if (reason := watch()) is not None), None)
                look = now + TICK_SECONDS + (time.monotonic() - now)
            if killed is not None:
                break
    if killed is not None:
        kill(process)
    for descriptor in streams:
        os.close(descriptor)
    return Ended(_wait(process), killed)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Streams may be closed before their owner has ended; it gets a moment, then it is killed."""
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        kill(process)
        return process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of the namespace, so that `process`, its parent, ends when the namespace is empty."""
    below = children(process.pid)
    for pid in below or [process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if below:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            return
    process.kill()


def children(pid: int) -> list[int]:
    """The processes that a process has started, as the kernel lists them; [] when it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


def memory_watch(pid: int, limit: int) -> Watch:
    """A watch over the memory of everything below `pid`, and over shared memory that came up meanwhile (no process
    need have it mapped)."""
    shared_before = _shared_bytes()

    def look() -> str | None:
        used, waiting = 0, children(pid)
        while waiting:
            process = waiting.pop()
            used += _own_bytes(process)
            waiting += children(process)
        if used > limit or _shared_bytes() - shared_before > limit:
            return f"more than {limit >> 20} MiB of memory"
        return None

    return look


def _own_bytes(pid: int) -> int:
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE


def _shared_bytes() -> int:
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text()
        return int(text.split("Shmem:", 1)[1].split()[0]) * 1024
    return 0
