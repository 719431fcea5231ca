"""Session: the world of one recorded run, put back to any step (a kept snapshot, else re-execute and compare).

Replay re-runs the record: reset, execute the recorded actions, compare each observation. It calls no model. The first
difference is a DivergedError with step, expected and got; in tolerant mode it is recorded and the replay goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

from ..storage.codec import messages_from
from ..storage.errors import DivergedError, EnvironmentFailed, TtcError, boundary, classified
from ..storage.records import Fidelity, JsonObject, Message, Score, Step, ToolSchema, Trajectory
from .compare import Match, Naming, compare
from .contract import contract_of
from .costs import Costs
from .drive import finish
from .environments.base import EnvironmentClass, environment_class, tools_of
from .environments.users import TapeUser, User, user_reply
from .forking import duplicate
from .rebinding import any_id, bound, closed, opened, settled_by, used_by
from .transition import execute, fidelity_of, hear, refusals, reward_scores, state_key, state_of

EnvironmentFactory = Callable[[], Any]


class Keep(Protocol):
    """Who is offered copies of the states that a replay passes."""

    def wants(self, done: int) -> bool:
        """Whether a copy of the state after `done` steps is wanted."""
        ...

    def __call__(self, done: int, world: Any) -> None:
        """Take the copy."""
        ...


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
    rebound: int = 0
    """Places of recorded arguments in which an id of this world took the place of the record's."""

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
    environment: Any = None
    """The world to go on with: the same one, seen in the record's ids where it gives others."""
    rebound: int = 0


