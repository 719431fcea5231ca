"""Messages in whatever shape a framework logged them: what a model's call was given, and what it gave.

OpenAI chat and Responses items, Anthropic, LangChain, Gemini contents, AI SDK, GenAI, OpenInference and pydantic-ai
parts, OTel events, and JSON text of any of them, encoded once or more often. What is no message yields nothing; it
stays in the raw record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import Message
from .chat import mapping, string
from .chat_shapes import SYSTEM_ROLES, Found, Piece, chat_entry
from .content_blocks import block_message, block_messages, typed_call, typed_result
from .encoded import opened
from .langchain_messages import is_langchain, langchain_message

_DEEPEST = 12
_SPOKEN = re.compile(r"^(system|developer|user|assistant|tool): ", re.MULTILINE)
_CALL_ITEMS = frozenset(("function_call", "custom_tool_call", "mcp_call"))
_RESULT_ITEMS = frozenset(("function_call_output", "custom_tool_call_output"))
_WRAPPERS = (
    *("messages", "contents", "choices", "candidates", "generations", "output", "input", "message", "content"),
    *("response", "kwargs"),
)
_TEXTS = ("text", "content", "prompt", "input", "output", "completion", "object")
_SAYS = ("content", "contents", "tool_calls", "function_call", "function_call_name")
_SYSTEMS = ("system", "instructions", "system_instruction", "systemInstruction", "system_prompt")


@dataclass(frozen=True, slots=True)
class _Reading:
    """`role`: whose words those are that name no role."""

    role: str
    itemized: bool = False
    depth: int = 0

    def deeper(self) -> _Reading:
        return _Reading(self.role, self.itemized, self.depth + 1)


def messages_of(value: Any, role: str = "user") -> tuple[Message, ...]:
    """Every message in `value`, in order; plain text, and entries that name no role, are messages of `role`.

    Pieces of one answer (Responses items, calls listed one by one) come as one message.
    """
    inner = opened(value)
    if isinstance(inner, str):
        return tuple(_spoken(inner, role)) if inner and (inner != "null" or role != "user") else ()
    found = list(_messages(inner, _Reading(role)))
    if not found and isinstance(value, str) and role == "assistant":
        return (Message(role, value),)  # an answer that is itself a JSON text
    return tuple(_joined(found))


def items_of(value: Any, role: str = "user") -> list[Message]:
    """The same for histories that are compared item by item, as spans repeat them: each piece by itself. Texts in lists
    are messages too, one that names a role only is empty, and a text is no transcript.
    """
    inner = opened(value)
    if isinstance(inner, str):
        return [Message(role, inner)]
    return [_bare(item) for item in _messages(inner, _Reading(role, itemized=True))]


def with_system(found: Sequence[Message], value: Any) -> list[Message]:
    """The messages found in a request; where none of them is a system prompt, the one beside them comes first."""
    system = None if any(message.role in SYSTEM_ROLES for message in found) else system_of(value)
    return list(found) if system is None else [Message("system", system), *found]


def system_of(value: Any) -> str | None:
    """The system prompt that stands beside the messages: `system`, `instructions`, Gemini's `system_instruction`."""
    given = mapping(opened(value))
    for holder in (given, mapping(given.get("config")), mapping(given.get("kwargs"))):
        for key in _SYSTEMS:
            found = holder.get(key)
            said = found if isinstance(found, str) else system_message(found).text
            if said:
                return said
    return None


def system_message(value: Any) -> Message:
    """System instructions, as a text, as parts, or as a message without a role."""
    given = opened(value)
    if isinstance(given, dict):
        given = given.get("parts", given.get("content", [given]))
    return block_message("system", given if isinstance(given, (str, list)) else None)


def _spoken(said: str, role: str) -> list[Message]:
    """Text, or the turns of a transcript (`user: ...` at the start of lines), as some exporters flatten messages."""
    if role != "user" or _SPOKEN.match(said) is None:
        return [Message(role, said)]
    pieces = _SPOKEN.split(said)[1:]
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return [Message(who, None if (what := spoken.rstrip("\n")) == "None" else what) for who, spoken in turns]


