"""Claude Code sessions: split answers, the tree and its branches, side chains, compaction, resumed sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Links, Outcome, Trajectory, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "claude-code"


def line(uuid: str, parent: str | None, kind: str, content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": kind, "content": content, **more.pop("message", {})}
    about = {"uuid": uuid, "parentUuid": parent, "sessionId": "s", "isSidechain": False, "type": kind}
    return {**about, "message": message, **more}


def shape(trajectory: Trajectory) -> list[tuple[str, str, tuple[str | None, ...]]]:
    return [(m.role, m.text, tuple(call.id for call in m.tool_calls) or (m.tool_call_id,)) for m in trajectory.messages]


def test_the_session_is_its_main_thread_and_what_was_left_of_it(logs: Any) -> None:
    main, branch, continued, side = logs.good("claude-code", GOLDEN / "session.jsonl")
    assert [item.source.relation for item in (main, branch, continued, side)] == [
        None,
        "branch",
        "continuation",
        "subagent",
    ]
    assert [item.parent_id for item in (branch, continued, side)] == [main.id] * 3
    assert [item.branch_step for item in (branch, continued, side)] == [2, None, 1]
    assert (branch.task, continued.task) == (main.task, main.task)
    assert side.task.prompt == "Find every caller of greet()."
    assert [step.action.text for step in branch.steps[2:]] == [
        "It returns nothing. Shall I fix it?",
        "Then I leave it.",
    ]
    assert [message.text for message in continued.prompt] == ["This session continues: greet() was fixed."]
    assert (continued.outcome, continued.steps[0].observations) == (Outcome(exit_reason="tool_use"), ())


def test_lines_of_one_answer_are_one_step_whose_usage_counts_once(logs: Any) -> None:
    first, *_ = logs.good("claude-code", GOLDEN / "session.jsonl")
    step = first.steps[0]
    assert (step.action.text, step.action.reasoning) == ("I read both files.", "Look at both files.")
    assert [call.id for call in step.action.tool_calls] == ["toolu_1", "toolu_2"]
    assert [(m.tool_call_id, m.name, m.is_error) for m in step.observations] == [
        ("toolu_1", "Read", False),
        ("toolu_2", "Read", True),
    ]
    assert step.usage == Usage(prompt_tokens=130, completion_tokens=40, cached_tokens=100)
    assert (step.started_at, step.ended_at) == ("2026-01-05T10:00:03Z", "2026-01-05T10:00:08Z")
    assert first.source.usage == Usage(520, 115, 400)
    assert (first.tools, first.source.sampling, first.source.model) == (None, None, "claude-sonnet-4-5")


def test_an_image_is_a_reference_and_stays_in_the_raw_record(logs: Any) -> None:
    first, *_ = logs.good("claude-code", GOLDEN / "session.jsonl")
    (asked,) = first.steps[2].observations
    text, image = asked.content
    assert text == {"type": "text", "text": "Yes, like in this picture."}
    assert image["image_url"]["url"].startswith("sha256:")
    assert image["image_url"]["media_type"] == "image/png"
    assert "iVBORw0KGgo" in first.source.raw
    assert '"toolUseResult"' in first.source.raw
    assert '"queue-operation"' in first.source.raw


def test_counts_of_all_threads_add_up_to_those_of_the_file(logs: Any) -> None:
    found = logs.good("claude-code", GOLDEN / "session.jsonl")
    assert logs.counts(found) == {
        "runs": 1,
        "messages": 21,
        "assistant_turns": 8,
        "assistant_lines": 11,
        "tool_calls": 6,
        "tool_results": 5,
        "rewards": 0,
        "events": 26,
        "bad_lines": 0,
        "session_ids": 1,
    }


def test_a_resumed_session_names_the_one_it_copied(logs: Any) -> None:
    (resumed,) = logs.good("claude-code", GOLDEN / "resumed.jsonl")
    assert resumed.source.links == Links(("session:resumed",), "session:golden")
    assert (resumed.source.relation, resumed.branch_step) == ("continuation", 1)
    assert resumed.source.counts["session_ids"] == 2


def test_a_sub_agents_file_and_its_session_name_each_other(logs: Any) -> None:
    (caller,) = logs.good("claude-code", GOLDEN / "caller.jsonl")
    (agent,) = logs.good("claude-code", GOLDEN / "caller" / "subagents" / "agent-a1b2c3d.jsonl")
    assert caller.source.links == Links(("session:caller",), None, {"agent:caller/a1b2c3d": 0})
    assert agent.source.links == Links(("agent:caller/a1b2c3d",), "session:caller")
    assert agent.source.relation == "subagent"


def test_forked_sessions_are_branches_of_the_one_they_name(logs: Any) -> None:
    rows = [line("a", None, "user", "go", forkedFrom={"sessionId": "old", "messageUuid": "a"})]
    (forked,) = logs.good("claude-code", rows)
    assert forked.source.links == Links(("session:s",), "session:old")


def test_the_latest_leaf_is_the_main_path_however_deep_the_others_are(logs: Any) -> None:
    rows = [
        line("u", None, "user", "go"),
        line("a1", "u", "assistant", "one"),
        line("b1", "a1", "user", "left"),
        line("b2", "b1", "assistant", "left too"),
        line("c1", "b2", "user", "and this"),
        line("b3", "b1", "assistant", "a branch of the branch"),
        line("u2", "a1", "user", "kept"),
    ]
    main, *branches = logs.good("claude-code", rows)
    assert [text for _, text, _ in shape(main)] == ["go", "one", "kept"]
    assert [[text for _, text, _ in shape(item)] for item in branches] == [
        ["go", "one", "left", "a branch of the branch"],
        ["go", "one", "left", "left too", "and this"],
    ]
    assert [item.branch_step for item in branches] == [0, 1]
    assert branches[1].parent_id == branches[0].id


def test_parallel_calls_do_not_make_branches_whichever_result_comes_first(logs: Any) -> None:
    def use(name: str) -> list[dict[str, Any]]:
        return [{"type": "tool_use", "id": name, "name": "f", "input": {}}]

    def result(name: str) -> list[dict[str, Any]]:
        return [{"type": "tool_result", "tool_use_id": name, "content": name}]

    rows = [
        line("u", None, "user", "go"),
        line("a1", "u", "assistant", use("x"), message={"id": "m"}),
        line("a2", "a1", "assistant", use("y"), message={"id": "m"}),
        line("r2", "a2", "user", result("y")),
        line("r1", "a1", "user", result("x")),
        line("a3", "r2", "assistant", "done", message={"id": "n"}),
    ]
    for cut in (len(rows), 5):
        (main,) = logs.good("claude-code", rows[:cut])
        assert shape(main)[1:4] == [("assistant", "", ("x", "y")), ("tool", "y", ("y",)), ("tool", "x", ("x",))]
        assert len(main.steps) == cut - 4


@pytest.mark.parametrize(
    ("second", "relations"),
    [
        ({"content": "asked in another way"}, [None, "branch"]),
        ({"content": "<command-name>/clear</command-name>"}, [None, None]),
        ({"content": "of another session", "sessionId": "t"}, [None, None]),
    ],
)
def test_a_second_root_is_a_branch_unless_it_began_anew(
    logs: Any, second: dict[str, Any], relations: list[Any]
) -> None:
    content = second.pop("content")
    rows = [
        line("u", None, "user", "go"),
        line("a", "u", "assistant", "one"),
        line("u2", None, "user", content, **second),
        line("a2", "u2", "assistant", "two", **second),
    ]
    found = logs.good("claude-code", rows)
    assert [item.source.relation for item in found] == relations
    assert [item.source.counts["runs"] for item in found] == [1, 0]
    assert [item.parent_id for item in found[1:]] == [found[0].id if relations[1] else None]


def test_a_plain_list_and_a_lost_parent_go_on_from_the_line_before(logs: Any) -> None:
    plain = [line("u", None, "user", "go"), line("a", None, "assistant", "one"), line("v", None, "user", "on")]
    lost = [line("u", None, "user", "go"), line("a", "u", "assistant", "one"), line("v", "gone", "user", "on")]
    for rows in (plain, lost):
        (main,) = logs.good("claude-code", rows)
        assert [text for _, text, _ in shape(main)] == ["go", "one", "on"]


def test_a_line_written_twice_stands_once_but_counts_twice(logs: Any) -> None:
    rows = [line("u", None, "user", "go"), line("a", "u", "assistant", "one"), line("a", "u", "assistant", "one")]
    (main,) = logs.good("claude-code", rows)
    assert [text for _, text, _ in shape(main)] == ["go", "one"]
    assert main.source.counts["messages"] == 3


@pytest.mark.parametrize(
    ("last", "reason", "truncated"),
    [
        (line("z", "a", "user", "[Request interrupted by user]"), "interrupted", True),
        (line("z", "a", "assistant", "API Error", isApiErrorMessage=True), "api_error", True),
        (line("z", "a", "assistant", "bye", message={"stop_reason": "end_turn"}), "end_turn", False),
        (line("z", "a", "assistant", "cut", message={"stop_reason": "max_tokens"}), "max_tokens", True),
    ],
)
def test_exit_reasons(logs: Any, last: dict[str, Any], reason: str, truncated: bool) -> None:
    (main,) = logs.good("claude-code", [line("u", None, "user", "go"), line("a", "u", "assistant", "one"), last])
    assert (main.outcome, main.truncated) == (Outcome(exit_reason=reason), truncated)


def test_old_costs_and_results_without_ids(logs: Any) -> None:
    call = [{"type": "tool_use", "name": "bash", "input": "not an object"}]
    rows = [
        line("u", None, "user", "go"),
        line("a", "u", "assistant", call, costUSD=0.25, message={"id": "m", "usage": {"input_tokens": 1}}),
        line("b", "a", "assistant", "and", costUSD=0.25, message={"id": "m", "usage": {"input_tokens": 1}}),
        line("r", "b", "user", [{"type": "tool_result", "content": {"odd": 1}}]),
    ]
    (main,) = logs.good("claude-code", rows)
    (step,) = main.steps
    assert step.usage == Usage(prompt_tokens=1, cost_usd=0.25)
    assert (step.action.tool_calls[0].arguments, step.action.tool_calls[0].arguments_raw) == (None, "not an object")
    assert (step.observations[0].name, step.observations[0].content) == ("bash", '{"odd": 1}')


def test_a_file_cut_while_it_is_written_gives_what_is_whole(logs: Any) -> None:
    data = (GOLDEN / "caller.jsonl").read_bytes()
    run, problem = logs.all("claude-code", data[:-20])
    assert (run.truncated, len(run.steps), problem.fatal, problem.problem.code) == (True, 1, True, "TTC-E019")


def test_a_file_of_summaries_has_no_run(logs: Any) -> None:
    rows = [{"type": "summary", "summary": "x", "leafUuid": "u"}]
    assert logs.detected(rows) == "claude-code"
    assert logs.all("claude-code", rows) == []


def test_a_session_too_large_to_hold_is_refused_whole(logs: Any) -> None:
    row = line("u", None, "user", "go", extra="," * 2**20)  # counted as values, see held.py
    (problem,) = logs.all("claude-code", [row] * 12)
    assert (problem.fatal, problem.problem.code) == (True, "TTC-E021")


def test_many_branches_are_bounded(logs: Any) -> None:
    rows = [line("0", None, "user", "x" * 4000)]
    rows += [line(str(number), str(number - 1), "user", "x" * 4000) for number in range(1, 300)]
    rows += [line(f"leaf{number}", "299", "user", "y") for number in range(500)]
    found = logs.all("claude-code", rows)
    assert found[-1].problem.code == "TTC-E021"
