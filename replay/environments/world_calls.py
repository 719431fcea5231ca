"""The calls of a world model to its inner policy: journalled, cached and counted like those of the agent's policy.

A search binds its journal and cache (`bind`); then a metered call is written down before and after it is made, under
the same kind of key as any other call (`calls.call_key`), and a finished one is never made again: not by this run, not
after a kill, not by another run. The events carry `by: world`, so that a resumed run knows whose they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...storage.errors import PolicyFailed, UsageError
from ...storage.records import ProposalRequest, Spec, Usage
from ..calls import Append, Caller, Lookup, Reply, call_key
from ..drive import is_async, run_inline

BY = "world"
"""Who asked, in the journal's events."""


class WorldCalls:
    """Asks the inner policy of a world model. One object for all worlds of a run."""

    def __init__(self, policy: Any):
        self.policy = policy
        self.metered = bool(getattr(policy, "metered", False))
        self.sampling = bool(getattr(policy, "sampling", True))
        if self.metered and not callable(getattr(policy, "identity", None)):
            told = f"{type(policy).__name__} costs something and has no identity(): its calls could not be told apart"
            raise UsageError(told, hint="a metered policy needs identity(), see docs/policies.md")
        if hasattr(policy, "may_pay_again"):
            policy.may_pay_again = _never
        self._waits = not bool(getattr(policy, "inline", False)) and not is_async(policy, "propose")
        self._caller: Caller | None = None if self.metered else Caller(policy, Spec("world"), _drop, _nothing)
        self._flying: dict[str, asyncio.Task[Reply]] = {}

    def bind(self, append: Append, lookup: Lookup) -> None:
        """Write to this journal from now on, and answer from this cache."""
        if self.metered:
            self._caller = Caller(self.policy, Spec("world"), lambda event: append({**event, "by": BY}), lookup)

    def recall(self, event: Mapping[str, Any]) -> None:
        """Take an `intent` or `result` event of an earlier session."""
        if self._caller is not None:
            self._caller.recall(event)

    @property
    def repeated_calls(self) -> int:
        """Calls that were begun more than once: those in flight at a kill."""
        return self._caller.repeated_calls if self._caller is not None else 0

    def estimate(self, request: ProposalRequest) -> Usage:
        """The worst case of one call; nothing for a policy that costs nothing."""
        method = getattr(self.policy, "estimate", None)
        told: Usage = method(request) if self.metered and method is not None else Usage()
        return told

    async def ask(self, request: ProposalRequest) -> Reply:
        """The reply to one request; two branches that ask the same at once pay once.

        What the policy does not tell of its use is its worst case. Raises UsageError for a metered policy without a
        journal, and what the policy raised.
        """
        if self._caller is None:
            told = "a world model that costs something answers in a search only, whose journal keeps what was paid"
            raise UsageError(told, hint="ttc-replay search --env world-model ...")
        reply = await (self._once(self._caller, request) if self.metered else self._propose(self._caller, request))
        if reply.error is not None:
            raise reply.error
        untold = reply.usage.prompt_tokens is None and reply.usage.completion_tokens is None
        return replace(reply, usage=self.estimate(request)) if self.metered and untold else reply

    async def _once(self, caller: Caller, request: ProposalRequest) -> Reply:
        key = call_key(self.policy.identity(), request)
        task = self._flying.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._propose(caller, request))
            self._flying[key] = task
            task.add_done_callback(lambda _: self._flying.pop(key, None))
        return await asyncio.shield(task)

    async def _propose(self, caller: Caller, request: ProposalRequest) -> Reply:
        work = caller.propose([request])
        replies = await (asyncio.to_thread(run_inline, work) if self._waits else work)
        if len(replies) != 1:
            raise PolicyFailed(f"{len(replies)} replies to one request")
        return replies[0]


def _never(_: ProposalRequest) -> bool:
    """A reply that was paid for and useless is not asked for again: nothing was reserved for that."""
    return False


def _drop(_: Mapping[str, Any]) -> None:
    """Calls that cost nothing leave no trace."""


def _nothing(_: Any) -> dict[str, Mapping[str, Any]]:
    return {}
