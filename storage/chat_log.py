"""A logged chat kept as it was read: its messages become records when somebody looks, and go to the archive unbuilt.

Most of what is ingested is stored and never looked at, so the ingest of chat logs stands or falls with not building a
record for every message. A chat is cut into pages: canonical texts of messages, comma separated. The first page is the
prompt, every other begins with an action. The raw record is put together from the pages and the rest of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar, overload

import msgspec
from msgspec import UNSET, UnsetType

from .arguments import call_arguments
from .canonical import canonical_bytes
from .codec import EXAMPLE_ASSISTANT, steps_from_messages
from .conversation import hash_of
from .exact_json import message_from_json
from .records import Message, Step, Trajectory
from .replayability import Answers

PAGE_BYTES = 2048
"""About how long a page is at least. Longer ones are written faster; shorter ones find one trajectory faster, because
the database unpacks 2,048 of them to read one."""
ON_PAGES = "pages"
"""`raw_layout` of a trajectory whose messages are on pages."""
PROMPT = -1
"""The position of the page before the first step."""

_DECODE = msgspec.json.Decoder().decode
_KEYS_BYTES = 64  # of a message, about
_SHORT = 400  # characters: nothing shorter is nested over 200 levels
Item = TypeVar("Item")
Text: TypeAlias = str | UnsetType | None
Nothing: TypeAlias = UnsetType | None


class _Function(msgspec.Struct, gc=False):
    """Fields stand in the order of the alphabet, here and below: encoded they are canonical text."""

    arguments: str
    name: str


class _Call(msgspec.Struct, gc=False):
    function: _Function
    id: Text = UNSET
    type: Text = UNSET


class _Plain(msgspec.Struct, gc=False, kw_only=True):
    """A message that needs no more than this. What others have besides, and keys that stand twice, are missed by the
    count of colons (`json_text.has_all_keys`)."""

    annotations: Nothing = UNSET
    audio: Nothing = UNSET
    content: Text = UNSET
    function_call: Nothing = UNSET
    name: Text = UNSET
    reasoning: Nothing = UNSET
    reasoning_content: Nothing = UNSET
    refusal: Text = UNSET
    role: str
    tool_call_id: Text = UNSET
    tool_calls: list[_Call] | UnsetType | None = UNSET


_PLAIN = msgspec.json.Decoder(list[_Plain]).decode
_ENCODE = msgspec.json.Encoder().encode
_ENCODE_SORTED = msgspec.json.Encoder(order="sorted").encode


class NotPlainError(Exception):
    """The chat has something that only the way over records understands, or is none."""


class ChatLog:
    """The messages of one plain chat, and what there is to know of them without building records.

    `pages`: positions of first steps, and texts. The decoded messages are not kept: memory that is written to costs
    more than decoding what somebody looks at. Raises NotPlainError.
    """

    __slots__ = (
        *("answers", "conversation", "messages", "pages", "steps", "system", "tool_results", "user_text"),
        *("_answered", "_asked", "_cuts", "_parts", "_records", "_size"),
    )

    def __init__(self, messages: msgspec.Raw):
        self.steps = self.tool_results = 0
        self.system = False
        self.user_text: str | None = None
        """What the first message of the user in the prompt says."""
        self.answers = Answers()
        self._asked: list[str | None] = []
        self._answered: list[str | None] = []
        self._parts: list[str] = []  # of the conversation's hash
        self._cuts = [(0, PROMPT)]  # first messages and first steps of the pages
        self._size = 0  # of the page so far
        self._records: tuple[tuple[Message, ...], tuple[Step, ...]] | None = None
        plain = _decoded(messages)
        self._walk(plain)
        self.conversation = hash_of(self._parts) if self.steps else None
        """As `conversation.conversation_id` of the trajectory."""
        self.messages = len(plain)
        self.pages = list(_pages(plain, self._cuts))
        self._parts = []

    def _walk(self, messages: list[_Plain]) -> None:
        """Look at every message once."""
        said = self._parts.append
        size = 0
        for place, message in enumerate(messages):
            role, text = message.role, message.content or ""
            if role == "assistant":
                if message.name == EXAMPLE_ASSISTANT:
                    raise NotPlainError
                self._size += size
                size = 0
                self._act(place)
            elif message.tool_calls or role == "function":
                raise NotPlainError
            elif role == "tool":
                self.tool_results += 1
                if self.steps:
                    self._answered.append(None if message.tool_call_id is UNSET else message.tool_call_id)
            elif role == "system" or role == "developer":
                self.system = self.system or not self.steps
                size += len(text)
                continue
            elif self.user_text is None and role == "user" and not self.steps:
                self.user_text = text
            said(role)
            said(text)
            size += len(text) + _KEYS_BYTES
            if role == "assistant" and message.tool_calls:
                self._call(message.tool_calls)
        self._settle()

    def _act(self, place: int) -> None:
        """A step begins, and a page where the one before is long enough."""
        if not self.steps or self._size >= PAGE_BYTES:
            self._cuts.append((place, self.steps))
            self._size = 0
        if self._asked or self._answered:
            self._settle()
        self.steps += 1

    def _settle(self) -> None:
        """Match the results of the step that ends to its calls."""
        self.answers.step(self._asked, self._answered)
        self._asked, self._answered = [], []

    def _call(self, calls: list[_Call]) -> None:
        for call in calls:
            name, raw = call.function.name, call.function.arguments
            parsed = _arguments(raw)
            self._asked.append(None if call.id is UNSET else call.id)
            self._parts.append(name)
            self._parts.append(raw if parsed is None else _ENCODE_SORTED(parsed).decode())
            self.answers.unparsed += parsed is None
            self._size += len(raw) + _KEYS_BYTES

    def counts(self, rewards: int) -> dict[str, int]:
        """By the definitions of `traces/count.py`."""
        return {
            "messages": self.messages,
            "assistant_turns": self.steps,
            "tool_calls": self.answers.calls,
            "tool_results": self.tool_results,
            "rewards": rewards,
        }

    def canonical(self) -> bytes:
        """The canonical text of the list of messages."""
        return joined(text for _, text in self.pages)

    def records(self) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
        """Prompt and steps."""
        if self._records is None:
            self._records = records_of(self.canonical())
        return self._records


def built(trajectory: Trajectory) -> Trajectory:
    """The same with everything built, as readers of other formats give it."""
    source = trajectory.source
    if not isinstance(trajectory.steps, LoggedSteps) or source is None:
        return trajectory
    prompt, steps = trajectory.steps.chat.records()
    return replace(trajectory, prompt=prompt, steps=steps, source=replace(source, raw=raw_record(trajectory)))


def joined(pages: Iterable[bytes]) -> bytes:
    """The list of messages on all pages, in order."""
    return b"[" + b",".join(filter(None, pages)) + b"]"


def records_of(messages: bytes) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
    """Prompt and steps of a canonical list of messages."""
    return steps_from_messages(list(map(message_from_json, _DECODE(messages))))


def _decoded(messages: msgspec.Raw) -> list[_Plain]:
    try:
        return _PLAIN(messages)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotPlainError from error


def _pages(messages: list[_Plain], cuts: list[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Position and text of each page; a prompt without messages is none."""
    ends = [start for start, _ in cuts[1:]] + [len(messages)]
    for (start, position), end in zip(cuts, ends, strict=True):
        if end > start:
            yield position, _ENCODE(messages[start:end])[1:-1]


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
        return self.chat.records()[0]

    def __len__(self) -> int:
        return len(self.made())


