"""The token ids of a conversation in which a local model said some messages: theirs are the ids it sampled.

Which ids stand for a message depends on what is given here, and on nothing that was said before in this process (as the
memo of `ChatFormat` does): a search that is resumed, or runs at another concurrency, sees the same contexts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...storage.canonical import content_id
from ...storage.codec import messages_to_dicts
from ...storage.records import Message, TokenTrace, ToolSchema
from .chat_tokens import TokenMemo

if TYPE_CHECKING:
    from .chat import ChatFormat

KEPT_CONTEXTS = 256
"""Contexts that are remembered: a node is asked again for more siblings, and each child's context begins with it."""

Traces = Sequence[TokenTrace | None]
Ids = tuple[int, ...]


class ContextEncoder:
    """Encodes conversations with one chat format; safe to call from several threads."""

    def __init__(self, chat: ChatFormat):
        self.chat = chat
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Ids] = OrderedDict()

    def encode(self, messages: Sequence[Message], tools: Sequence[ToolSchema], traces: Traces = ()) -> Ids:
        """The prompt of the next answer. `traces` are of the last assistant messages, in order; without any, texts are
        encoded with what `remember` was told. Raises PolicyFailed where the template refuses the conversation."""
        said = [None if trace is None else trace.ids for trace in traces]
        with self._lock:
            if not any(said):
                return tuple(self.chat.encode(messages, tools))
            key = content_id(messages_to_dicts(messages), [dict(tool) for tool in tools], said)
            if key in self._known:
                self._known.move_to_end(key)
            else:
                self._known[key] = self._with_traces(messages, tools, said)
                if len(self._known) > KEPT_CONTEXTS:
                    self._known.popitem(last=False)
            return self._known[key]

    def remember(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema], action: Message, ids: Sequence[int]
    ) -> None:
        """For conversations that come back as text only: `ids` were read as `action` (see `ChatFormat.remember`)."""
        with self._lock:
            self.chat.remember(messages, tools, action, ids)

    def new_part(self, messages: Sequence[Message], tools: Sequence[ToolSchema], traces: Traces) -> tuple[Ids, int]:
        """The context as `TokenTrace` keeps it: its ids behind the first `shared`, and that number."""
        context = self.encode(messages, tools, traces)
        last = traces[-1] if traces else None
        if last is None or last.prompt is None:
            return context, 0
        place = max(index for index, message in enumerate(messages) if message.role == "assistant")
        before = (*self.encode(messages[:place], tools, traces[:-1]), *last.ids)
        shared = next((i for i, (a, b) in enumerate(zip(before, context, strict=False)) if a != b), None)
        shared = min(len(before), len(context)) if shared is None else shared
        return context[shared:], shared

    def _with_traces(self, messages: Sequence[Message], tools: Sequence[ToolSchema], said: Sequence[Ids | None]) -> Ids:
        """Encode with a memo of its own, which knows these turns only."""
        encoder = self.chat.encoder
        kept, encoder.memo = encoder.memo, TokenMemo()
        try:
            places = [place for place, message in enumerate(messages) if message.role == "assistant"]
            count = min(len(places), len(said))
            for place, ids in zip(places[len(places) - count :], said[len(said) - count :], strict=True):
                if ids:
                    self.chat.remember(messages[:place], tools, messages[place], ids)
            return tuple(self.chat.encode(messages, tools))
        finally:
            encoder.memo = kept
