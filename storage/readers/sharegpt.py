"""Reader of ShareGPT rows: {conversations: [{from, value}], system?, tools?}, and Harbor's exports of that shape with
`role` and `content`. A row is a trajectory, also where rows repeat a prefix (Harbor writes one a model call).

`function_call` entries become calls: of a JSON object {name, arguments} or a list of them, or of `<function=NAME>`
blocks in text; anything else is a call without a name, its text kept. An `observation` is a tool message; neither has
an id, so they belong together by their order. Calls written into the text of other entries stay text. A thought in
`<think>` tags that opens an answer becomes its reasoning. `reward`, `score`, `resolved` or `result` that are a number
or bool are the outcome; a `result` that is a text is why it ended. Other keys go to `Source.extra`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Message, Rejected, Source, Task, ToolCall, Trajectory
from .base import each_record, identify, most
from .chat import arguments, content, first_user_text, mapping, prompt_id, split, string, text, tool_schemas, unparsed
from .clock import utc
from .json_input import Head
from .json_text import wrong_shape
from .row_fields import USED, verdicts

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}
_LISTS = ("conversations", "conversation")
_TOOLS = ("tools", "tool_definitions")
_TAKEN = USED | {*_LISTS, *_TOOLS, "system", "id", "agent", "model", "task", "trial_name", "date", "result"}
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class ShareGptReader:
    """Reads ShareGPT rows: a JSON array, JSONL, or one."""

    name = "sharegpt"

    def detect(self, head: Head) -> float:
        """0.85 when at least half of the first records have a list of ShareGPT's entries."""
        rows = [record for record in head.records if isinstance(record, dict)]
        return 0.85 if most(rows, _is_row) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each row."""
        return each_record(stream, replace(source, format=self.name), _trajectory)


def _entries(record: Mapping[str, Any]) -> Any:
    return next((unparsed(record[key]) for key in _LISTS if key in record), None)


def _is_row(record: Mapping[str, Any]) -> bool:
    entries = _entries(record)
    first = mapping(entries[0]) if isinstance(entries, list) and entries else {}
    return _role(first) is not None and ("value" in first or "content" in first or len(entries) == 1)


def _speaker(entry: Mapping[str, Any]) -> str:
    name = entry.get("from", entry.get("role"))
    return name.lower() if isinstance(name, str) else ""


def _role(entry: Mapping[str, Any]) -> str | None:
    return _ROLES.get(_speaker(entry))


def _outcome(record: Mapping[str, Any]) -> Any:
    """Harbor's `result` is the reward, or says why the run failed."""
    result = record.get("result")
    given = record if record.get("reward") is not None else {**record, "reward": result}
    return verdicts(given, string(result))


def _trajectory(record: Any, source: Source) -> Trajectory:
    entries = _entries(record) if isinstance(record, dict) else None
    if not isinstance(entries, list):
        raise wrong_shape("a ShareGPT row is an object with a list of `conversations`")
    messages = [_message(entry, f"conversations[{index}]") for index, entry in enumerate(entries)]
    system = string(record.get("system"))
    if system and not any(message.role == "system" for message in messages):
        messages.insert(0, Message("system", system))
    prompt, steps = split(messages, [None] * sum(message.role == "assistant" for message in messages))
    outcome, scores = _outcome(record)
    identity, source = identify(
        source,
        record,
        trial=text(record.get("trial_name")),
        agent=string(record.get("agent")),
        model=string(record.get("model")),
        counts=_counts(entries, int(outcome is not None and outcome.value is not None)),
        extra={key: record[key] for key in record if key not in _TAKEN and record[key] is not None},
        started_at=utc(record.get("date")),
    )
    return Trajectory(
        id=identity,
        task=_task(record, prompt),
        tools=next((found for key in _TOOLS if (found := tool_schemas(record.get(key))) is not None), None),
        prompt=prompt,
        steps=steps,
        outcome=outcome,
        scores=scores,
        source=source,
    )


def _message(entry: Any, where: str) -> Message:
    role = _role(entry) if isinstance(entry, dict) else None
    if role is None:
        raise wrong_shape(f"{where} is no entry of a known speaker (`from` or `role`)")
    said = content(entry.get("value", entry.get("content")))
    if _speaker(entry) == "function_call":
        return _calls(said)
    if role != "assistant" or not isinstance(said, str):
        return Message(role, said)
    thought = _THOUGHT.match(said)
    return Message(role, said[thought.end() :], thought.group(1).strip()) if thought else Message(role, said)


def _calls(said: Any) -> Message:
    raw = said if isinstance(said, str) else ""
    given = unparsed(raw)
    calls = [call for item in (given if isinstance(given, list) else [given]) if (call := _json_call(item))]
    if calls:
        return Message("assistant", None, tool_calls=tuple(calls))
    blocks = list(_blocks(raw, "function"))
    if blocks:
        made = [ToolCall(None, name, dict(_parameters(body))) for name, body in blocks]
        return Message("assistant", raw.partition("<function=")[0].strip(), tool_calls=tuple(made))
    return Message("assistant", said, tool_calls=(ToolCall(None, "", arguments(raw) or None, raw),))


def _json_call(item: Any) -> ToolCall | None:
    body = mapping(mapping(item).get("function")) or mapping(item)
    name = string(body.get("name"))
    if name is None:
        return None
    given = body.get("arguments", body.get("parameters"))
    if isinstance(given, dict):
        return ToolCall(text(mapping(item).get("id")), name, given)
    raw = str(content(given) or "")
    return ToolCall(text(mapping(item).get("id")), name, arguments(raw), raw)


def _blocks(said: str, tag: str) -> Iterator[tuple[str, str]]:
    """(NAME, inner text) of each `<tag=NAME>...</tag>`. Searched, not matched: no text makes it backtrack."""
    opening, closing = f"<{tag}=", f"</{tag}>"
    at = 0
    while (start := said.find(opening, at)) >= 0:
        named = said.find(">", start)
        end = said.find(closing, named)
        if named < 0 or end < 0:
            return
        yield said[start + len(opening) : named].strip(), said[named + 1 : end]
        at = end + len(closing)


def _parameters(body: str) -> Iterator[tuple[str, str]]:
    for name, value in _blocks(body, "parameter"):
        yield name, value.removeprefix("\n").removesuffix("\n")


def _counts(entries: list[Mapping[str, Any]], rewards: int) -> dict[str, int]:
    roles = [_role(entry) for entry in entries]
    return {
        "messages": len(roles),
        "assistant_turns": roles.count("assistant"),
        "tool_calls": sum(_speaker(entry) == "function_call" for entry in entries),
        "tool_results": roles.count("tool"),
        "rewards": rewards,
    }


def _task(record: Mapping[str, Any], prompt: tuple[Message, ...]) -> Task:
    identity = next((found for key in ("task", "task_id", "id") if (found := text(record.get(key)))), None)
    return Task(identity or prompt_id(prompt), first_user_text(prompt))
