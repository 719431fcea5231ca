"""Tool schemas in whatever shape a framework logged them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..records import ToolSchema
from .chat import listing, mapping, string
from .encoded import opened

_LISTS = ("tool", "function_declarations", "functionDeclarations")
_PARAMETERS = (
    *("parameters", "parameters_json_schema", "parametersJsonSchema", "inputSchema", "input_schema"),
    *("args_schema", "inputs_json_schema"),
)


def tools_of(value: Any) -> tuple[ToolSchema, ...] | None:
    """Tool schemas in OpenAI's shape from a list, a mapping by name, or JSON text of either; None: there are none."""
    given = opened(value)
    if isinstance(given, dict):
        given = [{"name": name, **mapping(opened(given[name]))} for name in given]
    found = tuple(tool for item in tool_items(listing(given)) if (tool := _plain(item)) is not None)
    return found or None


def tools_together(given: Iterable[tuple[ToolSchema, ...] | None]) -> tuple[ToolSchema, ...] | None:
    """All tools that any of the calls had, by name, in the order in which they appeared; None: none states any."""
    found: dict[str, ToolSchema] = {}
    known = False
    for tools in given:
        known = known or tools is not None
        for tool in tools or ():
            found.setdefault(string(mapping(tool.get("function")).get("name")) or str(tool), tool)
    return tuple(found.values()) if known else None


def tool_items(values: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """The tools in a list, each flat or with `function` around its fields; flat ones have their schema under
    `parameters`.
    """
    for value in values:
        item = opened(value)
        if isinstance(item, dict):
            yield from _items(item)


def _items(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in _LISTS:
        inner = item.get(name)
        if isinstance(inner, list):
            yield from tool_items(inner)
            return
        if isinstance(inner, dict):
            item = {key: value for key, value in {**item, **inner}.items() if key != name}
    if "json_schema" in item:
        yield from tool_items([item["json_schema"]])
    elif isinstance(item.get("function"), dict) or not isinstance(item.get("name"), str):
        yield item
    else:
        schema = next((found for key in _PARAMETERS if (found := opened(item.get(key))) is not None), None)
        rest = {key: item[key] for key in item if key not in _PARAMETERS}
        yield rest | ({"parameters": schema} if schema is not None else {})


def _plain(item: Mapping[str, Any]) -> ToolSchema | None:
    """In OpenAI's shape, without what frameworks put beside a flat tool; None for one without a name."""
    inner = item.get("function")
    if isinstance(inner, dict):
        return item if isinstance(inner.get("name"), str) and inner["name"] else None
    if not isinstance(item.get("name"), str) or not item["name"]:
        return None
    about, schema = string(item.get("description")), item.get("parameters")
    known = {"description": about or None, "parameters": schema if isinstance(schema, dict) else None}
    return {
        "type": "function",
        "function": {"name": item["name"]} | {key: known[key] for key in known if known[key] is not None},
    }
