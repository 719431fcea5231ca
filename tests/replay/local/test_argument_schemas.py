"""Schemas of arguments: tightened, loosened and told, refused; and what values they let through."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("llguidance")

from ttc_replay.replay.local.argument_schemas import ANY_OBJECT, LARGEST_NUMBER, tightened  # noqa: E402
from ttc_replay.replay.local.chat_styles import HERMES, LLAMA_JSON, STYLES  # noqa: E402
from ttc_replay.replay.local.grammar import CallConstraint, CallGrammars  # noqa: E402
from ttc_replay.replay.local.grammar_text import Mode  # noqa: E402
from ttc_replay.storage.errors import UsageError  # noqa: E402

END, ALSO_END = 2, 0  # <|im_end|>, <|endoftext|>
PADDED = 512  # the tokenizer has 500
ACCOUNT = {"type": "object", "properties": {"account": {"enum": ["1200", "1300"]}}, "required": ["account"]}
POST: dict[str, Any] = {"type": "function", "function": {"name": "post", "parameters": ACCOUNT}}
POST_ALL: dict[str, Any] = {"name": "post_all"}
FREE: dict[str, Any] = {"name": "note", "parameters": {"type": "object"}}
TOOLS: list[dict[str, Any]] = [POST, POST_ALL, FREE]


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


@pytest.mark.parametrize(
    ("schema", "reason", "valid", "invalid"),
    [
        ({"not": {"type": "string"}}, 'ignored: Unimplemented keys: ["not"]', "1", None),
        ({"type": "string", "format": "color"}, "ignored: Unknown format: color", '"red"', "1"),
        ({"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}}, "ignored: Unimplemented", "[1, 2]", "[3]"),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "ignored: oneOf not fully supported", '"x"', None),
        ({"type": "string", "pattern": "^(?=a)b"}, "any JSON object: regex parse error", '"x"', None),
        ({"$ref": "elsewhere.json"}, "any JSON object: Resource", '"x"', None),
        ({"type": "str"}, "any JSON object: Invalid type: str", "1", None),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "any JSON object: Unsatisfiable", "1", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_grammar_cannot_express_is_told(
    tokenizer: Any, grammars: CallGrammars, schema: dict[str, Any], reason: str, valid: str, invalid: str | None
) -> None:
    tools = [tool({"type": "object", "properties": {"x": schema}, "required": ["x"]}), POST]
    told = grammars.unexpressed(tools)
    assert list(told) == ["f"]
    assert told["f"].startswith(reason)
    assert "\n" not in told["f"]
    text = HERMES.write([("f", f'{{"x": {valid}}}')])
    assert says(tokenizer, grammars.constraint_for(tools, HERMES), text) == ""
    if invalid is not None:
        text = HERMES.write([("f", f'{{"x": {invalid}}}')])
        assert says(tokenizer, grammars.constraint_for(tools, HERMES), text) != ""


def test_a_loosened_schema_is_logged_once(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    made = CallGrammars(tokenizer, PADDED, {END})
    tools = [tool({"type": "object", "properties": {"x": {"type": "string", "format": "color"}}}), POST]
    modes: tuple[Mode, ...] = ("free", "required", "free")
    for mode in modes:
        made.constraint_for(tools, HERMES, mode)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["tool f: its schema is not wholly in the grammar: ignored: Unknown format: color"]


def test_tools_that_are_too_much_together(tokenizer: Any, grammars: CallGrammars) -> None:
    lists = {
        f"p{at}": {"type": "array", "items": {"type": "string"}, "minItems": 3000, "maxItems": 4000} for at in range(60)
    }
    tools = [tool({"type": "object", "properties": lists}, f"f{at}") for at in range(30)]
    assert grammars.unexpressed(tools[:1]) == {}
    told = grammars.unexpressed(tools)
    assert len(told) == 30
    assert all(reason.startswith("any JSON object: all tools together: ") for reason in told.values())
    for style in STYLES:
        constraint = grammars.constraint_for(tools, style, "required", parallel=True)
        assert says(tokenizer, constraint, style.write([("f1", '{"q": 1}'), ("f29", "{}")])) == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "f", "parameters": ["a"]}, "tool f: its parameters are no JSON schema but list"),
        ({"name": "f", "parameters": "object"}, "tool f: its parameters are no JSON schema but str"),
        ({"name": "f", "parameters": {"type": "string"}}, "tool f: its parameters must be of type object"),
        (
            {"name": "f", "parameters": {"type": "object", "default": float("nan")}},
            "tool f: its parameters are no JSON",
        ),
        ({"name": "f", "parameters": {"type": "object", "x": {1, 2}}}, "tool f: its parameters are no JSON"),
        ({"parameters": {"type": "object"}}, "a tool without a name"),
        ({"type": "function", "function": None}, "a tool without a name"),
    ],
)
def test_a_schema_that_is_no_object(grammars: CallGrammars, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grammars.constraint_for([POST, wrong], HERMES)


def test_calls_that_cannot_be(grammars: CallGrammars, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="no tool is called pest") as caught:
        grammars.constraint_for(TOOLS, HERMES, named="pest")
    assert caught.value.hint == "there are: post, post_all, note"
    with pytest.raises(UsageError, match="there are no tools"):
        grammars.constraint_for([], HERMES, "required")
    with pytest.raises(UsageError, match="name no end token"):
        CallGrammars(tokenizer, PADDED, ())


@pytest.mark.parametrize("parameters", [None, {"type": "object", "properties": {}}])
def test_a_tool_without_parameters_takes_none(tokenizer: Any, grammars: CallGrammars, parameters: Any) -> None:
    tools = [{"name": "go", "parameters": parameters}]
    assert says(tokenizer, grammars.constraint_for(tools, HERMES), HERMES.write([("go", "{}")])) == ""
    assert says(tokenizer, grammars.constraint_for(tools, HERMES), HERMES.write([("go", '{"a": 1}')])) != ""


@pytest.mark.parametrize(
    ("schema", "said", "allowed"),
    [
        ({"type": "number"}, "12.5", True),
        ({"type": "number"}, "1e5", False),  # no exponent: 1e999 is JSON and no number
        ({"type": "integer"}, "9007199254740991", True),
        ({"type": "integer"}, "9007199254740992", False),
        ({"type": "integer", "minimum": 10**17}, str(10**17), True),  # its own bounds are kept
        ({}, '[1.5, {"a": null}]', True),
        ({}, "1e5", False),
        ({"type": "string"}, '"é \\" \\n \\\\"', True),
        ({"type": "string"}, '"\\ud800"', False),  # half a pair: no UTF-8 holds it
        ({"const": "a\x01b"}, '"a\\u0001b"', True),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "2", False),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "3", True),
    ],
)
def test_values(tokenizer: Any, grammars: CallGrammars, schema: dict[str, Any], said: str, allowed: bool) -> None:
    tools = [tool({"type": "object", "properties": {"x": schema}, "required": ["x"]})]
    assert grammars.unexpressed(tools) == {}
    text = LLAMA_JSON.write([("f", f'{{"x": {said}}}')])
    assert (says(tokenizer, grammars.constraint_for(tools, LLAMA_JSON), text) == "") == allowed


def test_definitions_and_recursion(tokenizer: Any, grammars: CallGrammars) -> None:
    node = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
        "required": ["name"],
    }
    tools = [tool({"$ref": "#/$defs/node", "$defs": {"node": node}})]
    assert grammars.unexpressed(tools) == {}
    good, bad = '{"name": "a", "next": {"name": "b"}}', '{"name": "a", "next": {"nome": "b"}}'
    assert says(tokenizer, grammars.constraint_for(tools, HERMES), HERMES.write([("f", good)])) == ""
    assert says(tokenizer, grammars.constraint_for(tools, HERMES), HERMES.write([("f", bad)])) != ""


def test_closing_does_not_forbid_everything(tokenizer: Any, grammars: CallGrammars) -> None:
    # one part may not be closed against the other, nor against what is required but not described
    merged = {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]}]}
    undescribed = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]}
    for schema in (merged, undescribed):
        tools = [tool({"type": "object", **schema})]
        assert grammars.unexpressed(tools) == {}
        text = HERMES.write([("f", '{"a": 1, "b": 2}')])
        assert says(tokenizer, grammars.constraint_for(tools, HERMES), text) == ""


def test_tightening_leaves_the_schema_as_it_was() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number"}, "b": {}}, "required": ["a"]}
    before = json.dumps(schema)
    tight = tightened(schema)
    assert json.dumps(schema) == before
    assert tight["additionalProperties"] is False
    assert tight["properties"]["a"] == {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
    assert set(tight["properties"]["b"]) == {"$ref"}
    assert tightened({"type": "object"}).items() >= ANY_OBJECT.items()


def test_grammars_are_compiled_once(tokenizer: Any) -> None:
    made = CallGrammars(tokenizer, PADDED, {END})
    tools = [
        tool({"type": "object", "properties": {f"p{i}": {"type": "string", "minLength": i}}}, f"f{i}")
        for i in range(20)
    ]
    begun = time.process_time()
    made.constraint_for(tools, HERMES)
    first = time.process_time() - begun
    begun = time.process_time()
    for _ in range(10):
        made.constraint_for(tools, HERMES)
    assert (time.process_time() - begun) / 10 < first / 5
