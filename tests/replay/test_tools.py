"""A class of plain functions is an environment: what its tools are, what calls do, what state is."""

from __future__ import annotations

import asyncio
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, Spec, StepResult, Task, ToolCall
from ttc_replay.cli import plugins
from ttc_replay.replay import session
from ttc_replay.replay.drive import finish, is_async
from ttc_replay.replay.environments.base import environment_class
from ttc_replay.replay.environments.tool_results import jsonable, text_of
from ttc_replay.replay.environments.tools import ToolsEnvironment
from ttc_replay.replay.forking import declared
from ttc_replay.replay.transition import state_of
from ttc_replay.storage.errors import EnvironmentFailed, PluginFailed, UsageError

CLASSES = Path(__file__).with_name("tool_classes.py")
TASK = Task("t")


@pytest.fixture(scope="module")
def classes() -> Any:
    return plugins.find("environment", f"{CLASSES}:Shop.__init__").__globals__


def call(name: str, identity: str = "c", /, **arguments: Any) -> ToolCall:
    return ToolCall(identity, name, arguments)


def step(world: Any, *calls: ToolCall) -> StepResult:
    result: StepResult = world.step(Message("assistant", tool_calls=calls))
    return result


def said(world: Any, name: str, **arguments: Any) -> tuple[str, bool]:
    (message,) = step(world, call(name, **arguments)).observations
    assert (message.role, message.tool_call_id, message.name) == ("tool", "c", name)
    return message.text, message.is_error


def opened(kind: Any, task: Task = TASK, **options: Any) -> Any:
    world = ToolsEnvironment(kind, **options)
    world.reset(task)
    return world


def schema_of(kind: Any, name: str) -> dict[str, Any]:
    return next(tool["function"] for tool in ToolsEnvironment(kind).tools() if tool["function"]["name"] == name)


# --- what the tools are -----------------------------------------------------------------------------------------------


def test_public_functions_are_tools_in_their_order(classes: Any) -> None:
    names = [tool["function"]["name"] for tool in ToolsEnvironment(classes["Shop"]).tools()]
    assert names == ["buy", "describe", "keep", "give", "fail", "leave", "add"]
    assert [tool["function"]["name"] for tool in ToolsEnvironment(classes["Chosen"]).tools()] == ["leave", "buy"]


def test_a_schema_comes_from_hints_and_docstring(classes: Any) -> None:
    assert schema_of(classes["Shop"], "buy") == {
        "name": "buy",
        "description": "Buy something.\n\nIt is taken from the stock at once.",
        "parameters": {
            "type": "object",
            "properties": {
                "item": {"type": "string", "description": "what it is called"},
                "count": {"type": "integer", "description": "how many of it", "default": 1},
                "gift": {"type": "boolean", "default": False},
            },
            "required": ["item"],
            "additionalProperties": False,
        },
    }


def test_a_schema_of_every_kind_of_hint(classes: Any) -> None:
    shape = schema_of(classes["Shop"], "describe")["parameters"]
    found = shape["properties"]
    assert shape["required"] == ["item", "colour", "size", "on", "rate"]
    assert found["item"] == {"$ref": "#/$defs/Item"}
    assert found["colour"] == {"$ref": "#/$defs/Colour"}
    assert set(found["size"]["enum"]) == {"S", "L"}
    assert found["on"] == {"type": "string", "format": "date"}
    assert (found["rate"]["minimum"], found["rate"]["maximum"]) == (1, 5)
    assert {"type": "null"} in found["where"]["anyOf"]
    assert found["tags"] == {"type": "array", "items": {"type": "string"}, "default": []}
    assert set(shape["$defs"]) == {"Item", "Colour", "Place"}


@pytest.mark.parametrize(("name", "parameter", "text"), [("keep", "things", "to be kept"), ("give", "kind", "which")])
def test_docstrings_of_other_styles(classes: Any, name: str, parameter: str, text: str) -> None:
    assert schema_of(classes["Shop"], name)["parameters"]["properties"][parameter]["description"] == text


