"""The trivial-task test (design.md section 5): what does a run that does nothing earn?

Before the search the *empty* branch (no step at all) and the *idle* branches (gives up, hands over or finishes at the
first step) are played in fresh worlds. A task whose outcome reward they pass is counted apart: a search that "fixes"
it has shown nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..storage.canonical import content_id
from ..storage.codec import messages_from
from ..storage.errors import EnvironmentFailed, OffTapeError, boundary
from ..storage.records import Message, Source, Step, ToolCall, Trajectory
from .drive import finish, run_inline
from .environments.base import environment_class, tools_of
from .environments.users import user_reply
from .transition import CLASS_FIDELITY, execute, hear, reward_scores, state_of

IDLE_TEXT = "I cannot help with this."

Run = Callable[[Coroutine[Any, Any, list[Trajectory]]], list[Trajectory]]


@dataclass(frozen=True, slots=True)
class Endings:
    """How the recorded runs of a dataset ended. `calls`: by tool name, (task id, whether the run failed, call) of each
    run whose last action called the tool; `farewells`: (task id, the user's last message) of runs that ended on it."""

    calls: Mapping[str, Sequence[tuple[str, bool, ToolCall]]]
    farewells: Sequence[tuple[str, Message]]

    @staticmethod
    def of(records: Iterable[Trajectory]) -> Endings:
        """Collect the endings; runs that were cut (`truncated`) did not end and are left out."""
        calls: dict[str, list[tuple[str, bool, ToolCall]]] = {}
        farewells: list[tuple[str, Message]] = []
        for record in records:
            if record.truncated or not record.steps:
                continue
            last = record.last
            if (reply := user_reply(last.observations)) is not None:
                farewells.append((record.task.id, reply))
            elif last.action.tool_calls:
                call = last.action.tool_calls[-1]
                calls.setdefault(call.name, []).append((record.task.id, _failed(record), call))
        return Endings(calls, farewells)

    def actions(self, task_id: str) -> dict[str, Message]:
        """By tool name, the action that ends a run of this task without having done any of it.

        Free text in its arguments (strings of several words) is replaced by the idle text. Other arguments are taken
        from a *failed* run of this task only: those of a successful one may carry the answer (`submit(answer=...)`),
        and an answer is not idle. A tool for which neither can be had is left out.
        """
        found = {name: _idle_call(known, task_id) for name, known in sorted(self.calls.items())}
        return {name: Message("assistant", tool_calls=(call,)) for name, call in found.items() if call is not None}

    def farewell(self, record: Trajectory) -> Message | None:
        """What the user says at the end: in this record, else in a run of this task, else in any run, else None."""
        own = user_reply(record.last.observations) if record.steps else None
        same_task = (reply for task_id, reply in self.farewells if task_id == record.task.id)
        anywhere = (reply for _, reply in self.farewells)
        return own or next(same_task, None) or next(anywhere, None)


def trivial_branches(
    record: Trajectory,
    records: Endings | Iterable[Trajectory],
    factory: Callable[[], Any],
    *,
    run: Run = run_inline,
) -> list[Trajectory]:
    """`play_trivial` for callers without an event loop; `run` drives it (`asyncio.run` for worlds that really wait)."""
    endings = records if isinstance(records, Endings) else Endings.of(records)
    return run(play_trivial(record, endings, factory))


async def play_trivial(record: Trajectory, endings: Endings, factory: Callable[[], Any]) -> list[Trajectory]:
    """Play the empty branch, the idle message and each idle ending action of this task, each in a fresh world.

    `source.extra["branch"]` says which one it is: `empty`, `idle`, or `ending:TOOL` (kept only when the world really
    ends on it). A branch for which a recorded-only world has no answer is left out: nobody can say what it would earn.
    `task.private` is empty; each step carries the world's reward as the score `environment`. The worlds are closed.
    Raises EnvironmentFailed.
    """
    branches = [await _branch(record, factory, "empty", None, None)]
    idle = Message("assistant", IDLE_TEXT)
    branches.append(await _branch(record, factory, "idle", idle, endings.farewell(record)))
    for name, action in endings.actions(record.task.id).items():
        branches.append(await _branch(record, factory, f"ending:{name}", action, None))
    return [branch for branch in branches if branch is not None]


async def _branch(
    record: Trajectory, factory: Callable[[], Any], kind: str, action: Message | None, farewell: Message | None
) -> Trajectory | None:
    """One branch in a fresh world; None when the action turned out not to end it, or the tape has no answer to it."""
    environment, prompt = await _open(record, factory)
    try:
        step, done = (None, True) if action is None else await _first_step(environment, action, farewell)
        if kind.startswith("ending:") and not done:
            return None
        return Trajectory(
            id=content_id("trivial", record.id, kind),
            task=replace(record.task, private={}),
            tools=record.tools if record.tools is not None else tools_of(environment),
            prompt=record.prompt or prompt,
            steps=() if step is None else (step,),
            final_state=await state_of(environment),
            parent_id=record.id,
            branch_step=0,
            fidelity=CLASS_FIDELITY[environment_class(environment)],
            source=Source(format="trivial", extra={"branch": kind}),
        )
    except OffTapeError:
        return None
    finally:
        await _close(environment)


async def _open(record: Trajectory, factory: Callable[[], Any]) -> tuple[Any, tuple[Message, ...]]:
    with boundary(EnvironmentFailed, "the environment could not be built"):
        environment = factory()
    load, keeps = getattr(environment, "load", None), getattr(environment, "keep_to_records", None)
    with boundary(EnvironmentFailed, f"{type(environment).__name__}.reset", place=f"trajectory {record.id[:12]}"):
        if load is not None:
            await finish(load(record, {record.id: record}))
        if keeps is not None:  # what a model imagines proves nothing, and no tree's budget would pay for it
            keeps()
        return environment, messages_from(await finish(environment.reset(record.task)) or ())


async def _first_step(environment: Any, action: Message, farewell: Message | None) -> tuple[Step, bool]:
    result = await execute(environment, action, 0)
    observations, done, rewards = list(result.observations), result.done, [result.reward]
    if not done and farewell is not None and callable(getattr(environment, "hear", None)):
        observations.append(farewell)
        heard = await hear(environment, farewell)
        done = heard.done
        rewards.append(heard.reward)
    fidelity = CLASS_FIDELITY[environment_class(environment)]
    return Step(0, action, tuple(observations), fidelity=fidelity, scores=reward_scores(rewards)), done


async def _close(environment: Any) -> None:
    method = getattr(environment, "close", None)
    if callable(method):
        with boundary(EnvironmentFailed, f"{type(environment).__name__}.close"):
            await finish(method())


def _failed(record: Trajectory) -> bool:
    value = record.outcome.value if record.outcome is not None else None
    return value is not None and value < 1.0


def _idle_call(known: Sequence[tuple[str, bool, ToolCall]], task_id: str) -> ToolCall | None:
    """See `Endings.actions`; deterministic: the first recorded one that qualifies."""
    for _, _, call in known:
        if call.arguments is not None and all(_free_text(value) for value in call.arguments.values()):
            return ToolCall("call_idle", call.name, dict.fromkeys(call.arguments, IDLE_TEXT))
    for owner, failed, call in known:
        if owner == task_id and failed and call.arguments is not None:
            return ToolCall("call_idle", call.name, call.arguments)
    return None


def _free_text(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) > 1
