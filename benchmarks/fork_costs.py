"""What copying a world costs against bringing another one there, by environment: `python benchmarks/fork_costs.py`.

Each world executes ten actions. `copy`, `reset` (medians) and `step` (executed again and compared, a mean) are
wall-clock milliseconds as the engine measures them (`replay.costs`). `re-execute`: a fresh world and the ten steps
again. `kept`: Python memory of one copy that is kept, traced over several. `choice`: what a search takes for a state
after ten steps, and every how many steps it keeps a copy of a recorded run. What is missing here says so.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from ttc_replay import Message, Source, Spec, Step, Task, ToolCall, Trajectory
from ttc_replay.cli import plugins
from ttc_replay.replay.drive import finish
from ttc_replay.replay.session import Session, close
from ttc_replay.replay.transition import execute
from ttc_replay.storage.errors import TtcError
from ttc_replay.storage.readers.base import find_reader

LOGS = Path(__file__).parents[1] / "examples" / "bookkeeping" / "logs" / "easy.jsonl"
STEPS = 10
REPEATS = 9
KEPT = 20
SMALL, LARGE = 50, 200_000


class Notes:
    """A tools class: `rows` notes of its own, and those that the agent adds."""

    def __init__(self, rows: int = SMALL) -> None:
        self.notes = {f"note {number}": f"text {number}" for number in range(rows)}

    def write(self, title: str, text: str) -> dict[str, int]:
        """Write a note."""
        self.notes[title] = text
        return {"notes": len(self.notes)}

    def state(self) -> dict[str, int]:
        return {"notes": len(self.notes)}


class Pickled(Notes):
    forks = "pickle"


class Copied(Notes):
    forks = "deepcopy"


class Native(Notes):
    """What its author knows: texts never change, so the dictionary alone is copied."""

    def fork(self) -> Native:
        twin = object.__new__(Native)
        twin.notes = dict(self.notes)
        return twin


class Away(Pickled):
    isolation = "process"


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `build` may raise what a world raises that cannot be had here."""

    name: str
    build: Callable[[], tuple[Callable[[], Any], Task, Sequence[Message]]]


def act(name: str, **arguments: Any) -> Message:
    return Message("assistant", tool_calls=(ToolCall("c", name, arguments),))


def notes(kind: str, rows: int) -> Any:
    factory, probe = plugins.environment(Spec(f"{__file__}:{kind}", {"rows": rows}))
    with suppress(AttributeError):
        probe.close()
    return factory, Task("notes"), [act("write", title=f"new {n}", text="x") for n in range(STEPS)]


def recorded(name: str) -> Any:
    with LOGS.open("rb") as stream:
        runs = list(find_reader("openai-chat").read(stream, Source("openai-chat", str(LOGS))))
    run = next(run for run in runs if isinstance(run, Trajectory) and len(run.steps) > STEPS)
    return plugins.environment(Spec(name))[0], run.task, run


def tau2_mock() -> Any:
    actions = [act("create_task", user_id="user_1", title=f"task {n}") for n in range(STEPS)]
    return plugins.environment(Spec("tau2"))[0], Task("t", data={"domain": "mock"}), actions


