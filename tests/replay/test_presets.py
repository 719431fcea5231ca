"""Presets: each takes away its own cause of a difference, and no more; the hash of a state and its ignore list."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, Spec
from ttc_replay.cli import plugins
from ttc_replay.replay.compare import Naming, compare
from ttc_replay.replay.contract import Configured, Contract, contract_of
from ttc_replay.replay.drive import run_inline
from ttc_replay.replay.naming import Names
from ttc_replay.replay.presets import PRESETS, TEXT_PRESETS, sets
from ttc_replay.replay.replaying import replay_all
from ttc_replay.replay.rules import normalisers_from
from ttc_replay.replay.session import Session
from ttc_replay.storage.errors import UsageError


def agrees(expected: Any, got: Any, *presets: str) -> bool:
    """Whether they are equal under these presets; the rules that are named must then be among them."""
    left, right = (item if isinstance(item, str) else json.dumps(item) for item in (expected, got))
    rules = normalisers_from({"presets": list(presets)} if presets else None)
    match = compare([Message("tool", left, name="look")], [Message("tool", right, name="look")], rules)
    assert match.level in (None, "normalised")
    assert set(match.rules) <= {f"preset *: {name}" for name in presets}
    return match.level is not None


U1, U2 = "0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679-7425-40de-944b-e07fc1f90ae7"
SAME: dict[str, list[tuple[Any, Any]]] = {
    "ids": [
        ({"id": U1, "by": U1}, {"id": U2, "by": U2}),
        (f"made {U1}", f"made {U2}"),
        ("commit 3f2a9c1b by ann", "commit 9bd01f77 by ann"),
        ("order 3426812 is paid", "order 9981231 is paid"),
        ({"ord_8f3a11": {"to": "ord_8f3a11"}}, {"ord_77b0c2": {"to": "ord_77b0c2"}}),
    ],
    "timestamps": [
        ("at 2026-11-24T19:53:19.123Z", "at 2025-01-02T03:04:05.999Z"),
        ("2026-11-24 19:53:19,123 INFO up", "2026-11-24 19:53:20,001 INFO up"),
        ('1.2.3.4 - [24/Nov/2026:19:53:19 +0000] "GET /"', '1.2.3.4 - [25/Nov/2026:01:00:00 +0000] "GET /"'),
        ("Nov 24 19:53:19 host sshd", "Nov  4 01:02:03 host sshd"),
        ("Date: Tue, 24 Nov 2026 19:53:19 GMT", "Date: Wed, 25 Nov 2026 00:00:00 GMT"),
        ("took until 1700000000.25", "took until 1700000931.5"),
        ({"_last_modified": 1700000000}, {"_last_modified": 1700009999}),
        ({"createdAt": 1700000000123}, {"createdAt": 1700009999000}),
    ],
    "paths": [
        ("wrote /tmp/tmpab12cd34/out.txt", "wrote /tmp/tmpzz98yy76/out.txt"),
        ("/home/ann/repo/a.py:3", "/Users/bob/repo/a.py:3"),
        ("/var/folders/ab/cd12_/T/tmpabc123x/q", "/tmp/tmpk2j3h4g5/q"),
        ({"cwd": "/tmp/pytest-of-ann/pytest-3/t0"}, {"cwd": "/tmp/pytest-of-root/pytest-41/t0"}),
    ],
    "addresses": [("<Car object at 0x7f3a12bc0d10>", "<Car object at 0x55d0aa01>")],
    "sets": [
        ("Must be one of {'first', 'economy'}", "Must be one of {'economy', 'first'}"),
        ({"error": "got {'b': 1, 'a': {2, 1}}"}, {"error": "got {'a': {1, 2}, 'b': 1}"}),
        ("choose one of: a, b or c", "choose one of: c, a or b"),
        ("one of ['x', 'y']", "one of ['y', 'x']"),
    ],
    "floats": [
        ({"sum": 0.30000000000000004}, {"sum": 0.3}),
        ("mean 1.0000001 of 3", "mean 1.0 of 3"),
        ({"x": [1e-13, 2.5]}, {"x": [0, 2.5000001]}),
    ],
}
DIFFERENT: dict[str, list[tuple[Any, Any]]] = {
    "ids": [
        ({"from": U1, "to": U2}, {"from": U2, "to": U1}),
        ({"a": U1, "b": U1}, {"a": U1, "b": U2}),
        ({"a": U1, "b": U2}, {"a": U2[::-1], "b": U2[::-1]}),
        ({"id": U1, "n": 1}, {"id": U2, "n": 2}),
        ({"id": 5}, {"id": 6}),
        ("flight 2024-05-16", "flight 2024-05-17"),
        ("utf-8", "utf-7"),
    ],
    "timestamps": [
        ({"date": "2024-05-16"}, {"date": "2024-05-17"}),
        ("departs 06:00:00", "departs 07:00:00"),
        ({"amount": 1700000000}, {"amount": 1700000001}),
        ({"updated_at": 12}, {"updated_at": 13}),
        ("2026-11-24T19:53:19 ok", "2026-11-24T19:53:20 failed"),
    ],
    "paths": [
        ("/tmp/results/a", "/tmp/others/a"),
        ("/home/ann/a", "/home/ann/b"),
        ("/srv/tmp/tmpab12cd34", "/srv/tmp/tmpzz98yy76"),
    ],
    "addresses": [("mask 0xff", "mask 0xfe"), ("at 0x7f3a12bc0d10 a", "at 0x7f3a12bc0d10 b")],
    "sets": [
        ("{'a', 'b'}", "{'a', 'c'}"),
        ("[2, 1]", "[1, 2]"),
        ("f(2, 1)", "f(1, 2)"),
        ("{'a, b', 'c'}", "{'a', 'b, c'}"),
    ],
    "floats": [({"n": 1000000}, {"n": 1000001}), ({"x": 0.31}, {"x": 0.3}), ("v1.2.3", "v1.2.4"), ("true", "1.0")],
}


@pytest.mark.parametrize(("preset", "expected", "got"), [(name, *pair) for name in SAME for pair in SAME[name]])
def test_what_a_preset_takes_away(preset: str, expected: Any, got: Any) -> None:
    assert not agrees(expected, got), "without it they differ"
    assert agrees(expected, got, preset)
    assert agrees(got, expected, preset)
    assert agrees(expected, got, *PRESETS), "presets do not get in each other's way"
    assert not agrees(expected, got, *(name for name in PRESETS if name != preset and preset != "timestamps"))


@pytest.mark.parametrize(
    ("preset", "expected", "got"), [(name, *pair) for name in DIFFERENT for pair in DIFFERENT[name]]
)
def test_what_a_preset_leaves(preset: str, expected: Any, got: Any) -> None:
    assert not agrees(expected, got, preset)
    assert not agrees(got, expected, preset)


def test_an_id_stands_for_the_same_one_in_every_later_observation() -> None:
    rules, naming = normalisers_from({"presets": ["ids"]}), Naming(Names())

    def level(expected: str, got: str) -> str | None:
        return compare([Message("tool", expected)], [Message("tool", got)], rules, naming).level

    assert level(f"made {U1}", f"made {U2}") == "normalised"
    assert level(f"see {U1}", f"see {U2}") == "normalised"
    assert level(f"see {U1}", f"see {U1}") is None, "in this world that is another one"
    assert level("made 1234567", f"made {U2}") is None, "that one has its name"


def test_presets_may_be_of_one_tool() -> None:
    rules = normalisers_from({"presets": {"other": ["ids"]}})
    pair = [Message("tool", U1, name="look")], [Message("tool", U2, name="look")]
    assert compare(*pair, rules).level is None


@pytest.mark.parametrize("presets", [["clocks"], "ids", [1], {"look": "ids"}])
def test_wrong_presets(presets: Any) -> None:
    with pytest.raises(UsageError, match="presets"):
        normalisers_from({"presets": presets})


@settings(max_examples=60)
@given(st.text(alphabet="{}[]()'\", ab0x/tmphome:-T1.\\", max_size=40))
def test_a_canonical_text_is_its_own(text: str) -> None:
    for name, form in TEXT_PRESETS.items():
        if name != "sets":
            assert form(form(text)) == form(text)
    assert sorted(sets(text).replace(" ", "")) == sorted(text.replace(" ", "")) or " o" in text


# --- the house's options ----------------------------------------------------------------------------------------------


class Dated:
    """A world whose state has a clock in it, and which knows none of the house's options."""

    inline = True
    now: ClassVar[int] = 0

    def __init__(self, level: str = "easy") -> None:
        self.total, self.level = 0, level

    def reset(self, task: Any) -> list[Message]:
        self.total = 0
        return [Message("user", "go")]

    def step(self, action: Message) -> dict[str, Any]:
        type(self).now += 1
        self.total += 1
        answers = [Message("tool", f"at 0x7f00aa{self.now:04d}", tool_call_id=item.id) for item in action.tool_calls]
        return {"observations": answers, "done": self.total == 4}

    def state(self) -> dict[str, Any]:
        return {"total": self.total, "file": {"_last_modified": self.now}}


