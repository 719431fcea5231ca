"""Records to the messages trainers take: dict arguments, text content, one system message, every call answered.

What cannot be written so is not bent into shape: `Unrenderable` carries the reason, the row is dropped and counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Message, ToolCall, ToolSchema

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_ROLES["function"] = "tool"
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_LARGEST_INTEGER = 2**63 - 1

CONTROL_TOKENS = re.compile(
    r"<\|[\w./:-]{1,64}\|?>|<[\w./:-]{1,64}\|>"  # <|im_end|> and its like, <|turn> and <turn|>
    r"|<｜[^<>｜]{1,64}｜>"
    r"|</?(?:tool_call|tool_calls|tool_response|tools|function_calls|start_of_turn|end_of_turn)>"
    r"|</?s>|<(?:bos|eos|pad|unk)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\]"
)
"""Text that a chat template or a tokenizer would read as structure."""


class Unrenderable(Exception):
    """The messages cannot be a row; `reason` is what the report counts."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def masker(redact: bool) -> Callable[[str], str]:
    """The function that every exported text passes: secrets masked, or nothing when `redact` is off."""
    if not redact:
        return lambda text: text
    from ..redact import mask

    found: Callable[[str], str] = mask
    return found


def escape(text: str) -> str:
    """Break control tokens with a backslash after their first character: they stay readable and mean nothing."""
    return CONTROL_TOKENS.sub(lambda found: f"{found[0][0]}\\{found[0][1:]}", text)


