"""A logged chat kept as it was read: its messages become records when somebody looks, and go to the archive unbuilt.

Most of what is ingested is stored and never looked at, so the ingest of chat logs stands or falls with not building a
record for every message. Each message's canonical text is stored once; the raw record is put together from the
messages and the rest of it (column `raw_layout`: "messages").
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import msgspec

from .arguments import call_arguments
from .canonical import canonical_bytes
from .codec import steps_from_messages
from .conversation import hash_of
from .exact_json import message_from_json
from .records import Message, Step, Trajectory
from .replayability import Answers

_PLAIN = frozenset(("role", "content", "tool_calls", "tool_call_id", "name"))
_CALL = frozenset(("id", "type", "function"))
_SPECIAL = ("function_call", "reasoning_content", "reasoning", "usage", "cost", "requestor", "is_error")
"""Keys that, with a value, make a message more than plain: such logs take the way over records."""
_ENCODE = msgspec.json.Encoder(order="sorted").encode
_DECODE = msgspec.json.Decoder().decode
Item = TypeVar("Item")
_SHORT = 400  # characters: nothing shorter is nested over 200 levels


class NotPlainError(Exception):
    """The chat has something that only the way over records understands, or is none."""


class ChatLog:
    """The messages of one plain chat, and what there is to know of them without building records.

    `texts` are the messages' canonical texts; `starts` the places of the assistant's; `said` the text of each of these,
    `tools` the names of the tools it calls, comma separated. The decoded messages are not kept: memory that is written
    to costs more than decoding what somebody looks at. Raises NotPlainError.
    """

    __slots__ = (
        *("answers", "conversation", "said", "starts", "system", "texts", "tool_results", "tools", "user_text"),
        *("_prompt", "_steps"),
    )

    def __init__(self, messages: list[Any]):
        self.starts: list[int] = []
        self.said: list[str] = []
        self.tools: list[str] = []
        self.system = False
        self.user_text: str | None = None
        """What the first message of the user in the prompt says."""
        self.tool_results = 0
        self.answers = Answers()
        self._prompt: tuple[Message, ...] | None = None
        self._steps: tuple[Step, ...] | None = None
        parts = self._walk(messages)
        self.conversation = hash_of(parts) if self.starts else None
        """As `conversation.conversation_id` of the trajectory."""
        self.texts: list[bytes] = list(map(_ENCODE, messages))

    def _walk(self, messages: list[Any]) -> list[str]:
        """Look at every message once; the parts of the conversation's hash."""
        asked: list[str | None] = []
        answered: list[str | None] = []
        parts: list[str] = []
        for place, message in enumerate(messages):
            role, text = _role_and_text(message)
            if role == "system" or role == "developer":
                self.system = self.system or not self.starts
                continue
            parts += (role, text)
            if role == "assistant":
                if self.starts:
                    self.answers.step(asked, answered)
                self.starts.append(place)
                self.said.append(text)
                calls = message.get("tool_calls")
                asked, answered = self._calls(calls, parts) if calls else [], []
                if not calls:
                    self.tools.append("")
            elif role == "tool":
                self.tool_results += 1
                answered.append(message.get("tool_call_id"))
            elif self.user_text is None and role == "user" and not self.starts:
                self.user_text = text
        if self.starts:
            self.answers.step(asked, answered)
        return parts

    def _calls(self, calls: Any, parts: list[str]) -> list[str | None]:
        """The ids of an action's calls."""
        if type(calls) is not list:
            raise NotPlainError
        names, ids = [], []
        for call in calls:
            identity, name, raw = _call(call)
            names.append(name)
            ids.append(identity)
            parsed = _arguments(raw)
            if parsed is None:
                self.answers.unparsed += 1
                parts += (name, raw)
            else:
                parts += (name, _ENCODE(parsed).decode())
        self.tools.append(",".join(names))
        return ids

    def counts(self, rewards: int) -> dict[str, int]:
        """By the definitions of `traces/count.py`."""
        return {
            "messages": len(self.texts),
            "assistant_turns": len(self.starts),
            "tool_calls": self.answers.calls,
            "tool_results": self.tool_results,
            "rewards": rewards,
        }

    @property
    def prompt_texts(self) -> list[bytes]:
        """The messages before the first of the assistant."""
        return self.texts[: self.starts[0]] if self.starts else self.texts

    def prompt_text(self) -> str:
        """The prompt as a JSON list."""
        return _listed(self.prompt_texts).decode()

    def step_texts(self) -> Iterator[tuple[str, str, bytes, bytes]]:
        """Of each step: what is said, names of tools, the action and the observations as JSON."""
        ends = [*self.starts[1:], len(self.texts)] if self.starts else []
        for start, end, said, tools in zip(self.starts, ends, self.said, self.tools, strict=True):
            yield said, tools, self.texts[start], _listed(self.texts[start + 1 : end])

    def canonical(self) -> bytes:
        """The canonical text of the list of messages."""
        return b"[" + b",".join(self.texts) + b"]"

    def prompt_records(self) -> tuple[Message, ...]:
        """The prompt."""
        if self._prompt is None:
            self._prompt = tuple(map(_record, self.prompt_texts))
        return self._prompt

    def step_records(self) -> tuple[Step, ...]:
        """The steps."""
        if self._steps is None:
            texts = self.texts[self.starts[0] :] if self.starts else []
            self._steps = steps_from_messages(list(map(_record, texts)))[1]
        return self._steps


