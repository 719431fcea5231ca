"""Make the databases of this folder (see README.md) with LangGraph itself: a scripted model, no network.

usage: python make.py [postgresql://...]     (with a URL: write the same threads to that PostgreSQL database instead)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

os.environ["LANGSMITH_TRACING"] = "false"
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.messages.base import BaseMessage
from langchain_core.messages.tool import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

HERE = Path(__file__).parent


class ScriptedModel(FakeMessagesListChatModel):
    """Says its lines in order; tools are offered to it and ignored."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> ScriptedModel:
        return self


def says(identity: str, text: str, *calls: tuple[str, str, dict[str, Any]], cached: int = 0, **extra: Any) -> AIMessage:
    made = [{"type": "tool_call", "id": call, "name": name, "args": args} for call, name, args in calls]
    usage: Any = {"input_tokens": 40 + cached, "output_tokens": 9, "total_tokens": 49 + cached}
    usage["input_token_details"] = {"cache_read": cached}
    about = {"model_name": "scripted-1"}
    return AIMessage(text, id=identity, tool_calls=made, usage_metadata=usage, response_metadata=about, **extra)


@tool
def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"{city}: sunny, 21 degrees"


@tool
def seats(flight: str) -> str:
    """Count the free seats of a flight."""
    raise ValueError(f"no flight {flight}")


def forked(saver: BaseCheckpointSaver[Any]) -> None:
    """A tool agent with parallel calls, one of which fails; then the second action is replaced and played on."""
    lines = [
        says("ai-1", "", ("call-1", "weather", {"city": "Bern"}), ("call-2", "seats", {"flight": "LX1"})),
        says("ai-2", "", ("call-3", "weather", {"city": "Basel"}), cached=30),
        says("ai-3", "Bern is sunny; the flight is unknown; Basel is sunny."),
        says("ai-4", "Bern is sunny. I did not look further."),
    ]
    lines[0].additional_kwargs["reasoning_content"] = "Two things to look up."
    agent = _tool_graph(ScriptedModel(responses=[*lines]), saver)
    config = {"configurable": {"thread_id": "forked"}}
    prompt = [SystemMessage("You are a travel clerk.", id="sys-1"), HumanMessage("Bern, Basel and LX1?", id="user-1")]
    agent.invoke({"messages": prompt, "budget": 3}, config)
    states = list(agent.get_state_history(config))
    before = next(state for state in states if state.values["messages"][-1].id == "ai-2")
    other = says("ai-2b", "", ("call-4", "weather", {"city": "Basle"}))
    branch = agent.update_state(before.config, {"messages": [_replaced(before, other)]}, as_node="model")
    agent.invoke(None, branch)


def _replaced(state: Any, other: AIMessage) -> AIMessage:
    """A message of the same id takes the other's place."""
    other.id = state.values["messages"][-1].id
    return other


class ToolState(TypedDict):
    messages: Annotated[list[Any], add_messages]
    budget: int


def _tool_graph(model: ScriptedModel, saver: BaseCheckpointSaver[Any]) -> Any:
    """An agent by hand: a failing tool answers with status error, as ToolNode does."""
    tools = {"weather": weather, "seats": seats}

    def act(state: ToolState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])], "budget": state["budget"] - 1}

    def run(state: ToolState) -> dict[str, Any]:
        return {"messages": [_run(tools[call["name"]], call) for call in state["messages"][-1].tool_calls]}

    def _next(state: ToolState) -> str:
        return "tools" if state["messages"][-1].tool_calls else END

    graph = StateGraph(ToolState)
    graph.add_node("model", act)
    graph.add_node("tools", run)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", _next, ["tools", END])
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def _run(chosen: Any, call: dict[str, Any]) -> ToolMessage:
    identity = f"result-{call['id']}"
    try:
        content, status = chosen.invoke(call["args"]), "success"
    except ValueError as error:
        content, status = f"Error: {error}", "error"
    return ToolMessage(content, tool_call_id=call["id"], name=call["name"], status=status, id=identity)


class TeamState(TypedDict):
    dialogue: Annotated[list[BaseMessage], add_messages]


def team(saver: BaseCheckpointSaver[Any]) -> None:
    """A graph whose messages are not called `messages`, with an agent of create_agent as sub-graph behind a node."""
    lines = [says("sub-1", "", ("call-9", "weather", {"city": "Chur"})), says("sub-2", "Chur is sunny.")]
    helper = create_agent(ScriptedModel(responses=[*lines]), tools=[weather], system_prompt="You look up weather.")

    def lead(state: TeamState) -> dict[str, Any]:
        return {"dialogue": [says("lead-1", "", ("call-8", "helper", {"question": "Chur?"}))]}

    def ask(state: TeamState) -> dict[str, Any]:
        found = helper.invoke({"messages": [HumanMessage("Chur?", id="sub-user")]})
        said = found["messages"][-1].content
        return {"dialogue": [ToolMessage(said, tool_call_id="call-8", name="helper", id="lead-2")]}

    graph = StateGraph(TeamState)
    graph.add_node("lead", lead)
    graph.add_node("ask", ask)
    graph.add_edge(START, "lead")
    graph.add_edge("lead", "ask")
    compiled: Any = graph.compile(checkpointer=saver)
    compiled.invoke(
        {"dialogue": [HumanMessage("Weather in Chur?", id="team-user")]}, {"configurable": {"thread_id": "team"}}
    )


def approval(saver: BaseCheckpointSaver[Any]) -> None:
    """A run that asks a person before it acts, and waits."""

    def act(state: TeamState) -> dict[str, Any]:
        return {"dialogue": [says("pay-1", "", ("call-5", "weather", {"city": "Thun"}))]}

    def confirm(state: TeamState) -> dict[str, Any]:
        answer = interrupt({"question": "May I call weather?"})
        return {"dialogue": [ToolMessage(f"allowed: {answer}", tool_call_id="call-5", name="weather", id="pay-2")]}

    graph = StateGraph(TeamState)
    graph.add_node("act", act)
    graph.add_node("confirm", confirm)
    graph.add_edge(START, "act")
    graph.add_edge("act", "confirm")
    config = {"configurable": {"thread_id": "waiting"}}
    compiled: Any = graph.compile(checkpointer=saver)
    compiled.invoke({"dialogue": [HumanMessage("Thun?", id="pay-0")]}, config)


FILES = {"forked.sqlite": (forked,), "team.sqlite": (team, approval)}


def main() -> None:
    if len(sys.argv) > 1:
        from langgraph.checkpoint.postgres import PostgresSaver

        with PostgresSaver.from_conn_string(sys.argv[1]) as server:
            server.setup()
            for write in (forked, team, approval):
                write(server)
        return
    for name, threads in FILES.items():
        (HERE / name).unlink(missing_ok=True)
        with SqliteSaver.from_conn_string(str(HERE / name)) as saver:
            for write in threads:
                write(saver)
            for statement in ("PRAGMA journal_mode=DELETE", "PRAGMA page_size=512", "VACUUM"):
                saver.conn.execute(statement)


if __name__ == "__main__":
    main()
