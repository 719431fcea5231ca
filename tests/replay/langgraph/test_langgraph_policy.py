"""A graph proposes: its model speaks, no tool runs, and every model call is counted, seeded and never made twice."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from ttc_replay import Message, Usage
from ttc_replay.replay.environments.langgraph import LangGraphEnvironment
from ttc_replay.replay.graphs.building import compiled
from ttc_replay.replay.graphs.layout import units_of
from ttc_replay.replay.policies.langgraph import LangGraphPolicy
from ttc_replay.storage.errors import MissingExtra, PolicyFailed, ProviderUnavailable, UsageError


def ask(policy: LangGraphPolicy, *requests: Any) -> Any:
    return asyncio.run(policy.propose(list(requests)))


class Says(BaseChatModel):
    """Says the same whatever it is asked; refuses a seed's field, so it takes none."""

    reply: Any

    @property
    def _llm_type(self) -> str:
        return "says"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind()

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.reply.model_copy())])


def test_tools_nodes_are_found_by_what_the_graph_does(zoo: Any, kind: str) -> None:
    units = units_of(compiled(zoo.KINDS[kind](), {}))
    assert [(unit.path, list(unit.nodes)) for unit in units] == [(zoo.TOOLS_AT[kind][0], [zoo.TOOLS_AT[kind][1]])]
    assert units[0].node_for("add") == zoo.TOOLS_AT[kind][1]


def test_every_kind_of_graph_proposes_and_runs_no_tool(zoo: Any, kind: str) -> None:
    asked: list[int | None] = []
    policy = LangGraphPolicy(zoo.KINDS[kind](zoo.Scripted(asked=asked)))
    first, second = zoo.acting(1, 10, tag="x"), zoo.acting(2, 3, tag="y")
    told = [zoo.GO, first, *zoo.answers(first, 1, 11)]
    end = [*told, second, *zoo.answers(second, 13, 16)]
    begun, going, done = ask(policy, zoo.request(zoo.GO, n=2), zoo.request(*told), zoo.request(*end))
    for batch in (begun, going):
        assert {tuple(c.arguments["by"] for c in item.action.tool_calls) for item in batch} == {(1, 10)}
    assert [len(begun), begun.calls, going.calls] == [2, 2, 1]
    assert begun[0].usage == Usage(10, 2)
    assert done[0].action.text.startswith("seed ")
    assert done[0].action.tool_calls == ()
    assert zoo.TOTAL == [0]
    assert len(asked) == policy.model_calls_total == 4
    assert len(set(asked)) == 4
    assert None not in asked
    assert not policy._built.checkpointer.storage


def test_a_request_says_the_same_again_and_another_seed_something_else(zoo: Any) -> None:
    policy = LangGraphPolicy(zoo.agent())
    action = zoo.acting(1, 1, 1, 1)
    context = [zoo.GO, action, *zoo.answers(action, 1, 2, 3, 4)]
    said = [ask(policy, zoo.request(*context, seed=seed, n=2))[0] for seed in (1, 1, 2)]
    texts = [[item.action.text for item in batch] for batch in said]
    assert texts[0] == texts[1]
    assert len({*texts[0], *texts[2]}) == 4


def test_outside_of_proposals_nothing_is_watched(zoo: Any) -> None:
    asked: list[int | None] = []
    graph = zoo.with_tool_node(zoo.Scripted(asked=asked)).compile()
    ask(LangGraphPolicy(graph), zoo.request(zoo.GO))
    ended = graph.invoke({"messages": [HumanMessage("go")]})
    assert ended["messages"][-1].text == "seed None"
    assert asked[1:] == [None, None, None]
    assert zoo.TOTAL == [22]


def test_too_many_model_calls_and_failures_are_told_apart(zoo: Any) -> None:
    def think(state: MessagesState) -> Any:
        if state["messages"][-1].text == "break":
            raise KeyError("a node's own mistake")
        replies = [model.invoke(state["messages"]) for _ in range(3)]
        return {"messages": replies[-1:]}

    def graph_of() -> Any:
        builder = StateGraph(MessagesState)
        builder.add_node("think", think)
        builder.add_edge(START, "think")
        return builder

    model = zoo.Scripted(asked=[])
    [batch] = ask(LangGraphPolicy(graph_of()), zoo.request(zoo.GO))
    assert (batch.calls, batch[0].usage) == (3, Usage(30, 6))
    [error] = ask(LangGraphPolicy(graph_of(), model_calls=2), zoo.request(zoo.GO))
    assert isinstance(error, PolicyFailed)
    assert "more than 2 times" in error.message
    [error] = ask(LangGraphPolicy(graph_of()), zoo.request(Message("user", "break")))
    assert isinstance(error, PolicyFailed)
    assert "KeyError" in error.message
    model = zoo.Scripted(asked=[], fails_at=2)
    [error] = ask(LangGraphPolicy(graph_of()), zoo.request(zoo.GO))
    assert isinstance(error, ProviderUnavailable)
    assert "ConnectionError" in error.message


