"""The exported folders in the hands of their users: `datasets` loads them, TRL takes one real step on them."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.export import export
from ttc_replay.storage.exporters.options import ExportOptions

datasets: Any = pytest.importorskip("datasets", reason="the dev extra brings datasets and trl")
torch: Any = pytest.importorskip("torch", reason="trl trains with torch")
transformers: Any = pytest.importorskip("transformers", reason="trl brings it")
tokenizers: Any = pytest.importorskip("tokenizers", reason="transformers brings it")
trl: Any = pytest.importorskip("trl", reason="the dev extra brings datasets and trl")

ARCHIVE = runpy.run_path(str(Path(__file__).parent / "golden_export" / "export_archive.py"))
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def exported(out: Path, form: str, unit: str | None = None) -> Path:
    export(ARCHIVE["build"](), ExportOptions(format=form, out=out, runs=(ARCHIVE["RUN"],), unit=unit))
    return out


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def loaded(out: Path, tmp_path: Path) -> Any:
    return datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))


def tokenizer_for(out: Path) -> Any:
    """A byte-level BPE tokenizer trained on the rows, with the template that the folder ships."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1200, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([json.dumps(row) for row in written(out)], trainer)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    made.chat_template = (out / "chat_template.jinja").read_text(encoding="utf-8")
    return made


def tiny_model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return transformers.Qwen2ForCausalLM(config)


SETTINGS: dict[str, Any] = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "disable_tqdm": True,
}


def said(message: Mapping[str, Any]) -> str:
    """An assistant turn as the template must render it, written out independently of the template."""
    blocks = [message["content"]] if message["content"] else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        blocks.append(f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n</tool_call>')
    return "\n".join(blocks) + "<|im_end|>"


@pytest.mark.parametrize(("form", "unit"), [("trl-sft", None), ("trl-sft", "step"), ("trl-dpo", None)])
def test_load_dataset_gives_every_row_back_verbatim(tmp_path: Path, form: str, unit: str | None) -> None:
    out = exported(tmp_path / "data", form, unit)
    rows = written(out)
    arguments = [
        call["function"]["arguments"]
        for row in rows
        for side in ("prompt", "completion", "chosen", "rejected")
        for message in row.get(side, ())
        for call in message.get("tool_calls", ())
    ]
    assert {} in arguments
    assert {type(given["key"]) for given in arguments if "key" in given} == {int, str}
    assert list(loaded(out, tmp_path)["train"]) == rows


def test_only_train_and_test_are_data(tmp_path: Path) -> None:
    options = ExportOptions("trl-sft", tmp_path / "data", (ARCHIVE["RUN"],), test_fraction=0.4, seed=3)
    report = export(ARCHIVE["build"](), options)
    found = loaded(tmp_path / "data", tmp_path)
    assert {name: len(split) for name, split in found.items()} == report["splits"]
    assert min(report["splits"].values()) > 0
    assert found["train"].column_names == ["prompt", "completion", "tools"]


@pytest.mark.parametrize("unit", ["rest", "step"])
def test_sft_trains_on_what_the_assistant_said_and_on_nothing_else(tmp_path: Path, unit: str) -> None:
    out = exported(tmp_path / "data", "trl-sft", unit)
    settings = json.loads((out / "sft_config.json").read_text())
    settings["chat_template_path"] = str(out / settings["chat_template_path"])
    tokenizer = tokenizer_for(out)
    tokenizer.chat_template = None  # the trainer has to take the one that the settings name
    model = tiny_model(tokenizer)
    before = model.lm_head.weight.detach().clone()
    trainer = trl.SFTTrainer(
        model,
        args=trl.SFTConfig(str(tmp_path / "out"), **settings, **SETTINGS),
        train_dataset=loaded(out, tmp_path)["train"],
        processing_class=tokenizer,
    )
    assert len(trainer.train_dataset) == len(written(out))
    for row, tokens in zip(written(out), trainer.train_dataset, strict=True):
        assert len(tokens["input_ids"]) <= settings["max_length"]
        learned = [token for token, label in zip(tokens["input_ids"], tokens["labels"], strict=True) if label != -100]
        expected = [said(message) for message in row["completion"] if message["role"] == "assistant"]
        assert tokenizer.decode(learned) == "".join(expected)
        assert len(learned) < len(tokens["input_ids"])
    result = trainer.train()
    assert 0.0 < result.training_loss < 20.0
    assert not torch.equal(before, model.lm_head.weight)


@pytest.mark.filterwarnings(  # trl 1.16 still asks transformers 5.23 by the old name; nothing here can change that
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
def test_dpo_trains_on_one_message_a_side(tmp_path: Path) -> None:
    out = exported(tmp_path / "data", "trl-dpo")
    settings = json.loads((out / "dpo_config.json").read_text())
    tokenizer = tokenizer_for(out)
    model = tiny_model(tokenizer)
    trainer = trl.DPOTrainer(
        model,
        ref_model=tiny_model(tokenizer),
        args=trl.DPOConfig(str(tmp_path / "out"), **settings, **SETTINGS),
        train_dataset=loaded(out, tmp_path)["train"],
        processing_class=tokenizer,
    )
    rows = written(out)
    assert len(trainer.train_dataset) == len(rows)
    for row, tokens in zip(rows, trainer.train_dataset, strict=True):
        assert tokenizer.decode(tokens["chosen_ids"]) == said(row["chosen"][0]) + "\n"
        assert tokenizer.decode(tokens["rejected_ids"]) == said(row["rejected"][0]) + "\n"
        assert row["prompt"][-1]["content"] in tokenizer.decode(tokens["prompt_ids"])
    result = trainer.train()
    assert result.training_loss == pytest.approx(0.6931, abs=1e-3)  # ln 2: model and reference are still the same


def test_the_template_leaves_turns_of_weight_zero_out_of_the_mask(tmp_path: Path) -> None:
    out = exported(tmp_path / "data", "trl-sft")
    tokenizer = tokenizer_for(out)
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "bad move", "weight": 0},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "good move", "weight": 1, "reasoning_content": "think"},
    ]
    made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    learned = [token for token, kept in zip(made["input_ids"], made["assistant_masks"], strict=True) if kept]
    assert tokenizer.decode(learned) == "<think>\nthink\n</think>\n\ngood move<|im_end|>"


def test_the_template_renders_a_prompt_as_a_prefix_of_the_whole(tmp_path: Path) -> None:
    out = exported(tmp_path / "data", "trl-sft", "step")
    tokenizer = tokenizer_for(out)
    for row in written(out):
        start = tokenizer.apply_chat_template(
            row["prompt"], tools=row["tools"], tokenize=False, add_generation_prompt=True
        )
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tools=row["tools"], tokenize=False)
        assert whole.startswith(start)
        assert ("# Tools" in whole) == bool(row["tools"])