def test_options_of_the_house_are_taken_from_any_environment(toy: Any) -> None:
    place = f"{__file__}:Dated"
    options = {"level": "hard", "normalise": {"presets": ["addresses"]}, "state_hash": True}
    factory, probe = plugins.environment(Spec(place, options))
    assert probe.level == "hard"
    assert contract_of(factory) == Contract(normalise={"presets": ["addresses"]}, state_hash=True)
    with pytest.raises(UsageError, match="levle"):
        plugins.environment(Spec(place, {"levle": "hard"}))
    with pytest.raises(UsageError, match="no preset"):
        plugins.environment(Spec(place, {"normalise": {"presets": ["clocks"]}}))
    with pytest.raises(UsageError, match="state_ignore"):
        plugins.environment(Spec(place, {"state_ignore": "a"}))


def test_the_hash_of_a_state_is_its_key_and_ignores_what_it_is_told_to(toy: Any) -> None:
    def key(**options: Any) -> str | None:
        session = Session(toy.record(1), Configured(Dated, Contract(**options)))
        world = run_inline(session.fresh())
        world.step(toy.add(1))
        return run_inline(session.state_key(world))

    assert key() is None, "only where it is asked for"
    assert key(state_hash=True) != key(state_hash=True), "the clock is in it"
    ignoring = {"state_hash": True, "state_ignore": ["file._last_modified"]}
    assert key(**ignoring) == key(**ignoring)
    assert len(str(key(**ignoring))) == 64


