"""Model calls folded into conversations, for logs that keep each call by itself with the history it was given.

A call continues the conversation whose last answer stands in its history (told by call ids, else by what was said);
only what follows that answer is new. So histories that repeat, or were cut at the front, are stored once. A call that
was given the same history as an earlier one that got an answer is a branch. Anything else begins a conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ..codec import steps_from_messages
from ..records import JsonObject, Message, Score, Step, ToolSchema, Usage
from .chat_shapes import SYSTEM_ROLES
from .likeness import Likeness, arguments_text, likeness

_LATEST = 64
"""Conversations that are looked at for one call, when very many would fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One model call. `scope`: the agent it ran in. `output` None: it failed, or its answer was not logged.

    `goes_on`: the log says that the history continues what the server already had.
    """

    key: str
    scope: str = ""
    history: tuple[Message, ...] = ()
    output: Message | None = None
    tools: tuple[ToolSchema, ...] | None = None
    model: str | None = None
    usage: Usage | None = None
    sampling: JsonObject | None = None
    started_at: str | None = None
    ended_at: str | None = None
    error: str | None = None
    finish: str | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    goes_on: bool = False
    sources: int = 1


@dataclass(slots=True)
class Thread:
    """One conversation. `shared`: how many messages it has in common with `origin`, of which it is a branch."""

    scope: str
    order: int
    messages: list[Message] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    answered: dict[int, Call] = field(default_factory=dict)
    tool_keys: dict[str, int] = field(default_factory=dict)
    origin: Thread | None = None
    shared: int = 0
    noted: int = 0  # messages whose places the fold's index of answers has

    @property
    def last_answer(self) -> int | None:
        """The index of the last assistant message."""
        return next((at for at in range(len(self.messages) - 1, -1, -1) if self.messages[at].role == "assistant"), None)

    @property
    def keys(self) -> list[Likeness]:
        """What each message is told by."""
        return [likeness(message) for message in self.messages]

    @property
    def turns(self) -> int:
        """How many assistant messages it has."""
        return sum(message.role == "assistant" for message in self.messages)

    def step_of(self, at: int) -> int:
        """The number of the step that the message at an index belongs to; -1 in the prompt."""
        return sum(message.role == "assistant" for message in self.messages[: at + 1]) - 1

    def split(self) -> tuple[tuple[Message, ...], tuple[Step, ...]]:
        """Prompt and steps, each step with what is known of its call."""
        prompt, steps = steps_from_messages(self.messages)
        acted = (at for at, message in enumerate(self.messages) if message.role == "assistant")
        return prompt, tuple(_filled(step, self.answered.get(at)) for step, at in zip(steps, acted, strict=True))


def _filled(step: Step, call: Call | None) -> Step:
    if call is None:
        return step
    return replace(
        step,
        usage=call.usage,
        scores=call.scores,
        started_at=call.started_at,
        ended_at=call.ended_at,
        model=call.model,
    )


class Fold:
    """Takes calls in the order of their time; `threads` are the conversations, in the order in which they began."""

    def __init__(self) -> None:
        self.threads: list[Thread] = []
        self._ends: dict[tuple[str, ...], list[Thread]] = {}
        self._open: dict[str, Thread] = {}
        self._failed: dict[int, Thread] = {}  # by their order
        self._asked: dict[tuple[str, int, Likeness | None], list[Thread]] = {}
        """Conversations by agent, number of messages before an answer, and the last of these (None: any)."""

    def take(self, call: Call) -> Thread:
        """The conversation of a call, which it continues or begins."""
        thread = self._continued(call)
        if thread is None:
            thread = self._branched(call) or self._begun(call)
        thread.calls.append(call)
        self._failed.pop(thread.order, None)
        if call.output is None:
            self._failed[thread.order] = thread
        else:
            thread.answered[len(thread.messages)] = call
            thread.messages.append(call.output)
            self._remember(thread, call.output)
        self._note(thread)
        self._open[call.scope] = thread
        return thread

    def _note(self, thread: Thread) -> None:
        """Index the new answers by what they answer."""
        messages = thread.messages
        for at in range(max(thread.noted, 1), len(messages)):
            if messages[at].role == "assistant":
                for last in {_asking(messages[at - 1]), None}:
                    self._asked.setdefault((thread.scope, at, last), []).append(thread)
        thread.noted = len(messages)

    def _remember(self, thread: Thread, answer: Message) -> None:
        for key in answer_keys(answer):
            self._ends.setdefault(key, []).append(thread)

    def _continued(self, call: Call) -> Thread | None:
        for at in range(len(call.history) - 1, -1, -1):
            if call.history[at].role != "assistant":
                continue
            thread = self._ending(call, call.history[at])
            if thread is not None:
                _extend(thread, call.history[_first_of_answer(thread, call.history, at) + 1 :])
                return thread
        for thread in reversed(
            list(islice(reversed(self._failed.values()), _LATEST))
        ):  # tried again, maybe after other calls
            same_size = thread.scope == call.scope and len(thread.messages) == len(call.history)
            if same_size and _begins(call.history, thread.messages):
                return thread
        thread = self._open.get(call.scope)
        if thread is None:
            return None
        size = len(thread.messages)
        if len(call.history) > size and _begins(call.history, thread.messages):
            thread.messages.extend(call.history[size:])  # its last answer failed, or was logged without its calls
            return thread
        only_results = all(message.role == "tool" for message in call.history)
        if call.goes_on or (only_results and thread.last_answer is not None):
            _extend(thread, call.history)  # the server, or the SDK, kept the history
            return thread
        return None

    def _ending(self, call: Call, answer: Message) -> Thread | None:
        """The conversation whose last answer this is: of the same agent, else the one spoken to last."""
        candidates: list[Thread] = []
        for key in answer_keys(answer):
            for thread in reversed(self._ends.get(key, [])[-_LATEST:]):
                last = thread.last_answer
                if last is not None and key in answer_keys(thread.messages[last]) and _fits(thread, call, answer):
                    candidates.append(thread)
            if candidates:
                break
        return next((thread for thread in candidates if thread.scope == call.scope), next(iter(candidates), None))

    def _branched(self, call: Call) -> Thread | None:
        """The same history asked again, though it had an answer: another answer to it."""
        size = len(call.history)
        if not size:
            return None
        for origin in self._answering(call.scope, call.history):
            if _begins(origin.messages, call.history):
                thread = Thread(call.scope, len(self.threads), list(origin.messages[:size]), origin=origin, shared=size)
                thread.answered = {at: origin.answered[at] for at in origin.answered if at < size}
                self.threads.append(thread)
                return thread
        return None

    def _answering(self, scope: str, history: Sequence[Message]) -> list[Thread]:
        """Conversations with an answer to the last message of a history in its place, the latest first."""
        last, size = _asking(history[-1]), len(history)
        found = self._asked.get((scope, size, last), [])[-_LATEST:]
        if last is not None and history[-1].role == "assistant":
            # An answer of which a log kept nothing is like any other.
            latest = self._asked.get((scope, size, None), [])[-_LATEST:]
            found = found + [thread for thread in latest if _hollow(thread.messages[size - 1])]
        return sorted(found, key=lambda thread: -thread.order)

    def _begun(self, call: Call) -> Thread:
        thread = Thread(call.scope, len(self.threads), list(call.history))
        self.threads.append(thread)
        return thread


def _asking(message: Message) -> Likeness | None:
    """What a message before an answer is looked up by; None: like any other answer."""
    return None if message.role == "assistant" and _hollow(message) else likeness(message)[1:]


def answer_keys(answer: Message) -> list[tuple[str, ...]]:
    """What an answer is known by: its calls' ids, then its calls, else its text."""
    calls = answer.tool_calls
    if not calls:
        return [("text", answer.text.strip())] if answer.text.strip() else []
    named = [("id", call.id, call.name) for call in calls if call.id]
    return [*named, ("calls", *sorted(call.name + arguments_text(call) for call in calls))]


