"""Asks the policy, and never pays twice: metered calls are journalled before and after, and answered from the journal
or the permanent cache when they were finished before (design.md section 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..storage.canonical import content_id
from ..storage.codec import (
    messages_to_dicts,
    proposal_from,
    tokens_from,
    tokens_to_dict,
    usage_from,
    usage_to_dict,
)
from ..storage.errors import PolicyFailed, TtcError, boundary
from ..storage.exact_json import message_from_json, message_to_json
from ..storage.records import Proposal, ProposalRequest, Spec, Usage
from .drive import finish

Append = Callable[[Mapping[str, Any]], None]
Lookup = Callable[[Sequence[str]], Mapping[str, Mapping[str, Any]]]


NO_USAGE = Usage()


@dataclass(slots=True)
class Reply:
    """What the policy answered to one request, and under which call key (None: not metered). `calls`: how many paid
    calls that took."""

    proposals: Sequence[Proposal] = ()
    key: str | None = None
    usage: Usage = NO_USAGE
    error: TtcError | None = None
    calls: int = 1


def call_key(identity: Mapping[str, Any], request: ProposalRequest) -> str:
    """SHA-256 of provider, model, parameters (the seed too), messages, tools, first sample and n."""
    return content_id(
        dict(identity),
        dict(request.sampling),
        request.seed,
        messages_to_dicts(request.messages),
        [dict(tool) for tool in request.tools],
        request.n,
    )


class Caller:
    """One policy, its journal and its cache. Events: `intent` before a metered call, `result` after it."""

    def __init__(self, policy: Any, spec: Spec, append: Append, lookup: Lookup):
        self.policy = policy
        self.metered = bool(getattr(policy, "metered", False))
        self.sampling = bool(getattr(policy, "sampling", True))
        self._append = append
        self._lookup = lookup
        identity = getattr(policy, "identity", None)
        self._identity = identity() if identity else {"policy": spec.name, "options": dict(spec.options)}
        self._results: dict[str, Mapping[str, Any]] = {}
        self._intents: dict[str, int] = {}
        if hasattr(policy, "bind"):
            policy.bind(append)

    @property
    def repeated_calls(self) -> int:
        """Calls that were begun more than once: those in flight at a kill, begun again after it."""
        return sum(count - 1 for count in self._intents.values())

    def recall(self, event: Mapping[str, Any]) -> None:
        """Take an `intent` or `result` event of an earlier session of this run."""
        if event["event"] == "result":
            self._results[event["key"]] = event
        elif event["event"] == "intent":
            self._intents[event["key"]] = self._intents.get(event["key"], 0) + 1
        elif event["event"] == "model" and hasattr(self.policy, "recall"):
            self.policy.recall(event)

    def calls_at_most(self, request: ProposalRequest) -> int:
        """How many paid calls one request may take."""
        method = getattr(self.policy, "calls_at_most", None)
        return 1 if method is None else int(method(request))

    def estimate(self, request: ProposalRequest) -> Usage:
        """The worst case of one call, for reservation; nothing for a policy that costs nothing."""
        method = getattr(self.policy, "estimate", None)
        return method(request) if self.metered and method is not None else Usage()

    async def propose(self, requests: Sequence[ProposalRequest]) -> list[Reply]:
        """One reply per request, in order. A failure is the reply's `error`."""
        if not self.metered:
            return await self._ask(requests, [None] * len(requests))
        keys = [call_key(self._identity, request) for request in requests]
        self._recall_cached([key for key in keys if key not in self._results])
        missing = [index for index, key in enumerate(keys) if key not in self._results]
        asked = [requests[index] for index in missing]
        for index in missing:
            self._begin(keys[index], requests[index])
        fresh = await self._ask(asked, [keys[index] for index in missing]) if missing else []
        for reply in fresh:
            self._end(reply)
        by_index = dict(zip(missing, fresh, strict=True))
        return [by_index[index] if index in by_index else self._known(key) for index, key in enumerate(keys)]

    def _recall_cached(self, keys: Sequence[str]) -> None:
        for key, row in (self._lookup(keys) if keys else {}).items():
            self._results[key] = {"event": "result", "key": key, "body": row["body"], "usage": row.get("usage")}
            self._append({**self._results[key], "cached": True})

    def _begin(self, key: str, request: ProposalRequest) -> None:
        self._intents[key] = self._intents.get(key, 0) + 1
        self._append({"event": "intent", "key": key, "trajectory": request.trajectory_id, "node": request.node})

    def _end(self, reply: Reply) -> None:
        if reply.error is None and reply.key is not None:
            event: dict[str, Any] = {
                "event": "result",
                "key": reply.key,
                "body": [proposal_to_dict(proposal) for proposal in reply.proposals],
                "usage": usage_to_dict(reply.usage),
            }
            if reply.calls != 1:
                event["calls"] = reply.calls
            self._results[reply.key] = event
            self._append(event)

    def _known(self, key: str) -> Reply:
        event = self._results[key]
        proposals = [proposal_from_dict(item) for item in event["body"]]
        return Reply(proposals, key, usage_from(event.get("usage")) or Usage(), calls=event.get("calls", 1))

    async def _ask(self, requests: Sequence[ProposalRequest], keys: Sequence[str | None]) -> list[Reply]:
        try:
            with boundary(PolicyFailed, f"policy {type(self.policy).__name__}"):
                answered = await finish(self.policy.propose(requests))
                counts = [int(getattr(batch, "calls", 1)) for batch in answered]
                batches = [
                    batch if isinstance(batch, TtcError) else [proposal_from(item) for item in batch]
                    for batch in answered
                ]
                if len(batches) != len(requests):
                    raise ValueError(f"{len(batches)} answers to {len(requests)} requests")
        except TtcError as error:
            return [Reply(key=key, error=error) for key in keys]
        return [_reply(*parts) for parts in zip(batches, keys, counts, strict=True)]


