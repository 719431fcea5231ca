"""When two logged messages are the same one: a history repeats what earlier calls were given and gave."""

from __future__ import annotations

from collections.abc import Sequence

from ..canonical import canonical_json
from ..records import Message, ToolCall

Likeness = tuple[str, ...]


def likeness(message: Message) -> Likeness:
    """Who said what and called which tools how. Reasoning, ids and white space at the ends do not count: the echo of
    a message in a later input may lack them.
    """
    said: list[str] = [message.role, message.text.strip()]
    for call in message.tool_calls:
        said.append(call.name)
        said.append(arguments_text(call))
    return tuple(said)


def arguments_text(call: ToolCall) -> str:
    """The arguments of a call in one spelling."""
    return canonical_json(call.arguments) if call.arguments is not None else (call.arguments_raw or "")


def common_steps(one: Sequence[Likeness], other: Sequence[Likeness]) -> int:
    """How many steps two conversations begin with in common."""
    steps = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        steps += mine[0] == "assistant"
    return steps
