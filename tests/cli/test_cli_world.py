"""`world`: a model is trained, written and reported on; one that is no better than counting is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


def test_a_model_is_trained_reported_on_and_refused_where_it_learned_nothing(cli: Any, books: Path) -> None:
    train = (
        "world",
        "train",
        "--dataset",
        "books",
        "--out",
        "w.safetensors",
        "--epochs",
        "1",
        "--test-fraction",
        "0.67",
    )
    done = cli(*train, "--json")
    assert done.code == 0, done.err
    report = done.document["report"]
    assert (report["tasks"], report["trusted"]) == (2, False)
    shown = cli("world", "report", "w.safetensors", "--json")
    assert shown.document["report"] == report
    assert "refuses it" in cli("world", "report", "w.safetensors").out
    replay = ("replay", "--env", "learned-world", "--env-opt", "model=w.safetensors")
    refused = cli(*replay)
    assert (refused.code, refused.codes) == (2, ["TTC-E100"])
    assert "frequency baseline" in refused.err
    trusted = cli(*replay, "--env-opt", "trust=true", "--json")
    assert trusted.code == 0, trusted.err
    assert {row["fidelity"] for row in trusted.document["trajectories"]} == {"recorded"}


WRONG = {
    "no such action": ("dream",),
    "nothing to write": ("train",),
    "nothing to read": ("report",),
    "no such file": ("report", "nothing.safetensors"),
    "no such dataset": ("train", "--dataset", "april", "--out", "w"),
    "too few tasks": ("train", "--out", "w"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_words_are_refused(cli: Any, books: Path, what: str) -> None:
    done = cli("world", *WRONG[what])
    assert done.code == 2, done.err
    assert not Path("w").exists()
