"""Spans that repeat each other's history are folded: what belongs to one conversation, what is a branch of it, and what
another agent did.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.storage.records import Rejected, Trajectory, Usage

TRACE = "ab" * 16
Chat = list[tuple[str, str]]


def value(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        return {"stringValue": given}
    return {"boolValue": given} if isinstance(given, bool) else {"intValue": str(given)}


def span(number: int, parent: int = 0, trace: str = TRACE, **attributes: Any) -> dict[str, Any]:
    """A span that begins at second `number`; `_` in a name of an attribute stands for a dot."""
    pairs = [{"key": name.replace("__", "."), "value": value(given)} for name, given in attributes.items()]
    made = {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": "span",
        "startTimeUnixNano": str(number * 10**9),
        "endTimeUnixNano": str(number * 10**9 + 5 * 10**8),
        "attributes": pairs,
    }
    return made | ({"parentSpanId": f"{parent:016x}"} if parent else {})


def agent(number: int, name: str, parent: int = 0, **more: Any) -> dict[str, Any]:
    made = span(number, parent, gen_ai__operation__name="invoke_agent", gen_ai__agent__name=name)
    return made | more


def written(chat: Chat) -> str:
    return json.dumps([message(role, text) for role, text in chat])


def message(role: str, text: str) -> dict[str, Any]:
    """`tool` texts are `id=answer`; an assistant's `!name:id` is a call."""
    if role == "tool":
        identity, answer = text.split("=")
        return {"role": "tool", "parts": [{"type": "tool_call_response", "id": identity, "response": answer}]}
    if text.startswith("!"):
        calls = [call.split(":") for call in text[1:].split("!")]
        return {"role": role, "parts": [{"type": "tool_call", "name": n, "id": i, "arguments": {}} for n, i in calls]}
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def model(number: int, chat: Chat, answer: str | None, parent: int = 0, **more: Any) -> dict[str, Any]:
    out = {} if answer is None else {"gen_ai__output__messages": written([("assistant", answer)])}
    given = {"gen_ai__operation__name": "chat", "gen_ai__input__messages": written(chat), **out}
    return span(number, parent, **(given | more))


def tool(number: int, name: str, parent: int = 0, **more: Any) -> dict[str, Any]:
    return span(number, parent, gen_ai__operation__name="execute_tool", gen_ai__tool__name=name, **more)


