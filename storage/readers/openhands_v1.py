"""OpenHands v1 (the SDK's) events as conversations: a tree by `parent_id`, calls of one answer by `llm_response_id`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..records import Message, ToolSchema, Usage
from .chat import content, listing, mapping, string, text, tool_call, tool_schemas, whole
from .clock import utc
from .event_tree import Path, paths
from .media import image_part, reference
from .talk import Content, Talk, simple, text_part

Event = Mapping[str, Any]
_RESULTS = ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent")
_MATTER = ("SystemPromptEvent", "MessageEvent", "ActionEvent", *_RESULTS)


class Conversation:
    """What the events of one path say."""

    def __init__(self, events: Iterable[Event], usages: Mapping[str, Usage]):
        self.talk = Talk()
        self.tools: tuple[ToolSchema, ...] | None = None
        self.end: tuple[str, dict[str, Any]] | None = None
        self._usages = usages
        self._turn_of: dict[str, int] = {}
        takers = {
            "SystemPromptEvent": self._system,
            "MessageEvent": self._message,
            "ActionEvent": self._action,
            "ConversationErrorEvent": self._error,
            "ConversationStateUpdateEvent": self._state,
            **dict.fromkeys(_RESULTS, self._result),
        }
        for event in events:
            take = takers.get(str(event.get("kind")))
            if take is not None:
                take(event, utc(event.get("timestamp")))

    def _system(self, event: Event, time: str | None) -> None:
        said = [_parts([event.get("system_prompt")]), _parts([event.get("dynamic_context")])]
        self.talk.hear(Message("system", simple([*said[0], *said[1]])), time)
        given = [tool for tool in listing(event.get("tools")) if isinstance(tool, dict)]
        if given and all("function" in tool or "parameters" in tool for tool in given):
            self.tools = tool_schemas(given)

    def _message(self, event: Event, time: str | None) -> None:
        message = mapping(event.get("llm_message"))
        parts = [*_parts(message.get("content")), *_parts(event.get("extended_content"))]
        if event.get("source") != "agent":
            self.talk.hear(Message(string(message.get("role")) or "user", simple(parts)), time)
            return
        self._answer(event, time, message)
        self.talk.turns[-1].parts.extend(parts)
        self.end = None

    def _action(self, event: Event, time: str | None) -> None:
        step = self._answer(event, time, event)
        self.talk.turns[step].parts.extend(part for part in _parts(event.get("thought")) if part.get("text") != "")
        call = mapping(event.get("tool_call"))
        made = tool_call({"id": event.get("tool_call_id"), "name": event.get("tool_name"), **call}, "tool_call")
        self.talk.call(made, time, step)
        self.end = ("finished", {}) if event.get("tool_name") == "finish" else None

    def _answer(self, event: Event, time: str | None, thinking: Mapping[str, Any]) -> int:
        """The step of the model's answer that the event is part of; it may have begun before a result came."""
        identity = text(event.get("llm_response_id"))
        if identity is not None and identity in self._turn_of:
            return self._turn_of[identity]
        self.talk.close()
        turn = self.talk.turn(time)
        thoughts = [string(thinking.get("reasoning_content"))]
        if not thoughts[0]:
            thoughts = [string(mapping(block).get("thinking")) for block in listing(thinking.get("thinking_blocks"))]
        turn.thoughts.extend(thought for thought in thoughts if thought)
        if identity is not None:
            self._turn_of[identity] = len(self.talk.turns) - 1
            turn.usage = self._usages.get(identity)
        return len(self.talk.turns) - 1

    def _result(self, event: Event, time: str | None) -> None:
        observation = mapping(event.get("observation"))
        shown: Content = simple([*_parts(observation.get("content")), *_parts(event.get("extended_content"))])
        if shown is None:
            shown = string(observation.get("output"))
        failed = observation.get("is_error") is True or (whole(observation.get("exit_code")) or 0) > 0
        if event["kind"] == "UserRejectObservation":
            shown, failed = f"Action rejected: {string(event.get('rejection_reason')) or ''}", True
        elif event["kind"] == "AgentErrorEvent":
            shown, failed = string(event.get("error")), True
        identity, name = text(event.get("tool_call_id")), string(event.get("tool_name"))
        self.talk.result(identity, shown, time, is_error=failed, name=name)

    def _error(self, event: Event, time: str | None) -> None:
        detail = {key: event[key] for key in ("detail", "classification") if event.get(key) is not None}
        self.end = (string(event.get("code")) or "error", detail)

    def _state(self, event: Event, time: str | None) -> None:
        value = event.get("value")
        if event.get("key") == "full_state":
            value = mapping(value).get("execution_status", mapping(value).get("agent_status"))
        elif event.get("key") not in ("execution_status", "agent_status"):
            return
        if isinstance(value, str) and value not in ("running", "idle") and (self.end is None or value == "finished"):
            self.end = (value, {})


def _parts(value: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in [value] if isinstance(value, str) else listing(value):
        if isinstance(part, str):
            parts.append(text_part(part))
        elif isinstance(part, dict) and isinstance(part.get("image_urls"), list):
            parts.extend(image_part(reference(url)) for url in part["image_urls"])
        elif isinstance(part, dict) and "text" in part:
            parts.append(text_part(str(content(part["text"]) or "")))
        elif isinstance(part, dict):
            parts.append(part)
    return parts


def branches(events: Sequence[Event]) -> Iterator[Path]:
    """The path to the latest event, then those that were left. Raises TooManyBranches."""
    place: dict[str, int] = {}
    parents: list[int | None] = []
    answer_of_call: dict[str, str] = {}
    groups: list[str | None] = []
    for index, event in enumerate(events):
        parent, identity = event.get("parent_id"), event.get("id")
        before = index - 1 if index else None  # events of before the tree follow each other
        parents.append(place.get(parent, before) if isinstance(parent, str) else before)
        if isinstance(identity, str):
            place[identity] = index
        group, call = string(event.get("llm_response_id")), event.get("tool_call_id")
        if isinstance(call, str) and group is not None:
            answer_of_call[call] = group
        groups.append(group or (answer_of_call.get(call) if isinstance(call, str) else None))
    weights = [1 + len(str(event)) // 1024 for event in events]
    return paths(parents, [event.get("kind") in _MATTER for event in events], groups, weights)


def usages(metrics: Any) -> dict[str, Usage]:
    """Tokens of each answer, by its id, from what the SDK calls metrics."""
    found: dict[str, Usage] = {}
    for item in listing(mapping(metrics).get("token_usages")):
        given = mapping(item)
        identity = text(given.get("response_id"))
        if identity:
            prompt, completion = whole(given.get("prompt_tokens")), whole(given.get("completion_tokens"))
            found[identity] = Usage(prompt, completion, whole(given.get("cache_read_tokens")))
    return found


def counts(events: Iterable[Event]) -> dict[str, int]:
    """Events; actions and messages of the agent; calls; results of any kind."""
    found = {"messages": 0, "assistant_turns": 0, "tool_calls": 0, "tool_results": 0}
    for event in events:
        kind = event.get("kind")
        found["messages"] += 1
        found["assistant_turns"] += kind == "ActionEvent" or (kind == "MessageEvent" and event.get("source") == "agent")
        found["tool_calls"] += kind == "ActionEvent"
        found["tool_results"] += kind in _RESULTS
    return found
