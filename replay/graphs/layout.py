"""Where in a graph tools run, found by what the graph does: node names are never assumed.

A tools node is, in this order: a `ToolNode`; a node to which the graph goes on for a reply with tool calls and not for
one without (its own routing is asked, with such replies, in a scratch thread; no node runs); a node whose function
refers to `ToolMessage` or to tools and to no chat model. A graph's sub-graphs are looked at in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .building import compiled
from .reach import found

START = "__start__"
MOST_PROBED = 16
"""Tool names whose routing is tried: a graph may send some calls elsewhere (to a person, say)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One graph, outer or inner, that has tools nodes: `nodes` has the names of the tools of each.

    `channel`: the state's list of messages.
    """

    graph: Any
    path: tuple[str, ...]
    channel: str
    nodes: Mapping[str, Mapping[str, Any]]

    def node_for(self, tool: str) -> str | None:
        """The tools node that runs a tool; a node whose tools are not known may run any."""
        known = next((name for name, tools in self.nodes.items() if tool in tools), None)
        return known or next((name for name, tools in self.nodes.items() if not tools), None)


def units_of(graph: Any, path: tuple[str, ...] = ()) -> list[Unit]:
    """The graphs with tools nodes, the outermost first. Each is a copy to be driven by itself."""
    nodes = tools_nodes(graph)
    mine = [Unit(graph, path, messages_channel(graph), nodes)] if nodes else []
    for name, inner in graph.get_subgraphs():
        mine += units_of(compiled(inner, {}), (*path, name))
    return mine


def unit_for(units: Sequence[Unit], tool: str | None) -> tuple[Unit, str] | None:
    """The unit and the node that run a tool; the first of all when none says that it does."""
    for unit in units:
        node = unit.node_for(tool or "")
        if node is not None:
            return unit, node
    return (units[0], next(iter(units[0].nodes))) if units else None


def tools_nodes(graph: Any) -> dict[str, Mapping[str, Any]]:
    """The tools nodes of one graph by name, each with its tools by name ({}: not known)."""
    from langgraph.prebuilt import ToolNode

    own = {name: node for name, node in graph.nodes.items() if name != START}
    direct = {name: node.bound for name, node in own.items() if isinstance(node.bound, ToolNode)}
    if direct:
        return {name: dict(node.tools_by_name) for name, node in direct.items()}
    inner = {name for name, _ in graph.get_subgraphs()}
    plain = {name: node for name, node in own.items() if name not in inner}
    answering = {name for name, node in plain.items() if _answers_calls(node)}
    routed = _routed_to(graph, plain)
    chosen = routed & answering or routed or answering  # a call may go to a person's review first
    return {name: _tools_of(own[name].bound) for name in own if name in chosen}


def _routed_to(graph: Any, nodes: Mapping[str, Any]) -> set[str]:
    """Where the graph goes for a reply with calls, and not for one without, from any of its nodes."""
    from langchain_core.messages import AIMessage

    names = sorted({name for node in nodes.values() for name in _tools_of(node.bound)}) or ["probe"]
    reached: set[str] = set()
    for node in nodes:
        silent = _next_after(graph, node, AIMessage("probe"))
        for tool in names[:MOST_PROBED]:
            call = {"name": tool, "args": {}, "id": "call_probe"}
            reached |= _next_after(graph, node, AIMessage("", tool_calls=[call])) - silent
    return reached & set(nodes)


def _next_after(graph: Any, node: str, reply: Any) -> set[str]:
    """The nodes that would run after `node` said `reply`; none where the graph's routing cannot say."""
    from langchain_core.messages import HumanMessage

    scratch = compiled(graph, {})
    config = {"configurable": {"thread_id": "probe"}}
    try:
        scratch.update_state(config, {messages_channel(graph): [HumanMessage("probe"), reply]}, as_node=node)
        return set(scratch.get_state(config).next)
    except Exception:  # noqa: BLE001  the routing is the user's code, and the state is not one it knows
        return set()


def _answers_calls(node: Any) -> bool:
    """Whether a node's own function refers to tool messages or tools, and nothing behind it to a chat model."""
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import ToolMessage
    from langchain_core.tools import BaseTool

    behind = found(object, node.bound)
    if any(isinstance(item, BaseChatModel) for item in behind):
        return False
    return any(item is ToolMessage or isinstance(item, BaseTool) for item in behind)


def _tools_of(bound: Any) -> dict[str, Any]:
    from langchain_core.tools import BaseTool

    return {tool.name: tool for tool in found(BaseTool, bound)}


def messages_channel(graph: Any) -> str:
    """The state's list of messages: `messages` where there is one, else the channel that `add_messages` fills."""
    if "messages" in graph.channels:
        return "messages"
    return next(_merging(graph), "messages")


def _merging(graph: Any) -> Iterator[str]:
    for name, channel in graph.channels.items():
        merge = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
        if "add_messages" in getattr(merge, "__qualname__", ""):
            yield name


def schemas(units: Sequence[Unit]) -> list[dict[str, Any]]:
    """The tools of all tools nodes as OpenAI-style schemas, in the graph's order."""
    from langchain_core.utils.function_calling import convert_to_openai_tool

    tools = {name: tool for unit in units for node in unit.nodes.values() for name, tool in node.items()}
    return [convert_to_openai_tool(tool) for tool in tools.values()]
