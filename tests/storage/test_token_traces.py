"""Sampled tokens are kept exactly, archives and journals without them stay readable, and digests do not see them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect

from ttc_replay.replay.calls import proposal_from_dict, proposal_to_dict
from ttc_replay.storage.codec import proposal_from, step_from, step_to_dict
from ttc_replay.storage.database import Database
from ttc_replay.storage.engines import open_engine
from ttc_replay.storage.exact_json import step_from_json, step_to_json
from ttc_replay.storage.journal import digest
from ttc_replay.storage.migrations import MIGRATIONS, migrate, version
from ttc_replay.storage.records import Message, Proposal, Source, Step, Task, TokenTrace, Trajectory

ids = st.lists(st.integers(0, 2**31), max_size=5).map(tuple)
floats = st.floats(allow_nan=False, allow_infinity=False)
traces = st.builds(
    TokenTrace,
    ids=ids,
    logprobs=st.lists(floats, max_size=5).map(tuple),
    margin=st.none() | floats,
    undecided=st.integers(0, 9),
    prompt=st.none() | ids,
    shared=st.integers(0, 9),
    model=st.none() | st.text(max_size=4),
)


@given(traces)
def test_every_form_of_a_step_and_a_proposal_keeps_them(trace: TokenTrace) -> None:
    step = Step(0, Message("assistant", "hi"), logprob=-1.0, tokens=trace)
    assert step_from_json(json.loads(json.dumps(step_to_json(step)))) == step
    assert step_from(json.loads(json.dumps(step_to_dict(step)))) == step
    proposal = Proposal(Message("assistant", "hi"), -1.0, tokens=trace)
    assert proposal_from_dict(json.loads(json.dumps(proposal_to_dict(proposal)))) == proposal
    assert proposal_from(json.loads(json.dumps(proposal_to_dict(proposal)))) == proposal


def test_steps_and_proposals_without_them_are_written_as_ever() -> None:
    step, proposal = Step(0, Message("assistant", "hi")), Proposal(Message("assistant", "hi"))
    assert "tokens" not in step_to_json(step) | step_to_dict(step) | proposal_to_dict(proposal)
    assert step_from_json(step_to_json(step)).tokens is None
    assert proposal_from_dict(proposal_to_dict(proposal)).tokens is None


def run_of(trace: TokenTrace | None) -> Trajectory:
    steps = (Step(0, Message("assistant", "hi"), tokens=trace), Step(1, Message("assistant", "bye")))
    return Trajectory("cf-1", Task("t"), steps=steps, parent_id="rec-1", run="r", source=Source("ttc-replay"))


def test_the_archive_keeps_them(tmp_path: Path) -> None:
    run = run_of(TokenTrace((1, 2), (-0.5, -0.25), 0.125, 1, (7, 8), 3))
    with Database.open(str(tmp_path / "a.duckdb")) as database:
        database.replace_trajectories([run])
        assert database.trajectory("cf-1").steps == run.steps


def test_an_archive_from_before_them_is_read_and_goes_on(tmp_path: Path) -> None:
    place = str(tmp_path / "old.duckdb")
    opened = open_engine(place, create=True)
    migrate(opened.engine, MIGRATIONS[:3])
    assert "tokens" not in {column["name"] for column in inspect(opened.engine).get_columns("steps")}
    with opened.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO trajectories (id, number, steps, task, prompt, truncated) VALUES "
            """('old', 1, 1, '{"id":"t","prompt":"","data":{},"seed":null}', '[]', false)"""
        )
        connection.exec_driver_sql(
            "INSERT INTO steps (trajectory_number, trajectory_id, position, step_index, action, observations) VALUES "
            """(1, 'old', 0, 0, '{"role":"assistant","content":"hi"}', '[]')"""
        )
    opened.close()
    with Database.open(place) as database:
        assert database.trajectory("old").steps == (Step(0, Message("assistant", "hi")),)
        database.replace_trajectories([run_of(TokenTrace((1,), (-1.0,)))])
        assert database.trajectory("cf-1").steps[0].tokens == TokenTrace((1,), (-1.0,))
    again = open_engine(place, create=False)
    assert version(again.engine) == len(MIGRATIONS)
    again.close()


def tell(**changed: Any) -> dict[str, Any]:
    step = Step(0, Message("assistant", "hi"), logprob=-1.0, tokens=TokenTrace((1, 2), (-0.5, -0.5), 0.1))
    child = {"key": "say:hi", "prior": 0.3, "samples": 1, "measured": True, "value": 1.0, "step": step_to_json(step)}
    return {"event": "tell", "t": 0, "ask": 0, "node": 0, "nodes": [1], "more": True, "children": [child | changed]}


MEASURED = Step(0, Message("assistant", "hi"), logprob=-1.1, tokens=TokenTrace((1, 2), (-0.6, -0.5), 0.2))


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ({"prior": 0.30001}, True),
        ({"step": step_to_json(MEASURED)}, True),
        ({"step": step_to_json(replace(MEASURED, action=Message("assistant", "ho")))}, False),
        ({"value": 0.5}, False),
        ({"samples": 2}, False),
        ({"measured": False, "prior": 0.30001}, False),
    ],
)
def test_the_digest_is_of_what_was_said_not_of_how_it_was_measured(changed: dict[str, Any], is_same: bool) -> None:
    assert (digest([tell(**changed)]) == digest([tell()])) is is_same


def test_a_duplicate_has_no_step_and_its_prior_is_measured_too() -> None:
    def merged(prior: float, **marks: Any) -> dict[str, Any]:
        child = {"key": "say:hi", "prior": prior, "samples": 1, **marks}
        return {"event": "tell", "t": 0, "ask": 0, "node": 0, "nodes": [1], "more": True, "children": [child]}

    assert digest([merged(0.3, measured=True)]) == digest([merged(0.4, measured=True)])
    assert digest([merged(0.3)]) != digest([merged(0.4)])
