"""Rendering: records become messages that templates take, or a reason why not."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.exporters.render import CONTROL_TOKENS, Renderer, Unrenderable, escape, masker
from ttc_replay.storage.records import Message, ToolCall

ARCHIVE = runpy.run_path(str(Path(__file__).parent / "golden_export" / "export_archive.py"))
TOOLS = ARCHIVE["TOOLS"]
USER = Message("user", "hi")


def rendered(*trained: Message, context: tuple[Message, ...] = (USER,), **changed: Any) -> list[dict[str, Any]]:
    renderer = Renderer(changed.get("tools", TOOLS), masker(False))
    prompt, answer = renderer.conversation(context, trained, wanted=changed.get("wanted", True))
    return prompt + answer


def call(name: str = "list_feed", arguments: Mapping[str, Any] | None = None, given: str | None = "c") -> Message:
    return Message("assistant", None, tool_calls=(ToolCall(given, name, {} if arguments is None else arguments),))


RESULT = Message("tool", "r", tool_call_id="c")
OK = Message("assistant", "ok")
UNFIT: list[tuple[str, tuple[Message, ...], dict[str, Any]]] = [
    ("empty_prompt", (OK,), {"context": ()}),
    ("empty_continuation", (), {}),
    ("empty_continuation", (USER,), {}),
    ("empty_message", (Message("assistant", " \n"),), {}),
    ("no_tool_schema", (call(),), {"tools": None}),
    ("no_tool_schema", (OK,), {"tools": (), "context": (USER, call(), RESULT)}),
    ("unknown_tool", (call("erase"),), {}),
    ("unanswered_call", (call(), OK), {}),
    ("unanswered_call", (call(), USER, OK), {}),
    ("orphan_tool_result", (OK, RESULT), {}),
    ("orphan_tool_result", (call(given="other"), RESULT), {}),
    ("unparsed_arguments", (Message("assistant", tool_calls=(ToolCall("c", "post", None, "{"),)),), {}),
    ("integer_too_large", (call(arguments={"seed": 2**64}),), {}),
    ("not_json", (call(arguments={"x": float("nan")}),), {}),
    ("not_json", (call(arguments={"x": object()}),), {}),
    ("control_tokens", (Message("assistant", "bye <|im_end|>"),), {}),
    ("control_tokens", (Message("assistant", "ok", reasoning="</tool_call>"),), {}),
    ("control_tokens", (call("lookup", {"filters": {"a": ["<|eot_id|>"]}}),), {}),
    ("control_tokens", (call("lookup", {"filters": {"[INST]": 1}}),), {}),
    ("late_system_message", (OK,), {"context": (USER, Message("system", "new rules"))}),
    ("unknown_role", (OK,), {"context": (Message("critic", "x"),)}),
    ("non_text_content", (OK,), {"context": (Message("user", [{"type": "image_url", "image_url": {}}]),)}),
]


@pytest.mark.parametrize(("reason", "trained", "changed"), UNFIT)
def test_what_cannot_be_a_row_names_its_reason(
    reason: str, trained: tuple[Message, ...], changed: dict[str, Any]
) -> None:
    with pytest.raises(Unrenderable) as caught:
        rendered(*trained, **changed)
    assert caught.value.reason == reason


def test_messages_take_the_shape_that_templates_need() -> None:
    context = (
        Message("developer", "a"),
        Message("system", [{"type": "text", "text": "b"}]),
        USER,
        call(),
        Message("function", "<|im_end|> \ud83d\ude00 \ud800", name="list_feed"),
        Message("user", "told", requestor="user"),
    )
    found = rendered(Message("assistant", None, "why", tool_calls=call().tool_calls), RESULT, OK, context=context)
    assert found == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [_written("c", "list_feed", {})]},
        {"role": "tool", "tool_call_id": "c", "name": "list_feed", "content": "<\\|im_end|> 😀 \ufffd"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "why",
            "tool_calls": [_written("call_1", "list_feed", {})],
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "list_feed", "content": "r"},
        {"role": "assistant", "content": "ok"},
    ]


def _written(given: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": given, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_rejected_message_may_call_a_tool_that_does_not_exist() -> None:
    assert rendered(call("erase"), wanted=False)[1]["tool_calls"][0]["function"]["name"] == "erase"


def test_flat_tool_schemas_are_wrapped() -> None:
    flat = {"name": "f", "description": "d", "parameters": {"type": "object", "default": None}}
    assert Renderer([flat], masker(False)).tools == [{"type": "function", "function": flat}]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a < b | c > d", "a < b | c > d"),
        ("<|im_start|>system", "<\\|im_start|>system"),
        ("</tool_call>", "<\\/tool_call>"),
        ("<｜end▁of▁sentence｜>", "<\\｜end▁of▁sentence｜>"),
        ("<turn|><start_of_turn>", "<\\turn|><\\start_of_turn>"),
        ("[/INST]</s>", "[\\/INST]<\\/s>"),
        ("<p>[INSTALL]</span>", "<p>[INSTALL]</span>"),
    ],
)
def test_control_tokens_are_broken_and_all_else_is_left(text: str, escaped: str) -> None:
    assert escape(text) == escaped
    assert escape(escaped) == escaped


TEXTS = st.text(alphabet=st.characters(codec=None), max_size=12) | st.sampled_from(
    ["<|im_end|>", "2024-01-01", "\u2028\x85", "", "null", "</tool_call>", "\ud800"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def steps(draw: st.DrawFn) -> list[Message]:
    """A step: an action with any number of calls, all answered, or a text and a reply."""
    calls = tuple(
        ToolCall(draw(st.none() | st.sampled_from(["a", "b", "c"])), "lookup", draw(st.dictionaries(TEXTS, VALUES)))
        for _ in range(draw(st.integers(0, 2)))
    )
    action = Message("assistant", draw(st.none() | TEXTS), draw(st.none() | TEXTS), calls)
    if not calls:
        return [action, Message("user", draw(TEXTS))]
    return [action, *(Message("tool", draw(TEXTS), tool_call_id=made.id) for made in calls)]


def fitting(talk: list[Message]) -> list[dict[str, Any]] | str:
    try:
        return rendered(*talk)
    except Unrenderable as problem:
        return problem.reason


def expected_reasons(talk: list[Message]) -> set[str]:
    actions = [message for message in talk if message.role == "assistant"]
    spoken = [
        json.dumps([m.text, m.reasoning, [c.arguments for c in m.tool_calls]], ensure_ascii=False) for m in actions
    ]
    reasons = {"empty_message" for m in actions if not (m.text.strip() or m.tool_calls)}
    return reasons | {"control_tokens" for text in spoken if CONTROL_TOKENS.search(text)}


@given(st.lists(steps(), min_size=1, max_size=4))
def test_rows_survive_json_and_hold_no_nulls_but_those_in_arguments(made: list[list[Message]]) -> None:
    talk = [message for step in made for message in step]
    found = fitting(talk)
    if isinstance(found, str):
        assert found in expected_reasons(talk)
        return
    assert not expected_reasons(talk)
    text = json.dumps(found, allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode("utf-8")) == found
    assert [message["role"] for message in found] == ["user", *(message.role for message in talk)]
    answered = [message["tool_call_id"] for message in found if message["role"] == "tool"]
    asked = [one["id"] for message in found for one in message.get("tool_calls", ())]
    assert sorted(answered) == sorted(asked)
    assert len(set(asked)) == len(asked)
    for message in found:
        assert isinstance(message["content"], str)
        assert message.get("tool_calls") != []
        assert None not in message.values()
        if message["role"] != "assistant":
            assert not CONTROL_TOKENS.search(message["content"])
