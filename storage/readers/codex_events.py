"""What the events of a Codex rollout say besides its items: usage, failures, the end, sub-agents; in old files all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..records import Message, ToolCall, Usage
from .chat import content, mapping, string, text, unparsed, whole
from .codex_items import Item, is_output, usage
from .talk import Talk, added, text_part

_ENDS = ("task_complete", "turn_complete")
_FIELDS = ("prompt_tokens", "completion_tokens", "cached_tokens")


class Events:
    """The events of one file, by line."""

    def __init__(self, entries: Sequence[tuple[str, Item]]):
        self._entries = entries
        self.last_total: Usage | None = None
        self.failed: dict[str, bool] = {}
        self._spent: dict[int, Usage] = {}
        for index, (kind, payload) in enumerate(entries):
            if kind != "event_msg":
                continue
            if payload.get("type") == "token_count":
                self._count(index, mapping(payload.get("info")))
            else:
                self._note_failure(payload)

    def _count(self, index: int, info: Mapping[str, Any]) -> None:
        """Growth of the total; what does not grow is said again, what shrinks is another count."""
        now = usage(info.get("total_token_usage")) or usage(info)
        last = usage(info.get("last_token_usage"))
        spent = last or now if self.last_total is None else _growth(now, self.last_total, last)
        self.last_total = now or self.last_total
        if spent is not None:
            self._spent[index] = spent

    def _note_failure(self, payload: Item) -> None:
        identity = text(payload.get("call_id"))
        if identity is None or not str(payload.get("type")).endswith("_end"):
            return
        code, result = payload.get("exit_code"), mapping(payload.get("result"))
        if code is not None:
            self.failed[identity] = code != 0
        elif "success" in payload or "Err" in result:
            self.failed[identity] = payload.get("success") is False or "Err" in result

    def spend(self, index: int, talk: Talk) -> None:
        """Give the usage of a `token_count` line to the step before it, which it ends."""
        spent = self._spent.get(index)
        if spent is not None and talk.turns:
            talk.turns[-1].usage = added(talk.turns[-1].usage, spent)
            talk.close()

    def end(self, lines: Sequence[int]) -> tuple[str | None, dict[str, Any]]:
        """(how the last turn ended, what was said about it)."""
        for index in reversed(lines):
            kind, payload = self._entries[index]
            name = payload.get("type") if kind == "event_msg" else None
            if name in _ENDS:
                return "completed", {}
            if name == "turn_aborted":
                return string(payload.get("reason")) or "aborted", {}
            if name == "error":
                said = mapping(payload.get("error")) or {key: payload[key] for key in payload if key != "type"}
                return string(said.get("kind")) or "error", dict(said)
        return None, {}

    def spawned(self, lines: Sequence[int], talk: Talk) -> dict[str, int | None]:
        """The threads of sub-agents that these lines name, with the step that called each."""
        found: dict[str, int | None] = {}
        for index in lines:
            kind, payload = self._entries[index]
            name = text(payload.get("new_thread_id")) if kind == "event_msg" else None
            if name is None and kind == "response_item" and is_output(payload.get("type")):
                name = _agent_in(payload.get("output"))
            if name is not None:
                found[name] = talk.step_of_call(text(payload.get("call_id")))
        return found


def _agent_in(output: Any) -> str | None:
    """The id in the output of `spawn_agent`: an object of at most a few keys."""
    if not isinstance(output, str) or len(output) > 400 or not output.startswith('{"agent_id"'):
        return None
    return text(mapping(unparsed(output)).get("agent_id"))


def _growth(now: Usage | None, before: Usage, last: Usage | None) -> Usage | None:
    if now is None:
        return None
    grown = [_minus(getattr(now, name), getattr(before, name)) for name in _FIELDS]
    if any(value is not None and value < 0 for value in grown):
        return last
    return Usage(*(whole(value) for value in grown)) if any(grown) else None


def _minus(now: int | None, before: int | None) -> int | None:
    return None if now is None else now - (before or 0)


def from_events(payload: Item, talk: Talk, time: str | None) -> None:
    """Add one event of a file that has no items to the conversation."""
    kind = payload.get("type")
    identity = text(payload.get("call_id"))
    if kind == "user_message":
        talk.hear(Message("user", content(payload.get("message"))), time)
    elif kind == "agent_message":
        if talk.turn(time).parts:
            talk.close()
        talk.turn(time).parts.append(text_part(str(content(payload.get("message")) or "")))
    elif kind == "agent_reasoning":
        talk.turn(time).thoughts.append(str(content(payload.get("text")) or ""))
    elif kind in ("exec_command_begin", "patch_apply_begin", "mcp_tool_call_begin"):
        left_out = ("type", "call_id", "turn_id", "parsed_cmd")
        given = {key: payload[key] for key in payload if key not in left_out}
        talk.call(ToolCall(identity, str(kind).removesuffix("_begin"), given), time)
    elif kind in ("exec_command_end", "patch_apply_end", "mcp_tool_call_end"):
        shown = payload.get("aggregated_output") or payload.get("stdout") or payload.get("result")
        code = payload.get("exit_code", 0)
        is_error = code != 0 or payload.get("success") is False or "Err" in mapping(payload.get("result"))
        talk.result(identity, str(content(shown) or ""), time, is_error=is_error)
