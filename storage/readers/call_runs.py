"""Folded conversations as linked trajectories: which is the run itself, which are branches and sub-agents of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import JsonObject, Relation, ToolSchema
from .call_fold import Thread
from .chat import mapping
from .message_shapes import opened

_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "n", "frequency_penalty", "presence_penalty"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "stop", "stop_sequences", "logprobs", "top_logprobs"),
    *("tool_choice", "parallel_tool_calls", "reasoning_effort", "response_format"),
)


@dataclass(frozen=True, slots=True)
class Scope:
    """An agent in which calls were made. `parent` "": the run itself; `tool`: the tool run that started it."""

    parent: str = ""
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A conversation and what it is to another one: `parent` is the index of that one in the list."""

    thread: Thread
    parent: int | None = None
    relation: Relation | None = None
    branch_step: int | None = None


def arranged(threads: Sequence[Thread], scopes: Mapping[str, Scope]) -> list[Placed]:
    """The main conversation first, each of the others behind the one it belongs to.

    The main one is of the outermost agent, and the longest there. Of branches the longest leads, then the latest.
    """
    families: dict[int, list[Thread]] = {}
    for thread in threads:
        families.setdefault(_root(thread).order, []).append(thread)
    leads = [max(family, key=lambda item: (item.turns, item.order)) for family in families.values()]
    leads.sort(key=lambda item: (_depth(item.scope, scopes), -item.turns, item.order))
    owners = {key: thread for thread in threads for key in thread.tool_keys}
    placed: list[Placed] = []
    index: dict[int, int] = {}
    for lead in leads:
        at = len(placed)
        key = _tool(lead.scope, scopes) or ""
        owner = owners.get(key)
        if at == 0:
            placed.append(Placed(lead))
        elif owner is not None and owner.order in index:
            placed.append(Placed(lead, index[owner.order], "subagent", owner.tool_keys[key]))
        else:
            placed.append(Placed(lead, 0, "subagent"))
        others = (item for item in families[_root(lead).order] if item is not lead)
        placed.extend(Placed(other, at, "branch", _first_difference(lead, other)) for other in others)
        index |= {item.thread.order: at + number for number, item in enumerate(placed[at:])}
    return placed


def _root(thread: Thread) -> Thread:
    while thread.origin is not None:
        thread = thread.origin
    return thread


def _depth(scope: str, scopes: Mapping[str, Scope]) -> int:
    return len(_ancestors(scope, scopes))


def _tool(scope: str, scopes: Mapping[str, Scope]) -> str | None:
    """The innermost tool run around an agent."""
    return next((item.tool for item in _ancestors(scope, scopes) if item.tool is not None), None)


def _ancestors(scope: str, scopes: Mapping[str, Scope]) -> list[Scope]:
    found: list[Scope] = []
    seen: set[str] = set()
    while scope in scopes and scope not in seen:
        seen.add(scope)
        found.append(scopes[scope])
        scope = scopes[scope].parent
    return found


def _first_difference(lead: Thread, thread: Thread) -> int:
    common = 0
    for one, other in zip(lead.messages, thread.messages, strict=False):
        if one != other:
            break
        common += 1
    return sum(message.role == "assistant" for message in lead.messages[:common])


def tools_together(given: Iterable[tuple[ToolSchema, ...] | None]) -> tuple[ToolSchema, ...] | None:
    """All tools that any of the calls had, by name, in the order in which they appeared; None: none states any."""
    found: dict[str, ToolSchema] = {}
    known = False
    for tools in given:
        known = known or tools is not None
        for tool in tools or ():
            found.setdefault(str(mapping(tool.get("function")).get("name")), tool)
    return tuple(found.values()) if known else None


def sampling_of(parameters: Any) -> JsonObject | None:
    """The sampling parameters among a call's settings; None when it states none."""
    given = mapping(opened(parameters))
    found = {key: _number(given[key]) for key in _SAMPLING if given.get(key) not in (None, "", [], {})}
    if found.get("max_tokens") == -1:  # one exporter's "not set"
        del found["max_tokens"]
    return found or None


def _number(value: Any) -> Any:
    """Some logs keep numbers and booleans as text."""
    if not isinstance(value, str):
        return value
    if value in ("true", "false"):
        return value == "true"
    if _NUMBER.fullmatch(value) is None:
        return value
    return float(value) if "." in value else int(value)
