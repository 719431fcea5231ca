"""ADP: actions and observations, paired by position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Outcome, Rejected, ToolCall

TRACES = Path(__file__).parents[4] / "shared" / "traces" / "adp"
REAL = TRACES / "nebius_SWE-agent-trajectories.std.0-2.json"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")


def seen(content: str, source: str = "user", **more: Any) -> dict[str, Any]:
    return {"class_": "text_observation", "content": content, "name": None, "source": source, **more}


def called(function: str, kwargs: Any, description: str = "") -> dict[str, Any]:
    return {"class_": "api_action", "function": function, "kwargs": kwargs, "description": description}


def run(*content: Any, **details: Any) -> dict[str, Any]:
    return {"id": "a1", "content": list(content), "details": details}


@needs_traces
def test_the_real_file_is_detected_and_counted(logs: Any) -> None:
    expected = logs.expected("adp", REAL.name)
    assert logs.detected(REAL) == "adp"
    found = logs.good("adp", REAL)
    assert len(found) == expected.pop("runs")
    counts = logs.counts(found)
    assert {key: counts[key] for key in expected} == expected
    first = found[0]
    assert (first.task.id, first.source.model) == ("tomerfiliba__plumbum-366_17", "swe-agent-llama-70b")
    assert first.outcome == Outcome(exit_reason="submitted")
    assert "generated_patch" in first.source.extra["details"]
    assert [len(step.observations) for step in first.steps] == [1, 1, 1, 1, 1, 1, 0]
    assert {m.role for step in first.steps for m in step.observations} == {"tool"}  # though it is marked as the user's


def test_actions_and_observations(logs: Any) -> None:
    record = run(
        seen("Do it."),
        called("find", {"name": "x"}, "I look."),
        seen("found"),
        seen("and more", "environment"),
        {"class_": "code_action", "language": "bash", "content": "ls", "description": None},
        seen("a.txt", "environment"),
        {"class_": "message_action", "content": "Done?", "description": "Hm."},
        seen("Yes."),
    )
    assert logs.detected(record) == "adp"
    (found,) = logs.good("adp", record)
    look, code, say = found.steps
    assert (look.action.content, look.action.tool_calls) == ("I look.", (ToolCall(None, "find", {"name": "x"}),))
    assert [(m.role, m.content) for m in look.observations] == [("tool", "found"), ("user", "and more")]
    assert code.action.tool_calls == (ToolCall(None, "bash", {"code": "ls"}),)
    assert code.observations[0].role == "tool"
    assert (say.action.content, say.action.reasoning, say.observations[0].role) == ("Done?", "Hm.", "user")
    assert found.source.counts == {
        "messages": 8,
        "assistant_turns": 3,
        "tool_calls": 2,
        "tool_results": 2,
        "rewards": 0,
    }


def test_a_web_page_is_text_and_a_reference(logs: Any) -> None:
    page = {"class_": "web_observation", "html": "<p>", "axtree": "[1] link", "url": "u"}
    image = {"class_": "image_observation", "content": "data:image/png;base64,AAAA", "annotations": None}
    shown = page | {"image_observation": image}
    (found,) = logs.good("adp", run(seen("Go."), called("open", {}), page, called("open", {}), shown))
    assert found.steps[0].observations[0].content == "[1] link"
    text, picture = found.steps[1].observations[0].content
    assert (text["text"], picture["image_url"]["url"][:7]) == ("[1] link", "sha256:")


@pytest.mark.parametrize(
    ("details", "outcome"),
    [
        ({}, None),
        ({"reward": 1}, Outcome(1.0)),
        ({"resolved": True, "exit_status": "ok"}, Outcome(1.0, "resolved", "ok")),
        ({"score": "high"}, None),
    ],
)
def test_outcomes(logs: Any, details: dict[str, Any], outcome: Outcome | None) -> None:
    (found,) = logs.good("adp", run(seen("x"), **details))
    assert found.outcome == outcome


def test_arguments_that_are_text(logs: Any) -> None:
    (found,) = logs.good("adp", run(called("f", '{"a": 1}'), called("g", "nothing")))
    assert found.steps[0].action.tool_calls == (ToolCall(None, "f", {"a": 1}, '{"a": 1}'),)
    assert found.steps[1].action.tool_calls == (ToolCall(None, "g", None, "nothing"),)


def test_bad_records_do_not_hide_their_neighbours(logs: Any) -> None:
    good = run(seen("x"))
    bad = [{"content": 5}, run({"class_": 7}), run(5), run({"class_": "thought"}), []]
    found = logs.all("adp", [good, *bad, good])
    assert [isinstance(item, Rejected) for item in found] == [False, *[True] * 5, False]
