"""OpenHands v0 events as conversations: actions and observations with integer ids, joined by `cause`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Message, ToolCall, ToolSchema, Usage
from .chat import content, listing, mapping, string, text, tool_call, tool_schemas, usage, whole
from .clock import utc
from .media import image_part, reference
from .talk import Talk, Turn, added, simple, text_part

Event = Mapping[str, Any]
_NO_CALLS = ("change_agent_state", "null", "recall", "condensation", "condensation_request", "")
_NO_ARGUMENTS = ("thought", "blocking", "is_input", "is_static", "hidden", "confirmation_state", "security_risk")


@dataclass(slots=True)
class Thread:
    """One agent's events and conversation; a delegate's begins behind the action (`step` of the parent) for it."""

    talk: Talk = field(default_factory=Talk)
    own: list[int] = field(default_factory=list)
    parent: Thread | None = None
    step: int | None = None
    tools: tuple[ToolSchema, ...] | None = None
    agent: str | None = None
    version: str | None = None
    state: str | None = None
    error: str | None = None
    delegate: Any = None
    responses: set[str] = field(default_factory=set)
    plain_calls: set[int] = field(default_factory=set)


class Events:
    """The threads in a list of events: the run's, then each delegate's."""

    def __init__(self, events: Sequence[Event]):
        self.threads = [Thread()]
        self._cost = 0.0
        self._tokens = Usage()
        self.total: Usage | None = None
        current = self.threads[0]
        for index, event in enumerate(events):
            current.own.append(index)
            action, observation = event.get("action"), event.get("observation")
            if isinstance(action, str):
                current = self._act(current, event, action)
            elif isinstance(observation, str):
                if observation == "delegate" and current.parent is not None and event.get("cause") == current.delegate:
                    current.own.pop()
                    current = current.parent
                    current.own.append(index)
                _observe(current, event, observation)

    def _act(self, thread: Thread, event: Event, action: str) -> Thread:
        args, time = mapping(event.get("args")), utc(event.get("timestamp"))
        if action == "system":
            thread.talk.hear(Message("system", content(args.get("content"))), time)
            thread.tools = tool_schemas(args.get("tools"))
            thread.agent, thread.version = string(args.get("agent_class")), string(args.get("openhands_version"))
        elif event.get("source") == "user":
            if action == "message":
                thread.talk.hear(Message("user", simple(_said(args, event))), time)
        elif event.get("source") == "agent":
            self._agent_acts(thread, event, action, args)
            thread.state = "finished" if action in ("finish", "reject") else thread.state
            if action == "delegate":
                return self._delegate(thread, event)
        return thread

    def _agent_acts(self, thread: Thread, event: Event, action: str, args: Mapping[str, Any]) -> None:
        meta, talk, time = mapping(event.get("tool_call_metadata")), thread.talk, utc(event.get("timestamp"))
        response = mapping(meta.get("model_response"))
        identity = text(response.get("id"))
        if meta and identity is not None and identity in thread.responses:
            return  # one of several calls in one answer, all of which were taken with the first
        if meta:
            thread.responses |= {identity} if identity else set()
            talk.close()
            _take_response(talk.turn(time), talk, response, meta, args)
        elif action == "message":
            talk.close()
            talk.turn(time).parts.extend(_said(args, event))
        elif action not in _NO_CALLS:
            talk.close()
            if isinstance(args.get("thought"), str) and args["thought"]:
                talk.turn(time).parts.append(text_part(args["thought"]))
            talk.call(ToolCall(None, action, _arguments(args)), time)
            thread.plain_calls |= {event["id"]} if isinstance(event.get("id"), int) else set()
        if talk.turns:
            self._spend(talk.turns[-1], event, usage(response.get("usage")))

    def _spend(self, turn: Turn, event: Event, spent: Usage | None) -> None:
        """The answer's own usage; cost, and tokens where it has none, are the growth of the counters."""
        metrics = mapping(event.get("llm_metrics"))
        cost = metrics.get("accumulated_cost")
        grown = None
        if isinstance(cost, (int, float)) and not isinstance(cost, bool) and math.isfinite(cost):
            grown, self._cost = max(cost - self._cost, 0.0), max(cost, self._cost)
        tokens = _accumulated(metrics)
        if spent is None and tokens is not None:
            spent = _growth(tokens, self._tokens)
        self._tokens = tokens or self._tokens
        if metrics:
            self.total = Usage(
                self._tokens.prompt_tokens, self._tokens.completion_tokens, self._tokens.cached_tokens, self._cost
            )
        if spent is not None or grown:
            turn.usage = added(turn.usage, added(spent, Usage(cost_usd=grown)))

    def _delegate(self, thread: Thread, event: Event) -> Thread:
        step = len(thread.talk.turns) - 1
        child = Thread(parent=thread, step=step, delegate=event.get("id"))
        inputs = mapping(mapping(event.get("args")).get("inputs"))
        task = inputs.get("task", inputs or None)
        if task is not None:
            child.talk.hear(Message("user", str(content(task) or "")), utc(event.get("timestamp")))
        self.threads.append(child)
        return child


