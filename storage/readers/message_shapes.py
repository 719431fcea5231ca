"""Messages and tools in whatever shape a framework logged them, for logs that keep a model call's input and output.

OpenAI chat and Responses items, Anthropic, LangChain, Gemini contents, AI SDK, GenAI and pydantic-ai parts, OTel
events, and JSON text of any of them, encoded once or more often. What is no message yields nothing; it stays in the
raw record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..records import Message, ToolSchema
from .chat import content, listing, mapping, string, text, tool_call, tool_schemas
from .content_blocks import block_message, block_messages, content_of, flat_call, typed_call, typed_result
from .json_text import BadRecord, decode
from .langchain_messages import is_langchain, langchain_message

_ENCODED = 3
_DEEPEST = 12
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
_SAME_ROLE = {"model": "assistant", "ai": "assistant", "human": "user", "function": "tool", "bot": "assistant"}
_SPOKEN = re.compile(r"^(system|developer|user|assistant|tool): ", re.MULTILINE)
_CALL_ITEMS = frozenset(("function_call", "custom_tool_call", "mcp_call"))
_RESULT_ITEMS = frozenset(("function_call_output", "custom_tool_call_output"))
_WRAPPERS = ("messages", "contents", "choices", "generations", "output", "input", "message", "content", "response")
_PYDANTIC_ROLES = {"system-prompt": "system", "user-prompt": "user", "tool-return": "tool", "retry-prompt": "tool"}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of an answer that was logged by itself: it joins the assistant message beside it."""

    message: Message


_Found = Iterator[Message | _Piece]


def opened(value: Any) -> Any:
    """The list, object or text inside JSON text, however often it was encoded; anything else as it is."""
    for _ in range(_ENCODED):
        if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
            return value
        try:
            inner = decode(value.encode())
        except (BadRecord, UnicodeEncodeError):
            return value
        if not isinstance(inner, (str, dict, list)):
            return value
        value = inner
    return value


def messages_of(value: Any, role: str = "user") -> tuple[Message, ...]:
    """Every message in `value`, in order; plain text, and entries that name no role, are messages of `role`.

    Pieces of one answer (Responses items, calls listed one by one) come as one message.
    """
    inner = opened(value)
    if isinstance(inner, str):
        return tuple(_spoken(inner, role)) if inner and (inner != "null" or role != "user") else ()
    found = list(_messages(inner, role, 0))
    if not found and isinstance(value, str) and role == "assistant":
        return (Message(role, value),)  # an answer that is itself a JSON text
    return tuple(_joined(found))


def system_of(value: Any) -> str | None:
    """The system prompt that stands beside the messages: `system`, `instructions`, Gemini's `system_instruction`."""
    given = mapping(opened(value))
    for holder in (given, mapping(given.get("config")), mapping(given.get("kwargs"))):
        for key in ("system", "instructions", "system_instruction", "systemInstruction", "system_prompt"):
            found = holder.get(key)
            if isinstance(found, str) and found:
                return found
            if isinstance(found, (dict, list)):
                parts = found if isinstance(found, list) else listing(found.get("parts"))
                said = block_message("system", list(parts)).text
                if said:
                    return said
    return None


def tools_of(value: Any) -> tuple[ToolSchema, ...] | None:
    """Tool schemas in OpenAI's shape from a list, a mapping by name, or JSON text of either; None: there are none."""
    given = opened(value)
    if isinstance(given, dict):
        given = [{"name": name, **mapping(opened(given[name]))} for name in given]
    found = [tool for item in listing(given) for tool in _tools(opened(item))]
    return tool_schemas(found) if found else None


