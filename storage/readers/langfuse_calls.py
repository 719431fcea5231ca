"""Observations of a Langfuse trace as model calls and tool runs.

GENERATIONs are calls; where one wraps exactly one other (a framework's own call around the client's) both are one call,
read from the one that kept more; one that wraps several is a summary of them. TOOL observations, and SPANs whose
attributes say that they ran a tool, are tool runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..records import Message, Usage
from .call_fold import Call
from .call_results import ToolRun
from .call_runs import Scope, sampling_of
from .chat import listing, mapping, number, string, text, whole
from .clock import utc
from .content_blocks import content_of
from .encoded import opened
from .flat_attributes import built, indexed
from .message_shapes import messages_of, system_of
from .tool_shapes import tools_of

_CALL_ID = ("gen_ai.tool.call.id", "ai.toolCall.id", "tool_call.id", "tool_call_id", "toolCallId")
_TOOL_NAME = ("gen_ai.tool.name", "ai.toolCall.name", "tool.name")
_TOOL_PREFIX = re.compile(r"^(running tool: |execute_tool |tool\.|tool: )")


@dataclass(frozen=True, slots=True)
class Seen:
    """An observation with what its place in the tree says. `attributes`: the OTel attributes it was made from."""

    row: Mapping[str, Any]
    key: str
    kind: str
    parent: str | None
    attributes: Mapping[str, Any]


def seen(rows: Sequence[Any]) -> list[Seen]:
    """The observations, by time (those without one last); entries that are none are left out."""
    found = [_seen(row, at) for at, row in enumerate(rows) if isinstance(row, dict)]
    return sorted(found, key=lambda item: utc(item.row.get("startTime")) or "~")


def _seen(row: Mapping[str, Any], at: int) -> Seen:
    metadata = mapping(opened(row.get("metadata")))
    attributes = mapping(opened(metadata.get("attributes")))
    return Seen(
        row, text(row.get("id")) or f"#{at}", str(row.get("type")), text(row.get("parentObservationId")), attributes
    )


class Tree:
    """Who called whom, by `parentObservationId`; parents that are not in the trace, and circles, end a path."""

    def __init__(self, items: Sequence[Seen]):
        self.items = items
        self._by_key = {item.key: item for item in items}
        self.scopes = {item.key: self._scope(item) for item in items if item.kind == "AGENT" or is_tool(item)}

    def above(self, item: Seen) -> Iterator[Seen]:
        """The ancestors, from the nearest."""
        passed = {item.key}
        while item.parent in self._by_key and item.parent not in passed:
            item = self._by_key[item.parent]
            passed.add(item.key)
            yield item

    def scope_of(self, item: Seen) -> str:
        """The key of the agent or tool in which something ran; "" for the trace itself."""
        return next((above.key for above in self.above(item) if above.kind == "AGENT" or is_tool(above)), "")

    def _scope(self, item: Seen) -> Scope:
        return Scope(self.scope_of(item), item.key if is_tool(item) else None)

    def calls(self) -> list[Call]:
        """The model calls, by time."""
        inner: dict[str, list[Seen]] = {}
        wrapped: set[str] = set()
        generations = [item for item in self.items if item.kind == "GENERATION"]
        for item in generations:
            around = self._wrapper(item)
            if around is not None:
                inner.setdefault(around.key, []).append(item)
                wrapped.add(item.key)
        found = [call for item in generations if item.key not in wrapped for call in self._unwrapped(item, inner, 1)]
        return sorted(found, key=lambda call: call.started_at or "~")

    def _wrapper(self, item: Seen) -> Seen | None:
        """The GENERATION around another, unless an agent or a tool stands between them."""
        for above in self.above(item):
            if above.kind == "GENERATION":
                return above
            if above.kind == "AGENT" or is_tool(above):
                return None
        return None

    def _unwrapped(self, item: Seen, inner: Mapping[str, Sequence[Seen]], sources: int) -> list[Call]:
        own = replace(_call(item, self.scope_of(item)), sources=sources)
        below = [call for child in inner.get(item.key, ()) for call in self._unwrapped(child, inner, 1)]
        if not below:
            return [own]
        if len(below) == 1:
            return [_one_of(own, below[0])]
        first, *rest = below
        return [replace(first, sources=first.sources + 1, tools=first.tools or own.tools), *rest]

    def tool_runs(self) -> list[ToolRun]:
        """The executed tools, by time."""
        return [_tool_run(item, self.scope_of(item)) for item in self.items if is_tool(item)]


def is_tool(item: Seen) -> bool:
    """Whether an observation ran a tool."""
    if item.kind == "TOOL":
        return True
    if item.kind != "SPAN":
        return False
    about = item.attributes
    by_kind = about.get("openinference.span.kind") == "TOOL" or about.get("gen_ai.operation.name") == "execute_tool"
    return by_kind or any(about.get(key) for key in ("gen_ai.tool.call.id", "ai.toolCall.id"))


def _one_of(outer: Call, inner: Call) -> Call:
    """What two records of one call say: messages of the fuller one, numbers of the inner one, which is the client's."""
    best = outer if _fullness(outer) > _fullness(inner) else inner
    return replace(
        inner,
        history=best.history,
        output=best.output,
        tools=inner.tools or outer.tools,
        usage=inner.usage or outer.usage,
        sampling=inner.sampling or outer.sampling,
        scores={**outer.scores, **inner.scores},
        sources=inner.sources + outer.sources,
    )


def _fullness(call: Call) -> tuple[int, int, int]:
    messages = [*call.history, *([call.output] if call.output is not None else [])]
    called = sum(len(message.tool_calls) for message in messages)
    return called, sum(message.tool_call_id is not None for message in messages), len(messages)


