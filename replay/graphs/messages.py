"""Messages of the house as LangChain's, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...storage.readers.langchain_messages import langchain_message, langchain_usage
from ...storage.records import Message, Usage
from ..policies.wire import wire_messages

GIVEN = "ttc-given-"
"""How the ids of messages begin that were put into a graph; what a graph says itself has other ids, or none."""


def to_langchain(messages: Sequence[Message]) -> list[Any]:
    """LangChain messages as a strict provider wants them (see `wire_messages`), with ids that depend on nothing else.

    A tool result that is an error has `status="error"`.
    """
    from langchain_core.messages import ToolMessage, convert_to_messages

    failed = {message.tool_call_id for message in messages if message.is_error}
    made = convert_to_messages(wire_messages(messages, reasoning=False))
    for position, message in enumerate(made):
        message.id = f"{GIVEN}{position}"
        if isinstance(message, ToolMessage) and message.tool_call_id in failed:
            message.status = "error"
    return list(made)


def from_langchain(message: Any) -> Message:
    """The house's message, read as the LangGraph reader reads it: replayed and recorded ones compare equal."""
    made = langchain_message(message.model_dump())
    if made is None:
        raise TypeError(f"{type(message).__name__} is no message that anybody said")
    return made


def usage_of(message: Any) -> Usage | None:
    """Tokens of one reply, from its `usage_metadata`; None when it says nothing."""
    return langchain_usage(message.model_dump())
