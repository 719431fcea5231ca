"""What a branch costs on tau2's airline: tau2's own ways against the overlay.

Run: `.venv/bin/python benchmarks/tau2_fork.py`. CPU time, medians; ratios are against the overlay's counterpart.
The branch has written five records. A verdict is "does this database equal gold's": two full hashes against two
overlays compared (gold's is kept, as in a search, so both columns count the branch's side only).
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ttc_replay.replay.environments.tau2 import Tau2Environment
from ttc_replay.replay.environments.tau2_world import load_domain
from ttc_replay.storage.records import Message, Task, ToolCall

USER = "mia_li_3668"
WRITES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("send_certificate", {"user_id": USER, "amount": 50}),
    ("cancel_reservation", {"reservation_id": "NO6JO3"}),
    ("cancel_reservation", {"reservation_id": "AIXC49"}),
    ("cancel_reservation", {"reservation_id": "HKEG34"}),
    ("cancel_reservation", {"reservation_id": "Z7GOZK"}),
)
READ: tuple[str, dict[str, Any]] = ("get_reservation_details", {"reservation_id": "NO6JO3"})
WRITE: tuple[str, dict[str, Any]] = ("send_certificate", {"user_id": "omar_davis_3817", "amount": 50})
TASK = Task("0", data={"domain": "airline"}, private={"evaluation_criteria": {"actions": [], "reward_basis": ["DB"]}})


def action(name: str, arguments: dict[str, Any]) -> Message:
    """One tool call."""
    return Message("assistant", tool_calls=(ToolCall("c", name, arguments),))


def median_seconds(work: Callable[[], object], repeats: int, inner: int = 1) -> float:
    """Median CPU seconds of one call, `inner` calls timed together."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        for _ in range(inner):
            work()
        times.append((time.process_time() - started) / inner)
    return statistics.median(times)


def branch() -> Tau2Environment:
    """A live branch that has written five records."""
    environment = Tau2Environment()
    environment.reset(TASK)
    for name, arguments in WRITES:
        environment.step(action(name, arguments))
    return environment


def report(what: str, slow: float, fast_what: str, fast: float) -> None:
    """One line: both costs and their ratio."""
    print(f"{what:<34}{slow * 1e6:>12.1f} us   {fast_what:<34}{fast * 1e6:>9.1f} us   {slow / fast:>10.1f} x")


def main() -> None:
    """Measure and print."""
    load_domain("airline")
    native_environment = import_module("tau2.domains.airline.environment").get_environment
    native_call = import_module("tau2.data_model.message").ToolCall
    native, live = native_environment(), branch()
    untouched = Tau2Environment()
    untouched.reset(TASK)

    forked = median_seconds(live.fork, 9, 2000)
    report("fresh environment", median_seconds(native_environment, 5), "reset", median_seconds(
        lambda: untouched.reset(TASK), 9, 500))  # fmt: skip
    report("deep copy", median_seconds(lambda: copy.deepcopy(native.tools.db), 5), "fork, 5 records", forked)
    report("deep copy", median_seconds(lambda: copy.deepcopy(native.tools.db), 5), "fork, nothing written",
           median_seconds(untouched.fork, 9, 2000))  # fmt: skip
    report("hash", median_seconds(native.get_db_hash, 5), "verdict, 5 records", median_seconds(live.verdict, 9, 200))

    def native_tool(name: str, arguments: dict[str, Any]) -> Callable[[], object]:
        call = native_call(id="1", name=name, arguments=arguments)
        return lambda: native.get_response(call)

    report("read call", median_seconds(native_tool(*READ), 9, 500), "read call",
           median_seconds(lambda: live.step(action(*READ)), 9, 500))  # fmt: skip
    fresh_write = median_seconds(lambda: live.fork().step(action(*WRITE)), 9, 500)
    report("write call", median_seconds(native_tool(*WRITE), 9, 500), "fork and first write", fresh_write)


if __name__ == "__main__":
    main()
