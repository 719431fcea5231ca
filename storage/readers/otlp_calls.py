"""One call of a model, as its span tells it in whichever dialect: what went in, what came out, what it cost.

Of several places that may hold the messages the first that has any is read: the list attributes, the indexed ones,
events (of the span, or log records), and last what a wrapper put around the call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..records import Message, Usage
from .chat import listing, mapping, string, unparsed, whole
from .flat_attributes import Lists, built, indexed
from .message_shapes import items_of, system_message
from .otlp_fields import usage_of
from .otlp_history import Histories, History, history
from .otlp_names import (
    CHOICE_EVENT,
    COMPLETION_EVENT,
    DETAILS_EVENT,
    EVENT_BODIES,
    EVENT_LISTS,
    EVENT_ROLES,
    INPUT_INDEXED,
    INPUT_VALUES,
    INPUT_WRAPPED,
    OUTPUT_INDEXED,
    OUTPUT_VALUES,
    OUTPUT_WRAPPED,
    PROMPT_EVENT,
    RESPONSE_CALLS,
    RESPONSE_TEXT,
    SYSTEM_VALUES,
    TRANSCRIPTS,
    first,
    first_of,
)
from .otlp_spans import Event, Span


@dataclass(slots=True, eq=False)
class Call:
    """A call of a model. `inputs` are without the system prompt; `choices` the alternatives it gave, mostly one."""

    span: Span
    system: History
    inputs: History
    choices: list[History]
    finish: str | None
    lists: Lists
    usage: Usage | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing of what was said was captured."""
        return not (self.system.messages or self.inputs.messages or any(choice.messages for choice in self.choices))


class CallReader:
    """Reads the calls of one run, in the order of their times."""

    def __init__(self) -> None:
        self._histories = Histories()
        self._systems: dict[str, History] = {}

    def read(self, span: Span) -> Call:
        """The call of an LLM span."""
        events = list(_events(span))
        for event in events:
            if event.name == DETAILS_EVENT:
                span.attributes |= event.values
        lists = indexed(span.attributes)
        given = self._inputs(span.attributes, lists, events)
        system, inputs = given.split()
        told = first_of(span.attributes, SYSTEM_VALUES)
        if told is not None and not system.messages:
            system = self._system(told)
        raw = list(_outputs(span.attributes, lists, events))
        choices, finish = _choices(raw, span.attributes), _finish(span.attributes, raw)
        return Call(span, system, inputs, choices, finish, lists, usage_of(span.attributes))

    def _system(self, told: Any) -> History:
        if not isinstance(told, str):
            return _instructions(told)
        if told not in self._systems:
            self._systems[told] = _instructions(told)
        return self._systems[told]

    def _inputs(self, attributes: Mapping[str, Any], lists: Lists, events: list[Event]) -> History:
        value = first_of(attributes, INPUT_VALUES)
        if value is not None and (value not in ("{}", {}) or not lists):
            return self._histories.read(value)
        for prefix in INPUT_INDEXED:
            if prefix in lists:
                return self._histories.listed(lists[prefix], lambda item: items_of([_loose(built(item))]))
        said = [message for event in events for message in _event_inputs(event)]
        if said:
            return history(said)
        if first_of(attributes, TRANSCRIPTS) is not None:
            return history(_transcript(attributes)[0])
        value = first_of(attributes, INPUT_WRAPPED)
        return History() if value is None else self._histories.read(_wrapped(value))


def _instructions(told: Any) -> History:
    said = system_message(told)
    return history([said] if said.content else [])


def _wrapped(value: Any) -> Any:
    """A value that holds messages as it is, any other as the text it is."""
    return value if isinstance(value, (str, list)) or items_of(value) else json.dumps(value)


def _transcript(attributes: Mapping[str, Any]) -> tuple[list[Message], list[Message]]:
    """Input and output in one list: if the last message is the assistant's, it is the output."""
    every = items_of(first_of(attributes, TRANSCRIPTS))
    cut = len(every) - 1 if every and every[-1].role == "assistant" else len(every)
    return every[:cut], every[cut:]


def _loose(item: Any) -> Any:
    """An indexed message. OpenLLMetry writes content of several parts as JSON text, Koog the calls."""
    if not isinstance(item, dict):
        return item
    for name in ("message", "prompt", "completion"):
        inner = item.get(name)
        if isinstance(inner, dict):
            item = inner
    said = item.get("content", item.get("text"))
    parts = unparsed(said) if isinstance(said, str) and said[:1] == "[" else None
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        return {**item, "content": said} if "text" in item and "content" not in item else item
    if all("function" in part for part in parts):
        return {**item, "role": "assistant", "content": None, "tool_calls": parts}
    known = all("type" in part or part.keys() & {"text", "toolUse", "toolResult"} for part in parts)
    return {**item, "content": parts} if known else item


