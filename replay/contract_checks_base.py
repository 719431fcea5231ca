"""What a contract check says, and how a list of them is run: when a needed one fails, later ones are skipped."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..storage.canonical import canonical_json
from ..storage.errors import TtcError

Status = Literal["pass", "fail", "skip"]
WAITING_SECONDS = 0.002
"""A call that takes this much longer than it computes has waited for something."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `detail` says what was seen, `hint` what to do about it."""

    name: str
    status: Status
    detail: str = ""
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What a check found out, before it has its name."""

    status: Status
    detail: str = ""
    hint: str | None = None


Checking: TypeAlias = Callable[[Any], "Said | Awaitable[Said]"]


def passed(detail: str = "") -> Said:
    """The contract holds, as far as was seen."""
    return Said("pass", detail)


def failed(detail: str, hint: str | None = None) -> Said:
    """It does not hold."""
    return Said("fail", detail, hint)


def skipped(detail: str) -> Said:
    """There was nothing to look at."""
    return Said("skip", detail)


async def run_checks(bench: Any, checks: Sequence[tuple[str, Checking]], needed: Sequence[str] = ()) -> list[Check]:
    """Each check in turn. An exception is a failure; after one of `needed` has failed, the rest is skipped."""
    done: list[Check] = []
    missing = ""
    for name, checking in checks:
        said = skipped(f"{missing} failed") if missing else await _said(checking, bench)
        done.append(Check(name, said.status, said.detail, said.hint))
        if said.status == "fail" and name in needed:
            missing = name
    return done


async def _said(checking: Checking, bench: Any) -> Said:
    try:
        said = checking(bench)
        return await said if inspect.isawaitable(said) else said
    except TtcError as error:
        return failed(error.line(), error.hint)
    except Exception as error:  # noqa: BLE001 (foreign code may raise anything: that is what is looked for)
        return failed(f"{type(error).__name__}: {error}")


def brief(value: Any, limit: int = 160) -> str:
    """A value in one line, cut."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def json_of(value: Any) -> str:
    """Canonical JSON. Raises TypeError or ValueError for what is none."""
    return canonical_json(value)


def waited_seconds(call: Callable[[], Any]) -> float:
    """Wall time of a call beyond its own CPU time, in seconds; 0 when the thread never gave its turn away by itself.

    A busy machine takes turns away, too: only waiting is voluntary.
    """
    given, wall, cpu = _turns_given(), time.perf_counter(), time.thread_time()
    call()
    waited = (time.perf_counter() - wall) - (time.thread_time() - cpu)
    return 0.0 if given is not None and _turns_given() == given else waited


def _turns_given() -> int | None:
    """Voluntary context switches of this thread so far; None where the system does not count them by thread."""
    import resource

    thread = getattr(resource, "RUSAGE_THREAD", None)
    return None if thread is None else resource.getrusage(thread).ru_nvcsw


async def in_thread(call: Callable[[], Any]) -> Any:
    """Call in a thread, where no event loop runs."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


def worst(checks: Sequence[Check]) -> int:
    """The exit code: 1 when a check failed, else 0."""
    return int(any(check.status == "fail" for check in checks))
