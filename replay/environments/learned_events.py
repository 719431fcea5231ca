"""Recorded runs as a learned world sees them: events of hashed words, and observations as templates.

A template is an observation with the texts of its call's arguments, and numbers that went up or down by little, left
open: `{"line": "B3", "open_lines": 6}` after a post to B3 that left one line fewer is one of the observations that
every post gives. So an observation of one task can be chosen again in another.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...storage.canonical import canonical_json
from ...storage.records import Message, ToolCall, Trajectory
from .world_examples import answered_calls, words

BUCKETS = 8_192
MOST_WORDS = 400
"""Words of one text that are hashed."""
STEPS_OF_A_COUNTER = 2
"""How far a number may move and still be the same counter."""
_OPEN = "\x01"
"""Marks what a template leaves open; no JSON text holds it."""
_SLOT = re.compile(f"{_OPEN}([an]):(.*?)(?::(-?\\d+))?{_OPEN}")
_NUMBER = re.compile(r'"([^"\x01]{1,60})": ?(-?\d+)(?=[,}\]])')


@dataclass(frozen=True, slots=True)
class Event:
    """One call and its result, or one message (`tool` ""). Words are hashed; `template` is of its result.

    `ended`: the run was over after it.
    """

    tool: str
    action: tuple[int, ...]
    result: tuple[int, ...]
    template: str | None
    text: str
    call: ToolCall | None
    counters: Mapping[str, int]
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded run. `won` None: the log has no verdict."""

    task: str
    prompt: tuple[int, ...]
    events: tuple[Event, ...]
    won: bool | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What one run has said so far: the latest number of each key, which tools were called with which value, and the
    words of all results."""

    counters: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, frozenset[str]] = field(default_factory=dict)
    read: frozenset[str] = frozenset()

    def after(self, call: ToolCall, text: str) -> Memory:
        """With one more call and its result."""
        counters = {**self.counters, **{key: int(value) for key, value in _NUMBER.findall(text)}}
        used = dict(self.used)
        for value in _texts(call).values():
            used[value] = used.get(value, frozenset()) | {call.name}
        return Memory(counters, used, self.read | frozenset(words(text)))

    def relations(self, call: ToolCall) -> list[str]:
        """How the values of a call relate to what came before, whatever they are: used before by which tool, read in a
        result, or new to this run (an invented id, often)."""
        found = []
        for name, value in _texts(call).items():
            found += [f"again:{name}:{tool}" for tool in sorted(self.used.get(value, ()))]
            found.append(f"read:{name}" if self.read.issuperset(words(value)) else f"new:{name}")
        return found


def hashed(tokens: Sequence[str]) -> tuple[int, ...]:
    """Words as bucket numbers, at most MOST_WORDS of them; the same in every process."""
    return tuple(zlib.crc32(token.encode("utf-8", "replace")) % BUCKETS for token in tokens[:MOST_WORDS])


def action_tokens(call: ToolCall, memory: Memory) -> tuple[int, ...]:
    """The words of a call: its tool, how it relates to the run so far, and each argument with its name."""
    said = [f"tool:{call.name}", *memory.relations(call)]
    for name, value in (call.arguments or {}).items():
        said += [f"{name}={word}" for word in words(value if isinstance(value, str) else canonical_json(value))]
    return hashed(said)


def result_tokens(text: str) -> tuple[int, ...]:
    """The words of a result."""
    return hashed([f"said:{word}" for word in words(text)])


def spoken_tokens(text: str) -> tuple[int, ...]:
    """The words of a message without calls."""
    return hashed(["speaks", *[f"says:{word}" for word in words(text)]])


def template_of(text: str, call: ToolCall, counters: Mapping[str, int]) -> str:
    """A result with its call's arguments and its counters left open."""
    if _OPEN in text:
        return text
    found = _NUMBER.sub(lambda match: _counted(match, counters), text)
    for name, value in sorted(_texts(call).items(), key=lambda item: (-len(item[1]), item[0])):
        parts = re.split(f"({_OPEN}.*?{_OPEN})", found)
        whole = re.compile(rf"(?<![\w-]){re.escape(value)}(?![\w-])")
        parts[::2] = [whole.sub(lambda _, name=name: f"{_OPEN}a:{name}{_OPEN}", part) for part in parts[::2]]
        found = "".join(parts)
    return found


def filled(template: str, call: ToolCall, counters: Mapping[str, int]) -> str | None:
    """A template with what this call and this run say; None when they lack something it needs."""
    given, missing = _texts(call), False

    def fill(match: re.Match[str]) -> str:
        nonlocal missing
        kind, name, by = match.groups()
        if kind == "a" and name in given:
            return given[name]
        if kind == "n" and name in counters:
            return str(counters[name] + int(by or 0))
        missing = True
        return ""

    text = _SLOT.sub(fill, template)
    return None if missing else text


def _counted(match: re.Match[str], counters: Mapping[str, int]) -> str:
    key, value = match[1], int(match[2])
    if key not in counters or abs(value - counters[key]) > STEPS_OF_A_COUNTER or ":" in key:
        return match[0]
    return match[0][: match.start(2) - match.start(0)] + f"{_OPEN}n:{key}:{value - counters[key]}{_OPEN}"


def _texts(call: ToolCall) -> dict[str, str]:
    items = (call.arguments or {}).items()
    return {name: value for name, value in items if isinstance(value, str) and len(value) > 1 and _OPEN not in value}


def events_of(run: Trajectory) -> tuple[Event, ...]:
    """The events of a recorded run in order."""
    found: list[Event] = []
    memory = Memory()
    for step in run.steps:
        last = step.index == len(run.steps) - 1 and not run.truncated
        pairs = answered_calls(step)
        for place, (call, result) in enumerate(pairs):
            is_last = last and place == len(pairs) - 1
            found.append(called(call, result.text, memory, ended=is_last))
            memory = memory.after(call, result.text)
        if not step.action.tool_calls:
            found.append(spoken(step.action, step.observations, ended=last))
    return tuple(found)


def called(call: ToolCall, text: str, memory: Memory, *, ended: bool = False) -> Event:
    """The event of one call, made after what `memory` holds."""
    template, action = template_of(text, call, memory.counters), action_tokens(call, memory)
    return Event(call.name, action, result_tokens(text), template, text, call, memory.counters, ended)


def spoken(action: Message, observations: Sequence[Message] = (), *, ended: bool = False) -> Event:
    """The event of one message; what the user replied is its result."""
    reply = " ".join(item.text for item in observations if item.role == "user")
    return Event("", spoken_tokens(action.text), result_tokens(reply), None, reply, None, {}, ended)


def run_of(run: Trajectory, success_at: float = 1.0) -> Run:
    """A recorded run as events; the outcome is won from `success_at` on."""
    value = run.outcome.value if run.outcome is not None else None
    return Run(run.task.id, prompt_tokens(run.prompt), events_of(run), None if value is None else value >= success_at)


def prompt_tokens(prompt: Sequence[Message]) -> tuple[int, ...]:
    """The words of what the user asked for; system texts are the same in every run."""
    said = " ".join(item.text for item in prompt if item.role == "user")
    return hashed([f"asks:{word}" for word in words(said)])


def same_result(one: str, other: str) -> bool:
    """Whether two results are the same text or the same JSON value."""
    if one == other:
        return True
    try:
        left, right = json.loads(one), json.loads(other)
        return isinstance(left, type(right)) and bool(canonical_json(left) == canonical_json(right))
    except (ValueError, RecursionError):
        return False
