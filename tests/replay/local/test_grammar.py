"""Tool calls under a grammar: every walk through the allowed tokens ends in a valid call, whatever the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("llguidance")

from ttc_replay.replay.local.chat_styles import HERMES, MISTRAL_ARGUMENTS, STYLES, CallStyle  # noqa: E402
from ttc_replay.replay.local.grammar import CallConstraint, CallGrammars  # noqa: E402

END, ALSO_END = 2, 0  # <|im_end|>, <|endoftext|>
PADDED = 512  # the tokenizer has 500
POST: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "post",
        "parameters": {
            "type": "object",
            "properties": {
                "account": {"type": "string", "enum": ["1200", "1300"]},
                "amount": {"type": "number"},
                "lines": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 3},
            },
            "required": ["account"],
        },
    },
}
POST_ALL: dict[str, Any] = {"name": "post_all"}
FREE: dict[str, Any] = {"name": "note", "parameters": {"type": "object"}}
TOOLS: list[dict[str, Any]] = [POST, POST_ALL, FREE]
NAMES = {"post", "post_all", "note"}
CALLS = [("post", '{"account": "1200", "lines": [3, 4]}'), ("post_all", "{}"), ("note", '{"a": [1, {"b": null}]}')]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny, local_files_only=True)


@pytest.fixture(scope="module")
def grammars(tokenizer: Any) -> CallGrammars:
    return CallGrammars(tokenizer, PADDED, {END, ALSO_END})


def tool(schema: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def says(tokenizer: Any, constraint: CallConstraint, text: str) -> str:
    """What of `text` is not allowed, from its first forbidden token on; empty when all of it is and may end there."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    for place, token in enumerate(ids):
        if not constraint.allowed()[token]:
            return str(tokenizer.decode(ids[place:]))
        constraint.accept(token)
    return "" if constraint.may_end and constraint.allowed()[END] else "the end"


# what is said in which mode


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
@pytest.mark.parametrize("thinking", [False, True])
def test_what_each_mode_lets_say(tokenizer: Any, grammars: CallGrammars, style: CallStyle, thinking: bool) -> None:
    thought = "so be it\n</think>\n\n" if thinking else ""
    one, three = style.write(CALLS[:1]), style.write(CALLS)
    before = "Let me see.\n" if style.marker else ""

    def refused(text: str, mode: Any, *, parallel: bool = False) -> str:
        constraint = grammars.constraint_for(TOOLS, style, mode, parallel=parallel, thinking=thinking)
        return says(tokenizer, constraint, thought + text)

    assert refused(one, "required") == ""
    assert refused(three, "required", parallel=True) == ""
    assert refused(before + one, "free") == ""
    assert refused(before + three, "free", parallel=True) == ""
    assert refused(three, "required") != ""
    assert refused(three, "free") != ""
    for mode in ("free", "none"):
        assert refused("I can not do {that}, <b>sorry</b> [1]", mode) == ""
        assert refused("", mode) == "" or thinking
    assert refused("I can not do that", "required") != ""
    assert refused("", "required") == "the end"
    assert refused(one, "none") != ""
    assert refused(before + one + " and more", "free") != ""


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_an_opened_call_must_be_a_valid_one(tokenizer: Any, grammars: CallGrammars, style: CallStyle) -> None:
    whole = style.write([("post", '{"account": "1200"}')])
    for wrong in (
        whole.replace("post", "pest"),
        whole.replace("1200", "1400"),
        whole.replace('{"account": "1200"}', "{}"),
        whole.replace('{"account": "1200"}', '{"account": "1200", "other": 1}'),
        whole.replace('": "1200', '":"1200'),
    ):
        assert wrong != whole
        constraint = grammars.constraint_for(TOOLS, style, "free")
        assert says(tokenizer, constraint, ("Well: " if style.marker else "") + wrong) != ""


def test_a_marker_that_is_not_finished_is_text(tokenizer: Any, grammars: CallGrammars) -> None:
    assert says(tokenizer, grammars.constraint_for(TOOLS, HERMES, "free"), "<tool_calm> <tool_call") == ""
    assert says(tokenizer, grammars.constraint_for(TOOLS, HERMES, "free"), "<tool_call>") == "the end"
    assert says(tokenizer, grammars.constraint_for(TOOLS, HERMES, "none"), "<tool_calm> <tool_call") == ""


