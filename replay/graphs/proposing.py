"""One run of a graph up to what it proposes: the model speaks, no tool runs.

The run begins in a fresh thread that holds the conversation. Where that ends with tool results, it goes on after the
tools node that ran them; else it starts over, as LangGraph does for each new input, with the messages up to the last of
the user (system messages after that were added by the graph's own nodes, which run again). It ends as soon as a reply
with tool calls stands unanswered in the state, a tool is about to run, the graph asks a person (`interrupt`), or it is
at its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...storage.canonical import canonical_json
from ...storage.errors import PolicyFailed
from ...storage.records import Message, Proposal, Usage
from ..calls import add_usage
from .layout import Unit, messages_channel, unit_for
from .messages import GIVEN, from_langchain, to_langchain
from .model_calls import ModelCalls, as_json
from .proxy import ToolReached, watching

_threads = itertools.count()
INTERRUPTED = "interrupt"
"""Finish reason of a proposal after which the graph waits for a person."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A graph that proposes. `outer` stops after every step, in its sub-graphs too; `units` are the parts with tools.

    `state`: first values of other channels; `context`: the graph's run-time context; `most_steps`: of one proposal.
    """

    outer: Any
    units: Sequence[Unit]
    state: Mapping[str, Any] = field(default_factory=dict)
    context: Any = None
    most_steps: int = 32

    async def propose(
        self, messages: Sequence[Message], configurable: Mapping[str, Any], calls: ModelCalls
    ) -> Proposal:
        """What the graph says next. Its usage is the sum of its model calls. Raises what its nodes raise, and
        PolicyFailed when it says nothing."""
        given = to_langchain(messages)
        thread = f"ttc-{next(_threads)}"
        config = {"configurable": {**configurable, "thread_id": thread}, "max_concurrency": 1}
        with watching(calls):
            try:
                said, reason = await self._said(given, config)
            except ToolReached as reached:
                said, reason = [reached.reply], None
            finally:
                for graph in (self.outer, *(unit.graph for unit in self.units)):
                    graph.checkpointer.delete_thread(thread)
        return _proposal(said, reason, calls)

    async def _said(self, given: list[Any], config: dict[str, Any]) -> tuple[list[Any], str | None]:
        graph, payload = await self._enter(given, config)
        options = {} if self.context is None else {"context": self.context}
        for _ in range(self.most_steps):
            await graph.ainvoke(payload, config, interrupt_after="*", durability="sync", **options)
            payload = None
            snapshot = await graph.aget_state(config, subgraphs=True)
            said = _new_replies(snapshot)
            if said and said[-1].tool_calls and not _answered(snapshot, said[-1]):
                return said, None
            if snapshot.interrupts:
                return [*said, *_question(snapshot.interrupts, said)], INTERRUPTED
            if not snapshot.next:
                return [*said[:-1], *map(_as_text, said[-1:])], None
        raise PolicyFailed(f"the graph made {self.most_steps} steps and proposed nothing", hint="most_steps=N")

    async def _enter(self, given: list[Any], config: dict[str, Any]) -> tuple[Any, Any]:
        """The graph that goes on, and its input; None where its thread stands ready."""
        if given and given[-1].type == "tool" and (place := unit_for(self.units, _last_call(given))):
            unit, node = place
            await unit.graph.aupdate_state(config, {**self.state, unit.channel: given}, as_node=node)
            if (await unit.graph.aget_state(config)).next:
                return unit.graph, None
            unit.graph.checkpointer.delete_thread(config["configurable"]["thread_id"])
        return self.outer, {**self.state, messages_channel(self.outer): _input(given)}


def _last_call(given: Sequence[Any]) -> str | None:
    """The tool that the last reply with calls called first."""
    calls = next((message.tool_calls for message in reversed(given) if getattr(message, "tool_calls", None)), None)
    return calls[0]["name"] if calls else None


def _input(given: list[Any]) -> list[Any]:
    last = max((place for place, message in enumerate(given) if message.type == "human"), default=len(given) - 1)
    added = given[last + 1 :]
    return given[: last + 1] if all(message.type == "system" for message in added) else given


def _states(snapshot: Any) -> list[Any]:
    """A snapshot and those of the sub-graphs in which it stands, the innermost last."""
    inner = [task.state for task in snapshot.tasks if hasattr(task.state, "values")]
    return [snapshot, *(deeper for state in inner for deeper in _states(state))]


def _said_in(snapshot: Any) -> list[Any]:
    """All messages of all states, each once."""
    from langchain_core.messages import BaseMessage

    seen: dict[Any, Any] = {}
    for state in _states(snapshot):
        for value in state.values.values() if isinstance(state.values, dict) else ():
            if isinstance(value, list) and value and all(isinstance(item, BaseMessage) for item in value):
                for message in value:
                    seen.setdefault(message.id or canonical_json(as_json(message.model_dump())), message)
    return list(seen.values())


def _new_replies(snapshot: Any) -> list[Any]:
    return [item for item in _said_in(snapshot) if item.type == "ai" and not str(item.id).startswith(GIVEN)]


def _answered(snapshot: Any, reply: Any) -> bool:
    """Whether the graph itself answered the calls of a reply (a structured answer is spelled as a call)."""
    results = {item.tool_call_id for item in _said_in(snapshot) if item.type == "tool"}
    return all(call["id"] in results for call in reply.tool_calls)


def _question(interrupts: Sequence[Any], said: Sequence[Any]) -> list[Any]:
    """What the graph asks a person, where no reply of its own says so."""
    from langchain_core.messages import AIMessage

    value = as_json(interrupts[0].value)
    return [] if said else [AIMessage(value if isinstance(value, str) else canonical_json(value))]


def _as_text(reply: Any) -> Any:
    """A reply that ends the graph without calls: those that the graph answered itself (a structured answer) are its
    words."""
    if not reply.tool_calls:
        return reply
    spoken = reply.text or canonical_json(as_json(reply.tool_calls[-1]["args"]))
    return reply.model_copy(update={"content": spoken, "tool_calls": []})


def _proposal(said: Sequence[Any], reason: str | None, calls: ModelCalls) -> Proposal:
    """The last reply. What was said before it in the same run (a plan, say) is its reasoning."""
    if not said:
        raise PolicyFailed("the graph came to its end and said nothing")
    last = said[-1]
    action = from_langchain(last)
    before = [text for reply in said[:-1] if (text := from_langchain(reply).text.strip())]
    if before:
        action = replace(action, reasoning="\n\n".join([*before, *([action.reasoning] if action.reasoning else [])]))
    told = last.response_metadata.get("finish_reason")
    return Proposal(action, usage=usage_of_calls(calls), finish_reason=reason or (str(told) if told else None))


def usage_of_calls(calls: ModelCalls) -> Usage | None:
    """The sum over all calls whose use is known; None when that of none is."""
    known = [usage for usage in calls.usages if usage is not None]
    return add_usage(known) if known else None
