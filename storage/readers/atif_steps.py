"""The steps of an ATIF document as messages, usage and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..records import Message, ToolCall, Usage
from .chat import arguments, content, mapping, number, string, text
from .chat import usage as usage_of
from .json_text import wrong_shape
from .media import file_part, image_part, reference

ROLES = {"agent": "assistant", "user": "user", "system": "system"}


def step_messages(step: Any, where: str) -> list[Message]:
    """A step's message, then what it observed. Raises BadRecord where it is no step."""
    if not isinstance(step, dict):
        raise wrong_shape(f"{where} is not an object")
    role = ROLES.get(step["source"]) if isinstance(step.get("source"), str) else None
    if role is None:
        raise wrong_shape(f"{where} has no source among system, user, agent")
    calls = tuple(
        _call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(_list(step, "tool_calls", where))
    )
    message = Message(role, _content(step.get("message")), string(step.get("reasoning_content")), calls)
    observation = step.get("observation")
    if observation is not None and not isinstance(observation, dict):
        raise wrong_shape(f"{where}.observation is not an object")
    results = _list(mapping(observation), "results", f"{where}.observation")
    return [message, *_results(results, message, where)]


def _list(value: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = value.get(key)
    if found is not None and not isinstance(found, list):
        raise wrong_shape(f"{where}.{key} is not a list")
    return found or []


def _call(value: Any, where: str) -> ToolCall:
    if not isinstance(value, dict):
        raise wrong_shape(f"{where} is not an object")
    given = value.get("arguments")
    identity, name = text(value.get("tool_call_id")), text(value.get("function_name")) or ""
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "")
    return ToolCall(identity, name, arguments(raw), raw)


def _results(results: list[Any], message: Message, where: str) -> Iterator[Message]:
    """A result without a call id takes that of the call in its place when there is one result to each call."""
    calls = message.tool_calls
    in_order = len(calls) == len(results)
    for index, result in enumerate(results):
        if not isinstance(result, dict):
            raise wrong_shape(f"{where}.observation.results[{index}] is not an object")
        call_id = text(result.get("source_call_id"))
        if call_id is None and in_order:
            call_id = calls[index].id
        role = "tool" if message.role == "assistant" or call_id is not None else message.role
        yield Message(role, _content(result.get("content")), tool_call_id=call_id, is_error=_failed(result))


def _failed(result: Mapping[str, Any]) -> bool:
    """ATIF has no word for a failure; agents write one of these beside the result."""
    extra = mapping(result.get("extra"))
    return extra.get("is_error") is True or bool(extra.get("error")) or extra.get("status") == "error"


def _content(value: Any) -> Any:
    """Text, or since v1.6 parts: images and sounds are references to files beside the document."""
    found = content(value)
    return [_part(part) for part in found] if isinstance(found, list) else found


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    source = mapping(part.get("source"))
    path, media_type = string(source.get("path")), string(source.get("media_type"))
    if path is None or part.get("type") not in ("image", "audio"):
        return part
    if part["type"] == "image":
        return image_part(reference(path), media_type=media_type)
    return file_part(reference(path), "audio", media_type=media_type)


def usage_of_step(step: Mapping[str, Any]) -> Usage | None:
    """Tokens (prompt tokens include the cached ones) and money of a step."""
    metrics = step.get("metrics")
    return usage_of(metrics) if isinstance(metrics, dict) else None


def logprob(step: Mapping[str, Any]) -> float | None:
    """The sum over the completion's tokens, when every one of them was logged."""
    given = mapping(step.get("metrics")).get("logprobs")
    if not isinstance(given, list) or not given:
        return None
    values = [number(item, "metrics.logprobs") for item in given]
    known = [value for value in values if value is not None]
    return number(sum(known), "metrics.logprobs") if len(known) == len(values) else None
