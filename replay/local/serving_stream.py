"""Server-sent events: the objects of one streamed answer, the text of which goes out while it is sampled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from ...storage.codec import call_to_dict
from ...storage.records import Message
from .chat_calls import END_THINK, THINK
from .serving_answers import answered, refused_from
from .serving_reply import JsonRow, Reply, cut_at
from .serving_request import ChatRequest
from .speaking import Ask, Speaker


class Events:
    """The objects of one stream, while a thread of its own waits for the decode.

    Text goes out as it is sampled, unless calls or log-probabilities are wanted: those need the whole answer.
    """

    def __init__(self, request: ChatRequest, ask: Ask, speaker: Speaker):
        self._request, self._speaker = request, speaker
        self._queue: SimpleQueue[tuple[int, int] | Reply | Exception] = SimpleQueue()
        self._is_cancelled = False
        self._early: list[EarlyText] | None = None
        if not ask.tools and not request.logprobs:
            self._early = [EarlyText(speaker, request.stop) for _ in ask.keys]
        self._ask = ask.heard_by(tuple(self._listener(index) for index in range(len(ask.keys))))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        head = Reply(self._speaker.loaded.name, f"ttc-{self._speaker.loaded.digest[:16]}", (), {})
        for index in range(len(self._ask.keys)):
            yield head.chunk(index, {"role": "assistant", "content": ""})
        threading.Thread(target=self._work, daemon=True).start()
        while True:
            event = self._queue.get()
            if isinstance(event, Exception):
                raise refused_from(event) from event
            if isinstance(event, Reply):
                reply = event.named(head)
                yield from last_chunks(reply, self._early, usage=self._request.include_usage)
                return
            index, token = event
            delta = self._early[index].hear(token) if self._early is not None else None
            if delta is not None:
                yield head.chunk(index, delta)

    def cancel(self) -> None:
        """Nobody listens any more: branches end at their next token."""
        self._is_cancelled = True

    def _listener(self, index: int) -> Callable[[int], bool]:
        def hear(token: int) -> bool:
            if self._early is not None:
                self._queue.put((index, token))
            return not self._is_cancelled

        return hear

    def _work(self) -> None:
        try:
            self._queue.put(answered(self._request, self._ask, self._speaker))
        except Exception as error:  # noqa: BLE001 - raised again by the thread that writes
            self._queue.put(error)


class EarlyText:
    """The deltas of one choice whose text goes out while it is sampled; for answers without calls.

    What may still become a stop text, a reasoning mark or the rest of a character is held back.
    """

    def __init__(self, speaker: Speaker, stops: Sequence[str]):
        self._speaker = speaker
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._sent = {"reasoning_content": "", "content": ""}
        self._held = max((len(stop) for stop in (*self._stops, END_THINK)), default=0)

    def hear(self, token: int) -> JsonRow | None:
        """The delta that one more token brings, if any."""
        self._ids.append(token)
        action, _ = cut_at(self._speaker.chat.decode(self._ids, ()), self._stops)
        reasoning, content = action.reasoning or "", action.text
        if THINK.startswith(content.lstrip()):
            content = ""
        if content:
            return self._delta(reasoning, self._safe(content))
        return self._delta(self._safe(reasoning), "")

    def end(self, action: Message) -> JsonRow | None:
        """What is missing of the whole answer."""
        return self._delta(action.reasoning or "", action.text)

    def _safe(self, text: str) -> str:
        return text[: max(0, len(text) - self._held)].rstrip("\ufffd")

    def _delta(self, reasoning: str, content: str) -> JsonRow | None:
        delta: JsonRow = {}
        for name, text in (("reasoning_content", reasoning), ("content", content)):
            sent = self._sent[name]
            if len(text) > len(sent) and text.startswith(sent):
                delta[name] = text[len(sent) :]
                self._sent[name] = text
        return delta or None


def last_chunks(reply: Reply, early: Sequence[EarlyText] | None, *, usage: bool) -> Iterator[JsonRow]:
    """The chunks after what was sent early: rest of the text, calls, reasons, usage."""
    for choice in reply.choices:
        action, logprobs = choice.action, choice.logprobs
        if early is not None:
            delta = early[choice.index].end(action) or {}
        else:
            delta = {name: text for name in ("reasoning", "content") if (text := getattr(action, name))}
            if "reasoning" in delta:
                delta["reasoning_content"] = delta.pop("reasoning")
        if delta or logprobs:
            yield reply.chunk(choice.index, delta, logprobs=logprobs)
        if action.tool_calls:
            calls = [{"index": place, **call_to_dict(call)} for place, call in enumerate(action.tool_calls)]
            yield reply.chunk(choice.index, {"tool_calls": calls})
        yield reply.chunk(choice.index, {}, choice.finish_reason)
    if usage:
        yield reply.usage_chunk()
