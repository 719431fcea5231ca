"""The `langgraph` policy: a compiled LangGraph graph is the agent, and its own model node proposes.

    --policy langgraph --policy-opt graph=./agent.py:graph

Each sample is one run of the graph in a fresh in-memory thread, up to what it says next (`graphs.proposing`). No tool
runs in it: tools run in the environment, where what they change is put back. Every call of a chat model in the graph is
journalled, counted against the budgets and never made twice (`graphs.model_calls`); a failure of the model itself stops
the run, which the same command resumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ...storage.canonical import content_id
from ...storage.codec import messages_to_dicts
from ...storage.errors import PolicyFailed, ProviderUnavailable, TtcError, UsageError, classified
from ...storage.records import Proposal, ProposalRequest, Usage
from ..calls import add_usage
from ..graphs.building import compiled, is_graph, stepwise, untraced, wants_config
from ..graphs.layout import units_of
from ..graphs.model_calls import EVENT, Keep, ModelCalls
from ..graphs.reach import source_digest
from .base import Batch, PaidBatch
from .wire import fold_seed, wire_messages

BYTES_PER_TOKEN = 3
"""As in the `litellm` policy: the worst case of an estimate."""
_OPTIONS = ("configurable", "context", "state", "most_steps", "model_calls")
"""Options that the graph sees."""


@dataclass(eq=False)
class LangGraphPolicy:
    """Proposes what a graph says.

    `graph`: a compiled graph, a `StateGraph`, or a function that makes one, of nothing or of a config. `configurable`
    goes to its nodes beside `task_id`, `seed` and `environment`; `context` is its run-time context; `state` holds first
    values of channels other than the messages. `environment` True: `config["configurable"]["environment"]` is a copy of
    the world, to be read (None: only for a graph that is made for a config, which gets it there). `model_calls` and
    `most_steps` bound one sample. `max_tokens`: the longest reply, for reservations. Prices are USD a token. `metered`
    False: the graph's model costs nothing, and its calls are not journalled. `tracing`: leave LangSmith tracing as it
    is set, else it is off while proposing. Raises UsageError for what is no graph, MissingExtra without LangGraph.
    """

    graph: Any
    configurable: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None
    state: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 4
    most_steps: int = 32
    max_tokens: int = 1024
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    metered: bool = True
    environment: bool | None = None
    tracing: bool = False

    places: ClassVar[tuple[str, ...]] = ("graph",)
    batched: ClassVar[bool] = False
    sampling: ClassVar[bool] = True

    model_calls_total: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name in ("model_calls", "most_steps", "max_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number, at least 1: {value!r}")
        self._known: dict[str, Any] = {}
        self._append: Keep = _drop
        self._agent: Any = None
        self._makes = not is_graph(self.graph) and callable(self.graph) and wants_config(self.graph)
        self._built = compiled(self.graph, self._config(None, "", 0))

    def bind(self, append: Keep) -> None:
        """Journal every model call here."""
        self._append = append

    def recall(self, event: Mapping[str, Any]) -> None:
        """Take the `model` event of an earlier session: that call is not made again."""
        if event["event"] == EVENT:
            self._known[event["key"]] = event["messages"]

    def identity(self) -> dict[str, Any]:
        """What goes into call keys: the sources and models behind the graph, and every option that it sees."""
        seen = {name: getattr(self, name) for name in _OPTIONS}
        return {"policy": "langgraph", "sources": source_digest(self.graph, self._built), **seen}

    @property
    def wants_environment(self) -> bool:
        """Whether requests are to carry a copy of the world."""
        return self._makes if self.environment is None else self.environment

    @property
    def priced(self) -> bool:
        """Whether a price was given; else calls count as 0.0 USD."""
        return self.input_cost_per_token is not None or self.output_cost_per_token is not None

    def report(self) -> dict[str, Any]:
        """What the run's report says of the policy."""
        return {"priced": self.priced, "model_calls": self.model_calls_total}

    def calls_at_most(self, request: ProposalRequest) -> int:
        """How many model calls one request may make."""
        return request.n * self.model_calls

    def estimate(self, request: ProposalRequest) -> Usage:
        """The worst case of one request: every call it may make, with the whole conversation and a longest reply."""
        calls = self.calls_at_most(request)
        size = len(str(wire_messages(request.messages, reasoning=False)).encode("utf-8", "replace"))
        prompt, completion = calls * -(-size // BYTES_PER_TOKEN), calls * self.max_tokens
        return self._with_cost(Usage(prompt, completion))

    async def propose(self, requests: Sequence[ProposalRequest]) -> Batch:
        """One batch per request. Raises nothing: an error is in its batch's place."""
        return list(await asyncio.gather(*(self._answer(request) for request in requests)))

    async def _answer(self, request: ProposalRequest) -> PaidBatch | TtcError:
        """The samples that came about, each with its usage; that of failed ones is on the first."""
        samples = await asyncio.gather(*(self._sample(request, number) for number in range(request.n)))
        proposals = [said for said, _ in samples if isinstance(said, Proposal)]
        errors = [said for said, _ in samples if isinstance(said, TtcError)]
        stopping = next((error for error in errors if isinstance(error, (ProviderUnavailable, UsageError))), None)
        if stopping is not None or not proposals:
            return stopping or errors[0]
        lost = [usage for said, calls in samples if said in errors for usage in calls.usages if usage is not None]
        used = [item.usage for item in proposals[:1] if item.usage is not None] + lost
        first = replace(proposals[0], usage=add_usage(used) if used else None)
        count = sum(len(calls.usages) for _, calls in samples)
        return PaidBatch([self._costed(item) for item in (first, *proposals[1:])], calls=count)

    async def _sample(self, request: ProposalRequest, number: int) -> tuple[Proposal | TtcError, ModelCalls]:
        calls = ModelCalls(self._base(request, number), self.model_calls, self._known, self._keep)
        try:
            configurable = self._config(request.environment, request.task.id, fold_seed(request.seed + number))
            with nullcontext() if self.tracing else untraced():
                return await self._agent_for(configurable).propose(request.messages, configurable, calls), calls
        except Exception as error:  # noqa: BLE001  nodes are the user's code
            return _failure(error, calls), calls
        finally:
            self.model_calls_total += len(calls.usages)

    def _keep(self, event: Mapping[str, Any]) -> None:
        if self.metered:
            self._append(event)

    def _base(self, request: ProposalRequest, number: int) -> str:
        asked = messages_to_dicts(request.messages)
        return content_id(request.trajectory_id, asked, request.seed, dict(request.sampling), number)

    def _config(self, environment: Any, task_id: str, seed: int) -> dict[str, Any]:
        """What nodes find in `config["configurable"]`; the handle of a `langgraph` world is the user's own world."""
        world = getattr(environment, "world", environment)
        return {"seed": seed, "task_id": task_id, "environment": world, **self.configurable}

    def _agent_for(self, configurable: Mapping[str, Any]) -> Any:
        """The agent; a graph that is made for a config is made for each sample."""
        if self._makes:
            return self._made(compiled(self.graph, configurable))
        if self._agent is None:
            self._agent = self._made(self._built)
        return self._agent

    def _made(self, graph: Any) -> Any:
        from ..graphs.proposing import Agent

        return Agent(stepwise(graph), units_of(graph), self.state, self.context, self.most_steps)

    def _costed(self, proposal: Proposal) -> Proposal:
        return proposal if proposal.usage is None else replace(proposal, usage=self._with_cost(proposal.usage))

    def _with_cost(self, usage: Usage) -> Usage:
        if not self.priced:
            return usage
        cost = (usage.prompt_tokens or 0) * (self.input_cost_per_token or 0.0)
        cost += (usage.completion_tokens or 0) * (self.output_cost_per_token or 0.0)
        return replace(usage, cost_usd=cost)


def _drop(_: Mapping[str, Any]) -> None:
    """Without a journal nothing is kept."""


def _failure(error: Exception, calls: ModelCalls) -> TtcError:
    """What a model itself raised is the provider's failure; anything else is the graph's."""
    if isinstance(error, TtcError):
        return error
    link: BaseException | None = error
    while link is not None:
        if link is calls.failure:
            told = f"the graph's model failed: {type(link).__name__}: {str(link)[:200]}"
            return ProviderUnavailable(told, hint="the same command goes on where this stopped")
        link = link.__cause__ or link.__context__
    return classified(error, PolicyFailed, "the graph failed")