def _events(span: Span) -> Iterator[Event]:
    """The events of a span in the order of their times, and those that an attribute holds as a list."""
    yield from sorted(span.events, key=lambda event: event.time or 0)
    for name in EVENT_LISTS:
        for item in listing(unparsed(span.attributes.get(name))):
            if isinstance(item, dict) and isinstance(item.get("event.name"), str):
                yield Event(item["event.name"], None, dict(item))


def _body(event: Event) -> dict[str, Any]:
    """The values of an event, and those in the JSON text that some put them into."""
    inner = unparsed(first_of(event.values, EVENT_BODIES))
    return event.values | inner if isinstance(inner, dict) else event.values


def _event_inputs(event: Event) -> list[Message]:
    if event.name == PROMPT_EVENT:
        return items_of(event.values.get("gen_ai.prompt"))
    role = EVENT_ROLES.get(event.name)
    return [] if role is None else items_of(_loose({"role": role, **_named(_body(event))}), role)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a message; calls may be JSON text."""
    known = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content", "status")
    found = {name: values[name] for name in known if values.get(name) is not None}
    return {"tool_call_id": values["id"], **found} if values.get("id") is not None else found


def _outputs(attributes: Mapping[str, Any], lists: Lists, events: list[Event]) -> Iterator[Any]:
    """The raw messages that came out: alternatives, or the items of one answer."""
    value = unparsed(first_of(attributes, OUTPUT_VALUES))
    if value is not None and (value != {} or not lists):
        yield from value if isinstance(value, list) else [value]
        return
    for prefix in OUTPUT_INDEXED:
        if prefix in lists:
            yield from (_loose(built(item)) for item in lists[prefix])
            return
    said = [item for event in events for item in _event_outputs(event)]
    if said:
        yield from said
    elif first_of(attributes, TRANSCRIPTS) is not None:
        yield from _transcript(attributes)[1]
    else:
        yield from _wrapped_output(attributes)


def _event_outputs(event: Event) -> Iterator[Any]:
    if event.name == COMPLETION_EVENT:
        yield from listing(unparsed(event.values.get("gen_ai.completion")))
    if event.name != CHOICE_EVENT:
        return
    values = _body(event)
    inner = unparsed(values.get("message"))
    told = inner if isinstance(inner, dict) else {"content": inner if inner is not None else values.get("content")}
    calls = unparsed(told.get("tool_calls", values.get("tool_calls")))
    about = {key: values[key] for key in ("finish_reason", "index") if key in values}
    yield _loose({"role": "assistant", **told, "tool_calls": calls}) | about


def _wrapped_output(attributes: Mapping[str, Any]) -> Iterator[Any]:
    text, calls = first_of(attributes, RESPONSE_TEXT), unparsed(attributes.get(RESPONSE_CALLS))
    if text is not None or calls is not None:
        yield {"role": "assistant", "content": text, "tool_calls": calls}
        return
    value = unparsed(first_of(attributes, OUTPUT_WRAPPED))
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        yield from value["choices"]
    elif value is not None:
        yield value if items_of(value, "assistant") else json.dumps(value)


def _choices(raw: list[Any], attributes: Mapping[str, Any]) -> list[History]:
    """The alternatives. Several outputs are alternatives when the span says that there are so many; else they are the
    items of one answer (reasoning, text, each call by itself).
    """
    made = [[_by_assistant(message) for message in _output(item)] for item in raw]
    made = [messages for messages in made if messages]
    if len(made) < 2:
        return [history(messages) for messages in made]
    reasons = listing(unparsed(first(attributes, "finish")))
    indices = {item.get("index") for item in raw if isinstance(item, dict) and isinstance(item.get("index"), int)}
    asked = whole(first(attributes, "choices"))
    if len(made) in (asked, len(indices), len(reasons)):
        return [history(messages) for messages in made]
    return [history([message for messages in made for message in messages])]


def _output(item: Any) -> list[Message]:
    return [item] if isinstance(item, Message) else items_of(item, "assistant")


def _by_assistant(message: Message) -> Message:
    """Some leave the role of an answer out, or call it `user`."""
    return replace(message, role="assistant") if message.role in ("user", "unknown", "") else message


def _finish(attributes: Mapping[str, Any], raw: list[Any]) -> str | None:
    told = unparsed(first(attributes, "finish"))
    told = next((item for item in told if isinstance(item, str)), None) if isinstance(told, list) else told
    if isinstance(told, str):
        return told
    reasons = (string(mapping(item).get("finish_reason", mapping(item).get("stop_reason"))) for item in raw)
    return next((reason for reason in reasons if reason), None)
