"""Match levels and normalisers: what counts as the same observation, and what it is called."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.replay.compare import Normaliser, compare, normalisers_from
from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.records import Message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-1e6, 1e6) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


def result(content: Any, call: str | None = "c1", name: str | None = "look") -> Message:
    return Message("tool", content, tool_call_id=call, name=name)


def level(expected: Any, got: Any, config: dict[str, Any] | None = None) -> tuple[str | None, tuple[str, ...]]:
    match = compare([result(expected)], [result(got)], normalisers_from(config))
    return match.level, match.rules


@pytest.mark.parametrize(
    ("expected", "got", "wanted"),
    [
        ("same", "same", "exact"),
        ("", None, "exact"),
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', "json"),
        ("1.0", "1", "json"),
        ("[1, 2]", "[2, 1]", None),
        ("true", "1", None),
        ('{"a": null}', "{}", None),
        ("text", "Text", None),
        ('"1"', "1", None),
        ("[" * 5000 + "]" * 5000, "[" * 5000 + " " + "]" * 5000, None),
    ],
    ids=str,
)
def test_levels_without_rules(expected: str, got: str | None, wanted: str | None) -> None:
    assert level(expected, got) == (wanted, ())


@pytest.mark.parametrize(
    ("config", "expected", "got", "rules"),
    [
        (
            {"rename": {"look": {"province": "state"}}},
            '{"address": {"province": "TX"}}',
            '{"address": {"state": "TX"}}',
            ("rename look: province -> state",),
        ),
        ({"rename": {"province": "state"}}, '[{"province": 1}]', '[{"state": 1}]', ("rename *: province -> state",)),
        ({"ignore": {"look": ["at"]}}, '{"a": 1, "b": {"at": 3}}', '{"a": 1, "b": {"at": 4}}', ("ignore look: at",)),
        ({"ignore": ["b.at"]}, '{"at": 1, "b": {"at": 3}}', '{"at": 1, "b": {}}', ("ignore *: b.at",)),
        ({"ignore": ["$.at"]}, '{"at": 1, "b": 2}', '{"b": 2}', ("ignore *: $.at",)),
        ({"replace": {"look": [["0x[0-9a-f]+", "0x"]]}}, "at 0x1f", "at 0x2c", ("replace look: 0x[0-9a-f]+ -> 0x",)),
        ({"unordered": True}, "[[1, 2], [3]]", "[[3], [2, 1]]", ("unordered *: *",)),
        ({"unordered": {"look": ["ids"]}}, '{"ids": [1, 1, 2]}', '{"ids": [2, 1, 1]}', ("unordered look: ids",)),
        ({"tolerance": 0.01}, '{"x": 1.001}', '{"x": 1.0}', ("tolerance *: 0.01",)),
        (
            {"unordered": ["x"], "tolerance": {"look": 0.1}},
            '{"x": [1, 2]}',
            '{"x": [2.05, 1]}',
            ("unordered *: x", "tolerance look: 0.1"),
        ),
    ],
)
def test_rules_that_were_needed_are_named(
    config: dict[str, Any], expected: str, got: str, rules: tuple[str, ...]
) -> None:
    assert level(expected, got) == (None, ())
    assert level(expected, got, config) == ("normalised", rules)
    assert level(got, expected, config)[0] == "normalised"


@pytest.mark.parametrize(
    ("config", "expected", "got"),
    [
        ({"rename": {"other_tool": {"province": "state"}}}, '{"province": 1}', '{"state": 1}'),
        ({"rename": {"a": "b"}}, '{"a": 1, "b": 2}', '{"b": 1}'),
        ({"ignore": ["$.at"]}, '{"b": {"at": 1}}', '{"b": {"at": 2}}'),
        ({"ignore": ["b.at"]}, '{"at": 1}', '{"at": 2}'),
        ({"unordered": ["x"]}, '{"x": [1, 2, 2]}', '{"x": [1, 1, 2]}'),
        ({"unordered": ["x"]}, '{"y": [1, 2]}', '{"y": [2, 1]}'),
        ({"unordered": False}, "[1, 2]", "[2, 1]"),
        ({"tolerance": 0.01}, '{"x": 1.1}', '{"x": 1.0}'),
        ({"tolerance": 5}, "true", "1"),
    ],
)
def test_rules_do_not_reach_further_than_declared(config: dict[str, Any], expected: str, got: str) -> None:
    assert level(expected, got, config) == (None, ())


def test_a_rule_that_is_not_needed_is_not_named() -> None:
    config = {"rename": {"a": "b"}, "ignore": ["unused"], "tolerance": 1}
    assert level('{"a": 1}', '{"b": 1}', config) == ("normalised", ("rename *: a -> b",))
    assert level('{"b": 1}', '{"b":1}', config) == ("json", ())


def test_results_are_paired_by_call_id_then_in_order() -> None:
    first, second = result("one", "c1"), result("two", "c2")
    assert compare([first, second], [second, first], Normaliser()).level == "exact"
    nameless = [result("one", None), result("two", None)]
    assert compare(nameless, [result("one", "x"), result("two", "y")], Normaliser()).level == "exact"
    twice = [result("one", "c"), result("two", "c")]
    assert compare(twice, twice[::-1], Normaliser()).level is None


def test_a_missing_or_extra_result_is_a_difference() -> None:
    one, two = result("one", "c1"), result("two", "c2")
    missing = compare([one, two], [one], Normaliser())
    assert (missing.level, missing.expected, missing.got) == (None, "two", "(no result)")
    extra = compare([one], [one, two], Normaliser())
    assert (extra.level, extra.expected, extra.got) == (None, "(no result)", "two")


def test_user_replies_are_not_compared() -> None:
    assert compare([Message("user", "yes")], [], Normaliser()).level == "exact"


def test_the_level_of_a_step_is_its_weakest_result() -> None:
    expected = [result("same", "c1"), result("[1]", "c2"), result('{"a": 1}', "c3")]
    got = [result("same", "c1"), result("[ 1 ]", "c2"), result('{"b": 1}', "c3")]
    assert compare(expected[:2], got[:2], Normaliser()).level == "json"
    assert compare(expected, got, normalisers_from({"rename": {"a": "b"}})).level == "normalised"


def test_content_in_parts_is_compared_whole() -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "image", "data": "1"}]
    other = [{"type": "text", "text": "x"}, {"type": "image", "data": "2"}]
    assert compare([result(parts)], [result(list(parts))], Normaliser()).level == "exact"
    assert compare([result(parts)], [result(other)], Normaliser()).level is None


@pytest.mark.parametrize(
    "config",
    [
        {"renames": {}},
        {"rename": {"look": {"a": 1}}},
        {"rename": [1]},
        {"ignore": "at"},
        {"ignore": {"look": [1]}},
        {"ignore": True},
        {"replace": [["(", ""]]},
        {"replace": [["a", "\\3"]]},
        {"replace": ["ab", "c"]},
        {"tolerance": "big"},
        {"tolerance": -1},
    ],
    ids=str,
)
def test_a_wrong_configuration_is_one_coded_line(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="normalise") as caught:
        normalisers_from(config)
    assert caught.value.hint


@given(JSON)
def test_any_value_equals_itself_in_any_spelling(value: Any) -> None:
    plain, spread = json.dumps(value), json.dumps(value, indent=2, sort_keys=True)
    assert level(plain, spread)[0] in ("exact", "json")


@given(JSON, JSON)
def test_json_equality_is_symmetric_and_rules_only_widen_it(left: Any, right: Any) -> None:
    texts = json.dumps(left), json.dumps(right)
    there, back = level(*texts), level(texts[1], texts[0])
    assert there == back
    config = {"unordered": True, "tolerance": 0.5, "ignore": ["x"], "rename": {"a": "b"}}
    if there[0] is not None:
        assert level(*texts, config)[0] == there[0]


@given(st.lists(JSON, max_size=6), st.randoms(use_true_random=False))
def test_unordered_lists_match_under_every_permutation(items: list[Any], random: Any) -> None:
    shuffled = random.sample(items, len(items))
    assert level(json.dumps(items), json.dumps(shuffled), {"unordered": ["$"]})[0] is not None
