"""Worlds for the tests of forking, used as plugins by file: the same additions, copied in every way that there is."""

from __future__ import annotations

import threading
import time
from typing import Any

from ttc_replay import Message, StepResult, Task

LENGTH = 4


class Tally:
    """Additions; success is a sum of exactly `task.data["target"]`. Has no `fork`, and must not be copied."""

    inline = True
    steps_made = 0

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.added: list[int] = []
        self.target = 0

    def reset(self, task: Task) -> list[dict[str, Any]]:
        self.target = int(task.data["target"])
        return [{"role": "user", "content": f"reach {self.target}"}]

    def step(self, action: Message) -> StepResult:
        type(self).steps_made += 1
        if not action.tool_calls:
            return StepResult([], True, 0.0)
        call = action.tool_calls[0]
        self.added.append((call.arguments or {})["by"])
        over = len(self.added) >= self.options.get("length", LENGTH)
        answer = Message("tool", self.answer(), tool_call_id=call.id, name="add")
        return StepResult([answer], over, float(sum(self.added) == self.target) if over else None)

    def answer(self) -> str:
        return f'{{"total": {sum(self.added)}}}'

    def tools(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]

    def state(self) -> dict[str, int]:
        return {"total": sum(self.added), "done": len(self.added)}

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise AssertionError("copied without having offered it")


class Copyable(Tally):
    """May be copied, but says no way."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__reduce_ex__(self, protocol)


class Native(Copyable):
    """By its own `fork`."""

    def fork(self) -> Any:
        twin = type(self)(**self.options)
        twin.added, twin.target = list(self.added), self.target
        return twin


class Pickled(Copyable):
    forks = "pickle"


class Copied(Copyable):
    forks = "deepcopy"


class Declined(Tally):
    """Has a `fork` that must not be used."""

    forks = "reexecute"

    def fork(self) -> Any:
        raise AssertionError("forked without having offered it")


class Wrong(Native):
    forks = "cow"


class Claimed(Tally):
    """Says native, and is not."""

    forks = "native"


class Locked(Copyable):
    """Holds what cannot be copied."""

    forks = "pickle"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lock = threading.Lock()


class LockedDeep(Locked):
    forks = "deepcopy"


class AwayPickled(Pickled):
    """In a process of its own, where it is pickled."""

    isolation = "process"


class Dear(Native):
    """A fork takes 4 ms, a step next to nothing."""

    def fork(self) -> Any:
        time.sleep(0.004)
        return super().fork()


class Slow(Native):
    """A reset takes 2 ms, so that there is no doubt that a fork pays."""

    def reset(self, task: Task) -> list[dict[str, Any]]:
        time.sleep(0.002)
        return super().reset(task)


class Moody(Dear):
    """Answers otherwise when the same way is gone again: re-execution does not bring it back."""

    def answer(self) -> str:
        seen: set[tuple[int, ...]] = self.options["seen"]
        way = tuple(self.added)
        again = way in seen
        seen.add(way)
        recorded = set(way) == {1}
        return super().answer() if recorded else f'{{"total": {sum(self.added)}, "again": {str(again).lower()}}}'


class Chance(Dear):
    """Has chances, so it is always copied."""

    def reseed(self, seed: int) -> None:
        raise AssertionError("nobody asked for other chances")
