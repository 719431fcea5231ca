"""Session: the world of one recorded run, put back to any step (a kept snapshot, else re-execute and compare).

Replay re-runs the record: reset, execute the recorded actions, compare each observation. It calls no model. The first
difference is a DivergedError with step, expected and got; in tolerant mode it is recorded and the replay goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..storage.codec import messages_from
from ..storage.errors import DivergedError, EnvironmentFailed, TtcError, boundary, classified
from ..storage.records import Fidelity, JsonObject, Message, Score, Step, ToolSchema, Trajectory
from .compare import Match, compare, normalisers_from
from .drive import finish
from .environments.base import environment_class, tools_of
from .environments.users import TapeUser, User, user_reply
from .transition import CLASS_FIDELITY, execute, hear, refusals, reward_scores, state_of

EnvironmentFactory = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class StepMatch:
    """How one re-executed step compares with the record. `level` None: the observations differ."""

    index: int
    level: str | None
    fidelity: Fidelity
    rules: tuple[str, ...] = ()
    expected: str | None = None
    got: str | None = None


@dataclass(slots=True)
class Replay:
    """A record re-executed: one match and one step (with its re-executed reward) per recorded step.

    `info` is what the world said beside its last reward (the parts of a verdict, where it has parts).
    """

    matches: list[StepMatch] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    error: TtcError | None = None
    done: bool = False
    final_state: Any = None
    info: JsonObject = field(default_factory=dict)

    @property
    def diverged(self) -> StepMatch | None:
        """The first step whose observation differs."""
        return next((match for match in self.matches if match.level is None), None)


@dataclass(frozen=True, slots=True)
class Redone:
    """A known step executed again: with this world's reward and fidelity, how it compares, whether the world ended."""

    step: Step
    match: StepMatch
    done: bool
    info: JsonObject


class Session:
    """Opens worlds for one record. Stateless between calls: every world it returns belongs to the caller."""

    def __init__(self, record: Trajectory, factory: EnvironmentFactory, runs: Mapping[str, Trajectory] | None = None):
        self.record = record
        self.factory = factory
        self.runs = runs or {}
        self._probe: Any = None
        self._prompt: tuple[Message, ...] = ()
        speaks = any(user_reply(step.observations) is not None for step in record.steps)
        self.user: User | None = TapeUser(record, self.runs) if speaks else None
        """The tape's user, when the record has one who speaks after the prompt; None: a world without a user."""

    async def fresh(self) -> Any:
        """A new world at the state before step 0. Raises EnvironmentFailed."""
        with boundary(EnvironmentFailed, "the environment could not be built"):
            environment = self.factory()
        load = getattr(environment, "load", None)
        name = type(environment).__name__
        with boundary(EnvironmentFailed, f"{name}.reset", place=f"trajectory {self.record.id[:12]}"):
            if load is not None:
                await finish(load(self.record, self.runs))
            self._prompt = messages_from(await finish(environment.reset(self.record.task)) or ())
        self._probe = self._probe or environment
        return environment

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The record's prompt; the environment's own when the record has none (known after `fresh`)."""
        return tuple(self.record.prompt) or self._prompt

    def tools(self) -> tuple[tuple[ToolSchema, ...], str]:
        """Tool schemas and where they come from: the log, else the environment (known after `fresh`)."""
        if self.record.tools is not None:
            return self.record.tools, "log"
        return (tools_of(self._probe), "environment") if self._probe is not None else ((), "unknown")

    async def replay(
        self, *, tolerant: bool = False, upto: int | None = None, keep: Callable[[int, Any], None] | None = None
    ) -> Replay:
        """Re-execute the record's steps [0, upto) and compare.

        `keep(steps done, world)` gets a fork of the live world before each step and after the last, from forkable
        worlds only. Stops at the first difference unless tolerant. Failures of the world are in `Replay.error`.
        """
        result = Replay()
        try:
            environment = await self.fresh()
            steps = self.record.steps if upto is None else self.record.steps[:upto]
            await self._offer(keep, 0, environment)
            for step in steps:
                redone = await self.redo(environment, step)
                match, result.done, result.info = redone.match, redone.done, redone.info or result.info
                result.matches.append(match)
                result.steps.append(redone.step)
                if match.level is None and not tolerant:
                    break
                await self._offer(keep, step.index + 1, environment)
            result.final_state = await state_of(environment)
            await close(environment)
        except TtcError as error:
            result.error = error
        return result

    async def _offer(self, keep: Callable[[int, Any], None] | None, done: int, environment: Any) -> None:
        if keep is not None and environment_class(environment) == "forkable":
            keep(done, await fork(environment))

    async def redo(self, environment: Any, step: Step) -> Redone:
        """Execute a known step again; its observations are compared, user replies are given as they were."""
        fidelity = CLASS_FIDELITY[environment_class(environment)]
        result = await execute(environment, step.action, step.index)
        got, done, rewards, info = list(result.observations), result.done, [result.reward], result.info
        for reply in step.observations:
            if reply.role == "user":
                heard = await hear(environment, reply)
                got.extend(heard.observations)
                done = done or heard.done
                rewards.append(heard.reward)
                info = heard.info or info
        match = self._match(environment, step, got)
        ended = done or (self.user is None and not step.action.tool_calls)
        scores: dict[str, Score] = {**step.scores, **reward_scores(rewards)}
        if match.level is not None and fidelity == "snapshot":
            fidelity = "reexecuted"
        played = replace(step, fidelity=fidelity, scores=scores)
        level = StepMatch(step.index, match.level, fidelity, match.rules, match.expected, match.got)
        return Redone(played, level, ended, info)

    def _match(self, environment: Any, step: Step, got: Sequence[Message]) -> Match:
        match = compare(step.observations, got, normalisers_from(getattr(environment, "normalise", None)))
        if match.level is None:
            refused = refusals(step.action, tools_of(environment))
            if refused and got == refused:
                return replace(match, got=f"{match.got} (this environment lacks the tool)")
        return match

    async def at(self, steps: Sequence[Step], start: tuple[int, Any] | None = None) -> Any:
        """A world that stands after `steps`, re-executed from `start` (steps done, world), else from a fresh one.

        Raises DivergedError when an observation differs from the one in `steps`.
        """
        done, environment = start if start is not None else (0, await self.fresh())
        for step in steps[done:]:
            match = (await self.redo(environment, step)).match
            if match.level is None:
                raise DivergedError(step.index, match.expected, match.got, place=f"trajectory {self.record.id[:12]}")
        return environment


async def fork(environment: Any) -> Any:
    """An independent copy of a forkable world. Raises EnvironmentFailed."""
    try:
        copy = environment.fork()
        return await copy if hasattr(copy, "__await__") else copy
    except Exception as cause:
        raise classified(cause, EnvironmentFailed, "environment.fork") from cause


async def close(environment: Any) -> None:
    """Close a world that has `close`; a failure to close is not a failure of the run."""
    method = getattr(environment, "close", None)
    if method is not None:
        with boundary(EnvironmentFailed, f"{type(environment).__name__}.close"):
            await finish(method())
