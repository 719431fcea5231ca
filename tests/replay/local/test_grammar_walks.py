"""Random walks and a random model under the grammar: whatever is said, the calls are valid."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("llguidance")

from ttc_replay.replay.local.argument_schemas import LARGEST_NUMBER  # noqa: E402
from ttc_replay.replay.local.chat_calls import split_calls  # noqa: E402
from ttc_replay.replay.local.chat_styles import HERMES, STYLES, CallStyle  # noqa: E402
from ttc_replay.replay.local.grammar import CallConstraint, CallGrammars  # noqa: E402
from ttc_replay.replay.local.jobs import Job, NoiseKey  # noqa: E402
from ttc_replay.replay.local.sampling import Row, choose  # noqa: E402
from ttc_replay.storage.codec import parse_arguments  # noqa: E402

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


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny, local_files_only=True)


@pytest.fixture(scope="module")
def grammars(tokenizer: Any) -> CallGrammars:
    return CallGrammars(tokenizer, PADDED, {END, ALSO_END})


def tool(schema: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def walk(constraint: CallConstraint, seed: int, longest: int = 3000) -> list[int] | None:
    """Random allowed tokens until the end; quotes, brackets and ends come often, else strings go on for ever."""
    chance = random.Random(seed)
    said: list[int] = []
    for _ in range(longest):
        allowed = constraint.allowed().nonzero().flatten().tolist()
        assert allowed, "nothing is allowed and the turn has not ended"
        likely = [token for token in allowed if token in CLOSING]
        token = chance.choice(likely if likely and chance.random() < 0.4 else allowed)
        constraint.accept(token)
        if constraint.ended:
            return said
        said.append(token)
    return None


CLOSING: set[int] = set()


@pytest.fixture(scope="module", autouse=True)
def closing(tokenizer: Any) -> Iterator[None]:
    texts = {number: tokenizer.decode([number]) for number in range(500)}
    CLOSING.update(number for number, text in texts.items() if text and set(text) <= set('"]}'))
    CLOSING.add(END)
    yield
    CLOSING.clear()


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of objects of strings, enums, numbers, booleans, arrays and objects, some properties required."""
    keys = st.sampled_from(["query", "a", "naïve", "with space", 'quo"te', "n"])
    text = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=6)
    bounds = st.sampled_from([{}, {"minimum": -3}, {"maximum": 12}, {"exclusiveMinimum": 0, "maximum": 5}])
    leaves = st.one_of(
        st.just({"type": "string"}),
        st.just({"type": "string", "minLength": 1, "maxLength": 4}),
        st.just({"type": ["string", "null"]}),
        st.builds(lambda values: {"enum": values}, st.lists(st.one_of(text, st.integers(-99, 99)), min_size=1)),
        st.builds(lambda more: {"type": "integer", **more}, bounds),
        st.builds(lambda more: {"type": "number", **more}, bounds),
        st.just({"type": "boolean"}),
        st.just({"const": "fixed é"}),
        st.just({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}),
    )
    return st.recursive(objects_of(keys, leaves), lambda inner: objects_of(keys, inner | leaves), max_leaves=4)


def objects_of(keys: Any, values: Any) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.builds(lambda item: {"type": "array", "items": item, "maxItems": 2}, values)

    def build(properties: dict[str, Any], required: set[str], extra: Any) -> dict[str, Any]:
        made = {"type": "object", "properties": properties, "required": sorted(required & properties.keys())}
        return made if extra is None else {**made, "additionalProperties": extra}

    extra = st.sampled_from([None, None, False, {"type": "integer"}])
    return st.builds(build, st.dictionaries(keys, values | arrays, max_size=4), st.sets(keys), extra)


