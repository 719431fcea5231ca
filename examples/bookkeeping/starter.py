"""The starter level: a few bank lines, one `post` for each; made for models of a hundred million parameters.

The lines come one after the other: the first as the user's message, every other as the answer to the post before it. A
desk is immutable, so that forks of the environment share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ttc_replay import Message, StepResult, ToolCall
from ttc_replay.examples.bookkeeping.starter_scenarios import (
    Posting,
    StarterLine,
    StarterWorld,
    worked_examples,
)
from ttc_replay.examples.bookkeeping.starter_words import ACCOUNTS, CODES, HOME, SIDES
from ttc_replay.storage.codec import EXAMPLE_ASSISTANT

EXAMPLES = len(ACCOUNTS)
DONE = "done"
"""The answer to the last post."""

_SLOTS: dict[str, tuple[str, ...]] = {"account": tuple(ACCOUNTS), "side": SIDES, "vat": CODES}
_SYSTEM = (
    f"You book bank lines. Answer each line with one post. account: {', '.join(ACCOUNTS)}. "
    f"side: {' or '.join(SIDES)}, the first word of the line. "
    f"vat: {CODES[0]} when the country is {HOME}, {CODES[1]} for every other country."
)

STARTER_TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "post",
            "description": "Book the bank line.",
            "parameters": {
                "type": "object",
                "properties": {name: {"type": "string", "enum": list(words)} for name, words in _SLOTS.items()},
                "required": list(_SLOTS),
                "additionalProperties": False,
            },
        },
    },
)


def starter_prompt(world: StarterWorld, examples: int = EXAMPLES) -> tuple[Message, ...]:
    """System message, worked examples as turns, and the task's first line."""
    shown = worked_examples()[:examples]
    messages = [Message("system", _SYSTEM)]
    for place, line in enumerate(shown):
        messages += [_asked(line, place), _shown(line, place)]
    return (*messages, _asked(world.lines[0], len(shown)))


def _asked(line: StarterLine, place: int) -> Message:
    """A line as the agent gets it: the very first from the user, every other as the answer to the post before."""
    if not place:
        return Message("user", line.text)
    return Message("tool", line.text, tool_call_id=f"example_{place - 1}", name="post")


def _shown(line: StarterLine, place: int) -> Message:
    words = line.right._asdict()
    call = ToolCall(f"example_{place}", "post", words, json.dumps(words))  # spaced as constrained decoding spaces it
    return Message("assistant", None, tool_calls=(call,), name=EXAMPLE_ASSISTANT)


@dataclass(frozen=True, slots=True)
class Desk:
    """The task and what was posted so far. `closed` when the last line is posted or the agent stopped."""

    world: StarterWorld
    posted: tuple[Posting, ...] = ()
    closed: bool = False

    def step(self, action: Message) -> tuple[Desk, StepResult]:
        """Execute the calls in order; the desk after them. The last step carries the identity check's verdict."""
        desk, observations = self, []
        for call in action.tool_calls:
            desk, text = desk._post(call)
            observations.append(Message("tool", text, tool_call_id=call.id, name=call.name))
        if not action.tool_calls:
            desk = replace(desk, closed=True)
        if not desk.closed or self.closed:
            return desk, StepResult(observations, desk.closed)
        failures = identity_failures(desk.world, desk.posted)
        return desk, StepResult(observations, True, 0.0 if failures else 1.0, {"identity_failures": failures})

    def state(self) -> dict[str, Any]:
        """What the verifiers read, as plain JSON."""
        return {
            "level": "starter",
            "lines": [line.text for line in self.world.lines],
            "posted": [posting._asdict() for posting in self.posted],
            "closed": self.closed,
        }

    def state_key(self) -> str:
        """Hash of the task and what was posted."""
        text = repr((self.world.lines, self.posted, self.closed))
        return hashlib.sha256(text.encode()).hexdigest()

    def _post(self, call: ToolCall) -> tuple[Desk, str]:
        if (error := _refusal(call)) is not None:
            return self, json.dumps({"error": error})
        if len(self.posted) == len(self.world.lines) or self.closed:
            return self, json.dumps({"error": "there is no other line"})
        posted = (*self.posted, Posting(**call.arguments or {}))
        closed = len(posted) == len(self.world.lines)
        return replace(self, posted=posted, closed=closed), DONE if closed else self.world.lines[len(posted)].text


def identity_failures(world: StarterWorld, posted: Sequence[Posting]) -> list[str]:
    """Which identities do not hold: `lines_linked_once`, `bank` (money in for money in, money out for money out)."""
    sides = [posting.side for posting in posted]
    holds = {
        "lines_linked_once": len(posted) == len(world.lines),
        "bank": sides == [line.side for line in world.lines],
    }
    return [name for name, passed in holds.items() if not passed]


def _refusal(call: ToolCall) -> str | None:
    """What is wrong with a call; None: nothing."""
    if call.name != "post":
        return f"there is no tool {call.name[:40]}; tools: post"
    if not isinstance(call.arguments, Mapping):
        return "the arguments are not a JSON object"
    if missing := [name for name in _SLOTS if name not in call.arguments]:
        return f"missing argument: {', '.join(missing)}"
    if unknown := sorted(name for name in call.arguments if name not in _SLOTS):
        return f"unknown argument: {', '.join(unknown)}"
    wrong = next((name for name, words in _SLOTS.items() if call.arguments[name] not in words), None)
    return None if wrong is None else f"{wrong} must be one of: {', '.join(_SLOTS[wrong])}"
