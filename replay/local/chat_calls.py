"""Text that a model said to messages: what it thought, what it said, which tools it called."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import TypeAlias

from ...storage.codec import parse_arguments
from ...storage.records import ToolCall
from .chat_styles import CallStyle

THINK, END_THINK = "<think>", "</think>"
PYTHON_TAG = "<|python_tag|>"
"""Llama 3.1 writes it before a call, sometimes."""

Found: TypeAlias = tuple[str, str]
"""Name and arguments as written."""

_DECODER = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"\s*")


def split_reasoning(text: str, *, opened: bool) -> tuple[str | None, str]:
    """(reasoning, rest). `opened`: the prompt already ended in `<think>`. Cut off before its end, all is reasoning."""
    begins = text.lstrip().startswith(THINK)
    if not begins and not opened:
        return None, text
    thought = text.lstrip().removeprefix(THINK) if begins else text
    thought, _, rest = thought.partition(END_THINK)
    return thought.strip() or None, rest.lstrip("\n")


def split_calls(text: str, style: CallStyle, names: Collection[str]) -> tuple[str, tuple[ToolCall, ...]]:
    """(text beside the calls, calls). A call whose name cannot be read stays text; arguments are kept as written.

    `names` of the known tools matter only where calls are bare JSON: nothing else tells one from an answer in JSON.
    """
    if style.name == "hermes":
        rest, found = _marked(text, style)
    elif style.marker:
        rest, found = _tail(text, style)
    else:
        rest, found = _bare(text, style, names)
    return (rest.strip() if found else rest), tuple(_call(name, raw) for name, raw in found)


def members(text: str, start: int) -> tuple[dict[str, str], int] | None:
    """The raw text of each value of the JSON object at `start`, and where the object ends; None: no whole object."""
    if text[start : start + 1] != "{":
        return None
    found: dict[str, str] = {}
    place = start + 1
    try:
        while True:
            place = _skip(text, place)
            if text[place] == "}":
                return found, place + 1
            key, place = _DECODER.raw_decode(text, place)
            place = _skip(text, place)
            if not isinstance(key, str) or text[place] != ":":
                return None
            value = _skip(text, place + 1)
            _, place = _DECODER.raw_decode(text, value)
            found[key] = text[value:place]
            place = _skip(text, place)
            if text[place] == ",":
                place += 1
            elif text[place] != "}":
                return None
    except (ValueError, IndexError, RecursionError):
        return None


def _call(name: str, raw: str) -> ToolCall:
    return ToolCall(None, name, parse_arguments(raw), raw)


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match is not None else place


def _named(text: str, start: int, key: str) -> tuple[Found, int] | None:
    """A call object at `start`. Arguments that are missing are empty; both common keys are read."""
    parsed = members(text, start)
    if parsed is None:
        return None
    values, end = parsed
    name = _text(values.get("name", ""))
    other = "parameters" if key == "arguments" else "arguments"
    return ((name, values.get(key, values.get(other, "{}"))), end) if name else None


def _text(raw: str) -> str:
    try:
        value = json.loads(raw)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def _marked(text: str, style: CallStyle) -> tuple[str, list[Found]]:
    """Each call between its own marks; the last may lack the closing one. Marks inside a call's JSON are text."""
    rest: list[str] = []
    found: list[Found] = []
    place, start = 0, text.find(style.marker)
    while start >= 0:
        body = start + len(style.marker)
        call, end = _one_marked(text, body, style.closing.strip())
        if call is not None:
            found.append(call)
            rest.append(text[place:start].strip())
            place = end
        start = text.find(style.marker, body if call is None else end)
    rest.append(text[place:] if not found else text[place:].strip())
    return "\n".join(part for part in rest if part), found


def _one_marked(text: str, body: int, closing: str) -> tuple[Found | None, int]:
    """The call whose text begins at `body`, and where it ends; None when not even its name can be read."""
    whole = _named(text, _skip(text, body), "arguments")
    after = _skip(text, whole[1]) if whole is not None else -1
    if whole is not None and (after == len(text) or text.startswith(closing, after)):
        return whole[0], min(after + len(closing), len(text))
    end = text.find(closing, body)
    if end < 0:
        return _broken(text[body:].strip()), len(text)
    return _broken(text[body:end].strip()), end + len(closing)


def _broken(body: str) -> Found | None:
    """A call whose name can be read though its JSON is wrong: the agent is told so and may do better."""
    match = re.match(r'\{\s*"name"\s*:\s*"([^"\\]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*', body)
    if match is None:
        return None
    raw = body[match.end() :].rstrip()
    return match[1], raw.removesuffix("}").rstrip() if raw.endswith("}}") else raw


def _tail(text: str, style: CallStyle) -> tuple[str, list[Found]]:
    """Everything behind the mark is calls: a JSON list, or name and arguments behind their own mark."""
    mark = style.marker.removesuffix("[") if style.together else style.marker
    before, seen, tail = text.partition(mark)
    if not seen:
        return text, []
    found = list(_listed(tail)) if style.together else list(_behind_marks(tail, mark, style.body[1]))
    return (before, found) if found else (text, [])


def _listed(tail: str) -> Iterator[Found]:
    place = _skip(tail, 0)
    place = _skip(tail, place + 1) if tail[place : place + 1] == "[" else place
    while (call := _named(tail, place, "arguments")) is not None:
        yield call[0]
        place = _skip(tail, call[1])
        if tail[place : place + 1] != ",":
            return
        place = _skip(tail, place + 1)


def _behind_marks(tail: str, mark: str, between: str) -> Iterator[Found]:
    """Names and arguments; a mark inside the arguments' JSON begins no call."""
    place = 0
    while (split := tail.find(between, place)) >= 0:
        stop = tail.find(mark, place)
        if 0 <= stop < split:
            place = stop + len(mark)  # a mark behind which nothing is called
            continue
        start = _skip(tail, split + len(between))
        parsed = members(tail, start)
        stop = tail.find(mark, parsed[1] if parsed is not None else start)
        stop = len(tail) if stop < 0 else stop
        if tail[place:split].strip():
            yield tail[place:split].strip(), tail[start:stop].strip()
        place = stop + len(mark)


def _bare(text: str, style: CallStyle, names: Collection[str]) -> tuple[str, list[Found]]:
    """The whole turn is calls of known tools, or none of it is."""
    body = text.strip().removeprefix(PYTHON_TAG).strip()
    found: list[Found] = []
    place = 0
    while place < len(body):
        call = _named(body, place, "parameters")
        if call is None or call[0][0] not in names or not _has_arguments(body, place):
            return text, []
        found.append(call[0])
        place = _skip(body, call[1])
        if body[place : place + 1] == style.separator.strip():
            place = _skip(body, place + 1)
    return ("", found) if found else (text, [])


def _has_arguments(text: str, start: int) -> bool:
    parsed = members(text, start)
    return parsed is not None and any(key in parsed[0] for key in ("parameters", "arguments"))