def _observe(thread: Thread, event: Event, observation: str) -> None:
    meta, extras, cause = mapping(event.get("tool_call_metadata")), mapping(event.get("extras")), event.get("cause")
    time, shown = utc(event.get("timestamp")), content(event.get("content"))
    failed = _failed(event, observation, extras)
    if meta:
        identity, name = text(meta.get("tool_call_id")), string(meta.get("function_name"))
        thread.talk.result(identity, _plain(shown), time, is_error=failed, name=name)
    elif isinstance(cause, int) and cause in thread.plain_calls:
        thread.talk.result(None, _plain(shown), time, is_error=failed)
    elif observation == "agent_state_changed":
        thread.state = string(extras.get("agent_state")) or thread.state
        thread.error = string(extras.get("reason")) or thread.error
    elif observation == "error":
        thread.error = str(shown or "") or thread.error


def _take_response(
    turn: Turn, talk: Talk, response: Mapping[str, Any], meta: Mapping[str, Any], args: Mapping[str, Any]
) -> None:
    message = mapping(mapping(next(iter(listing(response.get("choices"))), None)).get("message"))
    said = content(message.get("content"))
    if isinstance(said, str):
        turn.parts.extend([text_part(said)] if said else [])
    else:
        turn.parts.extend(dict(part) for part in said or ())
    turn.thoughts.extend(thought for thought in [string(message.get("reasoning_content"))] if thought)
    turn.model = string(response.get("model"))
    given = [call for call in listing(message.get("tool_calls")) if isinstance(call, dict)]
    calls = [tool_call(call, "tool_calls") for call in given]
    identity = text(meta.get("tool_call_id"))
    if identity not in [call.id for call in calls]:
        calls.append(ToolCall(identity, string(meta.get("function_name")) or "", _arguments(args)))
    for call in calls:
        talk.call(call)


def _said(args: Mapping[str, Any], event: Event) -> list[dict[str, Any]]:
    said = content(args.get("content", event.get("message")))
    parts = [text_part(said)] if isinstance(said, str) else [dict(part) for part in said or ()]
    return parts + [image_part(reference(url)) for url in listing(args.get("image_urls"))]


def _arguments(args: Mapping[str, Any]) -> dict[str, Any]:
    """What the agent chose, without what the program adds to every action."""
    return {key: args[key] for key in args if key not in _NO_ARGUMENTS and args[key] is not None}


def _failed(event: Event, observation: str, extras: Mapping[str, Any]) -> bool:
    if observation == "error" or event.get("success") is False or extras.get("error") is True:
        return True
    code = whole(mapping(extras.get("metadata")).get("exit_code", extras.get("exit_code")))
    return event.get("success") is None and code is not None and code > 0


def _plain(shown: Any) -> Any:
    return shown if shown is None or isinstance(shown, str) else [dict(part) for part in shown]


def _accumulated(metrics: Mapping[str, Any]) -> Usage | None:
    given = mapping(metrics.get("accumulated_token_usage"))
    result = Usage(
        whole(given.get("prompt_tokens")), whole(given.get("completion_tokens")), whole(given.get("cache_read_tokens"))
    )
    return None if result == Usage() else result


def _growth(now: Usage, before: Usage) -> Usage:
    fields = ("prompt_tokens", "completion_tokens", "cached_tokens")
    pairs = ((getattr(now, name), getattr(before, name)) for name in fields)
    return Usage(*(None if new is None else whole(max(new - (old or 0), 0)) for new, old in pairs))


def counts(events: Iterable[Event]) -> dict[str, int]:
    """By the definitions of `traces/count.py`."""
    found = {"messages": 0, "assistant_turns": 0, "tool_calls": 0, "tool_results": 0}
    for event in events:
        has_call = bool(event.get("tool_call_metadata"))
        acts = event.get("source") == "agent" and bool(event.get("action")) and event.get("action") != "system"
        found["messages"] += 1
        found["assistant_turns"] += acts
        found["tool_calls"] += acts and has_call
        found["tool_results"] += bool(event.get("observation")) and event.get("cause") is not None and has_call
    return found
