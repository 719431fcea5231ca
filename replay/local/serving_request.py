"""One request to /v1/chat/completions, checked: what is asked, or a `Refused` in OpenAI's shape with the parameter.

What would change the answer and is not built is refused, not ignored; what changes nothing (`user`, `metadata`) is
ignored. Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...storage.codec import message_from
from ...storage.records import Message, ToolSchema

MOST_CHOICES = 128
MOST_ALTERNATIVES = 20
MOST_STOPS = 4
SEED_BITS = 63
HARMLESS = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
    "functions": ([], None),
    "function_call": (None,),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
}
"""Parameters that are taken with these values only."""
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class Refused(Exception):
    """An answer that is an error: HTTP status, message, and what OpenAI calls type, param and code."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code

    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request; None where the server's own setting holds. `tool_choice`: auto, none, required or a name."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...] = ()
    tool_choice: str | None = None
    parallel_calls: bool | None = None
    choices: int = 1
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    stream: bool = False
    include_usage: bool = False


def parse_request(body: Any) -> ChatRequest:
    """The request in `body` (decoded JSON). Raises Refused."""
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    _check_unbuilt(body)
    tools = _tools(body.get("tools"))
    return ChatRequest(
        model=_text(body, "model"),
        messages=_messages(body.get("messages")),
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice"), tools),
        parallel_calls=None if body.get("parallel_tool_calls") is None else _flag(body, "parallel_tool_calls"),
        choices=_whole(body, "n", 1, MOST_CHOICES) or 1,
        seed=_whole(body, "seed", -(2**SEED_BITS), 2**SEED_BITS - 1),
        temperature=_number(body, "temperature", 0.0, 2.0),
        top_p=_top_p(body),
        top_k=_whole(body, "top_k", 0, 2**31),
        max_tokens=_max_tokens(body),
        stop=_stop(body.get("stop")),
        logprobs=_flag(body, "logprobs"),
        top_logprobs=_top_logprobs(body),
        stream=_flag(body, "stream"),
        include_usage=_flag(_object(body, "stream_options"), "include_usage"),
    )


KNOWN = HARMLESS | {
    *("model", "messages", "tools", "tool_choice", "n", "seed", "temperature", "top_p", "top_k", "max_tokens"),
    *("parallel_tool_calls", "max_completion_tokens", "stop", "logprobs", "top_logprobs", "stream", "stream_options"),
}


def _top_logprobs(body: Mapping[str, Any]) -> int:
    count = _whole(body, "top_logprobs", 0, MOST_ALTERNATIVES) or 0
    if count and not _flag(body, "logprobs"):
        raise Refused("'top_logprobs' needs 'logprobs': true", "top_logprobs", code="invalid_value")
    return count


def _check_unbuilt(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if name in NEUTRAL:
            if value not in NEUTRAL[name]:
                raise Refused(_why(name), name, code="unsupported_value")
        elif name not in KNOWN:
            raise Refused(f"unknown parameter: {name!r}", name, code="unknown_parameter")


def _why(name: str) -> str:
    return f"{name!r} is not supported here with that value"


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(f"{name!r} must be a text", name, code="missing_required_parameter")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"{name!r} must be true or false", name, code="invalid_type")
    return bool(value)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise Refused(f"{name!r} must be an object", name, code="invalid_type")
    return value or {}


def _whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused(f"{name!r} must be a whole number from {low} to {high}", name, code="invalid_value")
    return value


def _number(body: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    wrong = isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
    if wrong or not low <= value <= high:
        raise Refused(f"{name!r} must be a number from {low:g} to {high:g}", name, code="invalid_value")
    return float(value)


def _top_p(body: Mapping[str, Any]) -> float | None:
    value = _number(body, "top_p", 0.0, 1.0)
    if value == 0.0:
        raise Refused("'top_p' must be above 0", "top_p", code="invalid_value")
    return value


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return _whole(body, name, 1, 2**31)


def _stop(value: Any) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else [] if value is None else value
    sound = isinstance(given, list) and all(isinstance(item, str) and item for item in given)
    if not sound or len(given) > MOST_STOPS:
        raise Refused(f"'stop' must be a text or at most {MOST_STOPS} texts", "stop", code="invalid_value")
    return tuple(given)


def _tools(value: Any) -> tuple[ToolSchema, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Refused("'tools' must be a list", "tools", code="invalid_type")
    names: set[str] = set()
    for place, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name or name in names:
            raise Refused("a tool is a function with a name of its own", f"tools[{place}]", code="invalid_value")
        names.add(name)
    return tuple(value)


def _tool_choice(value: Any, tools: Sequence[ToolSchema]) -> str | None:
    if value is None:
        return None
    if isinstance(value, dict):
        function = value.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if name not in [tool["function"]["name"] for tool in tools]:
            raise Refused(f"'tool_choice' names no given tool: {name!r}", "tool_choice", code="invalid_value")
        return str(name)
    if value not in ("auto", "none", "required") or (value == "required" and not tools):
        known = "auto, none, required (with tools) or a function's name"
        raise Refused(f"'tool_choice' must be {known}", "tool_choice", code="invalid_value")
    return str(value)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise Refused("'messages' must be a list with at least one message", "messages", code="invalid_type")
    return tuple(_message(item, f"messages[{place}]") for place, item in enumerate(value))


def _message(item: Any, place: str) -> Message:
    if not isinstance(item, dict) or item.get("role") not in ROLES:
        raise Refused(f"a message has one of the roles {', '.join(sorted(ROLES))}", f"{place}.role")
    content = item.get("content")
    if isinstance(content, list):
        content = "\n".join(_part(part, f"{place}.content") for part in content)
    if content is not None and not isinstance(content, str):
        raise Refused("content is a text or a list of text parts", f"{place}.content", code="invalid_type")
    if content is None and not item.get("tool_calls"):
        content = ""
    try:
        return message_from({**item, "content": content, "role": str(item["role"])})
    except (KeyError, TypeError, AttributeError) as problem:
        told = f"a tool call has a function with a name and arguments: {problem!r}"
        raise Refused(told, f"{place}.tool_calls", code="invalid_value") from problem


def _part(part: Any, place: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise Refused("only parts of type text are understood", place, code="unsupported_value")
    return str(part["text"])
