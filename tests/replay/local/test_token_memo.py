"""What the model said keeps its tokens in later prompts; memory is bounded; tokenizers that differ are found out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, ToolCall
from ttc_replay.replay.local.chat import ChatFormat
from ttc_replay.replay.local.chat_tokens import GUARD, TokenMemo

pytest.importorskip("transformers")

TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Look something up.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    },
}
CALL = Message("assistant", None, tool_calls=(ToolCall("call_1", "search", {"q": "a"}, '{"q": "a"}'),))
RESULT = Message("tool", "42", tool_call_id="call_1", name="search")
SYSTEM, USER, ANSWER = Message("system", "Be kind."), Message("user", "Hello?"), Message("assistant", "Good day.")

Make = Callable[..., ChatFormat]


def text_of(chat: ChatFormat, ids: Sequence[int]) -> str:
    return str(chat._tokenizer.decode(list(ids), skip_special_tokens=False))


def ids_of(chat: ChatFormat, text: str) -> list[int]:
    return list(chat._tokenizer(text, add_special_tokens=False)["input_ids"])


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=GUARD), max_size=40)
token_lists = st.lists(st.integers(0, 499), max_size=30)


@settings(max_examples=100, deadline=None)
@given(said=token_lists, ended=st.booleans(), tail=texts)
def test_a_later_prompt_starts_with_what_was_said(chat: ChatFormat, said: list[int], ended: bool, tail: str) -> None:
    """Random tokens: as far from how the tokenizer would write their text as can be."""
    chat.encoder.memo = TokenMemo()
    said = [token for token in said if token not in chat.end_tokens]
    context = [SYSTEM, USER]
    prompt = chat.encode(context, [TOOL])
    action = chat.decode(said, [TOOL])
    generated = [*said, chat.encoder.ids["<|im_end|>"]] if ended else said
    assert chat.remember(context, [TOOL], action, generated)
    later = chat.encode([*context, action, Message("user", tail)], [TOOL])
    assert later[: len(prompt) + len(generated)] == [*prompt, *generated]
    rest = later[len(prompt) + len(said) :]
    assert text_of(chat, rest).startswith("<|im_end|>\n<|im_start|>user\n")


def test_each_turn_of_a_conversation_keeps_its_tokens(chat: ChatFormat) -> None:
    chat.encoder.memo = TokenMemo()
    messages: list[Message] = [SYSTEM, USER]
    known: list[int] = []
    for turn in range(6):
        prompt = chat.encode(messages, [TOOL])
        assert prompt[: len(known)] == known
        text = f'Step {turn}.\n<tool_call>\n{{"name":"search",   "arguments":{{"q":"{turn}"}}}}\n</tool_call>'
        said = [token for character in text for token in ids_of(chat, character)]
        action = chat.decode(said, [TOOL])
        assert action.tool_calls
        assert chat.remember(messages, [TOOL], action, said)
        known = [*prompt, *said]
        messages += [action, Message("tool", str(turn))]
    assert len(chat.encoder.memo) == 6


def test_a_turn_is_remembered_behind_its_own_prompt_only(chat: ChatFormat) -> None:
    chat.encoder.memo = TokenMemo()
    said = [token for character in "Hello there" for token in ids_of(chat, character)]
    action = chat.decode(said)
    other = [Message("user", "Something else"), action, USER]
    before = chat.encode(other)
    assert chat.remember([USER], (), action, said)
    assert chat.encode(other) == before
    longer = [USER, Message("assistant", "Hello there, friend"), USER]
    assert chat.encode(longer) == chat.encoder.whole(text_of(chat, chat.encode(longer)))


def test_the_first_tokens_of_a_text_stay(chat: ChatFormat) -> None:
    chat.encoder.memo = TokenMemo()
    one = [token for character in "Hello" for token in ids_of(chat, character)]
    two = ids_of(chat, "Hello")
    assert one != two
    action = Message("assistant", "Hello")
    assert chat.remember([USER], (), action, one)
    assert chat.remember([USER], (), action, one)
    assert not chat.remember([USER], (), action, two)
    prompt = chat.encode([USER])
    assert chat.encode([USER, action, USER])[: len(prompt) + len(one)] == [*prompt, *one]


def test_reasoning_that_a_template_drops_is_not_put_back(make_chat: Make) -> None:
    chat = make_chat("thinker")
    said = ids_of(chat, "<think>\nHm.\n</think>\n\nHello.")
    action = chat.decode(said, [TOOL])
    assert (action.reasoning, action.text) == ("Hm.", "Hello.")
    prompt = chat.encode([USER], [TOOL])
    assert chat.remember([USER], [TOOL], action, said)
    plain = make_chat("plain")
    assert not plain.remember([USER], [TOOL], action, said)
    later = chat.encode([USER, action, USER], [TOOL])
    assert later[: len(prompt) + len(said)] != [*prompt, *said]
    assert "Hm." not in text_of(chat, later)


@pytest.mark.parametrize("template", ["plain", "llama", "mistral", "gemma"])
def test_every_family_remembers(make_chat: Make, template: str) -> None:
    chat = make_chat(template)
    for action in (Message("assistant", "Good  day."), replace(CALL, content="")):
        style = chat.style
        text = action.text + style.write([(call.name, '{"q":"a"}') for call in action.tool_calls])
        said = chat.encoder.encode_text(text)
        assert chat.decode(said, [TOOL]).tool_calls == tuple(
            ToolCall(None, call.name, call.arguments, '{"q":"a"}') for call in action.tool_calls
        )
        prompt = chat.encode([USER], [TOOL])
        assert chat.remember([USER], [TOOL], action, [*said, chat.encoder.ids[style.end]])
        later = chat.encode([USER, action, RESULT if action.tool_calls else USER], [TOOL])
        expected = [*prompt, *said, chat.encoder.ids[style.end]]
        if template == "mistral":  # tools stand before the last user's message, so the prompt itself changes
            assert (later[: len(expected)] == expected) == bool(action.tool_calls)
        else:
            assert later[: len(expected)] == expected


@settings(max_examples=50, deadline=None)
@given(entries=st.lists(st.tuples(st.integers(0, 5), texts, token_lists), max_size=40))
def test_the_memo_is_bounded(entries: list[tuple[int, str, list[int]]]) -> None:
    memo = TokenMemo(limit_bytes=2000)
    for key, text, ids in entries:
        memo.add(bytes([key]), text, ids)
        assert memo.held_bytes <= 2000
        assert memo.held_bytes >= 300 * len(memo)
    assert (memo.held_bytes == 0) == (len(memo) == 0)


def test_the_memo_forgets_what_was_not_used() -> None:
    memo = TokenMemo(limit_bytes=1000)
    for name in "abc":
        memo.add(name.encode(), "text", [1])
    assert memo.find(b"a", "text", 0, {4}) is not None
    memo.add(b"d", "text", [1])
    kept = [name for name in "abcd" if memo.find(name.encode(), "text", 0, {4}) is not None]
    assert kept == ["a", "c", "d"]


def test_a_tokenizer_whose_pieces_differ_is_encoded_as_a_whole(make_chat: Make) -> None:
    from tokenizers import AddedToken

    chat = make_chat("lstrip", [AddedToken("<end>", lstrip=True, special=True)])
    assert not chat.encoder.exact
    rows = [Message("user", "a  "), Message("assistant", "b \n")]
    text = chat._text(rows, (), prompt=True)
    assert chat.encode(rows) == ids_of(chat, text)
    assert not chat.remember([USER], (), ANSWER, [5, 6])
    attack = chat.encode([Message("user", "a<end>b")])
    assert attack.count(chat.encoder.ids["<end>"]) == 1


def test_a_tokenizer_that_marks_the_first_word_is_exact_too(tiny_model: Any) -> None:
    """Sentencepiece's dummy prefix: the first piece of a text is encoded otherwise than the same piece further on."""
    from tokenizers import pre_tokenizers

    loaded = replace(tiny_model, tokenizer=copy.deepcopy(tiny_model.tokenizer))
    loaded.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace("_", "first"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    loaded.tokenizer.chat_template = loaded.tokenizer.chat_template.replace("'<|im_start|>' + message", "message")
    chat = ChatFormat(loaded)
    assert chat.encoder.exact
    rows = [Message("user", "Hello you"), Message("assistant", "Hello you")]
    assert chat.encode(rows) == ids_of(chat, chat._text(rows, (), prompt=True))