def _record(text: bytes) -> Message:
    return message_from_json(_DECODE(text))


def _listed(texts: list[bytes]) -> bytes:
    return b"[" + b",".join(texts) + b"]"


def _role_and_text(message: Any) -> tuple[str, str]:
    if type(message) is not dict:
        raise NotPlainError
    role, text = message.get("role"), message.get("content")
    if type(role) is not str or not (text is None or type(text) is str) or role == "function":
        raise NotPlainError
    if len(message) > 2 or text is None:
        _check(message, role)
    return role, text or ""


def _check(message: dict[str, Any], role: str) -> None:
    """What stands beside role and content."""
    if not message.keys() <= _PLAIN:
        _check_others(message)
    identity, name = message.get("tool_call_id"), message.get("name")
    if not (identity is None or type(identity) is str) or not (name is None or type(name) is str):
        raise NotPlainError
    if role != "assistant" and message.get("tool_calls"):
        raise NotPlainError


def _check_others(message: dict[str, Any]) -> None:
    if any(message.get(key) is not None for key in _SPECIAL):
        raise NotPlainError
    if any(type(message[key]) in (dict, list) for key in message.keys() - _PLAIN):
        raise NotPlainError  # what is nested has to be looked through


def _call(call: Any) -> tuple[str | None, str, str]:
    """Id, name and arguments as text."""
    function = call.get("function") if type(call) is dict else None
    if type(function) is not dict or len(function) > 2 or not call.keys() <= _CALL:
        raise NotPlainError
    identity, name, raw = call.get("id"), function.get("name"), function.get("arguments")
    if type(name) is not str or type(raw) is not str or not (identity is None or type(identity) is str):
        raise NotPlainError
    return identity, name, raw


def _arguments(raw: str) -> Any:
    """As `call_arguments`; the common case at once."""
    if len(raw) > _SHORT or not raw:
        return call_arguments(raw)
    try:
        parsed = _DECODE(raw)
    except (msgspec.MsgspecError, UnicodeError):
        return call_arguments(raw)
    return parsed if type(parsed) is dict else None


class _Lazy(Sequence[Item]):
    """A tuple that is made when somebody looks into it."""

    __slots__ = ("chat",)

    def __init__(self, chat: ChatLog):
        self.chat = chat

    @abstractmethod
    def made(self) -> tuple[Item, ...]:
        """The tuple."""

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, place: int | slice) -> Item | tuple[Item, ...]:
        return self.made()[place]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.made())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (tuple, _Lazy)) and self.made() == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.made())


class LoggedPrompt(_Lazy[Message]):
    """The messages before the first action."""

    __slots__ = ()

    def made(self) -> tuple[Message, ...]:
        """The tuple."""
        return self.chat.prompt_records()

    def __len__(self) -> int:
        return len(self.chat.prompt_texts)


class LoggedSteps(_Lazy[Step]):
    """The steps. `rest` is the canonical raw record without its messages."""

    __slots__ = ("rest",)

    def __init__(self, chat: ChatLog, rest: str):
        super().__init__(chat)
        self.rest = rest

    def made(self) -> tuple[Step, ...]:
        """The tuple."""
        return self.chat.step_records()

    def __len__(self) -> int:
        return len(self.chat.starts)


def record_bytes(trajectory: Trajectory) -> int:
    """The size of a trajectory's record, about."""
    steps, source = trajectory.steps, trajectory.source
    if isinstance(steps, LoggedSteps):
        return len(steps.rest) + sum(map(len, steps.chat.texts))
    return len(source.raw or "") if source is not None else 0


def raw_record(trajectory: Trajectory) -> str | None:
    """The canonical text of a trajectory's record, put together where it is kept in parts; None when not loaded."""
    steps, source = trajectory.steps, trajectory.source
    if isinstance(steps, LoggedSteps):
        return whole_record(steps.rest, steps.chat.canonical().decode())
    return None if source is None else source.raw


def whole_record(rest: str, messages: str) -> str:
    """The canonical text of a record from that of its messages and that of the rest."""
    both = {**_DECODE(rest), "messages": msgspec.Raw(messages.encode())}
    return canonical_bytes(both).decode()
