"""The contract of a reward, checked one promise at a time (docs/rewards.md says what it promises)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ..rewards.base import is_batched, is_process
from ..storage.codec import message_to_dict, score_from, score_to_dict, step_to_dict
from ..storage.errors import RewardFailed
from ..storage.records import Message, Score, Step, Task, Trajectory
from .contract_checks_base import Check, Checking, Said, brief, failed, json_of, passed, run_checks, skipped
from .drive import finish
from .session import Session, close
from .transition import state_of
from .trivial import Endings, play_trivial

SUCCESS = 1.0
"""From this value on a run counts as a success."""
THREADS = 4
ITEMS = 12
"""Prefixes of a run that are judged, at most."""


@dataclass(slots=True)
class RewardBench:
    """A reward, what it is asked to judge (no gold in it), and runs that did nothing."""

    model: Any
    items: list[Trajectory] = field(default_factory=list)
    trivial: list[Trajectory] = field(default_factory=list)
    gold: Mapping[str, Any] = field(default_factory=dict)
    opened: bool = False
    shown: list[str] = field(default_factory=list)
    """The runs as they were before anybody judged them."""


def check_reward(
    model: Any,
    *,
    record: Trajectory | None = None,
    factory: Callable[[], Any] | None = None,
    known: Sequence[Trajectory] = (),
    success_at: float = SUCCESS,
) -> list[Check]:
    """Check a reward on a recorded run, else on one that is made up; raises nothing that it raises.

    `factory` builds the environment in which the run is executed again, so that the reward sees final states; without
    one it sees what the record has. `known`: other recorded runs, which say how runs end. `task.private` is empty, as
    for every guide; what changes with the gold is told.
    """
    bench = RewardBench(model)
    checks: list[tuple[str, Checking]] = [
        ("runs", _opens(record, factory, known)),
        ("score", _score),
        ("finite", _finite),
        ("pure", _pure),
        ("order", _order),
        ("batch", _batch),
        ("no-mutation", _no_mutation),
        ("threads", _threads),
        ("honest", _honest),
        ("gold", _gold),
        ("trivial", _trivial(success_at)),
    ]
    return asyncio.run(run_checks(bench, checks, needed=("runs", "score")))


# -- what is judged ----------------------------------------------------------------------------------------------------


def _opens(record: Trajectory | None, factory: Callable[[], Any] | None, known: Sequence[Trajectory]) -> Checking:
    async def check(bench: RewardBench) -> Said:
        run = record or _made_up()
        bench.gold = run.task.private
        shown = replace(run, outcome=None, scores={}, source=None)
        process = is_process(bench.model)
        if factory is not None and record is not None:
            bench.items = [_hidden(item) for item in await _executed(shown, factory, process=process)]
            bench.trivial = await play_trivial(run, Endings.of(known or [run]), factory)
            bench.opened = True
        else:
            bench.items = [_hidden(item) for item in _prefixes(shown, process=process)]
            bench.trivial = [_hidden(item) for item in _idle(shown)]
        bench.shown = [_shown(item) for item in bench.items]
        where = "executed again" if bench.opened else "as recorded" if record is not None else "made up"
        return passed(f"{len(bench.items)} {'prefixes' if process else 'runs'}, {where}")

    return check


def _hidden(item: Trajectory) -> Trajectory:
    return replace(item, task=replace(item.task, private={}))


def _made_up() -> Trajectory:
    steps = (Step(0, Message("assistant", "One, two.")), Step(1, Message("assistant", "Three.")))
    return Trajectory("check", Task("check", "Count to 3."), (), (Message("user", "Count to 3."),), steps)


def _prefixes(run: Trajectory, *, process: bool) -> list[Trajectory]:
    """Of a process reward every prefix; else the whole run, and one that was cut in the middle."""
    ends = range(1, len(run.steps)) if process else [max(1, len(run.steps) // 2)]
    cut = [replace(run, steps=run.steps[:at], final_state=None, truncated=not process) for at in ends]
    return [*cut[:ITEMS], run]


def _idle(run: Trajectory) -> list[Trajectory]:
    """A run without a step, and one that only excuses itself; no world says what state they leave."""
    text = Step(0, Message("assistant", "I cannot help with this."))
    return [replace(run, steps=steps, final_state=None, truncated=False) for steps in ((), (text,))]


async def _executed(run: Trajectory, factory: Callable[[], Any], *, process: bool) -> list[Trajectory]:
    """As `_prefixes`, with the states that a world had there and the rewards it gave."""
    session = Session(run, factory)
    world, steps, found = await session.fresh(), list[Step](), list[Trajectory]()
    whole = replace(run, prompt=session.prompt, tools=session.tools()[0])
    middle = max(1, len(run.steps) // 2)
    for step in run.steps:
        steps.append((await session.redo(world, step)).step)
        if len(steps) == len(run.steps) or (process and len(found) < ITEMS) or (not process and len(steps) == middle):
            cut = not process and len(steps) < len(run.steps)
            found.append(replace(whole, steps=tuple(steps), final_state=await state_of(world), truncated=cut))
    await close(world)
    return found or [replace(whole, steps=(), final_state=None)]


# -- checks ------------------------------------------------------------------------------------------------------------


async def _scores(bench: RewardBench, items: Sequence[Trajectory]) -> list[Score]:
    """As the house reads them. Raises RewardFailed for what is no list of scores."""
    said: Any = await finish(bench.model.score(items))
    if isinstance(said, (str, Mapping)) or not isinstance(said, Sequence):
        raise RewardFailed(f"score gave {brief(said)}", hint="one Score for each item, in their order")
    if len(said) != len(items):
        raise RewardFailed(f"{len(items)} items, {len(said)} scores", hint="one Score for each item, in their order")
    return [score_from(score) for score in said]


async def _score(bench: RewardBench) -> Said:
    if await _scores(bench, []) != []:
        return failed("no item, but a score", "one Score for each item")
    scores = await _scores(bench, bench.items)
    for score in scores:
        if (problem := _problem(score)) is not None:
            return failed(problem, "a value, or abstain=True, or error=...: one of the three")
    wrong = [score.error for score in scores if score.error]
    if len(wrong) == len(scores):
        hint = None if bench.opened else "does it read final_state? --from ID --env SPEC executes a recorded run for it"
        return failed(f"every run is an error: {wrong[0]}", hint)
    said = ", ".join(_named(score) for score in scores)
    return passed(brief(said))


def _problem(score: Score) -> str | None:
    said = [score.value is not None, bool(score.abstain), score.error is not None]
    return None if sum(said) == 1 else f"a score with value {score.value}, abstain {score.abstain}, error {score.error}"


def _named(score: Score) -> str:
    if score.value is not None:
        return f"{score.value:.4g}"
    return "abstains" if score.abstain else f"error: {score.error}"


async def _finite(bench: RewardBench) -> Said:
    for score in await _scores(bench, [*bench.items, *bench.trivial]):
        if score.value is not None and not math.isfinite(score.value):
            return failed(f"a value of {score.value}", "Score(error=...) says that there is none")
        json_of(score_to_dict(score))
    return passed("values are finite, details are JSON")


async def _pure(bench: RewardBench) -> Said:
    first, second = await _scores(bench, bench.items), await _scores(bench, bench.items)
    if first == second:
        return passed("asked twice, the same scores")
    one, other = next((a, b) for a, b in zip(first, second, strict=True) if a != b)
    return failed(
        f"one run, two scores: {_named(one)} and {_named(other)}", "no clock, no chance, no memory in a reward"
    )


async def _order(bench: RewardBench) -> Said:
    items = [*bench.items, *bench.trivial]
    forth, back = await _scores(bench, items), await _scores(bench, items[::-1])
    return (
        passed() if forth == back[::-1] else failed("scores depend on the order of the items", "judge each by itself")
    )


async def _batch(bench: RewardBench) -> Said:
    items = [*bench.items, *bench.trivial]
    together = await _scores(bench, items)
    alone = [(await _scores(bench, [item]))[0] for item in items]
    if together == alone:
        return passed("the same alone and together")
    one, other = next((a, b) for a, b in zip(together, alone, strict=True) if a != b)
    return failed(f"together {_named(one)}, alone {_named(other)}", "no ranking within a batch: judge each by itself")


def _no_mutation(bench: RewardBench) -> Said:
    changed = bench.shown != [_shown(item) for item in bench.items]
    return failed("score changed a run that it judged", "copy what is to be changed") if changed else passed()


def _shown(item: Trajectory) -> str:
    task = [item.task.id, item.task.prompt, dict(item.task.data), dict(item.task.private)]
    steps = [step_to_dict(step) for step in item.steps]
    return json_of([task, [message_to_dict(message) for message in item.prompt], steps, item.final_state])


async def _threads(bench: RewardBench) -> Said:
    if is_batched(bench.model):
        return skipped("batched: one call at a time")
    here = await _scores(bench, bench.items)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(lambda: asyncio.run(_scores(bench, bench.items))) for _ in range(THREADS)]
        there = [item.result() for item in waiting]
    same = all(item == here for item in there)
    return (
        passed(f"{THREADS} at one time")
        if same
        else failed("in threads it says something else", "keep nothing in self")
    )


async def _honest(bench: RewardBench) -> Said:
    """A run that cannot be judged must not raise, and must not pass."""
    item = replace(bench.items[-1], steps=(), prompt=(), final_state=None, tools=())
    score = (await _scores(bench, [item]))[0]
    if (problem := _problem(score)) is not None:
        return failed(f"of a run without steps or state: {problem}")
    if score.value is not None and score.value >= SUCCESS:
        return failed(f"a run without steps or state earns {_named(score)}", "abstain, or say what is missing")
    return passed(f"a run without steps or state: {_named(score)}")


async def _gold(bench: RewardBench) -> Said:
    if not bench.gold:
        return skipped("the task has no gold in task.private")
    without = await _scores(bench, bench.items)
    item = [replace(item, task=replace(item.task, private=bench.gold)) for item in bench.items]
    if await _scores(bench, item) == without:
        return passed("judges without task.private")
    if all(score.value is None for score in without):
        return skipped("judges with task.private only: right for --accept, useless as --reward")
    return failed("other scores without task.private, which guides never see", "abstain where the gold is missing")


def _trivial(success_at: float) -> Checking:
    async def check(bench: RewardBench) -> Said:
        if is_process(bench.model) and not bench.opened:
            return skipped("a process reward, and no world to be idle in: --from ID --env SPEC")
        for item, score in zip(bench.trivial, await _scores(bench, bench.trivial), strict=True):
            if score.value is not None and score.value >= success_at:
                kind = item.source.extra.get("branch") if item.source else "idle" if item.steps else "empty"
                told = f"the {kind} run earns {_named(score)}: whoever does nothing has won"
                return failed(told, "ask for what had to be done; or the task is trivial: try another --from")
        return passed(f"{len(bench.trivial)} runs that do nothing do not pass")

    return check
