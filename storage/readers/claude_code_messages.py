"""Claude Code's lines as messages and steps. One answer of the API is on several lines, each with the whole usage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Message, Step, ToolCall, Usage
from .chat import arguments, content, listing, mapping, number, string, text, whole
from .clock import span, utc
from .media import data_reference, file_part, image_part, reference
from .talk import simple

Line = Mapping[str, Any]
_FILES = {"image": image_part, "document": file_part}


@dataclass(slots=True)
class Turn:
    """One answer of the API while its lines come in."""

    blocks: list[Any] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    next_open: int = 0
    observations: list[Message] = field(default_factory=list)
    times: list[str | None] = field(default_factory=list)
    usage: Any = None
    cost: float | None = None
    model: str | None = None
    session: str | None = None
    uuids: set[str] = field(default_factory=set)
    stop_reason: str | None = None


@dataclass(slots=True)
class Conversation:
    """The messages before the first answer, and the answers with what came back."""

    prompt: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    made: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where each call was made: its step and its place there."""

    def steps(self) -> tuple[Step, ...]:
        """The turns as steps."""
        return tuple(_step(index, turn) for index, turn in enumerate(self.turns))

    def step_of_call(self, identity: str) -> int | None:
        """The step that made a call."""
        return self.made[identity][0] if identity in self.made else None

    def answered(self, identity: str | None) -> ToolCall | None:
        """The call that a result with this id answers; without an id the first one of the last step still open."""
        if identity is not None:
            if identity not in self.made:
                return None
            step, place = self.made[identity]
            self.turns[step].answered.add(place)
            return self.turns[step].calls[place]
        if not self.turns:
            return None
        turn = self.turns[-1]
        while turn.next_open in turn.answered:
            turn.next_open += 1
        if turn.next_open >= len(turn.calls):
            return None
        turn.answered.add(turn.next_open)
        return turn.calls[turn.next_open]


def is_message(line: Line) -> bool:
    """Whether the line holds a message of the conversation."""
    return line.get("type") in ("user", "assistant") and isinstance(line.get("message"), dict)


def message_id(line: Line) -> str | None:
    """The API's id of the answer that an assistant line is part of."""
    return text(line["message"].get("id")) if line.get("type") == "assistant" and is_message(line) else None


def blocks_of(line: Line) -> Sequence[Any]:
    """The content blocks of a line; text by itself is one block."""
    given = mapping(line.get("message")).get("content")
    if isinstance(given, str):
        return ({"type": "text", "text": given},)
    return listing(given)


def blocks_of_type(line: Line, kind: str) -> list[Mapping[str, Any]]:
    """The content blocks of one type."""
    return [block for block in blocks_of(line) if isinstance(block, dict) and block.get("type") == kind]


def conversation(lines: Iterable[Line]) -> Conversation:
    """Put lines of one thread together, in their order."""
    result = Conversation()
    by_id: dict[str, int] = {}
    for line in lines:
        if not is_message(line):
            continue
        if line["type"] == "user":
            _add_user(result, line)
            continue
        identity = message_id(line)
        step = by_id.get(identity) if identity else None
        if step is None:
            step = len(result.turns)
            result.turns.append(Turn())
        if identity:
            by_id[identity] = step
        _add_answer(result, step, line)
    return result


def _add_answer(result: Conversation, step: int, line: Line) -> None:
    turn, message = result.turns[step], line["message"]
    turn.blocks.extend(blocks_of(line))
    for block in blocks_of_type(line, "tool_use"):
        call = _call(block)
        if call.id is not None:
            result.made[call.id] = (step, len(turn.calls))
        turn.calls.append(call)
    turn.times.append(utc(line.get("timestamp")))
    turn.usage = message.get("usage") or turn.usage  # the last line has the final count
    cost = number(line.get("costUSD"), "costUSD") if not isinstance(line.get("costUSD"), bool) else None
    turn.cost = cost if cost is not None else turn.cost
    turn.model = string(message.get("model")) or turn.model
    failed = line.get("isApiErrorMessage") is True
    turn.stop_reason = "api_error" if failed else string(message.get("stop_reason")) or turn.stop_reason
    turn.session = turn.session or string(line.get("sessionId"))
    if isinstance(line.get("uuid"), str):
        turn.uuids.add(line["uuid"])


def _add_user(result: Conversation, line: Line) -> None:
    into = result.turns[-1].observations if result.turns else result.prompt
    results = 0
    said: list[Any] = []
    for block in blocks_of(line):
        if isinstance(block, dict) and block.get("type") == "tool_result":
            into.append(_result(block, result))
            results += 1
        else:
            said.append(block)
    if said or not results:
        into.append(Message("user", simple(parts(said))))
    if results and result.turns:
        result.turns[-1].times.append(utc(line.get("timestamp")))


def _call(block: Mapping[str, Any]) -> ToolCall:
    given = block.get("input")
    identity, name = text(block.get("id")), text(block.get("name")) or ""
    if isinstance(given, dict):
        return ToolCall(identity, name, given)
    raw = str(content(given) or "")
    return ToolCall(identity, name, arguments(raw), raw)


def _result(block: Mapping[str, Any], so_far: Conversation) -> Message:
    identity = text(block.get("tool_use_id"))
    call = so_far.answered(identity)
    given = block.get("content")
    return Message(
        role="tool",
        content=simple(parts(given)) if isinstance(given, list) else content(given),
        tool_call_id=identity or (call.id if call else None),
        name=call.name if call else None,
        is_error=block.get("is_error") is True,
    )


def parts(blocks: Iterable[Any]) -> list[dict[str, Any]]:
    """Content blocks as parts of a message: images and documents are references, unknown ones stay as they are."""
    return [_part(block) for block in blocks]


def _part(block: Any) -> dict[str, Any]:
    if not isinstance(block, dict):
        return {"type": "text", "text": str(content(block) or "")}
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": str(content(block.get("text")) or "")}
    source = block.get("source")
    if isinstance(kind, str) and kind in _FILES and isinstance(source, dict):
        url = data_reference(source["data"]) if "data" in source else reference(source.get("url"))
        return _FILES[kind](url, media_type=string(source.get("media_type")))
    return block


def _step(index: int, turn: Turn) -> Step:
    kept = [block for block in turn.blocks if not isinstance(block, dict) or block.get("type") not in _NO_PARTS]
    thoughts = [str(block["thinking"]) for block in turn.blocks if isinstance(block, dict) and _is_thought(block)]
    action = Message("assistant", simple(parts(kept)), "\n".join(thoughts) or None, tuple(turn.calls))
    started, ended = span(turn.times)
    spent = usage(turn.usage, turn.cost)
    return Step(
        index, action, tuple(turn.observations), usage=spent, started_at=started, ended_at=ended, model=turn.model
    )


_NO_PARTS = ("tool_use", "thinking", "redacted_thinking")


def _is_thought(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "thinking" and isinstance(block.get("thinking"), str)


def usage(value: Any, cost: float | None = None) -> Usage | None:
    """Anthropic's count in ours: what was read from and written to the cache is part of the prompt."""
    given = mapping(value)
    fresh = whole(given.get("input_tokens"))
    read, written = whole(given.get("cache_read_input_tokens")), whole(given.get("cache_creation_input_tokens"))
    prompt = None if fresh is None else fresh + (read or 0) + (written or 0)
    result = Usage(whole(prompt), whole(given.get("output_tokens")), read, cost)
    return None if result == Usage() else result