class LoggedSteps(_Lazy[Step]):
    """The steps. `rest` is the canonical raw record without its messages."""

    __slots__ = ("rest",)

    def __init__(self, chat: ChatLog, rest: str):
        super().__init__(chat)
        self.rest = rest

    def made(self) -> tuple[Step, ...]:
        """The tuple."""
        return self.chat.records()[1]

    def __len__(self) -> int:
        return self.chat.steps


def record_bytes(trajectory: Trajectory) -> int:
    """The size of a trajectory's record, about."""
    steps, source = trajectory.steps, trajectory.source
    if isinstance(steps, LoggedSteps):
        return len(steps.rest) + sum(len(text) for _, text in steps.chat.pages)
    return len(source.raw or "") if source is not None else 0


def raw_record(trajectory: Trajectory) -> str | None:
    """The canonical text of a trajectory's record, put together where it is kept in parts; None when not loaded."""
    steps, source = trajectory.steps, trajectory.source
    if isinstance(steps, LoggedSteps):
        return whole_record(steps.rest, steps.chat.canonical())
    return None if source is None else source.raw


def whole_record(rest: str, messages: bytes) -> str:
    """The canonical text of a record from that of its messages and that of the rest."""
    return canonical_bytes({**_DECODE(rest), "messages": msgspec.Raw(messages)}).decode()
