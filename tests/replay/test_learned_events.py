"""Observations as templates, relations between calls, and the figures of a held-out report; no net is needed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttc_replay import Message, Outcome, Step, Task, ToolCall, Trajectory
from ttc_replay.replay.environments.learned_events import (
    Memory,
    events_of,
    filled,
    hashed,
    run_of,
    same_result,
    template_of,
)
from ttc_replay.replay.environments.learned_figures import (
    Guess,
    Verdicts,
    auroc,
    calibration_error,
    figures,
    gain_interval,
)


def post(line: str) -> ToolCall:
    return ToolCall("c", "post", {"line": line, "amount": "12.50"})


def test_an_observation_of_one_call_is_that_of_another_with_its_arguments_and_counters() -> None:
    before = Memory().after(post("B1"), '{"line": "B1", "bookings": 1, "open_lines": 9}')
    template = template_of('{"line": "B2", "bookings": 1, "open_lines": 8}', post("B2"), before.counters)
    later = before.after(post("B2"), '{"line": "B2", "bookings": 1, "open_lines": 8}')
    assert filled(template, post("B7"), later.counters) == '{"line": "B7", "bookings": 1, "open_lines": 7}'
    assert filled(template, ToolCall("c", "post", {}), later.counters) is None
    assert filled(template, post("B7"), {}) is None


values = st.text("abAB12-_ .", min_size=1, max_size=6)


@given(st.dictionaries(st.sampled_from(["line", "account", "note"]), values), st.text(max_size=30), st.integers(-9, 9))
@settings(max_examples=60, deadline=None)
def test_a_template_filled_with_its_own_call_is_the_observation(
    arguments: dict[str, str], said: str, number: int
) -> None:
    call = ToolCall("c", "post", arguments)
    counters = {"open": 3, "said": 1}
    for text in (json.dumps({"open": number, "said": said, **arguments}), said + " ".join(arguments.values())):
        assert filled(template_of(text, call, counters), call, counters) == text


def test_values_are_known_by_where_they_were_used_and_read() -> None:
    memory = Memory().after(ToolCall("a", "find", {"name": "Ann"}), "orders W-1 and W-2")
    known = memory.after(ToolCall("b", "refund", {"order": "W-1"}), "ok").relations(
        ToolCall("c", "get", {"order": "W-1"})
    )
    assert known == ["again:order:refund", "read:order"]
    assert memory.relations(ToolCall("c", "get", {"order": "W-77"})) == ["new:order"]


def test_a_run_is_its_calls_and_its_messages_and_ends_once() -> None:
    asked = Message(
        "assistant", tool_calls=(ToolCall("a", "find", {"name": "Ann"}), ToolCall("b", "find", {"name": "Bo"}))
    )
    results = (Message("tool", "W-1", tool_call_id="a"), Message("tool", "none", tool_call_id="b"))
    steps = (Step(0, asked, results), Step(1, Message("assistant", "Bye."), (Message("user", "bye"),)))
    run = Trajectory("r", Task("t"), steps=steps, outcome=Outcome(0.5))
    events = events_of(run)
    assert [(item.tool, item.text, item.ended) for item in events] == [
        ("find", "W-1", False),
        ("find", "none", False),
        ("", "bye", True),
    ]
    assert (run_of(run).won, run_of(run, 0.5).won) == (False, True)
    assert hashed(["a", "b"]) == hashed(["a", "b"])


def test_results_are_the_same_as_text_or_as_json() -> None:
    assert same_result('{"a": 1, "b": 2}', '{"b":2,"a":1}')
    assert not same_result("1", "true")
    assert not same_result("x", "y")


# -- figures -----------------------------------------------------------------------------------------------------------

AUROCS = {
    "perfect": ([(0.9, True), (0.1, False)], 1.0),
    "upside down": ([(0.1, True), (0.9, False)], 0.0),
    "all alike": ([(0.5, True), (0.5, False)], 0.5),
    "one outcome only": ([(0.5, True)], None),
}


@pytest.mark.parametrize("what", AUROCS)
def test_auroc_is_the_chance_that_a_win_is_ranked_above_a_loss(what: str) -> None:
    pairs, expected = AUROCS[what]
    assert auroc(pairs) == expected


def test_calibration_error_is_the_gap_between_said_and_seen() -> None:
    assert calibration_error([(0.75, True)] * 3 + [(0.75, False)]) == 0
    assert calibration_error([(1.0, False)] * 4) == 1
    assert calibration_error([]) == 0


def guess(task: int, right: bool, baseline: bool) -> Guess:
    return Guess(str(task), "find", 0.8, right, baseline, known=True)


def test_a_gain_counts_only_beyond_the_chance_of_which_tasks_were_held_out() -> None:
    everywhere = [guess(task, True, task % 3 == 0) for task in range(9) for _ in range(4)]
    one_task = [guess(task, task == 0, False) for task in range(9) for _ in range(4)]
    report = figures(everywhere, Verdicts([(0.1, False)], [(0.7, True), (0.2, False)]), runs=9)
    assert (report.accuracy, round(report.baseline, 3), report.outcome_auroc) == (1.0, 0.333, 1.0)
    assert report.trusted
    assert not figures(one_task, Verdicts([], []), runs=9).trusted
    assert gain_interval([guess(0, True, False)]) == (-1.0, 1.0)  # one task tells nothing
    assert report.to_dict()["by_tool"]["find"]["observations"] == 36
