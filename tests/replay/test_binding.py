"""Where arguments come from, and the same provenance elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.replay.policies.binding import Constant, Observed, Said, build, leaves_of, resolve, shape_of, trace
from ttc_replay.replay.policies.facts import MISSING, Facts, follow, index_of, parse_observation
from ttc_replay.storage.records import ToolCall


def facts(said: str = "", *observed: tuple[str, Any]) -> Facts:
    """What is known: one text of the user, then observations."""
    known = Facts()
    if said:
        known.hear(said)
    for tool, value in observed:
        known.observe(tool, value)
    return known


def carried_over(arguments: dict[str, Any], here: Facts, there: Facts) -> list[dict[str, Any]]:
    """The call traced here and bound there."""
    template = trace(ToolCall("c", "act", arguments), here)
    assert template is not None
    return list(resolve(template, there))


@pytest.mark.parametrize(
    ("value", "known", "origin"),
    [
        ("X-1", facts("", ("get", {"id": "X-1"})), Observed("get", 0, ("id",))),
        ("X-1", facts("", ("get", ["W-0", "X-1"])), Observed("get", 0, (), 0)),
        ("X-1", facts("", ("get", {"id": "X-1"}), ("get", {"id": "Y-2"})), Observed("get", 1, ("id",))),
        ("X-1", facts("", ("get", {"other": "X-1"}), ("list", {"a": 1})), Observed("get", 0, ("other",))),
        ("X-1", facts("", ("old", {"id": "X-1"}), ("new", {"other": "X-1"})), Observed("old", 0, ("id",))),
        ("X-1", facts("", ("list", {"all": [{"id": "X-1"}]})), Observed("list", 0, ("all",), 0, ("id",))),
        ("card_77", facts("", ("get", {"cards": {"card_77": {}}})), Observed("get", 0, ("cards",), 0, (), True)),
        ("ann_lee_11", facts("I am ann_lee_11, hi"), Said(str(shape_of("ann_lee_11")))),
        ("blue", facts("A blue one"), Said(r"(?<!\w)blue(?!\w)")),
        (3, facts("I have 3 bags"), Said(r"(?<!\w)3(?!\w)")),
        (3, facts("", ("get", {"count": 3})), Constant("3")),
        (3, facts("", ("get", {"id": 3})), Observed("get", 0, ("id",))),
        (305, facts("", ("sum", 305.0)), Observed("sum", 0, ())),
        (True, facts("true", ("get", {"id": True})), Constant("true")),
        (None, facts("", ("get", {"id": None})), Constant("null")),
        ("", facts("", ("get", {"id": ""})), Constant('""')),
        ([], facts("", ("get", {"id": []})), Constant("[]")),
    ],
)
def test_origins(value: Any, known: Facts, origin: Any) -> None:
    template = trace(ToolCall("c", "act", {"id": value}), known)
    assert template is not None
    assert template.leaves[0].origin == origin


LIST = ("list", {"all": [{"id": "X-1", "day": "2024-05-01"}, {"id": "X-2", "day": "2024-05-02"}]})
OTHER_LIST = ("list", {"all": [{"id": "Z-7", "day": "2025-01-07"}, {"id": "Z-8", "day": "2025-01-08"}]})


@pytest.mark.parametrize(
    ("arguments", "here", "there", "expected"),
    [
        ({"id": "X-1"}, facts("", ("get", {"id": "X-1"})), facts("", ("get", {"id": "Y-2"})), [{"id": "Y-2"}]),
        ({"id": "X-2"}, facts("", LIST), facts("", OTHER_LIST), [{"id": "Z-7"}, {"id": "Z-8"}]),
        (
            {"id": "X-2", "day": "2024-05-02"},
            facts("", LIST),
            facts("", OTHER_LIST),
            [{"id": "Z-7", "day": "2025-01-07"}, {"id": "Z-8", "day": "2025-01-08"}],
        ),
        ({"pair": ["X-1", "X-2"]}, facts("", LIST), facts("", OTHER_LIST), [{"pair": ["Z-7", "Z-8"]}]),
        ({"pair": ["X-2", "X-1"]}, facts("", LIST), facts("", OTHER_LIST), [{"pair": ["Z-8", "Z-7"]}]),
        ({"id": "X-1"}, facts("", LIST), facts("", ("list", {"all": []})), []),
        ({"id": "X-1"}, facts("", LIST), facts("", ("list", "Error: none")), []),
        ({"id": "X-1"}, facts("", LIST), facts(), []),
        (
            {"card": "card_77"},
            facts("", ("get", {"cards": {"card_77": {}}})),
            facts("", ("get", {"cards": {"card_1": {}, "gift_2": {}}})),
            [{"card": "card_1"}, {"card": "gift_2"}],
        ),
        ({"user": "ann_lee_11"}, facts("I am ann_lee_11"), facts("bob_ray_22 here"), [{"user": "bob_ray_22"}]),
        ({"user": "ann_lee_11"}, facts("I am ann_lee_11"), facts("It is me, Bob"), []),
        ({"bags": 3}, facts("I have 3 bags"), facts("2 or 3 bags"), [{"bags": 3}]),
        ({"bags": 3}, facts("I have 3 bags"), facts("2 bags"), []),
        ({"pay": 305}, facts("", ("sum", 305.0)), facts("", ("sum", 99.0)), [{"pay": 99}]),
        ({"pay": 305}, facts("", ("sum", 305.0)), facts("", ("sum", 99.5)), [{"pay": 99.5}]),
        ({"pay": 305}, facts("", ("sum", 305.0)), facts("", ("sum", "Error")), []),
        ({"pay": 305}, facts("", ("sum", 305.0)), facts("", ("sum", float("nan"))), []),
        ({"pay": 305}, facts("", ("sum", 305.0)), facts("", ("sum", "1e999")), []),
        ({"text": "X-1"}, facts("", LIST), facts("", ("list", {"all": [{"id": 5}]})), []),
        ({"mode": "fast", "deep": {"none": {}}}, facts(), facts(), [{"mode": "fast", "deep": {"none": {}}}]),
        ({}, facts(), facts(), [{}]),
    ],
)
def test_bound_elsewhere(arguments: dict[str, Any], here: Facts, there: Facts, expected: list[dict[str, Any]]) -> None:
    bound = carried_over(arguments, here, there)
    assert bound == expected
    assert [[type(value) for value in item.values()] for item in bound] == [
        [type(value) for value in item.values()] for item in expected
    ]


def test_equal_provenance_is_an_equal_template() -> None:
    one = trace(ToolCall("a", "act", {"id": "X-2"}), facts("", LIST))
    other = trace(ToolCall("b", "act", {"id": "Z-7"}), facts("", OTHER_LIST))
    assert one == other
    assert one is not None
    assert one.constants == ()


def test_constants_are_named_with_their_place() -> None:
    template = trace(ToolCall("a", "act", {"mode": {"speed": "fast"}}), facts())
    assert template is not None
    assert template.constants == (("act", ("mode", "speed"), '"fast"'),)


def test_a_call_without_parsed_arguments_has_no_template() -> None:
    assert trace(ToolCall("a", "act", None, "{broken"), facts()) is None


def test_choices_are_bounded() -> None:
    here = facts("", ("one", {"ids": ["A-1"]}), ("two", {"keys": ["B-1"]}))
    many = [f"A-{number}" for number in range(100)]
    there = facts("", ("one", {"ids": many}), ("two", {"keys": many}))
    assert len(carried_over({"a": "A-1", "b": "B-1"}, here, there)) == 16


@pytest.mark.parametrize(
    ("text", "like", "unlike"),
    [
        ("mia_li_3668", "bob_ray_1234", "bob_ray"),
        ("M05KNL", "UHDAHF", "hello"),
        ("2024-05-20", "2025-12-01", "2024-5-1"),
        ("a@b", None, None),
        ("economy", None, None),
        ("New York", None, None),
        ("1234", None, None),
    ],
)
def test_only_identifiers_have_a_shape(text: str, like: str | None, unlike: str | None) -> None:
    shape = shape_of(text)
    assert (shape is None) == (like is None)
    if shape is not None and like is not None and unlike is not None:
        there = facts(f"so {unlike} and {like}.")
        assert carried_over({"v": text}, facts(f"it is {text}."), there) == [{"v": like}]


LEAF = st.one_of(st.text(max_size=6), st.integers(-50, 50), st.floats(-50, 50), st.booleans(), st.none())
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
OBJECT = st.dictionaries(st.text(max_size=4), VALUE, max_size=3)


@given(OBJECT)
def test_taking_apart_and_building_is_the_identity(arguments: dict[str, Any]) -> None:
    assert build(list(leaves_of(arguments))) == arguments


@given(VALUE)
def test_every_indexed_place_leads_to_its_value(value: Any) -> None:
    for identity, places in index_of(value).items():
        for place in places:
            found = follow(value, place.path, keys=place.key)
            assert identity in (found, ("number", found))


@given(st.data(), VALUE, st.text(max_size=20))
def test_where_it_came_from_it_can_be_bound_again(data: st.DataObject, observed: Any, said: str) -> None:
    leaves = [value for _, value in leaves_of(observed)] or [0]
    arguments = {"one": data.draw(st.sampled_from(leaves)), "two": data.draw(LEAF)}
    known = facts(said, ("tool", observed))
    assert arguments in carried_over(arguments, known, known)


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": 1}', {"a": 1}), (" 255.0\n", 255.0), ("Error: no", "Error: no"), ("", ""), ("[" * 5000, "[" * 5000)],
)
def test_observations_are_parsed_or_kept_as_text(text: str, value: Any) -> None:
    assert parse_observation(text) == value


@pytest.mark.parametrize("path", [("a", 3), ("b",), ("a", "x"), (0,), ("a", 0, "c")])
def test_a_path_that_leads_nowhere_is_missing(path: tuple[str | int, ...]) -> None:
    assert follow({"a": [1, 2]}, path) is MISSING