def request(*spans: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def failed(made: dict[str, Any], text: str) -> dict[str, Any]:
    return made | {"status": {"code": 2, "message": text}}


def texts(trajectory: Trajectory) -> list[str]:
    return [message.text or "".join(f"!{call.name}" for call in message.tool_calls) for message in trajectory.messages]


def relations(found: list[Trajectory]) -> list[tuple[str | None, int | None, list[str]]]:
    return [(item.source.relation if item.source else None, item.branch_step, texts(item)) for item in found]


def test_each_history_is_the_beginning_of_the_next(logs: Any) -> None:
    chat: Chat = [("system", "s"), ("user", "q1")]
    longer: Chat = [*chat, ("assistant", "a1"), ("user", "q2")]
    (found,) = logs.good("otlp", request(model(1, chat, "a1"), model(2, longer, "a2")))
    assert texts(found) == ["s", "q1", "a1", "q2", "a2"]
    assert [step.started_at for step in found.steps] == ["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"]


@pytest.mark.parametrize(
    ("answer", "echo", "kept"),
    [
        ("a1", [("assistant", " a1 ")], "a1"),  # white space at the ends
        ("a1", [("assistant", "A1, rewritten")], "a1"),  # another spelling: what the model said holds
        (None, [("assistant", "a1")], "a1"),  # the answer was not captured: its echo is it
        ("!get:c1", [], "!get"),  # the echo is missing (agno leaves its index out)
    ],
)
def test_the_echo_of_an_answer_may_differ(logs: Any, answer: str | None, echo: Chat, kept: str) -> None:
    chat: Chat = [("user", "q1")]
    follow: Chat = [("tool", "c1=r")] if not echo else [("user", "q2")]
    spans = model(1, chat, answer, gen_ai__usage__input_tokens=3), model(2, [*chat, *echo, *follow], "a2")
    (found,) = logs.good("otlp", request(*spans))
    assert texts(found) == ["q1", kept, "r" if not echo else "q2", "a2"]
    assert found.steps[0].usage == Usage(3)


def test_parallel_calls_whose_echoes_stand_each_before_its_result(logs: Any) -> None:
    """Koog writes call, result, call, result."""
    chat: Chat = [("user", "q")]
    echo: Chat = [("assistant", "!f:1"), ("tool", "1=one"), ("assistant", "!g:2"), ("tool", "2=two")]
    first = model(1, chat, None, gen_ai__output__messages=written([("assistant", "!f:1"), ("assistant", "!g:2")]))
    (found,) = logs.good("otlp", request(first, model(2, [*chat, *echo], "done")))
    assert texts(found) == ["q", "!f!g", "one", "two", "done"]


def test_a_failed_call_that_is_made_again_is_one_step(logs: Any) -> None:
    chat: Chat = [("user", "q")]
    (found,) = logs.good("otlp", request(failed(model(1, chat, None), "overloaded"), model(2, chat, "a")))
    assert texts(found) == ["q", "a"]
    assert found.source.extra["errors"] == ["overloaded"]
    assert found.outcome is None
    assert not found.truncated


def test_the_error_of_the_last_call_ends_the_run(logs: Any) -> None:
    error = failed(model(2, [("user", "q"), ("assistant", "a"), ("user", "r")], None), "no answer")
    error["events"] = [{"name": "exception", "attributes": [{"key": "exception.type", "value": value("TimeoutError")}]}]
    (found,) = logs.good("otlp", request(model(1, [("user", "q")], "a"), error))
    assert texts(found) == ["q", "a", "r"]
    assert found.outcome.exit_reason == "TimeoutError: no answer"
    assert found.truncated


def test_a_stateful_service_is_sent_the_new_messages_only(logs: Any) -> None:
    spans = (
        model(1, [("user", "q")], "!f:c1"),
        model(2, [("tool", "c1=one")], "!f:c2"),
        model(3, [("tool", "c2=two")], "done"),
    )
    (found,) = logs.good("otlp", request(*spans))
    assert texts(found) == ["q", "!f", "one", "!f", "two", "done"]


def test_branches_hang_on_the_latest_leaf(logs: Any) -> None:
    """Two answers to one question; the conversation went on with the first and ended with it."""
    start: Chat = [("user", "q")]
    spans = (
        model(1, start, "a"),
        model(2, start, "b"),
        model(3, [*start, ("assistant", "a"), ("user", "more")], "end"),
    )
    found = logs.good("otlp", request(*spans))
    assert relations(found) == [(None, None, ["q", "a", "more", "end"]), ("branch", 0, ["q", "b"])]
    assert found[1].parent_id == found[0].id


def test_a_branch_that_is_worked_on_last_is_the_main_one(logs: Any) -> None:
    start: Chat = [("user", "q"), ("assistant", "a"), ("user", "r")]
    spans = model(1, [("user", "q")], "a"), model(2, start, "b"), model(3, start, "c")
    found = logs.good("otlp", request(*spans))
    assert relations(found) == [(None, None, ["q", "a", "r", "c"]), ("branch", 1, ["q", "a", "r", "b"])]


def test_a_cut_context_continues_the_agent(logs: Any) -> None:
    spans = model(1, [("user", "q")], "a"), model(2, [("user", "summary of before")], "b")
    assert relations(logs.good("otlp", request(*spans))) == [
        (None, None, ["q", "a"]),
        ("continuation", None, ["summary of before", "b"]),
    ]


def test_sub_agents_of_sub_agents_and_parallel_ones(logs: Any) -> None:
    """Two parallel sub-agents get the very same task; one of them has a sub-agent of its own."""
    task: Chat = [("user", "sub")]
    spans = (
        agent(1, "main"),
        model(2, [("user", "q")], "!ask:c1!ask:c2", 1),
        agent(3, "sub", 1),
        agent(4, "sub", 1),
        model(5, task, "x", 3),
        model(6, task, "y", 4),
        agent(7, "deep", 4),
        model(8, [("user", "deeper")], "z", 7),
        model(9, [("user", "q"), ("assistant", "!ask:c1!ask:c2"), ("tool", "c1=x"), ("tool", "c2=y")], "end", 1),
    )
    found = logs.good("otlp", request(*spans))
    assert relations(found) == [
        (None, None, ["q", "!ask!ask", "x", "y", "end"]),
        ("subagent", 0, ["sub", "x"]),
        ("subagent", 0, ["sub", "y"]),
        ("subagent", 0, ["deeper", "z"]),
    ]
    assert [item.parent_id for item in found] == [None, found[0].id, found[0].id, found[2].id]
    assert [item.source.agent for item in found] == ["main", "sub", "sub", "deep"]


def test_agents_beside_each_other_are_no_children(logs: Any) -> None:
    """A pipeline: nobody called the second one, and it does not go on with what the first said."""
    spans = agent(1, "writer"), model(2, [("user", "write")], "text", 1), agent(3, "judge")
    found = logs.good("otlp", request(*spans, model(4, [("user", "judge: text")], "fine", 3)))
    assert [(item.source.relation, item.parent_id) for item in found] == [(None, None), (None, None)]


def test_the_next_turn_of_an_agent_under_another_span_goes_on(logs: Any) -> None:
    second: Chat = [("user", "q"), ("assistant", "a"), ("user", "r")]
    spans = agent(1, "bot"), model(2, [("user", "q")], "a", 1), agent(3, "bot"), model(4, second, "b", 3)
    (found,) = logs.good("otlp", request(*spans))
    assert texts(found) == ["q", "a", "r", "b"]


def test_parents_may_be_missing(logs: Any) -> None:
    chat: Chat = [("user", "q"), ("assistant", "a"), ("user", "r")]
    (found,) = logs.good("otlp", request(model(5, [("user", "q")], "a", 99), model(6, chat, "b", 98)))
    assert texts(found) == ["q", "a", "r", "b"]


def test_spans_in_a_circle_end_nowhere(logs: Any) -> None:
    one, other = model(1, [("user", "q")], "a", 2), agent(2, "main", 1)
    (found,) = logs.good("otlp", request(one, other))
    assert texts(found) == ["q", "a"]


def test_one_call_logged_by_two_libraries_counts_once(logs: Any) -> None:
    outer = model(1, [("user", "q")], "a")
    inner = model(2, [("user", "q")], "a", 1, gen_ai__usage__input_tokens=7)
    (found,) = logs.good("otlp", request(outer, inner))
    assert texts(found) == ["q", "a"]
    assert found.steps[0].usage == Usage(7)
    assert found.source.counts["llm_spans"] == 1


def test_a_wrapper_without_content_stands_behind_the_call_inside(logs: Any) -> None:
    outer = span(1, gen_ai__operation__name="chat")
    (found,) = logs.good("otlp", request(outer, model(2, [("user", "q")], "a", 1)))
    assert texts(found) == ["q", "a"]


def test_a_loop_that_calls_itself_a_model_is_none(logs: Any) -> None:
    chat: Chat = [("user", "q"), ("assistant", "!f:1"), ("tool", "1=r")]
    spans = model(1, [("user", "q")], "end"), model(2, [("user", "q")], "!f:1", 1), model(3, chat, "end", 1)
    (found,) = logs.good("otlp", request(*spans))
    assert texts(found) == ["q", "!f", "r", "end"]


def test_results_of_tools_that_no_input_holds(logs: Any) -> None:
    """The run ended after its tools: their spans have the results. Ids first, then names in order."""
    spans = (
        model(1, [("user", "q")], "!f:c1!g:c2!f:c3"),
        tool(2, "g", gen_ai__tool__call__id="c2", gen_ai__tool__call__result="two"),
        failed(tool(3, "f", gen_ai__tool__call__id="c1"), "broken"),
        tool(4, "f", gen_ai__tool__call__result="three"),
    )
    (found,) = logs.good("otlp", request(*spans))
    (step,) = found.steps
    assert [(item.tool_call_id, item.text, item.is_error) for item in step.observations] == [
        ("c1", "broken", True),
        ("c2", "two", False),
        ("c3", "three", False),
    ]
    assert step.ended_at == "1970-01-01T00:00:04.500000Z"


def test_a_tool_span_of_another_call_answers_none(logs: Any) -> None:
    spans = model(1, [("user", "q")], "!f:c1"), tool(2, "f", gen_ai__tool__call__id="other", tool__result="x")
    (found,) = logs.good("otlp", request(*spans))
    assert found.steps[0].observations == ()


def test_of_several_choices_the_one_that_was_taken_holds(logs: Any) -> None:
    out = written([("assistant", "a"), ("assistant", "b")])
    first = model(1, [("user", "q")], None, gen_ai__output__messages=out, gen_ai__request__choice__count=2)
    chat: Chat = [("user", "q"), ("assistant", "b"), ("user", "r")]
    (found,) = logs.good("otlp", request(first, model(2, chat, "end")))
    assert texts(found) == ["q", "b", "r", "end"]
    assert found.source.extra["other_choices"] == 1
    (alone,) = logs.good("otlp", request(first))
    assert texts(alone) == ["q", "a"]


def test_items_of_one_answer_are_one_message(logs: Any) -> None:
    items = [
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "I call"}]},
        message("assistant", "!f:1"),
        message("assistant", "!g:2"),
    ]
    (found,) = logs.good("otlp", request(model(1, [("user", "q")], None, gen_ai__output__messages=json.dumps(items))))
    (step,) = found.steps
    assert (step.action.reasoning, step.action.content) == ("hm", "I call")
    assert [call.name for call in step.action.tool_calls] == ["f", "g"]


