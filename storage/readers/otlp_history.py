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

from ..records import Message
from .chat_shapes import SYSTEM_ROLES
from .json_scan import Scanner, beginning
from .json_text import BadRecord, decode
from .likeness import Likeness, likeness
from .message_shapes import items_of, with_system

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

    def read(self, value: Any) -> History:
        """What went in, by an attribute: a list (JSON text or structured), or whatever `items_of` understands."""
        if isinstance(value, str) and value.lstrip()[:1] == "[":
            return self._text(value.strip())
        if isinstance(value, list):
            return self.listed(value, lambda item: items_of([item]))
        return history(with_system(items_of(value), value)) if value != "" else History()

    def _text(self, text: str) -> History:
        before = next((seen for seen in self._seen if seen.text and _goes_on(seen.text, text)), None)
        try:
            if before is None:
                found = history(items_of(decode(text.encode())))
            else:
                rest = text[len(before.text) :].lstrip()
                more = decode(("[" + rest[1:] if rest[0] == "," else "[]").encode())
                found = _extended(before.history, items_of(more))
        except BadRecord:
            return _salvaged(text)
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


def _salvaged(text: str) -> History:
    """The beginning of a list that an attribute limit cut; a text that is no list was said by the user."""
    try:
        values = beginning(Scanner(io.BytesIO(text.encode())))
        clean = json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        values = decode(clean)
    except (BadRecord, ValueError):
        values = None
    found = history(items_of(values) or [Message("user", text)])
    found.cut = True
    return found
