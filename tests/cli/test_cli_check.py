"""`check-plugin` and `init`: every shipped plugin passes, kinds are told, exit codes, and what `init` writes works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.cli.init import CONFIG, FILES, REWARD, WORLD

BOOKS = ("--env", "bookkeeping")


SHIPPED: tuple[tuple[str, ...], ...] = (
    ("bookkeeping",),
    ("corpus",),
    ("scripted", "--opt", 'default=["a", "b"]'),
    ("environment", *BOOKS),
    *((f"bookkeeping-{name}", *BOOKS) for name in ("identity", "policy", "progress", "gold")),
)


def test_shipped_plugins_pass_on_a_record(cli: Any, books: Path) -> None:
    """In one test, on one archive; `tape` and `tau2` are in tests/replay/test_contract_checks.py."""
    first = cli("ls", "--json", "--limit", "1").document["rows"][0]["id"]
    for arguments in SHIPPED:
        done = cli("check-plugin", *arguments, "--from", first, "--json")
        document = done.document
        assert set(document) == {"v", "plugin", "kind", "checks", "totals"}
        assert [check for check in document["checks"] if check["status"] == "fail"] == []
        assert done.code == 0
        assert document["totals"]["pass"] >= 9


@pytest.mark.parametrize("name", ["mcts", "gumbel", "tot-dfs", "self-consistency"])
def test_shipped_algorithms_pass(cli: Any, name: str) -> None:
    assert cli("check-plugin", name, "--json").document["totals"] == {"pass": 6, "fail": 0, "skip": 0}


@pytest.mark.parametrize("name", ["trl-sft", "trl-dpo"])
def test_shipped_exporters_pass(cli: Any, name: str) -> None:
    assert cli("check-plugin", name, "--json").document["totals"]["fail"] == 0


@pytest.mark.parametrize(("name", "claims"), [("openai-chat", True), ("codex", False)])
def test_readers_are_tried_on_a_log(cli: Any, tmp_path: Path, record: Any, name: str, claims: bool) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(record(1, 2)) + "\n", "utf-8")
    assert cli("check-plugin", name).code == 0
    assert cli("check-plugin", name, "--log", log).code == (0 if claims else 1)


def test_a_plugin_with_faults_is_exit_1(cli: Any, plugin: Any, tmp_path: Path) -> None:
    task = tmp_path / "task.json"
    task.write_text(json.dumps({"prompt": "start"}), "utf-8")
    done = cli("check-plugin", plugin("Unwilling"), "--task", task)
    assert done.code == 1
    lines = done.out.splitlines()
    failed = next(at for at, line in enumerate(lines) if line.startswith("fail  reset"))
    assert "no such month" in lines[failed]
    assert "hint: " in lines[failed + 1]
    assert any(line.startswith("skip  deterministic") and line.endswith("reset failed") for line in lines)
    assert lines[-1].startswith("environment ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nothing",), "TTC-E101"),
        (("./nothing.py:World",), "TTC-E101"),
        (("litellm",), "TTC-E100"),
        (("json:loads",), "TTC-E100"),
        (("bookkeeping", "--kind", "world"), "TTC-E100"),
        (("bookkeeping", "--task", "nothing.json"), "TTC-E100"),
        (("bookkeeping", "--from", "abcd"), "TTC-E100"),
        (("corpus", "--env", "bookkeeping"), "TTC-E100"),
        (("corpus", "--env-opt", "a=1"), "TTC-E100"),
        (("corpus", "--opt", "colour=1"), "TTC-E100"),
        (("bookkeeping", "--task", "a.json", "--from", "abcd"), "TTC-E100"),
    ],
)
def test_what_cannot_be_loaded_is_exit_2(cli: Any, arguments: tuple[str, ...], code: str) -> None:
    done = cli("check-plugin", *arguments)
    assert (done.code, done.codes) == (2, [code])
    assert "hint: " in done.err


@pytest.mark.parametrize(("name", "kind"), [("Counter", "environment"), ("Digits", "policy"), ("gold", "reward")])
def test_the_kind_is_told_by_what_it_can(cli: Any, plugin: Any, name: str, kind: str) -> None:
    assert cli("check-plugin", plugin(name), "--json").document["kind"] == kind


# -- init --------------------------------------------------------------------------------------------------------------


def test_init_writes_what_works(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("init", "mine", "--json")
    assert done.code == 0
    assert done.document["next"][0] == "cd mine"
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == sorted(FILES)
    monkeypatch.chdir(tmp_path / "mine")
    assert cli("ingest", "log.jsonl", "-q").code == 0
    report = cli("search", "--json").document
    assert [(row["baseline"], row["best"], row["stopped"]) for row in report["trajectories"]] == [(0.0, 1.0, "solved")]
    identity = report["trajectories"][0]["id"]
    assert cli("replay", "--env", "./world.py:World").code == 0
    assert cli("check-plugin", "./world.py:World", "--from", identity, "--json").document["totals"]["fail"] == 0
    reward = cli("check-plugin", "./reward.py:on_target", "--from", identity, "--env", "./world.py:World", "--json")
    assert reward.document["totals"]["fail"] == 0
    assert cli("check-plugin", "scripted", "--opt", 'default=["Done."]', "--from", identity).code == 0


def test_init_is_short() -> None:
    assert sum(len(text.splitlines()) for text in (WORLD, REWARD, CONFIG)) < 40


def test_init_overwrites_nothing(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("mine", "utf-8")
    done = cli("init")
    assert done.code == 2
    assert "reward.py" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["reward.py"]
    assert (tmp_path / "reward.py").read_text("utf-8") == "mine"


def test_init_into_what_is_no_folder(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    done = cli("init", "file/inside")
    assert (done.code, done.codes) == (2, ["TTC-E100"])