def well_formed(text: str) -> str:
    """Surrogate pairs joined, lone surrogates replaced by U+FFFD: JSON readers drop or refuse them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def plain(value: Any, text: Callable[[str], str]) -> Any:
    """JSON with every string passed through `text`. Raises Unrenderable for what readers would change silently."""
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST_INTEGER:
            raise Unrenderable("integer_too_large")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unrenderable("not_json")
        return value
    if isinstance(value, Mapping):
        return {text(str(key)): plain(item, text) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item, text) for item in value]
    raise Unrenderable("not_json")


@dataclass(slots=True)
class Renderer:
    """Renders the conversations of one trajectory. `tools` are its schemas; texts are cleaned once and remembered."""

    schemas: Sequence[ToolSchema] | None
    mask: Callable[[str], str]
    tools: list[dict[str, Any]] = field(init=False)
    _known: frozenset[str] = field(init=False)
    _cleaned: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.tools = [self._tool(schema) for schema in self.schemas or ()]
        self._known = frozenset(str(tool["function"].get("name")) for tool in self.tools)

    def conversation(
        self, context: Sequence[Message], trained: Sequence[Message], *, wanted: bool = True
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """`context` and `trained` as messages; the assistant's messages in `trained` must be fit for the loss.

        A rejected message is not `wanted`: it may call a tool that does not exist. Raises Unrenderable.
        """
        thread = _Thread()
        for message in context:
            self._add(thread, message)
        before = len(thread.messages)
        if before == 0:
            raise Unrenderable("empty_prompt")
        for message in trained:
            if message.role == "assistant":
                self._check_learned(message, wanted)
            self._add(thread, message)
        answer = thread.messages[before:]
        if not answer or answer[0]["role"] != "assistant":
            raise Unrenderable("empty_continuation")
        if not self.tools and any("tool_calls" in message for message in thread.messages):
            raise Unrenderable("no_tool_schema")
        return thread.messages[:before], answer

    def _add(self, thread: _Thread, message: Message) -> None:
        if message.requestor == "user" and message.role != "assistant":
            return  # the agent never saw what the user's side did with its own tools
        role = _ROLES.get(message.role)
        if role is None:
            raise Unrenderable("unknown_role")
        if role == "assistant":
            self._add_action(thread, message)
        elif role == "tool":
            thread.answer(message, self.text(_text(message)))
        else:
            thread.say(role, self.text(_text(message)))

    def _add_action(self, thread: _Thread, message: Message) -> None:
        row: dict[str, Any] = {"role": "assistant", "content": self.text(_text(message))}
        if message.reasoning:
            row["reasoning_content"] = self.text(message.reasoning)
        functions = [{"name": self.text(call.name), "arguments": self._arguments(call)} for call in message.tool_calls]
        thread.act(row, message.tool_calls, functions)

    def _check_learned(self, message: Message, wanted: bool) -> None:
        if not (_text(message).strip() or message.tool_calls):
            raise Unrenderable("empty_message")
        if wanted and self.tools and any(self.text(call.name) not in self._known for call in message.tool_calls):
            raise Unrenderable("unknown_tool")

        def refuse(text: str) -> str:
            if CONTROL_TOKENS.search(text):
                raise Unrenderable("control_tokens")
            return text

        refuse(_text(message))
        refuse(message.reasoning or "")
        for call in message.tool_calls:
            plain(call.arguments, refuse)

    def _arguments(self, call: ToolCall) -> dict[str, Any]:
        if call.arguments is None:
            raise Unrenderable("unparsed_arguments")
        arguments: dict[str, Any] = plain(call.arguments, self.text)
        return arguments

    def _tool(self, schema: ToolSchema) -> dict[str, Any]:
        function = schema.get("function")
        flat = {key: value for key, value in schema.items() if key != "type"}
        return {"type": "function", "function": plain(function if isinstance(function, Mapping) else flat, self.text)}

    def text(self, text: str) -> str:
        """Well-formed, masked, escaped."""
        cleaned = self._cleaned.get(text)
        if cleaned is None:
            cleaned = self._cleaned[text] = escape(self.mask(well_formed(text)))
        return cleaned


class _Thread:
    """Messages in the making, with the calls that wait for their result."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._open: list[tuple[str | None, str, str]] = []
        self._used: set[str] = set()

    def say(self, role: str, text: str) -> None:
        """A system or user message. Raises Unrenderable."""
        if self._open:
            raise Unrenderable("unanswered_call")
        if role != "system" or not self.messages:
            self.messages.append({"role": role, "content": text})
        elif len(self.messages) == 1 and self.messages[0]["role"] == "system":
            self.messages[0] = {"role": role, "content": f"{self.messages[0]['content']}\n\n{text}"}
        else:
            raise Unrenderable("late_system_message")  # several templates refuse it, others drop it

    def act(self, row: dict[str, Any], calls: Sequence[ToolCall], functions: Sequence[Mapping[str, Any]]) -> None:
        """An assistant message. Raises Unrenderable."""
        if self._open:
            raise Unrenderable("unanswered_call")
        written = []
        for call, function in zip(calls, functions, strict=True):
            name = self._name_for(call.id)
            self._open.append((call.id, name, str(function["name"])))
            written.append({"id": name, "type": "function", "function": function})
        self.messages.append({**row, "tool_calls": written} if written else row)

    def answer(self, message: Message, text: str) -> None:
        """A tool result, paired by id, else in order. Raises Unrenderable."""
        wanted = message.tool_call_id
        fits = [item for item in self._open if wanted is None or item[0] is None or item[0] == wanted]
        exact = [item for item in fits if wanted is not None and item[0] == wanted]
        if not fits:
            raise Unrenderable("orphan_tool_result")
        found = (exact or fits)[0]
        self._open.remove(found)
        self.messages.append({"role": "tool", "tool_call_id": found[1], "name": found[2], "content": text})

    def _name_for(self, given: str | None) -> str:
        """The logged id, or a fresh one where it is missing or taken: stitched branches repeat ids."""
        name, number = given, len(self._used)
        while name is None or name in self._used:
            name, number = f"call_{number}", number + 1
        self._used.add(name)
        return name


def _text(message: Message) -> str:
    if message.content is not None and not isinstance(message.content, str):
        for part in message.content:
            if part.get("type", "text") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
                raise Unrenderable("non_text_content")
    return message.text
