"""What `codex exec --json` prints: threads of turns, whose items begin, change and end. It does not hold the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..records import ToolCall
from .chat import content, listing, mapping, string, text
from .codex_items import Item, usage
from .talk import Content, Talk, text_part

_CALLS = ("command_execution", "file_change", "mcp_tool_call", "web_search", "collab_tool_call")
_EVENTS = ("thread.started", "turn.started", "turn.completed", "turn.failed")
_BEGUN = ("in_progress", None)


def is_event(row: Item) -> bool:
    """Whether the object is a line of this kind."""
    kind = row.get("type")
    if kind in ("item.started", "item.updated", "item.completed"):
        return isinstance(mapping(row.get("item")).get("type"), str)
    return kind in _EVENTS and "payload" not in row


def threads(lines: Sequence[tuple[int, Item]]) -> list[list[tuple[int, Item]]]:
    """The lines of each thread; a file may hold what several commands printed."""
    found: list[list[tuple[int, Item]]] = [[]]
    for line in lines:
        if line[1].get("type") == "thread.started" and any(is_event(row) for _, row in found[-1]):
            found.append([])
        found[-1].append(line)
    return found


class ExecThread:
    """One thread's conversation, counts and end."""

    def __init__(self, rows: Sequence[Item]):
        self.talk = Talk()
        self.identity: str | None = None
        self.usage: Any = None
        self.end: tuple[str, Mapping[str, Any]] | None = None
        self.counts = {"messages": 0, "assistant_turns": 0, "tool_calls": 0, "tool_results": 0, "rewards": 0}
        self._called: set[str] = set()
        for row in rows:
            self._take(row)

    def _take(self, row: Item) -> None:
        kind = row.get("type")
        if kind == "thread.started":
            self.identity = text(row.get("thread_id"))
        elif kind == "turn.completed":
            self.talk.close()
            self.usage = usage(row.get("usage")) or self.usage
            self.end = ("completed", {})
        elif kind in ("turn.failed", "error"):
            said = mapping(row.get("error")) or {"message": row.get("message")}
            self.end = ("error", said)
        elif isinstance(row.get("item"), dict):
            self._take_item(row["item"], done=kind == "item.completed")

    def _take_item(self, item: Item, *, done: bool) -> None:
        kind = item.get("type")
        if kind == "agent_message" and done:
            self.counts["messages"] += 1
            self.counts["assistant_turns"] += 1
            if self.talk.turn().parts:
                self.talk.close()
            self.talk.turn().parts.append(text_part(str(content(item.get("text")) or "")))
        elif kind == "reasoning" and done:
            self.talk.turn().thoughts.append(str(content(item.get("text")) or ""))
        elif kind in _CALLS:
            self._take_call(item, done)

    def _take_call(self, item: Item, done: bool) -> None:
        call = _call(item)
        if call.id is None or call.id not in self._called:
            self.talk.call(call)
            self.counts["tool_calls"] += 1
        if call.id is not None:
            self._called.add(call.id)
        shown, is_error = _result(item)
        if done and shown is not None and item.get("status", "completed") not in _BEGUN:
            self.talk.result(call.id, shown, is_error=is_error, name=call.name)
            self.counts["tool_results"] += 1


def _call(item: Item) -> ToolCall:
    kind = str(item["type"])
    identity = text(item.get("id"))
    if kind == "mcp_tool_call":
        given = item.get("arguments")
        name = f"{text(item.get('server')) or 'mcp'}.{text(item.get('tool')) or ''}"
        return ToolCall(identity, name, given if isinstance(given, dict) else {})
    keys = ("command", "changes", "query", "action", "prompt", "receiver_thread_ids")
    name = text(item.get("tool")) or kind if kind == "collab_tool_call" else kind
    return ToolCall(identity, name, {key: item[key] for key in keys if item.get(key) is not None})


def _result(item: Item) -> tuple[Content, bool]:
    """(what came back, whether it failed); None for a kind of call of which the log never tells the result."""
    failed = item.get("status") in ("failed", "declined")
    if item["type"] == "command_execution":
        code = item.get("exit_code")
        return str(content(item.get("aggregated_output")) or ""), failed or (code is not None and code != 0)
    if item["type"] == "mcp_tool_call":
        said = mapping(item.get("error")).get("message")
        texts = [string(mapping(part).get("text")) for part in listing(mapping(item.get("result")).get("content"))]
        return str(said or "\n".join(text for text in texts if text)), failed or said is not None
    if item["type"] == "file_change":
        return string(item.get("status")), failed
    return None, failed
