"""Confirmation over fresh seeds, for worlds that do not always answer alike.

A search that tries many branches in such a world picks the lucky ones. So the actions of a counterfactual and those of
the record are played again from step 0, both under the same fresh seeds, which the search has not seen; the means of
the judge's verdicts over those plays take the place of the two lanes. Worlds without `reseed(seed)` are deterministic
by contract: for them nothing is played.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..storage.canonical import seed_from
from ..storage.errors import TtcError
from ..storage.records import Proposal, Step, Trajectory
from .baseline import Judge
from .environments.users import TapeUser, user_reply
from .outcomes import reseed
from .session import Session, close
from .transition import play, state_of


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Mean verdicts over the fresh seeds on which both plays have one; `plays` is how many those are. With none at all
    both means are unknown, and nothing is confirmed."""

    found: float | None
    baseline: float | None
    plays: int

    @property
    def better(self) -> bool:
        """Whether the counterfactual is known to do better than the record."""
        return self.found is not None and self.baseline is not None and self.found > self.baseline


class Confirmer:
    """Plays runs of one record again under `plays` seeds made from the run's seed and the record."""

    def __init__(self, session: Session, judge: Judge, seed: int, plays: int):
        self.session = session
        self.judge = judge
        self.seeds = [seed_from(seed, session.record.id, "confirm", number) for number in range(plays)]
        self._baseline: list[float | None] | None = None

    async def check(self, found: Trajectory) -> Confirmed | None:
        """Both means; None when the world has no `reseed`."""
        if not self.seeds or not await self._stochastic():
            return None
        if self._baseline is None:
            self._baseline = await self._values(self.session.record, self.session.record.steps)
        pairs = zip(await self._values(found, found.steps), self._baseline, strict=True)
        known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
        if not known:
            return Confirmed(None, None, 0)
        count = len(known)
        return Confirmed(sum(mine for mine, _ in known) / count, sum(theirs for _, theirs in known) / count, count)

    async def _stochastic(self) -> bool:
        world = await self.session.fresh()
        await close(world)
        return callable(getattr(world, "reseed", None))

    async def _values(self, run: Trajectory, steps: Sequence[Step]) -> list[float | None]:
        return [await self._value(run, steps, seed) for seed in self.seeds]

    async def _value(self, run: Trajectory, steps: Sequence[Step], seed: int) -> float | None:
        """The judge's verdict on one play; None when the world failed or the judge abstained."""
        try:
            played = await self._play(run, steps, seed)
        except TtcError:
            return None
        return self.judge.lane(played)[0]

    async def _play(self, run: Trajectory, steps: Sequence[Step], seed: int) -> Trajectory:
        """The same actions, one after another, whatever the world answers; it may end earlier than it did."""
        user = self.session.user
        if user is not None and not isinstance(user, TapeUser):
            user = TapeUser(run)  # the run's own replies: confirming calls no model
        world = await self.session.fresh()
        await reseed(world, seed)
        context, done, over, cut = list(self.session.prompt), [], False, False
        for index, step in enumerate(steps):
            if over:
                break
            said = user_reply(step.observations)
            proposal = Proposal(step.action, source=(run.parent_id or run.id, step.index) if said else None)
            new, over, cut = await play(world, proposal, index, context, user)
            done.append(new)
            context += [new.action, *new.observations]
        state = await state_of(world)
        await close(world)
        return replace(
            run, task=self.session.record.task, steps=tuple(done), final_state=state, truncated=cut or not over
        )
