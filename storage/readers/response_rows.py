"""Rows of Responses API calls: one row, or a chain of rows that refer to each other, as a trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..codec import steps_from_messages
from ..records import Links, Message, Source, Step, Trajectory, Usage
from .base import identify
from .chat import listing, mapping, number, string, text, tool_schemas, unparsed, whole
from .clock import span, utc
from .json_text import wrong_shape
from .response_items import CLIENT_CALLS, is_item, is_message, is_output, is_server_call, item_messages
from .row_fields import USED, stated, task, times, verdicts

_SAMPLING = (
    "temperature",
    "top_p",
    "max_output_tokens",
    "reasoning",
    "text",
    "tool_choice",
    "parallel_tool_calls",
    "seed",
)
_ROW = ("input", "output", "items", "instructions", "tools", "request", "response", "model", "usage", "id", "status")
_TAKEN = frozenset((*_ROW, *_SAMPLING, "error", "incomplete_details", "object", "previous_response_id")) | USED
_PARTS = frozenset(("input", "output", "items", "request", "response"))
Json = Mapping[str, Any]


def request_of(row: Json) -> Json:
    """What was asked: beside the answer, or in an object of its own."""
    return mapping(unparsed(row.get("request"))) or row


def response_of(row: Json) -> Json:
    """What was answered: beside the request, or in an object of its own."""
    return mapping(unparsed(row.get("response"))) or row


def response_id(row: Any) -> str | None:
    """The name by which a later row refers to this one."""
    return string(response_of(mapping(row)).get("id"))


def previous_id(row: Any) -> str | None:
    """The name of the row that this one goes on from."""
    known = mapping(row)
    return string(request_of(known).get("previous_response_id")) or string(
        response_of(known).get("previous_response_id")
    )


def is_row(value: Any) -> bool:
    """Whether the value is a call of this API, or what is left of one."""
    row = mapping(value)
    response = response_of(row)
    output, given = response.get("output"), request_of(row).get("input")
    if response.get("object") == "response":
        return isinstance(output, list)
    typed = [*listing(output), *listing(given), *listing(row.get("items"))]
    return any(map(is_item, typed)) and (isinstance(output, list) or isinstance(given, list) or "items" in row)


def chain(rows: Sequence[Any], source: Source) -> Trajectory:
    """The trajectory of rows that go on from each other, oldest first. Raises BadRecord where one is no call."""
    messages: list[Message] = []
    made: list[tuple[int, Json]] = []
    names: dict[str, str] = {}
    for row in rows:
        if not isinstance(row, dict) or not _PARTS & row.keys():
            raise wrong_shape("a Responses API call is an object with `input` or `output`")
        messages.extend(_asked(row, names, first=row is rows[0]))
        answered = list(item_messages(_list(response_of(row), "output"), names))
        made.extend([(len(messages), row)] if answered else [])
        messages.extend(answered)
    return _trajectory(rows, messages, made, source)


def _list(row: Json, key: str) -> list[Any]:
    found = row.get(key)
    if found is not None and not isinstance(found, (list, str)):
        raise wrong_shape(f"`{key}` is neither a list nor text")
    if isinstance(found, str):
        return [{"role": "assistant" if key == "output" else "user", "content": found}]
    return found or []


def _asked(row: Json, names: dict[str, str], *, first: bool) -> list[Message]:
    """Instructions (which hold for one call: those of later ones are not repeated), then the input."""
    request = request_of(row)
    instructions = request.get("instructions", response_of(row).get("instructions"))
    given = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else listing(instructions)
    items = _list(request, "input") or _list(row, "items")
    return list(item_messages([*(given if first else ()), *items], names))


def _trajectory(
    rows: Sequence[Json], messages: list[Message], made: list[tuple[int, Json]], source: Source
) -> Trajectory:
    prompt, steps = steps_from_messages(messages)
    acted = [at for at, message in enumerate(messages) if message.role == "assistant"]
    known = dict(made)
    steps = tuple(_filled(step, known.get(at)) for step, at in zip(steps, acted, strict=True))
    last = rows[-1]
    reason, cut = _ending(response_of(last))
    outcome, scores = verdicts(last, reason)
    started, ended = span(time for row in rows for time in _times(row))
    sampling = stated({**response_of(last), **request_of(last)}, _SAMPLING)
    before = previous_id(rows[0])
    keys = tuple(f"response:{name}" for row in rows if (name := response_id(row)))
    identity, source = identify(
        source,
        rows[0] if len(rows) == 1 else list(rows),
        trial=text(last.get("trial")),
        agent=string(last.get("agent")),
        model=_model(last),
        counts=_counts(rows, len(steps), int(outcome is not None and outcome.value is not None)),
        extra=_extra(last),
        started_at=started,
        ended_at=ended,
        sampling=sampling,
        relation="continuation" if before else None,
        links=Links(keys, f"response:{before}" if before else None) if keys or before else None,
    )
    return Trajectory(
        id=identity,
        task=task(last, prompt, sampling),
        tools=_tools(last),
        prompt=prompt,
        steps=steps,
        outcome=outcome,
        scores=scores,
        truncated=cut,
        source=source,
    )


def _filled(step: Step, row: Json | None) -> Step:
    if row is None:
        return step
    started, ended = _times(row)
    return replace(step, usage=_usage(row), started_at=started, ended_at=ended, model=_model(row))


def _model(row: Json) -> str | None:
    return string(response_of(row).get("model")) or string(request_of(row).get("model"))


def _times(row: Json) -> tuple[str | None, str | None]:
    response = response_of(row)
    started, ended = times(row)
    return started or utc(response.get("created_at")), ended or utc(response.get("completed_at"))


def _usage(row: Json) -> Usage | None:
    """The input holds the cached tokens, the output the reasoning."""
    given = mapping(response_of(row).get("usage"))
    cost = next((row[key] for key in ("cost_usd", "cost", "response_cost") if row.get(key) is not None), None)
    result = Usage(
        whole(given.get("input_tokens")),
        whole(given.get("output_tokens")),
        whole(mapping(given.get("input_tokens_details")).get("cached_tokens")),
        None if isinstance(cost, bool) else number(cost, "cost"),
    )
    return None if result == Usage() else result


def _ending(response: Json) -> tuple[str | None, bool]:
    """(why the call ended, whether it was cut)."""
    status, error = string(response.get("status")), mapping(response.get("error"))
    if error:
        return ": ".join(filter(None, ("error", text(error.get("code")), string(error.get("message"))))), True
    if status == "incomplete":
        return string(mapping(response.get("incomplete_details")).get("reason")) or status, True
    return status, status in ("failed", "cancelled")


def _tools(row: Json) -> Any:
    """Tools that have a name of their own; those that the API brings along are in `Source.extra`."""
    given = unparsed(request_of(row).get("tools", response_of(row).get("tools")))
    return tool_schemas([tool for tool in given if _is_named(tool)]) if isinstance(given, list) else None


def _is_named(tool: Any) -> bool:
    return isinstance(mapping(tool).get("name", mapping(tool).get("function")), (str, dict))


def _extra(row: Json) -> dict[str, Any]:
    extra = {key: row[key] for key in row if key not in _TAKEN and row[key] is not None}
    names = {"response_id": response_id(row), "previous_response_id": previous_id(row)}
    given = unparsed(request_of(row).get("tools", response_of(row).get("tools")))
    hosted = [tool for tool in listing(given) if not _is_named(tool)]
    return extra | {key: name for key, name in names.items() if name} | ({"hosted_tools": hosted} if hosted else {})


def _counts(rows: Sequence[Json], turns: int, rewards: int) -> dict[str, int]:
    items = [item for row in rows for item in (*_list(request_of(row), "input"), *_list(row, "items"))]
    items += [item for row in rows for item in _list(response_of(row), "output")]
    known = [mapping(item) for item in items]
    kinds = [item.get("type") for item in known]
    server = sum(map(is_server_call, kinds))
    counts = {
        "messages": sum(map(is_message, known)),
        "assistant_turns": turns,
        "tool_calls": sum(kind in CLIENT_CALLS for kind in kinds),
        "tool_results": sum(map(is_output, kinds)),
        "rewards": rewards,
        "items": len(items),
    }
    return counts | ({"server_tool_calls": server} if server else {})