def _tools(item: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(item, dict):
        return
    declared = item.get("function_declarations", item.get("functionDeclarations"))
    if isinstance(declared, list):
        for inner in declared:
            yield from _tools(inner)
    elif isinstance(item.get("function"), dict):
        if isinstance(name := item["function"].get("name"), str) and name:
            yield item
    elif isinstance(item.get("name"), str) and item["name"]:
        keys = (
            "parameters",
            "parameters_json_schema",
            "inputSchema",
            "input_schema",
            "args_schema",
            "inputs_json_schema",
        )
        schema = next((found for key in keys if isinstance(found := opened(item.get(key)), dict)), None)
        about = string(item.get("description"))
        yield {
            "type": "function",
            "function": {"name": item["name"]}
            | ({"description": about} if about else {})
            | ({"parameters": schema} if schema is not None else {}),
        }


def _spoken(said: str, role: str) -> list[Message]:
    """Text, or the turns of a transcript (`user: ...` at the start of lines), as some exporters flatten messages."""
    if role != "user" or _SPOKEN.match(said) is None:
        return [Message(role, said)]
    pieces = _SPOKEN.split(said)[1:]
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return [Message(who, None if (what := spoken.rstrip("\n")) == "None" else what) for who, spoken in turns]


def _messages(value: Any, role: str, depth: int) -> _Found:
    value = opened(value)
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for item in value:
            inner = opened(item)
            if isinstance(inner, (dict, list)):
                yield from _messages(inner, role, depth + 1)
    elif isinstance(value, dict):
        yield from _entry(value, role, depth)


def _entry(value: Mapping[str, Any], role: str, depth: int) -> _Found:
    """One message or item; else what the object wraps."""
    kind = string(value.get("type"))
    if is_langchain(value) and "role" not in value:
        found = langchain_message(value)
        yield from [found] if found is not None else []
    elif kind in _CALL_ITEMS or kind in _RESULT_ITEMS or kind == "reasoning":
        yield from _item(value, kind)
    elif "toolCallId" in value or ("toolName" in value and "type" not in value):
        done = "result" in value or "output" in value
        yield typed_result(value) if done else _Piece(Message("assistant", tool_calls=(typed_call(value),)))
    elif isinstance(value.get("parts"), list):
        yield from _parts(value, role)
    elif isinstance(value.get("role"), str) and (
        "content" in value or "tool_calls" in value or "function_call" in value
    ):
        yield from _chat(value)
    elif isinstance(value.get("toolCalls"), list) and value["toolCalls"]:
        calls = tuple(typed_call(item) for item in value["toolCalls"] if isinstance(item, dict))
        yield Message("assistant", content(value.get("text")), tool_calls=calls)
    else:
        yield from _wrapped(value, role, depth)


def _wrapped(value: Mapping[str, Any], role: str, depth: int) -> _Found:
    prompt = value.get("prompt")
    for key in _WRAPPERS:
        inner = opened(value.get(key))
        if isinstance(inner, (dict, list)) and inner:
            found = list(_messages(inner, role, depth + 1))
            if not found and key == "content" and isinstance(inner, list):
                found = [*block_messages(role, inner)]
            if found:
                yield from found
                return
    if isinstance(prompt, (dict, list)):
        yield from _messages(prompt, role, depth + 1)
        return
    said = next(
        (value[key] for key in ("text", "content", "prompt", "input", "output", "object") if value.get(key)), None
    )
    if isinstance(said, str) and said != "role":  # "role": what one exporter writes where it has no message
        yield Message(role, said)


def _item(value: Mapping[str, Any], kind: str) -> _Found:
    """An item of the Responses API that is no message."""
    if kind in _RESULT_ITEMS:
        yield typed_result({key: value[key] for key in value if key != "id"})
    elif kind in _CALL_ITEMS:
        yield _Piece(Message("assistant", tool_calls=(typed_call(value),)))
    else:
        yield _Piece(block_message("assistant", [value]))


def _parts(value: Mapping[str, Any], role: str) -> Iterator[Message]:
    """Gemini contents, GenAI messages, and pydantic-ai's own (whose parts each have a role)."""
    given = string(value.get("role"))
    parts = [part for part in value["parts"] if isinstance(part, (dict, str))]
    if any("part_kind" in mapping(part) for part in parts):
        yield from _pydantic(parts)
    else:
        yield from block_messages(_SAME_ROLE.get(given or "", given or role), parts)


def _pydantic(parts: list[Any]) -> Iterator[Message]:
    answer: list[Any] = []
    for part in map(mapping, parts):
        kind = string(part.get("part_kind")) or ""
        if kind in _PYDANTIC_ROLES:
            said, named = content_of(part.get("content")), text(part.get("tool_call_id"))
            as_tool = _PYDANTIC_ROLES[kind] == "tool" and (named is not None or kind == "tool-return")
            name = string(part.get("tool_name")) if as_tool else None
            role = _PYDANTIC_ROLES[kind] if as_tool or kind != "retry-prompt" else "user"
            yield Message(
                role, said, tool_call_id=named if as_tool else None, name=name, is_error=kind == "retry-prompt"
            )
        elif kind in ("text", "thinking", "tool-call"):
            answer.append(
                {"type": kind, "text": part.get("content")} if kind != "tool-call" else {"type": kind, **part}
            )
    if answer:
        yield block_message("assistant", answer)


def _chat(value: Mapping[str, Any]) -> _Found:
    role = _SAME_ROLE.get(value["role"].lower(), value["role"].lower())
    inner = opened(value.get("content"))
    if _is_calls(inner):  # a call written as the content of a message of any role
        yield _Piece(Message("assistant", tool_calls=tuple(tool_call(item, "content") for item in inner)))
        return
    listed = value.get("content") if isinstance(value.get("content"), list) else None
    given = inner if isinstance(inner, list) and listed is not None else value.get("content")
    if isinstance(given, dict):
        given = given["parts"] if isinstance(given.get("parts"), list) else json.dumps(given, ensure_ascii=False)
    name, identity = string(value.get("name")), text(value.get("tool_call_id", value.get("toolCallId")))
    if role not in _ROLES:  # some exporters put a tool's name there
        role, name = "tool", name or value["role"]
    if role == "tool" and not _holds_results(given):
        failed = value.get("is_error") is True or value.get("status") == "error"
        yield Message("tool", content_of(given), tool_call_id=identity, name=name, is_error=failed)
        return
    *results, own = block_messages(role, given) or [Message(role)]
    yield from results
    yield _with_fields(own, value, name)


def _with_fields(own: Message, value: Mapping[str, Any], name: str | None) -> Message:
    if own.role == "tool":
        return own
    given = [item for item in listing(value.get("tool_calls")) if isinstance(item, dict)]
    if not given and isinstance(value.get("function_call"), dict):
        given = [value["function_call"]]
    calls = tuple(_call(item) for item in given) or own.tool_calls
    reasoning = own.reasoning or string(value.get("reasoning_content")) or string(value.get("reasoning"))
    return Message(own.role, own.content, reasoning, calls, name=name)


def _call(item: Mapping[str, Any]) -> Any:
    return (
        flat_call(item.get("id"), item.get("name"), item["args"]) if "args" in item else tool_call(item, "tool_calls")
    )


def _is_calls(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(
        mapping(item).get("type") == "function" and "arguments" in mapping(item.get("function")) for item in value
    )


def _holds_results(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return any(
        string(mapping(part).get("type")) in ("tool-result", "tool_result", "tool_call_response") for part in value
    )


def _joined(found: list[Message | _Piece]) -> Iterator[Message]:
    """Pieces joined with the assistant message, or the pieces, beside them."""
    held: Message | _Piece | None = None
    for item in found:
        if held is None or not (isinstance(held, _Piece) or isinstance(item, _Piece)):
            joined = None
        else:
            joined = _join(_bare(held), _bare(item))
        if joined is not None:
            held = _Piece(joined)
            continue
        if held is not None:
            yield _bare(held)
        held = item
    if held is not None:
        yield _bare(held)


def _bare(item: Message | _Piece) -> Message:
    return item.message if isinstance(item, _Piece) else item


def _join(first: Message, second: Message) -> Message | None:
    """Both as one message; None when they are two: another role spoke, or text came where there is text already."""
    if first.role != "assistant" or second.role != "assistant":
        return None
    if second.content is not None and (first.content is not None or first.tool_calls):
        return None
    return Message(
        "assistant",
        first.content if second.content is None else second.content,
        "\n".join(part for part in (first.reasoning, second.reasoning) if part) or None,
        first.tool_calls + second.tool_calls,
        name=first.name or second.name,
    )