def _call(item: Seen, scope: str) -> Call:
    row, about = item.row, item.attributes
    history = _history(row, about)
    said = messages_of(row.get("output"), "assistant") or _attribute_messages(about, _OUTPUTS, "assistant")
    output = said[-1] if said and said[-1].role == "assistant" else None
    failed = row.get("level") == "ERROR"
    error = (string(row.get("statusMessage")) or "error") if failed else None
    output = None if failed and output is not None and not output.tool_calls and not output.text else output
    return Call(
        key=item.key,
        scope=scope,
        history=history,
        output=output,
        tools=_tools(row, about),
        model=string(row.get("model")) or string(row.get("providedModelName")),
        usage=_usage(row),
        sampling=sampling_of(row.get("modelParameters")),
        started_at=utc(row.get("startTime")),
        ended_at=utc(row.get("endTime")),
        error=error,
        goes_on=bool(mapping(opened(row.get("output"))).get("previous_response_id")),
    )


_INPUTS = ("gen_ai.input.messages", "llm.input_messages", "gen_ai.prompt")
_OUTPUTS = ("gen_ai.output.messages", "llm.output_messages", "gen_ai.completion")


def _history(row: Mapping[str, Any], about: Mapping[str, Any]) -> tuple[Message, ...]:
    found = messages_of(row.get("input")) or _attribute_messages(about, _INPUTS, "user")
    if any(message.role in ("system", "developer") for message in found):
        return found
    places = (row.get("input"), row.get("output"), row.get("modelParameters"))
    system = next((said for place in places if (said := own_system(place)) is not None), None)
    return (Message("system", system), *found) if system is not None else found


def own_system(place: Any) -> str | None:
    """A system prompt; a bare `system` beside model settings is the provider's name, as AI SDK exports write it."""
    given = opened(place)
    if isinstance(given, dict) and "maxRetries" in given:
        given = {key: given[key] for key in given if key != "system"}
    return system_of(given)


def _attribute_messages(about: Mapping[str, Any], names: Sequence[str], role: str) -> tuple[Message, ...]:
    """Messages from OTel attributes: JSON under one name, or flattened (`llm.input_messages.0.message.role`)."""
    lists = indexed(about)
    for name in names:
        found = messages_of(about.get(name), role) or messages_of([built(item) for item in lists.get(name, ())], role)
        if found:
            return found
    return ()


def _tools(row: Mapping[str, Any], about: Mapping[str, Any]) -> Any:
    asked, answered, settings = (mapping(opened(row.get(key))) for key in ("input", "output", "modelParameters"))
    metadata = mapping(opened(row.get("metadata")))
    requested = mapping(opened(about.get("model_request_parameters")))
    own = [tool for key in ("function_tools", "output_tools") for tool in listing(opened(requested.get(key)))]
    places = (
        row.get("toolDefinitions"),
        asked.get("tools"),
        mapping(asked.get("config")).get("tools"),
        answered.get("tools"),
        settings.get("tools"),
        metadata.get("tools"),
        about.get("gen_ai.tool.definitions"),
        about.get("ai.prompt.tools"),
        own,
        [built(item) for item in indexed(about).get("llm.tools", ())],
    )
    return next((tools for place in places if (tools := tools_of(place))), None)


def _usage(row: Mapping[str, Any]) -> Usage | None:
    """Tokens by bucket: buckets are apart from each other unless input and output already make the total."""
    given = mapping(opened(row.get("usageDetails"))) or mapping(opened(row.get("usage")))
    counts = {key: count for key in given if (count := whole(given[key])) is not None}
    whole_in, whole_out, total = counts.get("input"), counts.get("output"), counts.get("total")
    cached = next((counts[key] for key in counts if "cache" in key and ("read" in key or "cached" in key)), None)
    together = whole_in is not None and whole_out is not None and total == whole_in + whole_out
    if not together:
        asked = [counts[key] for key in counts if key.startswith(("input", "cache"))]
        answered = [counts[key] for key in counts if key.startswith("output")]
        whole_in = sum(asked) if asked else None
        whole_out = sum(answered) if answered else None
    money = mapping(opened(row.get("costDetails"))).get("total", row.get("totalCost"))
    cost = number(money if money is not None else row.get("totalCost"), "cost") if not isinstance(money, bool) else None
    found = Usage(whole_in, whole_out, cached, cost)
    return None if found == Usage() else found


def _tool_run(item: Seen, scope: str) -> ToolRun:
    row, about = item.row, item.attributes
    metadata = mapping(opened(row.get("metadata")))
    name = next((about[key] for key in _TOOL_NAME if isinstance(about.get(key), str)), None)
    said = messages_of(row.get("output"), "tool")
    answer = said[0] if len(said) == 1 and said[0].role == "tool" and said[0].tool_call_id else None
    failed = row.get("level") == "ERROR"
    output = row.get("output")
    inner = opened(output)
    held = inner["content"] if isinstance(inner, dict) and inner.keys() == {"content"} else output
    content = answer.content if answer is not None else content_of(held)
    if content in (None, "") and failed:
        content = string(row.get("statusMessage"))
    given = opened(row.get("input"))
    if isinstance(given, dict) and given.keys() == {"input"}:
        given = opened(given["input"])
    identity = next((found for key in _CALL_ID if (found := text(about.get(key, metadata.get(key)))) is not None), None)
    return ToolRun(
        key=item.key,
        name=name or _TOOL_PREFIX.sub("", string(row.get("name")) or ""),
        scope=scope,
        call_id=identity or (answer.tool_call_id if answer is not None else None),
        arguments=given,
        result=Message("tool", content, is_error=failed or (answer is not None and answer.is_error)),
        started_at=utc(row.get("startTime")),
    )
