"""Logs that real agents and their libraries wrote, re-executed through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.cli.main import main

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "storage" / "golden_logs"
HELLO = [
    {"role": "system", "content": "One bash block each."},
    {"role": "user", "content": "Say hello."},
    {"role": "assistant", "content": "THOUGHT: so\n\n```mswea_bash_command\necho 'hello world' > said; cat said\n```"},
    {"role": "user", "content": "<returncode>0</returncode>\n<output>\nhello world\n</output>"},
    {"role": "assistant", "content": "```mswea_bash_command\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n```"},
    {"role": "user", "content": ""},
]
Replay = Callable[..., dict[str, Any]]


@pytest.fixture
def replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Replay:
    """Ingests one log and replays it over a folder; the run's part of the report."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TTC_DB", raising=False)
    (tmp_path / "work").mkdir()

    def run(log: Path, *options: str, code: int = 0) -> dict[str, Any]:
        words = ["replay", "--env", "shell", "--env-opt", "folder=work", *options]
        for command, expected in ((["ingest", str(log)], 0), (words, code)):
            with pytest.raises(SystemExit) as left:
                main([*command, "--json", "-q"])
            out, err = capsys.readouterr()
            assert left.value.code == expected, err
        found: dict[str, Any] = json.loads(out)["trajectories"][0]
        return found

    return run


@pytest.mark.parametrize("name", ["text__greet-2", "tools__greet-1", "items__greet-3"])
def test_logs_of_mini_swe_agent_reproduce(name: str, replayed: Replay) -> None:
    found = replayed(GOLDEN / "mini-swe-agent" / f"{name}.v2.traj.json")
    assert (found["matched"], found["level"], found["fidelity"]) == (found["steps"], "exact", "reexecuted")


def test_a_bare_list_of_messages_reproduces_and_a_changed_output_is_found(tmp_path: Path, replayed: Replay) -> None:
    log = tmp_path / "hello.traj.json"
    log.write_text(json.dumps(HELLO))
    found = replayed(log)
    assert (found["matched"], found["steps"], found["first_divergence"]) == (2, 2, None)
    log.write_text(json.dumps(HELLO).replace("<output>\\nhello", "<output>\\ngoodbye"))
    (tmp_path / "ttc.duckdb").unlink()
    found = replayed(log, code=5)
    assert (found["matched"], found["first_divergence"]["step"]) == (0, 0)
    assert "hello world" in found["first_divergence"]["got"]


def swe_agent_log(patch: str) -> dict[str, Any]:
    """A run of two calls over a repository, in SWE-agent's form, with its prompt line."""
    end = "\n(Open file: n/a)\n(Current directory: /testbed)\nbash-$"
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "You fix bugs.", "agent": "main", "message_type": "system_prompt"},
        {"role": "user", "content": f"Mend greet.{end}", "agent": "main", "message_type": "observation"},
    ]
    calls = [("bash", {"command": "sed -i s/helo/hello/ greet.py; cat greet.py"}), ("submit", {})]
    for number, (name, arguments) in enumerate(calls):
        call = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        shown = ("print('hello')\r\n" if name == "bash" else f"{patch}").rstrip("\n")
        said = {"agent": "main", "action": arguments.get("command", name), "message_type": "action"}
        history.append({"role": "assistant", "content": "So.", "tool_calls": [call], **said})
        answer = {"agent": "main", "message_type": "observation", "tool_call_ids": [f"c{number}"]}
        history.append({"role": "tool", "content": shown.rstrip("\r") + end, **answer})
    return {"history": history, "trajectory": [], "info": {"exit_status": "submitted"}}


def git(folder: Path, *words: str) -> str:
    words = ("-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *words)
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("git", path="/usr/local/bin:/usr/bin") is None, reason="git is not in the sandbox")
def test_a_log_of_swe_agent_reproduces_with_its_patch(tmp_path: Path, replayed: Replay) -> None:
    (tmp_path / "work" / "greet.py").write_text("print('hello')\n")
    git(tmp_path / "work", "init", "-q")
    git(tmp_path / "work", "add", "-A")
    right = git(tmp_path / "work", "hash-object", "greet.py")[:7]
    (tmp_path / "work" / "greet.py").write_text("print('helo')\n")
    git(tmp_path / "work", "add", "-A")
    git(tmp_path / "work", "commit", "-q", "-m", "first")
    wrong = git(tmp_path / "work", "hash-object", "greet.py")[:7]
    patch = f"diff --git a/greet.py b/greet.py\nindex {wrong}..{right} 100644\n--- a/greet.py\n+++ b/greet.py\n"
    patch += "@@ -1 +1 @@\n-print('helo')\n+print('hello')\n"
    log = tmp_path / "fix.traj"
    log.write_text(json.dumps(swe_agent_log(patch)))
    found = replayed(log, "--env-opt", "mount=/testbed")
    assert (found["matched"], found["steps"], found["first_divergence"]) == (2, 2, None)


def test_a_log_of_swe_agent_stops_at_the_tool_that_is_not_there(tmp_path: Path, replayed: Replay) -> None:
    """Its own tools are programs; `commands` brings them in."""
    log = swe_agent_log("")
    log["history"][2]["tool_calls"][0]["function"] = {"name": "open", "arguments": '{"path": "greet.py"}'}
    log["history"][2]["action"] = 'open "greet.py"'
    (tmp_path / "open.traj").write_text(json.dumps(log))
    found = replayed(tmp_path / "open.traj", code=5)
    assert (found["matched"], found["first_divergence"]["step"]) == (0, 0)
    assert "open: command not found" in found["first_divergence"]["got"]