def test_an_attribute_that_a_limit_cut_is_read_as_far_as_it_goes(logs: Any) -> None:
    full = written([("system", "s"), ("user", "q1"), ("user", "q2")])
    (found,) = logs.good("otlp", request(model(1, [], "a", gen_ai__input__messages=full[:-30])))
    assert texts(found)[:2] == ["s", "q1"]
    assert "cut" in found.source.extra


def test_half_an_emoji_in_a_cut_attribute_is_no_error(logs: Any) -> None:
    cut = json.dumps([{"role": "user", "content": "😀"}])[: -len('\\ude00"}]')]
    (found,) = logs.good("otlp", request(model(1, [], "a", gen_ai__input__messages=cut)))
    assert texts(found)[-1] == "a"


def test_cached_tokens_are_part_of_the_prompt(logs: Any) -> None:
    counted = {"gen_ai__usage__input_tokens": 10, "gen_ai__usage__cache_read__input_tokens": 90}
    (found,) = logs.good("otlp", request(model(1, [("user", "q")], "a", **counted)))
    assert found.steps[0].usage == Usage(100, None, 90)


def test_a_system_prompt_that_changes_does_not_split_the_conversation(logs: Any) -> None:
    chat: Chat = [("system", "it is nine"), ("user", "q")]
    later: Chat = [("system", "it is ten"), ("user", "q"), ("assistant", "a"), ("user", "r")]
    (found,) = logs.good("otlp", request(model(1, chat, "a"), model(2, later, "b")))
    assert texts(found) == ["it is nine", "q", "a", "r", "b"]
    assert found.source.extra["system_prompts"] == 2


