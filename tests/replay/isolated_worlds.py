"""Worlds for the tests of process isolation, used as plugins by file: each asks for a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttc_replay import Message, StepResult, Task, Trajectory
from ttc_replay.storage.errors import OffTapeError

HUGE = 5_000_000
LENGTH = 4


class Plain:
    """Four additions; success is a total of exactly `task.data["target"]`; 13 raises. In this process."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length
        self.total = self.done = self.target = 0

    def reset(self, task: Task) -> list[dict[str, Any]]:
        self.total = self.done = 0
        self.target = int(task.data["target"])
        return [{"role": "user", "content": f"reach {self.target}"}]

    def step(self, action: Message) -> StepResult:
        if not action.tool_calls:
            return StepResult([], True, 0.0)
        call = action.tool_calls[0]
        by = (call.arguments or {})["by"]
        self.special(by)
        self.total, self.done = self.total + by, self.done + 1
        over = self.done >= self.length
        value = float(self.total == self.target) if over else None
        return StepResult([Message("tool", f'{{"total": {self.total}}}', None, (), call.id, "add")], over, value)

    def special(self, by: int) -> None:
        """What some numbers do."""
        if by == 13:
            raise RuntimeError("the world does not like 13")

    def fork(self) -> Plain:
        other = type(self)(self.length)
        other.__dict__.update(self.__dict__)
        return other

    def tools(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]

    def state(self) -> dict[str, int]:
        return {"total": self.total, "done": self.done}

    def state_key(self) -> str:
        return f"{self.total}/{self.done}"


class Isolated(Plain):
    """The same in a process of its own."""

    isolation = "process"

    def state(self) -> dict[str, int]:
        return {**super().state(), "pid": os.getpid()} if self.length > LENGTH else super().state()


ONE = Isolated()
"""A world, not a class of worlds."""


class Unforked(Isolated):
    """The same without forks: every branch is re-executed."""

    fork = None  # type: ignore[assignment]


class Crashing(Isolated):
    """Some numbers are the end of the process, or of its patience."""

    def special(self, by: int) -> None:
        super().special(by)
        if by == 103:
            os._exit(3)
        if by == 111:
            os.kill(os.getpid(), signal.SIGSEGV)
        if by == 104:
            sys.exit(4)


class Hanging(Isolated):
    """5 takes longer than the world may."""

    isolation_timeout_seconds = 1

    def special(self, by: int) -> None:
        if by == 5:
            time.sleep(60)


class Printing(Isolated):
    """Prints in three ways, reads stdin, and answers five megabytes to a 5."""

    def special(self, by: int) -> None:
        print("print " * 10)
        os.write(1, b"descriptor\n")
        subprocess.run([sys.executable, "-c", "print('program')"], check=True)
        assert sys.stdin.read() == ""

    def step(self, action: Message) -> StepResult:
        result = super().step(action)
        return StepResult([Message("tool", "é\n" * (HUGE // 2))]) if self.total == 5 else result


class Unusual(Isolated):
    """What comes back is odd: states that are no JSON, rewards and texts that JSON hardly knows."""

    def step(self, action: Message) -> StepResult:
        super().step(action)
        if self.total == 1:
            return StepResult([Message("tool", b"bytes")])  # type: ignore[arg-type]
        return StepResult([Message("tool", "\ud800\x00\u2028\r\n")], False, float("inf"), {"nan": float("nan")})

    def state(self) -> Any:
        return {"nan": float("nan")} if self.total == 2 else {"object": object()}

    def state_key(self) -> Any:
        raise OffTapeError("no key here", hint="look elsewhere")


class Unforkable:
    """Re-executable, with everything optional that is no fork; its process is said in its state."""

    isolation = "process"
    isolation_processes = 2
    recorded_only = True

    def __init__(self, log: str | None = None, normalise: Any = None) -> None:
        self.log = log
        self.normalise = normalise
        self.heard: list[Any] = []

    def load(self, record: Trajectory, runs: Mapping[str, Trajectory]) -> None:
        self.heard.append([record.id, sorted(runs), runs[record.id] == record])

    async def reset(self, task: Task) -> list[Message]:
        await asyncio.sleep(0)
        self.heard.append([task.id, dict(task.private)])
        return []

    async def step(self, action: Message) -> StepResult:
        await asyncio.sleep(0)
        self.heard.append(action.text)
        text = f"{action.text} at {time.time_ns()}" if action.text == "time" else action.text
        return StepResult([Message("tool", text)])

    def hear(self, reply: Message) -> StepResult:
        self.heard.append(reply.text)
        return StepResult(done=True, reward=0.5)

    def reseed(self, seed: int) -> None:
        self.heard.append(seed)

    def state(self) -> Any:
        return {"heard": self.heard, "pid": os.getpid()}

    def close(self) -> None:
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"closed {self.heard}\n")


class Counted(Isolated):
    """Its state is how many worlds its process holds."""

    alive = 0

    def __init__(self, length: int = LENGTH) -> None:
        super().__init__(length)
        Counted.alive += 1

    def __del__(self) -> None:
        Counted.alive -= 1

    def state(self) -> Any:
        return Counted.alive


class Starting(Crashing):
    """Starts a program that nobody ends, says its process id; 5 never ends either, nor does a thread of it."""

    program = 0

    def special(self, by: int) -> None:
        super().special(by)
        self.program = subprocess.Popen(["sleep", "61"]).pid
        print("started", file=sys.stderr, flush=True)
        if by == 5:
            threading.Thread(target=time.sleep, args=(60,)).start()
            time.sleep(60)

    def state(self) -> Any:
        return self.program


class Unbuildable:
    """Its constructor says no."""

    isolation = "process"

    def __init__(self, how: str = "raise") -> None:
        if how == "exit":
            os._exit(9)
        raise ValueError("no such month")

    def reset(self, task: Task) -> None: ...

    def step(self, action: Message) -> None: ...


class Half:
    """No environment."""

    isolation = "process"

    def reset(self, task: Task) -> None: ...
