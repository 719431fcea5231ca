"""The messages that one span after another repeats, converted once.

Every call of a model logs the whole conversation before it, so the input of the next span begins with that of the
last, byte for byte in most logs. Only what is behind the common beginning is decoded; the messages before it are the
same objects as before, which also makes comparing two histories cheap.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..canonical import canonical_json
from ..records import Message
from .json_scan import Scanner, beginning
from .json_text import BadRecord, decode
from .otlp_messages import SYSTEM_ROLES, message_of, messages_of

Likeness = tuple[str, ...]
_KEPT = 8  # conversations that may run side by side in one trace


@dataclass(slots=True)
class History:
    """Messages and what makes each the same as another. `cut`: the text they stood in was cut off."""

    messages: list[Message] = field(default_factory=list)
    keys: list[Likeness] = field(default_factory=list)
    cut: bool = False

    def add(self, messages: list[Message]) -> None:
        """Append messages."""
        self.messages.extend(messages)
        self.keys.extend(likeness(message) for message in messages)

    def split(self) -> tuple[History, History]:
        """The system prompt, and what follows it."""
        start = 0
        while start < len(self.messages) and self.messages[start].role in SYSTEM_ROLES:
            start += 1
        return (
            History(self.messages[:start], self.keys[:start]),
            History(self.messages[start:], self.keys[start:], self.cut),
        )


def history(messages: list[Message]) -> History:
    """A history of these messages."""
    made = History()
    made.add(messages)
    return made


def likeness(message: Message) -> Likeness:
    """Who said what and called which tools how. Reasoning, ids and white space at the ends do not count: the echo of
    a message in a later input may lack them.
    """
    said: list[str] = [message.role, message.text.strip()]
    for call in message.tool_calls:
        said.append(call.name)
        said.append((call.arguments_raw or "") if call.arguments is None else canonical_json(call.arguments))
    return tuple(said)


@dataclass(slots=True, eq=False)
class _Seen:
    """A list that was read: its JSON text up to its last bracket, or its values."""

    text: str
    values: list[Any]
    history: History


class Histories:
    """Reads lists of messages, each with what it shares with the last ones."""

    def __init__(self) -> None:
        self._seen: list[_Seen] = []

    def read(self, value: Any, role: str) -> History:
        """The messages of an attribute: JSON text or structured, a list or anything `messages_of` understands."""
        if isinstance(value, str):
            text = value.strip()
            return self._text(text, role) if text[:1] == "[" else history(_parsed(text, role))
        if isinstance(value, list):
            return self.listed(value, lambda item: message_of(item, role))
        return history(messages_of(value, role))

    def _text(self, text: str, role: str) -> History:
        before = next((seen for seen in self._seen if seen.text and _goes_on(seen.text, text)), None)
        try:
            if before is None:
                found = History()
                found.add(_elements(decode(text.encode()), role))
            else:
                rest = text[len(before.text) :].lstrip()
                more = decode(("[" + rest[1:] if rest[0] == "," else "[]").encode())
                found = _extended(before.history, _elements(more, role))
        except BadRecord:
            return _salvaged(text, role)
        self._keep(_Seen(text[:-1].rstrip(), [], found), before)
        return found

    def listed(self, values: list[Any], convert: Callable[[Any], list[Message]]) -> History:
        """The messages of a list's elements, as `convert` makes them of each."""
        before = next((seen for seen in self._seen if seen.values and values[: len(seen.values)] == seen.values), None)
        start = 0 if before is None else len(before.values)
        more = [message for value in values[start:] for message in convert(value)]
        found = history(more) if before is None else _extended(before.history, more)
        self._keep(_Seen("", values, found), before)
        return found

    def _keep(self, seen: _Seen, instead: _Seen | None) -> None:
        if instead is not None:
            self._seen.remove(instead)
        self._seen.insert(0, seen)
        del self._seen[_KEPT:]


def _goes_on(text: str, longer: str) -> bool:
    """Whether a list begins with all elements of another, whose text lacks its last bracket."""
    return text != "[" and longer.startswith(text) and longer[len(text) :].lstrip()[:1] in (",", "]")


def _extended(before: History, more: list[Message]) -> History:
    found = History(list(before.messages), list(before.keys))
    found.add(more)
    return found


def _elements(values: Any, role: str) -> list[Message]:
    return [message for value in values for message in message_of(value, role)] if isinstance(values, list) else []


def _parsed(text: str, role: str) -> list[Message]:
    return messages_of(text, role) if text else []


def _salvaged(text: str, role: str) -> History:
    """The beginning of a list that an attribute limit cut; a text that is no list was said by `role`."""
    try:
        values = beginning(Scanner(io.BytesIO(text.encode())))
        clean = json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        values = decode(clean)
    except (BadRecord, ValueError):
        values = None
    found = history(_elements(values, role) or [Message(role, text)])
    found.cut = True
    return found
