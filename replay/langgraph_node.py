"""Our search as a LangGraph node: at inference time, from the messages so far, to the best next message.

    from ttc_replay.replay.langgraph_node import search_node

    think = search_node(env=world, policy=agent_graph, reward=closeness, algorithm="mcts", budget=64)
    builder.add_node("think", think)      # state -> {"messages": [the best next message]}

The search runs in a thread and an event loop of its own, on copies: nothing that it tries happens in the live world,
and nothing of the outer run's context (callbacks, checkpoints) reaches it. It keeps no journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..rewards.compose import Weighted, compose
from ..storage.canonical import content_id
from ..storage.codec import messages_to_dicts, steps_from_messages
from ..storage.errors import PolicyFailed, UsageError
from ..storage.journal import MemoryJournal
from ..storage.records import Message, Spec, Step, Task, Trajectory
from .engine import Engine, Plugins
from .environments.base import tools_of
from .forking import capability, duplicate
from .graphs.building import is_graph
from .graphs.messages import from_langchain, to_langchain
from .grove import Grove
from .settings import Limits, Settings

Update = dict[str, list[Any]]
Node = Callable[..., Update]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search node does; see `search_node`."""

    env: Any
    policy: Any
    reward: Any
    algorithm: str | Spec = "mcts"
    budget: int = 64
    accept: Any = None
    depth: int = 16
    width: int = 8
    concurrency: int = 8
    seed: int = 0
    success_at: float = 1.0
    limits: Limits = field(default_factory=Limits)
    channel: str = "messages"
    whole: bool = False
    task: Task | None = None


def search_node(
    *,
    reward: Any,
    policy: Any,
    env: Any = None,
    **options: Any,
) -> Node:
    """A node that searches from the state's messages and returns the best next one.

    `env`: a live environment that can be copied, which stands where the conversation does (None: the run's
    `config["configurable"]["environment"]`), or a factory of environments, in which the conversation is played again
    and compared. `policy`: a policy, a LangGraph graph, or a chat model, which is then bound to the environment's
    tools. `reward`: a reward, or several by name. Options: `algorithm` (a name or a Spec), `budget` (transitions),
    `accept` (the gate), `depth` (further steps), `width`, `concurrency`, `seed`, `success_at`, `limits`, `channel` (the
    list of messages in the state), `whole` (return the whole best run, observations too, not only its first message),
    `task` (for rewards that read it).

    The node raises UsageError for a world that cannot be copied, DivergedError where a factory's world does not follow
    the conversation, PolicyFailed when the search found nothing to say.
    """
    plan = Plan(env, _policy(policy), reward, **options)

    def search(state: Any, config: Any = None) -> Update:
        messages = [from_langchain(message) for message in _channel(state, plan.channel)]
        handle = ((config or {}).get("configurable") or {}).get("environment")
        grove = _in_a_thread(plan, messages, plan.env if plan.env is not None else handle)
        steps = _best(grove, len(grove.record.steps))
        said = [
            message for step in (steps if plan.whole else steps[:1]) for message in (step.action, *step.observations)
        ]
        return {plan.channel: _unnamed(said if plan.whole else said[:1])}

    # LangGraph reads the annotation of `config` to know that it is wanted
    from langchain_core.runnables import RunnableConfig

    search.__annotations__["config"] = RunnableConfig
    return search


def _policy(given: Any) -> Any:
    if callable(getattr(given, "propose", None)):
        return given
    from .policies.langgraph import LangGraphPolicy

    return LangGraphPolicy(given, metered=False) if is_graph(given) else given


def _channel(state: Any, name: str) -> Sequence[Any]:
    found: Sequence[Any] = state[name] if isinstance(state, Mapping) else getattr(state, name)
    return found


def _unnamed(messages: Sequence[Message]) -> list[Any]:
    """LangChain messages without ids: `add_messages` would put them in the place of others with the same."""
    made = to_langchain(messages)[: len(messages)]
    for message in made:
        message.id = None
    return made


