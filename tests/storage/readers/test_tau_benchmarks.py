"""tau-bench and tau2-bench: errors, times, usage and the layouts of newer versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.records import Outcome, Usage

TRACES = Path(__file__).parents[4] / "shared" / "traces"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")


def said(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def called(name: str, requestor: str = "assistant") -> list[dict[str, Any]]:
    return [{"id": name, "name": "f", "arguments": {}, "requestor": requestor}]


SIMULATION: dict[str, Any] = {
    "id": "s",
    "task_id": "t",
    "trial": 1,
    "seed": 5,
    "start_time": "2026-01-01T10:00:00.5",
    "end_time": "2026-01-01T10:01:00+02:00",
    "agent_cost": 0.75,
    "termination_reason": "too_many_errors",
    "reward_info": {"reward": 0.0, "reward_breakdown": {"DB": 0, "COMMUNICATE": 1.0, "NL_ASSERTION": 0.5}},
    "ticks": [{"tick": 1}],
    "messages": [
        said("assistant", "Hi!", turn_idx=0, timestamp="2026-01-01T10:00:01"),
        said("user", None, tool_calls=called("u", "user")),
        said("tool", "broken", id="u", requestor="user", error=True),
        said(
            "assistant",
            None,
            tool_calls=[*called("a"), *called("b")],
            timestamp="2026-01-01T10:00:05",
            generation_time_seconds=1.5,
            cost=0.25,
            usage={"prompt_tokens": 10, "completion_tokens": 3},
            raw_data={"model": "m-dated", "usage": {"prompt_tokens_details": {"cached_tokens": 8}}},
        ),
        {
            "role": "tool",
            "tool_messages": [
                said("tool", "no", id="b", requestor="assistant", error=True),
                said("tool", "yes", id="a", requestor="assistant", error=False),
            ],
        },
    ],
}
RESULTS: dict[str, Any] = {
    "info": {
        "seed": 300,
        "agent_info": {"implementation": "llm_agent", "llm": "m", "llm_args": {"temperature": 0.0}},
        "environment_info": {"domain_name": "mock", "policy": "P"},
    },
    "tasks": [{"id": "t", "ticket": "T", "evaluation_criteria": {"actions": []}}],
    "simulations": [SIMULATION],
}


def test_a_simulation_with_errors_times_usage_and_scores(logs: Any) -> None:
    (found,) = logs.good("tau2-bench", RESULTS)
    greeting, step = found.steps
    assert [(m.role, m.requestor, m.is_error) for m in greeting.observations] == [
        ("user", "user", False),
        ("tool", "user", True),
    ]
    assert [(m.tool_call_id, m.is_error, m.requestor) for m in step.observations] == [
        ("b", True, None),
        ("a", False, None),
    ]
    assert step.usage == Usage(10, 3, 8, 0.25)
    assert (step.started_at, step.ended_at) == ("2026-01-01T10:00:03.500000", "2026-01-01T10:00:05")
    assert (greeting.ended_at, greeting.model, step.model) == ("2026-01-01T10:00:01", None, "m-dated")
    assert (found.source.started_at, found.source.ended_at) == ("2026-01-01T10:00:00.500000", "2026-01-01T08:01:00Z")
    assert found.source.usage == Usage(cost_usd=0.75)
    assert found.source.sampling == {"temperature": 0.0}
    assert (found.task.seed, found.source.trial, found.truncated) == (5, "1", True)
    assert (found.outcome.value, found.outcome.exit_reason) == (0.0, "too_many_errors")
    assert {name: score.value for name, score in found.scores.items()} == {
        "DB": 0.0,
        "COMMUNICATE": 1.0,
        "NL_ASSERTION": 0.5,
    }
    assert (found.source.counts["user_tool_calls"], found.source.counts["user_tool_results"]) == (1, 1)
    assert "ticks" not in found.source.extra
    assert json.loads(found.source.raw)["ticks"] == [{"tick": 1}]


def test_simulations_in_files_beside_their_results(logs: Any) -> None:
    beside = {key: RESULTS[key] for key in ("info", "tasks")}
    for results in (beside, beside | {"simulations": []}, beside | {"simulations": None}):
        assert logs.detected(results) == "tau2-bench"
        assert logs.all("tau2-bench", results) == []
    assert logs.detected(SIMULATION) == "tau2-bench"
    (alone,) = logs.good("tau2-bench", SIMULATION)
    (whole,) = logs.good("tau2-bench", RESULTS)
    assert (alone.id, alone.messages) == (whole.id, whole.messages)
    assert (alone.task.private, whole.task.private) == ({}, {"evaluation_criteria": {"actions": []}})


@pytest.mark.parametrize("seconds", [None, "long", -1, 1e9, True])
def test_times_that_are_none(logs: Any, seconds: Any) -> None:
    message = said("assistant", timestamp="yesterday", generation_time_seconds=seconds)
    (found,) = logs.good("tau2-bench", SIMULATION | {"messages": [message], "start_time": 5, "end_time": "x"})
    (step,) = found.steps
    assert (step.started_at, step.ended_at) == (None, None)


@needs_traces
def test_real_simulations_have_times_and_usage(logs: Any) -> None:
    for path in sorted((TRACES / "tau2-bench").glob("*.json")):
        for found in logs.good("tau2-bench", path):
            assert found.source.started_at < found.source.ended_at
            assert found.source.sampling == {"temperature": 0.0}
            assert (found.source.usage is None) == ('"agent_cost":null' in found.source.raw)
            assert all(step.ended_at is not None for step in found.steps)
            spent = [step for step in found.steps if step.usage and step.usage.prompt_tokens]
            assert all(step.model is not None and step.started_at is not None for step in spent)


@needs_traces
def test_real_tau_bench_errors_are_marked(logs: Any) -> None:
    found = logs.good("tau-bench", TRACES / "tau-bench" / "gpt-4o-airline.trials-0-1.json")
    marked = [m.content for item in found for m in item.messages if m.is_error]
    assert len(marked) == 33
    assert all(text.startswith("Error: ") for text in marked)


def test_tau_bench_runs_that_died(logs: Any) -> None:
    failed = {"task_id": 1, "trial": 0, "reward": 0.0, "info": {"error": "boom"}, "traj": []}
    (found,) = logs.good("tau-bench", [failed])
    assert (found.outcome.exit_reason, found.truncated) == ("error: boom", True)
    assert isinstance(found.outcome, Outcome)