def _fits(thread: Thread, call: Call, answer: Message) -> bool:
    """Words or arguments alone may be chance: then the agent must be the same, or the first thing a user said."""
    if any(item.id for item in answer.tool_calls) or thread.scope == call.scope:
        return True
    return first_said(thread.messages) == first_said(call.history)


def first_said(messages: Sequence[Message]) -> str:
    """The text of the first user message."""
    return next((message.text for message in messages if message.role == "user"), "")


def _first_of_answer(thread: Thread, history: Sequence[Message], at: int) -> int:
    """Where an answer begins in a history: some logs spread the calls of one answer over several messages."""
    last = thread.last_answer
    known = {call.id for call in thread.messages[last].tool_calls if call.id} if last is not None else set()
    first = at
    for back in range(at - 1, -1, -1):
        ids = {call.id for call in history[back].tool_calls}
        if history[back].role == "assistant":
            if not ids or not ids <= known:
                break
            first = back
        elif history[back].role != "tool":
            break
    return first


def _extend(thread: Thread, new: Sequence[Message]) -> None:
    last = thread.last_answer
    known = {call.id for call in thread.messages[last].tool_calls if call.id} if last is not None else set()
    behind = thread.messages[last + 1 :] if last is not None else []
    for message in new:
        repeated = (
            message.role == "assistant" and message.tool_calls and {call.id for call in message.tool_calls} <= known
        )
        if not repeated and message not in behind:
            thread.messages.append(message)


def _begins(messages: Sequence[Message], prefix: Sequence[Message]) -> bool:
    if len(messages) < len(prefix):
        return False
    return all(_same(one, other) for one, other in zip(messages, prefix, strict=False))


def _same(one: Message, other: Message) -> bool:
    """Whether both say the same; an answer of which a log kept nothing is like any other."""
    if one.role == other.role == "assistant" and (_hollow(one) or _hollow(other)):
        return True
    same_role = one.role == other.role or {one.role, other.role} == set(SYSTEM_ROLES)
    return same_role and likeness(one)[1:] == likeness(other)[1:]


def _hollow(message: Message) -> bool:
    return not message.tool_calls and not message.text.strip()