def tau2_airline() -> Any:
    one, user = {"reservation_id": "NO6JO3"}, {"user_id": "mia_li_3668"}
    actions = [act("send_certificate", amount=50 + n, **user) for n in range(STEPS // 2)]
    actions += [act("get_reservation_details", **one) for _ in range(STEPS - len(actions))]
    return plugins.environment(Spec("tau2"))[0], Task("t", data={"domain": "airline"}), actions


def sql(engine: str) -> Any:
    rows = ",".join(f"({n}, 'name {n}')" for n in range(10_000))
    task = Task(
        "t", data={"database_sql": f"CREATE TABLE facts (id INTEGER, name VARCHAR); INSERT INTO facts VALUES {rows}"}
    )
    actions = [act("run_sql", sql=f"INSERT INTO facts VALUES ({n}, 'new')") for n in range(STEPS)]
    return plugins.environment(Spec("sql", {"engine": engine, "writable": True}))[0], task, actions


def shell(folder: str) -> Any:
    for number in range(200):
        Path(folder, f"file{number}.txt").write_text("text\n" * 200, "utf-8")
    actions = [act("bash", command=f"echo {n} >> file{n}.txt; wc -l file{n}.txt") for n in range(STEPS)]
    return plugins.environment(Spec("shell", {"folder": folder}))[0], Task("t"), actions


def graph() -> Any:
    place = "ttc_replay.examples.three_ways"
    options = {"graph": f"{place}.agent:graph", "world": f"{place}.depot:Depot"}
    return plugins.environment(Spec("langgraph", options))[0], Task("t"), [act("look", item="tea")] * STEPS


CASES = (
    Case("tape", partial(recorded, "tape")),
    Case("bookkeeping", partial(recorded, "bookkeeping")),
    Case("tau2, mock", tau2_mock),
    Case("tau2, airline", tau2_airline),
    *(
        Case(f"tools, {how}, {rows:,} notes", partial(notes, kind, rows))
        for rows in (SMALL, LARGE)
        for how, kind in (("native", "Native"), ("pickle", "Pickled"), ("deepcopy", "Copied"), ("none", "Notes"))
    ),
    Case(f"tools, pickle, own process, {SMALL} notes", partial(notes, "Away", SMALL)),
    Case("sql, SQLite, 10,000 rows", partial(sql, "sqlite")),
    Case("sql, DuckDB, 10,000 rows", partial(sql, "duckdb")),
    Case("langgraph, three ways", graph),
)


async def steps_of(session: Session, actions: Sequence[Message]) -> list[Step]:
    """The actions executed once: what re-execution compares with."""
    world = await session.fresh()
    found = []
    for index, action in enumerate(actions):
        result = await execute(world, action, index)
        found.append(Step(index, action, tuple(result.observations)))
    await close(world)
    return found


async def measured(session: Session, steps: Sequence[Step]) -> tuple[float, float | None]:
    """Median ms of re-executing the steps; bytes of one kept copy, None where there are none. Fills the costs."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        world = await session.at(steps)
        times.append((time.perf_counter() - begun) * 1000)
        if session.forkable:
            await close(await session.fork(world))
        await close(world)
    return median(times), await kept_bytes(session, steps) if session.forkable else None


async def kept_bytes(session: Session, steps: Sequence[Step]) -> float:
    """Traced memory of a copy that has then gone one step further, as those that a tree keeps have."""
    world = await session.at(steps[:-1])
    gc.collect()
    tracemalloc.start()
    kept = [await session.fork(world) for _ in range(KEPT)]
    for copy in kept:
        await finish(copy.step(steps[-1].action))
    gc.collect()
    total = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for copy in [*kept, world]:
        await close(copy)
    return total / KEPT


def row(case: Case) -> str:
    """One line of the table."""
    try:
        factory, task, given = case.build()
        record = given if isinstance(given, Trajectory) else Trajectory(case.name, task)
        session = Session(record, factory)
        if isinstance(given, Trajectory):
            steps: Sequence[Step] = given.steps[:STEPS]
        else:
            steps = asyncio.run(steps_of(session, given))
        again, kept = asyncio.run(measured(session, steps))
    except (TtcError, ImportError) as error:
        return f"| {case.name} | not here: {error} | | | | | |"
    costs = session.costs
    report = costs.report()
    copied = session.forkable and costs.fork_pays(STEPS)
    choice = f"copy, every {costs.interval}" if copied else "re-execute" if session.forkable else report["class"]
    size = "" if kept is None else f"{kept / 1024:,.1f}"
    times = [report["fork_ms"], report["reset_ms"], report["step_ms"], again]
    shown = " | ".join("" if item is None else f"{item:.3f}" for item in times)
    return f"| {case.name} | {shown} | {size} | {choice} |"


def main() -> None:
    """Measure and print a Markdown table."""
    logging.disable(logging.WARNING)
    print("| environment | copy, ms | reset, ms | step, ms | re-execute 10 steps, ms | kept, KiB | choice |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in (*CASES, Case("shell, 200 files", partial(shell, folder))):
            print(row(case), flush=True)


if __name__ == "__main__":
    main()
