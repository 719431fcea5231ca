"""A search with a graph as the policy and its tools as the world: budgets, journal, resume, and search as a node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from ttc_replay import Message, Spec, Step, Task, Trajectory, reward
from ttc_replay.replay.engine import Engine, Plugins
from ttc_replay.replay.environments.langgraph import LangGraphEnvironment
from ttc_replay.replay.langgraph_node import search_node
from ttc_replay.replay.policies.langgraph import LangGraphPolicy
from ttc_replay.replay.settings import Limits, Settings
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.storage.errors import PolicyFailed, UsageError
from ttc_replay.storage.journal import FILE_NAME, Journal, digest, read_journal


@reward
def near_five(trajectory: Trajectory) -> float:
    """1.0 at a total of 5."""
    return 1.0 - abs(int(trajectory.final_state["total"]) - 5) / 100


def drawing(zoo: Any, asked: list[Any] | None = None) -> Any:
    """Adds once what its seed draws, 0 to 4 and 5 in one of six, then is done."""

    class Drawing(zoo.Scripted):  # type: ignore[misc]
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> Any:
            result = super()._generate(messages, stop)
            reply: Any = result.generations[0].message
            if any(message.type == "tool" for message in messages):
                reply.tool_calls, reply.content = [], "done"
            else:
                reply.tool_calls = [zoo.call((self.seed or 0) % 6, "d")]
            return result

    return Drawing(asked=asked)


def recorded(zoo: Any) -> Trajectory:
    action = zoo.acting(1)
    steps = (Step(0, action, tuple(zoo.answers(action, 1))), Step(1, Message("assistant", "done")))
    return Trajectory("r", Task("t"), prompt=(zoo.GO,), steps=steps)


def engine(zoo: Any, folder: Path, asked: list[Any], world: Any = None, **options: Any) -> Engine:
    limits = options.pop("limits", Limits())
    settings = Settings(
        Spec("langgraph"), Spec("langgraph"), ((Spec("near"), 1.0),), limits=limits, budget=8, width=2, **options
    )
    policy = LangGraphPolicy(zoo.agent(drawing(zoo, asked)))
    graph = zoo.agent()
    guide = compose([Weighted("near", near_five)])
    plugins = Plugins(policy, lambda: LangGraphEnvironment(graph, world or zoo.Counter), guide)
    record = recorded(zoo)
    journal = Journal.open(folder, settings.configuration(), [record.id])
    return Engine(settings, "run", [record], [record], plugins, journal)


def run(made: Engine) -> Any:
    try:
        [grove] = asyncio.run(made.run())
    finally:
        made.journal.close()
    return grove


def test_a_search_finds_the_better_run_and_a_resumed_one_pays_nothing_twice(zoo: Any, tmp_path: Path) -> None:
    asked: list[Any] = []
    grove = run(engine(zoo, tmp_path / "run", asked))
    found = grove.verdict.counterfactual
    assert found is not None
    assert found.final_state["total"] > 1
    assert found.fidelity == "snapshot"
    assert zoo.TOTAL == [0]
    events, _ = read_journal(tmp_path / "run" / FILE_NAME)
    kinds = [event["event"] for event in events]
    assert kinds.count("model") == kinds.count("result") == len(asked) == grove.tree.calls
    assert sum(event["usage"]["prompt_tokens"] for event in events if event["event"] == "result") == 10 * len(asked)

    # killed right after some model calls were done and before their requests were
    cut = kinds.index("result", kinds.index("result") + 1)
    lines = (tmp_path / "run" / FILE_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / FILE_NAME).write_bytes(b"".join(lines[:cut]))
    done, again = kinds[:cut].count("model"), list[Any]()
    run(engine(zoo, tmp_path / "cut", again))
    assert done > 1
    assert len(again) == len(asked) - done
    assert digest(read_journal(tmp_path / "cut" / FILE_NAME)[0]) == digest(events)
    assert json.dumps(events[-1])


def test_model_calls_are_held_to_the_budget(zoo: Any, tmp_path: Path) -> None:
    asked: list[Any] = []
    grove = run(engine(zoo, tmp_path / "run", asked, limits=Limits(calls=6), success_at=2.0))
    assert grove.stopped == "budget"
    assert 1 <= len(asked) == grove.tree.calls <= 6


def test_worlds_are_shown_to_policies_that_ask_and_closed_again(zoo: Any, tmp_path: Path) -> None:
    closed: list[int] = []

    class Closing(zoo.Counter):  # type: ignore[misc]
        def fork(self) -> Any:
            return Closing(self[0])

        def close(self) -> None:
            closed.append(self[0])

    made = engine(zoo, tmp_path / "run", [], Closing)
    seen: list[Any] = []
    inner = made.plugins.policy.propose

    async def propose(requests: Any) -> Any:
        seen.extend((len(request.messages), request.environment.world[0]) for request in requests)
        return await inner(requests)

    made.plugins.policy.environment = True
    made.plugins.policy.propose = propose
    run(made)
    assert {total for messages, total in seen if messages == 1} == {0}
    assert any(total for messages, total in seen if messages == 3)
    assert len(closed) >= len(seen)


@pytest.mark.parametrize("live", [True, False], ids=["live world", "factory"])
@pytest.mark.parametrize("bare", [True, False], ids=["model", "graph"])
def test_search_as_a_node_finds_the_best_next_message(zoo: Any, live: bool, bare: bool) -> None:
    world = LangGraphEnvironment(zoo.agent(), zoo.Counter)
    world.reset(Task("t"))
    action = zoo.acting(2)
    context = [HumanMessage("go")]
    if live:
        world.step(action)
    model = drawing(zoo)
    env = world if live else lambda: LangGraphEnvironment(zoo.agent(), zoo.Counter)
    node = search_node(
        env=None if live else env, policy=model if bare else zoo.agent(model), reward=near_five, budget=24
    )
    builder = StateGraph(MessagesState)
    builder.add_node("think", node)
    builder.add_edge(START, "think")
    app: Any = builder.compile()
    ended = app.invoke({"messages": context}, {"configurable": {"environment": world}})
    [_, said] = ended["messages"]
    assert [item["args"] for item in said.tool_calls] == [{"by": 3 if live else 5}]
    assert not str(said.id).startswith("ttc-given-")
    assert world.state() == {"total": 2 if live else 0}


def test_a_node_may_return_the_whole_run_and_says_what_it_cannot_do(zoo: Any) -> None:
    def make() -> Any:
        return LangGraphEnvironment(zoo.agent(), zoo.Counter)

    node = search_node(env=make, policy=zoo.agent(drawing(zoo)), reward=near_five, budget=24, whole=True)
    said = node({"messages": [HumanMessage("go")]})["messages"]
    assert [message.type for message in said] == ["ai", "tool", "ai"]
    assert said[1].text == "total=5"
    with pytest.raises(UsageError, match="no environment"):
        search_node(policy=zoo.agent(), reward=near_five)({"messages": [HumanMessage("go")]})
    with pytest.raises(PolicyFailed, match="nothing to say"):
        search_node(env=make, policy=zoo.agent(), reward=near_five, budget=0)({"messages": [HumanMessage("go")]})
    with pytest.raises(UsageError, match="no policy, graph or chat model"):
        search_node(env=make, policy=3, reward=near_five)({"messages": [HumanMessage("go")]})