def test_evaluations_of_a_call_are_its_steps(logs: Any) -> None:
    def event(name: str, amount: dict[str, Any]) -> dict[str, Any]:
        pairs = {"gen_ai.evaluation.name": value(name), "gen_ai.evaluation.score.value": amount}
        return {
            "name": "gen_ai.evaluation.result",
            "attributes": [{"key": key, "value": found} for key, found in pairs.items()],
        }

    root = agent(1, "main", events=[event("solved", {"doubleValue": 0.5}), event("rude", {"boolValue": False})])
    step = model(2, [("user", "q")], "a", 1) | {"events": [event("grounded", {"intValue": "1"})]}
    label = {
        "name": "gen_ai.evaluation.result",
        "attributes": [{"key": "gen_ai.evaluation.score.label", "value": value("ok")}],
    }
    step["events"].append(label)
    (found,) = logs.good("otlp", request(root, step))
    assert {name: score.value for name, score in found.scores.items()} == {"solved": 0.5, "rude": 0.0}
    assert (found.outcome.value, found.outcome.name) == (0.5, "solved")
    (only,) = found.steps
    assert {name: (score.value, score.abstain) for name, score in only.scores.items()} == {
        "grounded": (1.0, False),
        "span": (None, True),
    }


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), min_size=1, max_size=8), st.randoms())
def test_any_conversation_comes_back_from_its_calls_in_any_order(logs: Any, said: Chat, shuffler: Any) -> None:
    chat: Chat = [("system", "s")]
    spans = []
    for number, (question, answer) in enumerate(said):
        chat.append(("user", question.replace("!", "?")))
        spans.append(model(number + 1, list(chat), "=" + answer))
        chat.append(("assistant", "=" + answer))
    shuffler.shuffle(spans)
    (found,) = logs.good("otlp", [request(made) for made in spans])
    assert [(message.role, message.text) for message in found.messages] == chat


def test_very_many_calls_that_begin_alike_end_in_time(logs: Any) -> None:
    spans = [model(number, [("user", "same")], f"answer {number}") for number in range(1, 1500)]
    found = logs.good("otlp", [request(*spans)])
    assert len(found) == 1499
    assert texts(found[0]) == ["same", "answer 1499"]
    assert {item.source.relation for item in found[1:]} == {"branch"}


def test_agents_that_only_tell_what_went_in_and_out(logs: Any) -> None:
    told: dict[str, Any] = {
        "gen_ai__input__messages": written([("user", "q")]),
        "gen_ai__output__messages": written([("assistant", "a")]),
    }
    remote = span(1, gen_ai__operation__name="invoke_agent", gen_ai__agent__name="far", **told)
    (found,) = logs.good("otlp", request(remote))
    assert texts(found) == ["q", "a"]
    chain = span(1, openinference__span__kind="CHAIN", input__value="q", output__value="a")
    (wrapped,) = logs.good("otlp", request(chain))
    assert texts(wrapped) == ["q", "a"]


def test_a_trace_of_tools_only_is_no_run(logs: Any) -> None:
    (found,) = logs.all("otlp", request(tool(1, "f")))
    assert isinstance(found, Rejected)
