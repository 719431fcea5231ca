"""The `langgraph` environment: the tools of a LangGraph graph as a world, run by the graph's own tools node.

    --env langgraph --env-opt graph=./agent.py:graph --env-opt world=./agent.py:make_world

An action's calls are put into a fresh thread behind the conversation so far, and the graph is sent to its tools node,
wherever that is (`graphs.layout`), which runs them one after another. Tools reach the branch's world as
`config["configurable"]["environment"]`; state that they keep in the graph's own channels is carried from step to step.

LangGraph's checkpoints restore the graph's state and nothing else, so what the tools change is put back here
(`langgraph_worlds`). Without a world a graph that a function makes is made anew for each branch (re-executable); tools
of a graph object may act on anything, and nothing puts that back: their answers are marked, and count as `simulated`.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ...storage.canonical import canonical_json
from ...storage.errors import UsageError
from ...storage.records import Message, StepResult, Task, ToolSchema, Trajectory
from ..forking import Capability
from ..graphs.building import compiled, is_graph, untraced, wants_config
from ..graphs.layout import Unit, schemas, unit_for, units_of
from ..graphs.messages import from_langchain, to_langchain
from ..graphs.model_calls import as_json
from .langgraph_worlds import NoWorld, SharedWorld, World, check_world, forks_of, world_for
from .tool_functions import HOOKS
from .tool_results import jsonable, public_state

_LOG = logging.getLogger("ttc_replay.langgraph")
_threads = itertools.count()
Result = TypeVar("Result")
_warned: set[int] = set()
UNRESTORED = {"fidelity": "simulated", "unrestored": True}
"""What the answers of tools are marked with whose effects nobody puts back."""


class LangGraphEnvironment:
    """See `Environment`. `graph`: as in the `langgraph` policy. `world`: what its tools act on, see `langgraph_worlds`.

    `pure` True: the tools change nothing but the graph's state. `state`: first values of the graph's other channels.
    `resume`: the answer to every `interrupt()` of a tool; without one the run ends there. `configurable` and `context`
    go to the tools. Raises UsageError for a graph without tools, or a world that cannot be put back.
    """

    places = ("graph", "world")

    def __init__(
        self,
        graph: Any,
        world: Any = None,
        *,
        pure: bool = False,
        state: Mapping[str, Any] | None = None,
        resume: Any = None,
        configurable: Mapping[str, Any] | None = None,
        context: Any = None,
    ):
        check_world(world)
        self._graph, self._given, self._pure = graph, world, pure
        self._first = dict(state or {})
        self._resume, self._configurable, self._context = resume, dict(configurable or {}), context
        self._made = callable(graph) and not is_graph(graph)
        self._for_config = self._made and wants_config(graph)
        self._without: Capability = "native" if pure else "reexecute"
        self._prompt: tuple[Message, ...] = ()
        self._messages: tuple[Message, ...] = ()
        self._task = Task("")
        self._state = dict(self._first)
        self._world: World = NoWorld(self._without)  # until the first task
        self._units: list[Unit] | None = None
        self._forks: Capability | None = None
        if not self._for_config:
            self._tools_at(None)
        if self.unrestored and id(graph) not in _warned:
            _warned.add(id(graph))
            _LOG.warning(
                "nothing puts back what this graph's tools change: --env-opt world=..., or pure=true if nothing"
            )

    @property
    def forks(self) -> Capability:
        """`native` where the world can be put back (the graph's own state always can), else `reexecute`."""
        if self._forks is None:
            self._forks = forks_of(self._given, self._without)
        return "reexecute" if self._forks == "reexecute" else "native"

    @property
    def unrestored(self) -> bool:
        """Whether tools may act on something that nobody puts back: no world, and no function that makes the graph."""
        return self._given is None and not self._pure and not self._made

    @property
    def world(self) -> Any:
        """The user's own object that tools act on, as this branch has it; None without one.

        Raises UsageError for a shared one: it stands where the last branch left it.
        """
        if isinstance(self._world, SharedWorld):
            raise UsageError(
                "a shared world shows no branch", hint="world=... as a class or function makes one for each"
            )
        return self._world.world

    def load(self, record: Trajectory, runs: Mapping[str, Trajectory]) -> None:
        """Take the record's prompt: tools may read the conversation."""
        self._prompt = tuple(record.prompt)

    def reset(self, task: Task) -> list[Message]:
        """A new world and a new state; the prompt is the record's own."""
        self._task, self._messages, self._state = task, self._prompt, dict(self._first)
        self._world = world_for(self._given, task, self._without)
        self._forks = self._world.forks
        if self._made:
            self._units = None
        return []

    def step(self, action: Message) -> StepResult:
        """Run the calls of a message. The run is over when the graph would not go on after its tools (a tool that
        returns directly), or when a tool waits for a person.

        Raises ValueError for arguments that are no JSON object, and whatever a tool raises that its node lets through.
        """
        self._messages = (*self._messages, action)
        if not action.tool_calls:
            return StepResult()
        if any(call.arguments is None for call in action.tool_calls):
            raise ValueError("the arguments are not a JSON object")
        with self._world.standing() as world:
            said, done = contextvars.Context().run(_finished, self._run(action, world))
        self._messages = (*self._messages, *said)
        return StepResult(said, done, info=UNRESTORED if self.unrestored else {})

    async def _run(self, action: Message, world: Any) -> tuple[list[Message], bool]:
        unit, node = self._tools_at(action.tool_calls[0].name)
        thread = f"ttc-{next(_threads)}"
        configurable = {**self._configured(world), "thread_id": thread}
        config = {"configurable": configurable, "max_concurrency": 1}
        _one_at_a_time()
        try:
            asked, given = await self._tools_run(unit, node, config)
            return self._taken(unit, await unit.graph.aget_state(config), given, asked)
        finally:
            unit.graph.checkpointer.delete_thread(thread)

    async def _tools_run(self, unit: Unit, node: str, config: dict[str, Any]) -> tuple[Sequence[Any], int]:
        """Run the tools node: what it asks a person, and how many messages the state had before."""
        from langgraph.types import Command

        options: dict[str, Any] = {} if self._context is None else {"context": self._context}
        options |= {"durability": "sync", "interrupt_after": [node]}
        graph, given = unit.graph, _open_ended(to_langchain(self._messages))
        await graph.aupdate_state(config, {**self._state, unit.channel: given}, as_node="__start__")
        await graph.aupdate_state(config, None, as_node="__end__")  # nothing is due: only the tools node is
        asked = _interrupts(await graph.ainvoke(Command(goto=node), config, **options))
        if asked and self._resume is not None:
            asked = _interrupts(await graph.ainvoke(Command(resume=self._resume), config, **options))
        return asked, len(given)

    def _taken(self, unit: Unit, snapshot: Any, given: int, asked: Sequence[Any]) -> tuple[list[Message], bool]:
        """What the tools said, in the order of their calls; the graph's other channels are kept. Calls that wait for a
        person are answered by what is asked."""
        told = [from_langchain(message) for message in snapshot.values[unit.channel][given:]]
        self._state = {name: value for name, value in snapshot.values.items() if name != unit.channel}
        calls = self._messages[-1].tool_calls
        order = {call.id: place for place, call in enumerate(calls)}
        answered = {message.tool_call_id for message in told}
        if asked:
            value = as_json(asked[0].value)
            text = f"Waits for a person: {value if isinstance(value, str) else canonical_json(value)}"
            told += [
                Message("tool", text, tool_call_id=call.id, name=call.name) for call in calls if call.id not in answered
            ]
        said = sorted(told, key=lambda message: order.get(message.tool_call_id, len(order)))
        return said, bool(asked) or not snapshot.next

    def _configured(self, world: Any) -> dict[str, Any]:
        return {"environment": world, "task_id": self._task.id, **self._configurable}

    def _parts(self) -> list[Unit]:
        """The graph's units; a graph that is made for a config is made for this branch's world."""
        if self._units is None:
            self._units = units_of(compiled(self._graph, self._configured(self._world.world)))
        return self._units

    def _tools_at(self, tool: str | None) -> tuple[Unit, str]:
        """The part of the graph and the node that run a tool."""
        place = unit_for(self._parts(), tool)
        if place is None:
            raise UsageError("the graph has no node that answers tool calls", hint="docs/langgraph.md: how it is found")
        return place

    def hear(self, reply: Message) -> StepResult:
        """What the user said becomes part of the conversation."""
        self._messages = (*self._messages, reply)
        return StepResult()

    def fork(self) -> LangGraphEnvironment:
        """An independent branch from here: a copy of the world and of the graph's state. Raises what copying raises."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._world = self._world.fork()
        if self._for_config:
            twin._units = None
        return twin

    def tools(self) -> Sequence[ToolSchema]:
        """Schemas of the tools that the graph's tools nodes are known to have."""
        return schemas(self._parts())

    def state(self) -> Any:
        """The world's own `state()`, else its public attributes that are JSON; `channels`: the graph's own state."""
        with self._world.standing() as world:
            method = getattr(world, "state", None)
            told = method() if callable(method) else {} if world is None else public_state(world, HOOKS)
        channels = {name: known for name, value in self._state.items() if (known := jsonable(value)) is not None}
        return {**told, "channels": channels} if channels and isinstance(told, Mapping) else told

    def close(self) -> None:
        """Close this branch's own world, or put a shared one back to what it was."""
        self._world.close()


def _finished(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end in an event loop of its own, untraced; in a thread where this one has a loop already.

    Called in an empty context: nothing of a graph that this may be called from reaches the tools.
    """
    with untraced():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: _finished(work)).result()


def _one_at_a_time() -> None:
    """LangGraph hands the tools that are no coroutines to the event loop's threads, all at once: with one thread they
    run in the order of their calls, and what they do is the same each time."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))


def _interrupts(ended: Any) -> Sequence[Any]:
    return tuple(ended.get("__interrupt__") or ()) if isinstance(ended, dict) else ()


def _open_ended(given: list[Any]) -> list[Any]:
    """Without the "not executed" answers that a conversation gets which ends with calls."""
    last = max((place for place, message in enumerate(given) if message.type == "ai"), default=len(given))
    return given[: last + 1]
