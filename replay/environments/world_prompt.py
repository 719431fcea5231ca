"""What a world model is asked, how its answers are read, and how far its samples agree.

After "Reasoning with Language Model is Planning with World Model" (RAP, arXiv 2305.14992, section 3.1): the model that
proposes actions may also predict the next state. Here it predicts one observation, from recorded ones of the same tool.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ...storage.canonical import canonical_json
from ...storage.records import Message, Proposal, ToolCall, ToolSchema
from .world_examples import Example, Past, call_text

RULES = (
    "You stand in for a tool that cannot be called. Answer with exactly what the tool would return for the last call: "
    "the bare result text, in the form of the recorded examples, without comment and without a code fence. Keep to "
    "what the earlier results of this run say: ids, names, amounts and dates. What an earlier call changed stays "
    "changed. A call that the tool would refuse gets the error text of the examples."
)
CALLS_SHOWN = 12
"""Calls of this run that the model sees, the latest ones."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call to be answered. `tool`: its schema, where one is known; `examples`: best first."""

    call: ToolCall
    past: Past
    tool: ToolSchema | None
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The answer that most samples gave. `confidence`: their share; None: one sample says nothing about itself."""

    text: str
    confidence: float | None
    samples: int
    agreed: int


def prompt(question: Question, most_bytes: int) -> tuple[Message, ...]:
    """The conversation for one question, at most `most_bytes` of JSON: worse examples and older calls go first.

    The call itself always stays, its arguments cut where they alone are too long.
    """
    examples, calls = list(question.examples), min(CALLS_SHOWN, len(question.past.calls))
    most_text = 4_000
    while True:
        text = _text(question, examples, calls, most_text)
        if _size(text) + _size(RULES) <= most_bytes or most_text <= 1:
            return Message("system", RULES), Message("user", text)
        if len(examples) > 1 and len(examples) >= calls:
            examples.pop()
        elif calls > 1:
            calls -= 1
        else:
            most_text //= 2


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))


def _text(question: Question, examples: Sequence[Example], calls: int, most: int) -> str:
    parts = [_tool(question, most), *(_example(number, item, most) for number, item in enumerate(examples, 1))]
    past = question.past
    if calls:
        shown = zip(past.calls[-calls:], past.results[-calls:], strict=True)
        lines = [f"{_cut(call_text(call), most)}\n-> {_cut(result.text, most)}" for call, result in shown]
        parts.append("This run so far:\n" + "\n".join(lines))
    parts.append(f"The call to answer:\n{_cut(call_text(question.call), most)}\nResult:")
    return "\n\n".join(parts)


def _tool(question: Question, most: int) -> str:
    if question.tool is None:
        return f"Tool: {question.call.name}"
    function = question.tool.get("function", question.tool)
    schema = canonical_json(function.get("parameters") or {})
    said = str(function.get("description") or "")
    return f"Tool: {question.call.name}\n{_cut(said, most)}\nParameters: {_cut(schema, most)}"


def _example(number: int, example: Example, most: int) -> str:
    before = f"After: {_cut('; '.join(example.before), most)}\n" if example.before else ""
    called = f"{_cut(call_text(example.call), most)}\n-> {_cut(example.result.text, most)}"
    return f"Recorded example {number}\n{before}{called}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def answers(proposals: Sequence[Proposal]) -> list[str]:
    """The texts of usable answers: a call or an empty message is none. A code fence around all of it is taken off."""
    said = [_bare(item.action.text) for item in proposals if not item.action.tool_calls]
    return [text for text in said if text]


def _bare(text: str) -> str:
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and text.count("```") == 2 and "\n" in text:
        text = text[text.index("\n") + 1 : -3].strip()
    return text


def agreement(texts: Sequence[str]) -> Agreement:
    """The most frequent answer, of equal ones the first; texts that are the same JSON value are one answer.

    Raises ValueError for no texts.
    """
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(_value(text), []).append(text)
    if not groups:
        raise ValueError("no answer")
    best = max(groups.values(), key=len)
    share = len(best) / len(texts) if len(texts) > 1 else None
    return Agreement(best[0], share, len(texts), len(best))


def _value(text: str) -> str:
    try:
        return "json:" + canonical_json(json.loads(text))
    except (ValueError, RecursionError):
        return "text:" + text