class Session:
    """Opens worlds for one record. Stateless between calls: every world it returns belongs to the caller."""

    def __init__(
        self,
        record: Trajectory,
        factory: EnvironmentFactory,
        runs: Mapping[str, Trajectory] | None = None,
        costs: Costs | None = None,
    ):
        self.costs = costs or Costs()
        """What its worlds cost: one for all sessions of a factory."""
        self.forkable = False
        """Whether its worlds can be copied (known after `fresh`)."""
        self.record = record
        self.factory = factory
        self.runs = runs or {}
        self.contract = contract_of(factory)
        self._probe: Any = None
        self._prompt: tuple[Message, ...] = ()
        self.speaks = any(user_reply(step.observations) is not None for step in record.steps)
        """Whether the record has a user who speaks after the prompt."""
        self.user: User | None = TapeUser(record, self.runs) if self.speaks else None
        """Who answers the agent after the branch point: the tape, where the record has a user; None: nobody."""

    async def fresh(self) -> Any:
        """A new world at the state before step 0. Raises EnvironmentFailed."""
        begun = perf_counter()
        with boundary(EnvironmentFailed, "the environment could not be built"):
            environment = self.factory()
        load = getattr(environment, "load", None)
        name = type(environment).__name__
        with boundary(EnvironmentFailed, f"{name}.reset", place=f"trajectory {self.record.id[:12]}"):
            if load is not None:
                await finish(load(self.record, self.runs))
            self._prompt = messages_from(await finish(environment.reset(self.record.task)) or ())
        self.costs.reset.add(perf_counter() - begun)
        if self._probe is None:
            self.costs.see(environment)
            self.forkable = environment_class(environment) == "forkable"
            self._probe = environment
        return environment

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The record's prompt; the environment's own when the record has none (known after `fresh`)."""
        return tuple(self.record.prompt) or self._prompt

    @property
    def environment_class(self) -> EnvironmentClass | None:
        """What its worlds are (known after `fresh`)."""
        return None if self._probe is None else environment_class(self._probe)

    def hash_of(self, state: Any) -> str:
        """The hash of a state of its worlds, without what they say to ignore. Raises EnvironmentFailed."""
        with boundary(EnvironmentFailed, "the hash of the state"):
            return self.contract.hash_of(self._probe, state)

    async def state_key(self, environment: Any) -> str | None:
        """What says that two states are equal: the world's own `state_key()`, else its state's hash where that is
        asked for, else None (states of that world are never merged)."""
        own = state_key(environment)
        if own is not None or not self.contract.hashes(environment):
            return own
        state = await state_of(environment)
        return None if state is None else self.hash_of(state)

    def tools(self) -> tuple[tuple[ToolSchema, ...], str]:
        """Tool schemas and where they come from: the log, else the environment (known after `fresh`)."""
        if self.record.tools is not None:
            return self.record.tools, "log"
        return (tools_of(self._probe), "environment") if self._probe is not None else ((), "unknown")

    async def replay(self, *, tolerant: bool = False, upto: int | None = None, keep: Keep | None = None) -> Replay:
        """Re-execute the record's steps [0, upto) and compare.

        `keep(steps done, world)` gets the copies that it wants of the live world, before each step and after the last,
        from forkable worlds only. Stops at the first difference unless tolerant. Failures of the world are in
        `Replay.error`.
        """
        result = Replay()
        try:
            environment = await self.fresh()
            steps = self.record.steps if upto is None else self.record.steps[:upto]
            await self._offer(keep, 0, environment)
            for step in steps:
                redone = await self.redo(environment, step, steps[: len(result.steps)], strict=True)
                environment, result.rebound = redone.environment, result.rebound + redone.rebound
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

    async def _offer(self, keep: Keep | None, done: int, environment: Any) -> None:
        if keep is not None and self.forkable and keep.wants(done):
            keep(done, await self.fork(environment))

    async def fork(self, environment: Any) -> Any:
        """`fork`, and what it cost."""
        begun = perf_counter()
        copied = await fork(environment)
        self.costs.fork.add(perf_counter() - begun)
        return copied

    async def redo(self, environment: Any, step: Step, before: Sequence[Step] = (), *, strict: bool = False) -> Redone:
        """Execute a known step again; its observations are compared, user replies are given as they were.

        Where this world gives other ids than the steps `before` hold, arguments are re-bound and the comparison is up
        to the renaming. `strict`: only ids that later actions of the record use may newly differ.
        """
        begun = perf_counter()
        binds = self.contract.rebinds(environment)
        view, (environment, names) = environment, opened(environment)
        action, rebound = bound(step.action, names) if binds else (step.action, 0)
        result = await execute(environment, action, step.index)
        fidelity = fidelity_of(environment, result)
        got, done, rewards, info = list(result.observations), result.done, [result.reward], result.info
        for reply in step.observations:
            if reply.role == "user":
                heard = await hear(environment, bound(reply, names)[0] if binds else reply)
                got.extend(heard.observations)
                done = done or heard.done
                rewards.append(heard.reward)
                info = heard.info or info
        permit = (used_by(self.record.steps[step.index + 1 :]) if strict else any_id) if binds else None
        naming = Naming(names, permit, lambda: settled_by(self.prompt, before))
        match = self._match(environment, step, got, naming)
        view = closed(view, naming.names, binds=binds)
        ended = done or (not self.speaks and not step.action.tool_calls)
        scores: dict[str, Score] = {**step.scores, **reward_scores(rewards)}
        if match.level is not None and fidelity == "snapshot":
            fidelity = "reexecuted"
        played = replace(step, fidelity=fidelity, scores=scores)
        level = StepMatch(step.index, match.level, fidelity, match.rules, match.expected, match.got)
        self.costs.step.add(perf_counter() - begun)
        return Redone(played, level, ended, info, view, rebound)

    def _match(self, environment: Any, step: Step, got: Sequence[Message], naming: Naming) -> Match:
        match = compare(step.observations, got, self.contract.rules(environment), naming)
        if match.level is None:
            refused = refusals(step.action, tools_of(environment))
            if refused and got == refused:
                return replace(match, got=f"{match.got} (this environment lacks the tool)")
        return match

    async def at(self, steps: Sequence[Step], start: tuple[int, Any] | None = None, keep: Keep | None = None) -> Any:
        """A world that stands after `steps`, re-executed from `start` (steps done, world), else from a fresh one.

        `keep` gets the copies that it wants of the states on the way, and of the last. Raises DivergedError when an
        observation differs from the one in `steps`.
        """
        done, environment = start if start is not None else (0, await self.fresh())
        if start is None:
            await self._offer(keep, 0, environment)
        for index, step in enumerate(steps[done:], done):
            redone = await self.redo(environment, step, steps[:index])
            environment, match = redone.environment, redone.match
            if match.level is None:
                raise DivergedError(step.index, match.expected, match.got, place=f"trajectory {self.record.id[:12]}")
            await self._offer(keep, index + 1, environment)
        return environment


async def fork(environment: Any) -> Any:
    """An independent copy of a forkable world, by the capability that it declares. Raises EnvironmentFailed."""
    try:
        copy = duplicate(environment)
        return await copy if hasattr(copy, "__await__") else copy
    except Exception as cause:
        raise classified(cause, EnvironmentFailed, "environment.fork") from cause


async def close(environment: Any) -> None:
    """Close a world that has `close`; a failure to close is not a failure of the run."""
    method = getattr(environment, "close", None)
    if method is not None:
        with boundary(EnvironmentFailed, f"{type(environment).__name__}.close"):
            await finish(method())
