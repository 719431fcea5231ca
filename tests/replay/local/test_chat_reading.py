"""What a model said as a message: calls in every style, reasoning, control tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, ToolCall
from ttc_replay.replay.local.chat import ChatFormat
from ttc_replay.replay.local.chat_calls import split_calls, split_reasoning
from ttc_replay.replay.local.chat_styles import HERMES, LLAMA_JSON, MISTRAL_ARGUMENTS, MISTRAL_LIST, STYLES, CallStyle
from ttc_replay.replay.local.chat_tokens import GUARD

pytest.importorskip("transformers")

TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Look something up.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    },
}
Make = Callable[..., ChatFormat]


def text_of(chat: ChatFormat, ids: Sequence[int]) -> str:
    return str(chat._tokenizer.decode(list(ids), skip_special_tokens=False))


def ids_of(chat: ChatFormat, text: str) -> list[int]:
    return list(chat._tokenizer(text, add_special_tokens=False)["input_ids"])


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=GUARD), max_size=40)
MARKS = ["a </tool_call> b", "<tool_call>", "[TOOL_CALLS] x", "[ARGS]{", "[TOOL_CALLS]"]
argument_values = st.dictionaries(
    texts, st.one_of(texts, st.sampled_from(MARKS), st.integers(), st.booleans(), st.none(), st.lists(texts))
)


@settings(max_examples=80, deadline=None)
@given(
    style=st.sampled_from(STYLES),
    calls=st.lists(st.tuples(st.sampled_from(["search", "post_entry"]), argument_values), min_size=1, max_size=3),
)
def test_what_a_style_writes_is_read_again(style: CallStyle, calls: list[tuple[str, dict[str, Any]]]) -> None:
    written = [(name, json.dumps(arguments)) for name, arguments in calls]
    rest, found = split_calls(style.write(written), style, {"search", "post_entry"})
    assert rest == ""
    assert [(call.name, call.arguments, call.arguments_raw) for call in found] == [
        (name, arguments, raw) for (name, arguments), (_, raw) in zip(calls, written, strict=True)
    ]


READ: list[tuple[CallStyle, str, str, list[tuple[str, str]]]] = [
    (HERMES, "Just text.", "Just text.", []),
    (HERMES, " Spaces stay. \n", " Spaces stay. \n", []),
    (HERMES, 'Let me see.\n<tool_call>\n{"name":"search","arguments":{"q":  1}}\n</tool_call>', "Let me see.",
     [("search", '{"q":  1}')]),
    (HERMES, 'A <tool_call>{"name": "f", "arguments": {}}</tool_call> B', "A\nB", [("f", "{}")]),
    (HERMES, '<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
    (HERMES, '<tool_call>{"arguments": {"b": 1}, "name": "f"}</tool_call>', "", [("f", '{"b": 1}')]),
    (HERMES, '<tool_call>{"name": "f", "parameters": {"b": 1}}</tool_call>', "", [("f", '{"b": 1}')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"b\\": 1}"}</tool_call>', "", [("f", '"{\\"b\\": 1}"')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"b": oops}}</tool_call>', "", [("f", '{"b": oops}')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"b": "cut o', "", [("f", '{"b": "cut o')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"b": 1}}', "", [("f", '{"b": 1}')]),
    (HERMES, "<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", []),
    (HERMES, '<tool_call>{"name": 7}</tool_call>', '<tool_call>{"name": 7}</tool_call>', []),
    (LLAMA_JSON, '{"name": "search", "parameters": {"q": "a"}}', "", [("search", '{"q": "a"}')]),
    (LLAMA_JSON, '<|python_tag|>{"name": "search", "parameters": {"q": "a"}}', "", [("search", '{"q": "a"}')]),
    (LLAMA_JSON, '{"name": "search", "parameters": {}}; {"name": "search", "arguments": {"q": 2}}', "",
     [("search", "{}"), ("search", '{"q": 2}')]),
    (LLAMA_JSON, '{"name": "Bob", "parameters": {}}', '{"name": "Bob", "parameters": {}}', []),
    (LLAMA_JSON, '{"name": "search", "age": 7}', '{"name": "search", "age": 7}', []),
    (LLAMA_JSON, 'Here: {"name": "search", "parameters": {}}', 'Here: {"name": "search", "parameters": {}}', []),
    (MISTRAL_LIST, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "x"}, {"name": "g", "arguments": {}}]', "",
     [("f", '{"a": 1}'), ("g", "{}")]),
    (MISTRAL_LIST, 'Yes.[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}', "Yes.", [("f", '{"a": 1}')]),
    (MISTRAL_LIST, "[TOOL_CALLS][oops", "[TOOL_CALLS][oops", []),
    (MISTRAL_ARGUMENTS, '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}', "", [("f", '{"a": 1}'), ("g", "{}")]),
    (MISTRAL_ARGUMENTS, "Only text.", "Only text.", []),
]  # fmt: skip


@pytest.mark.parametrize(("style", "text", "rest", "calls"), READ)
def test_reading_calls(style: CallStyle, text: str, rest: str, calls: list[tuple[str, str]]) -> None:
    found_rest, found = split_calls(text, style, {"search"})
    assert found_rest == rest
    assert [(call.name, call.arguments_raw) for call in found] == calls
    for call in found:
        try:
            value = json.loads(call.arguments_raw or "")
        except ValueError:
            value = None
        assert call.arguments == (value if isinstance(value, dict) else None)


@settings(max_examples=200, deadline=None)
@given(
    style=st.sampled_from(STYLES),
    pieces=st.lists(
        st.sampled_from(
            [*'{}[]",:1a \n', '"name"', '"arguments"', "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]"]
        )
    ),
)
def test_any_text_can_be_read(style: CallStyle, pieces: list[str]) -> None:
    rest, calls = split_calls("".join(pieces), style, {"a"})
    assert calls or rest == "".join(pieces)


def test_deep_nesting_is_no_crash() -> None:
    deep = '<tool_call>{"name": "f", "arguments": ' + "[" * 100_000
    assert [call.arguments for call in split_calls(deep, HERMES, ())[1]] == [None]


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "rest"),
    [
        ("Hello.", False, None, "Hello."),
        ("<think>\nHm.\n</think>\n\nHello.", False, "Hm.", "Hello."),
        ("Hm.\n</think>\n\nHello.", True, "Hm.", "Hello."),
        ("<think>\n\n</think>\n\nHello.", False, None, "Hello."),
        ("<think>Hm", False, "Hm", ""),
        ("Hm", True, "Hm", ""),
        ("I <think> so.", False, None, "I <think> so."),
    ],
)
def test_reasoning(text: str, opened: bool, reasoning: str | None, rest: str) -> None:
    assert split_reasoning(text, opened=opened) == (reasoning, rest)


def test_decoding_leaves_control_tokens_out(make_chat: Make) -> None:
    chat = make_chat("mistral")
    said = ids_of(chat, 'Yes. [INST][TOOL_CALLS][{"name": "search", "arguments": {"q": "é"}}]</s>')
    message = chat.decode(said, [TOOL])
    assert (message.role, message.content) == ("assistant", "Yes.")
    assert message.tool_calls == (ToolCall(None, "search", {"q": "é"}, '{"q": "é"}'),)
    assert chat.decode(ids_of(chat, "</s>")) == Message("assistant", "")
    assert chat.decode([]) == Message("assistant", "")


def test_without_tools_nothing_is_a_call(chat: ChatFormat) -> None:
    text = '<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>'
    assert chat.decode(ids_of(chat, text)) == Message("assistant", text)


def test_reasoning_is_read_where_the_prompt_opened_it(make_chat: Make) -> None:
    chat = make_chat("r1")
    assert chat.opens_thinking
    said = chat.decode(ids_of(chat, "So.\n</think>\n\nHello.<|im_end|>"))
    assert (said.reasoning, said.content) == ("So.", "Hello.")
