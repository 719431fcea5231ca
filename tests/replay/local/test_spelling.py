"""Words under a grammar are spelt as the tokenizer does, every text stays sayable, free text is left alone."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("llguidance")

from ttc_replay.replay.local.grammar import CallGrammars  # noqa: E402
from ttc_replay.replay.local.spelling import Spelled, Spelling  # noqa: E402

WORDS = ["post", "posted", "search", "debit", "größe", "amount", "account"]


def tool(words: list[str], text: bool = False) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {"word": {"enum": words}, **({"text": {"type": "string"}} if text else {})},
        "required": ["word"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": "say", "parameters": parameters}}


@pytest.fixture(scope="module")
def parts(tiny_model: Any, chat: Any) -> tuple[CallGrammars, Spelling, Any]:
    grammars = CallGrammars(tiny_model.tokenizer, tiny_model.vocabulary_size, chat.end_tokens)
    spelling = Spelling(lambda text: tiny_model.tokenizer.encode(text, add_special_tokens=False), grammars.bytes_of)
    return grammars, spelling, tiny_model.tokenizer


def walk(constraint: Any, seed: int, end_tokens: frozenset[int]) -> list[int]:
    """Random allowed tokens up to an end token."""
    rng = random.Random(seed)
    said: list[int] = []
    while not said or said[-1] not in end_tokens:
        allowed = constraint.allowed().nonzero()[:, 0].tolist()
        assert allowed
        ends = [token for token in allowed if token in end_tokens]
        said.append(rng.choice(ends or allowed))
        constraint.accept(said[-1])
        assert len(said) < 600
    return said


def spelt(parts: Any, chat: Any, words: list[str], text: bool = False) -> Spelled:
    grammars, spelling, _ = parts
    return Spelled(grammars.constraint_for([tool(words, text)], chat.style, "required"), spelling)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True))
def test_every_walk_is_a_call_and_a_word_with_no_other_like_it_is_spelt_as_the_tokenizer_does(
    parts: Any, chat: Any, seed: int, words: list[str]
) -> None:
    tokenizer = parts[2]
    said = walk(spelt(parts, chat, words), seed, chat.end_tokens)
    arguments = chat.decode(said, [tool(words)]).tool_calls[0].arguments
    assert arguments["word"] in words
    alone = not any(other != arguments["word"] and other[0] == arguments["word"][0] for other in words)
    if alone:
        text = tokenizer.decode(said, skip_special_tokens=False)
        assert said == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("word", WORDS)
def test_no_word_is_lost(parts: Any, chat: Any, word: str) -> None:
    """The tokenizer's spelling of every call is allowed, token by token."""
    tokenizer = parts[2]
    text = chat.style.write([("say", json.dumps({"word": word}, ensure_ascii=False))]) + chat.style.end
    constraint = spelt(parts, chat, WORDS)
    for token in tokenizer.encode(text, add_special_tokens=False):
        assert bool(constraint.allowed()[token]), tokenizer.decode([token])
        constraint.accept(token)


def test_other_spellings_go_and_nothing_is_added(parts: Any, chat: Any) -> None:
    """Up to the word the grammar alone allows the first letter of a word; the spelling does not."""
    grammars, _, tokenizer = parts
    plain = grammars.constraint_for([tool(["search", "debit"])], chat.style, "required")
    constraint = spelt(parts, chat, ["search", "debit"])
    before = chat.style.write([("say", '{"word": "')]).partition('{"word": "')
    for token in tokenizer.encode(before[0] + before[1], add_special_tokens=False):
        plain.accept(token)
        constraint.accept(token)
    letters = {tokenizer.decode([token]) for token in plain.allowed().nonzero()[:, 0].tolist()}
    kept = {tokenizer.decode([token]) for token in constraint.allowed().nonzero()[:, 0].tolist()}
    assert {"d", "s"} <= letters
    firsts = {
        tokenizer.decode([tokenizer.encode(f'"{word}"', add_special_tokens=False)[1]]) for word in ("search", "debit")
    }
    assert kept == firsts < letters


def test_inside_a_string_everything_stays(parts: Any, chat: Any) -> None:
    grammars, _, tokenizer = parts
    plain = grammars.constraint_for([tool(["post"], text=True)], chat.style, "required")
    constraint = spelt(parts, chat, ["post"], text=True)
    text = chat.style.write([("say", '{"word": "post", "text": "')]).partition('"text": "')
    for token in tokenizer.encode(text[0] + text[1], add_special_tokens=False):
        plain.accept(token)
        constraint.accept(token)
    assert torch.equal(plain.allowed(), constraint.allowed())
    assert int(plain.allowed().sum()) > 64


def test_a_copy_goes_its_own_way(parts: Any, chat: Any) -> None:
    constraint = spelt(parts, chat, WORDS)
    other = constraint.copy()
    token = int(constraint.allowed().nonzero()[0, 0])
    constraint.accept(token)
    assert bool(other.allowed()[token])
    with pytest.raises(ValueError, match="not allowed"):
        constraint.accept(next(iter(chat.end_tokens)))


def test_where_the_tokenizer_cannot_tell_the_spelling_stays_open() -> None:
    """Bytes that are no text, and a tokenizer that takes the quote and the word together."""
    ids = {'"': [7], '"ab': [9], '"cd': [7, 1]}
    spelling = Spelling(lambda text: ids[text], lambda token: {1: b"a", 2: b"\xff", 3: b"c"}[token])
    assert spelling.first(1, b"b") is None
    assert spelling.first(2, b"b") is None
    assert spelling.first(3, b"d") == 1
