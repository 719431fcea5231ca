"""Recorded examples are found by likeness, prompts stay within their bytes, answers are counted by value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, Proposal, Step, Task, ToolCall, Trajectory
from ttc_replay.replay.environments.world_examples import Archive, Example, Likeness, Past, ToolExamples, examples_of
from ttc_replay.replay.environments.world_prompt import Question, agreement, answers, prompt
from ttc_replay.storage.records import Fidelity


def look(number: str, text: str, *, ended: bool = False, before: tuple[str, ...] = ()) -> Example:
    call = ToolCall("c", "get_order", {"order": number, "fields": "all"})
    return Example("r", 0, call, Message("tool", text), before, ended)


def step(
    index: int,
    name: str,
    result: str,
    *,
    fidelity: Fidelity | None = None,
    reply: str | None = None,
    **arguments: object,
) -> Step:
    action = Message("assistant", tool_calls=(ToolCall(f"c{index}", name, arguments),))
    said = [Message("tool", result, tool_call_id=f"c{index}")]
    return Step(index, action, tuple(said + ([Message("user", reply)] if reply else [])), fidelity)


def test_the_same_arguments_are_most_alike_and_equal_ones_keep_the_archives_order() -> None:
    known = ToolExamples([look("W-1", "one"), look("W-2", "two"), look("W-3", "three"), look("W-2", "two")])
    found = known.alike(ToolCall("x", "get_order", {"order": "W-2", "fields": "all"}), Past(), 3)
    assert [item.result.text for item in found] == ["two", "one", "three"]


def test_what_came_before_decides_between_equal_arguments() -> None:
    paid = look("W-1", "refunded", before=('refund({"order":"W-1"})',))
    known = ToolExamples([look("W-1", "open", before=('find({"name":"Ann"})',)), paid])
    past = Past().then(ToolCall("a", "refund", {"order": "W-1"}), Message("tool", "ok"))
    assert known.alike(ToolCall("x", "get_order", {"order": "W-1"}), past, 1) == [paid]


def test_examples_come_from_steps_that_something_real_answered() -> None:
    steps = (
        step(0, "find", "found", who="Ann"),
        step(1, "find", "made up", fidelity="simulated", who="Bo"),
        step(2, "close", "closed"),
    )
    found = list(examples_of(Trajectory("r", Task("t"), steps=steps)))
    assert [(item.result.text, item.ended) for item in found] == [("found", False), ("closed", True)]
    assert found[1].before == ('find({"who":"Ann"})', 'find({"who":"Bo"})')
    cut = Trajectory("r", Task("t"), steps=steps, truncated=True)
    assert not any(item.ended for item in examples_of(cut))


def test_a_result_ends_the_run_when_most_of_those_like_it_did() -> None:
    closed = [look("1", "books closed well", ended=True) for _ in range(3)]
    refused = [look("1", "error: lines are open") for _ in range(3)]
    known = ToolExamples([*closed, *refused])
    assert known.ends(Message("tool", "books closed"))
    assert not known.ends(Message("tool", "error: two lines are open"))
    assert not ToolExamples(refused).ends(Message("tool", "books closed"))


def test_farewells_are_words_that_ended_most_runs_in_which_they_were_said() -> None:
    runs = [
        Trajectory("a", Task("t"), steps=(step(0, "f", "x", reply="thanks"), step(1, "f", "x", reply="###STOP###"))),
        Trajectory("b", Task("t"), steps=(step(0, "f", "x", reply="thanks"),)),
    ]
    assert Archive(runs).farewells == {"###STOP###"}


words = st.lists(st.text("abcde", min_size=1, max_size=2), max_size=8)


@given(st.lists(words, min_size=1, max_size=6), words)
@settings(max_examples=40, deadline=None)
def test_likeness_is_zero_exactly_without_a_common_word_and_does_not_depend_on_the_query_order(
    documents: list[list[str]], query: list[str]
) -> None:
    scores = Likeness(documents).scores(query)
    assert [score > 0 for score in scores] == [bool(set(document) & set(query)) for document in documents]
    assert list(scores) == list(Likeness(documents).scores(reversed(query)))


@given(st.integers(0, 6), st.integers(0, 20), st.text(max_size=40), st.integers(0, 3000))
@settings(max_examples=25, deadline=None)
def test_a_prompt_keeps_within_its_bytes_and_always_asks(examples: int, calls: int, text: str, repeats: int) -> None:
    past = Past()
    for number in range(calls):
        past = past.then(ToolCall("a", "list", {"page": number}), Message("tool", text * (repeats % 97)))
    call = ToolCall("x", "get", {"order": "W-1", "note": text * (repeats // 100)})
    known = [look(str(number), text * repeats) for number in range(examples)]
    messages = prompt(Question(call, past, {"function": {"description": text * repeats}}, known), 4_000)
    sizes = [len(json.dumps(item.text, ensure_ascii=False).encode("utf-8", "replace")) for item in messages]
    assert sum(sizes) <= 4_000
    asked = messages[-1].text
    assert "The call to answer:\nget(" in asked or "The call to answer:\n" in asked
    assert asked.endswith("Result:")


AGREEMENTS = {
    "all alike": (["a", "a", "a"], "a", 1.0),
    "two of three": (["b", "a", "a"], "a", 2 / 3),
    "the first of equals": (["b", "a"], "b", 0.5),
    "equal as JSON": (['{"x": 1, "y": 2}', "z", '{"y":2,"x":1}'], '{"x": 1, "y": 2}', 2 / 3),
    "a number is not its text": (["1", '"1"'], "1", 0.5),
    "one alone says nothing about itself": (["a"], "a", None),
}


@pytest.mark.parametrize("what", AGREEMENTS)
def test_confidence_is_the_share_of_the_most_frequent_value(what: str) -> None:
    texts, best, confidence = AGREEMENTS[what]
    found = agreement(texts)
    assert (found.text, found.confidence) == (best, confidence)


def test_answers_leave_out_calls_and_silence_and_take_off_a_fence() -> None:
    calling = Message("assistant", "text", tool_calls=(ToolCall("a", "f", {}),))
    said = [Message("assistant", text) for text in ('```json\n{"a": 1}\n```', "  ", "plain ``` text")]
    assert answers([Proposal(item) for item in [calling, *said]]) == ['{"a": 1}', "plain ``` text"]
