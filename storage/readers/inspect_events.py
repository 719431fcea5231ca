"""The events of an Inspect sample, in plain JSON: which model call made which message, and which agent ran it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Usage
from .chat import listing, mapping, string
from .clock import span, utc
from .inspect_messages import inspect_usage

_PROTOCOL = "attachment://"
_KEY_CHARACTERS = 200
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model that was answered."""

    event: Json
    message: Json

    @property
    def usage(self) -> Usage | None:
        """Tokens and money of this call."""
        return inspect_usage(mapping(self.event.get("output")).get("usage"))

    @property
    def times(self) -> tuple[str | None, str | None]:
        """(started, ended). Old logs have one time, that of the answer."""
        recorded, completed = utc(self.event.get("timestamp")), utc(self.event.get("completed"))
        return (recorded, completed) if completed else (None, recorded)

    @property
    def model(self) -> str | None:
        """The model that was called."""
        return string(self.event.get("model"))


@dataclass(frozen=True, slots=True)
class Agent:
    """A span of type agent: its first event, what happened in it (not in agents below it), and its model calls."""

    begin: Json
    events: list[Json] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Events:
    """What we read of the events."""

    calls: list[ModelCall]
    agents: dict[str, Agent]
    callers: dict[str, str]
    """Ids of agents' spans to the ids of the tool calls that started them."""
    times: tuple[str | None, str | None]


def events_of(sample: Json) -> Events:
    """Read a sample's events (of old samples they stand in its transcript)."""
    given = listing(sample.get("events")) or listing(mapping(sample.get("transcript")).get("events"))
    events = [event for event in given if isinstance(event, dict)]
    spans = {str(event.get("id")): event for event in events if event.get("event") == "span_begin"}
    owners = _Owners(spans)
    agents = {
        name: Agent(event, parent=owners.of(string(event.get("parent_id"))))
        for name, event in spans.items()
        if event.get("type") == "agent"
    }
    calls: list[ModelCall] = []
    for event in events:
        inside = owners.of(string(event.get("span_id")))
        call = _model_call(event)
        if call is not None:
            calls.append(call)
        if inside is not None:
            agents[inside].events.append(event)
            if call is not None:
                agents[inside].calls.append(call)
    times = span(utc(event.get("timestamp")) for event in events)
    return Events(calls, agents, _callers(events), times)


class _Owners:
    """The nearest agent's span at or above each span."""

    def __init__(self, spans: Mapping[str, Json]):
        self._spans = spans
        self._known: dict[str, str | None] = {}

    def of(self, name: str | None) -> str | None:
        """Climbs each span once; a ring of parents has no agent."""
        path: list[str] = []
        while name is not None and name not in self._known:
            found = self._spans.get(name)
            if found is None or found.get("type") == "agent":
                self._known[name] = None if found is None else name
                break
            self._known[name] = None
            path.append(name)
            name = string(found.get("parent_id"))
        owner = self._known.get(name) if name is not None else None
        self._known.update(dict.fromkeys(path, owner))
        return owner


def _model_call(event: Json) -> ModelCall | None:
    if event.get("event") != "model":
        return None
    choices = listing(mapping(event.get("output")).get("choices"))
    message = mapping(choices[0]).get("message") if choices else None
    return ModelCall(event, message) if isinstance(message, dict) else None


def _callers(events: Sequence[Json]) -> dict[str, str]:
    found: dict[str, str] = {}
    for event in events:
        started, call = string(event.get("agent_span_id")), string(event.get("id"))
        if event.get("event") == "tool" and started and call:
            found[started] = call
    return found


def matched(messages: Iterable[Any], calls: Sequence[ModelCall], attachments: Json) -> list[ModelCall | None]:
    """For each assistant message the call that made it: by the message's id, in old logs by its content and order."""
    by_id = {name: call for call in calls if (name := string(call.message.get("id")))}
    by_content: dict[str, deque[ModelCall]] = {}
    for call in calls:
        by_content.setdefault(_content_key(call.message, attachments), deque()).append(call)
    return [_match(message, by_id, by_content, attachments) for message in messages if _is_assistant(message)]


def _is_assistant(message: Any) -> bool:
    return mapping(message).get("role") == "assistant"


def _match(
    message: Json, by_id: Mapping[str, ModelCall], by_content: Mapping[str, deque[ModelCall]], attachments: Json
) -> ModelCall | None:
    found = by_id.get(string(message.get("id")) or "")
    if found is not None:
        return found
    same = by_content.get(_content_key(message, attachments))
    return same.popleft() if same else None


def _content_key(message: Json, attachments: Json) -> str:
    calls = [mapping(call).get("id") for call in listing(message.get("tool_calls"))]
    return json.dumps([_shortened(resolved(message.get("content"), attachments)), calls], sort_keys=True)


def _shortened(value: Any) -> Any:
    """Of a text its beginning and its length: enough to tell messages apart, however often a long text is meant."""
    if isinstance(value, str):
        return [value[:_KEY_CHARACTERS], len(value)]
    return [_shortened(mapping(part).get("text")) for part in listing(value)]


def resolved(value: Any, attachments: Json) -> Any:
    """The value with the texts that it refers to in their place."""
    if isinstance(value, str):
        return attachments.get(value.removeprefix(_PROTOCOL), value) if value.startswith(_PROTOCOL) else value
    if isinstance(value, list):
        return [resolved(item, attachments) for item in value]
    if isinstance(value, dict):
        return {key: resolved(item, attachments) for key, item in value.items()}
    return value
