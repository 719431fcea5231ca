"""One namespace of a LangGraph thread: a tree of checkpoints walked once, giving the conversation at each leaf.

A checkpoint holds the whole state; what a step did is what its state has more than its parent's. Messages are told
apart by their id (by content when they have none): a new one is added, one of a known id takes the place of the old
one, and one that later states drop stays, for it was said. The channel that holds them is found by content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..canonical import canonical_json
from ..records import Rejected
from .chat import mapping, string
from .event_tree import MAX_WEIGHT
from .json_text import TOO_LONG, BadRecord, wrong_shape
from .langchain_messages import fields_of, is_langchain, kind_of

Fetch = Callable[[str], Any]
"""A checkpoint id to the library's CheckpointTuple."""
INTERRUPT, ERROR = "__interrupt__", "__error__"
_INTERNAL = ("__", "branch:", "start:", "join:")


@dataclass(slots=True)
class Said:
    """One message of the state, and the times of the checkpoints before it and with it."""

    raw: Mapping[str, Any]
    before: str | None
    since: str | None


@dataclass(slots=True)
class Path:
    """What happened from the root of a tree to one checkpoint. `actions`: how many of the messages are the agent's."""

    said: list[Said] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    acted: dict[str, int] = field(default_factory=dict)
    time: str | None = None
    actions: int = 0
    weight: int = 0

    def copy(self) -> Path:
        """The same, to go another way from here."""
        lists = (self.said[:], dict(self.index), self.checkpoints[:], dict(self.acted))
        return Path(*lists, self.time, self.actions, self.weight)

    def see(self, messages: Sequence[Mapping[str, Any]], time: str | None) -> None:
        """Take in the messages of the next state."""
        seen: dict[str, int] = {}
        for message in messages:
            key = _key(message)
            seen[key] = seen.get(key, 0) + 1
            if not _has_id(message) and seen[key] > 1:
                key = f"{key}#{seen[key]}"  # the same words without an id, said again
            at = self.index.get(key)
            if at is None:
                self.index[key] = len(self.said)
                self.said.append(Said(message, self.time, time))
                self._count(message, 1)
            elif self.said[at].raw != message:
                self._count(self.said[at].raw, -1)
                self.said[at] = Said(message, self.said[at].before, time)
                self._count(message, 1)

    def _count(self, message: Mapping[str, Any], sign: int) -> None:
        self.actions += sign * is_action(message)
        self.weight += sign * _weight(message)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The end of one branch."""

    checkpoint_id: str
    path: Path
    channel: str
    values: Mapping[str, Any]
    pending: Sequence[tuple[str, str, Any]]
    metadata: Mapping[str, Any]


def leaves(parents: Mapping[str, str | None], fetch: Fetch, where: str) -> tuple[list[Leaf], list[Rejected]]:
    """(the leaves of a namespace, the latest first; what could not be read, with what stands behind it).

    Every leaf holds its whole path: branches that would together hold more than `MAX_WEIGHT` of them are refused.
    """
    children: dict[str | None, list[str]] = {}
    for key, parent in parents.items():
        children.setdefault(parent if parent in parents else None, []).append(key)
    found: list[Leaf] = []
    refused: list[Rejected] = []
    channel: str | None = None
    stack = [(key, Path()) for key in children.get(None, ())]
    reached, room = 0, MAX_WEIGHT
    while stack:
        key, path = stack.pop()
        reached += 1
        try:
            state = _State.of(fetch(key))
        except BadRecord as error:
            reached += _size_below(key, children)
            refused.append(Rejected(wrong(error, f"{where}, checkpoint {key}").problem()))
            continue
        channel = channel if channel is not None else state.channel
        _take(path, key, parents[key], state, channel)
        below = children.get(key, ())
        if not below:
            found.append(Leaf(key, path, channel or "", state.values, state.writes, state.metadata))
        kept = below[-(1 + room // path.weight) :]
        room -= path.weight * max(0, len(kept) - 1)
        stack.extend((child, path.copy() if len(kept) > 1 else path) for child in kept)
        for child in below[: len(below) - len(kept)]:
            reached += 1 + _size_below(child, children)
            refused.append(Rejected(_too_many(f"{where}, checkpoint {child}").problem()))
    if reached < len(parents):
        refused.append(Rejected(wrong_shape(f"{where}: {len(parents) - reached} checkpoints in a circle").problem()))
    return sorted(found, key=lambda leaf: leaf.checkpoint_id, reverse=True), refused


def wrong(error: BadRecord, where: str) -> BadRecord:
    """The same error with its place."""
    return BadRecord(error.error_code, f"{where}: {error.message}")


def _too_many(where: str) -> BadRecord:
    return BadRecord(TOO_LONG, f"{where}: more branches than can be read")


def _size_below(key: str, children: Mapping[str | None, Sequence[str]]) -> int:
    size, stack = 0, list(children.get(key, ()))
    while stack:
        size += 1
        stack.extend(children.get(stack.pop(), ()))
    return size


@dataclass(frozen=True, slots=True)
class _State:
    """One checkpoint as data."""

    time: str | None
    values: Mapping[str, Any]
    metadata: Mapping[str, Any]
    writes: Sequence[tuple[str, str, Any]]

    @classmethod
    def of(cls, found: Any) -> _State:
        checkpoint = found.checkpoint if found is not None else None
        if found is None or not isinstance(checkpoint, dict):
            raise wrong_shape("not a checkpoint")
        writes = [(str(task), str(channel), value) for task, channel, value in found.pending_writes or ()]
        values = mapping(checkpoint.get("channel_values"))
        return cls(string(checkpoint.get("ts")), values, mapping(found.metadata), writes)

    @property
    def channel(self) -> str | None:
        """The channel that holds (or, where it stores only changes, is written) the most messages; `messages` first
        among equals.
        """
        held = {name: len(messages_in(self.values[name])) for name in self.values if not name.startswith("__")}
        if not any(held.values()):
            held = {name: len(messages_in(value)) for _, name, value in self.writes if not name.startswith("__")}
        most = max(held.values(), default=0)
        names = sorted((name for name in held if held[name] == most), key=lambda name: (name != "messages", name))
        return names[0] if most else None


def _take(path: Path, key: str, parent: str | None, state: _State, channel: str | None) -> None:
    messages = messages_in(state.values.get(channel)) if channel is not None else []
    if channel is not None and channel not in state.values and path.checkpoints:
        for _, name, value in path.checkpoints[-1]["writes"]:  # a channel that stores only what changed
            messages += messages_in(value) if name == channel else []
    path.see(messages, state.time)
    path.time = state.time
    path.acted[key] = path.actions
    point = {
        "checkpoint_id": key,
        "parent_checkpoint_id": parent,
        "ts": state.time,
        "metadata": state.metadata,
        "writes": [list(write) for write in state.writes],
    }
    path.checkpoints.append(point)
    path.weight += _weight(point)


def _weight(value: Any) -> int:
    """What it costs to hold once more, in a branch: an entry, and each further kilobyte of its text."""
    return 1 + len(str(value)) // 1024


def messages_in(value: Any) -> list[Mapping[str, Any]]:
    """The messages of a channel: a list of nothing else (or one message, as a write holds it)."""
    items = value if isinstance(value, list) else [value]
    return items if all(_is_message(item) for item in items) else []


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if is_langchain(value):
        return True
    return isinstance(value.get("role"), str) and ("content" in value or "tool_calls" in value)


def is_action(value: Mapping[str, Any]) -> bool:
    """Whether a message of the state is the agent's."""
    return value.get("role") == "assistant" or kind_of(value) == "ai"


def _has_id(value: Mapping[str, Any]) -> bool:
    return isinstance(fields_of(value).get("id"), str)


def _key(value: Mapping[str, Any]) -> str:
    identity = fields_of(value).get("id")
    return f"id:{identity}" if isinstance(identity, str) else canonical_json(value)


def state_of(leaf: Leaf) -> dict[str, Any] | None:
    """The other channels of a leaf, without those that LangGraph keeps for itself; None when there are none."""
    kept = {name: leaf.values[name] for name in leaf.values if name != leaf.channel and not name.startswith(_INTERNAL)}
    return kept or None
