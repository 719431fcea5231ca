"""What a span states beside its messages: tokens and money, sampling parameters, tool schemas, scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from ..records import Score, ToolSchema, Usage
from .chat import listing, mapping, number, string, tool_schemas, unparsed, whole
from .otlp_names import (
    SAMPLING,
    SAMPLING_KEYS,
    SAMPLING_OBJECTS,
    SCORES_INDEXED,
    TOOL_INDEXED,
    TOOL_REQUEST,
    TOOL_VALUES,
    first,
    first_of,
)
from .otlp_spans import Span, field_of

Path = tuple[str | int, ...]
Fields = list[tuple[Path, Any]]
Lists = dict[str, list[Fields]]

_DEEPEST = 16
_INDEXED = re.compile(r"(.+?)\.(\d{1,6})(?:\.(.+))?")


@lru_cache(maxsize=2**16)
def _place(name: str) -> tuple[str, int, Path] | None:
    """`llm.tools.2.tool.json_schema` is (`llm.tools`, 2, (`tool`, `json_schema`)); None for names without an index."""
    match = _INDEXED.fullmatch(name) if len(name) < 200 else None
    if match is None:
        return None
    rest = tuple(int(part) if part.isdigit() else part for part in match[3].split(".")) if match[3] else ()
    return (match[1], int(match[2]), rest) if len(rest) <= _DEEPEST else None


def indexed(attributes: Mapping[str, Any]) -> Lists:
    """The lists that stand in attributes with indices, by what is before the index, each element as its fields.

    Gaps in the indices are closed. Elements are compared as they are, and `built` when they are wanted.
    """
    found: dict[str, dict[int, Fields]] = {}
    for name, value in attributes.items():
        place = _place(name)
        if place is not None:
            prefix, index, rest = place
            elements = found.setdefault(prefix, {})
            if index in elements:
                elements[index].append((rest, value))
            else:
                elements[index] = [(rest, value)]
    return {prefix: [elements[index] for index in sorted(elements)] for prefix, elements in found.items()}


def built(fields: Fields) -> Any:
    """An element with its fields inside each other: `tool_calls.0.id` is a list of objects."""
    if len(fields) == 1 and not fields[0][0]:
        return fields[0][1]
    tree: dict[Any, Any] = {}
    deep = False
    for path, value in fields:
        if len(path) == 1:
            tree.setdefault(path[0], value)
        elif path:
            deep = True
            _put(tree, path, value)
    return _closed(tree) if deep else tree


def _put(node: dict[Any, Any], path: Path, value: Any) -> None:
    for part in path[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # `content` and `content.0` at once: the first stays
        node = inner
    node.setdefault(path[-1], value)


def _closed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(key, int) for key in node):
        return [_closed(node[key]) for key in sorted(node)]
    return {str(key): _closed(value) for key, value in node.items()}


def usage_of(attributes: Mapping[str, Any]) -> Usage | None:
    """Tokens and money of one call. `prompt_tokens` is made to include cached ones where it cannot have included them:
    where fewer were counted than came from the cache.
    """
    told = mapping(attributes.get("mlflow.chat.tokenUsage"))
    prompt = _count(first(attributes, "prompt_tokens"), told.get("input_tokens"))
    completion = _count(first(attributes, "completion_tokens"), told.get("output_tokens"))
    cached = _count(first(attributes, "cached_tokens"), told.get("cache_read_input_tokens"))
    if prompt is not None and cached is not None and cached > prompt:
        prompt += cached
    money = first(attributes, "cost")
    if money is None:
        money = mapping(attributes.get("mlflow.llm.cost")).get("total_cost")
    cost = number(spelled(money), "cost") if not isinstance(money, bool) else None
    found = Usage(prompt, completion, cached, cost)
    return None if found == Usage() else found


def _count(*values: Any) -> int | None:
    for value in values:
        found = spelled(value)
        counted = whole(int(found) if isinstance(found, float) and found.is_integer() else found)
        if counted is not None:
            return counted
    return None


def spelled(value: Any) -> Any:
    """A number that was written as text; anything else as it is."""
    if isinstance(value, str) and len(value) < 25:
        found = unparsed(value)
        return found if isinstance(found, (int, float)) and not isinstance(found, bool) else value
    return value


def total(usages: list[Usage]) -> Usage | None:
    """The sum, of what is known."""
    if not usages:
        return None
    sums = (
        [value for usage in usages if (value := getattr(usage, name)) is not None]
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")
    )
    prompt, completion, cached, cost = (sum(values) if values else None for values in sums)
    return Usage(prompt, completion, cached, cost)


def sampling_of(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters under our names; None when the span states none."""
    found: dict[str, Any] = {}
    for name in SAMPLING_OBJECTS:
        given = unparsed(attributes.get(name))
        for key, value in given.items() if isinstance(given, dict) else ():
            ours = SAMPLING_KEYS.get(key)
            if ours and value is not None and not isinstance(value, dict):
                found[ours] = spelled(value)
    for ours, names in SAMPLING.items():
        value = first_of(attributes, names)
        if value is not None:
            found[ours] = spelled(value)
    return found or None