def fits(value: Any, schema: dict[str, Any]) -> Any:
    """Whether a value is valid, for the keywords of `schemas()`; beside `jsonschema`, which need not be there."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return any(value == one and isinstance(value, type(one)) for one in schema.get("enum", [schema.get("const")]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(KINDS[kind](value) for kind in kinds):
        return False
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**6)
    if isinstance(value, list):
        return len(value) <= schema.get("maxItems", 10**6) and all(fits(item, schema["items"]) for item in value)
    if isinstance(value, dict):
        extra = schema.get("additionalProperties", {"type": "none"})
        named = {key: schema["properties"].get(key, extra) for key in value}
        return set(schema["required"]) <= value.keys() and all(
            one is not False and fits(value[key], one) for key, one in named.items()
        )
    if isinstance(value, bool) or value is None:
        return True
    low, high = schema.get("minimum", -LARGEST_NUMBER), schema.get("maximum", LARGEST_NUMBER)
    return low <= value <= high and value > schema.get("exclusiveMinimum", -LARGEST_NUMBER - 1)


KINDS: dict[str, Any] = {
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "none": lambda value: False,
}


def assert_valid(arguments: Any, schema: dict[str, Any]) -> None:
    assert arguments is not None
    assert fits(arguments, schema), (arguments, schema)
    if find_spec("jsonschema") is not None:
        import jsonschema  # type: ignore[import-untyped,unused-ignore]

        jsonschema.validate(arguments, schema)


@given(schemas(), st.sampled_from(STYLES), st.integers(0, 10**6))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_every_walk_ends_in_valid_arguments(
    tokenizer: Any, grammars: CallGrammars, schema: dict[str, Any], style: CallStyle, seed: int
) -> None:
    tools = [tool(schema), POST]
    assert grammars.unexpressed(tools) == {}
    said = walk(grammars.constraint_for(tools, style, named="f"), seed)
    if said is None:
        return  # a walk that grew too long has not ended in anything
    text = tokenizer.decode(said)
    _, calls = split_calls(text, style, {"f"})
    assert [call.name for call in calls] == ["f"]
    assert_valid(calls[0].arguments, schema)
    assert calls[0].arguments_raw == spaced(calls[0].arguments_raw)


def spaced(raw: str | None) -> str:
    """The text with the one spacing there is: outside of strings one space after comma and colon, no other."""
    out, inside, place, raw = "", False, 0, raw or ""
    while place < len(raw):
        letter = raw[place]
        if inside and letter == "\\":
            out += raw[place : place + 2]
            place += 2
            continue
        inside ^= letter == '"'
        if inside or not letter.isspace():
            out += letter if inside or letter not in ",:" else letter + " "
        place += 1
    return out


@pytest.mark.parametrize("parallel", [False, True])
def test_a_hundred_calls_of_the_tiny_model_are_valid(
    tiny: Path, tokenizer: Any, grammars: CallGrammars, parallel: bool
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny, local_files_only=True)
    prompt = tokenizer.encode("<|im_start|>assistant\n")
    tools = [tool(SHORT, "f"), POST, POST_ALL]
    made = CallGrammars(tokenizer, model.config.vocab_size, {END})
    turns = 30 if parallel else 100
    jobs = [Job(prompt, 120, NoiseKey(seed, "tiny", int(parallel)), stop=frozenset({END})) for seed in range(turns)]
    constraints = [made.constraint_for(tools, HERMES, "required", parallel=parallel) for _ in jobs]
    said = generate(model, jobs, constraints)
    whole = [tokenizer.decode(tokens[:-1]) for tokens in said if tokens[-1] == END]
    assert len(whole) > turns * 0.9
    names = set()
    for text in whole:
        rest, calls = split_calls(text, HERMES, {"f", "post", "post_all"})
        assert rest == ""
        assert calls if parallel else len(calls) == 1
        names |= {call.name for call in calls}
        for call in calls:
            assert parse_arguments(call.arguments_raw or "") == call.arguments
            assert_valid(call.arguments, BY_NAME[call.name])
    assert names == {"f", "post", "post_all"}


SHORT = {
    "type": "object",
    "properties": {"side": {"enum": ["debit", "credit"]}, "text": {"type": "string", "maxLength": 8}},
    "required": ["side", "text"],
}
BY_NAME: dict[str, Any] = {
    "f": SHORT,
    "post": POST["function"]["parameters"],
    "post_all": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
}


def generate(model: Any, jobs: Sequence[Job], constraints: Sequence[CallConstraint]) -> list[list[int]]:
    """The plainest decoder there is: the whole batch again for every token."""
    said: list[list[int]] = [[] for _ in jobs]
    for position in range(jobs[0].max_new_tokens):
        open_rows = [index for index, constraint in enumerate(constraints) if not constraint.ended]
        if not open_rows:
            break
        batch = torch.tensor([[*jobs[index].tokens, *said[index]] for index in open_rows])
        with torch.inference_mode():
            logits = model(batch).logits[:, -1].float()
        rows = [Row(jobs[index], position, constraints[index].allowed()) for index in open_rows]
        for index, token in zip(open_rows, choose(logits, rows).tokens, strict=True):
            constraints[index].accept(token)
            said[index].append(token)
    return said
