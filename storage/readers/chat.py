"""What the chat-shaped formats share: lenient conversion of logged messages, tools, numbers and counts.

Absent and unexpected fields are tolerated (the raw record keeps them); `wrong_shape` is raised only where a record
cannot be a conversation at all. Values come from `json_text.decode`, so objects are dicts and arrays are lists.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..arguments import call_arguments as arguments
from ..canonical import content_id
from ..chat_log import LoggedPrompt
from ..codec import EXAMPLE_ASSISTANT, message_to_dict, steps_from_messages
from ..records import Message, Step, ToolCall, ToolSchema, Usage
from .json_text import NOT_FINITE, BadRecord, decode, wrong_shape

__all__ = ["arguments"]  # it lives where the archive can use it too
_INT64 = 2**63


def text(value: Any) -> str | None:
    """A string, or a number as text; None for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def string(value: Any) -> str | None:
    """A string, else None."""
    return value if isinstance(value, str) else None


def whole(value: Any) -> int | None:
    """An integer that fits 64 bits, else None."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -_INT64 <= value < _INT64 else None


def number(value: Any, name: str = "number") -> float | None:
    """A number or bool as float, else None. Raises BadRecord (`TTC-E014`) when it does not fit a float."""
    if not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise BadRecord(NOT_FINITE, f"{name} is not a finite number")
    return result


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> Sequence[Any]:
    """The list, or an empty one."""
    return value if isinstance(value, list) else ()


def unparsed(value: Any) -> Any:
    """The value of a JSON text, as some dumps hold lists; anything else, and text that is no JSON, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return decode(value.encode())
    except BadRecord:
        return value


def content(value: Any) -> str | list[Mapping[str, Any]] | None:
    """Message content: text, parts, or None. Anything else (a tool that answered an object) becomes its JSON text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [part if isinstance(part, dict) else {"type": "text", "text": _plain(part)} for part in value]
    return _plain(value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tool_call(value: Any, where: str) -> ToolCall:
    """A call in OpenAI's nested shape, or flat (`name`, `arguments`), or of a custom tool. Arguments that are text are
    kept exactly; `arguments` is None when the text is no JSON object.
    """
    if not isinstance(value, dict):
        raise wrong_shape(f"{where} is not an object")
    inner = value.get("function")
    custom = value.get("custom")
    body = inner if isinstance(inner, dict) else custom if isinstance(custom, dict) else value
    given = body.get("arguments", body.get("input"))
    identity, name = text(value.get("id")), text(body.get("name")) or ""
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = "" if given is None else _plain(given)
    return ToolCall(identity, name, arguments(raw), raw)


def chat_message(value: Any, where: str) -> Message:
    """A message in OpenAI's shape, legacy `function_call` and role `function` included."""
    if not isinstance(value, dict):
        raise wrong_shape(f"{where} is not an object")
    role = value.get("role")
    if not isinstance(role, str):
        raise wrong_shape(f"{where} has no role")
    return Message(
        role="tool" if role == "function" else role,
        content=content(value.get("content")),
        reasoning=string(value.get("reasoning_content")) or string(value.get("reasoning")),
        tool_calls=_calls(value, where),
        tool_call_id=text(value.get("tool_call_id")),
        name=string(value.get("name")),
        requestor=string(value.get("requestor")),
        is_error=value.get("is_error") is True,
    )


def _calls(value: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    given = value.get("tool_calls")
    if given is not None and not isinstance(given, list):
        raise wrong_shape(f"{where}.tool_calls is not a list")
    legacy = value.get("function_call")
    if not given and isinstance(legacy, dict):
        given = [legacy]
    return tuple(tool_call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(given or ()))


def chat_messages(values: Any, where: str) -> tuple[Message, ...]:
    """A list of messages. Raises BadRecord naming the message that is none."""
    if not isinstance(values, list):
        raise wrong_shape(f"{where} is not a list")
    return tuple(chat_message(value, f"{where}[{index}]") for index, value in enumerate(values))


def chat_counts(values: Iterable[Any], rewards: int) -> dict[str, int]:
    """Source entries by the definitions of `traces/count.py`; calls in the legacy shape are counted apart."""
    counts = {"messages": 0, "assistant_turns": 0, "tool_calls": 0, "tool_results": 0, "rewards": rewards}
    legacy_calls = legacy_results = 0
    for value in values:
        counts["messages"] += 1
        counts["tool_results"] += value.get("role") == "tool"
        legacy_results += value.get("role") == "function"
        if value.get("role") == "assistant":
            counts["assistant_turns"] += 1
            counts["tool_calls"] += len(value.get("tool_calls") or ())
            legacy_calls += bool(value.get("function_call"))
    if legacy_calls or legacy_results:
        counts |= {"function_calls": legacy_calls, "function_results": legacy_results}
    return counts


def tool_schemas(value: Any) -> tuple[ToolSchema, ...] | None:
    """Tool schemas in OpenAI's nested shape from a list (or its JSON text); flat entries are wrapped. None: unknown."""
    given = unparsed(value)
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        return None
    return tuple(_nested_schema(item) for item in given)


def _nested_schema(item: Mapping[str, Any]) -> ToolSchema:
    if isinstance(item.get("function"), dict) or not isinstance(item.get("name"), str):
        return item
    parameters = item.get("parameters", item.get("input_schema"))
    rest = {key: item[key] for key in item if key not in ("type", "parameters", "input_schema")}
    return {"type": "function", "function": rest | ({"parameters": parameters} if parameters is not None else {})}


def usage(value: Any, cost: Any = None) -> Usage | None:
    """Tokens and money of one call; None when nothing is known. Counts that are no integers are unknown."""
    if value is None and cost is None:
        return None
    given = mapping(value)
    cached = given.get("cached_tokens", mapping(given.get("prompt_tokens_details")).get("cached_tokens"))
    money = given.get("cost_usd", given.get("cost", cost))
    result = Usage(
        whole(given.get("prompt_tokens")),
        whole(given.get("completion_tokens")),
        whole(cached),
        number(money, "cost") if not isinstance(money, bool) else None,
    )
    return None if result == Usage() else result


def split(
    messages: Sequence[Message], usages: Sequence[Usage | None], logprobs: Sequence[float | None] = ()
) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
    """Prompt and steps; the n-th usage and logprob belong to the n-th assistant message. Worked examples are no
    steps."""
    prompt, steps = steps_from_messages(messages, examples=True)
    shown = [message.name == EXAMPLE_ASSISTANT for message in messages if message.role == "assistant"]
    usages = [spent for spent, example in zip(usages, shown, strict=True) if not example]
    given = [value for value, example in zip(logprobs, shown, strict=False) if not example]
    given += [None] * (len(steps) - len(given))
    filled = tuple(
        replace(step, usage=spent, logprob=logprob) if spent is not None or logprob is not None else step
        for step, spent, logprob in zip(steps, usages, given, strict=True)
    )
    return prompt, filled


def first_user_text(messages: Iterable[Message]) -> str:
    """The text of the first user message, or the empty text."""
    if isinstance(messages, LoggedPrompt):
        return messages.chat.user_text or ""
    return next((message.text for message in messages if message.role == "user"), "")


def prompt_id(prompt: Sequence[Message]) -> str:
    """A task id for logs that name no task: equal prompts are one task."""
    return "prompt-" + content_id([message_to_dict(message) for message in prompt])[:16]