def tools_of(attributes: Mapping[str, Any], lists: Lists) -> tuple[ToolSchema, ...] | None:
    """The tool schemas of a call; None when it states none. `lists`: what `indexed` found."""
    given = unparsed(first_of(attributes, TOOL_VALUES))
    if given is None:
        given = next(([built(item) for item in lists[prefix]] for prefix in TOOL_INDEXED if prefix in lists), None)
    if given is None:
        request = mapping(unparsed(attributes.get(TOOL_REQUEST)))
        given = [*listing(request.get("function_tools")), *listing(request.get("output_tools"))] if request else None
    if given is None:
        given = mapping(unparsed(attributes.get("mlflow.spanInputs"))).get("tools")
    if not isinstance(given, list):
        return None
    return tool_schemas([schema for item in given for schema in _schemas(item)])


def _schemas(item: Any) -> Iterator[Mapping[str, Any]]:
    item = unparsed(item)
    if not isinstance(item, dict):
        return
    for name in ("tool", "function_declarations", "functionDeclarations"):
        inner = item.get(name)
        if isinstance(inner, list):
            for each in inner:
                yield from _schemas(each)
            return
        if isinstance(inner, dict):
            item = {**item, **inner}
            del item[name]
    if "json_schema" in item:
        yield from _schemas(item["json_schema"])
        return
    parameters = unparsed(
        field_of(item, "parameters", "input_schema", "inputSchema", "parameters_json_schema", "parametersJsonSchema")
    )
    if isinstance(item.get("function"), dict) or not isinstance(item.get("name"), str):
        yield item
        return
    known = ("inputSchema", "input_schema", "parameters_json_schema", "parametersJsonSchema", "parameters")
    rest = {key: item[key] for key in item if key not in known}
    yield rest | ({"parameters": parameters} if parameters is not None else {})


def score_of(values: Mapping[str, Any], name: str) -> tuple[str, Score] | None:
    """Name and score of one evaluation (an event's values, or an evaluator's attributes); None when it has neither a
    value nor a label.
    """
    value, label = first(values, "score_value"), first(values, "score_label")
    why = first(values, "score_explanation")
    if value is None and label is None:
        value = unparsed(first(values, "score_output"))
        if isinstance(value, dict):
            why, label = field_of(value, "explanation", "rationale", "reason"), value.get("label")
            value = field_of(value, "score", "value", "result")
    named = string(first(values, "score_name")) or name
    amount = number(spelled(value), f"score {named}")
    if amount is None and not isinstance(label, str):
        return None
    about = {"label": label, "explanation": why}
    detail = {key: said for key, said in about.items() if isinstance(said, str)}
    return named, Score(amount, abstain=amount is None, detail=detail)


def scores_in(span: Span, lists: Lists) -> Iterator[tuple[str, Score]]:
    """OpenInference's annotations of a span: `evaluations.0.evaluation.score`."""
    for prefix in SCORES_INDEXED:
        for item in lists.get(prefix, ()):
            inner = mapping(mapping(built(item)).get(prefix.removesuffix("s")))
            found = score_of({f"evaluation.{key}": value for key, value in inner.items()}, span.name)
            if found is not None:
                yield found
