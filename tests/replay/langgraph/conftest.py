"""Graphs of many makes around one counter, and scripted chat models: no key, no network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ttc_replay import Message, ProposalRequest, Task, ToolCall

pytest.importorskip("langgraph")

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command

TOTAL = [0]
"""What tools act on without a world of the run."""


class Scripted(BaseChatModel):
    """Adds twice, both times with two calls at once, then says its seed. `asked` counts real calls of all of them."""

    seed: int | None = None
    fails_at: int | None = None
    asked: Any = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind()

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        if self.asked is not None:
            self.asked.append(self.seed)
            if self.fails_at is not None and len(self.asked) >= self.fails_at:
                raise ConnectionError("the provider is away")
        results = sum(isinstance(message, ToolMessage) for message in messages)
        calls = [] if results >= 4 else [call(1, f"a{results}"), call(10, f"b{results}")]
        text = "" if calls else f"seed {self.seed}"
        reply = AIMessage(text, tool_calls=calls, usage_metadata=USED)
        return ChatResult(generations=[ChatGeneration(message=reply)])


USED: Any = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}


def call(by: int, identity: str) -> Any:
    return {"name": "add", "args": {"by": by}, "id": identity}


@tool
def add(by: int, config: RunnableConfig) -> str:
    """Add to the counter."""
    counter = config.get("configurable", {}).get("environment") or TOTAL
    counter[0] += by
    return f"total={counter[0]}"


def with_tool_node(model: Any = None, name: str = "hands") -> Any:
    bound = (model or Scripted()).bind_tools([add])

    def think(state: MessagesState) -> Any:
        return {"messages": [bound.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_node(name, ToolNode([add]))
    builder.add_edge(START, "think")
    builder.add_conditional_edges("think", tools_condition, {"tools": name, END: END})
    builder.add_edge(name, "think")
    return builder


def run_calls(state: MessagesState, config: RunnableConfig) -> Any:
    last: Any = state["messages"][-1]
    return {"messages": [ToolMessage(add.invoke(c["args"], config), tool_call_id=c["id"]) for c in last.tool_calls]}


def handwritten(model: Any = None) -> Any:
    """A function runs the tools; a person's review may stand before it."""
    chosen = model or Scripted()

    def think(state: MessagesState) -> Any:
        return {"messages": [chosen.invoke(state["messages"])]}

    def route(state: MessagesState) -> str:
        last: Any = state["messages"][-1]
        return "act" if last.tool_calls else END

    builder = StateGraph(MessagesState)
    builder.add_node("brain", think)
    builder.add_node("act", run_calls)
    builder.add_edge(START, "brain")
    builder.add_conditional_edges("brain", route, ["act", END])
    builder.add_edge("act", "brain")
    return builder


def by_command(model: Any = None) -> Any:
    """No edges: nodes say where to go."""
    chosen = model or Scripted()

    def think(state: MessagesState) -> Any:
        reply = chosen.invoke(state["messages"])
        return Command(update={"messages": [reply]}, goto="act" if reply.tool_calls else END)

    def act(state: MessagesState, config: RunnableConfig) -> Any:
        return Command(update=run_calls(state, config), goto="brain")

    builder = StateGraph(MessagesState)
    builder.add_node("brain", think)
    builder.add_node("act", act)
    builder.add_edge(START, "brain")
    return builder


def nested(model: Any = None) -> Any:
    """The agent is a sub-graph; a node before it adds a system message."""
    builder = StateGraph(MessagesState)
    builder.add_node("prepare", lambda state: {"messages": [SystemMessage("Add.")]})
    builder.add_node("team", with_tool_node(model).compile())
    builder.add_edge(START, "prepare")
    builder.add_edge("prepare", "team")
    return builder


def called(model: Any = None) -> Any:
    """The agent is a sub-graph that a node's function calls."""
    inner = with_tool_node(model).compile()

    def team(state: MessagesState) -> Any:
        return {"messages": inner.invoke({"messages": state["messages"]})["messages"][-1:]}

    builder = StateGraph(MessagesState)
    builder.add_node("team", team)
    builder.add_edge(START, "team")
    return builder


def agent(model: Any = None) -> Any:
    from langchain.agents import create_agent

    return create_agent(model or Scripted(), [add], system_prompt="Add.")


def react(model: Any = None) -> Any:
    from langgraph.prebuilt import create_react_agent

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what many have
        return create_react_agent(model or Scripted(), [add])


KINDS: dict[str, Callable[..., Any]] = {
    make.__name__: make for make in (with_tool_node, handwritten, by_command, nested, called, agent, react)
}
TOOLS_AT = {
    "with_tool_node": ((), "hands"),
    "handwritten": ((), "act"),
    "by_command": ((), "act"),
    "nested": (("team",), "hands"),
    "called": (("team",), "hands"),
    "agent": ((), "tools"),
    "react": ((), "tools"),
}


class Counter(list[int]):
    """The world: a number. Copied by `fork`."""

    def __init__(self, total: int = 0) -> None:
        super().__init__([total])

    def fork(self) -> Counter:
        return Counter(self[0])

    def state(self) -> dict[str, int]:
        return {"total": self[0]}


GO = Message("user", "go")


def acting(*amounts: int, tag: str = "c") -> Message:
    calls = tuple(ToolCall(f"{tag}{place}", "add", {"by": by}) for place, by in enumerate(amounts))
    return Message("assistant", "", tool_calls=calls)


def answers(action: Message, *totals: int) -> list[Message]:
    pairs = zip(action.tool_calls, totals, strict=True)
    return [Message("tool", f"total={total}", tool_call_id=c.id, name=c.name) for c, total in pairs]


def request(*messages: Message, n: int = 1, seed: int = 7, environment: Any = None) -> ProposalRequest:
    return ProposalRequest(Task("t"), "run", 0, "0", messages, (), n, seed, environment=environment)


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    TOTAL[0] = 0


@pytest.fixture(scope="session")
def zoo() -> Any:
    """Everything of this file as one namespace (test files do not import each other)."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", list(KINDS))
