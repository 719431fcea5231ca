"""Calls that repeat their history, folded: each message once, branches and sub-agents apart, results in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.readers.call_fold import Call, Fold, Thread
from ttc_replay.storage.readers.call_results import ToolRun, place_results
from ttc_replay.storage.readers.call_runs import Scope, arranged, sampling_of
from ttc_replay.storage.records import Message, ToolCall


def user(text: str) -> Message:
    return Message("user", text)


def says(text: str, *calls: str) -> Message:
    return Message("assistant", text, tool_calls=tuple(ToolCall(call, f"tool-{call}", {}) for call in calls))


def result(call: str, text: str = "ok") -> Message:
    return Message("tool", text, tool_call_id=call)


def folded(calls: Sequence[Call]) -> list[Thread]:
    fold = Fold()
    for call in calls:
        fold.take(call)
    return fold.threads


words = st.text(alphabet="abc ", min_size=1, max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """Prompt, then actions with calls of ids of their own, their results in any order (some missing), and replies."""
    messages = [Message("system", "s"), user(draw(words))]
    for number in range(draw(st.integers(1, 6))):
        calls = [f"{number}-{at}" for at in range(draw(st.integers(0, 3)))]
        messages.append(says(f"{number} {draw(words)}", *calls))
        messages += [result(call, draw(words)) for call in draw(st.permutations(calls)) if draw(st.integers(0, 4))]
        messages += [user(draw(words)) for _ in range(draw(st.integers(0, 1)))]
    while messages[-1].role != "assistant":
        messages.pop()
    return messages


def as_calls(messages: Sequence[Message], forget: int = 0) -> list[Call]:
    """A call for each action, given all before it (or only the last `forget` messages of that, behind the prompt)."""
    at = [index for index, message in enumerate(messages) if message.role == "assistant"]
    calls = []
    for index in at:
        before = messages[:index]
        history = [*before[:2], *before[2:][-forget:]] if forget else before
        calls.append(Call(key=str(index), history=tuple(history), output=messages[index], model="m"))
    return calls


@given(conversations())
def test_folding_gives_the_conversation_back(messages: list[Message]) -> None:
    [thread] = folded(as_calls(messages))
    assert thread.messages == messages
    prompt, steps = thread.split()
    assert [step.model for step in steps] == ["m"] * len(steps)
    assert list(prompt) == messages[:2]


@given(conversations())
def test_histories_cut_at_the_front_lose_nothing(messages: list[Message]) -> None:
    longest = 1 + max(len(part) for part in between(messages))
    [thread] = folded(as_calls(messages, forget=longest))
    assert thread.messages == messages


def between(messages: Sequence[Message]) -> list[list[Message]]:
    parts: list[list[Message]] = [[]]
    for message in messages[2:]:
        if message.role == "assistant":
            parts.append([])
        parts[-1].append(message)
    return parts


def test_a_failed_call_that_is_tried_again_is_one_step() -> None:
    failed = Call(key="1", history=(user("a"),), error="down")
    [thread] = folded([failed, Call(key="2", history=(user("a"),), output=says("b"))])
    assert thread.messages == [user("a"), says("b")]
    assert [call.key for call in thread.calls] == ["1", "2"]


def test_another_answer_to_the_same_history_is_a_branch() -> None:
    first = Call(key="1", history=(user("a"),), output=says("b"))
    second = Call(key="2", history=(user("a"), says("b"), user("c")), output=says("d"))
    third = Call(key="3", history=(user("a"), says("b"), user("c")), output=says("e"))
    fourth = Call(key="4", history=(user("a"), says("b"), user("c"), says("e"), user("f")), output=says("g"))
    threads = folded([first, second, third, fourth])
    assert [[message.text for message in thread.messages] for thread in threads] == [list("abcd"), list("abcefg")]
    main, branch = arranged(threads, {})
    assert (main.thread, branch.thread) == (threads[1], threads[0])
    assert (branch.relation, branch.parent, branch.branch_step) == ("branch", 0, 1)


def test_servers_that_keep_the_history_are_followed() -> None:
    calls = [
        Call(key="1", history=(user("a"),), output=says("", "c1")),
        Call(key="2", history=(result("c1"),), output=says("b")),
        Call(key="3", history=(user("c"),), output=says("d"), goes_on=True),
    ]
    [thread] = folded(calls)
    assert thread.messages == [user("a"), says("", "c1"), result("c1"), says("b"), user("c"), says("d")]


def test_independent_questions_to_one_model_are_not_one_conversation() -> None:
    calls = [Call(key=text, history=(user(text),), output=says("yes")) for text in "abc"]
    assert len(folded(calls)) == 3
    again = [*calls, Call(key="d", history=(user("a"), says("yes"), user("why?")), output=says("so"))]
    threads = folded([*(replace(call, scope=call.key) for call in calls), again[3]])
    assert [len(thread.messages) for thread in threads] == [4, 2, 2]  # told by what was asked first


def test_calls_of_one_answer_spread_over_the_history_are_one_answer() -> None:
    spread = (user("a"), says("", "c1"), result("c1"), says("", "c2"), result("c2"))
    first = Call(key="1", history=(user("a"),), output=says("", "c1", "c2"))
    [thread] = folded([first, Call(key="2", history=spread, output=says("b"))])
    assert thread.messages == [user("a"), says("", "c1", "c2"), result("c1"), result("c2"), says("b")]


def run(
    key: str, name: str, call: str | None = None, scope: str = "", failed: bool = False, **given: object
) -> ToolRun:
    return ToolRun(
        key=key,
        name=name,
        scope=scope,
        call_id=call,
        arguments=dict(given),
        result=Message("tool", key, is_error=failed),
    )


def test_missing_results_come_from_the_tools_that_ran() -> None:
    action = Message(
        "assistant",
        tool_calls=(
            ToolCall("c1", "look", {"at": 1}),
            ToolCall("c2", "look", {"at": 2}),
            ToolCall(None, "ring", {}),
            ToolCall("c4", "none", {}),
        ),
    )
    [thread] = folded([Call(key="1", history=(user("a"),), output=action)])
    runs = [
        run("second", "look", at=2),
        run("first", "look", at=1),
        run("rang", "ring", failed=True),
        run("idle", "walk"),
    ]
    assert place_results([thread], runs) == 1  # nobody asked for a walk
    found = [(message.tool_call_id, message.name, message.text, message.is_error) for message in thread.messages[2:]]
    assert found == [("c1", "look", "first", False), ("c2", "look", "second", False), (None, "ring", "rang", True)]


def test_results_that_are_there_stay_and_learn_that_they_failed() -> None:
    calls = [
        Call(key="1", history=(user("a"),), output=says("", "c1", "c2")),
        Call(
            key="2",
            history=(user("a"), says("", "c1", "c2"), result("c2", "no"), result("c1", "yes")),
            output=says("b"),
        ),
    ]
    [thread] = folded(calls)
    assert place_results([thread], [run("x", "tool-c2", "c2", failed=True), run("y", "tool-c1", "c1")]) == 0
    assert [(message.text, message.is_error) for message in thread.messages[2:4]] == [("no", True), ("yes", False)]


def test_an_agent_inside_a_tool_belongs_to_the_step_that_called_it() -> None:
    calls = [
        Call(key="1", history=(user("a"),), output=says("x", "c1")),
        Call(key="2", history=(user("a"), says("x", "c1"), result("c1")), output=says("y", "c2")),
        Call(key="3", scope="agent", history=(user("inner"),), output=says("z")),
    ]
    threads = folded(calls)
    place_results(threads, [run("t1", "tool-c1", "c1"), run("t2", "tool-c2", "c2")])
    scopes = {"agent": Scope("t2", None), "t2": Scope("", "t2")}
    main, child = arranged(threads, scopes)
    assert (child.parent, child.relation, child.branch_step) == (0, "subagent", 1)
    assert main.thread.messages[-1] == Message("tool", "t2", tool_call_id="c2", name="tool-c2")


def test_circles_of_agents_end() -> None:
    threads = folded([Call(key="1", scope="a", history=(user("q"),), output=says("r"))])
    assert len(arranged(threads, {"a": Scope("b"), "b": Scope("a")})) == 1


def test_sampling_parameters_are_read_from_text_and_unset_ones_left_out() -> None:
    given = {"temperature": "0.5", "seed": "7", "top_p": 1, "max_tokens": -1, "stop": "", "parallel_tool_calls": "true"}
    assert sampling_of({**given, "model": "m"}) == {
        "temperature": 0.5,
        "seed": 7,
        "top_p": 1,
        "parallel_tool_calls": True,
    }
    assert sampling_of({"model": "m"}) is None
