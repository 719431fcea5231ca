"""The likelihood reward: means over the tokens of actions, abstentions, and how it finds its policy."""

from __future__ import annotations

import math
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.rewards.base import RewardModel, is_batched, is_process
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.rewards.likelihood import Likelihood
from ttc_replay.storage.errors import PluginNotFound, UsageError
from ttc_replay.storage.records import Message, Step, Task, Trajectory

TINY = Path(__file__).parents[1] / "replay" / "local" / "tiny.py"
NEEDED = ("torch", "transformers", "safetensors", "llguidance")
PLACE = "ttc_replay.replay.policies.local:LocalPolicy"


@dataclass(frozen=True)
class Told:
    """What a scorer says of one action."""

    logprobs: tuple[float, ...]
    is_whole: bool = True


class Table:
    """A scorer that says by the action's text what it is told: numbers, and a dot for an action that was cut."""

    def __init__(self, model: str = "") -> None:
        if model == "missing":
            raise UsageError("no such model")
        self.checked = 0

    def check(self) -> None:
        self.checked += 1

    def score_steps(self, items: Sequence[Trajectory], *, last: bool = False) -> list[list[Told]]:
        return [[self._one(step) for step in (item.steps[-1:] if last else item.steps)] for item in items]

    def _one(self, step: Step) -> Told:
        words = step.action.text.split()
        return Told(tuple(float(word) for word in words if word != "."), "." not in words)


def run(*texts: str) -> Trajectory:
    steps = tuple(Step(index, Message("assistant", text)) for index, text in enumerate(texts))
    return Trajectory("run", Task("t"), prompt=(Message("user", "hi"),), steps=steps)


@pytest.mark.parametrize(
    ("texts", "process", "value"),
    [
        (("-1 -2", "-6"), False, -3.0),
        (("-1 -2", "-6"), True, -6.0),
        (("-1 -2 .", "-6"), False, None),
        (("-1 -2 .", "-6"), True, -6.0),
        (("-1", "-6 ."), True, None),
        (("", "-4"), False, -4.0),
        (("",), False, None),
        ((), False, None),
        ((), True, None),
    ],
)
def test_it_is_the_mean_of_a_token(texts: tuple[str, ...], process: bool, value: float | None) -> None:
    model = Likelihood(Table(), process=process)
    assert is_process(model) is process
    (score,) = model.score([run(*texts)])
    assert (score.value, score.abstain, score.error) == (value, value is None, None)
    assert score.detail["actions"] == (min(len(texts), 1) if process else len(texts))


def test_it_is_a_reward_model_that_is_asked_for_many_runs_at_once() -> None:
    scorer = Table()
    model = Likelihood(scorer)
    assert scorer.checked == 1
    assert isinstance(model, RewardModel)
    assert is_batched(model)
    guide = compose([Weighted("likelihood", model, 0.5)])
    judged = guide.score_all([run("-1"), run("-3"), run("-3 .")], [True, False, True])
    assert [item.combined.value for item in judged] == [-0.5, None, None]
    assert "likelihood" not in judged[1].parts


def test_its_policy_is_found_by_name_or_place_and_gets_the_other_options() -> None:
    (point,) = entry_points(group="ttc_replay.rewards", name="likelihood")
    assert point.load() is Likelihood
    with pytest.raises(PluginNotFound, match="nobody"):
        Likelihood("nobody")
    with pytest.raises(PluginNotFound, match="Nobody"):
        Likelihood("ttc_replay.replay.policies.local:Nobody")
    with pytest.raises(UsageError, match="colour"):
        Likelihood(PLACE, colour="red")
    with pytest.raises(UsageError, match="model"):
        Likelihood("local")
    with pytest.raises(UsageError, match="cannot say"):
        Likelihood("corpus")
    with pytest.raises(UsageError, match="process"):
        Likelihood(Table(), process="yes")  # type: ignore[arg-type]


@pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason="the extra [local] is not installed")
def test_what_a_model_would_rather_say_has_the_higher_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.set_num_threads(1)
    monkeypatch.setenv("TTC_CACHE_DIR", str(tmp_path / "cache"))
    folder: Any = runpy.run_path(str(TINY))["tiny_folder"](tmp_path / "model")
    model = Likelihood("local", model=str(folder))
    likely = "".join(model._scorer.speaker().text([_likeliest(model)]))  # type: ignore[attr-defined]
    scores = model.score([run(likely), run("漢"), run("the " * 3000)])
    assert scores[0].value is not None
    assert scores[1].value is not None
    assert 0 > scores[0].value > scores[1].value > -math.inf
    assert scores[2].abstain
    assert scores[2].detail["reason"] == "longer than the model's context"


def _likeliest(model: Any) -> int:
    """The token that the model itself would say first, as text of its own."""
    import torch

    speaker = model._scorer.speaker()
    prompt = speaker.chat.encode([Message("user", "hi")])
    ids = [index for index in range(speaker.loaded.vocabulary_size) if speaker.text([index]).isalpha()]
    found = speaker.score([prompt] * len(ids), [[index] for index in ids])
    return ids[int(torch.tensor(found)[:, 0].argmax())]
