"""Askers: all that may ask a model in one run (the policy, worlds that imagine, the user's side), and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..storage.records import Spec, Usage
from .answers import Job
from .calls import Append, Caller, Lookup, add_usage
from .plugins import Plugins
from .settings import Settings
from .simulated_user import BY as USER
from .simulated_user import UserSide, worst_of


class Askers:
    """One caller each, over one journal, so that every call is journalled, cached and counted alike."""

    def __init__(self, plugins: Plugins, settings: Settings, append: Append, lookup: Lookup):
        self.caller = Caller(plugins.policy, settings.policy, append, lookup)
        self.imagination = plugins.imagination
        self.user_side: UserSide | None = None
        if self.imagination is not None:
            self.imagination.bind(append, lookup)
        if plugins.user_policy is not None:
            spec = settings.user_policy or Spec(type(plugins.user_policy).__name__)
            self.user_side = UserSide(plugins.user_policy, spec, append, lookup, settings.seed)
        self.metered = any(bool(asker.metered) for asker in (self.caller, *self._others))
        """Whether any call may be paid for."""

    @property
    def _others(self) -> list[Any]:
        user = self.user_side.caller if self.user_side is not None else None
        return [other for other in (self.imagination, user) if other is not None]

    @property
    def repeated_calls(self) -> int:
        """Calls that were in flight at a kill and begun again."""
        return sum(int(asker.repeated_calls) for asker in (self.caller, *self._others))

    def recall(self, event: Mapping[str, Any]) -> None:
        """Take a call of an earlier session, by whose it is."""
        by = event.get("by")
        if by == USER:
            if self.user_side is not None:
                self.user_side.caller.recall(event)
        elif by != "world":
            self.caller.recall(event)
        elif self.imagination is not None:
            self.imagination.recall(event)

    def worst(self, job: Job, user: Any) -> tuple[int, Usage]:
        """The most calls of one job, and their usage. One more outcome of a known action asks no policy."""
        proposed = self.caller.metered and job.again is None
        calls = self.caller.calls_at_most(job.request) if proposed else 0
        worst = [self.caller.estimate(job.request)] if proposed else []
        if self.imagination is not None:
            asked, usage = self.imagination.worst()
            calls, worst = calls + asked * job.count, [*worst, *[usage] * job.count]
        replies, usage = worst_of(self.user_side, user, job.request.messages, worst)
        return calls + replies * job.count, add_usage([*worst, *[usage] * job.count])
