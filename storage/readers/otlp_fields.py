"""What a span states beside its messages: tokens and money, sampling parameters, tool schemas, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..records import Score, ToolSchema, Usage
from .chat import listing, mapping, number, string, tool_schemas, unparsed, whole
from .flat_attributes import Lists, built
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
from .tool_shapes import tool_items


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
    return tool_schemas(list(tool_items(given)))


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