def test_finished_model_calls_are_journalled_and_not_made_again(zoo: Any) -> None:
    asked: list[int | None] = []

    def think(state: MessagesState) -> Any:
        plan = model.invoke([*state["messages"], HumanMessage("plan")])  # without an id: LangGraph draws one
        return {"messages": [next(iter(model.stream([*state["messages"], plan])))]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_edge(START, "think")
    model = zoo.Scripted(asked=asked)
    events: list[Any] = []
    policy = LangGraphPolicy(builder)
    policy.bind(events.append)
    [first] = ask(policy, zoo.request(zoo.GO))
    assert [event["event"] for event in events] == ["model", "model"]
    again = LangGraphPolicy(builder)
    again.recall(events[0])  # a kill came before the second was done
    [second] = ask(again, zoo.request(zoo.GO))
    assert second[0].action == first[0].action
    assert [call.arguments for call in second[0].action.tool_calls] == [{"by": 1}, {"by": 10}]
    assert second[0].usage == first[0].usage == Usage(20, 4)
    assert len(asked) == 3


def test_an_interrupt_is_the_end_of_a_proposal_and_the_users_turn(zoo: Any) -> None:
    def approve(state: MessagesState) -> Any:
        return {"messages": [HumanMessage(interrupt({"question": "Shall I?"}))]}

    def think(state: MessagesState) -> Any:
        heard = [message.text for message in state["messages"] if message.type == "human"]
        return {"messages": [AIMessage(f"heard {heard[-1]}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("approve", approve)
    builder.add_node("think", think)
    builder.add_conditional_edges(START, lambda state: "approve" if len(state["messages"]) == 1 else "think")
    builder.add_edge("think", END)
    policy = LangGraphPolicy(builder, metered=False)
    [[asked]] = ask(policy, zoo.request(zoo.GO))
    assert (asked.action.text, asked.finish_reason) == ('{"question":"Shall I?"}', "interrupt")
    [[said]] = ask(policy, zoo.request(zoo.GO, asked.action, Message("user", "yes")))
    assert (said.action.text, said.finish_reason) == ("heard yes", None)


def test_what_is_said_before_is_reasoning_and_a_structured_answer_is_text(zoo: Any) -> None:
    from langchain.agents import create_agent
    from langchain.agents.structured_output import ToolStrategy

    class Answer(BaseModel):
        """The answer."""

        total: int

    planner = StateGraph(MessagesState)
    planner.add_node("plan", lambda state: {"messages": [AIMessage("First add.")]})
    planner.add_node("team", zoo.handwritten().compile())
    planner.add_edge(START, "plan")
    planner.add_edge("plan", "team")
    [[said]] = ask(LangGraphPolicy(planner), zoo.request(zoo.GO))
    assert said.action.reasoning == "First add."
    assert len(said.action.tool_calls) == 2
    spelled = AIMessage("", tool_calls=[{"name": "Answer", "args": {"total": 7}, "id": "s"}])
    structured = create_agent(Says(reply=spelled), [zoo.add], response_format=ToolStrategy(Answer))
    [[said]] = ask(LangGraphPolicy(structured), zoo.request(zoo.GO))
    assert (said.action.text, said.action.tool_calls) == ('{"total":7}', ())


def test_nodes_read_a_copy_of_the_world(zoo: Any) -> None:
    def think(state: MessagesState, config: RunnableConfig) -> Any:
        counter = config.get("configurable", {})["environment"]
        counter[0] += 100  # it should not, and only harms the copy
        return {"messages": [AIMessage(f"it is {counter[0]}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_edge(START, "think")
    world = LangGraphEnvironment(zoo.with_tool_node(), zoo.Counter)
    world.reset(zoo.request(zoo.GO).task)
    world.step(zoo.acting(5))
    policy = LangGraphPolicy(builder, environment=True)
    assert policy.wants_environment
    [[said]] = ask(policy, zoo.request(zoo.GO, environment=world.fork()))
    assert said.action.text == "it is 105"
    assert world.state() == {"total": 5}


def test_an_async_graph_that_is_made_for_a_config(zoo: Any) -> None:
    def make(config: RunnableConfig) -> Any:
        async def think(state: MessagesState) -> Any:
            known = config.get("configurable", {})
            return {"messages": [AIMessage(f"{known['mood']} {known['task_id']}")]}

        builder = StateGraph(MessagesState)
        builder.add_node("think", think)
        builder.add_edge(START, "think")
        return builder.compile()

    policy = LangGraphPolicy(make, configurable={"mood": "calm"})
    [[said]] = ask(policy, zoo.request(zoo.GO))
    assert said.action.text == "calm t"
    assert policy.wants_environment


def test_identity_follows_the_sources_and_the_models(zoo: Any) -> None:
    first, same = LangGraphPolicy(zoo.agent()), LangGraphPolicy(zoo.agent())
    assert first.identity() == same.identity()
    assert first.identity() != LangGraphPolicy(zoo.agent(), state={"mood": "calm"}).identity()
    assert first.identity()["sources"] != LangGraphPolicy(zoo.agent(Says(reply=AIMessage("x")))).identity()["sources"]


def test_without_langgraph_the_extra_is_named(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = zoo.with_tool_node()
    monkeypatch.setitem(sys.modules, "langgraph.graph", None)
    with pytest.raises(MissingExtra) as missing:
        LangGraphPolicy(graph)
    assert missing.value.hint == "pip install 'ttc-replay[langgraph]'"


@pytest.mark.parametrize(
    ("graph", "options", "said"),
    [
        (lambda: 3, {}, "int is no LangGraph graph"),
        (lambda one, two: None, {}, "takes 2 arguments"),
        (None, {"model_calls": 0}, "model_calls must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused(zoo: Any, graph: Any, options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LangGraphPolicy(graph or zoo.with_tool_node(), **options)
