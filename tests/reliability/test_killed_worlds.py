"""A paid world model survives a kill as a policy does; what it imagined is no training data by itself."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TOYS, WORLDS = HERE.parent / "cli" / "toy_plugins.py", HERE / "world_plugins.py"
KEY = "sk-not-for-the-journal"
SEARCH = (
    *("search", "--env", "world-model", "--env-opt", f"policy={WORLDS}:Paid", "--env-opt", "policy_opt={}"),
    *("--policy", f"{TOYS}:Digits", "--reward", f"{WORLDS}:sums_up", "--budget", "20", "--max-depth", "4"),
    *("--width", "2", "--name", "dreams"),
)
KILLS = {"journal.written/result:4": 0, "journal.append/result:4": 1}
"""By kill point: how many answers are paid for again."""


def command(folder: Path) -> list[str]:
    options = json.dumps({"log": str(folder / "asked"), "api_key": KEY})
    return [item.replace("policy_opt={}", f"policy_opt={options}") for item in SEARCH]


@dataclass(frozen=True)
class Dreamt:
    """A folder with an archive and a finished search in it, and that search's report."""

    folder: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def dreamt(tmp_path_factory: pytest.TempPathFactory, forked: Any) -> Dreamt:
    tmp_path = tmp_path_factory.mktemp("dreams")

    def message(by: int, total: int) -> list[dict[str, Any]]:
        call = {"id": f"call_{total}", "type": "function", "function": {"name": "add", "arguments": f'{{"by": {by}}}'}}
        answer = {"role": "tool", "tool_call_id": f"call_{total}", "content": f'{{"total": {total}}}'}
        return [{"role": "assistant", "content": "", "tool_calls": [call]}, answer]

    parameters = {"type": "object", "properties": {"by": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "add", "description": "", "parameters": parameters}}]
    turns = [item for total in (1, 2, 3, 4) for item in message(1, total)]
    record = {"task_id": "t", "reward": 0.0, "metadata": {"target": 6}, "tools": tools}
    record["messages"] = [{"role": "user", "content": "reach 6"}, *turns]
    (tmp_path / "logs.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    assert forked(tmp_path, "ingest", "logs.jsonl").code == 0
    done = forked(tmp_path, "--json", *command(tmp_path))
    assert done.code == 0, done.err
    return Dreamt(tmp_path, json.loads(done.out))


def test_a_kill_repeats_at_most_the_answer_in_flight(dreamt: Dreamt, forked: Any) -> None:
    archive, whole = dreamt.folder, dreamt.report
    asked = (archive / "asked").read_text().split()
    assert whole["totals"]["improved"] == 1
    assert len(asked) == len(set(asked)) > 4
    for seed, (point, again) in enumerate(KILLS.items(), 1):
        (archive / "asked").unlink()
        fresh = [*command(archive)[:-1], f"dreams-{seed}", "--env-opt", f"seed={seed}"]  # another seed: other questions
        assert forked(archive, *fresh, TTC_KILL_AT=point).code == -9
        done = forked(archive, "--json", *fresh)
        assert done.code == 0, done.err
        resumed, counts = json.loads(done.out), Counter((archive / "asked").read_text().split())
        assert sum(counts.values()) - len(counts) == again
        assert resumed["totals"]["repeated_calls"] == again
        assert resumed["totals"]["calls"] == whole["totals"]["calls"]
    journals = [path.read_text() for path in archive.glob("ttc.duckdb.runs/*/journal.jsonl")]
    assert len(journals) == 1 + len(KILLS)
    assert all("SECRET:option" in text and KEY not in text for text in journals)


def test_imagined_runs_are_exported_only_when_asked_for_and_confidence_is_in_sql(dreamt: Dreamt, forked: Any) -> None:
    archive, (row,) = dreamt.folder, dreamt.report["trajectories"]
    assert row["fidelity"] == "simulated"
    export = ("export", "dreams", "--format", "trl-sft")
    refused = forked(archive, "--json", *export, "--out", "no.jsonl")
    assert (refused.code, (archive / "no.jsonl").exists()) == (4, False)
    assert "below_min_fidelity" in refused.out + refused.err
    assert forked(archive, *export, "--out", "yes.jsonl", "--min-fidelity", "simulated").code == 0
    assert (archive / "yes.jsonl").read_text().count("\n") == 1
    condition = "id in (select trajectory_id from v_scores where name = 'world' and value >= 0.9)"
    listed = forked(archive, "--json", "ls", "--where", condition)
    assert row["counterfactual_id"] in [item["id"] for item in json.loads(listed.out)["rows"]]