def test_a_named_tool(tokenizer: Any, grammars: CallGrammars) -> None:
    for name, arguments in CALLS:
        text = HERMES.write([(name, arguments)])
        assert says(tokenizer, grammars.constraint_for(TOOLS, HERMES, named=name), text) == ""
        for other in NAMES - {name}:
            assert says(tokenizer, grammars.constraint_for(TOOLS, HERMES, named=other), text) != ""


def test_without_tools_only_text(tokenizer: Any, grammars: CallGrammars) -> None:
    assert says(tokenizer, grammars.constraint_for([], HERMES), "hello {there} <tool_call>") == ""


def test_thinking_must_end(tokenizer: Any, grammars: CallGrammars) -> None:
    constraint = grammars.constraint_for(TOOLS, HERMES, thinking=True)
    assert says(tokenizer, constraint, "I might <tool_call> this, or") == "the end"


def test_marks_that_are_special_tokens(tmp_path: Path, tokenizer: Any) -> None:
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    special = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    marks = ["[TOOL_CALLS]", "[ARGS]", "</think>"]
    special.add_special_tokens({"additional_special_tokens": [AddedToken(mark, special=True) for mark in marks]})
    made = CallGrammars(special, PADDED, {END})
    number = {mark: special.convert_tokens_to_ids(mark) for mark in marks}
    for style in (MISTRAL_ARGUMENTS, STYLES[0]):
        ids = special.encode(style.write(CALLS), add_special_tokens=False)
        assert number["[TOOL_CALLS]"] in ids
        constraint = made.constraint_for(TOOLS, style, parallel=True)
        assert says(special, constraint, style.write(CALLS)) == ""
        assert says(special, made.constraint_for(TOOLS, style, "required", parallel=True), style.write(CALLS)) == ""
        thinking = made.constraint_for(TOOLS, style, thinking=True)
        assert says(special, thinking, "hm</think>" + style.write(CALLS[:1])) == ""
        # neither the token nor its spelling opens a call in mere text
        assert not made.constraint_for(TOOLS, style, "none").allowed()[number["[TOOL_CALLS]"]]
        spelled = [token for letter in "[TOOL_CALLS]" for token in special.encode(letter, add_special_tokens=False)]
        for mode in ("none", "free"):
            text = made.constraint_for(TOOLS, style, mode)
            for token in spelled[:-1]:
                text.accept(token)
            assert not text.allowed()[spelled[-1]]


# the end, the vocabulary, the state


def test_end_tokens_are_allowed_exactly_where_the_turn_may_end(tokenizer: Any, grammars: CallGrammars) -> None:
    constraint = grammars.constraint_for(TOOLS, HERMES, named="post_all")
    for token in tokenizer.encode(HERMES.write(CALLS[1:2]), add_special_tokens=False):
        allowed = constraint.allowed()
        assert not allowed[END]
        assert not allowed[ALSO_END]
        constraint.accept(token)
    assert constraint.allowed().nonzero().flatten().tolist() == [ALSO_END, END]
    other = constraint.copy()
    constraint.accept(END)
    assert constraint.ended
    assert not constraint.allowed().any()
    assert not other.ended
    other.accept(ALSO_END)
    with pytest.raises(ValueError, match="token 2 is not allowed"):
        other.accept(END)


@pytest.mark.parametrize("mode", ["free", "none", "required"])
def test_padding_is_never_allowed(tokenizer: Any, mode: Any) -> None:
    for size in (500, 512, 640):
        mask = CallGrammars(tokenizer, size, {END}).constraint_for(TOOLS, HERMES, mode).allowed()
        assert (mask.dtype, mask.shape) == (torch.bool, (size,))
        assert mask.any()
        assert not mask[500:].any()


def test_a_forbidden_token_is_an_error_and_ends_the_branch(grammars: CallGrammars) -> None:
    constraint = grammars.constraint_for(TOOLS, HERMES, "required")
    with pytest.raises(ValueError, match="not allowed"):
        constraint.accept(END)
    assert not constraint.allowed().any()


def test_branches_do_not_share_their_state(tokenizer: Any, grammars: CallGrammars) -> None:
    one, other = (grammars.constraint_for(TOOLS, HERMES, "required") for _ in range(2))
    assert says(tokenizer, one, HERMES.write(CALLS[:1])) == ""
    assert says(tokenizer, other, HERMES.write(CALLS[2:])) == ""
