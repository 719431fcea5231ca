"""LoRA adapters: merged exactly as peft does it, refused where they cannot be what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.replay.local import adapters
from ttc_replay.replay.local.loading import load_model
from ttc_replay.storage.errors import MissingExtra, UsageError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
# peft asks transformers by a name that is going away
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = [[5, 60, 7, 200, 31, 8]]


def write_adapter(base: Path, folder: Path, *, zero: bool = False, **options: Any) -> Path:
    """An adapter as peft itself writes it, of random weights; `zero`: B is zero, as before the first training step."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        wanted = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], **options}
        wrapped = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), peft.LoraConfig(**wanted))
        for name, weight in wrapped.named_parameters():
            if "lora_" in name and not zero:
                torch.nn.init.normal_(weight, std=0.2)
        wrapped.save_pretrained(folder)
    return folder


def logits(model: Any) -> Any:
    with torch.inference_mode():
        return model(torch.tensor(IDS)).logits


OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_rslora": True},
    {"use_dora": True},
    {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    {"layers_to_transform": [1]},
    {"bias": "none", "modules_to_save": ["lm_head"]},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_it_changes_the_logits_exactly_as_peft_says(
    tiny: Path, tiny_model: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    from transformers import AutoModelForCausalLM

    folder = write_adapter(tiny, tmp_path / "adapter", **options)
    loaded = load_model(tiny, device="cpu", adapter=folder)
    wrapped = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder).eval()
    torch.testing.assert_close(logits(loaded.model), logits(wrapped), atol=2e-4, rtol=1e-4)
    assert torch.equal(logits(loaded.model), logits(wrapped.merge_and_unload()))
    assert not torch.allclose(logits(loaded.model), logits(tiny_model.model), atol=1e-2)
    assert type(loaded.model) is type(tiny_model.model)
    assert loaded.name == "model+adapter"


def test_before_training_it_changes_nothing(tiny: Path, tiny_model: Any, tmp_path: Path) -> None:
    folder = write_adapter(tiny, tmp_path / "adapter", zero=True)
    loaded = load_model(tiny, device="cpu", adapter=folder)
    assert torch.equal(logits(loaded.model), logits(tiny_model.model))
    assert loaded.digest != tiny_model.digest


def test_the_digest_is_of_base_and_adapter(tiny: Path, tmp_path: Path) -> None:
    first, second = write_adapter(tiny, tmp_path / "one"), write_adapter(tiny, tmp_path / "two", lora_alpha=16)
    digests = {load_model(tiny, device="cpu", adapter=folder).digest for folder in (first, second, first)}
    assert len(digests) == 2


def edit(folder: Path, **values: Any) -> None:
    file = folder / adapters.CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / adapters.WEIGHTS)
    change(weights)
    save_file(weights, folder / adapters.WEIGHTS)


def wider(weights: dict[str, Any]) -> None:
    name = next(name for name in weights if "layers.0" in name and "q_proj.lora_A" in name)
    weights[name] = torch.zeros(4, 128)


def another_layer(weights: dict[str, Any]) -> None:
    name = next(name for name in weights if "layers.2" in name)
    weights[name.replace("layers.2", "layers.7")] = weights.pop(name)


def not_finite(weights: dict[str, Any]) -> None:
    next(iter(weights.values()))[0, 0] = float("nan")


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / adapters.CONFIG).unlink(), "no adapter_config.json"),
    (lambda folder: (folder / adapters.CONFIG).write_text("{"), "not readable as JSON"),
    (lambda folder: (folder / adapters.WEIGHTS).rename(folder / "adapter_model.bin"), "adapter_model.bin is a pickle"),
    (lambda folder: (folder / adapters.WEIGHTS).unlink(), "no adapter_model.safetensors"),
    (lambda folder: (folder / adapters.WEIGHTS).write_bytes(b"x"), "broken safetensors"),
    (lambda folder: edit(folder, peft_type="IA3"), "not a LoRA adapter: 'IA3'"),
    (lambda folder: edit(folder, init_lora_weights="pissa_niter_4"), "changes the base model too"),
    (lambda folder: edit(folder, r=0), "a wrong adapter configuration|does not fit"),
    (lambda folder: edit(folder, r=8), "does not fit this model: .*size mismatch"),
    (lambda folder: edit(folder, target_modules=["c_attn"]), "does not fit this model"),
    (lambda folder: edit(folder, target_modules=["q_proj"]), "does not fit this model: no place for"),
    (lambda folder: edit(folder, target_modules=["q_proj", "v_proj", "down_proj", "o_proj"]), "nothing for .*o_proj"),
    (lambda folder: change_weights(folder, wider), "does not fit this model: .*size mismatch"),
    (lambda folder: change_weights(folder, another_layer), "does not fit this model"),
    (lambda folder: change_weights(folder, not_finite), "the adapter breaks the model"),
]


@pytest.mark.parametrize(("change", "reason"), BROKEN)
def test_an_adapter_that_cannot_be_merged_says_why(
    tiny: Path, tmp_path: Path, change: Callable[[Path], object], reason: str
) -> None:
    folder = write_adapter(tiny, tmp_path / "adapter")
    change(folder)
    with pytest.raises(UsageError, match=reason) as caught:
        load_model(tiny, device="cpu", adapter=folder)
    assert "\n" not in caught.value.message


def test_its_configuration_imports_and_opens_nothing(tiny: Path, tmp_path: Path) -> None:
    """peft would import the module of `megatron_core` and open the files of `corda_config`."""
    folder = write_adapter(tiny, tmp_path / "adapter")
    expected = logits(load_model(tiny, device="cpu", adapter=folder).model)
    edit(folder, megatron_config={"a": 1}, megatron_core="no.such.module", corda_config={"cache_file": "/etc/passwd"})
    assert torch.equal(logits(load_model(tiny, device="cpu", adapter=folder).model), expected)


def test_a_missing_folder_and_a_missing_package(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no adapter_config\.json"):
        load_model(tiny, device="cpu", adapter=tmp_path / "nowhere")
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="peft"):
        load_model(tiny, device="cpu", adapter=tmp_path / "nowhere")
