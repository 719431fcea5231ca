"""Reader of ADP, the Agent Data Protocol: a list of {id, content, details}; a trajectory an element.

Actions are the agent's: `api_action` is a call of `function` with `kwargs`, `code_action` a call named for its language
with the code as argument `code`, `message_action` a message; what the agent said to an action (`description`) is the
text of a call, and the reasoning of a message. The observation right behind a call is its result, whoever it says it is
from (converters mark output of the environment as the user's); calls and results have no ids and belong together by
position. Every other observation is a user message. `details` gives the model, why it ended, and any number named
`reward`, `score` or `resolved` as the outcome; all of it is kept in `Source.extra`. Of a web observation the page is
kept as text and its picture as a reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, BinaryIO

from ..records import Message, Outcome, Rejected, Source, Task, ToolCall, Trajectory
from .base import each_record, identify, most
from .chat import arguments, content, first_user_text, mapping, number, prompt_id, split, string, text, tool_schemas
from .json_input import Head
from .json_text import wrong_shape
from .media import image_part, reference

_CALLS = ("api_action", "code_action")
_OUTCOMES = ("reward", "score", "resolved")
_EXITS = ("exit_status", "exit_reason", "termination_reason")
_PAGES = ("axtree", "html", "content")


class AdpReader:
    """Reads ADP trajectories: a JSON array, JSONL, or one."""

    name = "adp"

    def detect(self, head: Head) -> float:
        """0.95 when the first records have a list of ADP's actions and observations."""
        rows = [record for record in head.records if isinstance(record, dict)]
        return 0.95 if most(rows, _is_run) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each element."""
        return each_record(stream, replace(source, format=self.name), _trajectory)


def _is_run(record: Mapping[str, Any]) -> bool:
    entries = record.get("content")
    first = mapping(entries[0]) if isinstance(entries, list) and entries else {}
    return str(first.get("class_")).endswith(("_action", "_observation"))


def _trajectory(record: Any, source: Source) -> Trajectory:
    entries = record.get("content") if isinstance(record, dict) else None
    if not isinstance(entries, list):
        raise wrong_shape("an ADP trajectory is an object with a list of `content`")
    kinds = [_kind(entry, f"content[{index}]") for index, entry in enumerate(entries)]
    messages = [
        _message(entry, kind, before) for entry, kind, before in zip(entries, kinds, ["", *kinds], strict=False)
    ]
    prompt, steps = split(messages, [None] * sum(kind.endswith("_action") for kind in kinds))
    details = mapping(record.get("details"))
    outcome = _outcome(details)
    identity, source = identify(
        source,
        record,
        agent=string(details.get("agent")) or string(details.get("agent_name")),
        model=string(details.get("model_name")) or string(details.get("model")),
        counts=_counts(kinds, int(outcome is not None and outcome.value is not None)),
        extra={key: record[key] for key in record if key not in ("id", "content", "tools") and record[key]},
    )
    return Trajectory(
        id=identity,
        task=Task(text(record.get("id")) or prompt_id(prompt), first_user_text(prompt)),
        tools=tool_schemas(record.get("tools", details.get("tools"))),
        prompt=prompt,
        steps=steps,
        outcome=outcome,
        source=source,
    )


def _kind(entry: Any, where: str) -> str:
    kind = string(mapping(entry).get("class_"))
    if kind is None or not kind.endswith(("_action", "_observation")):
        raise wrong_shape(f"{where} has no class_ that ends in _action or _observation")
    return kind


def _message(entry: Mapping[str, Any], kind: str, before: str) -> Message:
    if kind.endswith("_observation"):
        is_system = entry.get("source") == "system"
        role = "tool" if before in _CALLS else "system" if is_system else "user"
        return Message(role, _observed(entry), name=string(entry.get("name")))
    said = string(entry.get("description")) or None
    if kind == "api_action":
        return Message("assistant", said, tool_calls=(_api_call(entry),))
    if kind == "code_action":
        name, code = string(entry.get("language")) or "code", {"code": content(entry.get("content"))}
        return Message("assistant", said, tool_calls=(ToolCall(None, name, code),))
    return Message("assistant", content(entry.get("content")), said)


def _api_call(entry: Mapping[str, Any]) -> ToolCall:
    given = entry.get("kwargs")
    name = text(entry.get("function")) or ""
    if isinstance(given, dict):
        return ToolCall(None, name, given)
    raw = str(content(given) or "")
    return ToolCall(None, name, arguments(raw), raw)


def _observed(entry: Mapping[str, Any]) -> Any:
    """Text, or of a web page its text and a reference to its picture; of anything else its JSON."""
    if entry.get("class_") == "text_observation":
        return content(entry.get("content"))
    page = next((found for key in _PAGES if isinstance(found := entry.get(key), str) and found), None)
    picture = entry.get("image_observation")
    place = mapping(picture).get("content", picture)
    if not isinstance(place, str) or not place:
        rest = {key: entry[key] for key in entry if key != "class_"}
        return json.dumps(rest, ensure_ascii=False) if page is None else page
    return [*([] if page is None else [{"type": "text", "text": page}]), image_part(reference(place))]


def _counts(kinds: Sequence[str], rewards: int) -> dict[str, int]:
    pairs = pairwise(kinds)
    return {
        "messages": len(kinds),
        "assistant_turns": sum(kind.endswith("_action") for kind in kinds),
        "tool_calls": sum(kind in _CALLS for kind in kinds),
        "tool_results": sum(kind.endswith("_observation") and before in _CALLS for before, kind in pairs),
        "rewards": rewards,
    }


def _outcome(details: Mapping[str, Any]) -> Outcome | None:
    reason = next((found for key in _EXITS if (found := string(details.get(key)))), None)
    for name in _OUTCOMES:
        value = number(details.get(name), name)
        if value is not None:
            return Outcome(value, name, reason)
    return Outcome(exit_reason=reason) if reason else None
