"""`blame` on the command line: its document, its tables, its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.examples.bookkeeping.planted import planted_runs

NOISY = "ttc_replay.examples.bookkeeping.planted:NoisyBookkeeper"
PLAY = ("--env", "bookkeeping", "--policy", NOISY, "--reward", "bookkeeping-gold")
STEP_KEYS = (
    *("index", "value", "low", "high", "rollouts", "drop", "drop_low", "drop_high", "probability_pivotal"),
    *("transitions", "calls", "tokens", "cost_usd", "tool"),
)


@pytest.fixture
def planted(cli: Any, tmp_path: Path, write_logs: Callable[..., Path]) -> dict[str, int]:
    """Two lost runs in the default archive; the planted step by task."""
    runs = list(planted_runs("easy", 2))
    logs = write_logs(tmp_path / "planted.jsonl", [run.record for run in runs])
    assert cli("-q", "ingest", logs, "--dataset", "planted").code == 0
    return {run.task_id: run.step for run in runs}


def test_the_document(cli: Any, planted: dict[str, int]) -> None:
    done = cli("--json", "-q", "blame", "--dataset", "planted", *PLAY, "--accept", "bookkeeping-gold", "--name", "b")
    assert done.code == 0, done.err
    document = done.document
    assert document["v"] == 1
    assert document["run"] == "b"
    for row in document["trajectories"]:
        assert row["pivotal"]["step"] == planted[row["task_id"]]
        assert row["stopped"] == "decided"
        assert all(tuple(step) == STEP_KEYS for step in row["steps"])
        rows = cli("--json", "sql", f"SELECT * FROM v_scores WHERE name = 'blame' AND trajectory_id = '{row['id']}'")
        assert len(rows.document["rows"]) == len(row["steps"])
    kept = cli("--json", "ls", "--where", "run = 'b' AND parent_id IS NOT NULL").document["rows"]
    assert len(kept) == 2, "what passed the gate is a counterfactual"
    assert cli("--json", "-q", "blame", "--dataset", "planted", *PLAY, "--name", "b").code == 2, "another configuration"


def test_the_tables(cli: Any, planted: dict[str, int]) -> None:
    both = cli("blame", "--dataset", "planted", *PLAY, "--name", "both")
    assert both.code == 0, both.err
    assert "what loses runs" in both.out
    identity = cli("--json", "ls", "--where", "run IS NULL").document["rows"][0]["id"]
    one = cli("blame", identity[:8], *PLAY, "--seed", "5")
    assert one.code == 0, one.err
    assert "lost the run, with probability" in one.out
    assert "better there:" in one.out
    assert "rollouts of run both" in one.err.replace("\n", " ")


def test_paid_calls_are_counted_by_step_and_never_repeated(
    cli: Any, toys: Path, plugin: Callable[[str], str], tmp_path: Path
) -> None:
    """The toy's paid policy adds 1, 2 or 3 by its seed; each call costs 85 tokens and half a cent."""
    log = tmp_path / "calls.log"
    command = (
        *("blame", "--dataset", "toys", "--env", plugin("Counter"), "--policy", plugin("Metered")),
        *("--policy-opt", f"log={log}", "--reward", "environment", "--name", "paid", "--max-calls", "60"),
    )
    first = cli("--json", "-q", *command)
    assert first.code == 0, first.err
    totals = first.document["totals"]
    assert 0 < totals["calls"] <= 60
    for key in ("transitions", "calls", "tokens", "cost_usd"):
        spent = sum(step[key] for row in first.document["trajectories"] for step in row["steps"])
        assert spent == pytest.approx(totals[key])
    assert totals["tokens"] == 85 * totals["calls"]
    lines = log.read_text().splitlines()
    again = cli("--json", "-q", *command)
    assert again.document["trajectories"] == first.document["trajectories"]
    assert log.read_text().splitlines() == lines
    assert len(lines) == len(set(lines))


def test_detectors_need_no_world(cli: Any, tmp_path: Path, write_logs: Callable[..., Path]) -> None:
    def talk(*said: str, reward: float) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Help me."}]
        for text in said:
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And?"}]
        return {"task_id": f"t{reward}{len(said)}", "reward": reward, "messages": messages}

    records = [talk("Hm.", "Hm.", reward=0.0), talk("I am unable to do it.", reward=0.0), talk("Done.", reward=1.0)]
    cli("-q", "ingest", write_logs(tmp_path / "talk.jsonl", records), "--dataset", "talk")
    document = cli("--json", "-q", "blame", "--dataset", "talk", "--detectors-only").document
    assert document["run"] is None
    assert [[found["kind"] for found in row["detectors"]] for row in document["trajectories"]] == [
        ["loop"],
        ["gave-up"],
        [],
    ]
    assert {(row["kind"], row["lost"], row["won"]) for row in document["by_tool"]} == {
        ("loop", 1, 0),
        ("gave-up", 1, 0),
    }
    shown = cli("blame", "--dataset", "talk", "--detectors-only")
    assert "gave-up" in shown.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "IDs or --dataset"),
        (("--dataset", "planted"), "--env, --policy, --reward"),
        (("--dataset", "planted", *PLAY, "--confidence", "1"), "confidence"),
        (("--dataset", "planted", *PLAY, "--confidence", "nan"), "confidence"),
        (("--dataset", "nowhere", "--detectors-only"), "nowhere"),
        (("nobody", *PLAY), "nobody"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Any, planted: dict[str, int], arguments: tuple[str, ...], said: str
) -> None:
    done = cli("blame", *arguments)
    assert done.code == 2
    assert said in done.err


def test_nothing_lost_is_an_empty_report(cli: Any, tmp_path: Path, write_logs: Callable[..., Path]) -> None:
    record = {
        "task_id": "t",
        "reward": 1.0,
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    }
    cli("-q", "ingest", write_logs(tmp_path / "won.jsonl", [record]), "--dataset", "won")
    done = cli("--json", "blame", "--dataset", "won", *PLAY)
    assert done.code == 0
    assert done.document["trajectories"] == []
    assert "nothing selected" in done.err


def test_a_budget_of_nothing_says_so(cli: Any, planted: dict[str, int]) -> None:
    done = cli("--json", "-q", "blame", "--dataset", "planted", *PLAY, "--budget", "0")
    assert done.code == 4
    rows = json.loads(done.out)["trajectories"]
    assert [row["stopped"] for row in rows] == ["budget", "budget"]