def test_pydantic_models_are_taken_and_given() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Leg(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        to: str

    class Trip(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        legs: list[Leg]

    class Travel:
        def book(self, trip) -> Any:  # type: ignore[no-untyped-def]
            return trip.legs[0]

    Travel.book.__annotations__["trip"] = Trip
    shape = schema_of(Travel, "book")["parameters"]
    assert shape["properties"]["trip"]["properties"]["legs"]["items"] == {"$ref": "#/$defs/Leg"}
    assert shape["$defs"]["Leg"]["required"] == ["to"]
    world = opened(Travel)
    assert said(world, "book", trip={"legs": [{"to": "Oslo"}]}) == ('{"to": "Oslo"}', False)
    text, failed = said(world, "book", trip={"legs": [{}]})
    assert failed
    assert "legs.0.to" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Stars", "Stars.any cannot be a tool"),
        ("Named", "Named.any cannot be a tool"),
        ("Odd", "Odd.take cannot be a tool"),
        ("Unresolved", "Nowhere"),
        ("Hooked", "Hooked.close"),
        ("Misnamed", "no function sell"),
    ],
)
def test_a_class_that_cannot_be_one_of_tools_says_why(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        plugins.environment(Spec("tools", {"cls": f"{CLASSES}:{name}"}))


# --- what calls do ----------------------------------------------------------------------------------------------------


def test_arguments_become_what_the_hints_say(classes: Any) -> None:
    text, failed = said(
        opened(classes["Shop"]),
        "describe",
        item={"name": "lamp"},
        colour="red",
        size="S",
        on="2024-05-06",
        rate=3,
        where={"street": "Main St", "number": 1},
    )
    assert not failed
    found = json.loads(text)
    assert found["types"] == ["Item", "Colour", "str", "date", "int", "Place", "list", "NoneType"]
    assert found["item"] == {"name": "lamp", "price": 1.0}
    assert (found["year"], found["colour"], found["on"]) == (2024, "red", "2024-05-06")


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("buy", {"item": 3}, "wrong arguments for buy: Expected `str`, got `int` - at `$.item`"),
        ("buy", {}, "wrong arguments for buy: Object missing required field `item`"),
        ("buy", {"item": "a", "price": 1}, "wrong arguments for buy: Object contains unknown field `price`"),
        ("buy", {"item": "a", "count": "2"}, "wrong arguments for buy: Expected `int`, got `str` - at `$.count`"),
        ("buy", {"item": "a", "count": 9}, "only 5 left"),
        ("sell", {}, "there is no tool sell"),
        ("_hidden", {}, "there is no tool _hidden"),
        ("reset", {}, "there is no tool reset"),
        ("shelf", {}, "there is no tool shelf"),
        ("fail", {"how": "x"}, "KeyError: 'x'"),
        ("fail", {"how": "bare"}, "RuntimeError"),
        ("fail", {"how": "exit"}, "3"),
        ("give", {"kind": "object"}, "Encoding objects of type object is unsupported"),
    ],
)
def test_whatever_is_wrong_is_an_observation(classes: Any, name: str, arguments: dict[str, Any], text: str) -> None:
    world = opened(classes["Shop"])
    before = world.state()
    assert said(world, name, **arguments) == (f"Error: {text}", True)
    assert world.state() == before
    assert said(world, "buy", item="lamp")[1] is False  # and the run goes on


def test_arguments_that_are_no_object_are_an_observation(classes: Any) -> None:
    (message,) = step(opened(classes["Shop"]), ToolCall("c", "buy", None, "[1")).observations
    assert (message.text, message.is_error) == ("Error: the arguments are not a JSON object", True)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", "as it is"),
        ("none", "null"),
        ("number", "1.5"),
        ("set", '["a", "b", "c"]'),
        ("numbers", "[2, 9, 10]"),
        ("mixed", '["b", 1]'),
        ("dataclass", '{"name": "x", "price": 1.0}'),
        ("struct", '{"street": "Main St", "number": 1}'),
        ("date", '"2024-01-02"'),
        ("decimal", '"1.10"'),
        ("tuple", '[1, "é"]'),
    ],
)
def test_results_become_text(classes: Any, kind: str, text: str) -> None:
    assert said(opened(classes["Shop"]), "give", kind=kind) == (text, False)


def test_a_tool_cannot_change_the_action(classes: Any) -> None:
    action = Message("assistant", tool_calls=(call("keep", things=[["a"], "b"]),))
    before = copy.deepcopy(action)
    assert opened(classes["Shop"]).step(action).observations[0].text == "3"
    assert action == before


def test_parallel_calls_run_in_order_and_errors_do_not_stop_them(classes: Any) -> None:
    world = opened(classes["Shop"])
    result = step(world, call("buy", "1", item="a", count=4), call("buy", "2", item="b", count=4), call("add", "3"))
    assert [message.tool_call_id for message in result.observations] == ["1", "2", "3"]
    assert [message.is_error for message in result.observations] == [False, True, True]
    assert world.state()["log"] == ["a x 4"]


def test_parameters_by_position_only(classes: Any) -> None:
    assert said(opened(classes["Shop"]), "add", left=2, right=3) == ("5", False)


# --- state and ends ---------------------------------------------------------------------------------------------------


def test_every_task_gets_an_instance_of_its_own(classes: Any) -> None:
    world = opened(classes["Shop"], Task("a", "hello", {"stock": 9}), stock=7)
    said(world, "buy", item="lamp")
    assert (world.state()["stock"], world.state()["sold"]) == (8, ["lamp"])
    assert world.reset(Task("b", "hello")) == [Message("user", "hello")]
    assert (world.state()["stock"], world.state()["sold"]) == (7, [])
    assert world.reset(Task("c", "hello", {"greeting": "good day"})) == [Message("system", "good day")]
    assert world.reset(Task("d")) == []


def test_state_is_the_public_attributes_that_are_json(classes: Any) -> None:
    state = opened(classes["Shop"]).state()
    assert state == {"done": False, "limit": 3, "log": [], "sold": [], "stock": 5}


