"""What makes two logs the same run, whatever their formats: the hash of who said what and which calls were made.

Left out is what formats add or lose: the system prompt, ids, times, reasoning, and the spelling of arguments.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from .canonical import canonical_bytes
from .records import Trajectory

_BETWEEN = "\x1e"


def conversation_id(trajectory: Trajectory) -> str | None:
    """The hash; None for a run without steps, which is like every other."""
    if not trajectory.steps:
        return None
    parts: list[str] = []
    for message in trajectory.messages:
        if message.role not in ("system", "developer"):
            parts += (message.role, message.text)
            for call in message.tool_calls:
                parts += (call.name, arguments_key(call.arguments, call.arguments_raw))
    return hash_of(parts)


def hash_of(parts: list[str]) -> str:
    """The hash of alternating roles, texts, names and arguments."""
    return sha256(_BETWEEN.join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def arguments_key(arguments: Any, raw: str | None) -> str:
    """The spelling of arguments that every format agrees on."""
    return (raw or "") if arguments is None else canonical_bytes(_plain(arguments)).decode()


def _plain(value: Any) -> Any:
    return value if isinstance(value, dict) else dict(value)
