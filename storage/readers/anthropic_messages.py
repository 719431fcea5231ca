"""Reader of Anthropic conversations: {system, messages, tools, ...}, with or without the API's response beside them.

JSONL, a JSON array, or one object; a record is a trajectory, also where the records of a proxy repeat what was said
before. The request may stand under `request`, `body` or `params`, the answer under `response` or `output`; an answer to
a request that ends with the agent's own words goes on from them. Each tool result is a message of its own; calls that
the server ran (`server_tool_use` and the like) stay parts of what the agent said, and are counted apart. Thoughts are
the reasoning; their signatures and redacted thoughts stay in the raw record. Tools that only the server runs are in
`Source.extra["server_tools"]`. From beside the messages: `reward`, `score`, `resolved`, `scores`, `task_id`, times,
cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from ..codec import steps_from_messages
from ..records import Message, Rejected, Source, Step, Trajectory, Usage
from .anthropic_blocks import anthropic_usage, block_messages, system_message
from .base import each_record, identify
from .chat import listing, mapping, number, string, text, tool_schemas, unparsed
from .json_input import Head
from .json_text import wrong_shape
from .row_fields import USED, stated, task, times, verdicts

_REQUESTS, _RESPONSES = ("request", "body", "params"), ("response", "output")
_BLOCKS = frozenset(("tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use"))
_OTHER_FORMATS = frozenset(("trajectory_format", "simulations", "traj", "call_type", "conversations", "info"))
_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "stop_sequences", "thinking", "tool_choice", "effort")
_SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_", "tool_search_", "mcp_toolset")
_CUT = ("max_tokens", "model_context_window_exceeded")
_TAKEN = (
    frozenset(
        (
            *_REQUESTS,
            *_RESPONSES,
            "system",
            "messages",
            "tools",
            "model",
            "usage",
            "cost_usd",
            "cost",
            "response_cost",
            *_SAMPLING,
        )
    )
    | USED
)
Json = Mapping[str, Any]


class AnthropicReader:
    """Reads Messages API conversations."""

    name = "anthropic"

    def detect(self, head: Head) -> float:
        """0.9 when at least half of the first records are conversations, and one has what only Anthropic's have."""
        rows = [record for record in head.records if isinstance(record, dict)]
        found = [row for row in rows if _is_conversation(row)]
        return 0.9 if found and len(found) * 2 >= len(rows) and any(map(_is_anthropic, found)) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each record."""
        return each_record(stream, replace(source, format=self.name), _trajectory)


def _request(row: Json) -> Json:
    """The request's body, wherever it stands."""
    inner = (mapping(unparsed(row.get(key))) for key in _REQUESTS)
    return next((body for body in inner if "messages" in body), row)


def _response(row: Json) -> Json:
    """The answer, or the error in its place; empty without either."""
    for key in _RESPONSES:
        found = mapping(unparsed(row.get(key)))
        found = mapping(found.get("body")) or found
        if isinstance(found.get("content"), (list, str)) or found.get("type") == "error":
            return found
    return {}


def _is_conversation(row: Json) -> bool:
    if _OTHER_FORMATS & row.keys():
        return False
    messages = _request(row).get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return False
    return all(message.get("role") in ("user", "assistant", "system") for message in messages[:-1])


def _is_anthropic(row: Json) -> bool:
    body, response = _request(row), _response(row)
    if "system" in body or "anthropic_version" in body or response.get("type") == "message":
        return True
    if any("input_schema" in mapping(tool) for tool in listing(body.get("tools"))):
        return True
    blocks = [block for message in listing(body.get("messages")) for block in listing(mapping(message).get("content"))]
    return any(mapping(block).get("type") in _BLOCKS or "source" in mapping(block) for block in blocks)


def _trajectory(row: Any, source: Source) -> Trajectory:
    if not isinstance(row, dict) or not isinstance(_request(row).get("messages"), list):
        raise wrong_shape("an Anthropic conversation is an object with a list of `messages`")
    body, response = _request(row), _response(row)
    entries = _joined(body["messages"], response)
    messages = list(_messages(body, entries))
    prompt, steps = steps_from_messages(messages)
    spent = [_usage(entry, row) for entry in entries if mapping(entry).get("role") == "assistant"]
    model = string(response.get("model")) or string(body.get("model"))
    reason = _reason(response)
    outcome, scores = verdicts(row, reason)
    started, ended = times(row)
    sampling = stated(body, _SAMPLING)
    tools = _tools(body)
    identity, source = identify(
        source,
        row,
        trial=text(row.get("trial")),
        agent=string(row.get("agent")),
        model=model,
        counts=_counts(entries, int(outcome is not None and outcome.value is not None)),
        extra=_extra(row, body, response),
        started_at=started,
        ended_at=ended,
        sampling=sampling,
    )
    return Trajectory(
        id=identity,
        task=task(row, prompt, sampling),
        tools=tools,
        prompt=prompt,
        steps=_filled(steps, spent, response, (started, ended)),
        outcome=outcome,
        scores=scores,
        truncated=response.get("type") == "error" or response.get("stop_reason") in _CUT,
        source=source,
    )


