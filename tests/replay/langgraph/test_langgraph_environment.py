"""A graph's own tools node as a world: what tools change is put back, and what nobody puts back is not called true."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command, interrupt

from ttc_replay import Message, Task, ToolCall, Trajectory
from ttc_replay.replay.drive import run_inline
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.environments.langgraph import LangGraphEnvironment
from ttc_replay.replay.environments.langgraph_worlds import _SHARED
from ttc_replay.replay.policies.langgraph import LangGraphPolicy
from ttc_replay.replay.transition import execute, fidelity_of
from ttc_replay.storage.errors import UsageError

TASK = Task("t")


def standing(graph: Any, *arguments: Any, **options: Any) -> LangGraphEnvironment:
    world = LangGraphEnvironment(graph, *arguments, **options)
    assert world.reset(TASK) == []
    return world


def said(result: Any) -> list[str]:
    return [message.text for message in result.observations]


def only_tools(*tools: Any, state: Any = MessagesState) -> Any:
    """A graph that is little more than its tools node."""
    builder = StateGraph(state)
    builder.add_node("model", lambda state: {})
    builder.add_node("run", ToolNode(list(tools)))
    builder.add_edge(START, "model")
    builder.add_edge("run", "model")
    return builder


def calling(name: str, identity: str = "c", **arguments: Any) -> Message:
    return Message("assistant", "", tool_calls=(ToolCall(identity, name, arguments),))


def test_the_tools_of_every_kind_of_graph_act_on_the_branch_of_their_own(zoo: Any, kind: str) -> None:
    world = standing(zoo.KINDS[kind](), zoo.Counter)
    assert environment_class(world) == "forkable"
    first = world.step(zoo.acting(1, 10))
    assert [(message.text, message.tool_call_id) for message in first.observations] == [
        ("total=1", "c0"),
        ("total=11", "c1"),
    ]
    assert not first.done
    other = world.fork()
    assert said(other.step(zoo.acting(100, tag="d"))) == ["total=111"]
    assert said(world.step(zoo.acting(2, 3, 4, tag="e"))) == ["total=13", "total=16", "total=20"]
    assert (world.state(), other.state(), zoo.TOTAL) == ({"total": 20}, {"total": 111}, [0])
    assert [schema["function"]["name"] for schema in world.tools()] == ["add"]
    assert world.step(Message("assistant", "Done.")).observations == ()


def test_a_shared_object_is_put_to_where_each_branch_stands(zoo: Any) -> None:
    class Live(zoo.Counter):  # type: ignore[misc]
        def snapshot(self) -> int:
            return int(self[0])

        def restore(self, snapshot: int) -> None:
            self[0] = snapshot

    live = Live(5)
    world = standing(zoo.agent(), live)
    other = world.fork()
    assert said(world.step(zoo.acting(1))) == ["total=6"]
    assert said(other.step(zoo.acting(2))) == ["total=7"]
    assert said(world.step(zoo.acting(1, tag="d"))) == ["total=7"]
    assert standing(zoo.agent(), live).state() == {"total": 5}
    assert said(standing(zoo.agent(), live).step(zoo.acting(1))) == ["total=6"]
    policy = LangGraphPolicy(zoo.agent(), environment=True)
    [error] = asyncio.run(policy.propose([zoo.request(zoo.GO, environment=world)]))
    assert isinstance(error, UsageError)
    assert "a shared world shows no branch" in error.message
    _SHARED.pop(id(live))


@pytest.mark.parametrize(
    ("make", "stands"),
    [
        (lambda zoo: zoo.Counter, "forkable"),
        (
            lambda zoo: type("Copied", (list,), {"forks": "deepcopy", "__init__": lambda self: self.append(0)}),
            "forkable",
        ),
        (lambda zoo: type("Plain", (list,), {"__init__": lambda self: self.append(0)}), "re-executable"),
        (lambda zoo: lambda: zoo.Counter(0), "forkable"),
    ],
    ids=["fork", "deepcopy", "nothing", "function"],
)
def test_the_class_follows_from_the_world(zoo: Any, make: Any, stands: str) -> None:
    given = make(zoo)
    fresh = LangGraphEnvironment(zoo.agent(), given)
    assert environment_class(fresh) == stands
    fresh.reset(TASK)
    assert environment_class(fresh) == stands
    if stands == "forkable":
        twin = fresh.fork()
        twin.step(zoo.acting(9))
        assert said(fresh.step(zoo.acting(1))) == ["total=1"]


def test_a_function_of_a_task_makes_the_world_of_the_task(zoo: Any) -> None:
    world = LangGraphEnvironment(zoo.agent(), lambda task: zoo.Counter(task.data["start"]))
    assert environment_class(world) == "re-executable"  # nobody knows yet
    world.reset(Task("t", data={"start": 40}))
    assert environment_class(world) == "forkable"
    assert said(world.step(zoo.acting(2))) == ["total=42"]


def test_without_a_world_nothing_more_is_claimed_than_is_true(zoo: Any, caplog: pytest.LogCaptureFixture) -> None:
    graph = zoo.agent()
    world = standing(graph)
    result = world.step(zoo.acting(1))
    assert environment_class(world) == "re-executable"
    assert fidelity_of(world, result) == "simulated"
    assert result.info["unrestored"]
    assert said(standing(graph).step(zoo.acting(1))) == ["total=2"]  # the first one's doing is still there
    assert [record.levelname for record in caplog.records] == ["WARNING"]

    def made() -> Any:
        own = zoo.Counter()
        return only_tools(tool(lambda_adding(own)))

    for total in ("total=1", "total=1"):
        fresh = standing(made)
        result = fresh.step(calling("more", by=1))
        assert said(result) == [total]
        assert fidelity_of(fresh, result) == "reexecuted"


def lambda_adding(own: Any) -> Any:
    def more(by: int) -> str:
        """Add."""
        own[0] += by
        return f"total={own[0]}"

    return more


def test_a_graph_that_is_made_for_a_config_gets_each_branchs_world(zoo: Any) -> None:
    def make(config: RunnableConfig) -> Any:
        return only_tools(tool(lambda_adding(config.get("configurable", {})["environment"])))

    world = standing(make, zoo.Counter)
    assert said(world.step(calling("more", by=1))) == ["total=1"]
    other = world.fork()
    assert said(other.step(calling("more", by=5))) == ["total=6"]
    assert said(world.step(calling("more", by=2))) == ["total=3"]


def test_state_in_the_graphs_channels_is_part_of_the_branch() -> None:
    class Cart(MessagesState):
        items: list[str]

    @tool
    def put(
        item: str,
        items: Annotated[list[str], InjectedState("items")],
        identity: Annotated[str, InjectedToolCallId],
    ) -> Command[Any]:
        """Put an item into the cart."""
        now = [*items, item]
        return Command(update={"items": now, "messages": [ToolMessage(",".join(now), tool_call_id=identity)]})

    world = standing(only_tools(put, state=Cart), pure=True, state={"items": ["bag"]})
    assert said(world.step(calling("put", item="tea"))) == ["bag,tea"]
    other = world.fork()
    assert said(other.step(calling("put", item="cup"))) == ["bag,tea,cup"]
    assert said(world.step(calling("put", item="pot"))) == ["bag,tea,pot"]
    assert world.state() == {"channels": {"items": ["bag", "tea", "pot"]}}


def test_tools_that_end_the_run_ask_a_person_or_read_the_conversation(zoo: Any) -> None:
    @tool(return_direct=True)
    def hand_over(reason: str) -> str:
        """Give up."""
        return f"handed over: {reason}"

    @tool
    def approve(amount: int) -> str:
        """Ask somebody."""
        return f"approved: {interrupt({'amount': amount})}"

    @tool
    def heard(state: Annotated[Any, InjectedState]) -> str:
        """What was said."""
        return "|".join(message.text for message in state["messages"])

    from langchain.agents import create_agent

    graph = create_agent(zoo.Scripted(), [hand_over, approve, heard])
    world = standing(graph, pure=True)
    ended = world.step(calling("hand_over", reason="late"))
    assert (said(ended), ended.done) == (["handed over: late"], True)
    waiting = world.step(calling("approve", amount=3))
    assert (said(waiting), waiting.done) == (['Waits for a person: {"amount":3}'], True)
    resumed = standing(graph, pure=True, resume="yes").step(calling("approve", amount=3))
    assert (said(resumed), resumed.done) == (["approved: yes"], False)
    told = LangGraphEnvironment(graph, pure=True)
    told.load(Trajectory("r", TASK, prompt=(Message("system", "Be kind."), Message("user", "go"))), {})
    told.reset(TASK)
    told.step(Message("assistant", "Which?"))
    told.hear(Message("user", "all"))
    assert said(told.step(calling("heard"))) == ["Be kind.|go|Which?|all|"]


def test_a_step_from_a_node_or_an_event_loop_is_a_step_like_any_other(zoo: Any) -> None:
    world = standing(zoo.agent(), zoo.Counter)

    async def node(state: MessagesState) -> Any:
        return {"messages": list(said(world.step(zoo.acting(1))))}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    ended = asyncio.run(builder.compile().ainvoke({"messages": []}))
    assert [message.text for message in ended["messages"]] == ["total=1"]


def test_wrong_calls_are_observations(zoo: Any) -> None:
    world = standing(zoo.agent(), zoo.Counter)
    [unknown] = world.step(calling("fly", identity="x")).observations
    assert "fly is not a valid tool" in unknown.text
    assert unknown.is_error
    [wrong] = world.step(calling("add", identity="y", by="three")).observations
    assert wrong.is_error
    broken = Message("assistant", "", tool_calls=(ToolCall("z", "add", None, "{oops"),))
    result = run_inline(execute(world, broken, 0))
    assert said(result) == ["Error: the arguments are not a JSON object"]
    assert world.state() == {"total": 0}


@pytest.mark.parametrize(
    ("graph", "world", "told"),
    [(None, object(), "nobody can put back"), ("no tools", None, "no node that answers tool calls")],
)
def test_what_cannot_be_is_refused(zoo: Any, graph: Any, world: Any, told: str) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {})
    builder.add_edge(START, "model")
    with pytest.raises(UsageError, match=told):
        LangGraphEnvironment(builder if graph else zoo.agent(), world)
