"""A bench to check an environment on: worlds that stand anywhere on one walk, and the walk itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..storage.canonical import seed_from
from ..storage.codec import messages_from
from ..storage.errors import TtcError
from ..storage.records import Message, StepResult, Task, Trajectory
from .compare import compare, normalisers_from
from .contract_checks_actions import Facts, candidates
from .contract_checks_base import brief, json_of
from .environments.base import environment_class, tools_of
from .outcomes import reseed
from .session import Session, close
from .transition import execute, hear, state_key, state_of

MOST_STEPS = 12
"""Steps of the walk that is made up of the tools' schemas."""
MOST_RECORDED = 40
"""Steps of a record that are walked."""
TURNS = 4
METHODS = ("reset", "step", "fork", "tools", "state", "close", "hear", "load", "reseed")
"""What a world may offer, awaitable or not."""


@dataclass(frozen=True, slots=True)
class Move:
    """One action, and what the user said after it in the record."""

    action: Message
    replies: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """A world's state as it can be seen: `state()` as canonical JSON, `state_key()`; None: it does not say."""

    state: str | None
    key: str | None


@dataclass(slots=True)
class Bench:
    """What is checked: a factory, a task, and a walk of moves with what a fresh world answered.

    `seed`: worlds are reseeded with it before each move; None: they are not. `recorded`: the moves are of a record.
    """

    factory: Callable[[], Any]
    record: Trajectory
    recorded: bool
    runs: Mapping[str, Trajectory] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    straight: list[StepResult] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    seed: int | None = None
    kind: str = ""

    @property
    def session(self) -> Session:
        """Opens worlds."""
        return Session(self.record, self.factory, self.runs or {self.record.id: self.record})

    async def fresh(self, steps: int = 0) -> Any:
        """A world that stands after `steps` moves."""
        world = await self.session.fresh()
        await self.play(world, 0, steps)
        return world

    async def play(self, world: Any, start: int = 0, end: int | None = None) -> list[StepResult]:
        """Make the moves [start, end)."""
        last = len(self.moves) if end is None else end
        return [await self.move(world, self.moves[at], at) for at in range(start, last)]

    async def move(self, world: Any, move: Move, at: int) -> StepResult:
        """One move, with the user's replies. Raises EnvironmentFailed."""
        if self.seed is not None:
            await reseed(world, seed_from(self.seed, at))
        result = await execute(world, move.action, at)
        for reply in move.replies:
            heard = await hear(world, reply)
            done = result.done or heard.done
            result = StepResult([*result.observations, *heard.observations], done, result.reward, result.info)
        return result

    def difference(self, world: Any, got: Sequence[StepResult], start: int = 0) -> str | None:
        """The first place where results of the moves from `start` on differ from the walk's; None: nowhere."""
        normalisers = normalisers_from(getattr(world, "normalise", None))
        for at, (wanted, found) in enumerate(zip(self.straight[start:], got, strict=False), start):
            match = compare(wanted.observations, found.observations, normalisers)
            if match.level is None:
                return f"step {at}: {brief(match.expected)} the first time, then {brief(match.got)}"
            if (wanted.done, wanted.reward) != (found.done, found.reward):
                before, after = (wanted.done, wanted.reward), (found.done, found.reward)
                return f"step {at}: (done, reward) was {before}, then {after}"
        return None


async def standing(world: Any) -> Standing:
    """What can be seen of a world's state; what cannot be had is None, because one check looks for that."""
    found: list[str | None] = []
    for look in (_state_text, _key):
        try:
            found.append(await look(world))
        except Exception:  # noqa: BLE001 (foreign code: the checks `state` and `state-key` say what is wrong)
            found.append(None)
    return Standing(*found)


async def _state_text(world: Any) -> str | None:
    state = await state_of(world)
    return None if state is None else json_of(state)


async def _key(world: Any) -> str | None:
    return state_key(world)


def bench_of(
    factory: Callable[[], Any], task: Task, record: Trajectory | None, runs: Mapping[str, Trajectory] | None
) -> Bench:
    """A bench without moves yet."""
    bench = Bench(factory, record or Trajectory("check", task), record is not None, runs or {})
    if record is not None:
        bench.moves = [
            Move(step.action, tuple(item for item in step.observations if item.role == "user"))
            for step in record.steps[:MOST_RECORDED]
        ]
    return bench


async def walk(bench: Bench, moves: Sequence[Message] = ()) -> None:
    """Make the walk in a fresh world: the record's moves, those given, else moves that the tools' schemas allow."""
    world = await bench.fresh()
    bench.kind = environment_class(world)
    if moves and not bench.recorded:
        bench.moves = [Move(action) for action in moves]
    elif not bench.recorded:
        bench.moves = await _explored(bench, world)
    world = await bench.fresh()
    bench.standings = [await standing(world)]
    bench.straight = []
    for at, move in enumerate(bench.moves):
        bench.straight.append(await bench.move(world, move, at))
        bench.standings.append(await standing(world))
    await close(world)


async def _explored(bench: Bench, world: Any) -> list[Move]:
    """Moves that do not end the run, then one that does. What raises is left out: other checks look for that."""
    facts, found, last = Facts(), list[Move](), Move(Message("assistant", "Done."))
    facts.note(messages_from(bench.session.prompt))
    for turn in range(TURNS):
        for action in candidates(tools_of(world), facts, turn):
            move = Move(action)
            if len(found) >= MOST_STEPS or any(move.action == known.action for known in found):
                continue
            result = await _tried(bench, world, move, len(found))
            if result is None or result.done:
                last = last if result is None else move
                world = await _again(bench, found)
            else:
                facts.note(messages_from(result.observations))
                found.append(move)
    return [*found, last]


async def _tried(bench: Bench, world: Any, move: Move, at: int) -> StepResult | None:
    try:
        return await bench.move(world, move, at)
    except TtcError:
        return None


async def _again(bench: Bench, moves: Sequence[Move]) -> Any:
    bench.moves = list(moves)
    return await bench.fresh(len(moves))
