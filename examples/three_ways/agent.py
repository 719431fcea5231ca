"""The agent as LangChain's `create_agent` builds it, with a scripted model: no key, no network.

Its tools act on the world of the run, `config["configurable"]["environment"]`, and on the process's own depot where the
run has none: in production that is the service behind them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool

from ttc_replay.examples.three_ways.depot import Depot, LiveDepot, order_of

DEPOT = LiveDepot()
"""The depot of this process."""


def _depot(config: RunnableConfig) -> Depot:
    found: Depot = config.get("configurable", {}).get("environment") or DEPOT
    return found


@tool
def look(item: str, config: RunnableConfig) -> dict[str, Any]:
    """How many of an item are free."""
    return _depot(config).look(item)


@tool
def reserve(item: str, count: int, config: RunnableConfig) -> dict[str, Any]:
    """Set some of an item aside."""
    return _depot(config).reserve(item, count)


@tool
def ship(reservation: str, config: RunnableConfig) -> dict[str, Any]:
    """Send off what was set aside."""
    return _depot(config).ship(reservation)


class Clerk(BaseChatModel):
    """Looks, then reserves and ships line by line. It miscounts: on its line `slip` when it has no seed, else by what
    the seed draws (a third of the counts are right, a third are one too many, a third one too few)."""

    seed: int | None = None
    slip: int | None = None

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        """Its script knows the tools."""
        return self.bind()

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        text, calls = self._next(messages)
        usage = {"input_tokens": 20 * len(messages), "output_tokens": 12, "total_tokens": 20 * len(messages) + 12}
        named = [
            {"name": name, "args": args, "id": f"call-{len(messages)}-{at}"} for at, (name, args) in enumerate(calls)
        ]
        reply = AIMessage(text, tool_calls=named, usage_metadata=usage, response_metadata={"model_name": "clerk-1"})
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _next(self, messages: Sequence[BaseMessage]) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
        asked = next(message.text for message in messages if isinstance(message, HumanMessage))
        lines = list(order_of(asked).items())
        told = [(message.name, json.loads(message.text)) for message in messages if isinstance(message, ToolMessage)]
        if not told:
            return "", [("look", {"item": item}) for item, _ in lines]
        done = sum(name == "ship" for name, _ in told)
        if told[-1][0] == "reserve" and "reservation" in told[-1][1]:
            return "", [("ship", {"reservation": told[-1][1]["reservation"]})]
        if done < len(lines) and sum(name == "reserve" for name, _ in told) < 2 * len(lines):
            item, count = lines[done]
            return "", [("reserve", {"item": item, "count": count + self._error(done)})]
        return "Everything has left.", []

    def _error(self, line: int) -> int:
        if self.seed is None:
            return int(line == self.slip)
        return (0, 1, -1)[self.seed % 3]


def make_graph(slip: int | None = None) -> Any:
    """The agent's graph."""
    return create_agent(Clerk(slip=slip), [look, reserve, ship])


graph = make_graph()
