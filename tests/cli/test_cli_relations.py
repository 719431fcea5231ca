"""`ls` and `show` say what a log has for replaying it, who belongs to whom, and what is one run in two formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "storage" / "golden_logs"
KEY = "gh" + "p_" + "A1b2C3d4E5f6G7h8J9k0" * 2
CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "be good"},
    {"role": "user", "content": f"hello, my key is {KEY}"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "7"},
    {"role": "assistant", "content": "seven", "tool_calls": [{**CALL, "id": "c2"}]},
]


def written(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
    return str(path)


def test_sub_agents_show_where_they_belong(cli: Any) -> None:
    cli("ingest", str(GOLDEN / "claude-code"))
    rows = cli(
        "sql", "select id, parent_id, branch_step from v_trajectories where relation='subagent'", "--json"
    ).document
    child = rows["rows"][0]
    shown = cli("show", child["id"]).out
    assert f"subagent of {child['parent_id']}" in shown
    parent = cli("show", child["parent_id"]).out
    assert f"subagent {child['id'][:12]} at step {child['branch_step']}: " in parent


def test_replayability_secrets_and_the_same_run(cli: Any, tmp_path: Path) -> None:
    chat = written(tmp_path / "a.jsonl", {"messages": MESSAGES})
    tau = written(tmp_path / "b.json", [{"task_id": 1, "trial": 0, "reward": 1.0, "info": {}, "traj": MESSAGES}])
    cli("ingest", chat, tau)
    rows = cli("ls", "--json").document["rows"]
    assert [row["format"] for row in rows] == ["openai-chat", "tau-bench"]
    reports = [json.loads(row["replayability"]) for row in rows]
    assert [(report["calls"], report["unanswered_calls"], report["replayable"]) for report in reports] == [
        (2, 1, False),
        (2, 1, False),
    ]
    assert [json.loads(row["secrets"]) for row in rows] == [{"github": 1}] * 2
    assert "1 unanswered, no tools" in cli("ls").out
    shown = cli("show", rows[0]["id"]).out
    assert f"same as {rows[1]['id'][:12]} (tau-bench, dataset " in shown
    assert "replay: 1 unanswered, no tools" in shown
    assert "secrets: 1 github (masked wherever text is shown)" in shown
    assert KEY not in shown
    raw = cli("show", rows[0]["id"], "--raw", "--json").document["raw"]
    assert json.loads(raw)["messages"][4] == MESSAGES[4]


def test_outcomes_kept_elsewhere(cli: Any, tmp_path: Path) -> None:
    log = written(tmp_path / "a.jsonl", {"messages": MESSAGES, "instance_id": "repo__7"})
    results = written(tmp_path / "results.json", {"resolved_ids": ["repo__7", "repo__8"], "unresolved_ids": []})
    done = cli("ingest", log, "--reward-from", results, "--no-compress")
    assert "1 trajectories got an outcome from --reward-from" in done.err
    assert "1 ids of it found no trajectory: repo__8" in done.err
    assert cli("ls", "--json").document["rows"][0]["outcome"] == 1.0
    report = cli("ingest", log, "--reward-from", results, "--json").document
    assert report["reward_from"] == {"joined": 0, "unmatched": ["repo__8"]}
    refused = cli("ingest", log, "--reward-from", str(tmp_path / "none.json"))
    assert refused.code == 2
    assert refused.err.startswith("error[TTC-E100]")
