"""LiteLLM payloads: golden logs in full, and how calls become runs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Message, Outcome, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "litellm"


def shape(messages: Any) -> str:
    return " ".join(
        message.role[0] + (str(len(message.tool_calls)) if message.tool_calls else "") for message in messages
    )


def test_golden_calls(logs: Any) -> None:
    trip, chat = logs.good("litellm", GOLDEN / "calls.jsonl")
    assert shape(trip.messages) == "s u a2 t t a"
    assert [call.id for call in trip.steps[0].action.tool_calls] == ["call-1", "call-2"]
    assert [result.tool_call_id for result in trip.steps[0].observations] == ["call-2", "call-1"]
    assert trip.steps[0].action.reasoning == "Two cities, two calls."
    assert trip.steps[0].usage == Usage(80, 12, 64, 1.44e-05)
    assert [step.model for step in trip.steps] == ["gpt-4o-mini", "gpt-4o"]  # a fallback
    assert trip.source.sampling == {"temperature": 0.1, "seed": 3}
    assert [tool["function"]["name"] for tool in trip.tools] == ["weather"]
    assert trip.outcome is None
    counts = {"calls": 3, "failed_calls": 1, "assistant_turns": 2, "tool_calls": 2, "tool_results": 2, "rewards": 0}
    assert trip.source.counts == {"runs": 1, "messages": 6, **counts}
    [failed] = trip.source.extra["failed_attempts"]
    assert "the provider is down" in failed
    assert shape(chat.messages) == "u a u a"  # two requests with trace ids of their own; the second logged twice
    assert chat.source.counts["calls"] == 2
    assert [len(json.loads(item.source.raw)) for item in (trip, chat)] == [3, 2]


def test_golden_redacted_calls(logs: Any) -> None:
    [found] = logs.good("litellm", GOLDEN / "redacted.json")
    assert shape(found.messages) == "u a a"
    assert {message.text for message in found.messages} == {"redacted-by-litellm"}
    assert found.source.extra["redacted"] == 2


def test_keys_and_addresses_stay_in_the_raw_record(logs: Any) -> None:
    for item in logs.good("litellm", GOLDEN / "calls.jsonl"):
        extra = json.dumps(dict(item.source.extra))
        for secret in ("88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b", "192.0.2.7"):
            assert secret not in extra
            assert secret in item.source.raw


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def payload(at: int, history: Any, answer: str | None, **fields: Any) -> dict[str, Any]:
    """A payload as LiteLLM writes it, as far as it matters here."""
    response = {"choices": [{"index": 0, "message": says(answer)}]} if answer is not None else {}
    return {
        **{"id": f"id-{at}", "litellm_call_id": f"call-{at}", "trace_id": f"trace-{at}", "call_type": "completion"},
        **{"status": "success" if answer is not None else "failure", "startTime": 1000.0 + at, "endTime": 1000.5 + at},
        **{"messages": history, "response": response, "model": "m", "model_parameters": {}, "hidden_params": {}},
        **{"response_cost": 0.25, "prompt_tokens": 3, "completion_tokens": 1, "metadata": {}, "error_str": None},
        **fields,
    }


FIRST = payload(1, [user("a")], "b")
SECOND = payload(2, [user("a"), says("b"), user("c")], "d")
THIRD = payload(3, [user("a"), says("b"), user("c"), says("d"), user("e")], "f")


def test_calls_are_chained_by_what_was_said(logs: Any) -> None:
    other = payload(4, [user("x")], "b")
    one, two = logs.good("litellm", [FIRST, other, SECOND, THIRD])
    assert ([message.text for message in one.messages], shape(two.messages)) == (list("abcdef"), "u a")
    assert [step.started_at for step in one.steps] == [f"1970-01-01T00:16:4{second}Z" for second in (1, 2, 3)]


def test_the_same_words_behind_another_beginning_are_another_run(logs: Any) -> None:
    later = payload(2, [user("x"), says("b"), user("c")], "d")
    assert [shape(item.messages) for item in logs.good("litellm", [FIRST, later])] == ["u a", "u a u a"]


@pytest.mark.parametrize(
    "fields",
    [
        {"session_id": "s"},
        {"trace_id": "s"},
        {"metadata": {"requester_metadata": {"session_id": "s"}}},
        {"metadata": {"requester_metadata": {"trace_id": "s"}}},
    ],
)
def test_calls_are_grouped_by_id(logs: Any, fields: Any) -> None:
    rows = [{**row, **fields} for row in (THIRD, FIRST, payload(5, [user("x")], "y"), SECOND)]
    main, child = logs.good("litellm", rows)
    assert [message.text for message in main.messages] == list("abcdef")
    assert (child.parent_id, child.source.relation, shape(child.messages)) == (main.id, "subagent", "u a")
    assert logs.counts([main, child])["runs"] == 1


def test_retries_of_interleaved_requests_are_told_apart(logs: Any) -> None:
    shared = {"session_id": "s"}
    rows = [
        payload(1, [user("a")], None, error_str="down\ntraceback", **shared),
        payload(2, [user("x")], None, error_str="down", **shared),
        payload(3, [user("a")], "b", **shared),
        payload(4, [user("x")], None, error_str="gone", **shared),
    ]
    main, child = logs.good("litellm", rows)
    assert (shape(main.messages), main.source.counts["calls"], main.outcome) == ("u a", 2, None)
    assert main.source.extra["failed_attempts"] == ["down"]
    assert (child.outcome, child.truncated, child.steps) == (Outcome(exit_reason="error: gone"), True, ())
    assert main.steps[0].usage == Usage(3, 1, None, 0.25)


def test_a_call_logged_twice_counts_once(logs: Any) -> None:
    [found] = logs.good("litellm", [FIRST, SECOND, FIRST, SECOND])
    assert found.source.counts["calls"] == 2


def test_order_of_lines_changes_no_identity(logs: Any) -> None:
    rows = [{**row, "trace_id": "s"} for row in (FIRST, SECOND, THIRD)]
    [expected] = [item.id for item in logs.good("litellm", rows)]
    random.Random(1).shuffle(rows)
    assert [item.id for item in logs.good("litellm", rows)] == [expected]


def test_wrapped_payloads_and_other_apis(logs: Any) -> None:
    response = {"output": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}
    row = payload(1, "a", "", call_type="aresponses", response=response, model_parameters={"instructions": "be good"})
    wrapped = [{"standard_logging_object": row}]
    assert logs.detected(wrapped) == "litellm"
    [found] = logs.good("litellm", wrapped)
    assert found.prompt == (Message("system", "be good"), Message("user", "a"))
    assert found.steps[0].action.tool_calls[0].id == "c"


@pytest.mark.parametrize(
    "bad", [5, {}, payload(9, None, None, call_type="aembedding"), payload(9, None, None, call_type="image_generation")]
)
def test_what_is_no_conversation_does_not_hide_its_neighbours(logs: Any, bad: Any) -> None:
    problem, found = logs.all("litellm", [FIRST, bad, SECOND])
    assert (problem.problem.line, problem.problem.code, shape(found.messages)) == (2, "TTC-E012", "u a u a")


def test_many_calls_are_held_on_disk(logs: Any) -> None:
    rows = [payload(at, [user(f"{at}")], "y" * 100) for at in range(500)]
    assert len(logs.good("litellm", rows)) == 500