def _reply(batch: Sequence[Proposal] | TtcError, key: str | None, calls: int) -> Reply:
    if isinstance(batch, TtcError):
        return Reply(key=key, error=batch)
    return Reply(batch) if key is None else Reply(batch, key, total_usage(batch), calls=calls)


def total_usage(proposals: Sequence[Proposal]) -> Usage:
    """The sum over proposals that have usage; unknown fields of all stay None."""
    known = [proposal.usage for proposal in proposals if proposal.usage is not None]
    return add_usage(known) if known else NO_USAGE


def add_usage(items: Sequence[Usage]) -> Usage:
    """Field by field; a field that nobody knows stays None."""

    def total(name: str) -> Any:
        values = [getattr(item, name) for item in items if getattr(item, name) is not None]
        return sum(values) if values else None

    if not items:
        return Usage()
    return Usage(total("prompt_tokens"), total("completion_tokens"), total("cached_tokens"), total("cost_usd"))


def proposal_to_dict(proposal: Proposal) -> dict[str, Any]:
    """What the journal keeps of a proposal: all of it, exactly."""
    row: dict[str, Any] = {"action": message_to_json(proposal.action)}
    if proposal.logprob is not None:
        row["logprob"] = proposal.logprob
    if proposal.usage is not None:
        row["usage"] = usage_to_dict(proposal.usage)
    if proposal.finish_reason is not None:
        row["finish_reason"] = proposal.finish_reason
    if proposal.source is not None:
        row["source"] = list(proposal.source)
    if proposal.tokens is not None:
        row["tokens"] = tokens_to_dict(proposal.tokens)
    return row


def proposal_from_dict(row: Mapping[str, Any]) -> Proposal:
    """The inverse of `proposal_to_dict`."""
    source = row.get("source")
    return Proposal(
        message_from_json(row["action"]),
        row.get("logprob"),
        usage_from(row.get("usage")),
        row.get("finish_reason"),
        (source[0], source[1]) if source is not None else None,
        tokens_from(row.get("tokens")),
    )
