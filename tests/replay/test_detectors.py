"""Detectors find what they claim, and nothing in a run that is clean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ttc_replay import Message, Step, Task, ToolCall, Trajectory
from ttc_replay.replay.detectors import detect, is_error, results, step_tool
from ttc_replay.replay.identifiers import identifiers, seen_in

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "refund",
            "parameters": {
                "type": "object",
                "properties": {"order_id": {"type": "string"}, "cents": {"type": "integer"}},
                "required": ["order_id"],
            },
        },
    },
    {"type": "function", "function": {"name": "find", "parameters": {}}},
    {"type": "function", "function": {"name": "transfer_to_human", "parameters": {}}},
]


def call(name: str, answer: str = "ok", raw: str | None = None, **arguments: Any) -> tuple[Message, Message]:
    """One action with one call, and its result."""
    made = ToolCall("c", name, None if raw is not None else arguments, raw)
    return Message("assistant", None, tool_calls=(made,)), Message("tool", answer, tool_call_id="c", name=name)


def say(text: str, reply: str = "go on") -> tuple[Message, Message]:
    return Message("assistant", text), Message("user", reply)


def run(*steps: Sequence[Message], tools: Any = TOOLS, prompt: str = "Order A-1001 never came.") -> Trajectory:
    made = [Step(index, action, tuple(seen)) for index, (action, *seen) in enumerate(steps)]
    return Trajectory("t", Task("t"), tools=tools, prompt=(Message("user", prompt),), steps=made)


CLEAN = run(
    call("find", '{"order": "A-1001", "payment": "card_7734"}'),
    call("refund", order_id="A-1001", cents=500),
    say("Your refund is on its way."),
)
REFUSED = 'Error: order is "locked"'
CASES: dict[str, tuple[Trajectory, list[tuple[int, str, str | None]]]] = {
    "clean": (CLEAN, []),
    "an id from an observation is no invention": (
        run(call("find", '{"order": "B-2002"}'), call("refund", order_id="B-2002")),
        [],
    ),
    "an id in another case is none": (run(call("refund", order_id="a-1001")), []),
    "an invented id": (run(call("refund", order_id="B-2002")), [(0, "invented-id", "refund")]),
    "an id that is part of another": (run(call("refund", order_id="A-100")), [(0, "invented-id", "refund")]),
    "an id that only the agent said": (
        run(say("It must be Z-777."), call("find", order_id="Z-777")),
        [(1, "invented-id", "find")],
    ),
    "an id read too late": (
        run(call("refund", '{"see": "B-2002"}', order_id="B-2002")),
        [(0, "invented-id", "refund")],
    ),
    "the same call twice in a row": (
        run(call("find", q="x"), call("find", q="x")),
        [(1, "loop", "find")],
    ),
    "the same call with another answer": (run(call("find", "1", q="x"), call("find", "2", q="x")), []),
    "the same call three times": (
        run(call("find", q="x"), say("Hm."), call("find", q="x"), say("Well."), call("find", q="x")),
        [(4, "loop", "find")],
    ),
    "the same words twice": (run(say("Which order?", "?"), say("Which order?", "?")), [(1, "loop", None)]),
    "the same error again": (
        run(
            call("refund", REFUSED, order_id="A-1001", cents=1),
            call("refund", REFUSED, order_id="A-1001", cents=2),
            say("I cannot refund it."),
        ),
        [(1, "repeated-error", "refund"), (2, "gave-up", None)],
    ),
    "an error passed over": (
        run(call("refund", REFUSED, order_id="A-1001"), say("All done!")),
        [(0, "ignored-error", "refund")],
    ),
    "an error told": (run(call("refund", REFUSED, order_id="A-1001"), say("The refund was refused.")), []),
    "an error tried again": (
        run(call("refund", REFUSED, order_id="A-1001"), say("One moment."), call("refund", order_id="A-1001", cents=1)),
        [],
    ),
    "an empty answer": (run(say("  ")), [(0, "empty-answer", None)]),
    "no JSON object": (run(call("refund", raw='{"order_id": ')), [(0, "malformed-arguments", "refund")]),
    "a required argument missing": (run(call("refund", cents=1)), [(0, "malformed-arguments", "refund")]),
    "an unknown argument": (
        run(call("refund", order_id="A-1001", why="late")),
        [(0, "malformed-arguments", "refund")],
    ),
    "an argument of another type": (
        run(call("refund", order_id="A-1001", cents="5 euro")),
        [(0, "malformed-arguments", "refund")],
    ),
    "true is no number": (run(call("refund", order_id="A-1001", cents=True)), [(0, "malformed-arguments", "refund")]),
    "a whole float is one": (run(call("refund", order_id="A-1001", cents=5.0)), []),
    "a tool without a schema takes anything": (run(call("find", anything=[1, {"x": None}])), []),
    "an unknown tool": (run(call("explode")), [(0, "unknown-tool", "explode")]),
    "without schemas every tool may be": (run(call("explode"), tools=None), []),
    "handing over": (run(call("transfer_to_human")), [(0, "gave-up", "transfer_to_human")]),
    "giving up in words": (run(say("I'm unable to help with that.")), [(0, "gave-up", None)]),
    "not at the end": (run(say("I am unable to see it. Which one?"), call("find", q="x")), []),
    "nothing at all": (run(), []),
}


@pytest.mark.parametrize(("record", "expected"), CASES.values(), ids=CASES)
def test_what_is_found(record: Trajectory, expected: list[tuple[int, str, str | None]]) -> None:
    assert [(item.step, item.kind, item.tool) for item in detect(record)] == expected
    assert all(item.detail for item in detect(record))


ERRORS = {
    "Error: no": True,
    "error": True,
    "ValueError: bad": True,
    "sqlite3.OperationalError: no such table": True,
    "Traceback (most recent call last):\n": True,
    '{"error": "gone"}': True,
    '{"error": null, "rows": []}': False,
    '{"errors": 0, "note": "\\"error\\" is a word"}': False,
    "no errors": False,
    "Errors were: none": False,
    "": False,
    '{"error": broken': False,
}


@pytest.mark.parametrize(("text", "failed"), ERRORS.items())
def test_what_counts_as_an_error(text: str, failed: bool) -> None:
    assert is_error(Message("tool", text)) is failed
    assert is_error(Message("tool", text, is_error=True))


IDENTIFIERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "by name": ({"order_id": "A1x", "userId": "u77", "invoice": "S-2", "account": 6250}, ["A1x", "u77", "S-2", "6250"]),
    "by shape": ({"flight": "HAT170", "what": "INV-0042"}, ["HAT170", "INV-0042"]),
    "inside": ({"flights": [{"flight_number": "HAT069"}, {"flight_number": "HAT118"}]}, ["HAT069", "HAT118"]),
    "not dates or times": ({"date": "2024-05-20", "id": "2024-05-20", "line": "12:30", "month_id": "2025-03"}, []),
    "not words": ({"code": "JFK", "currency": "EUR", "id": "blue", "name": "Ana Lee 2"}, []),
    "not amounts": ({"amount": 120, "price": "12.50", "seats": 3}, []),
    "not truths": ({"id": True, "order_id": None}, []),
}


@pytest.mark.parametrize(("arguments", "expected"), IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_what_looks_like_an_identifier(arguments: dict[str, Any], expected: list[str]) -> None:
    assert [value for _, value in identifiers(arguments)] == expected


def test_an_identifier_is_seen_as_a_whole_word() -> None:
    assert seen_in("#W12", ["order W12."])
    assert seen_in("w-1.5", [json.dumps({"a": "W-1.5"})])
    assert not seen_in("W12", ["W123", "XW12"])


def test_results_are_matched_by_id_then_in_order() -> None:
    calls = (ToolCall("a", "x", {}), ToolCall(None, "y", {}), ToolCall("c", "z", {}))
    answers = (Message("tool", "3", tool_call_id="c"), Message("user", "hi"), Message("tool", "2"))
    step = Step(0, Message("assistant", None, tool_calls=calls), answers)
    assert [(made.name, answer.text if answer else None) for made, answer in results(step)] == [
        ("x", "2"),
        ("y", None),
        ("z", "3"),
    ]
    assert step_tool(step) == "x+y+z"
