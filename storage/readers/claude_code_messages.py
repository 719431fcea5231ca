"""Claude Code's lines as messages and steps. One answer of the API is on several lines, each with the whole usage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Message
from .anthropic_blocks import THOUGHTS, anthropic_usage, call_of, kind_of, part_of, result_content
from .chat import listing, mapping, number, string, text
from .clock import utc
from .talk import Talk, Turn, simple

Line = Mapping[str, Any]


@dataclass(slots=True)
class Answer:
    """What the lines of one answer of the API say beside the turn itself, while they come in."""

    usage: Any = None
    cost: float | None = None
    session: str | None = None
    uuids: set[str] = field(default_factory=set)
    stop_reason: str | None = None


class Conversation(Talk):
    """A talk whose every turn is one answer of the API. `answers[i]` belongs to `turns[i]`."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Answer] = []

    def begin(self) -> int:
        """Another answer; returns its step."""
        self.close()
        self.turn()
        self.answers.append(Answer())
        return len(self.turns) - 1


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
        step = result.begin() if step is None else step
        if identity:
            by_id[identity] = step
        _add_blocks(result, step, line)
        _add_facts(result.turns[step], result.answers[step], line)
    return result


def _add_blocks(result: Conversation, step: int, line: Line) -> None:
    turn = result.turns[step]
    for block in blocks_of(line):
        if kind_of(block) == "tool_use":
            result.call(call_of(block), turn=step)
        elif kind_of(block) not in THOUGHTS:
            turn.parts.append(part_of(block))
        elif said := string(block.get("thinking")):
            turn.thoughts.append(said)


def _add_facts(turn: Turn, answer: Answer, line: Line) -> None:
    message = line["message"]
    turn.times.append(utc(line.get("timestamp")))
    turn.model = string(message.get("model")) or turn.model
    answer.usage = message.get("usage") or answer.usage  # the last line has the final count
    cost = number(line.get("costUSD"), "costUSD") if not isinstance(line.get("costUSD"), bool) else None
    answer.cost = cost if cost is not None else answer.cost
    turn.usage = anthropic_usage(answer.usage, answer.cost)
    failed = line.get("isApiErrorMessage") is True
    answer.stop_reason = "api_error" if failed else string(message.get("stop_reason")) or answer.stop_reason
    answer.session = answer.session or string(line.get("sessionId"))
    if isinstance(line.get("uuid"), str):
        answer.uuids.add(line["uuid"])


def _add_user(result: Conversation, line: Line) -> None:
    """Results, each by itself, then what the user said."""
    blocks = blocks_of(line)
    results = [block for block in blocks if kind_of(block) == "tool_result"]
    for block in results:
        failed = block.get("is_error") is True
        shown, time = result_content(block.get("content")), utc(line.get("timestamp"))
        result.result(text(block.get("tool_use_id")), shown, time, is_error=failed)
    said = [part_of(block) for block in blocks if kind_of(block) != "tool_result"]
    if said or not results:
        result.hear(Message("user", simple(said)))