def _in_a_thread(plan: Plan, messages: Sequence[Message], env: Any) -> Grove:
    """A thread has neither the caller's event loop nor its context variables."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(_search(plan, messages, env))).result()


async def _search(plan: Plan, messages: Sequence[Message], env: Any) -> Grove:
    factory, prompt, steps = _world(env, messages)
    tools = tuple(tools_of(factory()))
    task = plan.task or Task(content_id("search node", messages_to_dicts(messages)), _asked(messages))
    record = Trajectory(content_id(task.id, messages_to_dicts(messages)), task, tools, prompt, steps)
    policy = plan.policy if callable(getattr(plan.policy, "propose", None)) else _of_model(plan.policy, tools)
    guide = compose([Weighted(name, part) for name, part in _named(plan.reward).items()])
    gate = compose([Weighted("accept", plan.accept)]) if plan.accept is not None else None
    settings = _settings(plan, guide_names=list(_named(plan.reward)), depth=len(steps) + plan.depth, root=len(steps))
    engine = Engine(
        settings, "node", [record], [record], Plugins(policy, factory, guide, gate), MemoryJournal([record.id])
    )
    grove = (await engine.run())[0]
    if engine.error is not None:
        raise engine.error
    return grove


def _settings(plan: Plan, *, guide_names: Sequence[str], depth: int, root: int) -> Settings:
    return Settings(
        environment=Spec("live"),
        policy=Spec("node"),
        rewards=tuple((Spec(name), 1.0) for name in guide_names),
        accept=None if plan.accept is None else Spec("accept"),
        algorithm=Spec(plan.algorithm) if isinstance(plan.algorithm, str) else plan.algorithm,
        from_step=root,
        width=plan.width,
        budget=plan.budget,
        max_depth=depth,
        success_at=plan.success_at,
        seed=plan.seed,
        concurrency=plan.concurrency,
        limits=plan.limits,
        selector=(("every", True),),
    )


def _named(reward: Any) -> dict[str, Any]:
    if isinstance(reward, Mapping):
        return dict(reward)
    return {str(getattr(reward, "name", None) or getattr(reward, "__name__", "reward")): reward}


def _asked(messages: Sequence[Message]) -> str:
    return next((message.text for message in messages if message.role == "user"), "")


def _world(env: Any, messages: Sequence[Message]) -> tuple[Callable[[], Any], tuple[Message, ...], tuple[Step, ...]]:
    """(factory, prompt, steps): a live world stands at the end of the conversation, which is then all prompt."""
    if env is None:
        raise UsageError("the search node has no environment", hint="env=..., or configurable environment of the run")
    if callable(getattr(env, "step", None)) and not isinstance(env, type):
        if capability(env) == "reexecute":
            raise UsageError(f"{type(env).__name__} cannot be copied", hint="pass a function that makes one as env")
        first = Standing(duplicate(env))
        return first.fork, tuple(messages), ()
    prompt, steps = steps_from_messages(messages)
    return env, prompt, steps


class Standing:
    """A copy of a live world that begins where that world stands: to reset it changes nothing."""

    forks = "native"

    def __init__(self, inner: Any):
        self._inner = inner

    def reset(self, task: Task) -> list[Message]:
        """Stay; the prompt is the conversation so far."""
        return []

    def fork(self) -> Standing:
        """Another copy from here. Raises what copying raises."""
        return Standing(duplicate(self._inner))

    def __getattr__(self, name: str) -> Any:
        if name == "load":  # a record would take it back to its beginning
            raise AttributeError(name)
        return getattr(self._inner, name)


def _of_model(model: Any, tools: Sequence[Any]) -> Any:
    """A policy of a bare chat model with the world's tools."""
    from langchain_core.language_models.chat_models import BaseChatModel
    from langgraph.graph import START, MessagesState, StateGraph

    from .policies.langgraph import LangGraphPolicy

    if not isinstance(model, BaseChatModel):
        raise UsageError(f"{type(model).__name__} is no policy, graph or chat model")
    bound = model.bind_tools([dict(tool) for tool in tools]) if tools else model

    def speak(state: MessagesState) -> Update:
        return {"messages": [bound.invoke(state["messages"])]}

    speak.__annotations__["state"] = MessagesState
    builder = StateGraph(MessagesState)
    builder.add_node("speak", speak)
    builder.add_edge(START, "speak")
    return LangGraphPolicy(builder, metered=False)


def _best(grove: Grove, done: int) -> list[Step]:
    """The steps after the conversation of what the gate took, else of the best finished run, else of the most visited
    way. Raises PolicyFailed when there is none."""
    if grove.baseline is not None and grove.baseline.error is not None:
        raise PolicyFailed(f"the search could not begin: {grove.baseline.error}", code=grove.baseline.error_code)
    found, search = grove.verdict.counterfactual, grove.tree
    if found is not None:
        return list(found.steps[done:])
    if search is not None:
        tree = search.tree
        node = tree.best()
        if node is None or node == 0 or tree.spine[node]:
            ways = [child for child in tree.child_ids[0] if not tree.spine[child]]
            node = max(ways, key=lambda way: (tree.visits[way], tree.value_sum[way], -way), default=0)
        if node:
            return search.prefix(node)[done:]
    failures = search.failures if search is not None else []
    raise PolicyFailed(f"the search found nothing to say{': ' + failures[0] if failures else ''}")
