"""A LangGraph graph from what the user gave: a compiled one, a builder, or a function that makes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ...storage.errors import MissingExtra, UsageError

HINT = "pip install 'ttc-replay[langgraph]'"
_FORMS = "a compiled graph, a StateGraph, or a function of nothing or of a config that makes one"


def langgraph() -> ModuleType:
    """The package `langgraph.graph`, imported at first use. Raises MissingExtra."""
    try:
        import langgraph.graph
    except ImportError as cause:
        raise MissingExtra(f"a LangGraph graph needs LangGraph: {cause}", hint=HINT) from cause
    return langgraph.graph


def is_graph(given: Any) -> bool:
    """Whether it is a graph, compiled or not; else it should make one."""
    langgraph()
    from langgraph.graph import StateGraph
    from langgraph.pregel import Pregel

    return isinstance(given, (StateGraph, Pregel))


def wants_config(given: Callable[..., Any]) -> bool:
    """Whether a function that makes a graph takes a config (as those of a `langgraph.json` may)."""
    try:
        parameters = list(inspect.signature(given).parameters.values())
    except (TypeError, ValueError):
        return False
    needed = [item for item in parameters if item.default is item.empty and item.kind not in (2, 4)]
    if len(needed) > 1:
        raise UsageError(f"{given!r} takes {len(needed)} arguments", hint=f"graph: {_FORMS}")
    return bool(needed) or any(item.name == "config" for item in parameters)


def compiled(given: Any, configurable: Mapping[str, Any]) -> Any:
    """A compiled copy of the graph that keeps its checkpoints in memory and stops nowhere by itself.

    The user's own object and its checkpointer are left alone. `configurable`: what a function of a config gets.
    Raises UsageError for what is no graph.
    """
    langgraph()
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import StateGraph
    from langgraph.pregel import Pregel

    graph = given
    if not is_graph(graph) and callable(graph):
        graph = graph({"configurable": dict(configurable)}) if wants_config(graph) else graph()
    if isinstance(graph, StateGraph):
        graph = graph.compile()
    if not isinstance(graph, Pregel):
        raise UsageError(f"{type(graph).__name__} is no LangGraph graph", hint=f"graph: {_FORMS}")
    return graph.copy({"checkpointer": InMemorySaver(), "interrupt_before_nodes": [], "interrupt_after_nodes": []})


@contextmanager
def untraced() -> Iterator[None]:
    """Inside, nothing is sent to LangSmith, whatever its variables say: a search makes thousands of runs."""
    from langsmith import tracing_context

    with tracing_context(enabled=False):
        yield


def stepwise(graph: Any) -> Any:
    """A copy whose sub-graphs that are nodes stop after every step, so that whoever runs it sees what they did."""
    from langgraph.pregel import Pregel

    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if isinstance(node.bound, Pregel):
            inner = stepwise(node.bound).copy({"interrupt_before_nodes": [], "interrupt_after_nodes": "*"})
            nodes[name] = node.copy({"bound": inner, "subgraphs": [inner]})
    return graph.copy({"nodes": nodes})
