"""Write golden ATIF documents of v1.7 and v1.8 with the package `atif` itself: a scripted run, no model.

usage: python make.py     (writes trajectory*.json beside this file)

trajectory.json (v1.7) calls two tools in parallel (results out of order, one missing), embeds a sub-agent, refers to
another in trajectory.helper.json, and is continued by trajectory.cont-1.json (v1.8: image, sound, deterministic step).
"""

import json
from pathlib import Path
from typing import Any

from atif import (
    Agent,
    AudioSource,
    ContentPart,
    FinalMetrics,
    ImageSource,
    Metrics,
    Observation,
    ObservationResult,
    Step,
    SubagentTrajectoryRef,
    ToolCall,
    Trajectory,
)

HERE = Path(__file__).parent
TOOLS = [
    {"type": "function", "function": {"name": name, "description": about, "parameters": {"type": "object"}}}
    for name, about in (("run", "Runs a command."), ("ask", "Asks a helper."))
]


def at(second: int) -> str:
    return f"2026-03-01T12:00:{second:02d}+02:00"


def said(number: int, text: str, **more: Any) -> Step:
    metrics = Metrics(
        prompt_tokens=100 + number,
        completion_tokens=2,
        cached_tokens=64,
        cost_usd=0.25,
        completion_token_ids=[7, 8],
        logprobs=[-0.5, -0.25],
    )
    return Step(step_id=number, timestamp=at(number), source="agent", message=text, metrics=metrics, **more)


def helper(identity: str, parent: str | None = None) -> Trajectory:
    extra = {"parent_session_id": parent} if parent else None
    return Trajectory(
        schema_version="ATIF-v1.7",
        session_id="run-1",
        trajectory_id=identity,
        agent=Agent(name="helper", version="1", model_name="small", extra=extra),
        steps=[
            Step(step_id=1, source="user", message="What is in the log?", timestamp=at(4)),
            said(2, "Nothing.", model_name="small"),
        ],
    )


def main_run() -> Trajectory:
    calls = [
        ToolCall(tool_call_id="c1", function_name="run", arguments={"command": "ls"}),
        ToolCall(tool_call_id="c2", function_name="run", arguments={"command": "false"}),
        ToolCall(tool_call_id="c3", function_name="run", arguments={"command": "sleep 1000"}),
    ]
    failed = ObservationResult(source_call_id="c2", content="exit 1", extra={"is_error": True})
    listed = ObservationResult(source_call_id="c1", content="a.txt")
    embedded = SubagentTrajectoryRef(trajectory_id="helper-1")
    beside = SubagentTrajectoryRef(trajectory_path="trajectory.helper.json")
    asks = [
        ToolCall(tool_call_id="d1", function_name="ask", arguments={"question": "What is in the log?"}),
        ToolCall(tool_call_id="d2", function_name="ask", arguments={"question": "What else?"}),
    ]
    return Trajectory(
        schema_version="ATIF-v1.7",
        session_id="run-1",
        trajectory_id="main",
        agent=Agent(name="scripted", version="1", model_name="big", tool_definitions=TOOLS, extra={"temperature": 0.5}),
        steps=[
            Step(step_id=1, source="system", message="Be brief.", timestamp=at(0)),
            Step(step_id=2, source="user", message="Look around.", timestamp=at(1)),
            said(
                3,
                "Three at once.",
                reasoning_content="They do not depend on each other.",
                tool_calls=calls,
                observation=Observation(results=[failed, listed]),
            ),
            said(
                4,
                "",
                model_name="bigger",
                reasoning_effort="high",
                tool_calls=asks,
                observation=Observation(
                    results=[
                        ObservationResult(source_call_id="d1", content="Nothing.", subagent_trajectory_ref=[embedded]),
                        ObservationResult(source_call_id="d2", subagent_trajectory_ref=[beside]),
                    ]
                ),
            ),
        ],
        final_metrics=FinalMetrics(total_prompt_tokens=207, total_completion_tokens=4, total_cost_usd=0.5),
        continued_trajectory_ref="trajectory.cont-1.json",
        extra={"task_id": "look"},
        subagent_trajectories=[helper("helper-1")],
    )


def continued() -> Trajectory:
    parts = [
        ContentPart(type="text", text="See and hear:"),
        ContentPart(type="image", source=ImageSource(media_type="image/png", path="images/a.png")),
        ContentPart(type="audio", source=AudioSource(media_type="audio/mpeg", path="sounds/a.mp3", duration_sec=1.5)),
    ]
    return Trajectory(
        schema_version="ATIF-v1.8",
        session_id="run-1",
        trajectory_id="main-cont-1",
        agent=Agent(name="scripted", version="1", model_name="big"),
        steps=[
            Step(step_id=1, source="user", message="Look around.", is_copied_context=True),
            Step(step_id=2, source="agent", message="I looked around.", is_copied_context=True),
            Step(step_id=3, source="user", message=parts, timestamp=at(10)),
            Step(
                step_id=4,
                source="agent",
                message="",
                llm_call_count=0,
                tool_calls=[ToolCall(tool_call_id="e1", function_name="run", arguments={})],
                observation=Observation(results=[ObservationResult(content="done")]),
                timestamp=at(11),
            ),
            said(5, "Heard."),
        ],
    )


def main() -> None:
    documents = {
        "trajectory.json": main_run(),
        "trajectory.helper.json": helper("helper-2", parent="run-1"),
        "trajectory.cont-1.json": continued(),
    }
    for name, document in documents.items():
        (HERE / name).write_text(json.dumps(document.to_json_dict(), indent=2) + "\n")


if __name__ == "__main__":
    main()