def _joined(messages: list[Any], response: Json) -> list[Any]:
    """The request's messages and the answer; an answer goes on from the agent's own last words."""
    if not isinstance(response.get("content"), (list, str)):
        return messages
    answer = {"role": "assistant", "content": response["content"], "usage": response.get("usage")}
    last = mapping(messages[-1]) if messages else {}
    if last.get("role") != "assistant":
        return [*messages, answer]
    before, behind = _as_blocks(last.get("content")), _as_blocks(answer["content"])
    if before and behind and mapping(before[-1]).get("type") == mapping(behind[0]).get("type") == "text":
        text_of = [str(mapping(block).get("text") or "") for block in (before.pop(), behind.pop(0))]
        before.append({"type": "text", "text": "".join(text_of)})
    return [*messages[:-1], {**answer, "content": [*before, *behind]}]


def _as_blocks(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [{"type": "text", "text": value}] if value else []


def _messages(body: Json, entries: list[Any]) -> Iterator[Message]:
    system = system_message(body.get("system"))
    if system is not None:
        yield system
    names: dict[str, str] = {}
    for index, entry in enumerate(entries):
        yield from block_messages(entry, f"messages[{index}]", names)


def _usage(entry: Json, row: Json) -> Usage | None:
    cost = next((row[key] for key in ("cost_usd", "cost", "response_cost") if row.get(key) is not None), None)
    return anthropic_usage(entry.get("usage"), number(cost, "cost") if entry.get("usage") else None)


def _filled(
    steps: tuple[Step, ...], spent: list[Usage | None], response: Json, time: tuple[str | None, str | None]
) -> tuple[Step, ...]:
    """What is known of the calls: the last step is the answer, of which the record gives time and model."""
    filled = [replace(step, usage=usage) for step, usage in zip(steps, spent, strict=True)]
    if filled and response:
        model = string(response.get("model"))
        filled[-1] = replace(filled[-1], model=model, started_at=time[0], ended_at=time[1])
    return tuple(filled)


def _reason(response: Json) -> str | None:
    if response.get("type") != "error":
        return string(response.get("stop_reason"))
    error = mapping(response.get("error"))
    return ": ".join(filter(None, ("error", string(error.get("type")), string(error.get("message")))))


def _is_server_tool(tool: Any) -> bool:
    return str(mapping(tool).get("type")).startswith(_SERVER_TOOLS)


def _tools(body: Json) -> Any:
    given = unparsed(body.get("tools"))
    return tool_schemas([tool for tool in given if not _is_server_tool(tool)]) if isinstance(given, list) else None


def _extra(row: Json, body: Json, response: Json) -> dict[str, Any]:
    extra = {key: row[key] for key in row if key not in _TAKEN and row[key] is not None}
    extra |= {key: body[key] for key in body if key not in _TAKEN and body[key] is not None}
    about = {key: response[key] for key in ("id", "stop_sequence", "container") if response.get(key) is not None}
    server = [tool for tool in listing(unparsed(body.get("tools"))) if _is_server_tool(tool)]
    return extra | ({"response": about} if about else {}) | ({"server_tools": server} if server else {})


def _counts(entries: list[Any], rewards: int) -> dict[str, int]:
    kinds = [
        (entry["role"], str(mapping(block).get("type"))) for entry in entries for block in listing(entry.get("content"))
    ]
    server = sum(role == "assistant" and kind in ("server_tool_use", "mcp_tool_use") for role, kind in kinds)
    counts = {
        "messages": len(entries),
        "assistant_turns": sum(entry["role"] == "assistant" for entry in entries),
        "tool_calls": kinds.count(("assistant", "tool_use")),
        "tool_results": sum(role != "assistant" and kind == "tool_result" for role, kind in kinds),
        "rewards": rewards,
    }
    return counts | ({"server_tool_calls": server} if server else {})