def test_the_instance_says_when_it_is_over(classes: Any) -> None:
    world = opened(classes["Shop"])
    assert not step(world).done  # whether a message without calls ends it depends on whether there is a user
    assert not step(world, call("buy", item="a")).done
    assert step(world, call("leave")).done
    counted = opened(classes["Slotted"])
    assert [step(counted, call("up")).done for _ in range(2)] == [False, True]


def test_hooks_mean_what_they_mean_on_an_environment(classes: Any) -> None:
    world = opened(classes["Slotted"])
    step(world, call("up"))
    twin = asyncio.run(session.fork(world))
    step(twin, call("up"))
    assert (world.state_key(), twin.state_key()) == ("1", "2")
    assert world.state() == {"count": 1, "of": [1, 2]}
    world.reseed(7)
    world.close()
    assert (world._instance.odds, world._instance.closed, twin._instance.closed) == (7, True, False)
    plain = opened(classes["Shop"])
    assert not any(hasattr(plain, name) for name in ("state_key", "reseed", "close", "hear", "normalise"))
    assert plain.inline
    assert not getattr(world, "inline", False)


def test_a_state_that_is_not_json_is_a_failure(classes: Any) -> None:
    with pytest.raises(EnvironmentFailed, match="the state is not JSON"):
        asyncio.run(state_of(opened(classes["Unfit"])))


@pytest.mark.parametrize(
    ("name", "how", "kind"), [("Shop", "reexecute", "re-executable"), ("Chosen", "deepcopy", "forkable")]
)
def test_forks_are_those_of_the_class(classes: Any, name: str, how: str, kind: str) -> None:
    world = opened(classes[name])
    assert (declared(world), environment_class(world)) == (how, kind)
    said(world, "buy", item="a")
    if kind == "forkable":
        twin = asyncio.run(session.fork(world))
        said(twin, "buy", item="b")
        assert (world.state()["sold"], twin.state()["sold"]) == (["a"], ["a", "b"])


def test_functions_and_hooks_may_wait(classes: Any) -> None:
    async def play() -> list[Any]:
        world = ToolsEnvironment(classes["Waiting"])
        prompt = await finish(world.reset(Task("it")))
        action = Message("assistant", tool_calls=(call("slow", "1", name="a"), call("slow", "2", name="b")))
        result = await finish(world.step(action))
        twin = await session.fork(world)
        await finish(twin.step(Message("assistant", tool_calls=(call("slow", "3", name="c"),))))
        return [prompt[0].text, [m.text for m in result.observations], await state_of(world), await state_of(twin)]

    assert is_async(ToolsEnvironment(classes["Waiting"]), "step")
    assert not is_async(ToolsEnvironment(classes["Shop"]), "reset", "step")
    assert asyncio.run(play()) == ["do it", ["a", "b"], {"steps": ["a", "b"]}, {"steps": ["a", "b", "c"]}]


# --- from the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (f"{CLASSES}:Shop", {"stock": 2}),
        ("tools", {"cls": f"{CLASSES}:Shop", "stock": 2}),
        ("tools", {"cls": f"{CLASSES}:make", "stock": 2}),
    ],
)
def test_a_plain_class_is_recognised(name: str, options: dict[str, Any]) -> None:
    make, _ = plugins.environment(Spec(name, options))
    world = make()
    world.reset(TASK)
    assert (world.state()["stock"], type(world)) == (2, ToolsEnvironment)
    assert make() is not world


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (f"{CLASSES}:Shop", {"stok": 2}, "stok"),
        (f"{CLASSES}:Nothing", {}, "has no reset and step"),
        ("tools", {}, "needs a class"),
        ("tools", {"cls": 3}, "needs a class"),
        ("tools", {"cls": f"{CLASSES}:Shopp"}, "has no Shopp"),
    ],
)
def test_what_is_no_class_of_tools_is_named(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises((UsageError, PluginFailed), match=text):
        plugins.environment(Spec(name, options))


def test_a_class_may_ask_for_a_process() -> None:
    _, world = plugins.environment(Spec(f"{CLASSES}:Away", {"stock": 3}))
    world.reset(TASK)
    assert said(world, "buy", item="a") == ('{"stock": 2, "sold": ["a"]}', False)
    assert said(world, "sell")[1] is True
    twin = asyncio.run(session.fork(world))
    said(twin, "buy", item="b")
    assert (world.state()["sold"], twin.state()["sold"]) == (["a"], ["a", "b"])
    assert (environment_class(world), declared(world), world._family._child.pid == os.getpid()) == (
        "forkable",
        "pickle",
        False,
    )
    twin.close()
    world.close()


# --- what holds for any value -----------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(PLAIN)
def test_json_stays_what_it_is(value: Any) -> None:
    assert jsonable(value) == value
    assert isinstance(value, str) or json.loads(text_of(value)) == value


@settings(max_examples=40)
@given(st.lists(st.integers() | st.text(max_size=3) | st.frozensets(st.integers(0, 5), max_size=3), max_size=6))
def test_sets_have_one_order(values: list[Any]) -> None:
    one, other = set(values), set()
    for value in reversed(values):  # other insertions, so another order where hashes collide
        other.add(value)
    assert text_of(one) == text_of(other)
