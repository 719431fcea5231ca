"""The policy contract: contexts in, proposed actions out, in batches."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ...storage.errors import TtcError
from ...storage.records import Message, Proposal, ProposalRequest, Trajectory

ProposalLike: TypeAlias = Proposal | Message | Mapping[str, Any]
Batch: TypeAlias = Sequence[Sequence[ProposalLike] | TtcError]


class PaidBatch(list[ProposalLike]):
    """What a policy answers to one request when that took another number of paid calls than one."""

    def __init__(self, proposals: Iterable[ProposalLike], *, calls: int):
        super().__init__(proposals)
        self.calls = calls


@runtime_checkable
class Policy(Protocol):
    """Proposes actions. One inner sequence per request, in the order of the requests; `propose` may be async.

    Optional members:

    * `batched = False`: requests gain nothing from travelling together (an HTTP API); the engine then sends each one
      alone, so that a slow answer holds up nobody;
    * `sampling = True`: fewer proposals than asked do not mean that there are no others (language models);
      False: they do (a table of known actions);
    * `inline = True`: never blocks, may run on the event loop;
    * `prepare(records)`: see `Prepared`; `identity() -> dict`: what goes into the call key, default the spec;
    * `report() -> dict`: what the run's report says of the policy, beside its name;
    * `priced = False`: no price is known, so that a limit of cost cannot bind;
    * `metered = True`: calls cost tokens or money; journalled against the budgets and never made twice;
    * `calls_at_most(request) -> int`: paid calls that one request may take, default 1; how many it took is said by a
      `PaidBatch`;
    * `bind(append)`, `recall(event)`: a policy that makes several calls for one request journals each of them (an event
      `model`) and is handed those of an earlier session;
    * `wants_environment = True`: each request's `environment` is a copy of the world where it asks, to be read only and
      closed after the reply; else None.
    """

    def propose(self, requests: Sequence[ProposalRequest]) -> Batch | Awaitable[Batch]:
        """For each request at most `n` actions, none of them in `exclude`; an error in their place fails that ask."""
        ...


class Prepared(Protocol):
    """A policy that learns from the archive before the search begins."""

    def prepare(self, records: Iterable[Trajectory]) -> None:
        """See every recorded trajectory (never counterfactuals), `task.private` and `outcome.detail` emptied."""
        ...