def test_a_key_of_its_own_goes_before_the_hash(toy: Any) -> None:
    class Own(Dated):
        state_hash = True

        def state_key(self) -> str:
            return "own"

    session = Session(toy.record(1), Own)
    assert run_inline(session.state_key(run_inline(session.fresh()))) == "own"


@pytest.mark.parametrize(("ignore", "agrees_with"), [(None, False), (["_last_modified"], True)])
def test_replay_says_whether_it_ended_in_the_recorded_state(toy: Any, ignore: Any, agrees_with: bool) -> None:
    from dataclasses import replace

    record = toy.record(1, 1, 1, 1)
    steps = [
        replace(
            step, observations=(Message("tool", "at 0x7f00aa9999", tool_call_id=step.observations[0].tool_call_id),)
        )
        for step in record.steps
    ]
    ended = {"total": 4, "file": {"_last_modified": -1}}
    record = replace(record, steps=tuple(steps), final_state=ended)
    world = Configured(Dated, Contract({"presets": ["addresses"]}, state_ignore=ignore))
    report = replay_all([record], world)
    (row,) = report["trajectories"]
    assert (row["matched"], row["rules"]) == (4, ["preset *: addresses"])
    assert (row["final_state_agrees"], len(row["state_hash"])) == (agrees_with, 64)
    assert report["totals"]["final_states"] == {"compared": 1, "agreed": int(agrees_with)}
    assert report["totals"]["rules"] == {"preset *: addresses": 1}
    assert report["environment_class"] == "re-executable"
