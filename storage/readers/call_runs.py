"""Folded conversations as linked trajectories: which is the run itself, which are branches and sub-agents of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import JsonObject, Message, Outcome, Relation, Source, Task, Trajectory
from .base import identify
from .call_fold import Thread
from .chat import first_user_text, mapping, prompt_id
from .clock import span
from .encoded import opened
from .likeness import common_steps
from .message_shapes import messages_of
from .tool_shapes import tools_together

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
        placed.extend(Placed(other, at, "branch", common_steps(lead.keys, other.keys)) for other in others)
        index |= {item.thread.order: at + number for number, item in enumerate(placed[at:])}
    return placed


def without_calls(asked: Any, answered: Any) -> list[Placed]:
    """The one conversation of a run in which no model's call was logged: what it was given, and what it gave."""
    given, found = messages_of(asked), messages_of(answered, "assistant")
    repeated = found[: len(given)] == given
    return [Placed(Thread("", 0, [*given, *(found[len(given) :] if repeated else found)]))]


def put_before(thread: Thread, messages: Sequence[Message]) -> None:
    """Begin a conversation with messages that its calls' histories lack."""
    thread.messages[:0] = messages
    thread.answered = {at + len(messages): call for at, call in thread.answered.items()}


def trajectory_of(
    item: Placed, record: Any, ids: Sequence[str], source: Source, task: str | None = None, **about: Any
) -> Trajectory:
    """The trajectory of a conversation. `ids`: of the ones before it; `about`: fields of its source which the calls do
    not say, or say otherwise. Raises BadRecord when the record is too long to be stored.
    """
    calls = item.thread.calls
    prompt, steps = item.thread.split()
    started, ended = span(time for call in calls for time in (call.started_at, call.ended_at))
    known = {
        "model": next((call.model for call in calls if call.model), None),
        "started_at": started,
        "ended_at": ended,
        "sampling": next((call.sampling for call in calls if call.sampling), None),
        "relation": item.relation,
    }
    identity, source = identify(source, record, **{**known, **about})
    error = calls[-1].error if calls else None
    return Trajectory(
        id=identity,
        task=Task(task or prompt_id(prompt), first_user_text(prompt)),
        tools=tools_together(call.tools for call in calls),
        prompt=prompt,
        steps=steps,
        outcome=None if error is None else Outcome(None, exit_reason=f"error: {error}"),
        truncated=error is not None,
        parent_id=None if item.parent is None else ids[item.parent],
        branch_step=item.branch_step,
        source=source,
    )


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
