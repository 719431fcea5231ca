"""ATIF: golden documents of v1.7 and v1.8, links between documents, and what the package `atif` refuses."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.readers import atif as atif_reader
from ttc_replay.storage.readers.base import find_reader
from ttc_replay.storage.records import Rejected, Source, Trajectory, Usage

GOLDEN = Path(__file__).parents[1] / "golden_logs" / "atif"
TRACES = Path(__file__).parents[4] / "shared" / "traces" / "atif"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no real logs at {TRACES}")


def read(path: Path) -> list[Trajectory]:
    with path.open("rb") as stream:
        found = list(find_reader("atif").read(stream, Source("", path=str(path))))
    assert not any(isinstance(item, Rejected) for item in found), found
    return [item for item in found if isinstance(item, Trajectory)]


def document(**more: Any) -> dict[str, Any]:
    steps = [
        {"step_id": 1, "source": "user", "message": "go"},
        {"step_id": 2, "source": "agent", "message": "gone"},
    ]
    return {
        "schema_version": "ATIF-v1.8",
        "session_id": "s",
        "agent": {"name": "a", "version": "1"},
        "steps": steps,
        **more,
    }


def test_a_golden_run_keeps_calls_results_usage_times_and_models() -> None:
    outer, _ = read(GOLDEN / "trajectory.json")
    first, second = outer.steps
    assert [call.id for call in first.action.tool_calls] == ["c1", "c2", "c3"]
    assert [(m.tool_call_id, m.is_error, m.content) for m in first.observations] == [
        ("c2", True, "exit 1"),  # as recorded: out of order, and c3 was never answered
        ("c1", False, "a.txt"),
    ]
    assert (first.action.reasoning, first.logprob) == ("They do not depend on each other.", -0.75)
    assert first.usage == Usage(103, 2, 64, 0.25)
    assert (first.started_at, first.ended_at) == ("2026-03-01T10:00:03Z", None)
    assert (first.model, second.model) == ("big", "bigger")
    assert outer.source is not None
    assert outer.source.usage == Usage(207, 4, None, 0.5)
    assert (outer.source.started_at, outer.source.ended_at) == ("2026-03-01T10:00:00Z", "2026-03-01T10:00:04Z")
    assert outer.source.sampling == {"temperature": 0.5, "reasoning_effort": "high"}
    assert [tool["function"]["name"] for tool in outer.tools or ()] == ["run", "ask"]
    assert (outer.task.id, outer.prompt[0].role, outer.outcome) == ("look", "system", None)
    assert outer.source.counts == {
        "messages": 4,
        "assistant_turns": 2,
        "tool_calls": 5,
        "tool_results": 4,
        "rewards": 0,
    }
    raw = json.loads(outer.source.raw or "")
    assert raw["steps"][2]["metrics"]["completion_token_ids"] == [7, 8]


def test_embedded_sub_agents_are_children_of_the_step_that_refers_to_them() -> None:
    outer, inner = read(GOLDEN / "trajectory.json")
    assert (inner.parent_id, inner.branch_step) == (outer.id, 1)
    assert inner.source is not None
    assert (inner.source.relation, inner.source.agent, inner.source.model) == ("subagent", "helper", "small")
    assert inner.source.extra["parent_session"] == "run-1"


def test_documents_refer_to_files_beside_them() -> None:
    outer, _ = read(GOLDEN / "trajectory.json")
    (helper,) = read(GOLDEN / "trajectory.helper.json")
    (continued,) = read(GOLDEN / "trajectory.cont-1.json")
    assert outer.source is not None
    assert outer.source.links is not None
    names = {f"file:{GOLDEN / name}": 1 for name in ("trajectory.helper.json", "trajectory.cont-1.json")}
    assert outer.source.links.children == names
    for child, relation in ((helper, "subagent"), (continued, "continuation")):
        assert child.source is not None
        assert child.source.links is not None
        assert (child.source.relation, child.parent_id) == (relation, None)
        assert set(child.source.links.keys) & set(names)


def test_parts_copied_context_and_steps_without_a_model() -> None:
    (found,) = read(GOLDEN / "trajectory.cont-1.json")
    assert found.source is not None
    assert found.source.extra["copied_steps"] == [0]
    content: Any = found.steps[0].observations[0].content
    text, image, sound = content
    assert text == {"type": "text", "text": "See and hear:"}
    assert image == {"type": "image_url", "image_url": {"url": "images/a.png", "media_type": "image/png"}}
    assert sound == {"type": "audio", "audio": {"url": "sounds/a.mp3", "media_type": "audio/mpeg"}}
    assert (found.steps[1].model, found.steps[2].model) == (None, "big")
    assert found.steps[1].observations[0].tool_call_id == "e1"  # one result for one call


@needs_traces
def test_before_v17_sessions_are_names_too() -> None:
    name = "terminus_2.hello-world-context-summarization.trajectory"
    (main,) = read(TRACES / f"{name}.json")
    assert main.source is not None
    assert main.source.links is not None
    sessions = {key: step for key, step in main.source.links.children.items() if key.startswith("session:")}
    assert len(sessions) == 3
    assert set(sessions.values()) == {2}  # a system step belongs to the agent's step before it
    for part in ("summary", "questions", "answers"):
        (child,) = read(TRACES / f"{name}.summarization-1-{part}.json")
        assert child.source is not None
        assert child.source.links is not None
        assert (child.source.relation, set(child.source.links.keys) & set(sessions) != set()) == ("subagent", True)


@needs_traces
@pytest.mark.parametrize("file", sorted(path.name for path in TRACES.glob("*.json")) or ["none"])
def test_the_package_has_nothing_against_real_documents(file: str) -> None:
    for found in read(TRACES / file):
        assert found.source is not None
        assert "not_valid" not in found.source.extra
        assert found.source.usage is not None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"news": 1}, "news: "),
        (
            {"schema_version": "ATIF-v1.9", "steps": [{"step_id": 1, "source": "user", "message": "x", "mood": 3}]},
            "steps",
        ),
        ({"steps": [{"step_id": 7, "source": "user", "message": "x"}]}, "not sequential"),
        ({"agent": {"name": "a"}}, "agent.version"),
        ({}, None),
    ],
)
def test_what_the_package_refuses_is_read_all_the_same(logs: Any, change: dict[str, Any], says: str | None) -> None:
    (found,) = logs.good("atif", document(**change))
    problem = found.source.extra.get("not_valid")
    assert problem is None if says is None else says in problem
    assert len(found.messages) >= 1


def test_without_the_package_documents_are_read(logs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atif", None)
    atif_reader._model.cache_clear()
    try:
        (found,) = logs.good("atif", document(news=1))
    finally:
        monkeypatch.undo()
        atif_reader._model.cache_clear()
    assert "not_valid" not in found.source.extra


def test_references_never_leave_the_text(logs: Any) -> None:
    refs = [{"trajectory_path": name} for name in ("../up.json", "https://host/x.json", "a\u0000b", "")]
    step = {
        "step_id": 1,
        "source": "agent",
        "message": "",
        "observation": {"results": [{"subagent_trajectory_ref": refs}]},
    }
    data = json.dumps(document(steps=[step])).encode()
    (found,) = find_reader("atif").read(io.BytesIO(data), Source("", path="/logs/run/a.json"))
    assert isinstance(found, Trajectory)
    assert found.source is not None
    assert found.source.links is not None
    assert found.source.links.children == {"file:/logs/up.json": 0}
    assert found.source.links.keys == ("file:/logs/run/a.json",)


def test_several_documents_in_one_file_have_no_name_of_the_file(logs: Any) -> None:
    first, second = logs.good("atif", [document(), document(session_id="t")])
    assert first.source.links.keys == (f"file:{Path('log').absolute()}",)
    assert second.source.links is None


def test_a_bad_embedded_document_costs_itself(logs: Any) -> None:
    inner = [5, {"schema_version": "ATIF-v1.8"}, document(trajectory_id="x")]
    outer, *others = logs.all("atif", document(subagent_trajectories=inner))
    assert [isinstance(item, Rejected) for item in others] == [True, True, False]
    assert others[2].parent_id == outer.id


def test_a_bad_outer_document_does_not_hide_the_embedded(logs: Any) -> None:
    bad, inner = logs.all("atif", document(steps=[{"source": 5}], subagent_trajectories=[document(trajectory_id="x")]))
    assert bad.problem.code == "TTC-E012"
    assert (inner.parent_id, inner.source.relation) == (None, "subagent")