def _messages(value: Any, how: _Reading) -> Found:
    value = opened(value)
    if how.depth > _DEEPEST:
        return
    if isinstance(value, list):
        inside = how.deeper()
        for item in value:
            inner = opened(item)
            if isinstance(inner, dict):
                yield from _entry(inner, inside)
            elif isinstance(inner, list):
                yield from _messages(inner, inside)
            elif how.itemized and isinstance(item, str):
                yield Message(how.role, item)
    elif isinstance(value, dict):
        yield from _entry(value, how)


def _entry(value: Mapping[str, Any], how: _Reading) -> Found:
    """One message or item; else what the object wraps."""
    kind = string(value.get("type"))
    if "role" not in value and is_langchain(value):
        found = langchain_message(value)
        yield from [found] if found is not None else []
    elif kind in _CALL_ITEMS or kind in _RESULT_ITEMS or kind == "reasoning":
        yield from _item(value, kind)
    elif _is_message(value, how):
        yield from chat_entry(value, how.role)
    elif "toolCallId" in value or ("toolName" in value and "type" not in value):
        done = "result" in value or "output" in value
        yield typed_result(value) if done else Piece(Message("assistant", tool_calls=(typed_call(value),)))
    else:
        yield from _wrapped(value, how)


def _is_message(value: Mapping[str, Any], how: _Reading) -> bool:
    if isinstance(value.get("role"), str) and (how.itemized or any(key in value for key in _SAYS)):
        return True
    return isinstance(value.get("parts"), list) or bool(value.get("tool_calls") or value.get("toolCalls"))


def _wrapped(value: Mapping[str, Any], how: _Reading) -> Found:
    for key in (*_WRAPPERS, "prompt"):
        inner = opened(value.get(key))
        if isinstance(inner, (dict, list)) and inner:
            is_parts = key == "content" and isinstance(inner, list) and all(map(_is_part, inner))
            found = block_messages(how.role, inner) if is_parts else list(_messages(inner, how.deeper()))
            if found:
                yield from found
                return
    said = next((value[key] for key in _TEXTS if value.get(key)), None)
    if isinstance(said, str) and said != "role":  # "role": what one exporter writes where it has no message
        yield Message(how.role, said)


def _is_part(value: Any) -> bool:
    return not isinstance(value, dict) or not ("role" in value or "message" in value or is_langchain(value))


def _item(value: Mapping[str, Any], kind: str) -> Found:
    """An item of the Responses API that is no message."""
    if kind in _RESULT_ITEMS:
        yield typed_result({key: value[key] for key in value if key != "id"})
        return
    calls = (typed_call(value),) if kind in _CALL_ITEMS else ()
    found = Message("assistant", tool_calls=calls) if calls else block_message("assistant", [value])
    if found.tool_calls or found.reasoning:
        yield Piece(found)


def _joined(found: list[Message | Piece]) -> Iterator[Message]:
    """Pieces joined with the assistant message, or the pieces, beside them."""
    held: Message | Piece | None = None
    for item in found:
        if held is None or not (isinstance(held, Piece) or isinstance(item, Piece)):
            joined = None
        else:
            joined = _join(_bare(held), _bare(item))
        if joined is not None:
            held = Piece(joined)
            continue
        if held is not None:
            yield _bare(held)
        held = item
    if held is not None:
        yield _bare(held)


def _bare(item: Message | Piece) -> Message:
    return item.message if isinstance(item, Piece) else item


def _join(first: Message, second: Message) -> Message | None:
    """Both as one message; None when they are two: another role spoke, or text came where there is text already."""
    if first.role != "assistant" or second.role != "assistant":
        return None
    if second.content is not None and (first.content is not None or first.tool_calls):
        return None
    return together(first, second)


def together(first: Message, second: Message) -> Message:
    """Two pieces of one answer as one message."""
    return Message(
        "assistant",
        first.content if second.content is None else second.content,
        "\n".join(part for part in (first.reasoning, second.reasoning) if part) or None,
        first.tool_calls + second.tool_calls,
        name=first.name or second.name,
    )
