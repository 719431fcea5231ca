"""`blame` on planted mistakes: the step is found, the spend adds up, and nothing is paid twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Spec, Trajectory
from ttc_replay.examples.bookkeeping.environment import BookkeepingEnvironment
from ttc_replay.examples.bookkeeping.planted import NoisyBookkeeper, PlantedRun, planted_runs
from ttc_replay.examples.bookkeeping.verifiers import gold
from ttc_replay.replay.blame_tables import by_tool
from ttc_replay.replay.blaming import Blamed, blame_settings, compared, detected, run_blame
from ttc_replay.replay.plugins import Plugins
from ttc_replay.replay.running import run_search
from ttc_replay.replay.settings import Settings
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.storage.database import Database
from ttc_replay.storage.journal import read_journal
from ttc_replay.storage.readers.base import find_reader
from ttc_replay.storage.records import Source

RUNS = list(planted_runs("easy", 8))
SETTINGS = Settings(
    Spec("bookkeeping"),
    Spec("noisy"),
    ((Spec("bookkeeping-gold"), 1.0),),
    budget=2000,
    selector=(("every", True),),
)


def trajectories(runs: Sequence[PlantedRun]) -> list[Trajectory]:
    stream = BytesIO(b"".join(json.dumps(run.record).encode() + b"\n" for run in runs))
    read = find_reader("openai-chat").read(stream, Source("openai-chat", dataset="planted"))
    return [item for item in read if isinstance(item, Trajectory)]


RECORDS = trajectories(RUNS)


def plugins(**policy: Any) -> Plugins:
    guide = compose([Weighted("bookkeeping-gold", gold)])
    return Plugins(NoisyBookkeeper(**policy), BookkeepingEnvironment, guide)


def blame(folder: Path, name: str | None = None, **more: Any) -> Blamed:
    settings = blame_settings(SETTINGS, rollouts=more.pop("rollouts", 16), confidence=0.95)
    with Database.open(str(folder / "ttc.duckdb")) as archive:
        archive.add_trajectories(RECORDS)
        return run_blame(archive, settings, name, RECORDS, RECORDS, plugins(**more))


def steady(document: dict[str, Any]) -> dict[str, Any]:
    """Without what clocks decide."""
    return {**document, "totals": {key: value for key, value in document["totals"].items() if key != "seconds"}}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Blamed]:
    """One job over the eight runs, and where it was done."""
    folder = tmp_path_factory.mktemp("blame")
    return folder, blame(folder, "job")


def test_every_planted_mistake_is_real_and_alone() -> None:
    assert len({run.mistake for run in RUNS}) >= 6
    assert [record.outcome.value if record.outcome else None for record in RECORDS] == [0.0] * 8
    assert [run.record for run in planted_runs("easy", 8)] == [run.record for run in RUNS]
    for run, record in zip(RUNS, RECORDS, strict=True):
        assert 0 < run.step < len(record.steps) - 1
        assert len(record.steps[run.step].action.tool_calls) == 1


def test_the_planted_step_is_found(first: tuple[Path, Blamed]) -> None:
    rows = first[1].document["trajectories"]
    planted = {run.task_id: run.step for run in RUNS}
    assert [row["pivotal"]["step"] for row in rows] == [planted[row["task_id"]] for row in rows]
    for row in rows:
        found = row["pivotal"]
        assert found["probability"] > 0.9
        assert found["instead_value"] >= 0.8
        assert found["instead_rollouts"] >= 2
        assert found["instead"] != found["action"]
        assert row["window"] == [found["step"], found["step"]]
        assert row["stopped"] == "decided"
        assert row["rollouts"] < 60


def test_steps_tell_values_intervals_and_costs(first: tuple[Path, Blamed]) -> None:
    document = first[1].document
    for row, record in zip(document["trajectories"], RECORDS, strict=True):
        steps = row["steps"]
        assert [step["index"] for step in steps] == list(range(len(record.steps)))
        assert sum(step["probability_pivotal"] for step in steps) == pytest.approx(1.0, abs=0.02)
        for step in steps:
            assert step["low"] <= step["value"] <= step["high"]
            assert step["drop_low"] <= step["drop"] <= step["drop_high"]
        values = [step["value"] for step in steps] + [0.0]
        drops = [before - after for before, after in pairwise(values)]
        assert [step["drop"] for step in steps] == pytest.approx(drops, abs=1e-3)
    spent = sum(step["transitions"] for row in document["trajectories"] for step in row["steps"])
    assert spent == document["totals"]["transitions"] > 0
    assert document["totals"]["rollouts"] == sum(row["rollouts"] for row in document["trajectories"])


def test_the_archive_has_a_score_for_each_step(first: tuple[Path, Blamed]) -> None:
    folder, done = first
    with Database.open(str(folder / "ttc.duckdb"), create=False) as archive:
        query = (
            "SELECT trajectory_id, step, value, detail FROM v_scores WHERE run = 'job' AND name = 'blame' ORDER BY 1, 2"
        )
        _, rows = archive.query(query)
        stored = archive.run("job")
    expected = sorted(
        (row["id"], step["index"], step["drop"]) for row in done.document["trajectories"] for step in row["steps"]
    )
    assert [row[:3] for row in rows] == expected
    pivotal = {(row[0], row[1]) for row in rows if json.loads(row[3])["pivotal"]}
    assert pivotal == {(row["id"], row["pivotal"]["step"]) for row in done.document["trajectories"]}
    assert stored is not None
    assert stored["report"]["blame"] == json.loads(json.dumps(done.document))


def test_a_job_cut_anywhere_ends_the_same(first: tuple[Path, Blamed], tmp_path: Path) -> None:
    """The journal up to some line is what a kill leaves."""
    folder, done = first
    lines = (folder / "ttc.duckdb.runs" / "job" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for number, part in enumerate((0.1, 0.6)):
        place = tmp_path / str(number)
        journal = place / "ttc.duckdb.runs" / "job" / "journal.jsonl"
        journal.parent.mkdir(parents=True)
        journal.write_bytes(b"".join(lines[: int(part * len(lines))]) + b"0bad")
        again = blame(place, "job")
        assert steady(again.document) == steady(done.document)
        assert again.ran.digest == done.ran.digest


def test_the_same_command_again_pays_nothing(first: tuple[Path, Blamed]) -> None:
    folder, done = first
    path = folder / "ttc.duckdb.runs" / "job" / "journal.jsonl"
    before = sum(event["event"] == "tell" for event in read_journal(path)[0])
    assert steady(blame(folder, "job").document) == steady(done.document)
    assert sum(event["event"] == "tell" for event in read_journal(path)[0]) == before


def test_rollouts_of_a_search_count(first: tuple[Path, Blamed], tmp_path: Path) -> None:
    with Database.open(str(tmp_path / "ttc.duckdb")) as archive:
        archive.add_trajectories(RECORDS)
        settings = Settings(
            SETTINGS.environment,
            SETTINGS.policy,
            SETTINGS.rewards,
            algorithm=Spec("best-of-n"),
            from_step="auto",
            budget=120,
            selector=SETTINGS.selector,
        )
        run_search(archive, settings, "search", RECORDS, RECORDS, plugins())
    done = blame(tmp_path, "after")
    assert done.reused.keys() == {"search"}
    assert done.document["totals"]["reused"] == done.reused["search"] > 0
    assert done.document["totals"]["transitions"] < first[1].document["totals"]["transitions"]
    planted = {run.task_id: run.step for run in RUNS}
    assert all(row["pivotal"]["step"] == planted[row["task_id"]] for row in done.document["trajectories"])
    again = blame(tmp_path, "after")  # it goes on with what it was begun with
    assert steady(again.document) == steady(done.document)


def test_detectors_alone_re_run_nothing_and_do_not_see_a_wrong_booking() -> None:
    document = detected(RECORDS)
    assert document["totals"]["transitions"] == 0
    assert all(row["steps"] == [] and row["pivotal"] is None for row in document["trajectories"])
    assert sum(bool(row["detectors"]) for row in document["trajectories"]) == 0


def test_tools_of_pivotal_steps_are_set_against_their_share_of_all_steps(first: tuple[Path, Blamed]) -> None:
    document = dict(first[1].document)
    compared(document, RECORDS, 1.0)
    rows = [row for row in document["by_tool"] if row["kind"] == "pivotal"]
    assert sum(row["lost"] for row in rows) == 8
    assert all(row["lost_low"] < row["share_lost"] < row["lost_high"] or row["share_lost"] == 1.0 for row in rows)
    assert all(0.0 < row["share_steps"] < 1.0 for row in rows)


def test_detectors_are_counted_by_run_in_lost_and_won_ones() -> None:
    from dataclasses import replace

    from ttc_replay import Message, Outcome, Step

    empty = [Step(0, Message("assistant", "")), Step(1, Message("assistant", " "))]
    records = [
        *(replace(RECORDS[0], steps=empty, outcome=Outcome(value)) for value in (0.0, 0.0, 1.0)),
        replace(RECORDS[0], steps=(), outcome=Outcome(0.0)),
        replace(RECORDS[0], steps=empty, outcome=None),
    ]
    (row,) = [row for row in by_tool(records, [], 1.0) if row["kind"] == "empty-answer"]
    assert (row["tool"], row["runs"], row["lost"], row["won"]) == ("(message)", 3, 2, 1)
    assert (row["share_lost"], row["share_won"]) == (0.6667, 1.0)
